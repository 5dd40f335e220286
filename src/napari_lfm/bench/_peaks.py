"""Where the brightest spot of a volume is, and how wide: Gaussian fits along each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from napari_lfm.core.labelled import affine_of, spacing_of

if TYPE_CHECKING:
    import xarray as xr

Array = npt.NDArray[np.float64]
FWHM = 2 * np.sqrt(2 * np.log(2))
REACH = {"z": 4, "y": 4, "x": 4}
"""Voxels on either side of the peak that a fit sees."""
SIDE = 1
"""Voxels on either side over which the two other axes are summed."""


@dataclass(frozen=True)
class Peak:
    """One spot.

    Attributes
    ----------
    place_um : tuple of float
        (z, y, x) of the fitted maximum, world coordinates.
    fwhm_um : tuple of float
        Full width at half maximum (z, y, x).
    """

    place_um: tuple[float, float, float]
    fwhm_um: tuple[float, float, float]


def brightest_peak(volume: xr.DataArray) -> Peak:
    """Find the brightest voxel and fit a Gaussian on a constant along each axis through it.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x`` with micrometre coordinates.
    """
    data = np.asarray(volume.values, np.float64)
    top = [int(i) for i in np.unravel_index(int(np.argmax(data)), data.shape)]
    step = spacing_of(volume)
    index, widths = [], []
    for axis, dim in enumerate("zyx"):
        near = [slice(max(0, t - SIDE), t + SIDE + 1) for t in top]
        first = max(0, top[axis] - REACH[dim])
        near[axis] = slice(first, top[axis] + REACH[dim] + 1)
        profile = data[tuple(near)].sum(tuple(a for a in range(3) if a != axis))
        centre, fwhm = gaussian_of(profile)
        index.append(first + centre)
        widths.append(fwhm * step[dim])
    world = affine_of(volume) @ np.array([*index, 1.0])
    return Peak(
        (float(world[0]), float(world[1]), float(world[2])),
        (float(widths[0]), float(widths[1]), float(widths[2])),
    )


def gaussian_of(profile: npt.ArrayLike) -> tuple[float, float]:
    """Return (centre, full width at half maximum) of a peaked profile, in samples.

    A profile whose peak lies at its end, as that of a bead at the last plane of a volume, is fitted
    as well; the centre may then be up to one sample outside.
    """
    values = np.asarray(profile, np.float64)
    values = values / max(float(values.max()), 1e-30)
    at = np.arange(len(values), dtype=np.float64)
    top = int(np.argmax(values))
    wide = max(1.0, float((values > 0.5).sum()))
    low = [0.2, -1.0, 0.3, 0.0]
    high = [5.0, len(values), float(len(values)), 0.5]
    guess = np.clip([1.0, float(top), wide / FWHM, float(np.clip(values.min(), 0, 0.4))], low, high)
    solved = least_squares(lambda q: _gaussian(at, *q) - values, guess, bounds=(low, high))
    if not solved.success:  # the crossings of the half maximum still tell both
        return float(top), wide
    return float(solved.x[1]), float(solved.x[2] * FWHM)


def _gaussian(at: Array, height: float, centre: float, sigma: float, ground: float) -> Array:
    return np.asarray(ground + height * np.exp(-0.5 * ((at - centre) / sigma) ** 2))
