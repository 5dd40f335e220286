"""The page of the *Train* panel for refocusing: its controller."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from napari_lfm._settings import load_settings
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.session import layer_info
from napari_lfm.widgets.stack_input import place_as_its_file
from napari_lfm.widgets.train_course import PLANES
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_refocus_input import RefocusChoice, RefocusTrainPlan, Source, plan_refocus
from napari_lfm.widgets.train_stacks import StacksControl, layer_mark, named_stacks
from napari_lfm.widgets.train_texts import stack_plan_html

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari.layers import Image

    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.train_refocus_view import RefocusTrainView

_OBJECTIVES = ("20x/0.8 air", "40x/1.3 oil")
_CONFOCAL = ("confocal", "target", "lsm")


class RefocusJob(TrainingJob):
    """One training of refocusing, on this layer or on what its wish names."""

    def _trainer(self) -> Any:
        import_torch_gently()
        from napari_lfm.methods import train_refocus

        return train_refocus

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_refocus_training(request, resume=self.go_on, layers=self.layers)


class RefocusTrainController(StacksControl):
    """Connects the page with stacks, models and the training."""

    scoring = PLANES
    job_key = "plan refocus training"
    method = "refocus"
    job = RefocusJob
    first_optics = tuple((key.replace("x/", "\N{MULTIPLICATION SIGN}/"), key) for key in _OBJECTIVES)
    view: RefocusTrainView
    plan: RefocusTrainPlan | None

    def __init__(self, panel: Panel, view: RefocusTrainView) -> None:
        super().__init__(panel, view)
        self.source: Source = "simulated"
        self.files: tuple[str, ...] = ()
        self.tuning: Mapping[str, Any] = {}
        self._picked = False  # the user has chosen the layer
        view.stacks.layer_combo.activated.connect(self._pick)
        view.stacks.source_chosen.connect(self.choose_source)
        view.stacks.zone.files_chosen.connect(self.open)
        panel.listen(self.session.layers_changed, self._layers_changed)
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

    def _layers_changed(self) -> None:
        names = list(named_stacks(self.session))
        box = self.view.stacks
        now, other = box.layer_combo.currentData() or "", box.confocal_combo.currentData() or ""
        wide = [n for n in names if not any(word in n.lower() for word in _CONFOCAL)]
        if now not in names or (now not in wide and not self._picked):
            now = (wide or names or [""])[0]
        box.show_layers(names, now, other if other in names else "")
        self._schedule()

    def _pick(self, _: int) -> None:
        self._picked = True

    def _chosen(self) -> list[Image | None]:
        """Return the layers of the focal and of the confocal stack."""
        layers, box = named_stacks(self.session), self.view.stacks
        found = [layers.get(c.currentData() or "") for c in (box.layer_combo, box.confocal_combo)]
        return found if self.source == "layer" else [None, None]

    def choice(self) -> RefocusChoice:
        """Return all that is chosen, as plain data."""
        view = self.view
        infos = []
        for layer in self._chosen():
            if layer is not None:
                place_as_its_file(layer, self.session.viewer)
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
        layers = tuple(layer_mark(x) for x in self._chosen() if x is not None)
        sizes = tuple(box.value() for box in self.view.stacks.size_boxes.values())
        return *super()._circumstances(), self.source, self.files, layers, sizes

    def _planner(self) -> Callable[[], RefocusTrainPlan]:
        return partial(plan_refocus, self.choice())

    def _planned(self, plan: RefocusTrainPlan) -> None:
        self.view.stacks.show_sizes(plan.lacks_sizes)
        sentences = () if plan.estimate is None else plan.estimate.sentences
        self._take_plan(plan, stack_plan_html(sentences, plan.model_id, "Stacks") if sentences else "")

    def _voxel_um(self) -> float:
        return 0.0 if self.wish is None else float(self.wish.pixel_um)
