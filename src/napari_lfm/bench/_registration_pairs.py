"""Simulated pairs of a wide-field and a confocal stack, shifted against each other by a known way.

Both look at the same shapes, drawn anew on the shifted grid: a shift of a third of a pixel is one, and no
voxel wraps round or is interpolated. The object reaches beyond both stacks by the reach of the point spread
function. In tissue the unscattered share of light falls with depth; what was scattered forms a halo, and
haze from outside lies over the wide-field stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.optics.confocal_psf import confocal_psf
from napari_lfm.optics.microscope import Camera
from napari_lfm.optics.stack_blur import StackBlur
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.phantoms import make_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.simulation.scene import Scene

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Tissue:
    """What stands between the objective and the object, and how much light there is.

    Attributes
    ----------
    name : str
    free_um : float
        Depth at which 1/e of the light is unscattered.
    halo_um : float
        Standard deviation, across, of what is scattered.
    haze : float
        Smooth light from outside the stack, in shares of the wide-field stack's 99.9th percentile.
    widefield_electrons, confocal_electrons : float
        At the 99.9th percentile of the clean stacks.
    """

    name: str
    free_um: float = float("inf")
    halo_um: float = 1.5
    haze: float = 0.0
    widefield_electrons: float = 3000.0
    confocal_electrons: float = 300.0


CLEAR = Tissue("low noise")
HAZY = Tissue("haze and noise", 12.0, 2.0, 2.0, 300.0, 25.0)
WORST = Tissue("strong haze and noise", 6.0, 2.0, 4.0, 100.0, 10.0)


@dataclass(frozen=True)
class Case:
    """A scene, and how far the wide-field stack's content lies from the confocal one's, voxels (z, y, x)."""

    kind: str
    shift: Vector
    seed: int
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """Size of the stacks and their optics: 60x/1.4 oil as in the paper."""

    shape: tuple[int, int, int] = (32, 160, 160)
    voxel_um: Vector = (0.5, 0.1083, 0.1083)
    psf_shape: tuple[int, int, int] = (31, 97, 97)
    emission: WidefieldOptics = field(default_factory=lambda: WidefieldOptics(1.4, 0.52, 1.515, 1.515))
    excitation: WidefieldOptics = field(default_factory=lambda: WidefieldOptics(1.4, 0.488, 1.515, 1.515))
    pinhole_airy: float = 1.5


_NEURITES = {"neurons": {"count": 4, "soma_um": 2.0, "reach_um": 14.0}}
CASES = (
    Case("neurons", (3.0, 6.0, -6.0), 1, _NEURITES),
    Case("filaments", (-3.0, -6.0, 6.0), 2, {"filaments": {"count": 50, "radius_um": 0.12}}),
    Case("nuclei", (2.0, 5.0, 3.0), 3, {"nuclei": {"count": 14, "radius_um": 2.0}}),
    Case("cells", (-1.0, 4.0, -5.0), 4, {"cells": {"count": 6, "radius_um": 2.5}}),
    Case("vessels", (3.0, -6.0, -6.0), 5),
    Case("neurons+nuclei", (-2.3, 2.4, 4.7), 6, {**_NEURITES, "nuclei": {"count": 6, "radius_um": 2.0}}),
    Case("filaments+cells", (1.4, -3.3, 5.6), 7, {"cells": {"count": 3, "radius_um": 2.5}}),
    Case("mixtures", (-0.7, -5.2, -2.3), 8),
)
"""Full shifts of 6 pixels and 3 planes, smaller ones, and fractional ones."""


class PairMaker:
    """Makes pairs with one set of optics."""

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = setup or Setup()
        s = self.setup
        wide = widefield_psf(s.emission, s.psf_shape, s.voxel_um)
        sharp = confocal_psf(s.excitation, s.emission, s.pinhole_airy, s.psf_shape, s.voxel_um)
        self._wide = StackBlur(wide, s.shape)
        self._sharp = StackBlur(sharp, s.shape)

    def scene(self, case: Case) -> Scene:
        """Return what both microscopes look at; it reaches beyond the stacks."""
        s = self.setup
        size = [(n + 12) * h for n, h in zip(s.shape, s.voxel_um, strict=True)]
        return make_scene(
            case.kind, Box.centred((size[0], size[1], size[2])), case.seed, options=case.options
        )

    def pair(self, case: Case, tissue: Tissue = CLEAR) -> tuple[xr.DataArray, xr.DataArray]:
        """Return the wide-field and the confocal stack, uint16, dims ``z y x``, both starting at 0 um."""
        rng = np.random.default_rng(1000 + case.seed)
        scene = self.scene(case)
        wide = self._stack(scene, case.shift, self._wide, tissue)
        sharp = self._stack(scene, (0.0, 0.0, 0.0), self._sharp, tissue)
        top = float(np.percentile(wide, 99.9))
        if tissue.haze:
            clouds = gaussian_filter(rng.random(wide.shape), (6, 40, 40))
            clouds = (clouds - clouds.min()) / np.ptp(clouds)
            wide = wide + tissue.haze * top * (0.5 + 0.5 * clouds)
        return (
            self._exposed(wide, tissue.widefield_electrons / top, rng, "wide-field"),
            self._exposed(
                sharp, tissue.confocal_electrons / float(np.percentile(sharp, 99.9)), rng, "confocal"
            ),
        )

    def _stack(self, scene: Scene, shift: Vector, blur: StackBlur, tissue: Tissue) -> np.ndarray:
        s = self.setup
        grid = Grid.centred((blur.shape[0], blur.shape[1], blur.shape[2]), s.voxel_um)
        # content lies further along by `shift`, so the grid begins earlier
        origin = [o - d * h for o, d, h in zip(grid.origin_um, shift, s.voxel_um, strict=True)]
        grid = Grid(grid.shape, s.voxel_um, (origin[0], origin[1], origin[2]))
        body = rasterise(scene, grid)
        depth = grid.axes()[0] + (s.shape[0] - 1) / 2 * s.voxel_um[0]  # below the first confocal plane
        unscattered = np.exp(-np.clip(depth, 0, None) / tissue.free_um)
        free = torch.as_tensor(unscattered, dtype=torch.float32)[:, None, None]
        out: np.ndarray = blur.forward(body * free).numpy()
        if np.isfinite(tissue.free_um):
            lost = blur.forward(body * (1 - free)).numpy()
            out = out + gaussian_filter(lost, (0, *(tissue.halo_um / h for h in s.voxel_um[1:])))
        return np.asarray(np.clip(out, 0, None))

    def _exposed(self, light: np.ndarray, gain: float, rng: np.random.Generator, name: str) -> xr.DataArray:
        camera = Camera(pixel_um=6.5, gain_e_per_count=0.5, offset_counts=100, read_noise_e=1.5, bit_depth=16)
        counts = record(light * gain, camera, rng)
        return labelled(counts, "zyx", dict(zip("zyx", self.setup.voxel_um, strict=True)), name=name)
