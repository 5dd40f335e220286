"""Training of isotropic restoration: on the very stack that is to be restored, or on simulated slices.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.isotropic.blur import LOOKING_AT_BLUR
from napari_lfm.methods.isotropic.start import named_model
from napari_lfm.methods.train_isotropic_card import TrainedOn, install
from napari_lfm.methods.train_isotropic_data import (
    IsotropicStack,
    read_isotropic_stack,
    training_degradation,
    training_frame,
)
from napari_lfm.methods.train_isotropic_wish import (
    IsotropicTuning,
    IsotropicWish,
    config_of,
    make_isotropic_wish,
    patches_plan_of,
    plan_of,
    pooled_of,
    simulated_plan_of,
)
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
from napari_lfm.methods.waiting import waited_for
from napari_lfm.networks.card import CARD_FILE
from napari_lfm.networks.catalogue import read_model
from napari_lfm.networks.isotropic import make_network
from napari_lfm.networks.weights import load_weights
from napari_lfm.training.checkpoint import LAST
from napari_lfm.training.events import Validated
from napari_lfm.training.isotropic import IsotropicTask
from napari_lfm.training.isotropic_pooled import patches_of
from napari_lfm.training.isotropic_simulated import SimulatedLateral
from napari_lfm.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import torch

    from napari_lfm.training.isotropic_patches import LateralPatches
    from napari_lfm.training.isotropic_pooled import PooledPatches

__all__ = [
    "RECORD",
    "IsotropicStack",
    "IsotropicTuning",
    "IsotropicWish",
    "TrainedModel",
    "isotropic_folder",
    "make_isotropic_wish",
    "run_isotropic_training",
    "training_folder",
    "wish_on_record",
]

_WIDTHS = "scale."
"""How the weights begin that a network which states widths has beyond one that does not."""


def run_isotropic_training(
    wish: IsotropicWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
    layers: Sequence[IsotropicStack] = (),
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    The first `Validated` comes before the first step: it shows what the model does that is gone on from.

    Parameters
    ----------
    wish : IsotropicWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Of the training; default in the user's folder, by the model's id.
    resume : bool
    model_folder : path, optional
        Default among the user's models.
    recipe : str
        For the card.
    layers : sequence of IsotropicStack
        The stack, where the wish names a layer.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, the stack cannot be used, or the training in the folder is another
        one.
    """
    # a training that has a checkpoint does not need the model any more that it began with
    begun = resume and (isotropic_folder(wish, folder) / LAST).is_file()
    if not resume:
        refuse_taken(wish.id, folder, model_folder)
    # what cannot be read must not leave a folder behind
    data: TrainedOn | None = None
    source: LateralPatches | PooledPatches | SimulatedLateral
    if wish.simulated:
        source = SimulatedLateral(simulated_plan_of(wish), wish.seed)
    else:
        data, source = yield from _own_patches(wish, layers)
    start = None if begun else _start_weights(wish, source.channels)
    task = IsotropicTask(source, plan_of(wish), wish.seed, start)
    task.started = wish.starts
    if resume:
        place, model = resumed_record(wish, isotropic_folder(wish, folder))
    else:
        place, model = new_record(wish, usual_id(wish), folder, model_folder)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    yield Progress(0, 0, f"The model will be '{model.name}'; stopping keeps the best so far")
    spent = 0.0
    if not begun and not wish.simulated:
        first, spent = _first_look(task)
        yield first
    result = yield from installed_as_it_improves(
        train(task, config_of(wish, spent), place, resume=resume),
        lambda: install(wish, task, data, place, model, recipe),
    )
    entry = read_model(model) if (model / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, place)


def usual_id(wish: IsotropicWish) -> str:
    """Return the id of a model that is given none."""
    return id_for("isotropic", wish.name.split(".")[0] if wish.stacks else wish.name)


def isotropic_folder(wish: IsotropicWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant; the latest of this stack where nothing says it."""
    if folder is not None:
        return Path(folder).expanduser()
    return training_folder(wish.id) if wish.id else latest_folder(usual_id(wish))


def _own_patches(
    wish: IsotropicWish, layers: Sequence[IsotropicStack]
) -> Generator[Progress, None, tuple[TrainedOn, LateralPatches | PooledPatches]]:
    """Return the stack and its patches."""
    data: TrainedOn | None = None
    for step in _data(wish, layers):
        if isinstance(step, Progress):
            yield step
        else:
            data = step
    assert data is not None
    given = data
    source = yield from waited_for(
        lambda: patches_of(given.frame.values, given.degradation, patches_plan_of(wish), pooled_of(wish)),
        "Looking for places with signal",
    )
    return given, source


def _data(wish: IsotropicWish, layers: Sequence[IsotropicStack]) -> Iterator[Progress | TrainedOn]:
    """Read the stack, and find its blur."""
    from napari_lfm.io.provenance import fingerprint

    if wish.stacks:
        yield Progress(0, 1, f"Reading {wish.name}")
    stack = read_isotropic_stack(wish, layers)
    frame = training_frame(wish, stack.image)
    image = stack.image.isel(t=frame.frame) if "t" in stack.image.dims else stack.image
    degradation, blur = yield from waited_for(
        lambda: training_degradation(wish, stack, frame),
        LOOKING_AT_BLUR if stack.blur is None else "Looking at the noise",
    )
    if stack.blur is None:
        yield Progress(0, 0, blur.sentence)
    yield TrainedOn(stack.name, frame, degradation, blur, fingerprint(image))


def _start_weights(wish: IsotropicWish, channels: int) -> dict[str, torch.Tensor] | None:
    """Return the weights to go on from.

    Raises
    ------
    RequestError
        If there is no such model, or its network is another one.
    """
    if not wish.starts:
        return None
    entry = named_model(wish.start_from)
    assert entry is not None
    arguments = plan_of(wish).network
    if "channels" in entry.card.network or channels > 1:
        arguments = {**arguments, "channels": channels}
    mine = make_network(wish.architecture, arguments).state_dict()
    weights = load_weights(entry.folder, entry.card)
    # a network that also states widths begins them anew
    weights = {**{k: v for k, v in mine.items() if k.startswith(_WIDTHS)}, **weights}
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in weights.items()}:
        raise RequestError(
            f"The network of '{wish.start_from}' is another one than the one to be trained.",
            "Leave start_from out, or take its network and channels.",
        )
    return weights


def _first_look(task: IsotropicTask) -> tuple[Validated, float]:
    """Return how good the network is before it is trained, and the seconds that the look took."""
    import torch

    begun = time.perf_counter()
    modules = task.modules
    with torch.no_grad():
        for module in modules.values():
            module.eval()
        found = task.validate(modules)
        for module in modules.values():
            module.train()
    values = {k: float(v) for k, v in found.values.items()}
    progress = Progress(0, 0, "Validated", None, values)
    look = Validated(0, float(found.score), float(found.score), 0, values, found.images, progress)
    return look, time.perf_counter() - begun
