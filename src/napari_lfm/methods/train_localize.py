"""CISTA-net for a microscope, from its optics alone: simulated neurons, their epipolar images, a network.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a
model. At the end the network finds the neurons of other fields: its scores, and the size of its sigmas.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.methods.localization.card import install_model
from napari_lfm.methods.train_jobs import RECORD, free_id, id_for, read_record, training_folder, writable
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_localize_wish import (
    LocalizeTuning,
    LocalizeWish,
    config_of,
    make_localize_wish,
    task_of,
)
from napari_lfm.networks.card import CARD_FILE
from napari_lfm.networks.catalogue import read_model, user_model_dir
from napari_lfm.training.checkpoint import LAST
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = [
    "LocalizeTuning",
    "LocalizeWish",
    "localize_folder",
    "make_localize_wish",
    "recorded_localize_wish",
    "run_localize_training",
]

_MAY_CHANGE = frozenset({"minutes", "steps", "device", "title", "id"})


@dataclass(frozen=True)
class _Job:
    wish: LocalizeWish
    folder: Path
    model_folder: Path


def run_localize_training(
    wish: LocalizeWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    Parameters
    ----------
    wish : LocalizeWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Of the training; default in the user's folder, by the model's id.
    resume : bool
    model_folder : path, optional
        Default among the user's models.
    recipe : str
        For the card.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, or the training in the folder is another one.
    """
    job = _resumed(wish, folder) if resume else _new(wish, folder, model_folder)
    task = task_of(wish)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    events = cast(
        "Generator[Progress | Validated | TrainResult]",
        train(task, config_of(wish), job.folder, resume=resume),
    )
    result: TrainResult | None = None
    try:
        for event in events:
            if isinstance(event, TrainResult):
                result = event
            else:
                yield event
    except (GeneratorExit, KeyboardInterrupt):
        events.close()
        for _ in install_model(wish, task, job.folder, job.model_folder, recipe):
            pass
        raise
    yield from install_model(wish, task, job.folder, job.model_folder, recipe)
    entry = read_model(job.model_folder) if (job.model_folder / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, job.folder)


def recorded_localize_wish(folder: Path) -> dict[str, Any]:
    """Return what an earlier training was asked for.

    Raises
    ------
    RequestError
        If there is none in the folder.
    """
    return dict(read_record(folder)["wish"])


def localize_folder(wish: LocalizeWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant."""
    if folder is not None:
        return Path(folder).expanduser()
    return training_folder(wish.id or id_for("cista", wish.microscope.name))


def _new(wish: LocalizeWish, folder: str | Path | None, model_folder: str | Path | None) -> _Job:
    model = None if model_folder is None else Path(model_folder).expanduser()
    id = wish.id or (model.name if model is not None else free_id(id_for("cista", wish.microscope.name)))
    place = training_folder(id) if folder is None else Path(folder).expanduser()
    if (place / RECORD).is_file() or (place / LAST).is_file():
        raise RequestError(
            f"There is a training in {place} already.", "Resume it, or give another id or folder."
        )
    model = model or user_model_dir() / id
    if (model / CARD_FILE).is_file():
        raise RequestError(f"There is a model in {model} already.", "Give another folder or id.")
    writable(place)
    writable(model.absolute().parent)
    record = {"wish": wish.model_dump(mode="json"), "model_folder": str(model.absolute())}
    with replacing_file(place / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
    return _Job(wish, place, model)


def _resumed(wish: LocalizeWish, folder: str | Path | None) -> _Job:
    place = localize_folder(wish, folder)
    record = read_record(place)
    now = wish.model_dump(mode="json")
    different = [k for k in now if k not in _MAY_CHANGE and record["wish"].get(k) != now[k]]
    if different:
        raise RequestError(
            f"The training in {place} is another one: {', '.join(different)} differ.",
            "Go on with the same settings, or train into another folder.",
        )
    return _Job(wish, place, Path(record["model_folder"]))
