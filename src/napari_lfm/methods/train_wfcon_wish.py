"""What a user wants WFCON-Net trained on: pairs of their own or simulated tissue, and for how long."""

from __future__ import annotations

import math
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
from napari_lfm.methods.train_wish import refuse_unknown
from napari_lfm.networks.card import is_valid_id
from napari_lfm.optics.microscope import Microscope
from napari_lfm.training.config import make_config
from napari_lfm.training.stack_pairs import PatchSettings
from napari_lfm.training.wfcon import WfconPlan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_lfm.training.config import TrainConfig

_NETWORK = ("profile", "widths", "base", "z_pool_levels", "flat", "planes")
"""Entries of the tuning that are the network's."""
LEAST_ACROSS = 16
"""Pixels of a patch that the discriminator can judge."""


class WfconTuning(BaseModel):
    """Settings of recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    profile: str = "modern"
    """Of the network: modern, or paper."""
    widths: tuple[int, ...] = ()
    """Channels of every level; empty: the profile's."""
    base: int = Field(default=32, ge=1, le=256)
    """First width of the paper profile."""
    z_pool_levels: int = Field(default=2, ge=0, le=4)
    """Down blocks that halve the planes too."""
    bands: tuple[int, ...] | None = None
    """Surroundings that the network is shown the rise above, pixels across; empty: the profile's."""
    flat: bool = False
    """Two-dimensional kernels: the ablation."""
    planes: int = Field(default=1, ge=1, le=15)
    """Planes that a flat network sees as channels."""
    patch: tuple[int, int, int] = (20, 128, 128)
    """Planes, rows and columns of a patch."""
    batch_size: int = Field(default=2, ge=1, le=256)
    """Patches per step."""
    skip_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the patches with every second or fourth plane only."""
    learning_rate: float = Field(default=4e-4, gt=0, le=1)
    """Largest learning rate."""
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    """Of the average of the weights."""
    pool: int = Field(default=36, ge=1, le=10_000)
    """Simulated specimens in memory at a time."""
    fresh_every: int = Field(default=30, ge=1, le=100_000)
    """Steps after which the oldest of them is replaced."""
    shape: tuple[int, int, int] = (80, 384, 384)
    """Voxels of a simulated specimen."""
    l1: float = Field(default=2.0, ge=0, le=1e4)
    """Weight of the absolute difference."""
    gan: float = Field(default=1.0, ge=0, le=1e4)
    """Weight of the discriminator's voice."""
    vgg: float = Field(default=0.01, ge=0, le=1e4)
    """Weight of the features."""
    vgg_slices: int = Field(default=2, ge=0, le=1000)
    """Slices of a patch that features are compared on; 0: all."""
    compressed: float = Field(default=0.5, ge=0, le=1e4)
    """Weight of the absolute difference of square roots, for what is dim; 0 in the paper."""
    gan_after: int = Field(default=0, ge=0)
    """Steps before the discriminator is listened to."""
    validate_every_s: float | None = Field(default=120.0, gt=0, le=1e6)
    """Seconds between validations."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations."""
    checkpoint_every_s: float = Field(default=300.0, gt=0, le=1e6)
    """Seconds between checkpoints."""

    @field_validator("patch", "shape")
    @classmethod
    def _some_voxels(cls, value: tuple[int, int, int], info: ValidationInfo) -> tuple[int, int, int]:
        if value[0] < 1 or min(value[1:]) < LEAST_ACROSS:
            least = f"1 plane of {LEAST_ACROSS} x {LEAST_ACROSS} pixels is the least"
            raise ValueError(f"{info.field_name} = {list(value)}: {least}")
        return value


