"""The page of the *Train* panel for refocusing: its controller."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, cast

from napari_lfm._settings import load_settings
from napari_lfm.networks.catalogue import list_models
from napari_lfm.optics.presets import preset_names, user_microscope_names
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.session import bare, layer_info
from napari_lfm.widgets.stack_input import place_as_its_file, stack_layers
from napari_lfm.widgets.train_control import TrainControl
from napari_lfm.widgets.train_course import PLANES
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_refocus_input import (
    FITTING,
    NOTHING,
    RefocusChoice,
    RefocusTrainPlan,
    Source,
    plan_refocus,
    service,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari.layers import Image

    from napari_lfm.methods.refocus.own_stacks import NamedStack
    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.train_refocus_view import RefocusTrainView

_TIMES, _PLUS_MINUS = "\N{MULTIPLICATION SIGN}", "\N{PLUS-MINUS SIGN}"
_OBJECTIVES = ("20x/0.8 air", "40x/1.3 oil")
_CONFOCAL = ("confocal", "target", "lsm")


class RefocusJob(TrainingJob):
    """One training of refocusing, on this layer or on what its wish names."""

    def __init__(self, stacks: Sequence[NamedStack], go_on: bool = False) -> None:
        super().__init__(go_on)
        self.stacks = stacks

    def _trainer(self) -> Any:
        return service()

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_refocus_training(request, resume=self.go_on, layers=self.stacks)


class RefocusTrainController(TrainControl):
    """Connects the page with stacks, models and the training."""

    scoring = PLANES
    job_key = "plan refocus training"
    plan: RefocusTrainPlan | None

    def __init__(self, panel: Panel, view: RefocusTrainView) -> None:
        super().__init__(panel, view)
        self.view = view
        self.source: Source = "simulated"
        self.files: tuple[str, ...] = ()
        self.tuning: Mapping[str, Any] = {}
        self._stacks: tuple[NamedStack, ...] = ()
        self._picked = False  # the user has chosen the layer
        view.stacks.layer_combo.activated.connect(self._pick)
        view.stacks.source_chosen.connect(self.choose_source)
        view.stacks.zone.files_chosen.connect(self.open)
        panel.listen(self.session.layers_changed, self._layers_changed)
        panel.listen(self.session.microscope_changed, self._list_optics)
        self._list_starts()
        self._list_optics()
        self._layers_changed()

    # ------------------------------------------------------------------ choices
    def choose_source(self, source: str) -> None:
        """Take simulated specimens, a layer or files."""
        self.source = cast("Source", source)
        self.view.stacks.show_source(source)
        if source != "simulated" and self.view.form.values()["minutes"] == 60.0:
            self.view.show_values({"minutes": 10.0})  # fine-tuning takes less
        self._schedule()

    def open(self, paths: Sequence[Path]) -> None:
        """Take the files that were dropped or chosen."""
        self.files = tuple(str(p) for p in paths)
        self.view.stacks.show_files(self.files)
        self._schedule()

    def _list_starts(self) -> None:
        entries = [("one that fits", FITTING), ("nothing", NOTHING)]
        usable = [e for e in list_models("refocus") if not e.problem and e.card.architecture == "refocus"]
        entries += [(e.card.id, e.card.id) for e in usable]
        chosen = self.view.start_combo.currentData()
        self.view.show_starts(entries, FITTING if chosen is None else chosen)

    def _list_optics(self) -> None:
        names = dict.fromkeys([*user_microscope_names(), *preset_names()])
        entries = [(o.replace("x/", f"{_TIMES}/"), o) for o in _OBJECTIVES]
        entries += [(name, name) for name in names]
        self.view.show_optics(entries, self.view.optics_combo.currentData() or _OBJECTIVES[0])

    def _layers_changed(self) -> None:
        names = [layer.name for layer in self._layers()]
        box = self.view.stacks
        now, other = box.layer_combo.currentData() or "", box.confocal_combo.currentData() or ""
        wide = [n for n in names if not any(word in n.lower() for word in _CONFOCAL)]
        if now not in names or (now not in wide and not self._picked):
            now = (wide or names or [""])[0]
        box.show_layers(names, now, other if other in names else "")
        self._schedule()

    def _pick(self, _: int) -> None:
        self._picked = True

    def _layers(self) -> list[Image]:
        return [layer for layer in stack_layers(self.session.images()) if layer.ndim >= 3]

    def _chosen(self) -> list[Image | None]:
        """Return the layers of the focal and of the confocal stack."""
        layers = {layer.name: bare(layer) for layer in self._layers()}
        box = self.view.stacks
        found = [layers.get(c.currentData() or "") for c in (box.layer_combo, box.confocal_combo)]
        return found if self.source == "layer" else [None, None]

    def choice(self) -> RefocusChoice:
        """Return all that is chosen, as plain data."""
        view = self.view
        infos = []
        for layer in self._chosen():
            if layer is not None:
                place_as_its_file(layer)
            infos.append(None if layer is None else layer_info(layer))
        return RefocusChoice(
            values=view.form.values(),
            source=self.source,
            files=self.files,
            layer=infos[0],
            confocal=infos[1],
            pixel_um=view.stacks.size_boxes["pixel_um"].value(),
            step_um=view.stacks.size_boxes["step_um"].value(),
            optics=view.optics_combo.currentData() or "",
            start=view.start_combo.currentData(),
            device=load_settings().device,
            tuning=self.tuning,
        )

    # --------------------------------------------------------------------- plan
    def _circumstances(self) -> tuple[Any, ...]:
        view = self.view
        layers = tuple(
            (x.name, id(x.data), tuple(x.scale), tuple(x.translate), x.axis_labels)
            for x in self._chosen()
            if x is not None
        )
        sizes = tuple(box.value() for box in view.stacks.size_boxes.values())
        chosen = view.optics_combo.currentData(), view.start_combo.currentData()
        return view.form.values(), self.source, self.files, layers, sizes, chosen

    def _models_changed(self) -> None:
        self._list_starts()
        super()._models_changed()

    def prepare(self) -> None:
        """Look at the stack off the GUI thread; enable Run where the training can start."""
        if self.runner.is_running:
            return
        self._pause.stop()
        choice = self.choice()
        self._planned_for = self._circumstances()
        self.background.submit(self.job_key, lambda: plan_refocus(choice), self._planned, self._not_ready)

    def _planned(self, plan: RefocusTrainPlan) -> None:
        self.view.stacks.show_sizes(plan.lacks_sizes)
        self._take_plan(plan, refocus_html(plan))

    # ---------------------------------------------------------------------- run
    def _make_job(self, go_on: bool) -> TrainingJob:
        if self.plan is not None and self.plan.stacks:
            self._stacks = self.plan.stacks
        return RefocusJob(self._stacks if self.wish.layers else (), go_on)

    def _voxel_um(self) -> float:
        return 0.0 if self.wish is None else float(self.wish.pixel_um)


def refocus_html(plan: RefocusTrainPlan) -> str:
    """Return what is trained on what, what it gives and takes, as rich text."""
    if plan.estimate is None:
        return ""
    first, learns, figures = (_readable(sentence) for sentence in plan.estimate.sentences)
    return "<br>".join(
        [
            f"<b>Stacks:</b> {first}",
            f"<b>You get:</b> the model <i>{html.escape(plan.model_id)}</i> in the list of models",
            f"<b>Training:</b> {learns}",
            f"<b>In figures:</b> {figures}",
        ]
    )


def _readable(sentence: str) -> str:
    text = html.escape(sentence)
    return text.replace(" um", f" {MICROMETRES}").replace(" x ", f" {_TIMES} ").replace("+-", _PLUS_MINUS)
