"""A spherical membrane in a volume: its wall plane by plane, and the sphere or spheroid through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import least_squares

from napari_lfm.core.labelled import origin_of, spacing_of

if TYPE_CHECKING:
    import xarray as xr

Array = npt.NDArray[np.float64]
SECTORS = 8


@dataclass(frozen=True)
class ShellFit:
    """A sphere or spheroid through a wall.

    Attributes
    ----------
    centre_um : tuple of float
        (z, y, x).
    radius_um : float
        Lateral radius.
    axial_scale : float
        What z must be multiplied by for the wall to be a sphere: lateral over axial radius.
    axial_scale_error : float
        Standard error from leaving out one angular sector after the other; 0 when it was held at 1.
    rms : float
        rms radial misfit over the radius.
    """

    centre_um: tuple[float, float, float]
    radius_um: float
    axial_scale: float
    axial_scale_error: float
    rms: float


def wall_points(volume: xr.DataArray, reach_um: float = 5.0, angles: int = 72) -> Array:
    """Return where the wall is: the brightest radius per plane and angle, to a fraction of a voxel.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x``, one hollow shell about its middle.
    reach_um : float
        Planes with ``|z|`` up to this are used.
    angles : int
        Directions per plane.

    Returns
    -------
    ndarray, shape (points, 3)
        (z, y, x) in micrometres, plane by plane, angle by angle.
    """
    data = np.asarray(volume.values, np.float64)
    step, origin, z = spacing_of(volume), origin_of(volume), volume.coords["z"].values
    from_above = data.sum(0)
    light = np.clip(from_above - np.percentile(from_above, 90), 0, None)
    centre = [float((light * grid).sum() / light.sum()) for grid in np.indices(light.shape)]
    room = min(*centre, *(n - 1 - c for n, c in zip(light.shape, centre, strict=True)))
    radii = np.arange(2.0, room, 0.25)
    turn = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    places = [c + np.outer(f(turn), radii) for c, f in zip(centre, (np.sin, np.cos), strict=True)]
    out = []
    for k in np.flatnonzero(np.abs(z) <= reach_um + 1e-6):
        plane = ndimage.gaussian_filter(data[k], 0.7)
        for a, profile in enumerate(ndimage.map_coordinates(plane, places, order=1)):
            i = int(profile.argmax())
            if not 0 < i < len(radii) - 1:
                continue
            left, top, right = profile[i - 1 : i + 2]
            bend = left - 2 * top + right
            radius = radii[i] + (0.125 * (left - right) / bend if bend < 0 else 0.0)
            y, x = centre[0] + radius * np.sin(turn[a]), centre[1] + radius * np.cos(turn[a])
            out.append([z[k], origin["y"] + y * step["y"], origin["x"] + x * step["x"]])
    return np.asarray(out, np.float64).reshape(-1, 3)


def fit_shell(points_um: Array, free_axial_scale: bool = True) -> ShellFit:
    """Fit a sphere, or a spheroid whose axial radius is free, robustly (soft L1, 0.3 um).

    Parameters
    ----------
    points_um : ndarray, shape (points, 3)
        As from `wall_points`.
    free_axial_scale : bool
        Whether the axial radius is a parameter of its own.
    """
    found = _fit(points_um, free_axial_scale)
    error = 0.0
    if free_axial_scale:
        away = points_um[:, 1:] - found[1:3]
        sector = ((np.arctan2(away[:, 0], away[:, 1]) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
        left_out = [1 / _fit(points_um[sector != s], True)[4] for s in range(SECTORS)]
        error = float(np.sqrt((SECTORS - 1) / SECTORS * ((left_out - np.mean(left_out)) ** 2).sum()))
    misfit = _distances(points_um, found) - found[3]
    return ShellFit(
        centre_um=(float(found[0]), float(found[1]), float(found[2])),
        radius_um=float(found[3]),
        axial_scale=float(1 / found[4]),
        axial_scale_error=error,
        rms=float(np.sqrt((misfit**2).mean()) / found[3]),
    )


def shell_figures(volume: xr.DataArray) -> dict[str, float]:
    """Return the fits of a reconstructed shell, JSON-ready."""
    points = wall_points(volume)
    free, sphere = fit_shell(points), fit_shell(points, free_axial_scale=False)
    return {
        "axial_scale": free.axial_scale,
        "axial_scale_error": free.axial_scale_error,
        "rms": free.rms,
        "rms_of_a_sphere": sphere.rms,
        "radius_um": free.radius_um,
        "height_um": free.centre_um[0],
    }


def _distances(points_um: Array, q: Array) -> Array:
    return np.asarray(np.linalg.norm((points_um - q[:3]) / [q[4], 1, 1], axis=1))


def _fit(points_um: Array, free: bool) -> Array:
    middle = points_um[:, 1:].mean(0)
    radius = float(np.median(np.linalg.norm(points_um[:, 1:] - middle, axis=1)))
    start = np.array([0.0, *middle, 1.05 * radius, 1.0])
    n = 5 if free else 4

    def misfit(q: Array) -> Array:
        full = np.append(q, 1.0)[:5]
        return np.asarray(_distances(points_um, full) - full[3])

    low = np.array([-np.inf, -np.inf, -np.inf, 0.3 * radius, 0.3])
    high = np.array([np.inf, np.inf, np.inf, 4 * radius, 3.0])
    solved = least_squares(misfit, start[:n], bounds=(low[:n], high[:n]), loss="soft_l1", f_scale=0.3)
    return np.append(solved.x, 1.0)[:5]
