"""What a user wants refocusing trained on: a simulated microscope or their own focal stacks, and how long."""

from __future__ import annotations

from dataclasses import fields
from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    field_validator,
    model_validator,
)

from napari_lfm.core.devices import DeviceName
from napari_lfm.networks.card import is_valid_id
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.optics.microscope import Microscope
from napari_lfm.training.config import Precision

Range = tuple[FiniteFloat, FiniteFloat]

OPTICS = tuple(f.name for f in fields(DefocusOptics))
"""Entries of a wish that are the microscope's."""
MOST_PLANES = 401
LEAST_PX = 32
"""Rows and columns that a patch has: consistency is asked for above a scale of half of that."""
_HIGHEST_NA = 0.98
"""Of simulated microscopes, over the immersion's index."""


class RefocusSpread(BaseModel):
    """Microscopes that simulated ones are drawn from, as `OpticsSpread`; empty: around the stated one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    depth_um: Range | None = None
    """Lowest and highest depth of the specimen: it makes the spherical aberration."""
    coverslip_error_um: Range | None = None
    """How much thicker the coverslip may be than it should."""
    sample_index: Range | None = None
    """Lowest and highest refractive index of the specimen."""
    na_share: float | None = Field(default=None, ge=0, le=0.5)
    """Largest deviation of the aperture, over itself; empty: 0.1, less where the immersion passes no more."""
    wavelength_share: float = Field(default=0.13, ge=0, le=0.5)
    """Largest deviation of the wavelength."""
    pixel_share: float = Field(default=0.12, ge=0, le=0.5)
    """Largest deviation of the pixel size."""
    wrong_share: float = Field(default=0.02, ge=0, le=0.5)
    """Largest error of the wavelength that the network is told."""
    variants: int = Field(default=24, ge=1, le=1000)
    """How many microscopes are drawn."""

    @field_validator("depth_um", "coverslip_error_um", "sample_index")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("the lowest value comes first")
        return value


class RefocusTuning(BaseModel):
    """Settings of recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    widths: tuple[int, ...] = ()
    """Channels of every level; empty: the usual ones."""
    bands: tuple[int, ...] | None = None
    """Surroundings, in pixels, that the network is shown the rise above."""
    depth_widths: tuple[int, ...] = ()
    """Channels of the part that says where light comes from; empty: the usual ones."""
    sweep: bool | None = None
    """Show the network what undoing the defocus of every distance makes of the image; empty: yes."""
    first_steps: int = Field(default=3000, ge=0, le=1_000_000)
    """Steps that train the part that says where light comes from alone."""
    render_every: int = Field(default=2, ge=1, le=1000)
    """Steps after those between the ones that render wide-field planes and ask for consistency."""
    shares: float = Field(default=0.5, ge=0, le=1e4)
    """Weight of the cross entropy of where light comes from."""
    patch_px: int = Field(default=256, ge=LEAST_PX, le=2048)
    """Rows and columns of a patch."""
    planes: int = Field(default=3, ge=1, le=200)
    """Wide-field planes that are rendered and compared for each image and step."""
    images: int = Field(default=1, ge=1, le=64)
    """Images in a step."""
    squares: float = Field(default=12.0, ge=0, le=1e4)
    """Weight of the squared difference of the light, beside the absolute one of its square roots."""
    coarse: float = Field(default=0.5, ge=0, le=1e4)
    """Weight of the difference of neighbourhoods: it forgives a point that is a little beside its place."""
    confocal: float = Field(default=1.0, ge=0, le=1e4)
    """Weight of the confocal stack."""
    widefield: float = Field(default=1.0, ge=0, le=1e4)
    """Weight of the wide-field planes that are rendered from it."""
    consistency: float = Field(default=0.3, ge=0, le=1e4)
    """Weight of the difference between the image and the predicted stack, blurred; 0: off."""
    gan: float = Field(default=0.02, ge=0, le=1e4)
    """Weight of the discriminator's voice."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Largest learning rate; empty: 0.001, less where it goes on from a model."""
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    """Of the average of the weights."""
    precision: Precision = "auto"
    """Number format of the network while it is trained."""
    pool: int = Field(default=40, ge=1, le=10_000)
    """Simulated specimens in memory at a time."""
    fresh_every: int = Field(default=10, ge=1, le=100_000)
    """Steps after which the oldest of them is replaced."""
    validation_stacks: int = Field(default=6, ge=1, le=100)
    """Simulated specimens that are only validated on."""
    shape: tuple[int, int, int] | None = None
    """Planes, rows and columns of a simulated stack; empty: the whole range, 256 x 256."""
    beyond: int = Field(default=6, ge=0, le=100)
    """Further planes above and below that hold objects too."""
    validate_every_s: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds between validations; empty: a twentieth of the time, at most 240."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations."""
    checkpoint_every_s: float = Field(default=240.0, gt=0, le=1e6)
    """Seconds between checkpoints."""


