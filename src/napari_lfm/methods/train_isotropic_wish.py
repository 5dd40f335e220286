"""What a user wants isotropic restoration trained on: one stack of their own, or simulated slices."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from napari_lfm.core.devices import DeviceName
from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.methods.isotropic.parameters import Architecture, BlurSource, Profile
from napari_lfm.methods.isotropic.start import NO_START
from napari_lfm.methods.train_wish import refuse_unknown
from napari_lfm.networks.card import is_valid_id
from napari_lfm.optics.axial_blur import PsfRule
from napari_lfm.optics.microscope import Microscope
from napari_lfm.training.config import Precision, make_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.training.config import TrainConfig
    from napari_lfm.training.isotropic import IsotropicPlan
    from napari_lfm.training.isotropic_patches import PatchPlan
    from napari_lfm.training.isotropic_simulated import SimulatedPlan

NETWORKS = {
    "isotropic": ("widths", "blocks", "fold", "smooth"),
    "isotropic-csbdeep": ("depth", "base", "kernel", "residual"),
    "isotropic-isonet1": (),
    "isotropic-isonet2": (),
}
"""Entries of the tuning that are each network's."""
MANY_CHANNELS = ("isotropic", "isotropic-csbdeep")
"""Networks that can see several channels together."""
LEARNING_RATES = {"isotropic": 2e-3}
"""By network; the others have CSBDeep's. Half of it where a training goes on from a model."""
CSBDEEP_RATE = 4e-4
LEAST_VALIDATION_S, MOST_VALIDATION_S = 8.0, 60.0


class IsotropicTuning(BaseModel):
    """Settings of recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    widths: tuple[int, ...] = ()
    """Channels of every level of our network; empty: the usual ones."""
    blocks: int | None = Field(default=None, ge=1, le=16)
    """Residual blocks of a level."""
    fold: int | None = Field(default=None, ge=1, le=4)
    """Pixels along either axis that become channels."""
    smooth: bool | None = None
    """Filter out what repeats every two pixels."""
    depth: int | None = Field(default=None, ge=1, le=6)
    """Poolings of CSBDeep's network."""
    base: int | None = Field(default=None, ge=1, le=1024)
    """Its first number of filters."""
    kernel: int | None = Field(default=None, ge=1, le=31)
    """Side of its filters."""
    residual: bool | None = None
    """Whether it adds its input to its output."""
    patch_px: int = Field(default=96, ge=16, le=2048)
    """Side of a patch."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Patches per step."""
    pool: int = Field(default=60, ge=1, le=10_000)
    """Simulated specimens in memory at a time."""
    fresh_every: int = Field(default=8, ge=1, le=100_000)
    """Steps after which the oldest of them is replaced."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Largest learning rate; empty: 0.002 of our network, 0.0004 of the others, half of it where it goes on
    from a model."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the average of the weights."""
    validate_every_s: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds between validations; empty: 8, or more where each takes long."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations."""
    checkpoint_every_s: float = Field(default=120.0, gt=0, le=1e6)
    """Seconds between checkpoints."""


