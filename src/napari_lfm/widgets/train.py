"""The *Train a network* dock widget: its controller, and the widget that napari shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QTimer

from napari_lfm._settings import load_settings
from napari_lfm.training.events import Validated
from napari_lfm.widgets.microscope_choice import MicroscopeChoice
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.resolve import microscope_problems
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.state import ReconstructState
from napari_lfm.widgets.texts import problems_html
from napari_lfm.widgets.train_course import Course
from napari_lfm.widgets.train_input import (
    TrainPlan,
    TrainSettings,
    plan_training,
    settings_of,
    suggested,
)
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_texts import end_words, estimate_html, kept_words
from napari_lfm.widgets.train_view import TrainView
from napari_lfm.widgets.train_white import METHOD, WhiteFits, WhiteSource

if TYPE_CHECKING:
    from napari import Viewer

    from napari_lfm.core.events import Progress
    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.methods.train_lfmnet import TrainWish
    from napari_lfm.training.events import TrainResult

TITLE = "Train a network"
_PAUSE_MS = 250
_JOB = "plan"


class TrainController:
    """Connects the view with the session: plan, run, watch, stop, continue."""

    def __init__(self, panel: TrainWidget, view: TrainView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.runner = Runner(panel.crew, panel)
        self.plan: TrainPlan | None = None
        self.ready = False
        self.course: Course | None = None
        self.wish: TrainWish | None = None
        self.outcome: Outcome | None = None
        self._job = TrainingJob()
        self._fits = WhiteFits()
        self._suggested: dict[str, Any] = {}
        self._planned_for: tuple[Any, ...] | None = None
        self._pause = QTimer(panel)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self.prepare)
        self.microscopes = MicroscopeChoice(panel, view.microscope, self._follow_microscope)
        self._connect()
        self._show_white()
        self.microscopes.choose_default()
        self._follow_microscope()

    def _connect(self) -> None:
        view, session, row = self.view, self.session, self.view.run_row
        view.changed.connect(self._schedule)
        row.run_clicked.connect(self.run)
        row.stop_clicked.connect(self.stop)
        row.continue_clicked.connect(self.go_on)
        self.panel.listen(session.microscope_changed, self._follow_microscope)
        self.panel.listen(session.inputs_changed, self._show_white)
        self.panel.listen(session.layers_changed, self._show_white)
        self.panel.listen(session.lattice_changed, self._schedule)
        self.panel.listen(session.models_changed, self._models_changed)
        self.runner.started.connect(self._show_buttons)
        self.runner.progressed.connect(self._on_events)
        self.runner.finished.connect(self._on_finished)

    # --------------------------------------------------------------- microscope
    def choose_microscope(self, name: str) -> None:
        """Use a preset, one of the user's own, or a file; the other panels follow."""
        self.microscopes.choose(name)

    def _follow_microscope(self) -> None:
        self.microscopes.show()
        self._suggest()
        self._schedule()

    def _suggest(self) -> None:
        """Fill in depths that suit the microscope, unless the user has set others."""
        microscope = self.session.microscope
        if microscope is None or microscope_problems(microscope):
            return
        now = self.view.form.values()
        if all(now.get(name) == value for name, value in self._suggested.items()):
            self._suggested = suggested(microscope)
            self.view.show_values(self._suggested)

    def _show_white(self) -> None:
        whole = self.session.input("lightfield") is not None
        self.view.show_white(self.session.input_name("white") if whole else "")
        self._schedule()

    # --------------------------------------------------------------------- plan
    def white_source(self) -> WhiteSource | None:
        """Return what the pupil is to be fitted to, None where the user does not want it."""
        session = self.session
        if not self.view.white_box.isChecked() or session.input("white") is None:
            return None
        state = ReconstructState(
            method=METHOD,
            lightfield=session.input_name("lightfield"),
            white=session.input_name("white"),
            dark=session.input_name("dark"),
            microscope=session.microscope,
            lattice=session.lattice,
            layout=session.layout,
            frame=session.frame or 0,
        )
        names = {state.lightfield, state.white, state.dark}
        return WhiteSource(state, {k: v for k, v in session.infos().items() if k in names})

    def _circumstances(self) -> tuple[Any, ...]:
        """Return all that a plan depends on, to compare."""
        source = self.white_source()
        layers = [] if source is None else [id(info.data) for info in source.layers.values()]
        state = None if source is None else source.state
        return self.view.form.values(), self.session.microscope, state, layers

    def _schedule(self) -> None:
        if self.ready and self._circumstances() == self._planned_for:
            return  # e.g. a layer that has nothing to do with it was added
        self.ready = False
        self._show_buttons()
        self._pause.start()

    def _models_changed(self) -> None:
        self._planned_for = None  # a name may be taken now
        self._schedule()

    def prepare(self) -> None:
        """Find out, off the GUI thread, what the training would take; enable Run where it can start."""
        if self.runner.is_running:
            return
        self._pause.stop()
        settings = settings_of(self.view.form.values())
        microscope, source = self.session.microscope, self.white_source()
        problems = microscope_problems(microscope)
        if not isinstance(settings, TrainSettings):
            problems.append(settings)
        if problems or not isinstance(settings, TrainSettings):
            self.background.forget(_JOB)
            self._not_ready(*problems)
            return
        self._planned_for = self._circumstances()
        device = load_settings().device
        self.background.submit(
            _JOB,
            lambda: plan_training(settings, microscope, source, self._fits, device),
            self._planned,
            self._not_ready,
        )

    def _planned(self, plan: TrainPlan) -> None:
        self.plan, self.ready = plan, plan.wish is not None
        self.view.problems.show_problems(plan.problems)
        microscope = self.session.microscope
        self.view.estimate.show_text("" if microscope is None else estimate_html(plan, microscope))
        if plan.model_id and not plan.settings.name.strip():
            self.view.show_name(plan.model_id)
        self._show_buttons()

    def _not_ready(self, *problems: Problem) -> None:
        self.ready, self.plan = False, None
        self.view.problems.show_problems(problems)
        self.view.estimate.show_text("")
        self._show_buttons()

    # ---------------------------------------------------------------------- run
    def run(self) -> None:
        """Start the training that was planned."""
        if self.runner.is_running or not self.ready or self.plan is None or self.plan.wish is None:
            return
        wish = self.plan.wish
        self.course = Course(wish.minutes or 0.0, by_steps=wish.steps is not None)
        self.view.show_slices(self.course, 0.0)
        self._start(wish, go_on=False)

    def go_on(self) -> None:
        """Go on with the last training, or the one that is named, for the form's minutes more."""
        if self.runner.is_running or not self.can_continue:
            return
        earlier = None if self.plan is None else self.plan.earlier
        if earlier is not None and (self.wish is None or self.wish.id != earlier.wish.id):
            self.wish = earlier.wish
            self.course = Course(0.0) if earlier.result is None else Course.of(earlier.result)
        assert self.wish is not None
        assert self.course is not None
        values = self.view.form.values()
        minutes = self.course.elapsed + float(values["minutes"])
        steps = None if values["steps"] is None else self.course.step + int(values["steps"])
        self.course.go_on(minutes, by_steps=steps is not None)
        self._start(self.wish.model_copy(update={"minutes": minutes, "steps": steps}), go_on=True)

    def stop(self) -> None:
        """End the training after its present step."""
        if self.runner.is_running:
            self.runner.stop()
            self.view.run_row.text.show_text("Stopping after this step, and saving...")
            self._show_buttons()

    @property
    def can_continue(self) -> bool:
        """Whether there is a training that can go on: the last one, or the one that is named."""
        if self.plan is not None and self.plan.earlier is not None:
            return True
        return self.outcome is not None and self.course is not None and self.course.step > 0

    def _start(self, wish: TrainWish, go_on: bool) -> None:
        assert self.course is not None
        self.wish, self._job = wish, TrainingJob(go_on)
        self.view.run_row.show_start(keep_curve=False)
        self.view.show_course(self.course)
        # it has no size before the event loop has come round
        QTimer.singleShot(100, self._scroll_to_course)
        # the runner asks no more of a method than `run`, and hands the request on as it is
        self.runner.start(cast("Method", self._job), cast("Request", wish))

    def _scroll_to_course(self) -> None:
        if not self.panel.crew.closed:
            self.view.scroll_to_course()

    def _on_events(self, events: list[Progress | Validated]) -> None:
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
            self.view.run_row.show_training(last.progress if isinstance(last, Validated) else last, course)
        self.view.show_course(course)
        if validated:
            first = not self.view.slices.labels
            self.view.show_slices(course, self._voxel_um())
            if first:  # the box has grown out of sight
                QTimer.singleShot(100, self._scroll_to_course)
        if better:  # it was written to the list of models before we heard of it
            self.session.models_changed.emit()

    def _voxel_um(self) -> float:
        if self.wish is None or self.wish.microscope.lenslet_um is None:
            return 0.0
        return float(self.wish.microscope.lenslet_um / self.wish.voxels_per_lenslet)

    def _on_finished(self, outcome: Outcome) -> None:
        self.outcome = outcome
        course, row = self.course, self.view.run_row
        assert course is not None
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
        self.view.run_row.set_buttons(
            can_run=self.ready,
            running=self.runner.is_running,
            can_continue=self.can_continue,
            stopping=self.runner.is_stopping,
        )


class TrainWidget(Panel):
    """Make a network for a microscope, from its optics alone."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = TrainView()
        self.fill(self.view)
        self.controller = TrainController(self, self.view)
