"""The *Restore isotropic* panel: train on the stack, restore the stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.widgets.evaluate_input import image_of
from napari_lfm.widgets.isotropic_input import (
    IsotropicChoice,
    IsotropicPlan,
    look_for_blur,
    plan_isotropic,
    resolve_isotropic,
)
from napari_lfm.widgets.isotropic_layers import PRIMARY, Beside
from napari_lfm.widgets.isotropic_models import IsotropicModels
from napari_lfm.widgets.isotropic_run import IsotropicRuns
from napari_lfm.widgets.isotropic_texts import blur_html, plan_html, resolution_html
from napari_lfm.widgets.isotropic_view import IsotropicView
from napari_lfm.widgets.panel import Panel, show_panel
from napari_lfm.widgets.result_export import ResultExport
from napari_lfm.widgets.session import bare, layer_info
from napari_lfm.widgets.stack_input import StackInput, StackTaker
from napari_lfm.widgets.train_texts import readable

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

    from napari_lfm.methods.isotropic.blur import ChosenBlur

TITLE = "Restore isotropic"
_PAUSE_MS = 250


class IsotropicController:
    """Connects the view with the stack, the models, and the runs."""

    def __init__(self, panel: IsotropicWidget, view: IsotropicView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.plan: IsotropicPlan | None = None
        self._planned_for: tuple[Any, ...] | None = None
        self._blur_for: Any = None
        self.blur: ChosenBlur | None = None
        self._pause = QTimer(panel)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self.prepare)
        panel.crew.at_close(self._pause.stop)
        self.beside = Beside(self.session.viewer)
        self.stack = StackInput(panel, view.stack, self._stack_changed)
        self.models = IsotropicModels(panel, view.models, self.schedule, self.stack.voxel_um)
        self.runs = IsotropicRuns(self)
        self.export = ResultExport(
            panel, view.save_button, view.python_button, view.command_button, view.save_text
        )
        view.changed.connect(self.schedule)
        view.beside_button.toggled.connect(self._beside)
        view.beside_combo.activated.connect(lambda _: self._beside(view.beside_button.isChecked()))
        view.resolution_button.clicked.connect(lambda: self.measure())
        view.evaluate_button.clicked.connect(lambda: self.evaluate())
        panel.listen(self.session.microscope_changed, self.schedule)
        panel.listen(self.session.layers_changed, self._layers_changed)
        self.models.begin()
        self.stack.use(StackTaker(takes_psf=True))
        self.schedule()

    # ------------------------------------------------------------------ choices
    def choice(self, trained: bool = True) -> IsotropicChoice:
        """Return all that is chosen, as plain data."""
        view, settings = self.view, load_settings()
        return IsotropicChoice(
            values=view.form.values(),
            stack=None if self.stack.layer is None else layer_info(self.stack.layer),
            psf=None if self.stack.psf is None else layer_info(self.stack.psf),
            blur=view.blur.source,
            blur_um=view.blur.sigma_box.value(),
            microscope=self.session.microscope,
            minutes=view.run_row.minutes_box.value() if trained else 0.0,
            model=self.models.key,
            device=settings.device,
            memory_gib=settings.memory_gib,
        )

    def _stack_changed(self) -> None:
        self.view.show_agreement(False)
        self.models.refresh()
        self.schedule()

    # --------------------------------------------------------------------- plan
    @property
    def agreed(self) -> bool:
        """Whether nothing has to be agreed to before a run."""
        return self.plan is None or not self.plan.asks or self.view.agree_box.isChecked()

    def _circumstances(self) -> tuple[Any, ...]:
        """Return all that a plan depends on, to compare."""
        view = self.view
        return (
            *self.stack.circumstances(),
            view.form.values(),
            view.blur.values,
            view.run_row.minutes_box.value(),
            self.session.microscope,
            self.models.key,
        )

    def schedule(self) -> None:
        """Look again in a moment, where anything is another now."""
        if self.panel.crew.closed:
            return
        self.view.model_text.show_text(self.models.words())
        if self.plan is None or self._circumstances() != self._planned_for:
            self.plan = None
            self._pause.start()
        self.show_buttons()

    def prepare(self) -> None:
        """Find out, off the GUI thread, what runs would do; enable them where they can."""
        if self.runs.runner.is_running:
            return
        self._pause.stop()
        request = resolve_isotropic(self.choice())
        if isinstance(request, list):
            self.panel.background.forget("plan isotropic")
            self._not_ready(*request)
            return
        self._planned_for = self._circumstances()
        self.panel.background.submit(
            "plan isotropic", lambda: plan_isotropic(request), self._planned, self._not_ready
        )

    def _planned(self, plan: IsotropicPlan) -> None:
        self.plan = plan
        view = self.view
        words = "" if plan.found is None else f"<b>{readable(plan.found.sentence)}</b>"
        view.understood.show_text(words)
        view.show_agreement(plan.asks)
        view.problems.show_problems(plan.problems)
        view.estimate.show_text(plan_html(plan, view.run_row.minutes_box.value()))
        self._look_for_blur(plan)
        self.show_buttons()

    def _not_ready(self, *problems: Problem) -> None:
        self.plan = None
        self.view.problems.show_problems(problems)
        for label in (self.view.understood, self.view.estimate):
            label.show_text("")
        self.view.show_agreement(False)
        self.show_buttons()

    def _look_for_blur(self, plan: IsotropicPlan) -> None:
        """Show the blur's figure: estimated again only where stack or source are others."""
        if plan.found is None or plan.estimate is None:
            return
        box, rule = self.view.blur, self.view.form.values()["psf_rule"]
        about = (*self.stack.circumstances(), box.values, self.session.microscope, rule)
        if about == self._blur_for:
            return
        self._blur_for, self.blur = about, None
        text, pixel = box.text, plan.found.pixel_um
        text.show_text("Looking at the stack..." if box.source == "estimate" else "")

        def done(found: ChosenBlur) -> None:
            self.blur = found
            text.show_text(blur_html(found, pixel))

        def failed(problem: Problem) -> None:
            text.show_problems([problem])

        self.panel.background.submit("blur isotropic", lambda: look_for_blur(plan), done, failed)

    # ---------------------------------------------------------------------- run
    def start(self, trained: bool) -> None:
        """Train on the stack and restore it, or restore it with the chosen model."""
        if self.runs.runner.is_running or not self.agreed:
            return
        choice = self.choice(trained)
        request = resolve_isotropic(choice)
        if isinstance(request, list):
            self._not_ready(*request)
            return
        self.runs.start(request, choice.minutes, self.stack.world())

    def show_buttons(self) -> None:
        """Enable what can be done now."""
        runner, plan, view = self.runs.runner, self.plan, self.view
        training = self.runs.is_training
        view.run_row.show_restore(training)
        view.run_row.set_buttons(
            can_run=plan is not None and plan.trains and self.agreed,
            running=runner.is_running,
            can_continue=plan is not None and plan.restores and self.agreed,
            stopping=runner.is_stopping,
        )
        if training and not runner.is_stopping:
            view.run_row.restore_button.setEnabled(self.runs.has_network)
        here = self._pair() is not None
        for one in (view.beside_button, view.resolution_button, view.evaluate_button):
            one.setEnabled(here and not runner.is_running)

    # -------------------------------------------------------------------- result
    def _pair(self) -> tuple[Image, Image] | None:
        """Return the layers of the stack and of its result, while both are there."""
        result, outcome = self.runs.layers.layer(PRIMARY), self.runs.outcome
        if result is None or outcome is None:
            return None
        name = outcome.request.inputs["image"].name
        stack = next((bare(x) for x in self.session.images() if x.name == name), None)
        return None if stack is None else (stack, result)

    def _layers_changed(self) -> None:
        if not self.panel.crew.closed:
            self.show_buttons()

    def lay_over(self) -> None:
        """Lay stack and result over each other again."""
        self.view.beside_button.setChecked(False)

    def _beside(self, on: bool) -> None:
        pair = self._pair()
        if on and pair is not None:
            self.beside.show(*pair, from_side=self.view.beside_combo.currentData() == "side")
        elif self.beside.active:
            self.beside.restore()

    def measure(self) -> None:
        """Measure the resolution of the stack and of its result, off the GUI thread."""
        pair, text = self._pair(), self.view.resolution_text
        if pair is None:
            return
        try:
            images = [image_of(layer, self.session.viewer) for layer in pair]
        except LfmError as error:
            text.show_problems([error.problem()])
            return
        text.show_text("Measuring...")
        self.view.resolution_button.setEnabled(False)

        def work() -> list[dict[str, float | None]]:
            from napari_lfm.core.decorrelation import decorrelation
            from napari_lfm.core.one_image import voxel_um_of

            return [
                decorrelation(image.values, list(voxel_um_of(image).values())).resolution_um
                for image in images
            ]

        def done(found: list[dict[str, float | None]]) -> None:
            text.show_text(resolution_html(found[0], found[1]))
            self.show_buttons()

        def failed(problem: Problem) -> None:
            text.show_problems([problem])
            self.show_buttons()

        self.panel.background.submit("resolution isotropic", work, done, failed)

    def evaluate(self) -> None:
        """Open the panel that measures, with the result in it."""
        from napari_lfm.widgets.evaluate import TITLE as EVALUATE
        from napari_lfm.widgets.evaluate import EvaluateWidget

        pair = self._pair()
        if pair is None:
            return
        panel = show_panel(self.session.viewer, EVALUATE, EvaluateWidget)
        assert isinstance(panel, EvaluateWidget)
        panel.controller.choose(pair[1], None)
        panel.view.tick(list(pair))


class IsotropicWidget(Panel):
    """Make an anisotropic stack isotropic: train on it, restore it, see how far to believe it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = IsotropicView()
        self.fill(self.view)
        self.controller = IsotropicController(self, self.view)
