"""The page of the *Train* panel for isotropic restoration: its controller."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_lfm._settings import load_settings
from napari_lfm.widgets.isotropic_input import IsotropicChoice
from napari_lfm.widgets.isotropic_texts import LATERAL
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.session import layer_info
from napari_lfm.widgets.stack_input import StackInput, StackTaker
from napari_lfm.widgets.train_isotropic_input import IsotropicTrainPlan, plan_isotropic_training
from napari_lfm.widgets.train_job import TrainingJob
from napari_lfm.widgets.train_stacks import StacksControl
from napari_lfm.widgets.train_texts import stack_plan_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.train_isotropic_view import IsotropicTrainView


class IsotropicTrainJob(TrainingJob):
    """One training of isotropic restoration, on this layer."""

    def _trainer(self) -> Any:
        import_torch_gently()
        from napari_lfm.methods import train_isotropic

        return train_isotropic

    def _begin(self, trainer: Any, request: Any) -> Any:
        return trainer.run_isotropic_training(request, resume=self.go_on, layers=self.layers)


class IsotropicTrainController(StacksControl):
    """Connects the page with the stack, models and the training."""

    scoring = LATERAL
    job_key = "plan isotropic training"
    method = "isotropic"
    job = IsotropicTrainJob
    view: IsotropicTrainView
    plan: IsotropicTrainPlan | None

    def __init__(self, panel: Panel, view: IsotropicTrainView) -> None:
        super().__init__(panel, view)
        self.stack = StackInput(panel, view.stack, self._schedule)
        panel.listen(self.session.microscope_changed, self._schedule)
        self.stack.use(StackTaker(takes_psf=True))
        self._schedule()

    def _list_optics(self) -> None:
        """Do nothing: the box of the blur has its own list of microscopes."""

    def choice(self) -> IsotropicChoice:
        """Return all that is chosen, as plain data."""
        view, settings = self.view, load_settings()
        source, by_hand = view.blur.values
        return IsotropicChoice(
            values=view.form.values(),
            stack=None if self.stack.layer is None else layer_info(self.stack.layer),
            psf=None if self.stack.psf is None else layer_info(self.stack.psf),
            blur=source,
            blur_um=by_hand,
            microscope=self.session.microscope,
            device=settings.device,
        )

    # --------------------------------------------------------------------- plan
    def _circumstances(self) -> tuple[Any, ...]:
        view = self.view
        chosen = view.form.values(), view.start_combo.currentData(), view.blur.values
        return *chosen, self.session.microscope, *self.stack.circumstances()

    def _planner(self) -> Callable[[], IsotropicTrainPlan]:
        return partial(plan_isotropic_training, self.choice(), self.view.start_combo.currentData())

    def _planned(self, plan: IsotropicTrainPlan) -> None:
        sentences = () if plan.estimate is None else plan.estimate.sentences
        self._take_plan(plan, stack_plan_html(sentences, plan.model_id, "Stack") if sentences else "")

    def _voxel_um(self) -> float:
        voxel = self.stack.voxel_um()
        return 0.0 if voxel is None else float(voxel[-1])
