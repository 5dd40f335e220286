"""What the pages of the *Train* panel have in common: run, watch, stop, continue, and the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QTimer

from napari_lfm.training.events import Validated
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.texts import problems_html
from napari_lfm.widgets.train_course import VOLUMES, Course, Scoring
from napari_lfm.widgets.train_texts import end_words, kept_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.core.events import Progress
    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.training.events import TrainResult
    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.train_job import TrainingJob
    from napari_lfm.widgets.train_page import TrainPage

_PAUSE_MS = 250


class TrainControl:
    """Connects a page with a training; subclasses plan it.

    Parameters
    ----------
    panel : Panel
    page : TrainPage
    """

    scoring: Scoring = VOLUMES
    job_key = "plan"

    def __init__(self, panel: Panel, page: TrainPage) -> None:
        self.panel, self.page, self.session = panel, page, panel.session
        self.background = panel.background
        self.runner = Runner(panel.crew, panel)
        self.plan: Any = None
        self.ready = False
        self.course: Course | None = None
        self.wish: Any = None
        self.outcome: Outcome | None = None
        self._job: TrainingJob | None = None
        self._planned_for: tuple[Any, ...] | None = None
        self._pause = QTimer(panel)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self.prepare)
        row = page.run_row
        page.changed.connect(self._schedule)
        row.run_clicked.connect(self.run)
        row.stop_clicked.connect(self.stop)
        row.continue_clicked.connect(self.go_on)
        panel.listen(self.session.models_changed, self._models_changed)
        self.runner.started.connect(self._show_buttons)
        self.runner.progressed.connect(self._on_events)
        self.runner.finished.connect(self._on_finished)

    # --------------------------------------------------------------------- plan
    def prepare(self) -> None:
        """Find out, off the GUI thread, what the training would take; enable Run where it can start."""
        raise NotImplementedError

    def _circumstances(self) -> tuple[Any, ...]:
        """Return all that a plan depends on, to compare."""
        raise NotImplementedError

    def _make_job(self, go_on: bool) -> TrainingJob:
        raise NotImplementedError

    def _voxel_um(self) -> float:
        """Return the pixel of the validation slices, 0 where it is not known."""
        raise NotImplementedError

    def _schedule(self) -> None:
        if self.ready and self._circumstances() == self._planned_for:
            return  # e.g. a layer that has nothing to do with it was added
        self.ready = False
        self._show_buttons()
        self._pause.start()

    def _models_changed(self) -> None:
        self._planned_for = None  # a name may be taken now
        self._schedule()

    def _take_plan(self, plan: Any, words: str) -> None:
        self.plan, self.ready = plan, plan.wish is not None
        self.page.problems.show_problems(plan.problems)
        self.page.estimate.show_text(words)
        if plan.model_id and not plan.settings.name.strip():
            self.page.show_name(plan.model_id)
        self._show_buttons()

    def _not_ready(self, *problems: Problem) -> None:
        self.ready, self.plan = False, None
        self.page.problems.show_problems(problems)
        self.page.estimate.show_text("")
        self._show_buttons()

    # ---------------------------------------------------------------------- run
    def run(self) -> None:
        """Start the training that was planned."""
        if self.runner.is_running or not self.ready or self.plan is None or self.plan.wish is None:
            return
        wish = self.plan.wish
        self.course = Course(wish.minutes or 0.0, by_steps=wish.steps is not None, scoring=self.scoring)
        self.page.show_slices(self.course, 0.0)
        self._start(wish, go_on=False)

    def go_on(self) -> None:
        """Go on with the last training, or the one that is named, for the form's minutes more."""
        if self.runner.is_running or not self.can_continue:
            return
        earlier = None if self.plan is None else self.plan.earlier
        if earlier is not None and (self.wish is None or self.wish.id != earlier.wish.id):
            self.wish = earlier.wish
            result = earlier.result
            none = Course(0.0, scoring=self.scoring)
            self.course = none if result is None else Course.of(result, self.scoring)
        assert self.wish is not None
        assert self.course is not None
        values = self.page.form.values()
        minutes = self.course.elapsed + float(values["minutes"])
        steps = None if values["steps"] is None else self.course.step + int(values["steps"])
        self.course.go_on(minutes, by_steps=steps is not None)
        self._start(self.wish.model_copy(update={"minutes": minutes, "steps": steps}), go_on=True)

    def stop(self) -> None:
        """End the training after its present step."""
        if self.runner.is_running:
            self.runner.stop()
            self.page.run_row.text.show_text("Stopping after this step, and saving...")
            self._show_buttons()

    @property
    def can_continue(self) -> bool:
        """Whether there is a training that can go on: the last one, or the one that is named."""
        if self.plan is not None and self.plan.earlier is not None:
            return True
        return self.outcome is not None and self.course is not None and self.course.step > 0

    def _start(self, wish: Any, go_on: bool) -> None:
        assert self.course is not None
        self.wish = wish
        self._job = self._make_job(go_on)
        self.page.run_row.show_start(keep_curve=False)
        self.page.show_course(self.course)
        # it has no size before the event loop has come round
        QTimer.singleShot(100, self._scroll_to_course)
        # the runner asks no more of a method than `run`, and hands the request on as it is
        self.runner.start(cast("Method", self._job), cast("Request", wish))

    def _scroll_to_course(self) -> None:
        if not self.panel.crew.closed:
            self.page.scroll_to_course()

    def _on_events(self, events: Sequence[Progress | Validated]) -> None:
        course, now = self.course, time.monotonic()
        if course is None or not events:
            return
        better = validated = False
        for event in events:
            course.take(event, now)
            if isinstance(event, Validated):
                validated, better = True, better or course.improved
        last = events[-1]
        if not self.runner.is_stopping:
            self.page.run_row.show_training(last.progress if isinstance(last, Validated) else last, course)
        self.page.show_course(course)
        if validated:
            first = not self.page.slices.labels
            self.page.show_slices(course, self._voxel_um())
            if first:  # the box has grown out of sight
                QTimer.singleShot(100, self._scroll_to_course)
        if better:  # it was written to the list of models before we heard of it
            self.session.models_changed.emit()

    def _on_finished(self, outcome: Outcome) -> None:
        self.outcome = outcome
        course, row = self.course, self.page.run_row
        assert course is not None
        assert self._job is not None
        problem = outcome.problem or self._job.trouble
        if problem is not None:
            kept = f"<br>{kept_words(course, self.model_id)}" if self._job.installed else ""
            row.show_end(problems_html([problem]) + kept, "failed", course)
        else:
            text = end_words(outcome.status, course, self.model_id, self._result(), self._job.installed)
            row.show_end(text, outcome.status, course)
        self.session.models_changed.emit()
        self._show_buttons()
        self._schedule()

    @property
    def model_id(self) -> str:
        """Name of the trained model in the list of models."""
        model = None if self.outcome is None or self.outcome.result is None else self.outcome.result.state
        entry = getattr(model, "entry", None)
        if entry is not None:
            return str(entry.card.id)
        return "" if self.wish is None else self.wish.id

    def _result(self) -> TrainResult | None:
        model = None if self.outcome is None or self.outcome.result is None else self.outcome.result.state
        result: TrainResult | None = getattr(model, "result", None)
        return result

    def _show_buttons(self) -> None:
        self.page.run_row.set_buttons(
            can_run=self.ready,
            running=self.runner.is_running,
            can_continue=self.can_continue,
            stopping=self.runner.is_stopping,
        )
