"""A training in the shape in which `Runner` runs methods."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from napari_lfm.core.events import Result
from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.widgets import train_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class TrainingJob:
    """One training; its last event, the model, is handed on as the state of a `Result`.

    Parameters
    ----------
    go_on : bool
        Go on with the training that was begun before, to the wish's minutes.
    layers : sequence
        Stacks or pairs of the viewer, where the wish names some.
    """

    def __init__(self, go_on: bool = False, layers: Sequence[Any] = ()) -> None:
        self.go_on, self.layers = go_on, layers
        self.trouble: Problem | None = None
        """What went wrong while the state was saved on Stop."""
        self.installed = False
        """Whether there is a model of it in the end."""

    def _trainer(self) -> Any:
        """Return the module that trains."""
        return train_input.service()

    def _begin(self, trainer: Any, request: Any) -> Any:
        """Return the generator of the training's events."""
        return trainer.run_training(request, resume=self.go_on)

    def run(self, request: Any) -> Iterator[Any]:
        """Yield `Progress`, `Validated` and, at the end, `Result` (worker thread)."""
        trainer = self._trainer()
        events = self._begin(trainer, request)
        try:
            for event in events:
                if isinstance(event, trainer.TrainedModel):
                    yield Result({}, "", {}, state=event)
                else:
                    yield event
        finally:  # also after Stop: what is there is saved now
            try:
                events.close()
            except LfmError as error:
                self.trouble = error.problem()
            self.installed = is_installed(request.id)
            _clear(trainer.training_folder(request.id), set(getattr(trainer, "LEFTOVERS", {trainer.RECORD})))
            _clear(user_model_dir() / request.id, set())


def is_installed(name: str) -> bool:
    """Return whether the user has a model of this name that can be used."""
    return any(e.source == "user" and e.card.id == name and not e.problem for e in list_models())


def _clear(folder: Path, records: set[str]) -> None:
    """Remove what a training leaves that never came to a checkpoint: its name is free again."""
    with contextlib.suppress(OSError):
        left = {p.name for p in folder.iterdir()}
        if left <= records:
            for name in left:
                (folder / name).unlink()
            folder.rmdir()
