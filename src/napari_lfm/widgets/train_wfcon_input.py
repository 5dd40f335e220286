"""From what the user chose on the WFCON-Net page to a training, or a sentence why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError, explain_validation
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve_stack import required_stack, unknown_sizes
from napari_lfm.widgets.train_input import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from napari_lfm.methods.train_wfcon import NamedPair, WfconWish
    from napari_lfm.methods.wfcon_check import WfconEstimate
    from napari_lfm.methods.wfcon_survey import Survey
    from napari_lfm.training.events import TrainResult
    from napari_lfm.widgets.state import LayerInfo

Source = Literal["folder", "layers", "tissue"]
Triple = tuple[float, float, float]

FITTING = "(the bundled one that fits)"
NOTHING = ""
_SIDES = ("widefield", "confocal", "input", "target")


class WfconSettings(BaseModel):
    """How long to train, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    minutes: float = Field(default=45.0, gt=0, le=100_000)
    """How long to train, without reading and registering. Stop and Continue are always possible."""
    adversarial: bool = True
    """Train against a discriminator, as published: sharper stacks, and slightly larger errors."""
    name: str = Field(default="")
    """Name in the list of models; one is made from the folder's where this is empty."""
    validation_share: float = Field(default=0.2, gt=0, lt=1, json_schema_extra={"advanced": True})
    """Share of the pairs that are never trained on, only compared with."""
    patch_planes: int = Field(default=20, ge=4, le=512, json_schema_extra={"advanced": True})
    """Planes of a patch to train on."""
    patch_px: int = Field(default=128, ge=16, le=2048, json_schema_extra={"advanced": True})
    """Rows and columns of a patch."""
    steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        json_schema_extra={"advanced": True, "none_text": "as many as the minutes allow"},
    )
    """End after so many steps, if that is before the minutes are over."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra={"advanced": True})
    """The same seed draws the same patches, and sets the same pairs aside."""


@dataclass(frozen=True)
class PairsInput:
    """Where the pairs come from.

    Attributes
    ----------
    source : {"folder", "layers", "tissue"}
    folder : str
    layers : tuple of (LayerInfo, LayerInfo)
        Wide-field and confocal.
    voxel_um : tuple of float or None
        (z, y, x), for stacks that do not say.
    register : bool
    """

    source: Source = "folder"
    folder: str = ""
    layers: tuple[tuple[LayerInfo, LayerInfo], ...] = ()
    voxel_um: Triple | None = None
    register: bool = True


@dataclass(frozen=True)
class WfconChoice:
    """All that was chosen on the page.

    Attributes
    ----------
    values : mapping
        Of the form, unchecked.
    pairs : PairsInput
    start : str
        `FITTING`, `NOTHING`, or a model's id.
    vgg_file, microscope, device : str
        The microscope by its name, empty for none.
    """

    values: Mapping[str, Any]
    pairs: PairsInput = PairsInput()
    start: str = FITTING
    vgg_file: str = ""
    microscope: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class EarlierWfcon:
    """A training that was begun before."""

    wish: WfconWish
    result: TrainResult | None


@dataclass(frozen=True)
class WfconTrainPlan:
    """A training that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings : WfconSettings
    wish : WfconWish or None
        None where it cannot start.
    layers : tuple of NamedPair
        For the wish.
    survey : Survey or None
    problems : tuple of Problem
    estimate : WfconEstimate or None
    model_id : str
    earlier : EarlierWfcon or None
        The training that has this name already.
    """

    settings: WfconSettings
    wish: WfconWish | None = None
    layers: tuple[NamedPair, ...] = ()
    survey: Survey | None = None
    problems: tuple[Problem, ...] = ()
    estimate: WfconEstimate | None = None
    model_id: str = ""
    earlier: EarlierWfcon | None = None


class Forgotten(Exception):
    """Nobody waits for the plan any more."""


def service() -> Any:
    """Return the module that trains (worker thread: it brings torch along)."""
    import_torch_gently()
    from napari_lfm.methods import train_wfcon

    return train_wfcon


def pairs_root(path: Path) -> Path:
    """Return the folder of pairs that is meant by what was dropped: it, one of its two sides, or a file."""
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name.lower() in _SIDES else folder


def plan_wfcon(choice: WfconChoice, forgotten: Callable[[], bool] = lambda: False) -> WfconTrainPlan:
    """Return the training that was chosen, with its estimate (worker thread).

    Parameters
    ----------
    choice : WfconChoice
    forgotten : callable
        Whether nobody waits for it any more; then `Forgotten` is raised soon.
    """
    try:
        settings = WfconSettings.model_validate(dict(choice.values))
    except ValidationError as error:
        problem = Problem("These figures do not make a training.", explain_validation(error))
        return WfconTrainPlan(WfconSettings(), problems=(problem,))
    plan = WfconTrainPlan(settings)
    missing = _nothing_chosen(choice.pairs)
    if missing is not None:
        return replace(plan, problems=(missing,))
    import_torch_gently()
    try:
        plan = _with_survey(plan, choice.pairs, forgotten)
        return _with_wish(plan, choice)
    except LfmError as error:
        return replace(plan, wish=None, problems=(*plan.problems, error.problem()))


def _nothing_chosen(pairs: PairsInput) -> Problem | None:
    if pairs.source == "folder" and not pairs.folder:
        return Problem(
            "No folder of pairs is chosen.",
            "Drop one here that holds the folders 'widefield' and 'confocal', with equal names in both.",
            severity="info",
            field="pairs",
        )
    if pairs.source == "layers" and not pairs.layers:
        return Problem(
            "No pair is chosen.",
            "Choose a wide-field layer and its confocal one, and press 'Add pair'.",
            severity="info",
            field="pairs",
        )
    return None


def _with_survey(plan: WfconTrainPlan, pairs: PairsInput, forgotten: Callable[[], bool]) -> WfconTrainPlan:
    from napari_lfm.methods.wfcon_survey import Survey, survey_folder, survey_layers

    if pairs.source == "tissue":
        return plan
    if pairs.source == "folder":
        for step in survey_folder(pairs.folder, pairs.voxel_um):
            if forgotten():
                raise Forgotten
            if isinstance(step, Survey):
                plan = replace(plan, survey=step)
        return plan
    named = named_pairs(pairs.layers, pairs.voxel_um)
    return replace(plan, layers=named, survey=survey_layers(named))


def named_pairs(
    layers: Sequence[tuple[LayerInfo, LayerInfo]], voxel_um: Triple | None = None
) -> tuple[NamedPair, ...]:
    """Return pairs of layers as labelled stacks, each with a name of its own.

    Raises
    ------
    RequestError
        If a layer cannot be a stack.
    """
    from napari_lfm.methods.train_wfcon import NamedPair

    out: list[NamedPair] = []
    for wide, confocal in layers:
        images = [_sized(required_stack(info), voxel_um) for info in (wide, confocal)]
        name, k = wide.name, 1
        while any(name == pair.name for pair in out):
            k += 1
            name = f"{wide.name} ({k})"
        # what was moved in the 'Register pair' panel is where somebody wants it
        placed = any(info.metadata.get("registration") for info in (wide, confocal))
        out.append(NamedPair(name, images[0], images[1], placed))
    return tuple(out)


def _sized(image: xr.DataArray, voxel_um: Triple | None) -> xr.DataArray:
    """Return the image with voxel sizes where it says none."""
    if voxel_um is None or not unknown_sizes(image) or "affine_um" in image.attrs:
        return image
    spacing = {**spacing_of(image), **dict(zip("zyx", voxel_um, strict=True))}
    dims = [str(d) for d in image.dims]
    origin = {d: v for d, v in origin_of(image).items() if d not in "zyx"}
    named = {d: v for d, v in spacing.items() if d in dims}
    return labelled(image.data, dims, named, origin, attrs=dict(image.attrs)).rename(image.name)


def _with_wish(plan: WfconTrainPlan, choice: WfconChoice) -> WfconTrainPlan:
    from napari_lfm.methods.train_jobs import free_id
    from napari_lfm.methods.train_wfcon import make_wfcon_wish, usual_id
    from napari_lfm.methods.wfcon_check import best_start, check_wfcon, estimate_wfcon
    from napari_lfm.simulation.thick_tissue import TissueSettings

    s, pairs, survey = plan.settings, choice.pairs, plan.survey
    start = choice.start
    if start == FITTING:
        heads = [] if survey is None else survey.heads
        voxel = heads[0][0].voxel_um if heads else TissueSettings().voxel_um
        start = "" if survey is not None and not heads else best_start(voxel)
    values: dict[str, Any] = {
        "pairs": pairs.folder if pairs.source == "folder" else "",
        "layers": tuple(pair.name for pair in plan.layers),
        "register_pairs": pairs.register,
        "voxel_um": pairs.voxel_um if pairs.source == "folder" else None,
        "microscope": choice.microscope or None,
        "adversarial": s.adversarial,
        "vgg_file": choice.vgg_file if s.adversarial else "",
        "start_from": start,
        "validation_share": s.validation_share,
        "minutes": s.minutes,
        "steps": s.steps,
        "seed": s.seed,
        "device": choice.device,
        "title": s.name.strip(),
        "tuning": {
            "patch": (s.patch_planes, s.patch_px, s.patch_px),
            # the slices are to be seen a few times, also in a short training
            "validate_every_s": min(120.0, max(10.0, 60 * s.minutes / 20)),
        },
    }
    wish: WfconWish = make_wfcon_wish(values)
    name = slug(s.name) or free_id(usual_id(wish))
    wish = wish.model_copy(update={"id": name})
    plan = replace(plan, model_id=name)
    earlier = earlier_wfcon(name)
    if earlier is not None:
        return replace(plan, **_earlier_parts(earlier, plan))
    problems = check_wfcon(wish, survey)
    plan = replace(plan, problems=tuple(problems))
    if any(p.severity == "error" for p in problems):
        return plan
    return replace(plan, wish=wish, estimate=estimate_wfcon(wish, survey))


def _earlier_parts(earlier: EarlierWfcon, plan: WfconTrainPlan) -> dict[str, Any]:
    """Return what a plan says where there is a training of this name already."""
    name, wanted = plan.model_id, set(earlier.wish.layers)
    lacking = wanted - {pair.name for pair in plan.layers}
    if lacking:
        need = ", ".join(f"'{n}'" for n in sorted(lacking))
        problem = Problem(
            f"There is a training '{name}' already, on pairs of layers: {need} missing here.",
            "Add these pairs again to go on with it, or type another name.",
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


def earlier_wfcon(name: str) -> EarlierWfcon | None:
    """Return the training of this name, None where there is none (worker thread).

    Raises
    ------
    RequestError
        If there is one that cannot be read, or of another network.
    """
    from napari_lfm.methods.train_jobs import RECORD, training_folder
    from napari_lfm.methods.train_wfcon import make_wfcon_wish, recorded_wfcon_wish
    from napari_lfm.training.checkpoint import LAST
    from napari_lfm.training.outcome import read_result

    folder = training_folder(name)
    if not (folder / RECORD).is_file():
        return None
    try:
        wish = make_wfcon_wish(recorded_wfcon_wish(folder)).model_copy(update={"id": name})
        return EarlierWfcon(wish, read_result(folder) if (folder / LAST).is_file() else None)
    except LfmError:
        raise RequestError(
            f"There is a training '{name}' already, of another network or not readable.",
            "Type another name.",
        ) from None
