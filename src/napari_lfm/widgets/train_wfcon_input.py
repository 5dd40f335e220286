"""From what the user chose on the WFCON-Net page to a training, or a sentence why not. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve_stack import required_stack, unknown_sizes
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
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from napari_lfm.methods.train_wfcon import NamedPair, WfconWish
    from napari_lfm.methods.wfcon_survey import Survey
    from napari_lfm.widgets.state import LayerInfo

Source = Literal["folder", "layers", "tissue"]
Triple = tuple[float, float, float]

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
    steps: MostSteps = None
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
class WfconTrainPlan(CommonPlan):
    """A training of WFCON-Net that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings, wish, layers, problems, estimate, model_id, earlier
        As in `CommonPlan`; the layers are pairs.
    survey : Survey or None
    """

    settings: WfconSettings
    wish: WfconWish | None = None
    layers: tuple[NamedPair, ...] = ()
    survey: Survey | None = None


class Forgotten(Exception):
    """Nobody waits for the plan any more."""


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
    plan = begun_plan(WfconTrainPlan, WfconSettings, choice.values, _missing(choice.pairs))
    if plan.problems:
        return plan
    import_torch_gently()
    try:
        plan = _with_survey(plan, choice.pairs, forgotten)
        return _with_wish(plan, choice)
    except LfmError as error:
        return replace(plan, wish=None, problems=(*plan.problems, error.problem()))


def _missing(pairs: PairsInput) -> Problem | None:
    if pairs.source == "folder" and not pairs.folder:
        remedy = "Drop one here that holds the folders 'widefield' and 'confocal', with equal names in both."
        return nothing_chosen("No folder of pairs is chosen.", remedy, "pairs")
    if pairs.source == "layers" and not pairs.layers:
        remedy = "Choose a wide-field layer and its confocal one, and press 'Add pair'."
        return nothing_chosen("No pair is chosen.", remedy, "pairs")
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
    from napari_lfm.methods.train_wfcon import make_wfcon_wish, usual_id, wish_on_record
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
            "validate_every_s": validation_pause_s(s.minutes, 120.0),
        },
    }
    wish: WfconWish = with_id(make_wfcon_wish(values), s.name, usual_id)
    plan = replace(plan, model_id=wish.id)
    earlier = earlier_of(wish.id, lambda folder: make_wfcon_wish(wish_on_record(folder)))
    if earlier is not None:
        missing = "on pairs of layers: {} missing here"
        return with_taken_name(plan, earlier, missing, "Add these pairs again to go on with it")
    return checked(plan, wish, check_wfcon(wish, survey), lambda: estimate_wfcon(wish, survey))
