"""Light fields and their volumes, simulated as fast as a network can be trained on them.

A pool of scenes is imaged once each through the lenslet projector of slightly wrong optics, noise free.
A training pair then costs little: imaging is linear, so sums of pool members under the symmetries of the
lattice are pairs too, and the camera's noise is drawn anew every time. Where a training computes something
costly of every frame, recordings are made once each and only turned and flipped later. Everything is a
function of the seed and the step, so a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.simulation.phantoms import random_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.simulation.scene import Box, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.optics.projector import Storage

NEAR_OPTICS = (
    OpticsError(pupil=(1, 1, 0.98, 0.95, 0.88, 0.7)),
    OpticsError(na=-0.02, focal_length=0.01, sample_index=0.002),
    OpticsError(na=0.005, focal_length=-0.01, pupil=(1, 0.95, 0.9, 0.8, 0.6, 0.35)),
    OpticsError(na=-0.01, sample_index=-0.003, pupil=(1, 0.97, 0.93, 0.86, 0.74, 0.5)),
)
"""What real microscopes of one description differ by; the first is used alone where time is short."""


ATTEMPTS = 5
LEAST_LIT = 1e-4
"""A scene is drawn again while less than this share of the field's voxels holds light."""


@dataclass(frozen=True)
class PairSettings:
    """What the pairs look like.

    Attributes
    ----------
    families : tuple of str
        Phantom families to draw from, out of `napari_lfm.simulation.phantoms.FAMILIES`.
    cells : int
        Lenslets across the simulated frame.
    z_substeps : int
        Planes of the simulated object for each plane of the truth.
    beyond : float
        How far specimens reach above and below the volume, as a share of its height.
    errors : tuple of OpticsError
        The optics to image through, in turn.
    electrons : tuple of float
        Least and most photo-electrons per pixel at the 99.9th percentile of a frame.
    haze : float
        Largest even background, as a share of that percentile.
    jitter_px : float
        Standard deviation of the lattice's error, in lenslet pixels.
    pool : int
        Scenes at the start of the training.
    most : int
        Scenes at its end.
    fresh_every : int
        Steps after which the pool has one scene more, until it is full.
    storage : str
        How the projector is stored.
    """

    families: tuple[str, ...]
    cells: int = 24
    z_substeps: int = 2
    beyond: float = 0.5
    errors: tuple[OpticsError, ...] = NEAR_OPTICS
    electrons: tuple[float, float] = (30.0, 6000.0)
    haze: float = 0.3
    jitter_px: float = 0.15
    pool: int = 48
    most: int = 2000
    fresh_every: int = 4
    storage: Storage = "float32"


@dataclass(frozen=True)
class Pair:
    """Batches of noise-free or recorded frames and their volumes.

    Attributes
    ----------
    image : tensor, shape (B, cells * N, cells * N)
    volume : tensor, shape (B, planes, cells * s, cells * s)
        Light per voxel, in the units of `image`.
    """

    image: torch.Tensor
    volume: torch.Tensor

    def turned(self, operation: int) -> Pair:
        """Return both under one of the eight symmetries of the square lattice, 0 to 7."""
        return Pair(turned(self.image, operation), turned(self.volume, operation))


