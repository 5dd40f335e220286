"""The *Train a network* dock widget: what to train, the page for LFMNet, and the widget that napari shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QStackedWidget, QVBoxLayout, QWidget

from napari_lfm._settings import load_settings
from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.microscope_choice import MicroscopeChoice
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.parts import row
from napari_lfm.widgets.resolve import microscope_problems
from napari_lfm.widgets.state import ReconstructState
from napari_lfm.widgets.train_control import TrainControl
from napari_lfm.widgets.train_input import (
    TrainPlan,
    TrainSettings,
    plan_training,
    settings_of,
    suggested,
)
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_texts import estimate_html
from napari_lfm.widgets.train_view import TrainView
from napari_lfm.widgets.train_white import METHOD, WhiteFits, WhiteSource

if TYPE_CHECKING:
    from napari import Viewer

    from napari_lfm.widgets.train_isotropic import IsotropicTrainController
    from napari_lfm.widgets.train_refocus import RefocusTrainController
    from napari_lfm.widgets.train_wfcon import WfconController

_TOOLTIP = Qt.ItemDataRole.ToolTipRole
TITLE = "Train a network"
_CHOICES = (
    ("lfmnet", "LFMNet (light fields)", "Volumes from light fields; made from the optics alone"),
    ("wfcon", "WFCON-Net (stacks)", "Confocal-like stacks from wide-field ones; made from pairs of both"),
    ("refocus", "Refocusing (images)", "One image to any plane; simulated, or from a focal stack"),
    ("isotropic", "Isotropic (stacks)", "z as fine as x and y; learnt from the stack itself"),
)


class TrainController(TrainControl):
    """LFMNet: connects its page with the session."""

    plan: TrainPlan | None

    def __init__(self, panel: TrainWidget, view: TrainView) -> None:
        super().__init__(panel, view)
        self.view = view
        self._fits = WhiteFits()
        self._suggested: dict[str, Any] = {}
        self.microscopes = MicroscopeChoice(panel, view.microscope, self._follow_microscope)
        session = self.session
        panel.listen(session.microscope_changed, self._follow_microscope)
        panel.listen(session.inputs_changed, self._show_white)
        panel.listen(session.layers_changed, self._show_white)
        panel.listen(session.lattice_changed, self._schedule)
        self._show_white()
        self.microscopes.choose_default()
        self._follow_microscope()

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
            self.background.forget(self.job_key)
            self._not_ready(*problems)
            return
        self._planned_for = self._circumstances()
        device = load_settings().device
        self.background.submit(
            self.job_key,
            lambda: plan_training(settings, microscope, source, self._fits, device),
            self._planned,
            self._not_ready,
        )

    def _planned(self, plan: TrainPlan) -> None:
        microscope = self.session.microscope
        self._take_plan(plan, "" if microscope is None else estimate_html(plan, microscope))

    def _make_job(self, go_on: bool) -> TrainingJob:
        return TrainingJob(go_on)

    def _voxel_um(self) -> float:
        if self.wish is None or self.wish.microscope.lenslet_um is None:
            return 0.0
        return float(self.wish.microscope.lenslet_um / self.wish.voxels_per_lenslet)


class TrainWidget(Panel):
    """Make a network: from a microscope's optics, or from pairs of stacks."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = TrainView()
        self.choice = CalmComboBox()
        for key, text, tip in _CHOICES:
            self.choice.addItem(text, key)
            self.choice.setItemData(self.choice.count() - 1, tip, _TOOLTIP)
        self.choice.setToolTip("What to train")
        self.choice.currentIndexChanged.connect(self._chosen)
        self.pages = QStackedWidget()
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 6, 0, 0)
        top = row(QLabel("What to train"), self.choice, stretch=1)
        top.setContentsMargins(14, 0, 14, 0)
        layout.addLayout(top)
        layout.addWidget(self.pages, 1)
        self.fill(content)
        self.controller = TrainController(self, self.view)
        self._add(self.controller)
        self._wfcon: WfconController | None = None
        self._refocus: RefocusTrainController | None = None
        self._isotropic: IsotropicTrainController | None = None

    @property
    def wfcon(self) -> WfconController:
        """The page for WFCON-Net; it is made when it is first wanted."""
        if self._wfcon is None:
            from napari_lfm.widgets.train_wfcon import WfconController
            from napari_lfm.widgets.train_wfcon_view import WfconView

            self._wfcon = WfconController(self, WfconView())
            self._add(self._wfcon)
        return self._wfcon

    @property
    def refocus(self) -> RefocusTrainController:
        """The page for refocusing; it is made when it is first wanted."""
        if self._refocus is None:
            from napari_lfm.widgets.train_refocus import RefocusTrainController
            from napari_lfm.widgets.train_refocus_view import RefocusTrainView

            self._refocus = RefocusTrainController(self, RefocusTrainView())
            self._add(self._refocus)
        return self._refocus

    @property
    def isotropic(self) -> IsotropicTrainController:
        """The page for isotropic restoration; it is made when it is first wanted."""
        if self._isotropic is None:
            from napari_lfm.widgets.train_isotropic import IsotropicTrainController
            from napari_lfm.widgets.train_isotropic_view import IsotropicTrainView

            self._isotropic = IsotropicTrainController(self, IsotropicTrainView())
            self._add(self._isotropic)
        return self._isotropic

    def choose(self, key: str) -> None:
        """Show the page of a method, by its id; what was typed on the others stays."""
        self.choice.setCurrentIndex(self.choice.findData(key))

    def _chosen(self) -> None:
        key = self.choice.currentData()
        control: TrainControl = self.controller
        if key == "wfcon":
            control = self.wfcon
        elif key == "refocus":
            control = self.refocus
        elif key == "isotropic":
            control = self.isotropic
        self.pages.setCurrentWidget(control.page)

    def _add(self, control: TrainControl) -> None:
        """Add a page, and keep to it while its training runs: two at a time would only be slow."""
        self.pages.addWidget(control.page)
        control.runner.started.connect(lambda: self.choice.setEnabled(False))
        control.runner.finished.connect(lambda _: self.choice.setEnabled(True))
