"""Simulated lateral slices to train a first model of isotropic restoration on: for any stack to start from.

A stack's own slices teach a network one distance of planes, one blur and one kind of structure. The model
that others start from sees all of them: specimens of many kinds in pixels of many sizes, confocal and
wide-field, planes 1.5 to 10 pixels apart, blur and noise at random. Simulated slices are known without their
noise, so that it learns to leave noise out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.noise import Noise
from napari_lfm.optics.axial_blur import gaussian_kernel
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_stacks import FocalSettings, focal_stack
from napari_lfm.training.isotropic_degradation import Degradation
from napari_lfm.training.isotropic_patches import LEVELS, stack_levels_of
from napari_lfm.training.task import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTICS = 10
_TRIES = 4
_VALIDATED = 12
_PLACES = 4
_EMPTY = 0.05


@dataclass(frozen=True)
class SimulatedPlan:
    """What is drawn, evenly in the logarithm where it spans much.

    Attributes
    ----------
    patch_px : int
    factor : tuple of float
        Distance of planes, lateral pixels.
    blur : tuple of float
        Standard deviation of the anisotropic blur over the distance of planes: from gaps between the planes
        to planes that see one another.
    pixels_across : tuple of float
        Pixels across the finest detail, ``wavelength / (2 NA)``.
    na : tuple of float
    electrons : tuple of float
        Of the brightest pixels.
    noise_free_share : float
        Patches without any noise.
    widefield_share : float
        Specimens seen by a wide-field microscope.
    planes, side_px : int
        Of a specimen.
    pool, fresh_every : int
        Specimens in memory, and steps after which the oldest is replaced.
    """

    patch_px: int = 128
    factor: tuple[float, float] = (1.5, 10.0)
    blur: tuple[float, float] = (0.25, 1.0)
    pixels_across: tuple[float, float] = (1.2, 4.0)
    na: tuple[float, float] = (0.4, 1.3)
    electrons: tuple[float, float] = (20.0, 20_000.0)
    noise_free_share: float = 0.1
    widefield_share: float = 0.15
    planes: int = 11
    side_px: int = 320
    pool: int = 60
    fresh_every: int = 8


@dataclass(frozen=True, eq=False)
class _Specimen:
    planes: torch.Tensor  # (z, y, x), noise-free
    levels: Any


class SimulatedLateral:
    """Patches of simulated slices; offers what `LateralPatches` does.

    Parameters
    ----------
    plan : SimulatedPlan
    seed : int
    """

    channels = 1

    def __init__(self, plan: SimulatedPlan | None = None, seed: int = 0) -> None:
        self.plan, self.seed = SimulatedPlan() if plan is None else plan, seed
        self._kept: dict[int, tuple[int, _Specimen]] = {}
        self._step = 0

    def prepare(self, generator: torch.Generator) -> None:
        """Do nothing: specimens are made as they are needed."""

    def making(self) -> Iterator[tuple[int, int, str]]:
        """Make the first specimens; yields (done, all, what)."""
        for k in range(self.plan.pool):
            self.at(k, 0)
            yield k + 1, self.plan.pool, "Drawing specimens"

    def at_step(self, step: int) -> None:
        """Say which step is next: specimens age."""
        self._step = step

    def draw(
        self, count: int, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets, as `LateralPatches.draw`; planes and noise are every patch's own."""
        pairs = []
        for _ in range(count):
            one = self.at(int(rng.integers(self.plan.pool)), self._step)
            pairs.append(self._pair(one, rng, generator))
        given, wanted = (torch.stack(part) for part in zip(*pairs, strict=True))
        return given, wanted

    def validation(self, generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return inputs and targets of specimens that are never trained on."""
        out = []
        for k in range(_VALIDATED):
            rng = np.random.default_rng([self.seed, 4049, k])
            out.append(self._pair(self._specimen(4049, k), rng, generator))
        return out

    def axial_slice(self) -> torch.Tensor:
        """Return a degraded slice to look at."""
        generator = torch.Generator().manual_seed(self.seed)
        return self._pair(self._specimen(4049, 0), np.random.default_rng([self.seed, 5]), generator)[0]

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells these patches from others."""
        plan = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.plan).items()}
        return {"kind": "simulated lateral slices", "seed": self.seed, **plan}

    def at(self, slot: int, step: int) -> _Specimen:
        """Return the specimen that is in a place of the pool at a step."""
        p = self.plan
        age = (step - slot * p.fresh_every) // (p.pool * p.fresh_every) + 1
        number = slot + p.pool * max(0, age)
        kept = self._kept.get(slot)
        if kept is None or kept[0] != number:
            kept = number, self._specimen(0, number)
            self._kept[slot] = kept
        return kept[1]

    def _specimen(self, kind: int, number: int) -> _Specimen:
        p = self.plan
        for attempt in range(_TRIES):
            rng = numpy_rng(self.seed + kind + 7919 * attempt, number)
            own = np.random.default_rng([self.seed, 31, int(rng.integers(_OPTICS))])
            optics = DefocusOptics(na=float(own.uniform(*p.na)), immersion_index=1.4, depth_um=0.0)
            finest = optics.wavelength_um / (2 * optics.na)
            pixel = finest / float(np.exp(own.uniform(*np.log(p.pixels_across))))
            step = 2 * optics.depth_of_field_um * float(own.uniform(0.5, 1.0))
            settings = FocalSettings((p.planes, p.side_px, p.side_px), step, pixel, beyond=2)
            made = focal_stack(settings, optics, rng)
            wide = rng.random() < p.widefield_share
            planes = (made.widefield if wide else made.confocal).float()
            if rng.random() < 0.5:  # cameras and stages soften, too
                width = float(rng.uniform(0, 1.2))
                planes = torch.from_numpy(gaussian_filter(planes.numpy(), (0, width, width), mode="wrap"))
            background = float(rng.uniform(0, 0.1)) * float(planes.max())
            levels = stack_levels_of(planes + background)
            if levels.at(*LEVELS)[1] > _EMPTY * float(planes.max()):
                break  # else hardly anything is in it
        return _Specimen(planes + background, levels)

    def _pair(
        self, one: _Specimen, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.plan
        factor = float(np.exp(rng.uniform(*np.log(p.factor))))
        if rng.random() < 0.3:  # many are whole numbers
            factor = max(2.0, float(round(factor)))
        kernel = gaussian_kernel(factor * float(np.exp(rng.uniform(*np.log(p.blur)))))
        top = float(one.planes.max())
        noise: tuple[Noise, ...] = ()
        if rng.random() >= p.noise_free_share:
            per = top / float(np.exp(rng.uniform(*np.log(p.electrons))))
            read = (float(rng.uniform(0, 3)) * per) ** 2
            noise = (Noise(per, read, 0.0, True, "simulated"),)
        degradation = Degradation(factor, kernel, noise=noise, noise_free=True)
        side, whole = p.patch_px, one.planes.shape[-1]
        best: tuple[float, torch.Tensor] | None = None
        for _ in range(_PLACES):  # of some places the one with most in it, more often than not
            z = int(rng.integers(len(one.planes)))
            y, x = (int(v) for v in rng.integers(whole - side + 1, size=2))
            contrast = float(one.planes[z, y : y + side : 2, x : x + side : 2].std())
            if best is None or (contrast > best[0] and rng.random() < 0.9):
                plane = torch.roll(one.planes[z], (-y, -x), (0, 1))
                best = contrast, plane
        assert best is not None
        plane = best[1]
        if rng.random() < 0.5:
            plane = plane.T
        # they go on periodically: what lies beyond the patch is known
        halo = min(degradation.halo_px, (whole - side) // 2)
        sharp = torch.roll(plane, halo, 1)[:side, : side + 2 * halo]
        coarse = degradation(sharp[None, None], generator)[0, 0]
        low, span = one.levels.at(float(rng.uniform(1, 3)), float(rng.uniform(99.5, 99.9)))
        keep = slice(halo, halo + side)
        return ((coarse[:, keep] - low) / span)[None], ((sharp[:, keep] - low) / span)[None]
