"""From what the user chose in the *Train* panel to a training, or a sentence why not. No Qt."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.methods.base import get_method
from napari_lfm.networks.catalogue import list_models
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve import microscope_problems
from napari_lfm.widgets.train_plans import (
    CommonPlan,
    Earlier,
    MostSteps,
    checked,
    slug,
    with_taken_name,
    wrong_figures,
)
from napari_lfm.widgets.train_white import METHOD, WhiteFit, WhiteFits, WhiteSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.methods.train_lfmnet import TrainWish
    from napari_lfm.optics.microscope import Microscope

SPECIMEN_TEXTS = {
    "any": "any kind",
    "beads": "beads",
    "vesicles": "vesicles and cells",
    "vessels": "vessels",
    "filaments": "filaments",
    "neurons": "neurons",
    "nuclei": "nuclei",
}
SIZE_TEXTS = {
    "small": "small (fastest)",
    "medium": "medium (hours)",
    "large": "large (GPU)",
    "paper": "paper (GPU)",
}
_MODEL_METHOD = "lfmnet"


class TrainSettings(BaseModel):
    """What is trained, and how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    specimen: Literal["any", "beads", "vesicles", "vessels", "filaments", "neurons", "nuclei"] = "any"
    """What the simulated specimens look like. The nearer to yours the better; 'any kind' mixes all."""
    z_min_um: float = Field(default=-10.0, ge=-5000, le=5000)
    """Lowest plane of the volume, from the native plane; + is towards the objective."""
    z_max_um: float = Field(default=10.0, ge=-5000, le=5000)
    """Highest plane of the volume."""
    z_step_um: float = Field(default=1.0, gt=0, le=500)
    """Distance of the planes. Every plane is an output of the network: fewer train faster."""
    voxels_per_lenslet: int = Field(default=3, ge=1, le=15)
    """Voxels of the volume across one lenslet."""
    size: Literal["small", "medium", "large", "paper"] = "small"
    """Size of the network. Small suits a processor and minutes, medium hours; large and the published
    one, paper, want a graphics card (GPU). Larger ones become better only with much more time."""
    minutes: float = Field(default=20.0, gt=0, le=100_000)
    """How long to train, without the preparation. Stop and Continue are always possible."""
    name: str = Field(default="")
    """Name in the list of models; one is made from the microscope's where this is empty."""
    steps: MostSteps = None
    compare: bool = Field(default=True, json_schema_extra={"advanced": True})
    """Deconvolve the validation frames by Richardson-Lucy too, to compare with."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra={"advanced": True})
    """The same seed draws the same specimens."""


def settings_of(values: Mapping[str, Any]) -> TrainSettings | Problem:
    """Return the form's values checked, or what is wrong with them."""
    try:
        return TrainSettings.model_validate(dict(values))
    except ValidationError as error:
        return wrong_figures(error)


@dataclass(frozen=True)
class TrainPlan(CommonPlan):
    """A training of LFMNet that is ready to start, or what keeps it from that.

    Attributes
    ----------
    settings, wish, problems, estimate, model_id, earlier
        As in `CommonPlan`.
    white : WhiteFit or None
        The pupil that it was given.
    """

    settings: TrainSettings
    wish: TrainWish | None = None
    white: WhiteFit | None = None


def service() -> Any:
    """Return the module that trains (worker thread: it brings torch along)."""
    import_torch_gently()
    from napari_lfm.methods import train_lfmnet

    return train_lfmnet


def suggested(microscope: Microscope) -> dict[str, Any]:
    """Return depths that suit a microscope, those of its deconvolution."""
    return dict(get_method(METHOD).suggest(microscope))  # type: ignore[attr-defined]


def free_name(microscope: Microscope) -> str:
    """Return a name for the microscope's network that neither a model nor a training has."""
    trainer = service()
    taken = {e.card.id.lower() for e in list_models()}
    base = slug(f"{_MODEL_METHOD}-{microscope.name}")
    name, k = base, 1
    while name.lower() in taken or trainer.training_folder(name).exists():
        k += 1
        name = f"{base}-{k}"
    return name


def earlier_training(name: str) -> Earlier | None:
    """Return the training with this name, None where there is none (worker thread).

    Raises
    ------
    RequestError
        If its folder cannot be read.
    """
    folder = service().training_folder(name)
    record = folder / service().RECORD
    if not record.is_file():
        return None
    from napari_lfm.training.checkpoint import LAST
    from napari_lfm.training.outcome import read_result

    try:
        wish = service().TrainWish.model_validate(json.loads(record.read_text("utf-8"))["wish"])
        return Earlier(wish, read_result(folder) if (folder / LAST).is_file() else None)
    except (OSError, ValueError, KeyError, TypeError, LfmError):
        raise RequestError(
            f"There is a training '{name}' already, and it cannot be read.", "Type another name."
        ) from None


def plan_training(
    settings: TrainSettings,
    microscope: Microscope | None,
    white: WhiteSource | None = None,
    fits: WhiteFits | None = None,
    device: str = "auto",
) -> TrainPlan:
    """Return the training that the settings describe, with its estimate (worker thread).

    Parameters
    ----------
    settings : TrainSettings
    microscope : Microscope or None
    white : WhiteSource, optional
        Fit the pupil to its white frame.
    fits : WhiteFits, optional
        Knows the fit from before.
    device : str
    """
    problems = microscope_problems(microscope)
    if problems or microscope is None:
        return TrainPlan(settings, problems=tuple(problems))
    fit = None
    if white is not None:
        try:
            fit = (fits or WhiteFits()).of(white)
        except RequestError as error:
            remedy = f"{error.remedy} Or train without the white frame."
            problem = replace(error.problem(), remedy=remedy.strip(), field="white")
            return TrainPlan(settings, problems=(problem,))
    name = slug(settings.name) or free_name(microscope)
    plan = TrainPlan(settings, white=fit, model_id=name)
    trainer = service()
    try:
        earlier = earlier_training(name)
        if earlier is not None:
            return with_taken_name(plan, earlier)
        wish = trainer.TrainWish(
            **settings.model_dump(exclude={"name"}),
            microscope=microscope,
            n_pixels=None if fit is None else fit.n_pixels,
            pupil=() if fit is None else fit.pupil,
            id=name,
            title=settings.name.strip(),
            device=device,
        )
    except RequestError as error:
        return replace(plan, problems=(error.problem(),))
    except ValidationError as error:
        return replace(plan, problems=(wrong_figures(error),))
    return checked(plan, wish, trainer.check_training(wish), lambda: trainer.estimate_training(wish))