@dataclass
class LightfieldPairs:
    """A source of simulated pairs for one microscope.

    Parameters
    ----------
    microscope : Microscope
        With a lenslet array on a square lattice.
    n_pixels : int
        Pixels per lenslet, N.
    z_um : sequence of float
        Depths of the truth's planes, evenly spaced.
    voxels_per_lenslet : int
        Voxels across a lenslet, s.
    settings : PairSettings
    seed : int
    device : str
        Where to compute; the pool stays in main memory.
    truth_voxels : int, optional
        Voxels across a lenslet of the truth, where it is to be finer than what is simulated (s).
    """

    microscope: Microscope
    n_pixels: int
    z_um: Sequence[float]
    voxels_per_lenslet: int
    settings: PairSettings
    seed: int = 0
    device: str = "cpu"
    truth_voxels: int | None = None
    _projectors: list[LensletProjector] = field(default_factory=list, init=False, repr=False)
    _guards: list[LensletProjector] = field(default_factory=list, init=False, repr=False)
    _pool: dict[int, Pair] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        lenslets = self.microscope.lenslets
        if lenslets is None:
            raise RequestError(
                f"The microscope '{self.microscope.name}' has no lenslet array.",
                "Choose a light-field microscope.",
            )
        if lenslets.lattice != "square":
            raise RequestError(
                "Networks are trained for square lenslet arrays only.",
                "Deconvolve light fields of hexagonal arrays.",
            )
        self.z_um = [float(z) for z in self.z_um]
        self.dz_um = self.z_um[1] - self.z_um[0] if len(self.z_um) > 1 else self.microscope.depth_of_field_um

    # -- building ---------------------------------------------------------------------------

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Build the projectors, yielding (steps done, steps in all)."""
        geometries = self.geometries()
        total = sum(len(g.planes) for g in geometries)
        done = 0
        for k, geometry in enumerate(geometries):
            projector = LensletProjector(geometry, self.device, self.settings.storage)
            # a training set is made once; the disk cache is for what is used again
            for _ in projector.build_steps(use_cache=False):
                done += 1
                yield done, total
            (self._guards if k % 2 else self._projectors).append(projector)

    def geometries(self) -> list[Geometry]:
        """Return what is to be built: for each of the optics the volume, then what lies beyond it."""
        fine, coarse = self._planes()
        return [g for error in self.settings.errors for g in self._geometries(error, fine, coarse)]

    def other(self, seed: int) -> LightfieldPairs:
        """Return a source of other scenes through the same optics."""
        out = LightfieldPairs(
            self.microscope,
            self.n_pixels,
            self.z_um,
            self.voxels_per_lenslet,
            self.settings,
            seed,
            self.device,
            self.truth_voxels,
        )
        out._projectors, out._guards = self._projectors, self._guards
        return out

    def _planes(self) -> tuple[list[Plane], list[Plane]]:
        s, k = self.voxels_per_lenslet, self.settings.z_substeps
        sub = ((np.arange(k) + 0.5) / k - 0.5) * self.dz_um
        fine = [Plane(round(float(z + d), 6), (s, s)) for z in self.z_um for d in sub]
        return fine, [Plane(z, (1, 1)) for z in self._guard_depths()]

    def _guard_depths(self) -> list[float]:
        height = self.dz_um * len(self.z_um)
        step = self._guard_step
        count = max(1, round(self.settings.beyond * height / step))
        low, high = self.z_um[0] - self.dz_um / 2, self.z_um[-1] + self.dz_um / 2
        below = [round(low - (k + 0.5) * step, 6) for k in range(count)]
        return below[::-1] + [round(high + (k + 0.5) * step, 6) for k in range(count)]

    @property
    def _guard_step(self) -> float:
        return max(2 * self.dz_um, self.dz_um * len(self.z_um) / 10)

    def _geometries(
        self, error: OpticsError, fine: list[Plane], coarse: list[Plane]
    ) -> tuple[Geometry, Geometry]:
        assert self.microscope.lenslets is not None
        true = error.applied(self.microscope, self.microscope.lenslets.pitch_um)
        optics = replace(CellOptics.of(true, self.n_pixels), pupil=error.pupil)
        cells = (self.settings.cells, self.settings.cells)
        # errors change the width of the point spread function; one margin suits all
        nominal = CellOptics.of(self.microscope, self.n_pixels)
        margin = max(nominal.half_width(p.z_um)[0] for p in fine)
        # light from beyond the volume is a haze: what spreads further than the margin is cut off there
        return (
            Geometry.plan(optics, fine, cells, margin=(margin, margin), max_half_width=(margin, margin)),
            Geometry.plan(optics, coarse, cells, margin=(margin, margin), max_half_width=(margin, margin)),
        )

    # -- the pool ---------------------------------------------------------------------------

    def scene_pair(self, index: int) -> Pair:
        """Return scene `index`, imaged without noise; B = 1, brightest pixels (99.9 %) about 1."""
        found = self._pool.get(index)
        if found is None:
            found = self._made(index)
            self._pool[index] = Pair(found.image.half(), found.volume.half())
        return found

    def _made(self, index: int) -> Pair:
        if not self._projectors:
            for _ in self.prepare():
                pass
        rng = np.random.default_rng([self.seed, index])
        which = index % len(self._projectors)
        fine, coarse = self._projectors[which], self._guards[which]
        cell = self.microscope.lenslet_um
        assert cell is not None
        g, s = fine.geometry, self.voxels_per_lenslet
        across = g.volume_cells[0] * cell
        depths = [p.z_um for p in coarse.geometry.planes]
        low = min(depths[0] - self._guard_step / 2, self.z_um[0])
        high = max(depths[-1] + self._guard_step / 2, self.z_um[-1])
        box = Box((low, -across / 2, -across / 2), (high, across / 2, across / 2))
        sub = self.dz_um / self.settings.z_substeps
        m, n = g.margin[0] * s, g.cells[0] * s
        for _ in range(ATTEMPTS):
            scene = random_scene(self.settings.families, box, rng, lenslet_um=cell)
            volume = self._rendered(scene, [p.z_um for p in g.planes], sub, s)
            inner = volume[:, m : m + n, m : m + n]
            # a field that shows nothing but haze from elsewhere teaches little
            if float((inner > 0.05 * volume.max()).float().mean()) > LEAST_LIT:
                break
        around = [
            self._rendered(scene, part, self._guard_step, 1) * (self._guard_step / sub)
            for part in (depths[: len(depths) // 2], depths[len(depths) // 2 :])
        ]
        with torch.no_grad():
            image = fine.forward(volume[None].to(self.device))
            # coarse voxels are s times as wide and hold that much more
            image += coarse.forward(torch.cat(around)[None].to(self.device) * s**2)
        image = _shifted(image.cpu(), rng.normal(0, self.settings.jitter_px, 2)).clamp(min=0)
        k = self.settings.z_substeps
        if self.truth_voxels in (None, s):
            truth = inner.reshape(-1, k, n, n).sum(1)[None]  # light adds up over the substeps
        else:
            truth = self._finer_truth(scene, [p.z_um for p in g.planes], sub)
        level = bright_level(image)
        if level <= 0:
            return Pair(torch.zeros_like(image), torch.zeros_like(truth))
        return Pair(image / level, truth / level)

    def _finer_truth(self, scene: object, depths: list[float], dz: float) -> torch.Tensor:
        """Return the observed field alone with `truth_voxels` across a lenslet, light per voxel."""
        assert self.truth_voxels is not None
        k, t = self.settings.z_substeps, self.truth_voxels
        planes = [  # one at a time: all substeps at once would not fit
            self._rendered(scene, depths[i : i + k], dz, t, self.settings.cells).sum(0)
            for i in range(0, len(depths), k)
        ]
        return torch.stack(planes)[None] * (self.voxels_per_lenslet / t) ** 2

    def _rendered(
        self, scene: object, depths: list[float], dz: float, voxels: int, cells: int | None = None
    ) -> torch.Tensor:
        """Return a scene's light on the enlarged field, or on its middle `cells` lenslets."""
        cell = self.microscope.lenslet_um
        assert cell is not None
        count = (self._projectors[0].geometry.volume_cells[0] if cells is None else cells) * voxels
        step = cell / voxels
        start = -(count - 1) / 2 * step
        grid = Grid((len(depths), count, count), (dz, step, step), (depths[0], start, start))
        return rasterise(scene, grid, device=self.device).cpu()  # type: ignore[arg-type]

    # -- batches ----------------------------------------------------------------------------

    def batch(self, step: int, size: int) -> Pair:
        """Return the recorded frames and volumes of a training step; the same step gives the same pairs."""
        rng = np.random.default_rng([self.seed, 1 << 20, step])
        pairs = [self._mixed(rng, self._known(step)) for _ in range(size)]
        return joined([self.recorded(pair, rng) for pair in pairs])

    def _known(self, step: int) -> int:
        """Return how many scenes there are at a step."""
        return min(self.settings.most, self.settings.pool + step // self.settings.fresh_every)

    def draw(self, step: int, size: int) -> list[tuple[int, int]]:
        """Return which recordings (`recording`) a step shows, and under which symmetry (`turned`) each."""
        rng = np.random.default_rng([self.seed, 1 << 20, step])
        known = self._known(step)
        return [(int(rng.integers(known)), int(rng.integers(8))) for _ in range(size)]

    def recording(self, index: int) -> Pair:
        """Return recording `index`: its own scene, at times with earlier ones, as a camera sees it."""
        rng = np.random.default_rng([self.seed, 1 << 21, index])
        return self.recorded(self._mixed(rng, max(index + 1, self.settings.pool), index), rng)

    def _mixed(self, rng: np.random.Generator, known: int, first: int | None = None) -> Pair:
        """Return a sum of one to three pool members, each turned and flipped at random."""
        count = int(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))
        image: torch.Tensor | None = None
        volume: torch.Tensor | None = None
        for k in range(count):
            weight = 1.0 if k == 0 else float(np.exp(rng.normal(0, 1)))
            index = int(rng.integers(known)) if k or first is None else first
            part = self.scene_pair(index).turned(int(rng.integers(8)))
            one, many = part.image.float() * weight, part.volume.float() * weight
            image = one if image is None else image + one
            volume = many if volume is None else volume + many
        assert image is not None
        assert volume is not None
        return Pair(image, volume)

    def recorded(self, pair: Pair, rng: np.random.Generator, electrons: float | None = None) -> Pair:
        """Return a pair as a camera sees it and as the network wants it: divided by its 99.9th percentile."""
        s, camera = self.settings, self.microscope.camera
        level = bright_level(pair.image)
        if level <= 0:
            return pair
        low, high = (math.log(v) for v in s.electrons)
        peak = math.exp(rng.uniform(low, high)) if electrons is None else electrons
        haze = s.haze * float(rng.uniform()) ** 2
        mean = (pair.image.numpy() / level + haze) * peak
        light = rng.poisson(mean) + rng.normal(0, camera.read_noise_e, mean.shape)
        # a dark frame is rarely right to a few grey values
        light += rng.normal(0, 2.0) * camera.gain_e_per_count
        image = torch.from_numpy((light / peak).astype(np.float32))
        scale = max(bright_level(image), 1e-6)
        return Pair(image / scale, pair.volume / (level * scale))


def turned(data: torch.Tensor, operation: int) -> torch.Tensor:
    """Return frames or volumes (..., y, x) under one of the lattice's eight symmetries, 0 to 7."""
    if operation & 1:
        data = data.flip(-1)
    if operation & 2:
        data = data.flip(-2)
    return data.mT if operation & 4 else data


def joined(pairs: list[Pair]) -> Pair:
    """Return single pairs as one batch."""
    return Pair(torch.cat([p.image for p in pairs]), torch.cat([p.volume for p in pairs]))


def bright_level(image: torch.Tensor) -> float:
    """Return the 99.9th percentile: what counts as bright, and no hot pixel decides."""
    return float(np.percentile(image.float().numpy(), 99.9))


def _shifted(image: torch.Tensor, shift_px: np.ndarray) -> torch.Tensor:
    """Move images by a part of a pixel, linearly interpolated as a rectified frame is."""
    for dim, shift in zip((-2, -1), shift_px.tolist(), strict=True):
        whole = math.floor(shift)
        part = shift - whole
        a, b = torch.roll(image, whole, dim), torch.roll(image, whole + 1, dim)
        image = a * (1 - part) + b * part
    return image
