"""CISTA-net for a microscope, from its optics alone: simulated neurons, their epipolar images, a network.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a
model. At the end the network finds the neurons of other fields: its scores, and the size of its sigmas.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari_lfm.core.events import Progress
from napari_lfm.methods.localization.card import install_model
from napari_lfm.methods.train_jobs import (
    id_for,
    latest_folder,
    new_record,
    resumed_record,
    training_folder,
    wish_on_record,
)
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_localize_wish import (
    LocalizeTuning,
    LocalizeWish,
    config_of,
    make_localize_wish,
    task_of,
)
from napari_lfm.networks.card import CARD_FILE
from napari_lfm.networks.catalogue import read_model
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = [
    "LocalizeTuning",
    "LocalizeWish",
    "localize_folder",
    "make_localize_wish",
    "run_localize_training",
    "wish_on_record",
]


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
    if resume:
        place, model = resumed_record(wish, localize_folder(wish, folder))
    else:
        place, model = new_record(wish, id_for("cista", wish.microscope.name), folder, model_folder)
    task = task_of(wish)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    events = cast(
        "Generator[Progress | Validated | TrainResult]",
        train(task, config_of(wish), place, resume=resume),
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
        for _ in install_model(wish, task, place, model, recipe):
            pass
        raise
    yield from install_model(wish, task, place, model, recipe)
    entry = read_model(model) if (model / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, place)


def localize_folder(wish: LocalizeWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant."""
    if folder is not None:
        return Path(folder).expanduser()
    usual = id_for("cista", wish.microscope.name)
    return training_folder(wish.id) if wish.id else latest_folder(usual)
