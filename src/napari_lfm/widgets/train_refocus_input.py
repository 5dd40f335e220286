"""From what the user chose on the page for refocusing to a training, or a sentence why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve_stack import required_stack
from napari_lfm.widgets.train_plans import (
    FITTING,
    CommonPlan,
    MostSteps,
    begun_plan,
    checked,
    earlier_of,
    nothing_chosen,
    validation_pause_s,
    with_id,
    with_taken_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.methods.refocus.own_stacks import NamedStack
    from napari_lfm.methods.train_refocus import RefocusWish
    from napari_lfm.widgets.state import LayerInfo

Source = Literal["simulated", "layer", "files"]


class RefocusSettings(BaseModel):
    """How long to train, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    minutes: float = Field(default=60.0, gt=0, le=100_000)
    """How long to train. Ten minutes are enough to fine-tune; Stop and Continue are always possible."""
    range_um: float | None = Field(default=None, gt=0, le=1000, json_schema_extra={"none_text": "as usual"})
    """Largest distance from the image that is learned; further planes are flagged. Usual: that of the model
    to start from, else as many depths of field as 10 um at 20x/0.8."""
    adversarial: bool = False
    """Train against a discriminator too, as published: sharper planes, and larger errors."""
    name: str = Field(default="")
    """Name in the list of models; one is made where this is empty."""
    reverse: bool = Field(default=False, json_schema_extra={"advanced": True})
    """The planes of the stack come in falling order: the first is the furthest from the coverslip."""
    patch_px: int = Field(default=256, ge=32, le=2048, json_schema_extra={"advanced": True})
    """Rows and columns of a patch of your own stacks; simulated ones are seen whole."""
    steps: MostSteps = None
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra={"advanced": True})
    """The same seed draws the same specimens and patches."""


@dataclass(frozen=True)
class RefocusChoice:
    """All that was chosen on the page.

    Attributes
    ----------
    values : mapping
        Of the form, unchecked.
    source : {"simulated", "layer", "files"}
    files : tuple of str
    layer, confocal : LayerInfo or None
    pixel_um, step_um : float
        Of stacks that do not say; 0: not said.
    optics : str
        Key of `OBJECTIVES`, or the name of a microscope.
    start : str
        `FITTING`, `NOTHING`, or a model's id.
    device : str
    tuning : mapping
        Finer settings, for those who know.
    """

    values: Mapping[str, Any]
    source: Source = "simulated"
    files: tuple[str, ...] = ()
    layer: LayerInfo | None = None
    confocal: LayerInfo | None = None
    pixel_um: float = 0.0
    step_um: float = 0.0
    optics: str = ""
    start: str = FITTING
    device: str = "auto"
    tuning: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RefocusTrainPlan(CommonPlan):
    """A training of refocusing that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings, wish, layers, problems, estimate, model_id, earlier
        As in `CommonPlan`; the layers are focal stacks.
    lacks_sizes : bool
        The stack does not say how large its voxels are.
    """

    settings: RefocusSettings
    wish: RefocusWish | None = None
    layers: tuple[NamedStack, ...] = ()
    lacks_sizes: bool = False


def plan_refocus(choice: RefocusChoice) -> RefocusTrainPlan:
    """Return the training that was chosen, with its estimate (worker thread)."""
    plan = begun_plan(RefocusTrainPlan, RefocusSettings, choice.values, _missing(choice))
    if plan.problems:
        return plan
    import_torch_gently()
    try:
        layers, sizes = _stacks(choice)
        plan = replace(plan, layers=layers)
        if choice.source != "simulated" and not all(sizes.values()):
            plan = replace(plan, lacks_sizes=True)
            raise RequestError(
                "The stack does not say how large its voxels are.",
                "Enter them below; the plane distance is that of the focus drive.",
            )
        return _with_wish(plan, choice, sizes)
    except LfmError as error:
        return replace(plan, wish=None, problems=(*plan.problems, error.problem()))


def _missing(choice: RefocusChoice) -> Problem | None:
    head = "No stack is chosen."
    if choice.source == "files" and not choice.files:
        return nothing_chosen(head, "Drop one or several focal stacks here.", "stacks")
    if choice.source == "layer" and choice.layer is None:
        return nothing_chosen(head, "Open a focal stack in the viewer and choose its layer.", "stacks")
    return None


def _stacks(choice: RefocusChoice) -> tuple[tuple[NamedStack, ...], dict[str, float]]:
    """Return the stacks of layers, and the sizes of the stack: as it says, else as they were entered."""
    from napari_lfm.methods.refocus.own_stacks import NamedStack, size_of, size_of_file

    entered = {"pixel_um": choice.pixel_um, "step_um": choice.step_um}
    if choice.source == "simulated":
        return (), entered
    if choice.source == "files":
        found = size_of_file(choice.files[0])
        return (), {"pixel_um": found.pixel_um or choice.pixel_um, "step_um": found.step_um or choice.step_um}
    assert choice.layer is not None
    image = required_stack(choice.layer)
    found = size_of(choice.layer.name, image)
    other = None if choice.confocal is None else required_stack(choice.confocal)
    stack = NamedStack(choice.layer.name, image, other)
    # a layer whose sizes are napari's own 1 has none here
    known = {d for d, v in spacing_of(image).items() if v}
    pixel = found.pixel_um if {"y", "x"} <= known else 0.0
    step = found.step_um if "z" in known else 0.0
    return (stack,), {"pixel_um": pixel or choice.pixel_um, "step_um": step or choice.step_um}


def _with_wish(plan: RefocusTrainPlan, choice: RefocusChoice, sizes: dict[str, float]) -> RefocusTrainPlan:
    from napari_lfm.methods.train_refocus import make_refocus_wish, usual_id, wish_on_record
    from napari_lfm.methods.train_refocus_check import check_refocus, estimate_refocus
    from napari_lfm.methods.train_refocus_make import OBJECTIVES

    s, own = plan.settings, choice.source != "simulated"
    optics = dict(OBJECTIVES.get(choice.optics) or {"microscope": choice.optics or None})
    if own:  # the stack has its own sizes, the start its range
        optics = {k: v for k, v in optics.items() if k not in ("pixel_um", "step_um", "range_um", "spread")}
        optics |= sizes
    values: dict[str, Any] = {
        **optics,
        "stacks": choice.files if choice.source == "files" else (),
        "layers": tuple(stack.name for stack in plan.layers),
        "reverse": s.reverse,
        "adversarial": s.adversarial,
        "minutes": s.minutes,
        "steps": s.steps,
        "seed": s.seed,
        "device": choice.device,
        "title": s.name.strip(),
        "tuning": {
            "patch_px": s.patch_px,
            "validate_every_s": validation_pause_s(s.minutes, 240.0),
            **(choice.tuning or {}),
        },
    }
    if choice.start != FITTING:
        values["start_from"] = choice.start
    if s.range_um is not None:
        values |= {"range_um": s.range_um}
        if not own:
            values["step_um"] = s.range_um / 20
    wish: RefocusWish = with_id(make_refocus_wish(values), s.name, usual_id)
    plan = replace(plan, model_id=wish.id)
    earlier = earlier_of(wish.id, lambda folder: make_refocus_wish(wish_on_record(folder)))
    if earlier is not None:
        missing = "on the layer {}, which is not chosen here"
        return with_taken_name(plan, earlier, missing, "Choose it to go on")
    layers = plan.layers
    return checked(plan, wish, check_refocus(wish, layers), lambda: estimate_refocus(wish, layers))
