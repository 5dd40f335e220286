"""What the *Train* panel's pages for trainings on stacks have in common: their controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lfm.networks.catalogue import list_models
from napari_lfm.optics.presets import preset_names, user_microscope_names
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.stack_input import stack_layers
from napari_lfm.widgets.train_control import TrainControl
from napari_lfm.widgets.train_plans import FITTING, NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.session import Session
    from napari_lfm.widgets.train_job import TrainingJob
    from napari_lfm.widgets.train_stacks_view import StacksPage


def named_stacks(session: Session) -> dict[str, Image]:
    """Return the layers with planes that could be stacks, by name."""
    return {x.name: bare(x) for x in stack_layers(session.images()) if x.ndim >= 3}


def layer_mark(layer: Image) -> tuple[Any, ...]:
    """Return all about a layer that a plan depends on, to compare."""
    return layer.name, id(layer.data), tuple(layer.scale), tuple(layer.translate), layer.axis_labels


class StacksControl(TrainControl):
    """Connects a page with stacks, models to start from, and the training; subclasses plan it.

    Parameters
    ----------
    panel : Panel
    view : StacksPage
    """

    method: str
    """Id of the method, and of the architecture of models that can be started from."""
    job: type[TrainingJob]
    first_optics: tuple[tuple[str, str], ...] = (("not said", ""),)
    """(text, key) above the microscopes."""

    def __init__(self, panel: Panel, view: StacksPage) -> None:
        super().__init__(panel, view)
        self.view = view
        self._begun: Any = None
        panel.listen(self.session.microscope_changed, self._list_optics)
        self._list_starts()
        self._list_optics()

    # ------------------------------------------------------------------ choices
    def _list_starts(self) -> None:
        usable = [
            e.card.id
            for e in list_models(self.method)
            if not e.problem and e.card.architecture == self.method
        ]
        entries = [("one that fits", FITTING), ("nothing", NOTHING), *((id, id) for id in usable)]
        chosen = self.view.start_combo.currentData()
        self.view.show_starts(entries, FITTING if chosen is None else chosen)

    def _list_optics(self) -> None:
        names = dict.fromkeys([*user_microscope_names(), *preset_names()])
        entries = [*self.first_optics, *((name, name) for name in names)]
        self.view.show_optics(entries, self.view.optics_combo.currentData() or self.first_optics[0][1])

    def _models_changed(self) -> None:
        self._list_starts()
        super()._models_changed()

    # --------------------------------------------------------------------- plan
    def _circumstances(self) -> tuple[Any, ...]:
        view = self.view
        return view.form.values(), view.start_combo.currentData(), view.optics_combo.currentData()

    def prepare(self) -> None:
        """Look at the stacks off the GUI thread; enable Run where the training can start."""
        if self.runner.is_running:
            return
        self._pause.stop()
        make_plan = self._planner()
        self._planned_for = self._circumstances()
        self.background.submit(self.job_key, make_plan, self._planned, self._not_ready)

    def _planner(self) -> Callable[[], Any]:
        """Return what makes the plan of what is chosen now, in a worker thread."""
        raise NotImplementedError

    def _planned(self, plan: Any) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------------- run
    def _make_job(self, go_on: bool) -> TrainingJob:
        # a training that goes on keeps the layers it was begun with, whatever has been chosen since
        if self.plan is not None and (not go_on or self.plan.earlier is not None):
            self._begun = self.plan
        return self.job(go_on, self._begun.layers if self.wish.layers else ())
