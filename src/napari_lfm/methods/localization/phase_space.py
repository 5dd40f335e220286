"""Phase-space localisation: the whole light field as few, non-negative point sources.

Liu et al., Opt. Express 23, 14461 (2015), and Pegard et al., Optica 3, 517 (2016): every pixel of a light
field is a place and an angle; a point source makes a known pattern of them, and the sources are the
sparsest non-negative sum of patterns that explains the measurement. Patterns are those of the wave-optics
projector here, on a grid of points; FISTA (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009)) solves

    min_x  1/2 |y - P x|^2 + l |x|_1,    x >= 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature import peak_local_max

from napari_lfm.lightfield.purify import noise_of
from napari_lfm.methods.localization.points import Found
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lfm.optics.microscope import Microscope

ITERATIONS = 60
SPARSITY = 0.02
"""l, as a share of the smallest one for which nothing is left."""
Z_STEP_UM = 2.0
VOXELS = 2
_POWER_ROUNDS = 12
_LEAST_SIGMA_UM = 1.0
_BODY_UM = 4.0
"""Codes of a cell body scatter over its size: they are gathered over this standard deviation."""


class PhaseSpace:
    """A sparse fit of light fields.

    Parameters
    ----------
    microscope : Microscope
    n_pixels : int
        Pixels per lenslet, N.
    cells : tuple of int
        Lenslets (rows, columns).
    z_um : sequence of float
        The grid goes from the first to the last of them in steps of `Z_STEP_UM`.
    sparsity : float
    iterations : int
    device : str
    """

    id = "phase-space"

    def __init__(
        self,
        microscope: Microscope,
        n_pixels: int,
        cells: tuple[int, int],
        z_um: Sequence[float],
        sparsity: float = SPARSITY,
        iterations: int = ITERATIONS,
        device: torch.device | str = "cpu",
    ) -> None:
        count = max(2, round((z_um[-1] - z_um[0]) / Z_STEP_UM) + 1)
        self.z_um = np.linspace(z_um[0], z_um[-1], count)
        self.cells, self.sparsity, self.iterations = cells, sparsity, iterations
        cell = microscope.lenslet_um
        assert cell is not None
        self.lenslet_um = cell
        planes = [Plane(round(float(z), 6), (VOXELS, VOXELS)) for z in self.z_um]
        optics = CellOptics.of(microscope, n_pixels)
        self._projector = LensletProjector(Geometry.plan(optics, planes, cells), device)
        self._step = 0.0

    @property
    def geometry(self) -> Geometry:
        """What is built, and what that costs."""
        return self._projector.geometry

    def build_steps(self) -> Iterator[tuple[int, int]]:
        """Build the optics, yielding (planes done, planes in all)."""
        yield from self._projector.build_steps()
        self._step = 1 / self._largest()

    def _largest(self) -> float:
        """Return the largest eigenvalue of ``P^T P``, by power iteration."""
        p = self._projector
        g = p.geometry
        x = torch.rand(1, g.voxel_channels, *g.volume_cells, generator=torch.Generator().manual_seed(0)).to(
            p.device
        )
        size = 1.0
        with torch.no_grad():
            for _ in range(_POWER_ROUNDS):
                x = p.backproject(p.project(x / x.norm()))
                size = float(x.norm())
        return 1.02 * size

    def steps(self, foreground: np.ndarray) -> Iterator[np.ndarray]:
        """Iterate on one light field (v, u, t, s), yielding the sources (z, y, x) after every iteration."""
        p = self._projector
        nv, nu, nt, ns = foreground.shape
        image = torch.from_numpy(foreground.transpose(2, 0, 3, 1).reshape(1, nt * nv, ns * nu).copy())
        with torch.no_grad():
            data = p.image_to_channels(image.to(p.device, torch.float32))
            correlation = p.backproject(data)
            shrink = self.sparsity * correlation.amax().clamp(min=1e-12)
        x = torch.zeros_like(correlation)
        y, momentum = x, 1.0
        (my, mx), (rows, columns) = p.geometry.margin, self.cells
        for _ in range(self.iterations):
            with torch.no_grad():
                gradient = p.backproject(p.project(y)) - correlation
                after = (y - self._step * (gradient + shrink)).clamp_(min=0)
                rises = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
                y = after + (momentum - 1) / rises * (after - x)
                x, momentum = after, rises
                volume = p.channels_to_volume(x)[0]
            yield (
                volume[:, my * VOXELS : (my + rows) * VOXELS, mx * VOXELS : (mx + columns) * VOXELS]
                .cpu()
                .numpy()
            )

    def points(
        self, sources: np.ndarray, threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return cell bodies from sources: ``z_um, t, s`` (lenslets), height (the highest 1), width in z.

        Parameters
        ----------
        sources : ndarray, shape (z, y, x)
            From `steps`.
        threshold : float
            Share of the highest.
        """
        dz, dxy = float(self.z_um[1] - self.z_um[0]), self.lenslet_um / VOXELS
        gathered = gaussian_filter(sources.astype(float), (_BODY_UM / dz, _BODY_UM / dxy, _BODY_UM / dxy))
        top = float(gathered.max(initial=0.0))
        if top <= 0:
            return (np.zeros(0),) * 5
        reach = (max(1, round(6.0 / dz)), *(max(1, round(5.0 / dxy)),) * 2)
        footprint = np.ones([2 * r + 1 for r in reach])
        at: np.ndarray = peak_local_max(  # type: ignore[no-untyped-call]
            gathered, footprint=footprint, threshold_abs=threshold * top, exclude_border=False
        )
        rows = [self._centroid(gathered, tuple(p), reach) for p in at]
        found = np.array(rows).reshape(-1, 4)
        height = np.array([gathered[tuple(p)] for p in at]) / top
        # a flat top is several peaks of one body; the brightest comes first
        away = np.abs(found[:, None, :3] - found[None, :, :3]).max(2)
        own = [k for k in range(len(found)) if not (away[k, :k] < 1.0).any()]
        found, height = found[own], height[own]
        z = self.z_um[0] + found[:, 0] * dz
        t, s = ((found[:, k] + 0.5) / VOXELS - 0.5 for k in (1, 2))
        return z, t, s, height, found[:, 3] * dz

    def found(self, sources: np.ndarray, foreground: np.ndarray, threshold: float) -> Found:
        """Return cell bodies as the other algorithms do; `threshold` as for `points`."""
        z, t, s, height, width = self.points(sources, threshold)
        order = np.argsort(-height)
        z, t, s, height, width = (v[order] for v in (z, t, s, height, width))
        noise = noise_of(foreground) or 1e-9
        nv, nu, nt, ns = foreground.shape
        rows, columns = np.clip(np.rint(t), 0, nt - 1).astype(int), np.clip(np.rint(s), 0, ns - 1).astype(int)
        peak = foreground[(nv - 1) // 2, (nu - 1) // 2, rows, columns]
        at = np.clip(np.rint((t + 0.5) * VOXELS - 0.5), 0, sources.shape[1] - 1).astype(int)
        across = np.clip(np.rint((s + 0.5) * VOXELS - 0.5), 0, sources.shape[2] - 1).astype(int)
        curve = sources[:, at, across].T
        curve = curve / np.maximum(curve.max(1, keepdims=True, initial=0.0), 1e-12)
        edge = (z < self.z_um[0] + 1.0) | (z > self.z_um[-1] - 1.0)
        sigma = np.hypot(_LEAST_SIGMA_UM, 0.5 * width)
        return Found(z, t, s, height, sigma, peak / noise, width, curve, edge)

    @staticmethod
    def _centroid(
        gathered: np.ndarray, at: tuple[int, ...], reach: tuple[int, ...]
    ) -> tuple[float, float, float, float]:
        box = tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, reach, strict=True))
        part = np.clip(gathered[box] - 0.5 * gathered[at], 0, None)
        total = part.sum()
        axes = np.meshgrid(
            *(np.arange(b.start, b.start + n) for b, n in zip(box, part.shape, strict=True)), indexing="ij"
        )
        z, y, x = (float((part * a).sum() / total) for a in axes)
        width = float(np.sqrt((part * (axes[0] - z) ** 2).sum() / total))
        return z, y, x, width
