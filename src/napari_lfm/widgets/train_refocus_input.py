"""From what the user chose on the page for refocusing to a training, or a sentence why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError, explain_validation
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve_stack import required_stack
from napari_lfm.widgets.train_input import slug

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.methods.refocus.own_stacks import NamedStack
    from napari_lfm.methods.train_refocus import RefocusWish
    from napari_lfm.methods.train_refocus_check import RefocusEstimate
    from napari_lfm.training.events import TrainResult
    from napari_lfm.widgets.state import LayerInfo

Source = Literal["simulated", "layer", "files"]

FITTING = "(the bundled one that fits)"
NOTHING = ""
MOST_VALIDATIONS = 20


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
    steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        json_schema_extra={"advanced": True, "none_text": "as many as the minutes allow"},
    )
    """End after so many steps, if that is before the minutes are over."""
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
class EarlierRefocus:
    """A training that was begun before."""

    wish: RefocusWish
    result: TrainResult | None


@dataclass(frozen=True)
class RefocusTrainPlan:
    """A training that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings : RefocusSettings
    wish : RefocusWish or None
        None where it cannot start.
    stacks : tuple of NamedStack
        For the wish.
    problems : tuple of Problem
    estimate : RefocusEstimate or None
    model_id : str
    earlier : EarlierRefocus or None
        The training that has this name already.
    lacks_sizes : bool
        The stack does not say how large its voxels are.
    """

    settings: RefocusSettings
    wish: RefocusWish | None = None
    stacks: tuple[NamedStack, ...] = ()
    problems: tuple[Problem, ...] = ()
    estimate: RefocusEstimate | None = None
    model_id: str = ""
    earlier: EarlierRefocus | None = None
    lacks_sizes: bool = False


def service() -> Any:
    """Return the module that trains (worker thread: it brings torch along)."""
    import_torch_gently()
    from napari_lfm.methods import train_refocus

    return train_refocus


def plan_refocus(choice: RefocusChoice) -> RefocusTrainPlan:
    """Return the training that was chosen, with its estimate (worker thread)."""
    try:
        settings = RefocusSettings.model_validate(dict(choice.values))
    except ValidationError as error:
        problem = Problem("These figures do not make a training.", explain_validation(error))
        return RefocusTrainPlan(RefocusSettings(), problems=(problem,))
    plan = RefocusTrainPlan(settings)
    missing = _nothing_chosen(choice)
    if missing is not None:
        return replace(plan, problems=(missing,))
    import_torch_gently()
    try:
        stacks, sizes = _stacks(choice)
        plan = replace(plan, stacks=stacks)
        if choice.source != "simulated" and not all(sizes.values()):
            plan = replace(plan, lacks_sizes=True)
            raise RequestError(
                "The stack does not say how large its voxels are.",
                "Enter them below; the plane distance is that of the focus drive.",
            )
        return _with_wish(plan, choice, sizes)
    except LfmError as error:
        return replace(plan, wish=None, problems=(*plan.problems, error.problem()))


def _nothing_chosen(choice: RefocusChoice) -> Problem | None:
    if choice.source == "files" and not choice.files:
        return Problem(
            "No stack is chosen.", "Drop one or several focal stacks here.", severity="info", field="stacks"
        )
    if choice.source == "layer" and choice.layer is None:
        return Problem(
            "No stack is chosen.",
            "Open a focal stack in the viewer and choose its layer.",
            severity="info",
            field="stacks",
        )
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
    from napari_lfm.methods.train_jobs import free_id
    from napari_lfm.methods.train_refocus import make_refocus_wish, usual_id
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
        "layers": tuple(stack.name for stack in plan.stacks),
        "reverse": s.reverse,
        "adversarial": s.adversarial,
        "minutes": s.minutes,
        "steps": s.steps,
        "seed": s.seed,
        "device": choice.device,
        "title": s.name.strip(),
        # the slices are to be seen a few times, also in a short training
        "tuning": {
            "patch_px": s.patch_px,
            "validate_every_s": min(240.0, max(10.0, 60 * s.minutes / MOST_VALIDATIONS)),
            **(choice.tuning or {}),
        },
    }
    if choice.start != FITTING:
        values["start_from"] = choice.start
    if s.range_um is not None:
        values |= {"range_um": s.range_um}
        if not own:
            values["step_um"] = s.range_um / 20
    wish: RefocusWish = make_refocus_wish(values)
    name = slug(s.name) or free_id(usual_id(wish))
    wish = wish.model_copy(update={"id": name})
    plan = replace(plan, model_id=name)
    earlier = earlier_refocus(name)
    if earlier is not None:
        return replace(plan, **_earlier_parts(earlier, plan))
    problems = check_refocus(wish, plan.stacks)
    plan = replace(plan, problems=tuple(problems))
    if any(p.severity == "error" for p in problems):
        return plan
    return replace(plan, wish=wish, estimate=estimate_refocus(wish, plan.stacks))


def _earlier_parts(earlier: EarlierRefocus, plan: RefocusTrainPlan) -> dict[str, Any]:
    """Return what a plan says where there is a training of this name already."""
    name = plan.model_id
    lacking = set(earlier.wish.layers) - {stack.name for stack in plan.stacks}
    if lacking:
        need = ", ".join(f"'{n}'" for n in sorted(lacking))
        problem = Problem(
            f"There is a training '{name}' already, on the layer {need}, which is not chosen here.",
            "Choose it to go on, or type another name.",
            severity="warning",
            field="name",
        )
        return {"problems": (problem,)}
    problem = Problem(
        f"There is a training '{name}' already.",
        "Continue goes on with it as it was; for another one, type another name.",
        severity="info",
        field="name",
    )
    return {"problems": (problem,), "earlier": earlier}


def earlier_refocus(name: str) -> EarlierRefocus | None:
    """Return the training of this name, None where there is none (worker thread).

    Raises
    ------
    RequestError
        If there is one that cannot be read, or of another network.
    """
    from napari_lfm.methods.train_jobs import RECORD, training_folder
    from napari_lfm.methods.train_refocus import make_refocus_wish, recorded_refocus_wish
    from napari_lfm.training.checkpoint import LAST
    from napari_lfm.training.outcome import read_result

    folder = training_folder(name)
    if not (folder / RECORD).is_file():
        return None
    try:
        wish = make_refocus_wish(recorded_refocus_wish(folder)).model_copy(update={"id": name})
        return EarlierRefocus(wish, read_result(folder) if (folder / LAST).is_file() else None)
    except LfmError:
        raise RequestError(
            f"There is a training '{name}' already, of another network or not readable.",
            "Type another name.",
        ) from None