class WfconWish(BaseModel):
    """What to train on, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pairs: str = ""
    """Folder of pairs, with folders 'widefield' and 'confocal'; empty: simulated tissue, or layers."""
    layers: tuple[str, ...] = ()
    """Names of the pairs of layers that are handed over; they are needed again to go on."""
    register_pairs: bool = True
    """Register every pair; one whose two estimates contradict each other is left out."""
    voxel_um: tuple[float, float, float] | None = None
    """Voxels (z, y, x) of files that do not say."""
    microscope: Microscope | None = None
    """The optics, for the card; simulated tissue has its own."""
    adversarial: bool = True
    """Train against a discriminator, as published; it sharpens, and raises the errors a little."""
    vgg_file: str = ""
    """Weights of VGG16 (npz or safetensors) for the loss on features; empty: torchvision's, if installed."""
    start_from: str = ""
    """Id or folder of a model to go on from, instead of random weights."""
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the pairs that are only validated on."""
    minutes: float | None = Field(default=45.0, gt=0, le=100_000)
    """Minutes of training in all."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone they make a training repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    id: str = ""
    """Id of the model; empty: wfcon- and the folder's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model."""
    tuning: WfconTuning = WfconTuning()
    """Finer settings."""

    @field_validator("voxel_um")
    @classmethod
    def _some_size(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not all(0 < v < math.inf for v in value):
            raise ValueError("sizes of voxels are above 0")
        return value

    @field_validator("id")
    @classmethod
    def _fine_id(cls, value: str) -> str:
        if value and not is_valid_id(value):
            raise ValueError(f"'{value}' cannot be the id of a model: use letters, digits, and . _ + -")
        return value

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("give the length of the training: minutes, steps or both")
        if self.pairs and self.layers:
            raise ValueError("give a folder of pairs or layers, not both")
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether it learns from simulated tissue."""
        return not self.pairs and not self.layers


def make_wfcon_wish(values: Mapping[str, Any]) -> WfconWish:
    """Return a checked wish; the microscope may be a name, a file, a dict or itself.

    A model to go on from decides the network, unless the tuning says something of it.

    Raises
    ------
    RequestError
        If an entry is unknown or out of bounds, in words.
    """
    from pathlib import Path

    from napari_lfm.optics.presets import load_microscope

    given = dict(values)
    microscope: str | Path | Any = given.get("microscope")
    if isinstance(microscope, str | Path):
        given["microscope"] = load_microscope(microscope)
    refuse_unknown(given, WfconWish, "setting")
    tuning = given.get("tuning") or {}
    if given.get("start_from") and isinstance(tuning, dict) and not tuning.keys() & set(_NETWORK):
        given["tuning"] = {**_network_like(str(given["start_from"])), **tuning}
    if isinstance(given.get("tuning"), dict):
        refuse_unknown(given["tuning"], WfconTuning, "setting of 'tuning'")
    try:
        return WfconWish.model_validate(given)
    except ValidationError as error:
        raise RequestError(explain_validation(error)) from None


def _network_like(model: str) -> dict[str, Any]:
    """Return the entries of the tuning that make a model's network."""
    from napari_lfm.networks.catalogue import find_model

    network = find_model(model, "wfcon").card.network
    return {name: network[name] for name in _NETWORK if name in network}


def network_of(wish: WfconWish) -> dict[str, Any]:
    """Return the arguments of the network."""
    t = wish.tuning
    out: dict[str, Any] = {"profile": t.profile, "z_pool_levels": t.z_pool_levels}
    if t.widths:
        out["widths"] = list(t.widths)
    if t.profile == "paper":
        out["base"] = t.base
    if t.flat:
        out |= {"flat": True, "planes": t.planes, "z_pool_levels": 0}
    elif t.bands is not None:
        out["bands"] = list(t.bands)
    return out


def plan_of(wish: WfconWish) -> WfconPlan:
    """Return the plan of the training task."""
    t = wish.tuning
    return WfconPlan(
        network=network_of(wish),
        patch=PatchSettings(t.patch, t.skip_share),
        batch_size=t.batch_size,
        adversarial=wish.adversarial,
        l1=t.l1,
        gan=t.gan,
        vgg=t.vgg,
        vgg_file=wish.vgg_file,
        vgg_slices=t.vgg_slices,
        compressed=t.compressed,
        gan_after=t.gan_after,
    )


def config_of(wish: WfconWish) -> TrainConfig:
    """Return the loop's settings."""
    t = wish.tuning
    return make_config(
        minutes=wish.minutes,
        steps=wish.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        schedule="one-cycle",
        warmup_share=0.05,
        ema_decay=t.ema_decay,
        weight_decay=1e-4,
        validate_every_s=None if t.validate_every_steps else t.validate_every_s,
        validate_every_steps=t.validate_every_steps,
        checkpoint_every_s=t.checkpoint_every_s,
        prefetch=0,
        seed=wish.seed,
        device=wish.device,
    )
