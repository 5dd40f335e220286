"""Where a training lives: its folder, its record to go on from, the id and folder of its model."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_lfm.core.problems import LfmError, RequestError, raise_for
from napari_lfm.io.atomic import check_output, replacing_file
from napari_lfm.methods.train_plan import make_plan, make_settings
from napari_lfm.networks.card import CARD_FILE, is_valid_id
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.training.checkpoint import LAST, plain
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.lfmnet_plan import plan_of_record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from pydantic import BaseModel

    from napari_lfm.core.events import Progress
    from napari_lfm.methods.train_wish import TrainWish
    from napari_lfm.training.config import TrainConfig
    from napari_lfm.training.lfmnet_plan import LfmnetPlan

RECORD = "training.json"
MAY_CHANGE = frozenset({"minutes", "steps", "device", "title", "id"})
"""Entries of a wish that may be others when a training goes on."""
_LOOP_ONLY = frozenset(
    {"validate_every_s", "validate_every_steps", "checkpoint_every_s", "prefetch", "patience"}
)


@dataclass(frozen=True)
class Job:
    """A training with its places."""

    wish: TrainWish
    plan: LfmnetPlan
    config: TrainConfig
    folder: Path
    model_folder: Path


def training_folder(id: str) -> Path:
    """Return the usual folder of the training of model `id`: beside the user's models."""
    return user_model_dir().parent / "trainings" / id


def installed_as_it_improves(
    events: Iterator[Progress | Validated | TrainResult], install: Callable[[], object]
) -> Generator[Progress | Validated, None, TrainResult | None]:
    """Pass on what a training says, and install its model at every best validation, when stopped, at the end.

    Parameters
    ----------
    events : iterator
        Of the training loop.
    install : callable
        Writes the model of the best weights, if there are any.

    Returns
    -------
    TrainResult or None
        Of ``yield from``.
    """
    running = cast("Generator[Progress | Validated | TrainResult]", events)
    result: TrainResult | None = None
    try:
        for event in running:
            if isinstance(event, TrainResult):
                result = event
                continue
            if isinstance(event, Validated) and event.best_step == event.step:
                # it is in the list of models as soon as there is something to use
                with contextlib.suppress(LfmError):  # a full disk: it is tried again, and told, at the end
                    install()
            yield event
    except (GeneratorExit, KeyboardInterrupt):
        running.close()
        install()
        raise
    install()
    return result


def discard(job: Job) -> None:
    """Remove the record of a training that never began."""
    if not (job.folder / LAST).exists():
        with contextlib.suppress(OSError):
            (job.folder / RECORD).unlink(missing_ok=True)
            job.folder.rmdir()


