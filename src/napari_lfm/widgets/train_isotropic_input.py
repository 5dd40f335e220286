"""From what the user chose on the page for isotropic restoration to a training, or why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from napari_lfm.core.problems import LfmError
from napari_lfm.methods.isotropic.parameters import Profile
from napari_lfm.methods.isotropic.start import NO_START
from napari_lfm.widgets.isotropic_input import IsotropicChoice, resolve_isotropic
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.train_plans import (
    FITTING,
    NOTHING,
    CommonPlan,
    MostSteps,
    begun_plan,
    checked,
    earlier_of,
    with_id,
    with_taken_name,
)

if TYPE_CHECKING:
    from napari_lfm.methods.train_isotropic import IsotropicStack, IsotropicWish


class IsotropicSettings(BaseModel):
    """How long to train, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    minutes: float = Field(default=10.0, gt=0, le=600)
    """How long to train. Most is gained in the first minutes; Stop and Continue are always possible."""
    name: str = Field(default="")
    """Name in the list of models; one is made from the stack's where this is empty."""
    probabilistic: bool = False
    """Train a network that also states how far it may be off; it gives one more layer."""
    profile: Profile = Field(default="modern", json_schema_extra={"advanced": True})
    """How slices are made coarse: as recorded, with the camera's noise, or exactly as CSBDeep does."""
    patch_px: int = Field(default=128, ge=32, le=2048, json_schema_extra={"advanced": True})
    """Rows and columns of a patch."""
    steps: MostSteps = None
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra={"advanced": True})
    """The same seed draws the same patches."""


@dataclass(frozen=True)
class IsotropicTrainPlan(CommonPlan):
    """A training of isotropic restoration that is ready to start, or what keeps it from that."""

    settings: IsotropicSettings
    wish: IsotropicWish | None = None
    layers: tuple[IsotropicStack, ...] = ()


def plan_isotropic_training(choice: IsotropicChoice, start: str = FITTING) -> IsotropicTrainPlan:
    """Return the training that was chosen, with its estimate (worker thread).

    Parameters
    ----------
    choice : IsotropicChoice
        Its values are those of `IsotropicSettings`; its minutes and its model do not count.
    start : str
        `FITTING`, `NOTHING`, or a model's id.
    """
    plan = begun_plan(IsotropicTrainPlan, IsotropicSettings, choice.values, None)
    if plan.problems:
        return plan
    import_torch_gently()
    s = plan.settings
    own = {"profile": s.profile, "probabilistic": s.probabilistic, "seed": s.seed, "train_steps": s.steps}
    model = {FITTING: None, NOTHING: NO_START}.get(start, start)
    request = resolve_isotropic(replace(choice, values=own, minutes=s.minutes, model=model))
    if isinstance(request, list):
        return replace(plan, problems=tuple(request))
    try:
        return _with_wish(plan, request)
    except LfmError as error:
        return replace(plan, wish=None, problems=(*plan.problems, error.problem()))


def _with_wish(plan: IsotropicTrainPlan, request: Any) -> IsotropicTrainPlan:
    from napari_lfm.methods.isotropic.job import wish_of
    from napari_lfm.methods.train_isotropic import (
        make_isotropic_wish,
        usual_id,
        wish_on_record,
    )
    from napari_lfm.methods.train_isotropic_check import check_isotropic, estimate_isotropic

    s = plan.settings
    wish, stack = wish_of(request)
    tuning = wish.tuning.model_copy(update={"patch_px": s.patch_px})
    wish = with_id(wish.model_copy(update={"title": s.name.strip(), "tuning": tuning}), s.name, usual_id)
    plan = replace(plan, model_id=wish.id, layers=(stack,))
    earlier = earlier_of(wish.id, lambda folder: make_isotropic_wish(wish_on_record(folder)))
    if earlier is not None:
        missing = "on the stack {}, which is not chosen here"
        return with_taken_name(plan, earlier, missing, "Choose it to go on")
    problems = check_isotropic(wish, [stack])
    return checked(plan, wish, problems, lambda: estimate_isotropic(wish, [stack]))