class IsotropicWish(BaseModel):
    """What to train on, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stacks: tuple[str, ...] = ()
    """File of the stack; or a layer."""
    layers: tuple[str, ...] = ()
    """Name of the stack that is handed over; it is needed again to go on."""
    simulated: bool = False
    """Train on simulated slices instead: a model that every stack can be started from."""
    axes: str | None = None
    """Axes of the file where it does not name them, e.g. ZYX."""
    voxel_um: tuple[float, float, float] | None = None
    """Voxels (z, y, x) of a stack that does not say."""
    frame: int | None = Field(default=None, ge=0)
    """Frame of a movie, from 0; empty: the middle one."""
    channel: int | None = Field(default=None, ge=0)
    """Channel, from 0; empty: all of them."""
    factor: float = Field(default=0.0, ge=0, le=64)
    """How many lateral pixels the planes are apart; 0: as the voxel sizes say."""
    blur: BlurSource = "estimate"
    """Where the blur along z is taken from: the stack itself, the microscope, or a measured point spread
    function."""
    blur_um: float = Field(default=0.0, ge=0, le=1000)
    """The blur along z by hand, sqrt(sigma_z^2 - sigma_x^2); 0: see blur."""
    psf: str = ""
    """File of a measured point spread function."""
    psf_voxel_um: tuple[float, float, float] | None = None
    """Its voxels (z, y, x) where it does not say."""
    psf_rule: PsfRule = "exact"
    """How the blur follows from a point spread function."""
    microscope: Microscope | None = None
    """The optics, for the blur and the card."""
    profile: Profile = "modern"
    """How slices are made coarse: as recorded, or exactly as CSBDeep does."""
    architecture: Architecture = ""
    """Network; empty: that of the model it goes on from, else ours."""
    probabilistic: bool = False
    """A network that also states how far it may be off."""
    start_from: str = ""
    """Id or folder of a model to go on from; empty: the bundled one where it fits; none: random weights."""
    minutes: float | None = Field(default=5.0, gt=0, le=100_000)
    """Minutes of training in all."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone they make a training repeatable."""
    precision: Precision = "auto"
    """Number format of the network while it is trained."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    id: str = ""
    """Id of the model; empty: isotropic- and the stack's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model."""
    tuning: IsotropicTuning = IsotropicTuning()
    """Finer settings."""

    @field_validator("voxel_um", "psf_voxel_um")
    @classmethod
    def _some_size(
        cls, value: tuple[float, float, float] | None, info: ValidationInfo
    ) -> tuple[float, float, float] | None:
        if value is not None and not all(0 < v < math.inf for v in value):
            raise ValueError(f"{info.field_name}: sizes of voxels are above 0")
        return value

    @field_validator("id")
    @classmethod
    def _fine_id(cls, value: str) -> str:
        if value and not is_valid_id(value):
            raise ValueError(f"'{value}' cannot be the id of a model: use letters, digits, and . _ + -")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("give the length of the training: minutes, steps or both")
        count = len(self.stacks) + len(self.layers)
        if self.simulated:
            if count or self.profile != "modern":
                raise ValueError("simulated slices take no stack, and are made coarse as one is recorded")
        elif count != 1:
            said = "no stack is given" if count == 0 else f"{count} stacks are given"
            raise ValueError(f"{said}: isotropic restoration is trained on one, the one to be restored")
        if self.probabilistic and self.architecture not in ("", *MANY_CHANNELS):
            raise ValueError(f"the network '{self.architecture}' does not state how far it may be off")
        return self

    @property
    def name(self) -> str:
        """Name of the stack."""
        from pathlib import Path

        if self.simulated:
            return "starter"
        return self.layers[0] if self.layers else Path(self.stacks[0]).name

    @property
    def starts(self) -> bool:
        """Whether it goes on from a model."""
        return self.start_from not in ("", NO_START)


def make_isotropic_wish(values: Mapping[str, Any]) -> IsotropicWish:
    """Return a checked wish in which the model to go on from, and so the network, is told.

    Parameters
    ----------
    values : mapping
        Entries of `IsotropicWish`; the microscope may be a name, a file, a dict or itself. Entries of the
        wish itself may also stand in ``tuning``.

    Raises
    ------
    RequestError
        If an entry is unknown or out of bounds, in words.
    """
    from pathlib import Path

    from napari_lfm.optics.presets import load_microscope

    given = {k: v for k, v in values.items() if v is not None or k in ("minutes", "steps")}
    tuning = given.get("tuning")
    if isinstance(tuning, dict):
        own = [k for k in tuning if k in IsotropicWish.model_fields and k != "tuning"]
        given |= {k: tuning[k] for k in own}
        given["tuning"] = {k: v for k, v in tuning.items() if k not in own}
        refuse_unknown(given["tuning"], IsotropicTuning, "setting of 'tuning'")
    refuse_unknown(given, IsotropicWish, "setting")
    for name in ("stacks", "layers"):
        if isinstance(given.get(name), str):
            given[name] = (given[name],)
    microscope = given.get("microscope")
    if isinstance(microscope, str | Path):
        given["microscope"] = load_microscope(microscope)
    if given.get("psf") and "blur" not in given:
        given["blur"] = "measured"
    if str(given.get("start_from", "")).lower() == NO_START:
        given["start_from"] = NO_START
    try:
        return _with_start(IsotropicWish.model_validate(given))
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def _with_start(wish: IsotropicWish) -> IsotropicWish:
    """Return the wish with the model it goes on from, and that model's network."""
    from napari_lfm.methods.isotropic.start import named_model, usual_model

    anew = wish.model_copy(update={"start_from": NO_START, "architecture": wish.architecture or "isotropic"})
    if wish.start_from == NO_START or (not wish.starts and (wish.profile == "csbdeep" or wish.simulated)):
        return anew
    asked = {k for names in NETWORKS.values() for k in names} & wish.tuning.model_fields_set
    if wish.starts and wish.architecture and asked:
        return wish  # all is told: to go on, the model need not be there any more
    entry = named_model(wish.start_from) if wish.starts else usual_model(wish.factor)
    other = entry is not None and wish.architecture not in ("", entry.card.architecture)
    if not wish.starts and (entry is None or asked or other):
        return anew  # nobody named it: what is asked of the network counts more
    assert entry is not None
    if other:
        raise RequestError(
            f"The network of '{entry.card.id}' is '{entry.card.architecture}', not '{wish.architecture}'.",
            "Leave one of them out.",
        )
    network = entry.card.network
    names = NETWORKS.get(entry.card.architecture, ())
    if not asked:
        update = {k: network[k] for k in names if k in network}
        tuning = IsotropicTuning.model_validate({**wish.tuning.model_dump(), **update})
        wish = wish.model_copy(update={"tuning": tuning})
    update = {"start_from": wish.start_from or entry.card.id, "architecture": entry.card.architecture}
    if network.get("probabilistic"):
        update["probabilistic"] = True
    return wish.model_copy(update=update)


