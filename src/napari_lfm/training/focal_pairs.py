"""Focal stacks to train virtual refocusing on: simulated ones, or a user's own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.stack_scale import stack_levels
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_stacks import FocalSettings, FocalStack, focal_stack
from napari_lfm.training.task import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ELECTRONS = (60.0, 20_000.0)
"""Photo-electrons of the brightest pixels of an image that trainings draw from."""
READ_NOISE_E = 1.6
_LEAST_SIDE = 32


@dataclass(frozen=True)
class OpticsSpread:
    """Ranges that microscopes are drawn from, evenly.

    Attributes
    ----------
    depth_um, coverslip_error_um, sample_index : tuple of float
        Lowest and highest. The network is not told which: it sees the stated depth's guesses.
    na_share, wavelength_share, pixel_share : float
        Largest deviation from the model's own microscope; the network is told, so that one model serves
        several objectives.
    wrong_share : float
        Largest error of the wavelength that it is told.
    variants : int
        How many microscopes are drawn.
    """

    depth_um: tuple[float, float] = (20.0, 50.0)
    coverslip_error_um: tuple[float, float] = (-3.0, 3.0)
    sample_index: tuple[float, float] = (1.33, 1.38)
    na_share: float = 0.1
    wavelength_share: float = 0.13
    pixel_share: float = 0.12
    wrong_share: float = 0.02
    variants: int = 24


@dataclass(frozen=True)
class FocalData:
    """A stack to draw images and targets from.

    Attributes
    ----------
    widefield : Tensor, shape (z, y, x)
        Any float type; focus rises with the index.
    confocal : Tensor or None, shape (z, y, x)
        In units of `widefield`, see `FocalStack`.
    optics : DefocusOptics
        What it was recorded with, as far as the user knows: nominal, where it is simulated.
    pixel_um, step_um : float
    periodic : bool
        Whether it goes on periodically beyond its border.
    noise_free : bool
        Whether noise is still to come.
    columns : tuple of int
        Columns that may be drawn from.
    name : str
    """

    widefield: torch.Tensor
    confocal: torch.Tensor | None
    optics: DefocusOptics
    pixel_um: float
    step_um: float
    periodic: bool = True
    noise_free: bool = True
    columns: tuple[int, int] | None = None
    name: str = ""


class FocalSource(Protocol):
    """Where focal stacks come from."""

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Make what is needed first; yields (done, all, what)."""
        ...

    def data(self, step: int, rng: np.random.Generator) -> FocalData:
        """Return one of the stacks to train on at a step."""
        ...

    def validation(self) -> Sequence[FocalData]:
        """Return stacks that are never trained on."""
        ...

    def describe(self) -> dict[str, object]:
        """Return, JSON-ready, what tells this source from another."""
        ...


