"""Training of virtual refocusing: for a simulated microscope, or on a user's own focal stacks.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.own_stacks import NamedStack, checked_stack, read_stack
from napari_lfm.methods.train_jobs import (
    RECORD,
    id_for,
    installed_as_it_improves,
    latest_folder,
    new_record,
    refuse_taken,
    resumed_record,
    training_folder,
    wish_on_record,
)
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_refocus_card import refocus_card
from napari_lfm.methods.train_refocus_make import make_refocus_wish, start_entry
from napari_lfm.methods.train_refocus_plan import (
    config_of,
    least_pixels,
    microscope_of,
    plan_of,
    simulation_of,
)
from napari_lfm.methods.train_refocus_wish import RefocusTuning, RefocusWish
from napari_lfm.networks.card import CARD_FILE
from napari_lfm.networks.catalogue import read_model
from napari_lfm.networks.weights import load_weights, save_model
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, plain, read_state
from napari_lfm.training.focal_pairs import RecordedFocal
from napari_lfm.training.loop import train
from napari_lfm.training.refocus import RefocusTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.training.events import Validated
    from napari_lfm.training.focal_pairs import FocalSource

__all__ = [
    "RECORD",
    "NamedStack",
    "RefocusTuning",
    "RefocusWish",
    "TrainedModel",
    "install_run",
    "make_refocus_wish",
    "refocus_folder",
    "refocus_task",
    "run_refocus_training",
    "training_folder",
    "wish_on_record",
]

_EMPTY = 0.1
"""Contrast of the columns to validate on, over that of the others, below which scores say little."""
_SIMULATED = (
    "simulated focal stacks (beads, cells in a layer, worm-like bodies full of nuclei, nuclei side by side, "
    "neurons, large soft bodies) of the wide-field and the confocal microscope, noise and haze included; no "
    "recording was used"
)


@dataclass(frozen=True)
class _Data:
    source: FocalSource
    words: str


def run_refocus_training(
    wish: RefocusWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
    layers: Sequence[NamedStack] = (),
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    Parameters
    ----------
    wish : RefocusWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Of the training; default in the user's folder, by the model's id.
    resume : bool
    model_folder : path, optional
        Default among the user's models.
    recipe : str
        For the card.
    layers : sequence of NamedStack
        The stacks, where the wish names layers.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, a stack cannot be used, or the training in the folder is another one.
    """
    # a training that has a checkpoint does not need the model any more that it began with
    begun = resume and (refocus_folder(wish, folder) / LAST).is_file()
    start = None if begun else _start_weights(wish)
    if not resume:
        refuse_taken(wish.id, folder, model_folder)
    # what cannot be read must not leave a folder behind
    data: _Data | None = None
    for step in _data(wish, layers):
        if isinstance(step, Progress):
            yield step
        else:
            data = step
    assert data is not None
    words = data.words
    if resume:
        place, model = resumed_record(wish, refocus_folder(wish, folder))
    else:
        place, model = new_record(wish, usual_id(wish), folder, model_folder)
    task = RefocusTask(data.source, plan_of(wish), wish.seed, start)
    task.started = bool(wish.start_from)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    result = yield from installed_as_it_improves(
        train(task, config_of(wish), place, resume=resume),
        lambda: _install(wish, task, words, place, model, recipe),
    )
    entry = read_model(model) if (model / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, place)


def install_run(
    wish: RefocusWish,
    run_folder: str | Path,
    model_folder: str | Path,
    recipe: str = "",
    layers: Sequence[NamedStack] = (),
    earlier_run: str | Path | None = None,
    **entries: Any,
) -> ModelCard:
    """Write card and weights of a run that is there already.

    Parameters
    ----------
    wish : RefocusWish
        That describes the run.
    run_folder, model_folder : path
    recipe : str
        For the card.
    layers : sequence of NamedStack
        The stacks, where the wish names layers.
    earlier_run : path, optional
        Folder of the run whose weights this one went on from, of the same network and another plan: its time,
        its steps and what was different are written down, too.
    **entries
        Other entries of the card, e.g. ``licence``.

    Raises
    ------
    RequestError
        If there is no run, or it was another one than the wish describes.
    """
    run, model = Path(run_folder).expanduser(), Path(model_folder).expanduser()
    words, task = refocus_task(wish, layers)
    before = None if earlier_run is None else read_state(Path(earlier_run).expanduser() / LAST)
    task.started = task.started or before is not None
    found, wanted = read_state(run / BEST)["task"], plain(task.describe())
    different = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
    if different:
        raise RequestError(
            f"The training in {run} is another one: {', '.join(different)} differ.",
            "Describe it as it was.",
        )
    return _install(wish, task, words, run, model, recipe, entries, before)


