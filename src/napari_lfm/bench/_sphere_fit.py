"""How spherical a reconstructed vesicle is: radial peaks, a sphere through them, and gaps in the rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

from napari_lfm.core.labelled import affine_of, spacing_of

if TYPE_CHECKING:
    import xarray as xr

ANGLES = 72
STEP_VOXELS = 0.25
SMOOTHING_VOXELS = 0.7
STANDS_OUT = 1.5
"""A radial peak this many times the profile's median is a piece of the shell."""
LOSS_UM = 0.3


@dataclass(frozen=True)
class Sphere:
    """A sphere, or an ellipsoid of revolution about z.

    Attributes
    ----------
    centre_um : tuple of float
        (z, y, x).
    radius_um : float
        Lateral radius.
    axial_scale : float
        Axial over lateral radius; 1 where it was not fitted.
    misfit : float
        rms radial deviation over all points, as a share of the radius.
    """

    centre_um: tuple[float, float, float]
    radius_um: float
    axial_scale: float
    misfit: float


@dataclass(frozen=True)
class Shell:
    """What was measured of a shell.

    Attributes
    ----------
    points_um : ndarray, shape (n, 3)
        Radial peaks (z, y, x).
    sphere, ellipsoid : Sphere
        Fits with and without the same scale along z.
    continuity : float
        Share of the angles whose radial peak stands out in every plane.
    """

    points_um: np.ndarray
    sphere: Sphere
    ellipsoid: Sphere
    continuity: float


def measure_shell(volume: xr.DataArray, z_reach_um: float = 5.0, angles: int = ANGLES) -> Shell:
    """Find a bright spherical shell and say how spherical and how closed it is.

    In each plane within `z_reach_um`, rays leave the axis of the bright region at even angles; the
    brightest place of each, outside the innermost two voxels and refined by a parabola, is a point of the
    shell. Caps further out lie flat in the planes and have no ring.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x`` in micrometres.
    z_reach_um : float
        Planes with ``|z|`` up to this are used.
    angles : int
        Rays for each plane.
    """
    values = np.asarray(volume, float)
    z = affine_of(volume)[0, 3] + affine_of(volume)[0, 0] * np.arange(values.shape[0])
    axis = _axis(values)
    radii = np.arange(0, min(values.shape[1:]) / 2, STEP_VOXELS)
    turn = 2 * np.pi * np.arange(angles) / angles
    rays = np.stack([np.sin(turn), np.cos(turn)])[:, :, None] * radii + axis[:, None, None]
    used = np.flatnonzero(np.abs(z) <= z_reach_um + 1e-6)
    points = np.empty((len(used), angles, 3))
    stands_out = np.ones(angles, bool)
    size = spacing_of(volume)
    for row, plane in zip(points, used, strict=True):
        smooth = ndimage.gaussian_filter(values[plane], SMOOTHING_VOXELS)
        profiles = ndimage.map_coordinates(smooth, rays, order=1)
        radius, height = _peaks(profiles)
        row[:, 0] = z[plane]
        row[:, 1] = (axis[0] + radius * np.sin(turn)) * size["y"]
        row[:, 2] = (axis[1] + radius * np.cos(turn)) * size["x"]
        stands_out &= height > STANDS_OUT * np.median(profiles, axis=1)
    flat = points.reshape(-1, 3)
    return Shell(flat, fit_sphere(flat), fit_sphere(flat, free_axis=True), float(stands_out.mean()))


def fit_sphere(points_um: np.ndarray, free_axis: bool = False) -> Sphere:
    """Fit a sphere (`free_axis`: an ellipsoid of revolution about z), robust against stray points.

    Parameters
    ----------
    points_um : ndarray, shape (n, 3)
        (z, y, x).
    """
    middle = points_um.mean(0)
    spread = float(np.sqrt(((points_um - middle)[:, 1:] ** 2).sum(1).mean()))

    def deviation(q: np.ndarray) -> np.ndarray:
        away = (points_um - q[:3]) / np.array([q[4] if free_axis else 1.0, 1.0, 1.0])
        return np.asarray(np.sqrt((away**2).sum(1)) - q[3])

    start = [*middle, spread, 1.0] if free_axis else [*middle, spread]
    found = least_squares(deviation, start, loss="soft_l1", f_scale=LOSS_UM).x
    rms = float(np.sqrt((deviation(found) ** 2).mean()))
    scale = abs(float(found[4])) if free_axis else 1.0  # the fit knows only its square
    centre = (float(found[0]), float(found[1]), float(found[2]))
    return Sphere(centre, float(found[3]), scale, rms / float(found[3]))


def _axis(values: np.ndarray) -> np.ndarray:
    """Return the (y, x) voxel that the bright part of the volume lies around."""
    seen = values.sum(0)
    weight = np.clip(seen - np.percentile(seen, 90), 0, None)
    grid = np.indices(seen.shape)
    return np.asarray((grid * weight).sum((1, 2)) / weight.sum())


def _peaks(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return radius (voxels) and height of the highest place of each profile (angles, radii)."""
    first = round(2 / STEP_VOXELS)
    at = np.clip(profiles[:, first:-1].argmax(1) + first, 1, profiles.shape[1] - 2)
    rows = np.arange(len(profiles))
    before, peak, after = (profiles[rows, at + k] for k in (-1, 0, 1))
    bend = before - 2 * peak + after
    shift = np.where(bend < 0, (before - after) / (2 * np.where(bend < 0, bend, -1)), 0)
    return (at + np.clip(shift, -1, 1)) * STEP_VOXELS, peak
