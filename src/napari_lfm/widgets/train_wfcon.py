"""The page of the *Train* panel for WFCON-Net: its controller."""

from __future__ import annotations

import html
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.networks.catalogue import list_models
from napari_lfm.optics.presets import preset_names, user_microscope_names
from napari_lfm.widgets.texts import coloured
from napari_lfm.widgets.train_control import TrainControl
from napari_lfm.widgets.train_course import STACKS
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_wfcon_input import (
    FITTING,
    NOTHING,
    Forgotten,
    WfconChoice,
    WfconTrainPlan,
    plan_wfcon,
    service,
)
from napari_lfm.widgets.train_wfcon_pairs import PairsControl
from napari_lfm.widgets.train_wfcon_texts import left_out_html, registered_html, wfcon_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.wfcon_pairs import NamedPair
    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.runner import Outcome
    from napari_lfm.widgets.train_wfcon_view import WfconView

_ENTER = "Enter the voxel size above."
_VGG_FILTER = "Weights (*.npz *.safetensors);;All files (*)"


def _end(look: dict[str, threading.Event]) -> None:
    look["over"].set()


class WfconJob(TrainingJob):
    """One training of WFCON-Net, on these pairs of layers or on what its wish names."""

    def __init__(self, layers: Sequence[NamedPair], go_on: bool = False) -> None:
        super().__init__(go_on)
        self.layers = layers

    def _trainer(self) -> Any:
        return service()

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_wfcon_training(request, resume=self.go_on, layers=self.layers)


class WfconController(TrainControl):
    """Connects the page with pairs, models and the training."""

    scoring = STACKS
    job_key = "plan wfcon"
    plan: WfconTrainPlan | None

    def __init__(self, panel: Panel, view: WfconView) -> None:
        super().__init__(panel, view)
        self.view = view
        self.left_out: dict[str, str] = {}
        self.shifts: dict[str, tuple[float, float, float]] = {}
        self._layers: tuple[NamedPair, ...] = ()
        self._look = {"over": threading.Event()}
        self._pixel_um = 0.0
        self.pairs = PairsControl(panel, view.pairs, self._schedule)
        view.vgg_wanted.connect(self._ask_vgg)
        panel.listen(self.session.layers_changed, self._schedule)
        panel.listen(self.session.microscope_changed, self._list_microscopes)
        panel.crew.at_close(partial(_end, self._look))
        self._list_starts()
        self._list_microscopes()
        self._schedule()

    # ------------------------------------------------------------------ choices
    def _list_starts(self) -> None:
        entries = [("one that fits", FITTING), ("nothing", NOTHING)]
        entries += [(e.card.id, e.card.id) for e in list_models("wfcon") if not e.problem]
        chosen = self.view.start_combo.currentData()
        self.view.show_starts(entries, FITTING if chosen is None else chosen)

    def _list_microscopes(self) -> None:
        names = dict.fromkeys([*user_microscope_names(), *preset_names()])
        entries = [("not said", ""), *((name, name) for name in names)]
        self.view.show_microscopes(entries, self.view.microscope_combo.currentData() or "")

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
            microscope=view.microscope_combo.currentData() or "",
            device=load_settings().device,
        )

    # --------------------------------------------------------------------- plan
    def _circumstances(self) -> tuple[Any, ...]:
        view = self.view
        return (
            view.form.values(),
            self.pairs.circumstances(),
            view.start_combo.currentData(),
            view.vgg_line.text(),
            view.microscope_combo.currentData(),
        )

    def _models_changed(self) -> None:
        self._list_starts()
        super()._models_changed()

    def _schedule(self) -> None:
        self.view.show_discriminator(bool(self.view.form.values()["adversarial"]))
        super()._schedule()

    def prepare(self) -> None:
        """Look at the pairs off the GUI thread; enable Run where the training can start."""
        if self.runner.is_running:
            return
        self._pause.stop()
        self._look["over"].set()  # a look at other pairs need not go on
        self._look["over"] = over = threading.Event()
        choice = self.choice()
        self._planned_for = self._circumstances()

        def plan() -> WfconTrainPlan | None:
            try:
                return plan_wfcon(choice, over.is_set)
            except Forgotten:
                return None

        self.background.submit(self.job_key, plan, self._planned, self._not_ready)

    def _planned(self, plan: WfconTrainPlan | None) -> None:
        if plan is None:
            return
        self.view.pairs.show_sizes(plan.survey is not None and plan.survey.lacks_voxels)
        self._take_plan(plan, wfcon_html(plan))

    # ---------------------------------------------------------------------- run
    def run(self) -> None:
        """Start the training that was planned."""
        if not self.runner.is_running:
            self._take_layers()
        super().run()

    def go_on(self) -> None:
        """Go on with the last training, or the one that is named."""
        if self.plan is not None and self.plan.earlier is not None:
            self._take_layers()
        super().go_on()

    def _take_layers(self) -> None:
        if self.plan is not None:
            self._layers = self.plan.layers
            heads = [] if self.plan.survey is None else self.plan.survey.heads
            self._pixel_um = heads[0][0].voxel_um[2] if heads else 0.0

    def _make_job(self, go_on: bool) -> TrainingJob:
        self.left_out, self.shifts = {}, {}
        self.view.notes.show_text("")
        return WfconJob(self._layers if self.wish.layers else (), go_on)

    def _voxel_um(self) -> float:
        return self._pixel_um

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