def network_of(wish: IsotropicWish) -> dict[str, Any]:
    """Return the arguments of the network that are said, but for its channels."""
    t = wish.tuning
    out: dict[str, Any] = {}
    for name in NETWORKS[wish.architecture or "isotropic"]:
        value = getattr(t, name)
        if value not in (None, ()):
            out[name] = list(value) if isinstance(value, tuple) else value
    if wish.probabilistic and wish.architecture in MANY_CHANNELS:
        out["probabilistic"] = True
    return out


def pooled_of(wish: IsotropicWish) -> bool:
    """Return whether channels are learned from one by one, by a network of one channel."""
    return wish.profile == "modern" or wish.architecture not in MANY_CHANNELS


def plan_of(wish: IsotropicWish) -> IsotropicPlan:
    """Return the plan of the training task."""
    from napari_lfm.training.isotropic import IsotropicPlan

    return IsotropicPlan(wish.architecture or "isotropic", network_of(wish), wish.tuning.batch_size)


def patches_plan_of(wish: IsotropicWish) -> PatchPlan:
    """Return what a patch is."""
    from napari_lfm.training.isotropic_patches import PatchPlan

    if wish.profile == "csbdeep":
        return replace(PatchPlan.published(), patch_px=wish.tuning.patch_px)
    return PatchPlan(patch_px=wish.tuning.patch_px)


def simulated_plan_of(wish: IsotropicWish) -> SimulatedPlan:
    """Return what simulated slices are."""
    from napari_lfm.training.isotropic_simulated import SimulatedPlan

    return SimulatedPlan(
        patch_px=wish.tuning.patch_px, pool=wish.tuning.pool, fresh_every=wish.tuning.fresh_every
    )


def config_of(wish: IsotropicWish, validation_s: float = 0.0) -> TrainConfig:
    """Return the loop's settings.

    Parameters
    ----------
    wish : IsotropicWish
    validation_s : float
        How long a validation takes: they are not to take more than a tenth of the time.
    """
    t = wish.tuning
    rate = LEARNING_RATES.get(wish.architecture or "isotropic", CSBDEEP_RATE) / (2 if wish.starts else 1)
    every = t.validate_every_s or min(max(LEAST_VALIDATION_S, 10 * validation_s), MOST_VALIDATION_S)
    return make_config(
        minutes=wish.minutes,
        steps=wish.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate or rate,
        schedule="one-cycle",
        warmup_share=0.05,
        ema_decay=t.ema_decay,
        weight_decay=1e-4,
        validate_every_s=None if t.validate_every_steps else every,
        validate_every_steps=t.validate_every_steps,
        checkpoint_every_s=t.checkpoint_every_s,
        prefetch=0,
        seed=wish.seed,
        device=wish.device,
        precision=wish.precision,
    )
