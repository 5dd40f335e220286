"""What every view shows of a ball at a depth: wave-optics responses along their rays, ready to be fitted.

A ball's image in a view is a small disc whose place follows the exact ray of that view; its shape changes
slowly with depth. So responses of the lenslet projector at a few depths and radii, moved back along their
rays, and interpolated, are a light field of any ball anywhere, with derivatives, in a millisecond.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import spline_filter1d

from napari_lfm.lightfield.slopes import ray_offsets_per_um, view_aperture
from napari_lfm.optics import cache
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Grid, Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_lfm.optics.microscope import Microscope

READY = Path(__file__).parent / "responses"
"""Responses of the microscopes that bundled models are for: they take half a minute to compute."""
RADII = (0.6, 0.85, 1.2, 1.7)
"""Shares of a typical body's radius."""
FINE = 2
"""Samples of a template per lenslet: twice those of a view, so that nothing is aliased."""
INNER = 0.75
"""Share of the pupil's radius whose views are fitted: at its rim a pixel sees a part, at another angle."""
VOXELS, PLANES_PER_RADIUS = 3, 2
_STEPS = 18
VERSION = 2


@dataclass(frozen=True)
class Templates:
    """Responses of balls, moved back along their rays.

    Attributes
    ----------
    z_um : ndarray, shape (depths,)
        Evenly spaced.
    radius_um : ndarray, shape (radii,)
    view : ndarray of int, shape (2, views)
        Which views (v, u) there are: those in the pupil.
    at : ndarray, shape (2, views)
        Where they are in the pupil: from its centre, its radius 1.
    ray : ndarray, shape (2, views)
        Lenslets along t and s per um of depth.
    spline : ndarray, shape (depths, radii, views, size, size), float32
        Coefficients of cubic splines; `FINE` samples per lenslet, the source in the middle. The light of a
        ball is 1 in all views together.
    half : int
        Lenslets on either side of a ray that its response reaches.
    """

    z_um: np.ndarray
    radius_um: np.ndarray
    view: np.ndarray
    at: np.ndarray
    ray: np.ndarray
    spline: np.ndarray
    half: int

    def of(self, z_um: float, radius_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the spline (views, size, size) of a ball, and its derivatives by depth and by radius.

        Beyond the ends of both scales the last shape stays.
        """
        k, a, step = _between(self.z_um, z_um)
        j, c, wide = _between(self.radius_um, radius_um)
        low = (1 - c) * self.spline[k, j] + c * self.spline[k, j + 1]
        high = (1 - c) * self.spline[k + 1, j] + c * self.spline[k + 1, j + 1]
        thin = (1 - a) * self.spline[k, j] + a * self.spline[k + 1, j]
        thick = (1 - a) * self.spline[k, j + 1] + a * self.spline[k + 1, j + 1]
        return (1 - a) * low + a * high, (high - low) / step, (thick - thin) / wide

    def within(self, share: float) -> Templates:
        """Return those of the views within a share of the pupil's radius."""
        return self.seen_by(np.hypot(*self.at) <= share)

    def seen_by(self, kept: np.ndarray) -> Templates:
        """Return those of some views, (views,) bool."""
        return replace(
            self,
            view=self.view[:, kept],
            at=self.at[:, kept],
            ray=self.ray[:, kept],
            spline=np.ascontiguousarray(self.spline[:, :, kept]),
        )


def _between(scale: np.ndarray, at: float) -> tuple[int, float, float]:
    """Return the entry below, the share of the one above, and their distance."""
    k = int(np.clip(np.searchsorted(scale, at) - 1, 0, len(scale) - 2))
    step = float(scale[k + 1] - scale[k])
    return k, float(np.clip((at - scale[k]) / step, 0.0, 1.0)), step


def spline_weights(position: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what each of `count` cubic B-splines has at positions, and their slopes: both (..., count)."""
    away = np.asarray(position, np.float32)[..., None] - np.arange(count, dtype=np.float32)
    x = np.abs(away)
    near, far = np.clip(1 - x, 0, None), np.clip(2 - x, 0, None)
    value = far**3 / 6 - near**3 * (4 / 6)
    slope = np.sign(away) * (2 * near**2 - far**2 / 2)
    return value, slope


def make_templates(
    microscope: Microscope, n_pixels: int, z_um: tuple[float, float], diameter_um: float
) -> Generator[tuple[int, int], None, Templates]:
    """Compute the responses, yielding (steps done, steps in all).

    They come from the package where they are ready, or from the disk cache.

    Parameters
    ----------
    microscope : Microscope
        With a square lenslet array.
    n_pixels : int
        Pixels per lenslet, N.
    z_um : tuple of float
        Lowest and highest depth.
    diameter_um : float
        Of a typical body.
    """
    name, depths, radii, half = describe(microscope, n_pixels, z_um, diameter_um)
    rays = ray_offsets_per_um(microscope, n_pixels)
    view = np.stack(np.nonzero(np.isfinite(rays).all(0)))
    own, turned = _symmetric(view, n_pixels)
    shape = (len(depths), len(radii), len(own), *(2 * FINE * half + 1,) * 2)
    found = _ready(name)
    if found is None or found.shape != shape:
        cell = microscope.lenslet_um
        assert cell is not None
        every = yield from _responses(CellOptics.of(microscope, n_pixels), cell, depths, radii, rays, half)
        found = every[:, :, view[0, own], view[1, own]].astype(np.float16)
        cache.store(name, found)
    yield 1, 1
    chosen = _turned(np.asarray(found, np.float32), turned)
    # a ball's light is the sum of its samples: FINE^2 for each lenslet
    chosen = chosen / chosen.sum((2, 3, 4), keepdims=True) * FINE**2
    spline = spline_filter1d(spline_filter1d(chosen, axis=-1), axis=-2).astype(np.float32)
    _, edge = view_aperture(microscope, n_pixels)
    at = (view - (n_pixels - 1) // 2) / edge
    return Templates(depths, radii, view, at, rays[:, view[0], view[1]].astype(np.float32), spline, half)


def describe(
    microscope: Microscope, n_pixels: int, z_um: tuple[float, float], diameter_um: float
) -> tuple[str, np.ndarray, np.ndarray, int]:
    """Return what responses are called, their depths and radii in um, and how many lenslets they reach."""
    cell = microscope.lenslet_um
    assert cell is not None
    depths = np.linspace(z_um[0], z_um[1], _STEPS + 1)
    radii = diameter_um / 2 * np.asarray(RADII)
    half = math.ceil(radii[-1] / cell) + 2
    key = CellOptics.of(microscope, n_pixels).key()
    values = [key, depths.round(6).tolist(), radii.round(6).tolist(), half, VERSION]
    return f"balls-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]}", depths, radii, half


def are_ready(microscope: Microscope, n_pixels: int, z_um: tuple[float, float], diameter_um: float) -> bool:
    """Return whether nothing has to be computed."""
    return _ready(describe(microscope, n_pixels, z_um, diameter_um)[0]) is not None


def cost(
    microscope: Microscope, n_pixels: int, z_um: tuple[float, float], diameter_um: float
) -> tuple[float, int]:
    """Return the seconds and bytes that computing the responses takes; nothing where they are ready."""
    if are_ready(microscope, n_pixels, z_um, diameter_um):
        return 0.0, 0
    _, depths, radii, half = describe(microscope, n_pixels, z_um, diameter_um)
    cell = microscope.lenslet_um
    assert cell is not None
    rays = ray_offsets_per_um(microscope, n_pixels)
    g = _geometry(CellOptics.of(microscope, n_pixels), cell, depths, radii, rays, half)
    products = len(depths) * len(radii) * FINE**2
    memory = g.matrix_bytes() + max(g.plane_bytes(), 2 * g.vector_bytes())
    return g.build_seconds() + products * g.product_seconds(), int(memory)


def _ready(name: str) -> np.ndarray | None:
    path = READY / f"{name}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    return cache.load(name)


def _symmetric(view: np.ndarray, n_pixels: int) -> tuple[np.ndarray, list[tuple[int, bool, bool, bool]]]:
    """Return the views that are kept, and for every view the one it mirrors: (number, down, across, turned).

    A square array under a round pupil looks the same from eight sides, if there is a view in the middle.
    """
    if n_pixels % 2 == 0:
        every = np.arange(view.shape[1])
        return every, [(k, False, False, False) for k in every.tolist()]
    v, u = view - (n_pixels - 1) // 2
    own = np.flatnonzero((v >= 0) & (u >= v))
    number = {(int(v[k]), int(u[k])): i for i, k in enumerate(own)}
    turned = []
    for a, b in zip(v.tolist(), u.tolist(), strict=True):
        low, high = sorted((abs(a), abs(b)))
        turned.append((number[low, high], a < 0, b < 0, abs(a) > abs(b)))
    return own, turned


def _turned(own: np.ndarray, turned: list[tuple[int, bool, bool, bool]]) -> np.ndarray:
    out = np.empty((*own.shape[:2], len(turned), *own.shape[3:]), np.float32)
    for k, (number, down, across, turn) in enumerate(turned):
        one = own[:, :, number]
        one = one.swapaxes(-1, -2) if turn else one
        one = one[..., ::-1, :] if down else one
        out[:, :, k] = one[..., ::-1] if across else one
    return out


def _geometry(
    optics: CellOptics, cell_um: float, depths: np.ndarray, radii: np.ndarray, rays: np.ndarray, half: int
) -> Geometry:
    """Return what balls are made of and imaged through."""
    reach = math.ceil(np.nanmax(np.abs(rays)) * np.abs(depths).max()) + half + 1
    low, high = float(depths[0] - radii[-1]), float(depths[-1] + radii[-1])
    # smaller than a voxel need no plane be
    step = max(float(radii[0]) / PLANES_PER_RADIUS, cell_um / VOXELS)
    planes = [
        Plane(round(float(z), 6), (VOXELS, VOXELS))
        for z in np.linspace(low, high, math.ceil((high - low) / step) + 1)
    ]
    return Geometry.plan(optics, planes, (2 * reach + 1,) * 2, margin=(0, 0))


def _responses(
    optics: CellOptics, cell_um: float, depths: np.ndarray, radii: np.ndarray, rays: np.ndarray, half: int
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Return the response (depths, radii, v, u, size, size) of every ball, along its rays."""
    n = rays.shape[-1]
    geometry = _geometry(optics, cell_um, depths, radii, rays, half)
    planes, cells, reach = geometry.planes, geometry.cells, geometry.cells[0] // 2
    projector = LensletProjector(geometry)
    total = len(planes) + len(depths)
    for done, _ in projector.build_steps():
        yield done, total
    step, count = cell_um / VOXELS, cells[0] * VOXELS
    start = -(count - 1) / 2 * step
    low, z_step = planes[0].z_um, (planes[-1].z_um - planes[0].z_um) / (len(planes) - 1)
    grid = Grid((len(planes), count, count), (z_step, step, step), (low, start, start))
    places = (np.arange(FINE) + 0.5) / FINE - 0.5
    fine = np.arange(-FINE * half, FINE * half + 1) / FINE
    where = np.nan_to_num(rays)
    out = np.zeros((len(depths), len(radii), n, n, len(fine), len(fine)), np.float32)
    for k, z in enumerate(depths.tolist()):
        for j, radius in enumerate(radii.tolist()):
            # a source moved by half a lenslet shows what lies between the lenslets
            dense = np.zeros((n, n, cells[0] * FINE, cells[1] * FINE), np.float32)
            for a, down in enumerate(places):
                for b, along in enumerate(places):
                    ball = Ball((z, down * cell_um, along * cell_um), radius)
                    with torch.no_grad():
                        image = projector.forward(rasterise(Scene((ball,)), grid)[None])
                    views = image.reshape(cells[0], n, cells[1], n).permute(1, 3, 0, 2).numpy()
                    dense[:, :, FINE - 1 - a :: FINE, FINE - 1 - b :: FINE] = views
            spline = spline_filter1d(spline_filter1d(dense, axis=-1), axis=-2)
            # lenslet j is j - reach - p from a ball at place p: the dense scale starts at the last place
            rows, columns = (
                (fine + (where[axis] * z)[..., None] + reach + places[-1]) * FINE for axis in (0, 1)
            )
            left, right = (spline_weights(at, dense.shape[-1])[0] for at in (rows, columns))
            out[k, j] = left @ spline.astype(np.float32) @ right.swapaxes(-1, -2)
        yield len(planes) + k + 1, total
    return np.clip(out, 0, None)