def refocus_task(wish: RefocusWish, layers: Sequence[NamedStack] = ()) -> tuple[str, RefocusTask]:
    """Return what a wish is trained on, in words, and its task, with random weights, not prepared."""
    data = next(step for step in _data(wish, layers) if isinstance(step, _Data))
    task = RefocusTask(data.source, plan_of(wish), wish.seed)
    task.started = bool(wish.start_from)
    return data.words, task


def usual_id(wish: RefocusWish) -> str:
    """Return the id of a model that is given none."""
    if wish.stacks:
        name = Path(wish.stacks[0]).name
        return id_for("refocus", name.split(".")[0])
    if wish.layers:
        return id_for("refocus", wish.layers[0])
    return id_for("refocus", microscope_of(wish).name.removeprefix("wf-"))


def refocus_folder(wish: RefocusWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant; the latest of these stacks where nothing says it."""
    if folder is not None:
        return Path(folder).expanduser()
    return training_folder(wish.id) if wish.id else latest_folder(usual_id(wish))


def _data(wish: RefocusWish, layers: Sequence[NamedStack]) -> Iterator[Progress | _Data]:
    """Read and check the stacks, or set up the simulation."""
    if wish.is_simulated:
        yield _Data(simulation_of(wish), _SIMULATED)
        return
    if wish.layers and {s.name for s in layers} != set(wish.layers):
        raise RequestError(
            f"The stacks that this training is for are not all here: {', '.join(wish.layers)}.",
            "Open them again, under these names.",
        )
    count = len(wish.stacks or wish.layers)
    wide: list[tuple[str, Any]] = []
    confocal: list[Any] = []
    for k in range(count):
        named = layers[k] if wish.layers else None
        name = Path(wish.stacks[k]).name if named is None else named.name
        yield Progress(k, count, f"Reading {name}")
        if named is None:
            named = read_stack(wish.stacks[k], wish.confocal[k] if wish.confocal else None)
        values, other = checked_stack(named, wish.pixel_um, wish.step_um, wish.reverse, least_pixels(wish))
        wide.append((name, values))
        confocal += [] if other is None else [other]
    if confocal and len(confocal) < count:
        raise RequestError(
            f"{len(confocal)} of the {count} stacks have a confocal one.", "Give one for each, or none."
        )
    source = RecordedFocal(
        wide, wish.optics, wish.pixel_um, wish.step_um, confocal or None, least_pixels(wish)
    )
    planes = ", ".join(str(len(values)) for _, values in wide)
    what = "1 focal stack" if count == 1 else f"{count} focal stacks"
    names = ", ".join(name for name, _ in wide[:4]) + (", ..." if count > 4 else "")
    words = f"{what} of the user ({names}), {planes} planes {wish.step_um:g} um apart"
    words += ", with registered confocal stacks" if confocal else ", no confocal one"
    if all(_is_empty(held.widefield, held.columns) for held in source.validation()):
        empty = "the last fifth of the columns is nearly empty: scores say little"
        yield Progress(count, count, f"{empty[0].upper()}{empty[1:]}")
        words += f"; {empty}"
    yield _Data(source, words)


def _is_empty(stack: torch.Tensor, columns: tuple[int, int] | None) -> bool:
    """Return whether there is hardly anything in these columns, beside what the others hold."""
    first = 0 if columns is None else columns[0]
    held, other = (float(part.float().std()) for part in (stack[..., first:], stack[..., :first]))
    return held < _EMPTY * other


def _start_weights(wish: RefocusWish) -> dict[str, torch.Tensor] | None:
    """Return the weights to go on from.

    Raises
    ------
    RequestError
        If there is no such model, or its network is another one.
    """
    if not wish.start_from:
        return None
    from napari_lfm.networks.refocus import RefocusNet

    entry = start_entry(wish.start_from)
    mine = RefocusNet(**plan_of(wish).network).state_dict()
    weights = load_weights(entry.folder, entry.card)
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in weights.items()}:
        raise RequestError(
            f"The network of '{wish.start_from}' is another one than the one to be trained.",
            "Leave start_from out, or take its widths.",
        )
    return weights


def _install(
    wish: RefocusWish,
    task: RefocusTask,
    words: str,
    run: Path,
    folder: Path,
    recipe: str,
    entries: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
) -> ModelCard:
    """Write the model of the best weights; raises `RequestError` where there are none."""
    card = refocus_card(wish, task, words, run, folder.name, recipe, entries or {}, before)
    return save_model(folder, card, load_module_weights(run / BEST, "network"))
