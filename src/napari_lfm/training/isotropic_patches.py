"""Patches of a stack's own lateral slices, degraded along one axis, to train isotropic restoration on.

Rules of CSBDeep (Weigert et al., Nature Methods 15, 1090 (2018)): patches where there is signal, scaled by
percentiles that are drawn for every patch. Some planes are kept out of the training to validate on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.core.problems import RequestError
from napari_lfm.training.isotropic_resampling import csbdeep_up, interpolate_planes

if TYPE_CHECKING:
    from napari_lfm.training.isotropic_degradation import Degradation

LEAST_SIDE_PX, LEAST_PLANES = 32, 3
LEVELS = (2.0, 99.8)
"""Percentiles that become 0 and 1 where a stack is restored or validated on."""
_LOW, _HIGH = (1.0, 3.0), (99.5, 99.9)
_STRIDE_PX = 8
_SAMPLES = 2_000_000
_VALIDATION_SIDE_PX, _VALIDATION_PLANES = 256, 4


@dataclass(frozen=True)
class PatchPlan:
    """What a patch is.

    Attributes
    ----------
    patch_px : int
        Side.
    signal_share : float
        A patch is taken where a pixel near its centre is above this share of the 99.9th percentile.
    background_share : float
        Share of the patches that are taken anywhere.
    held_out : float
        Share of the planes that is never trained on, at least one.
    turn : bool
        Whether slices are mirrored and their axes swapped at random; the published way does not.
    own_levels : bool
        Whether input and target have percentiles of their own, as published; else both have the target's,
        so that light is kept.
    scales : tuple of float
        Factors that values of a channel are multiplied by at random (CSBDeep's example: 0.5 to 2).
    offsets : tuple of float
        What is added to them.
    """

    patch_px: int = 128
    signal_share: float = 0.4
    background_share: float = 0.1
    held_out: float = 0.1
    turn: bool = True
    own_levels: bool = False
    scales: tuple[float, float] = (1.0, 1.0)
    offsets: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def published(cls) -> PatchPlan:
        """Return what CSBDeep does: no background, no turning, levels of their own, its augmentation."""
        return cls(128, 0.4, 0.0, 0.1, False, True, (0.5, 2.0), (-1.0, 1.0))


class LateralPatches:
    """The slices of one stack.

    Parameters
    ----------
    stack : ndarray, shape (channels, z, y, x) or (z, y, x)
        As recorded.
    degradation : Degradation
    plan : PatchPlan

    Raises
    ------
    RequestError
        If it is too small, empty, or holds what is no number.
    """

    def __init__(self, stack: np.ndarray, degradation: Degradation, plan: PatchPlan | None = None) -> None:
        stack = np.asarray(stack)
        stack = stack[None] if stack.ndim == 3 else stack
        _check(stack)
        self.degradation, self.plan = degradation, PatchPlan() if plan is None else plan
        self.stack = torch.from_numpy(np.ascontiguousarray(stack, np.float32))
        self.channels, self.planes = int(stack.shape[0]), int(stack.shape[1])
        self.held, self.trained = _split(self.planes, self.plan.held_out)
        self._levels = [_Levels(c) for c in self.stack]
        self._degraded: torch.Tensor | None = None
        self._degraded_levels: list[_Levels] = []
        self._columns = degradation.columns(int(stack.shape[3]))
        width = self._columns.stop - self._columns.start
        self.side = min(self.plan.patch_px, int(stack.shape[2]), width)
        self._width = width
        self._places = self._with_signal()

    def prepare(self, generator: torch.Generator) -> None:
        """Degrade the stack once, as the published way does; the modern one draws anew for every patch."""
        if self.degradation.profile == "csbdeep" and self._degraded is None:
            planes = [self.degradation(self.stack[:, k][None], generator)[0] for k in range(self.planes)]
            self._degraded = torch.stack(planes, 1)
            self._degraded_levels = [_Levels(c) for c in self._degraded]

    def draw(
        self, count: int, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets.

        Returns
        -------
        given, wanted : Tensor, shape (count, channels, side, side), float32
            Scaled; z along the last axis of `given`.
        """
        if self.degradation.profile == "csbdeep":
            self.prepare(generator)
            pairs = [self._published(rng) for _ in range(count)]
            given, wanted = (torch.stack(part) for part in zip(*pairs, strict=True))
        else:
            given, wanted = self._modern(count, rng, generator)
        for b in range(count):
            low, high = float(rng.uniform(*_LOW)), float(rng.uniform(*_HIGH))
            for c in range(self.channels):
                scale, offset = float(rng.uniform(*self.plan.scales)), float(rng.uniform(*self.plan.offsets))
                own = (
                    self._degraded_levels if self.plan.own_levels and self._degraded_levels else self._levels
                )
                for part, levels in ((given, own), (wanted, self._levels)):
                    bottom, span = levels[c].at(low, high)
                    part[b, c] = (part[b, c] - bottom) / span * scale + offset
        return given, wanted

    def _published(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._degraded is not None
        z, y, x = self._place(rng)
        box = (slice(None), z, slice(y, y + self.side), slice(x, x + self.side))
        return self._degraded[box].clone(), self.stack[..., self._columns][box].clone()

    def _modern(
        self, count: int, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        halo = self.degradation.halo_px
        long = min(self.side + 2 * halo, *self.stack.shape[2:])
        # the first point may lie almost a plane's distance from the end: not within a patch where possible
        margin = min(math.ceil(self.degradation.factor), (long - self.side) // 2)
        crops, starts = [], []
        for _ in range(count):
            z, y, x = self._place(rng)
            swap = self.plan.turn and rng.random() < 0.5
            plane = self.stack[:, z].transpose(1, 2) if swap else self.stack[:, z]
            row, column = (x, y) if swap else (y, x)
            first = int(np.clip(column - halo, 0, plane.shape[2] - long))
            start = int(np.clip(column - first, margin, long - self.side - margin))
            row = min(row, plane.shape[1] - self.side)
            crop = plane[:, row : row + self.side, first : first + long]
            if self.plan.turn:
                if rng.random() < 0.5:
                    crop = crop.flip(1)
                if rng.random() < 0.5:
                    crop, start = crop.flip(2), long - self.side - start
            crops.append(crop)
            starts.append(start)
        coarse, sharp = self.degradation.pair(torch.stack(crops), generator)
        return (
            torch.stack([c[..., s : s + self.side] for c, s in zip(coarse, starts, strict=True)]),
            torch.stack([c[..., s : s + self.side] for c, s in zip(sharp, starts, strict=True)]),
        )

    def _place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return plane, row and column of a patch's corner."""
        if rng.random() < self.plan.background_share:
            z = int(self.trained[int(rng.integers(len(self.trained)))])
            y = int(rng.integers(self.stack.shape[2] - self.side + 1))
            return z, y, int(rng.integers(self._width - self.side + 1))
        z, y, x = (int(v) for v in self._places[int(rng.integers(len(self._places)))])
        jitter = rng.integers(-(_STRIDE_PX // 2), _STRIDE_PX // 2 + 1, 2) - self.side // 2
        y = int(np.clip(y + jitter[0], 0, self.stack.shape[2] - self.side))
        return z, y, int(np.clip(x + jitter[1], 0, self._width - self.side))

    def _with_signal(self) -> np.ndarray:
        """Return plane, row and column of places with signal near them, shape (places, 3)."""
        near = max(self.side // 2, 1)
        found = []
        limits = [levels.at(0.0, 99.9) for levels in self._levels]
        for z in self.trained:
            # in any channel, over its own brightest
            shares = [
                (self.stack[c, z, :, self._columns] - low) / span for c, (low, span) in enumerate(limits)
            ]
            plane = torch.stack(shares).amax(0)
            top = functional.max_pool2d(plane[None, None], near, _STRIDE_PX, near // 2)[0, 0]
            at = torch.nonzero(top > self.plan.signal_share).numpy() * _STRIDE_PX
            found.append(np.concatenate([np.full((len(at), 1), z), at], 1))
        places = np.concatenate(found)
        if not len(places):
            raise RequestError(
                "The stack holds no signal to train on.", "Choose a stack with structures in it."
            )
        return places

    def scaled(self, values: torch.Tensor) -> torch.Tensor:
        """Return grey values (channels, ...) as a network sees them outside of training."""
        parts = []
        for value, levels in zip(values, self._levels, strict=True):
            low, span = levels.at(*LEVELS)
            parts.append((value - low) / span)
        return torch.stack(parts)

    def validation(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return inputs and targets (channels, rows, columns), scaled, of planes never trained on."""
        out = []
        chosen = self.held[
            np.linspace(0, len(self.held) - 1, min(len(self.held), _VALIDATION_PLANES)).astype(int)
        ]
        for z in chosen:
            plane = self.stack[:, int(z)]
            size = [min(n, _VALIDATION_SIDE_PX) for n in plane.shape[1:]]
            y, x = _brightest(plane.sum(0), size)
            part = plane[None, :, y : y + size[0], x : x + size[1]]
            given, wanted = self.degradation.pair(part, generator)
            out.append((self.scaled(given[0]), self.scaled(wanted[0])))
        return out

    def axial_slice(self) -> torch.Tensor:
        """Return the slice (channels, x, z) with the most in it, scaled, z brought to lateral pixels."""
        row = int(self.stack.sum(0).std((0, 2)).argmax())
        width = min(int(self.stack.shape[3]), 2 * _VALIDATION_SIDE_PX)
        _, x = _brightest(self.stack[:, :, row].sum(0), [self.planes, width])
        coarse = self.stack[:, :, row, x : x + width].transpose(1, 2)
        factor = self.degradation.factor
        if self.degradation.profile == "csbdeep":
            return self.scaled(csbdeep_up(coarse, factor))
        return self.scaled(interpolate_planes(coarse, factor))

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells these patches from others."""
        plan = asdict(self.plan)
        plan |= {"scales": list(self.plan.scales), "offsets": list(self.plan.offsets)}
        return {
            "shape": list(self.stack.shape),
            "levels": [list(levels.at(*LEVELS)) for levels in self._levels],
            "degradation": self.degradation.describe(),
            "patches": plan,
        }


class _Levels:
    """Percentiles of one channel, quickly."""

    def __init__(self, channel: torch.Tensor) -> None:
        flat = channel.reshape(-1)
        self._sorted = np.sort(flat[:: max(1, -(-len(flat) // _SAMPLES))].numpy())

    def at(self, low: float, high: float) -> tuple[float, float]:
        """Return the low percentile, and from it to the high one."""
        bottom, top = self._value(low), self._value(high)
        if top <= bottom:  # sparse: fewer bright values than the percentile leaves over
            top = float(self._sorted[-1])
        return bottom, max(top - bottom, 1e-6)

    def _value(self, percentile: float) -> float:
        # asked twice for every patch: np.interp would go through all values each time
        place = percentile / 100 * (len(self._sorted) - 1)
        k = min(int(place), len(self._sorted) - 2)
        low, high = float(self._sorted[k]), float(self._sorted[k + 1])
        return low + (place - k) * (high - low)


def stack_levels_of(channel: torch.Tensor) -> _Levels:
    """Return the percentiles of one channel: ``at(low, high)`` gives the lower, and from it to the upper."""
    return _Levels(channel)


def _split(planes: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return planes to validate on, evenly spread, and those to train on."""
    count = int(np.clip(round(share * planes), 1, planes - 1))
    held = np.unique(((np.arange(count) + 0.5) * planes / count).astype(int))
    return held, np.setdiff1d(np.arange(planes), held)


def _brightest(plane: torch.Tensor, size: list[int]) -> tuple[int, int]:
    """Return the corner of a part with the most light, out of a few."""
    starts = [np.unique(np.linspace(0, n - m, 5).astype(int)) for n, m in zip(plane.shape, size, strict=True)]
    corners = [(int(y), int(x)) for y in starts[0] for x in starts[1]]
    light = [float(plane[y : y + size[0] : 2, x : x + size[1] : 2].std()) for y, x in corners]
    return corners[int(np.argmax(light))]


def _check(stack: np.ndarray) -> None:
    sizes = " x ".join(map(str, stack.shape))
    if stack.ndim != 4:
        raise RequestError(
            f"Isotropic restoration is trained on a stack (z, y, x), not on {sizes} values.",
            "Choose one frame; its channels may come first.",
        )
    if stack.shape[1] < LEAST_PLANES or min(stack.shape[2:]) < LEAST_SIDE_PX:
        raise RequestError(
            f"A stack of {' x '.join(map(str, stack.shape[1:]))} voxels is too small to train on.",
            f"Give {LEAST_PLANES} planes of {LEAST_SIDE_PX} x {LEAST_SIDE_PX} pixels or more.",
        )
    for k, channel in enumerate(stack):
        where = f"channel {k + 1} of the stack" if len(stack) > 1 else "the stack"
        low, high = float(channel.min()), float(channel.max())
        if not math.isfinite(low) or not math.isfinite(high):
            raise RequestError(f"There are values that are no numbers in {where}.", "Replace or crop them.")
        if low == high:
            raise RequestError(f"There is nothing in {where}: all its values are {low:g}.", "Choose another.")
