"""What a user wants trained to localise: the microscope, depths and cell bodies, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_lfm.core.devices import DeviceName
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.localization.setup import epipolar_half
from napari_lfm.methods.train_wish import checked_wish
from napari_lfm.networks.card import is_valid_id
from napari_lfm.optics.microscope import Microscope
from napari_lfm.simulation.neuron_fields import NeuronFields, NeuronSettings
from napari_lfm.training.cista import CistaPlan, CistaTask
from napari_lfm.training.config import make_config
from napari_lfm.training.epipolar_pairs import EpipolarPairs, EpipolarSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.training.config import TrainConfig


class LocalizeTuning(BaseModel):
    """Settings of recipes; empty ones are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pool: int = Field(default=40, ge=1, le=100_000)
    """Fields at the start."""
    most: int = Field(default=3000, ge=1, le=1_000_000)
    """Fields at the end."""
    fresh_every: int = Field(default=4, ge=1, le=10_000)
    """Steps after which there is one field more."""
    batch_size: int = Field(default=256, ge=1, le=65_536)
    """Epipolar images per step."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Largest learning rate."""
    kernels: tuple[int, ...] = (9, 13, 17)
    """Lenslets across the kernels of every layer."""
    profile: str = "modern"
    """Of the network: modern, or paper."""
    cells: int = Field(default=23, ge=7, le=64)
    """Lenslets across a field."""
    neurons_most: int = Field(default=40, ge=1, le=200)
    """Most neurons in a field."""
    voxels: int = Field(default=3, ge=1, le=9)
    """Voxels across a lenslet of the simulation."""
    validate_every_s: float | None = Field(default=120.0, gt=0, le=1e6)
    """Seconds between validations."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations."""
    checkpoint_every_s: float = Field(default=300.0, gt=0, le=1e6)
    """Seconds between checkpoints."""


class LocalizeWish(BaseModel):
    """What to train, for which microscope, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    microscope: Microscope
    """The optics."""
    n_pixels: int | None = Field(default=None, ge=3, le=65)
    """Pixels per lenslet, N; empty: the microscope's."""
    z_min_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Lowest depth; empty: what the optics resolve well."""
    z_max_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Highest depth."""
    z_step_um: float = Field(default=1.0, gt=0, le=100)
    """Distance of the depth bins."""
    diameter_min_um: float = Field(default=8.0, gt=0.1, le=200)
    """Smallest cell body."""
    diameter_max_um: float = Field(default=15.0, gt=0.1, le=200)
    """Largest cell body."""
    minutes: float | None = Field(default=45.0, gt=0, le=100_000)
    """Minutes of training in all."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone they make a training repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    id: str = ""
    """Id of the model; empty: cista- and the microscope's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model."""
    tuning: LocalizeTuning = LocalizeTuning()
    """Finer settings."""

    @field_validator("id")
    @classmethod
    def _fine_id(cls, value: str) -> str:
        if value and not is_valid_id(value):
            raise ValueError(f"'{value}' cannot be the id of a model: use letters, digits, and . _ + -")
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("give the length of the training: minutes, steps or both")
        if self.diameter_max_um < self.diameter_min_um:
            raise ValueError("the largest cell body is smaller than the smallest")
        lenslets = self.microscope.lenslets
        if lenslets is None or lenslets.lattice != "square":
            raise ValueError(f"the microscope '{self.microscope.name}' has no square lenslet array")
        bins = self.bins_um()
        if not 3 <= len(bins) <= 400:
            raise ValueError(f"{len(bins)} depth bins are none to train: give a range of 3 to 400 steps")
        return self

    def bins_um(self) -> list[float]:
        """Return the depth bins."""
        reach = max(1.0, round(0.5 * self.microscope.depth_range_um))
        low = -reach if self.z_min_um is None else self.z_min_um
        high = reach if self.z_max_um is None else self.z_max_um
        count = int(np.floor((high - low) / self.z_step_um + 1e-6)) + 1
        return [round(low + k * self.z_step_um, 6) for k in range(max(0, count))]


def make_localize_wish(values: Mapping[str, Any]) -> LocalizeWish:
    """Return a checked wish; the microscope may be a name, a file, a dict or itself.

    Raises
    ------
    RequestError
        If an entry is unknown, out of bounds or missing, in words.
    """
    return checked_wish(values, LocalizeWish, LocalizeTuning)


def task_of(wish: LocalizeWish) -> CistaTask:
    """Return the training task of a wish."""
    t, bins = wish.tuning, wish.bins_um()
    n = wish.n_pixels or wish.microscope.n_pixels
    if n is None:
        raise RequestError("The pixels per lenslet are not known.", "Give n_pixels.")
    settings = NeuronSettings(
        z_um=(bins[0], bins[-1]),
        z_beyond_um=round((bins[-1] - bins[0]) / 9, 3),
        z_step_um=round(wish.diameter_min_um * 3 / 16, 3),
        voxels=t.voxels,
        cells=t.cells,
        neurons=(1, t.neurons_most),
        diameter_um=(wish.diameter_min_um, wish.diameter_max_um),
    )
    half = epipolar_half(wish.microscope, n, np.asarray(bins))
    images = EpipolarSettings(
        tuple(bins),
        label_um=1.5 * wish.z_step_um,
        half=half,
        furthest_row=max(1, (n - 1) // 2 - 1),
        pool=t.pool,
        most=t.most,
        fresh_every=t.fresh_every,
    )
    fields = NeuronFields(wish.microscope, n, settings, wish.seed)
    return CistaTask(
        EpipolarPairs(fields, images, wish.seed), CistaPlan(t.kernels, t.profile, t.batch_size), wish.seed
    )


def config_of(wish: LocalizeWish) -> TrainConfig:
    """Return the loop's settings."""
    t = wish.tuning
    return make_config(
        minutes=wish.minutes,
        steps=wish.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
        schedule="one-cycle",
        warmup_share=0.05,
        ema_decay=0.999,
        weight_decay=1e-4,
        validate_every_s=None if t.validate_every_steps else t.validate_every_s,
        validate_every_steps=t.validate_every_steps,
        checkpoint_every_s=t.checkpoint_every_s,
        prefetch=0,
        seed=wish.seed,
        device=wish.device,
        precision="float32",
    )
