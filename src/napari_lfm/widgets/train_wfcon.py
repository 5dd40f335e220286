"""The page of the *Train* panel for WFCON-Net: its controller."""

from __future__ import annotations

import html
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.texts import coloured
from napari_lfm.widgets.train_course import STACKS
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_stacks import StacksControl
from napari_lfm.widgets.train_wfcon_input import Forgotten, WfconChoice, WfconTrainPlan, plan_wfcon
from napari_lfm.widgets.train_wfcon_pairs import PairsControl
from napari_lfm.widgets.train_wfcon_texts import left_out_html, registered_html, wfcon_html

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.runner import Outcome
    from napari_lfm.widgets.train_wfcon_view import WfconView

_ENTER = "Enter the voxel size above."
_VGG_FILTER = "Weights (*.npz *.safetensors);;All files (*)"


def _end(look: dict[str, threading.Event]) -> None:
    look["over"].set()


class WfconJob(TrainingJob):
    """One training of WFCON-Net, on these pairs of layers or on what its wish names."""

    def _trainer(self) -> Any:
        import_torch_gently()
        from napari_lfm.methods import train_wfcon

        return train_wfcon

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_wfcon_training(request, resume=self.go_on, layers=self.layers)


class WfconController(StacksControl):
    """Connects the page with pairs, models and the training."""

    scoring = STACKS
    job_key = "plan wfcon"
    method = "wfcon"
    job = WfconJob
    view: WfconView
    plan: WfconTrainPlan | None

    def __init__(self, panel: Panel, view: WfconView) -> None:
        super().__init__(panel, view)
        self.left_out: dict[str, str] = {}
        self.shifts: dict[str, tuple[float, float, float]] = {}
        self._look = {"over": threading.Event()}
        self.pairs = PairsControl(panel, view.pairs, self._schedule)
        view.vgg_wanted.connect(self._ask_vgg)
        panel.listen(self.session.layers_changed, self._schedule)
        panel.crew.at_close(partial(_end, self._look))
        self._schedule()

    # ------------------------------------------------------------------ choices
    def _ask_vgg(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self.view, "Weights of VGG16", "", _VGG_FILTER)
        if name:
            self.view.show_vgg(name)

    def choice(self) -> WfconChoice:
        """Return all that is chosen, as plain data."""
        view = self.view
        return WfconChoice(
            values=view.form.values(),
            pairs=self.pairs.input(),
            start=view.start_combo.currentData(),
            vgg_file=view.vgg_line.text().strip(),
            microscope=view.optics_combo.currentData() or "",
            device=load_settings().device,
        )

    # --------------------------------------------------------------------- plan
    def _circumstances(self) -> tuple[Any, ...]:
        return *super()._circumstances(), self.pairs.circumstances(), self.view.vgg_line.text()

    def _schedule(self) -> None:
        self.view.show_discriminator(bool(self.view.form.values()["adversarial"]))
        super()._schedule()

    def _planner(self) -> Callable[[], WfconTrainPlan | None]:
        self._look["over"].set()  # a look at other pairs need not go on
        self._look["over"] = over = threading.Event()
        choice = self.choice()

        def plan() -> WfconTrainPlan | None:
            try:
                return plan_wfcon(choice, over.is_set)
            except Forgotten:
                return None

        return plan

    def _planned(self, plan: WfconTrainPlan | None) -> None:
        if plan is None:
            return
        self.view.pairs.show_sizes(plan.survey is not None and plan.survey.lacks_voxels)
        self._take_plan(plan, wfcon_html(plan))

    # ---------------------------------------------------------------------- run
    def _make_job(self, go_on: bool) -> TrainingJob:
        self.left_out, self.shifts = {}, {}
        self.view.notes.show_text("")
        return super()._make_job(go_on)

    def _voxel_um(self) -> float:
        survey = self._begun.survey
        return survey.heads[0][0].voxel_um[2] if survey is not None and survey.heads else 0.0

    def _on_events(self, events: Sequence[Any]) -> None:
        for event in events:
            reason, shift = getattr(event, "reason", ""), getattr(event, "shift_um", None)
            if reason:
                remedy = _ENTER if "--voxel-um" in event.remedy else event.remedy
                self.left_out[event.name] = f"{reason} {remedy}".strip()
            if shift is not None:
                self.shifts[event.name] = shift
        parts = [registered_html(self.shifts), left_out_html(self.left_out)]
        self.view.notes.show_text("<br>".join(part for part in parts if part))
        super()._on_events(events)

    def _on_finished(self, outcome: Outcome) -> None:
        super()._on_finished(outcome)
        result = self._result()
        if result is not None and result.reason == "collapsed":
            hint = coloured(html.escape("Or train without the discriminator: turn it off above."), "warning")
            row = self.view.run_row
            row.text.show_text(f"{row.text.text()}<br>{hint}")