def new_job(wish: TrainWish, folder: str | Path | None, model_folder: str | Path | None) -> Job:
    """Choose the places of a new training, and write its record there.

    Raises
    ------
    RequestError
        If the model is being trained already, or a place cannot be written to.
    """
    model = Path(model_folder).expanduser() if model_folder is not None else None
    id = wish.id or (model.name if model is not None else free_id(_usual_id(wish)))
    place = Path(folder).expanduser() if folder is not None else training_folder(id)
    if not is_valid_id(id):
        raise RequestError(
            f"'{id}' cannot be the id of a model.", "Use letters, digits, and . _ + - between them."
        )
    if (place / RECORD).is_file() or (place / LAST).is_file():
        raise RequestError(
            f"There is a training in {place} already.", "Resume it, or give another id or folder."
        )
    if model is not None and (model / CARD_FILE).is_file():
        raise RequestError(f"There is a model in {model} already.", "Give another folder.")
    job = Job(wish, make_plan(wish), make_settings(wish), place, model or user_model_dir() / id)
    writable(job.folder)
    writable(job.model_folder.absolute().parent)
    record = {
        "wish": wish.model_dump(mode="json"),
        "plan": job.plan.record(),
        "model_folder": str(job.model_folder.absolute()),
    }
    with replacing_file(job.folder / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    return job


def resumed_job(wish: TrainWish, folder: str | Path | None) -> Job:
    """Find the training to go on with.

    Raises
    ------
    RequestError
        If there is none, its record is damaged, or it was asked for with other settings.
    """
    place = place_of(wish, folder)
    record = _record(place)
    before, plan, model = record["wish"], plan_of_record(record["plan"]), Path(record["model_folder"])
    now = wish.model_dump(mode="json")
    for values in (before, now):
        values["tuning"] = {k: v for k, v in values.get("tuning", {}).items() if k not in _LOOP_ONLY}
    different = [
        k for k in now if k not in MAY_CHANGE | {"compare"} and plain(before.get(k)) != plain(now[k])
    ]
    if different:
        raise RequestError(
            f"The training in {place} is another one: {', '.join(different)} "
            f"{'was' if len(different) == 1 else 'were'} different.",
            "Go on with the same settings, or train into another folder.",
        )
    return Job(wish, plan, make_settings(wish), place, model)


def _latest(wish: TrainWish) -> Path:
    """Return the folder of the training that is meant where no folder is given."""
    if wish.id:
        return training_folder(wish.id)
    return latest_folder(_usual_id(wish))


def latest_folder(usual_id: str) -> Path:
    """Return the folder of the latest training whose id was chosen by `free_id`."""
    usual = training_folder(usual_id)
    found = [p.parent for p in usual.parent.glob(f"{usual.name}*/{RECORD}")]
    same = [p for p in found if p.name == usual.name or p.name[len(usual.name) + 1 :].isdigit()]
    return max(same, key=lambda p: (p / RECORD).stat().st_mtime, default=usual)


def recorded_wish(folder: str | Path | None, id: str = "", microscope: Any = None) -> dict[str, Any]:
    """Return what an earlier training was asked for, JSON-ready.

    Parameters
    ----------
    folder : path or None
        Of the training; else it is found by the model's id, or is the latest of the microscope.
    id : str
    microscope : Microscope, name or path, optional

    Raises
    ------
    RequestError
        If there is no such training.
    """
    from napari_lfm.methods.train_wish import make_wish

    if folder is not None:
        place = Path(folder).expanduser()
    elif id:
        place = training_folder(id)
    else:
        place = _latest(make_wish({"microscope": microscope}))
    return dict(_record(place)["wish"])


def place_of(wish: TrainWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant; the latest of the microscope where nothing says it."""
    return _latest(wish) if folder is None else Path(folder).expanduser()


def model_folder_of(place: Path) -> Path:
    """Return where the model of a training is; raises as `resumed_job`."""
    return Path(_record(place)["model_folder"])


def _record(place: Path) -> dict[str, Any]:
    return read_record(place, "plan")


def new_record(
    wish: BaseModel, usual: str, folder: str | Path | None, model_folder: str | Path | None
) -> tuple[Path, Path]:
    """Choose the folders of a new training and of its model, and write the training's record.

    Parameters
    ----------
    wish : BaseModel
        With an ``id``, which may be empty.
    usual : str
        Id where none is given.
    folder, model_folder : path, optional

    Raises
    ------
    RequestError
        If there is a training or a model already, or a place cannot be written to.
    """
    model = None if model_folder is None else Path(model_folder).expanduser()
    given: str = getattr(wish, "id", "")
    id = given or (model.name if model is not None else free_id(usual))
    place = training_folder(id) if folder is None else Path(folder).expanduser()
    model = model or user_model_dir() / id
    refuse_taken(id, place, model)
    writable(place)
    writable(model.absolute().parent)
    record = {"wish": wish.model_dump(mode="json"), "model_folder": str(model.absolute())}
    with replacing_file(place / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    return place, model


def refuse_taken(id: str, folder: str | Path | None, model_folder: str | Path | None) -> None:
    """Refuse to begin where there is a training or a model already, or a file in the place of a folder.

    Parameters
    ----------
    id : str
        Of the model; empty where it will be a free one.
    folder, model_folder : path, optional
        Default by the id.

    Raises
    ------
    RequestError
        With the reason.
    """
    place = Path(folder).expanduser() if folder is not None else training_folder(id) if id else None
    model = Path(model_folder).expanduser() if model_folder is not None else None
    if model is None and id:
        model = user_model_dir() / id
    if place is not None and ((place / RECORD).is_file() or (place / LAST).is_file()):
        raise RequestError(
            f"There is a training in {place} already.", "Resume it, or give another id or folder."
        )
    if model is not None and (model / CARD_FILE).is_file():
        raise RequestError(f"There is a model in {model} already.", "Give another folder or id.")
    for one in (place, model):
        if one is not None and one.exists() and not one.is_dir():
            raise RequestError(f"{one} is a file and no folder.", "Choose another place.")


def resumed_record(wish: BaseModel, place: Path) -> tuple[Path, Path]:
    """Return the folders of a training to go on with and of its model.

    Raises
    ------
    RequestError
        If there is none, or it was asked for with other settings than those that may change.
    """
    record = read_record(place)
    now = wish.model_dump(mode="json")
    different = [k for k in now if k not in MAY_CHANGE and record["wish"].get(k) != now[k]]
    if different:
        raise RequestError(
            f"The training in {place} is another one: {', '.join(different)} differ.",
            "Go on with the same settings, or train into another folder.",
        )
    return place, Path(record["model_folder"])


def read_record(place: Path, *more: str) -> dict[str, Any]:
    """Return the record of the training in a folder: its wish, its model's folder, and further entries.

    Raises
    ------
    RequestError
        If there is none, or it is damaged.
    """
    path = place / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        return {
            "wish": dict(record["wish"]),
            "model_folder": str(record["model_folder"]),
            **{name: record[name] for name in more},
        }
    except OSError:
        raise RequestError(
            f"There is no training to go on with in {place}.", "Start one, or give the folder of one."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{path} is damaged.", "Train into another folder.") from None


def wish_on_record(folder: Path) -> dict[str, Any]:
    """Return what an earlier training was asked for.

    Raises
    ------
    RequestError
        If there is none in the folder.
    """
    return dict(read_record(folder)["wish"])


def refuse_finished(job: Job, state: Mapping[str, Any]) -> None:
    """Refuse to go on with a training that has had all its minutes or steps."""
    minutes, steps = job.config.minutes, job.config.steps
    if minutes is not None and state["seconds"] >= 60 * minutes:
        raise RequestError(
            f"This training has had its {minutes:g} minutes already.", "Give it more minutes in all to go on."
        )
    if steps is not None and state["step"] >= steps:
        raise RequestError(f"This training has done its {steps} steps already.", "Give it more steps in all.")


def _usual_id(wish: TrainWish) -> str:
    return id_for("lfmnet", wish.microscope.name)


def id_for(kind: str, microscope: str) -> str:
    """Return the usual id of a model for a microscope."""
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "._+-" else "-" for c in microscope)
    return f"{kind}-{kept.strip('.-')[:60] or 'mine'}"


def free_id(id: str) -> str:
    """Return an id that no model and no training has: this one, or with a number behind it."""
    free, k = id, 1
    while is_taken(free) or training_folder(free).exists():
        k += 1
        free = f"{id}-{k}"
    return free


def is_taken(id: str) -> bool:
    """Return whether there is a model of this id."""
    return any(id.lower() in (e.card.id.lower(), e.folder.name.lower()) for e in list_models())


def writable(folder: Path) -> None:
    """Make a folder, and refuse in a sentence where that, or writing into it, cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"The folder {folder} cannot be made: {error.strerror}.", "Choose another place."
        ) from None
    raise_for(check_output(folder / "card.json"))