class SimulatedFocal:
    """Simulated specimens; old ones make way for new ones as the training goes on.

    Parameters
    ----------
    settings : FocalSettings
    optics : DefocusOptics
        The stated microscope: what the network is told.
    spread : OpticsSpread
        What the simulated one may be instead.
    seed, pool, fresh_every, validation_stacks : int
        As for `TissuePairs`.
    """

    def __init__(
        self,
        settings: FocalSettings | None = None,
        optics: DefocusOptics | None = None,
        spread: OpticsSpread | None = None,
        seed: int = 0,
        pool: int = 40,
        fresh_every: int = 10,
        validation_stacks: int = 6,
    ) -> None:
        self.settings = FocalSettings() if settings is None else settings
        self.optics = DefocusOptics() if optics is None else optics
        self.spread = OpticsSpread() if spread is None else spread
        self.seed, self.pool, self.fresh_every, self._count = seed, pool, fresh_every, validation_stacks
        self._kept: dict[int, tuple[int, FocalData]] = {}
        self._validation: list[FocalData] = []

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Draw the first specimens and those to validate on."""
        for k in range(self.pool):
            self.at(k, 0)
            yield k + 1, self.pool, "Drawing specimens"
        for k in range(self._count):
            self._validation.append(self.make(self.seed + 7919, k))
            yield k + 1, self._count, "Drawing specimens to validate on"

    def variant(self, rng: np.random.Generator) -> tuple[DefocusOptics, DefocusOptics, float]:
        """Return one of the microscopes as it is, as the network is told, and its pixels in micrometres."""
        number = int(rng.integers(self.spread.variants))
        own = np.random.default_rng([self.seed, 31, number])
        s, o = self.spread, self.optics
        length = o.wavelength_um * (1 + s.wavelength_share * float(own.uniform(-1, 1)))
        stated = replace(
            o,
            na=o.na * (1 + s.na_share * float(own.uniform(-1, 1))),
            wavelength_um=length,
            excitation_um=o.excitation_um * length / o.wavelength_um,
        )
        real = replace(
            stated,
            depth_um=float(own.uniform(*s.depth_um)),
            coverslip_error_um=float(own.uniform(*s.coverslip_error_um)),
            sample_index=float(own.uniform(*s.sample_index)),
            wavelength_um=length * (1 + s.wrong_share * float(own.uniform(-1, 1))),
        )
        return real, stated, self.settings.pixel_um * (1 + s.pixel_share * float(own.uniform(-1, 1)))

    def make(self, seed: int, number: int) -> FocalData:
        """Return specimen `number` of a seed."""
        rng = numpy_rng(seed, number)
        real, stated, pixel_um = self.variant(rng)
        made = focal_stack(replace(self.settings, pixel_um=pixel_um), real, rng)
        return data_of(made, stated, pixel_um, self.settings.step_um, f"focal-{seed}-{number}")

    def data(self, step: int, rng: np.random.Generator) -> FocalData:
        """Return a specimen that is in memory at this step."""
        return self.at(int(rng.integers(self.pool)), step)

    def at(self, slot: int, step: int) -> FocalData:
        """Return the specimen that is in a place of the pool at a step."""
        age = (step - slot * self.fresh_every) // (self.pool * self.fresh_every) + 1
        number = slot + self.pool * max(0, age)
        kept = self._kept.get(slot)
        if kept is None or kept[0] != number:
            kept = number, self.make(self.seed, number)
            self._kept[slot] = kept
        return kept[1]

    def validation(self) -> Sequence[FocalData]:
        """Return the specimens that are never trained on."""
        return self._validation

    def describe(self) -> dict[str, object]:
        """Return what tells this source from another."""
        o, s, v = self.optics, self.settings, self.spread
        return {
            "kind": "simulated focal stacks",
            "na": o.na,
            "immersion_index": o.immersion_index,
            "wavelength_um": o.wavelength_um,
            "stated_depth_um": o.depth_um,
            "depth_um": list(v.depth_um),
            "coverslip_error_um": list(v.coverslip_error_um),
            "sample_index": list(v.sample_index),
            "na_share": v.na_share,
            "wavelength_share": v.wavelength_share,
            "wrong_share": v.wrong_share,
            "pixel_share": v.pixel_share,
            "pixel_um": s.pixel_um,
            "step_um": s.step_um,
            "shape": list(s.shape),
            "beyond": s.beyond,
            "electrons": list(ELECTRONS),
            "pool": self.pool,
            "fresh_every": self.fresh_every,
            "seed": self.seed,
        }


def data_of(
    made: FocalStack, stated: DefocusOptics, pixel_um: float, step_um: float, name: str = ""
) -> FocalData:
    """Return a simulated stack, its brightest pixels at 1, in half precision."""
    top = float(torch.quantile(made.widefield.flatten()[::31], 0.9995))
    scale = 1 / max(top, 1e-9)
    return FocalData(
        (made.widefield * scale).half(),
        (made.confocal * scale).clamp(max=6e4).half(),
        stated,
        pixel_um,
        step_um,
        name=name,
    )


class RecordedFocal:
    """A user's own focal stacks: the last fifth of the columns is only validated on.

    Parameters
    ----------
    stacks : sequence of (name, stack)
        Arrays (z, y, x), any units; focus rises with the index.
    optics : DefocusOptics
    pixel_um, step_um : float
    confocal : sequence of ndarray or None
        Registered confocal stacks of the same shapes, for the cross-modality head.
    least_px : int
        Pixels across that the network needs: of either part of the columns at least.
    """

    def __init__(
        self,
        stacks: Sequence[tuple[str, np.ndarray]],
        optics: DefocusOptics,
        pixel_um: float,
        step_um: float,
        confocal: Sequence[np.ndarray] | None = None,
        least_px: int = _LEAST_SIDE,
    ) -> None:
        if not stacks:
            raise RequestError("There is no stack to train on.", "Give at least one.")
        self.optics, self.pixel_um, self.step_um = optics, pixel_um, step_um
        self._train: list[FocalData] = []
        self._held: list[FocalData] = []
        self.names = [name for name, _ in stacks]
        for k, (name, stack) in enumerate(stacks):
            wide = _checked(name, stack, least_px)
            other = None
            if confocal is not None:
                if confocal[k].shape != stack.shape:
                    raise RequestError(
                        f"The confocal stack of '{name}' has {confocal[k].shape} voxels, not {stack.shape}.",
                        "Register the two first.",
                    )
                other = _checked(name, confocal[k], least_px)
            cut = min(int(0.8 * wide.shape[2]), wide.shape[2] - least_px)
            one = FocalData(
                wide, other, optics, pixel_um, step_um, periodic=False, noise_free=False, name=name
            )
            self._train.append(replace(one, columns=(0, cut)))
            self._held.append(replace(one, columns=(cut, wide.shape[2])))

    def prepare(self) -> Iterator[tuple[int, int, str]]:
        """Do nothing: everything is there."""
        yield 1, 1, "Reading the stacks"

    def data(self, step: int, rng: np.random.Generator) -> FocalData:
        """Return a stack, large ones more often."""
        sizes = np.array([d.widefield.numel() for d in self._train], float)
        return self._train[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]

    def validation(self) -> Sequence[FocalData]:
        """Return the part of every stack that is never trained on."""
        return self._held

    def describe(self) -> dict[str, object]:
        """Return what tells this source from another."""
        return {
            "kind": "recorded focal stacks",
            "names": self.names,
            "shapes": [list(d.widefield.shape) for d in self._train],
            "confocal": self._train[0].confocal is not None,
            "na": self.optics.na,
            "wavelength_um": self.optics.wavelength_um,
            "pixel_um": self.pixel_um,
            "step_um": self.step_um,
        }


@dataclass(frozen=True)
class Recorded:
    """One image as the network sees it, and the scale that made it so."""

    image: torch.Tensor
    low: float
    span: float
    electrons: float = field(default=0.0)


def recorded(
    data: FocalData, plane: int, rng: np.random.Generator, jitter: bool = True, electrons: float | None = None
) -> Recorded:
    """Return a plane of a stack, with its noise, scaled by its percentiles.

    Parameters
    ----------
    data : FocalData
    plane : int
    rng : Generator
    jitter : bool
        Whether the scale is drawn around the percentiles: other parts of an image have others.
    electrons : float, optional
        Of the image's brightest pixels; drawn where it is not given.
    """
    light = data.widefield[plane].float().numpy()
    if data.noise_free:
        if electrons is None:
            electrons = float(np.exp(rng.uniform(*np.log(ELECTRONS))))
        per = electrons / max(float(np.percentile(light[::2, ::2], 99.9)), 1e-9)
        counts = rng.poisson(light * per) + READ_NOISE_E * rng.standard_normal(light.shape)
        light = (counts / per).astype(np.float32)
    levels = stack_levels(light)
    low, span = levels.low, levels.span
    if jitter:
        low += span * float(rng.uniform(-0.03, 0.03))
        span *= float(np.exp(rng.uniform(-0.35, 0.35)))
    return Recorded(torch.from_numpy((light - low) / span), low, span, electrons or 0.0)


def _checked(name: str, stack: np.ndarray, least_px: int) -> torch.Tensor:
    if stack.ndim != 3 or stack.shape[1] < least_px or stack.shape[2] < 3 * least_px or len(stack) < 5:
        raise RequestError(
            f"'{name}' has {' x '.join(map(str, stack.shape))} voxels: too few to train on.",
            f"Give a focal stack (z, y, x) of 5 planes and {least_px} x {3 * least_px} pixels or more.",
        )
    if not np.isfinite(stack).all():
        raise RequestError(f"'{name}' holds values that are no numbers.", "Replace or crop them.")
    levels = stack_levels(stack)
    return torch.from_numpy(levels.scaled(stack))
