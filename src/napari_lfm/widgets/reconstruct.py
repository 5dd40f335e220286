"""The *Reconstruct* dock widget: its controller, and the widget that napari shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QKeySequence

from napari_lfm._settings import apply_cache_limit, load_settings
from napari_lfm.widgets.models import Models
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.qt import QShortcut
from napari_lfm.widgets.reconstruct_plan import Planned, load_methods, plan
from napari_lfm.widgets.reconstruct_trained import (
    LABELS,
    MODEL_FIELDS,
    OPTICS_FIELDS,
    needs_model,
    passed_words,
)
from napari_lfm.widgets.reconstruct_view import ReconstructView
from napari_lfm.widgets.region import RegionTool
from napari_lfm.widgets.resolve import field_um, microscope_problems, resolve
from napari_lfm.widgets.resolve_stack import stack_html
from napari_lfm.widgets.result_layers import ResultLayers
from napari_lfm.widgets.results import ResultActions, input_name
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.stack_input import StackInput
from napari_lfm.widgets.state import ROLES, ReconstructState
from napari_lfm.widgets.texts import estimate_html, figures_html, outcome_words, understood_html

if TYPE_CHECKING:
    from napari import Viewer

    from napari_lfm.core.events import Progress
    from napari_lfm.core.problems import Estimate, Problem
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.widgets.runner import ReadyPreview

TITLE = "Reconstruct"
_PAUSE_MS = 250


class ReconstructController:
    """Connects the view with the session: plan, run, stop, continue, layers."""

    def __init__(self, panel: ReconstructWidget, view: ReconstructView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.methods: dict[str, Method] = {}
        self.method: Method | None = None
        self.runner = Runner(panel.crew, panel)
        self.layers = ResultLayers(self.session.viewer)
        self.results = ResultActions(panel, view, self.layers)
        self.region = RegionTool(self.session.viewer, self._region_changed)
        self.outcome: Outcome | None = None
        self.ready = False
        self._planned_for: tuple[Any, ...] | None = None
        self._guessed: tuple[Microscope, list[Problem]] | None = None
        self.expected: Estimate | None = None
        self._suggested: dict[str, Any] = {}
        self._suggested_for: dict[str, Any] | None = None
        self.stack = StackInput(panel, view.stack, self._stack_changed)
        self.models = Models(panel, view.models, self._model_changed, self.stack.voxel_um)
        self._pause = QTimer(panel)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self.prepare)
        self._connect()
        settings = load_settings()
        view.device_combo.setCurrentIndex(max(0, view.device_combo.findData(settings.device)))
        view.memory_box.setValue(settings.memory_gib or 0.0)
        view.summary.show_text("Loading the methods...")
        self.background.submit("methods", load_methods, self._loaded, self._not_ready)

    def _connect(self) -> None:
        view, session, runner, row = self.view, self.session, self.runner, self.view.run_row
        view.method_chosen.connect(self._choose_method)
        view.changed.connect(self._schedule)
        view.reset_button.clicked.connect(self._reset)
        view.draw_button.clicked.connect(self._draw_region)
        row.run_clicked.connect(self.run)
        row.stop_clicked.connect(self.stop)
        row.continue_clicked.connect(self.go_on)
        for signal in (
            session.inputs_changed,
            session.microscope_changed,
            session.lattice_changed,
            session.layers_changed,
        ):
            self.panel.listen(signal, self._schedule)
        self.panel.listen(session.microscope_changed, self._suggest)
        runner.started.connect(self._on_started)
        runner.progressed.connect(self._on_progress)
        runner.previewed.connect(self._on_preview)
        runner.finished.connect(self._on_finished)
        for keys, slot in (("Ctrl+Shift+R", self.run), ("Ctrl+Shift+S", self.stop)):
            QShortcut(QKeySequence(keys), self.panel).activated.connect(slot)

    # ------------------------------------------------------------------- method
    def _loaded(self, methods: dict[str, Method]) -> None:
        self.methods = methods
        first = next(iter(methods), "")
        self.view.show_methods([(m.title, name) for name, m in methods.items()], first)
        self._choose_method(first)

    def _choose_method(self, name: str) -> None:
        self.method = self.methods.get(name)
        if self.method is None:
            return
        self.view.summary.show_text(self.method.summary)
        trained = needs_model(self.method)
        self.view.show_region(getattr(self.method, "takes_region", not self.works_on_stacks))
        self.view.show_form(
            self.method.Parameters,
            labels=LABELS.get(name),
            none_texts=OPTICS_FIELDS if self.works_on_stacks else MODEL_FIELDS if trained else None,
        )
        self._suggested, self._suggested_for = {}, None
        self.stack.use(self.method)
        self.models.use(name if trained else "", self.method)
        if trained:
            self._follow_model()
        self._suggest()
        self._schedule()

    @property
    def works_on_stacks(self) -> bool:
        """Whether the chosen method takes stacks, not light fields."""
        return self.method is not None and self.method.input_kind == "stack"

    def _stack_changed(self) -> None:
        self.models.refresh()
        self._schedule()

    def _model_changed(self) -> None:
        """Depths and sampling follow the model; another one has others."""
        if self.models.numbers != self._suggested_for:
            self._follow_model()
        self._schedule()

    def _follow_model(self) -> None:
        if self.view.form is not None:
            self._suggested_for = self.models.numbers
            self.view.form.set_values(self._suggested_for)

    def _suggest(self) -> None:
        """Fill in what suits the microscope, unless the user has set it otherwise."""
        suggest, form = getattr(self.method, "suggest", None), self.view.form
        if suggest is None or form is None or self.session.microscope is None:
            return
        if self.works_on_stacks or not microscope_problems(self.session.microscope):
            now = form.values()
            if all(now.get(name) == value for name, value in self._suggested.items()):
                self._suggested = suggest(self.session.microscope)
                form.set_values(self._suggested)

    def _reset(self) -> None:
        if self.view.form is not None:
            self.view.form.reset()
            self._suggested = {}
            if needs_model(self.method):
                self._follow_model()
            self._suggest()

    # --------------------------------------------------------------------- plan
    def state(self) -> ReconstructState:
        """Return what the user chose, as plain data."""
        session, view = self.session, self.view
        drawn = view.drawn_button.isChecked()
        return ReconstructState(
            method=self.method.id if self.method is not None else "",
            lightfield=session.input_name("lightfield"),
            white=session.input_name("white"),
            dark=session.input_name("dark"),
            stack=self.stack.name,
            psf=self.stack.psf_name,
            microscope=session.microscope,
            lattice=session.lattice,
            parameters=view.form.values() if view.form is not None else {},
            layout=session.layout,
            frame=session.frame,
            region_um=self.region.region_um if drawn else None,
            device=str(view.device_combo.currentData()),
            memory_gib=view.memory_box.value() or None,
            model=self.models.key if needs_model(self.method) else None,
        )

    def _schedule(self) -> None:
        if self.ready and self._circumstances() == self._planned_for:
            return  # e.g. a layer that has nothing to do with the run was added
        # what was found out before does not hold any more
        self.ready = False
        self._show_buttons()
        self._pause.start()

    def _circumstances(self) -> tuple[Any, ...]:
        """Return all that a plan depends on, to compare."""
        session = self.session
        layers = [session.input(role) for role in ROLES]
        known = [0 if layer is None else id(layer.data) for layer in layers]
        return self.state(), known, self.models.agreed, self.stack.circumstances()

    def prepare(self) -> None:
        """Find out, off the GUI thread, what a run would do; enable Run where it can."""
        if self.method is None or self.runner.is_running:
            return
        self._pause.stop()
        method = self.method
        request = resolve(self.state(), self.session.infos(), method)
        if isinstance(request, list):
            self.background.forget("plan")
            self._not_ready(*request)
            return
        self._planned_for = self._circumstances()
        words = stack_html if self.works_on_stacks else understood_html
        self.view.understood.show_text(words(request))
        self.background.submit("plan", lambda: plan(method, request), self._planned, self._not_ready)

    def _planned(self, found: Planned) -> None:
        if found.microscope is not None and self.session.microscope is None:
            # everything gets its size from it, the layers too; the plan is made again
            self._guessed = found.microscope, found.problems
            self.session.set_microscope(found.microscope)
            return
        problems, estimate, doubt = list(found.problems), found.estimate, self.models.doubt()
        if self._guessed is not None and self._guessed[0] == self.session.microscope:
            problems += self._guessed[1]
        if estimate is not None and needs_model(self.method):  # the box of the model says so already
            problems = [p for p in problems if p.field != "model" or p.severity != "warning"]
        if doubt is not None and estimate is not None:  # else something else is to be mended first
            problems.append(doubt)
        self.view.problems.show_problems(problems)
        self.view.estimate.show_text("" if estimate is None else estimate_html(estimate, found.device))
        self.ready = estimate is not None and doubt is None
        self.expected = estimate
        self._show_buttons()

    def _not_ready(self, *problems: Problem) -> None:
        self.ready = False
        self.view.problems.show_problems(problems)
        self.view.understood.show_text("")
        self.view.estimate.show_text("")
        self._show_buttons()

    # ---------------------------------------------------------------------- run
    def run(self) -> None:
        """Start a run with what is set now."""
        if self.runner.is_running or self.method is None:
            return
        request = resolve(self.state(), self.session.infos(), self.method)
        if isinstance(request, list):
            self._not_ready(*request)
            return
        doubt = self.models.doubt()
        if doubt is not None:
            self._not_ready(doubt)
            return
        self._start(request, go_on=False)

    def go_on(self) -> None:
        """Add iterations to the last result, with everything else as it was."""
        last = self.outcome
        if self.runner.is_running or last is None or last.state is None or self.view.form is None:
            return
        again = self.view.form.values().get("iterations")
        parameters = last.request.parameters
        if again is not None and "iterations" in type(parameters).model_fields:
            parameters = parameters.model_copy(update={"iterations": again})
        self._start(replace(last.request, parameters=parameters, continue_from=last.state), go_on=True)

    def stop(self) -> None:
        """End the run after its present step."""
        if self.runner.is_running:
            self.runner.stop()
            self.view.run_row.show_stopping()
            self._show_buttons()

    def _start(self, request: Request, go_on: bool) -> None:
        method = self.methods[request.method]
        apply_cache_limit(load_settings())
        expected = self.expected if self.ready else None
        maker = getattr(method, "maker", method.title.partition(" ")[0] if needs_model(method) else "")
        world = self.stack.world() if method.input_kind == "stack" else {}
        self.layers.begin(input_name(request), go_on, expected, field_um(request), maker, world)
        self.view.run_row.show_start(keep_curve=go_on)
        self.runner.start(method, request)

    def _on_started(self) -> None:
        self.view.set_result_enabled(False)
        self._show_buttons()

    def _on_progress(self, events: list[Progress]) -> None:
        if not self.runner.is_stopping:
            self.view.run_row.show_progress(events)

    def _on_preview(self, ready: ReadyPreview) -> None:
        self.layers.show_preview(ready)

    def _on_finished(self, outcome: Outcome) -> None:
        if outcome.status != "failed" or outcome.preview is not None:
            self.outcome = outcome
        if outcome.result is not None:
            limits = outcome.preview.limits if outcome.preview is not None else None
            self.layers.show_result(outcome.result, limits, refit=outcome.state is None)
        elif outcome.preview is not None:
            self.layers.keep(outcome.preview)
        self.layers.end()
        iterated = outcome.state is not None
        words = outcome_words(outcome.status, outcome.steps) if iterated else passed_words(outcome)
        self.view.run_row.show_done(outcome.status, outcome.seconds, words, outcome.problem)
        self.view.run_row.show_steps(outcome.steps)
        self.view.figures_text.show_text(
            figures_html(outcome.seconds, outcome.steps if iterated else 0, self.view.run_row.curve.values)
        )
        if outcome.result is not None or outcome.preview is not None:
            self.results.take(outcome)
            # the box has no size before the event loop has come round
            QTimer.singleShot(100, self.view.scroll_to_result)
        self._show_buttons()
        self._schedule()

    # ------------------------------------------------------------------- region
    def _draw_region(self) -> None:
        layer = self.stack.layer if self.works_on_stacks else self.session.input("lightfield")
        extent = 100.0
        if layer is not None:
            corners = layer.extent.world
            extent = float(max(corners[1, -2:] - corners[0, -2:]))
        self.view.drawn_button.setChecked(True)
        self.region.draw(extent)

    def _region_changed(self) -> None:
        if self.region.region_um is None:
            self.view.whole_button.setChecked(True)
        self._schedule()

    def _show_buttons(self) -> None:
        running = self.runner.is_running
        self.view.run_row.set_buttons(
            can_run=self.ready,
            running=running,
            can_continue=self.outcome is not None and self.outcome.state is not None,
            stopping=self.runner.is_stopping,
        )
        self.view.set_result_enabled(not running and self.outcome is not None)


class ReconstructWidget(Panel):
    """Turn the light field into a volume: plan, run, stop, continue, check, save."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = ReconstructView()
        self.fill(self.view)
        self.controller = ReconstructController(self, self.view)
