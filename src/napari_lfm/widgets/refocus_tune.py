"""Fine-tuning of the chosen model on the stack that is looked at, from the *Refocus* panel."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, cast

from napari_lfm._settings import load_settings
from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.refocus_models import wide_field
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.texts import coloured
from napari_lfm.widgets.train_job import TrainingJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.base import Method, Request
    from napari_lfm.widgets.refocus import RefocusController
    from napari_lfm.widgets.refocus_input import FlatInput

LEAST_PLANES = 5
_HINT = (
    "Choose a focal stack (z, y, x) of your microscope above: its planes, one as the image and another as "
    "what it should become, teach the model what your objective really does."
)


def trainer() -> Any:
    """Return the module that trains; it needs torch."""
    from napari_lfm.methods import train_refocus

    return train_refocus


class TuningJob(TrainingJob):
    """One fine-tuning on a stack that is in the viewer."""

    def __init__(self, stacks: Sequence[Any]) -> None:
        super().__init__()
        self.stacks = stacks

    def _trainer(self) -> Any:
        return trainer()

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_refocus_training(request, layers=self.stacks)


class Tuning:
    """The box *Fine-tune on this stack*."""

    def __init__(self, control: RefocusController) -> None:
        self.control, self.view, self.session = control, control.view, control.session
        self.runner = Runner(control.panel.crew, control.panel)
        self.wish: Any = None
        self.outcome: Outcome | None = None
        self._job: TuningJob | None = None
        self._words = ""
        self.view.tune_button.clicked.connect(lambda: self.run())
        self.view.tune_stop_button.clicked.connect(lambda: self.stop())
        self.runner.progressed.connect(self._on_events)
        self.runner.finished.connect(self._on_finished)

    def can_run(self, found: FlatInput | None) -> bool:
        """Whether what is looked at is a stack to learn from."""
        return found is not None and found.planes >= LEAST_PLANES and self.control.models.chosen is not None

    def show(self, found: FlatInput | None) -> None:
        """Say what it would learn from."""
        view = self.view
        view.show_tuning(self.runner.is_running, self.can_run(found))
        if found is not None and self.can_run(found):
            step = abs(spacing_of(found.image).get("z", 0.0))
            apart = f"{step:g} {MICROMETRES} apart" if step else "their distance is not known"
            view.tune_hint.show_text(f"<b>{html.escape(found.name)}</b>: {found.planes} planes, {apart}.")
        else:
            view.tune_hint.show_text(_HINT)

    # ----------------------------------------------------------------------- run
    def run(self) -> None:
        """Go on training the chosen model on the stack."""
        found = self.control.found
        if self.runner.is_running or found is None:
            return
        try:
            self._job = self._prepare(found)
        except LfmError as error:
            self.view.tune_text.show_problems([error.problem()])
            return
        self.view.tune_curve.clear()
        self.view.tune_text.show_text("Preparing")
        self.runner.start(cast("Method", self._job), cast("Request", self.wish))
        self.control.show_state()

    def _prepare(self, found: FlatInput) -> TuningJob:
        module = trainer()
        offer = self.control.models.chosen
        assert offer is not None
        image = found.image.isel({d: k for d, k in found.at.items() if d != "z"}, drop=True)
        image = image.transpose("z", "y", "x")
        step = abs(spacing_of(image).get("z", 0.0))
        if not step:
            raise RequestError(
                f"'{found.name}' does not say how far its planes are apart.",
                "Choose it in the panel Reconstruct once, and enter the voxel size there.",
            )
        values = {
            "layers": (found.name,),
            "pixel_um": found.pixel_um,
            "step_um": step,
            "start_from": offer.key,
            "minutes": float(self.view.minutes_box.value()),
            "device": load_settings().device,
            "id": free_name(found.name),
            "title": f"{offer.card.id}, fine-tuned on {found.name}",
        }
        microscope = wide_field(self.session.microscope)
        if microscope is not None:
            values["microscope"] = microscope
        self.wish = module.make_refocus_wish(values)
        return TuningJob([module.NamedStack(found.name, image)])

    def stop(self) -> None:
        """End after the present step; the best so far becomes a model."""
        if self.runner.is_running:
            self.runner.stop()
            self.view.tune_text.show_text("Stopping after this step, and saving...")

    def _on_events(self, events: Sequence[Any]) -> None:
        curve = self.view.tune_curve
        losses = [e.values["loss"] for e in events if "loss" in getattr(e, "values", {})]
        curve.extend(losses)
        curve.setVisible(bool(curve.values))
        for event in events:
            if hasattr(event, "best_score"):
                now = f"validation {event.score:.2f} dB, best {event.best_score:.2f} dB"
                self._words = now
        last = events[-1]
        step = getattr(last, "progress", last)
        left = f", {duration(step.seconds_left)} left" if step.seconds_left is not None else ""
        if not self.runner.is_stopping:
            text = html.escape(step.message) + left
            self.view.tune_text.show_text(f"{text}<br>{self._words}" if self._words else text)

    def _on_finished(self, outcome: Outcome) -> None:
        self.outcome = outcome
        job = self._job
        problem: Problem | None = outcome.problem or (None if job is None else job.trouble)
        made = job is not None and job.installed
        if problem is not None:
            self.view.tune_text.show_problems([problem])
        elif made:
            word = "Done" if outcome.status == "finished" else "Stopped"
            self.view.tune_text.show_text(
                coloured(f"{word} after {duration(outcome.seconds)}.", "good")
                + f" The model '{html.escape(self.wish.id)}' is chosen now. {self._words}"
            )
        else:
            self.view.tune_text.show_text(
                coloured("Stopped before there was anything to keep: give it more minutes.", "warning")
            )
        if made:
            self.session.models_changed.emit()
            self.control.models.choose(self.wish.id)
        self.control.show_state()


def free_name(layer: str) -> str:
    """Return an id for the model of a layer that none has yet."""
    from napari_lfm.methods.train_jobs import training_folder
    from napari_lfm.networks.catalogue import list_models

    base = re.sub(r"[^A-Za-z0-9]+", "-", layer).strip("-").lower()[:40] or "stack"
    taken = {e.card.id.lower() for e in list_models()}
    number, name = 1, f"refocus-{base}"
    while name in taken or training_folder(name).exists():
        number += 1
        name = f"refocus-{base}-{number}"
    return name
