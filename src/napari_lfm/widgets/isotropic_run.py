"""Runs of the *Restore isotropic* panel: train and restore, restore, stop, and what is left in the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import xarray as xr
from qtpy.QtCore import QTimer

from napari_lfm.core.events import Preview, Progress
from napari_lfm.core.labelled import spacing_of
from napari_lfm.networks.catalogue import list_models
from napari_lfm.training.events import Validated
from napari_lfm.widgets.isotropic_layers import PRIMARY, IsotropicLayers
from napari_lfm.widgets.isotropic_texts import LATERAL, end_html, share_html
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.results import input_name, result_of
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.texts import shape_text
from napari_lfm.widgets.train_course import Course

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_lfm.core.events import Result
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.widgets.isotropic import IsotropicController


def service() -> Callable[[Request], Iterator[Any]]:
    """Return what trains and restores; it needs torch (worker thread)."""
    from napari_lfm.methods.isotropic.job import restore_after_training

    return restore_after_training


class IsotropicJob:
    """One run in the shape in which `Runner` runs methods."""

    def __init__(self) -> None:
        self.stage = "preparing"
        """Also ``training`` and ``restoring``: what Stop ends."""
        self.model_id = ""
        """Of the network that was trained; empty while there is none."""

    def run(self, request: Request) -> Iterator[Any]:
        """Yield what the method yields, but for the trained model (worker thread)."""
        import_torch_gently()
        from napari_lfm.methods.train_lfmnet import TrainedModel

        before = _own_models()
        events = service()(request)
        try:
            for event in events:
                if isinstance(event, TrainedModel):
                    self.stage = "restoring"
                    continue
                if isinstance(event, Validated) or (isinstance(event, Progress) and "share" in event.values):
                    self.stage = "training"
                elif isinstance(event, Preview):
                    self.stage = "restoring"
                yield event
        finally:  # also after Stop: the best network is saved now
            close = getattr(events, "close", None)
            if close is not None:
                close()
            self.model_id = next(iter(_own_models() - before), "")


def _own_models() -> set[str]:
    return {e.card.id for e in list_models("isotropic") if e.source == "user" and not e.problem}


class IsotropicRuns:
    """Starts runs, follows them, and shows what they leave.

    Parameters
    ----------
    control : IsotropicController
    """

    def __init__(self, control: IsotropicController) -> None:
        self.control, self.view, self.session = control, control.view, control.session
        self.runner = Runner(control.panel.crew, control.panel)
        self.layers = IsotropicLayers(self.session.viewer)
        self.course: Course | None = None
        self.outcome: Outcome | None = None
        self.result: Result | None = None
        self._job = IsotropicJob()
        self._pixel_um = 0.0
        self._restore_then = False
        row = self.view.run_row
        row.run_clicked.connect(lambda: self.control.start(trained=True))
        row.continue_clicked.connect(self._restore)
        row.stop_clicked.connect(self.stop)
        self.runner.started.connect(control.show_buttons)
        self.runner.progressed.connect(self._on_events)
        self.runner.previewed.connect(self._on_preview)
        self.runner.finished.connect(self._on_finished)

    @property
    def is_training(self) -> bool:
        """Whether a network is being trained."""
        return self.runner.is_running and self._trains and self._job.stage != "restoring"

    @property
    def has_network(self) -> bool:
        """Whether the training has made a network already."""
        return self.course is not None and self.course.step > 0 and self.course.best is not None

    @property
    def _trains(self) -> bool:
        return self.course is not None

    # ---------------------------------------------------------------------- run
    def start(self, request: Request, minutes: float, world: dict[str, str]) -> None:
        """Train for so many minutes, 0 for none, and restore."""
        self._job, self._restore_then = IsotropicJob(), False
        self._pixel_um = abs(spacing_of(request.inputs["image"])["x"])
        self.course = Course(minutes, scoring=LATERAL) if minutes else None
        self.control.lay_over()
        self.view.forget_result()
        self.layers.begin(input_name(request), go_on=False, world=world)
        self.view.run_row.show_start(keep_curve=False)
        if self.course is None:
            self.view.course_box.setVisible(False)
        else:
            self.view.show_slices(self.course, 0.0)
            self.view.show_course(self.course)
            self._scroll(self.view.course_box)
        # the runner asks no more of a method than `run`
        self.runner.start(cast("Method", self._job), request)

    def _restore(self) -> None:
        """Restore with the chosen model; in the middle of a training, with the best network so far."""
        if not self.runner.is_running:
            self.control.start(trained=False)
        elif self.is_training:
            self._restore_then = True
            self.stop()

    def stop(self) -> None:
        """End the run after its present step; what is there is kept."""
        if self.runner.is_running:
            self.runner.stop()
            kept = ", and keeping the best network so far" if self.is_training else ""
            self.view.run_row.text.show_text(f"Stopping after this step{kept}...")
            self.control.show_buttons()

    def _scroll(self, box: Any) -> None:
        def scroll() -> None:
            if not self.control.panel.crew.closed:
                self.view.scroll_to(box)

        QTimer.singleShot(100, scroll)  # it has no size before the event loop has come round

    # ------------------------------------------------------------------- events
    def _on_events(self, events: Sequence[Any]) -> None:
        now, validated, trained = time.monotonic(), False, False
        for event in events:
            if self.course is not None:
                self.course.take(event, now)
            validated = validated or isinstance(event, Validated)
            trained = trained or validated or "share" in event.values
        last = events[-1]
        progress = last.progress if isinstance(last, Validated) else last
        if not self.runner.is_stopping:
            if self.course is not None and "share" in progress.values:
                self.view.run_row.show_training(progress, self.course)
            else:
                self.view.run_row.show_progress([progress])
        if self.course is not None and trained:
            self.view.show_course(self.course)
        if validated and self.course is not None:
            first = not self.view.slices.labels
            self.view.show_slices(self.course, self._pixel_um)
            if first:  # the box has grown out of sight
                self._scroll(self.view.course_box)
            self.session.models_changed.emit()  # the best so far is in the list already
        self.control.show_buttons()

    def _on_preview(self, ready: Any) -> None:
        self.layers.show_preview(ready)

    def _on_finished(self, outcome: Outcome) -> None:
        self.outcome, row = outcome, self.view.run_row
        if outcome.result is not None:
            self.layers.add(outcome.result, None if outcome.preview is None else outcome.preview.limits)
        elif outcome.preview is not None:
            self.layers.keep(outcome.preview, outcome.preview.preview.provenance)
        self.layers.end()
        if outcome.status == "failed" or outcome.problem is not None:
            row.show_done("failed", outcome.seconds, "", outcome.problem)
        else:
            if row.bar.maximum() == 0:
                row.bar.setRange(0, 1)
            if outcome.status == "finished":
                row.bar.setValue(row.bar.maximum())
                row.bar.setFormat("")
            job, kept = self._job, outcome.preview is not None
            row.text.show_text(end_html(outcome.status, outcome.seconds, job.model_id, job.stage, kept))
        if self._job.model_id:
            self.session.models_changed.emit()
            self.control.models.choose(self._job.model_id)
        if outcome.result is not None or outcome.preview is not None:
            self._take(outcome)
        self.control.show_buttons()
        self.control.schedule()
        if self._restore_then and self._job.model_id:
            self.control.start(trained=False)

    def _take(self, outcome: Outcome) -> None:
        """Offer what a run has left."""
        self.result = None
        self.control.export.name = input_name(outcome.request)
        # fingerprints of the inputs take a moment: off the GUI thread
        self.control.panel.background.submit(
            "result", lambda: result_of(outcome), self._have, self.control.export.tell
        )

    def _have(self, result: Result) -> None:
        self.result = self.control.export.result = result
        image = result.outputs[result.primary]
        assert isinstance(image, xr.DataArray)
        figures = result.provenance.get("figures") or {}
        self.view.show_result(f"<b>{PRIMARY}:</b> {shape_text(image)}", share_html(figures))
        self._scroll(self.view.result_box)
        if self.outcome is not None and self.outcome.status == "finished":
            self.control.export.save_by_itself()