class RefocusWish(BaseModel):
    """What to train on, and for how long. Distances are of the focus drive, + as the planes' index rises."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stacks: tuple[str, ...] = ()
    """Files of focal stacks of your own; empty: simulated specimens, or layers."""
    layers: tuple[str, ...] = ()
    """Names of the stacks that are handed over; they are needed again to go on."""
    confocal: tuple[str, ...] = ()
    """Files of registered confocal stacks of the same shapes, for the confocal head; as many as stacks."""
    reverse: bool = False
    """The planes of your stacks are in falling order: the first is the one furthest from the coverslip."""
    pixel_um: float = Field(default=0.325, gt=0, le=100)
    """Pixel in the sample."""
    step_um: float = Field(default=0.5, gt=0, le=1000)
    """Distance of planes, of the focus drive."""
    range_um: float = Field(default=10.0, gt=0, le=1000)
    """Largest distance that is learned."""
    microscope: Microscope | None = None
    """The microscope, for the card; its aperture, wavelength and pixels hold where nothing else is said."""
    na: float = Field(default=0.8, ge=0.05, le=1.7)
    """Numerical aperture."""
    wavelength_um: float = Field(default=0.6, ge=0.2, le=3)
    """Of the fluorescence, in vacuum."""
    immersion_index: float = Field(default=1.0, ge=1, lt=2.5)
    """Refractive index of what is between objective and coverslip: air 1, water 1.333, oil 1.515."""
    sample_index: float = Field(default=1.33, ge=1, lt=2.5)
    """Refractive index of the specimen."""
    excitation_um: float = Field(default=0.56, ge=0.2, le=3)
    """Wavelength of the confocal microscope's laser."""
    depth_um: float = Field(default=35.0, ge=0, le=1000)
    """How deep the specimen lies below the coverslip."""
    coverslip_error_um: float = Field(default=0.0, ge=-100, le=100)
    """How much thicker the coverslip is than it should be."""
    pinhole_airy: float = Field(default=1.0, gt=0, le=20)
    """Diameter of the confocal pinhole."""
    spread: RefocusSpread = RefocusSpread()
    """Microscopes that simulated ones are drawn from."""
    start_from: str = ""
    """Id or folder of a model to go on from; empty: the bundled one that fits best for your own stacks, else
    random weights; none: random weights."""
    adversarial: bool = False
    """Train against a discriminator (LSGAN) too, as published; else by differences alone."""
    minutes: float | None = Field(default=66.0, gt=0, le=100_000)
    """Minutes of training in all; 10 for your own stacks."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Steps in all; alone they make a training repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of everything random."""
    device: DeviceName = "auto"
    """Where to train."""
    id: str = ""
    """Id of the model; empty: refocus- and the stack's or the objective's name."""
    title: str = Field(default="", max_length=200)
    """Title of the model."""
    tuning: RefocusTuning = RefocusTuning()
    """Finer settings."""

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
        if self.stacks and self.layers:
            raise ValueError("give files or layers, not both")
        if self.confocal and len(self.confocal) != len(self.stacks):
            raise ValueError(
                f"there are {len(self.stacks)} stacks and {len(self.confocal)} confocal ones: "
                "give one for each, in the same order"
            )
        if self.range_um < 2 * self.step_um:
            raise ValueError(
                f"step_um = {self.step_um:g}: planes {self.step_um:g} um apart do not show what happens "
                f"within a range of {self.range_um:g} um; two steps must fit into it (is the step in um?)"
            )
        if 2 * self.range_um / self.step_um > MOST_PLANES:
            raise ValueError(
                f"step_um = {self.step_um:g}: a range of {self.range_um:g} um would be more than "
                f"{MOST_PLANES} planes; give a longer step (is it in um?)"
            )
        largest = self.na * (1 + (self.na_share if self.is_simulated else 0))
        if largest >= self.immersion_index:
            raise ValueError(
                f"na = {self.na:g}: an immersion of index {self.immersion_index:g} passes no aperture of "
                f"{largest:.3g}; give the index of your immersion (water 1.333, oil 1.515)"
            )
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether it learns from simulated specimens."""
        return not self.stacks and not self.layers

    @property
    def na_share(self) -> float:
        """Largest deviation of the simulated aperture, over itself."""
        room = _HIGHEST_NA * self.immersion_index / self.na - 1
        return max(0.0, min(0.1, room)) if self.spread.na_share is None else self.spread.na_share

    @property
    def optics(self) -> DefocusOptics:
        """The stated microscope."""
        return DefocusOptics(**{name: getattr(self, name) for name in OPTICS})
