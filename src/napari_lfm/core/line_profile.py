"""Intensity along a line between two points, and its full width at half maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_SAMPLES_PER_VOXEL = 4
_MOST_SAMPLES = 4000
_MARGIN_VOXELS = 8


@dataclass(frozen=True)
class LineProfile:
    """A profile and its widths.

    Attributes
    ----------
    distance_um : ndarray, shape (n,)
        From the first point.
    values : ndarray, shape (n,)
    fit : ndarray, shape (n,), or None
        The fitted Gaussian on its offset; None where none could be fitted.
    fwhm_gauss_um : float or None
        Of the fit.
    fit_r2 : float or None
        Share of the profile's variance that the fit explains: below 0.8 it is no Gaussian, trust no width.
    fwhm_crossing_um : float or None
        Between the places where the profile falls to half of its height, measured from its lowest value; None
        where it does not fall so far on both sides of its maximum. Noise makes it some percent too large.
    center_um : float or None
        Of the fit, from the first point.
    """

    distance_um: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    fit: npt.NDArray[np.float64] | None
    fwhm_gauss_um: float | None
    fit_r2: float | None
    fwhm_crossing_um: float | None
    center_um: float | None


def line_profile(
    image: npt.ArrayLike, start: Sequence[float], end: Sequence[float], voxel_um: Sequence[float]
) -> LineProfile:
    """Return the intensity between two points, by cubic interpolation, and its full width at half maximum.

    Parameters
    ----------
    image : array, shape (z, y, x) or (y, x)
    start, end : sequence of float
        Indices along every axis, fractions too; voxel centres are whole numbers.
    voxel_um : sequence of float
        Of every axis, micrometres.

    Raises
    ------
    RequestError
        If the points lie outside, upon each other, or the image holds NaN along the line.
    """
    from scipy.ndimage import map_coordinates

    data = np.asarray(image)
    a, b, size = (np.asarray(v, np.float64).ravel() for v in (start, end, voxel_um))
    if data.ndim not in (2, 3) or not len(a) == len(b) == len(size) == data.ndim:
        raise RequestError(
            f"A profile through an image of {data.ndim} axes needs two points and a voxel size with as many "
            "numbers, in a plane or a volume."
        )
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise RequestError("A profile needs voxel sizes in micrometres that are above 0.", "Give them.")
    if not all(
        np.isfinite(p).all() and (p >= -0.5).all() and (p <= np.array(data.shape) - 0.5).all() for p in (a, b)
    ):
        raise RequestError(
            "The profile leaves the image.",
            f"Give points within 0 and {', '.join(str(n - 1) for n in data.shape)} voxels along "
            f"{', '.join('zyx'[-data.ndim :])}.",
        )
    length = float(np.linalg.norm((b - a) * size))
    voxels = float(np.linalg.norm(b - a))
    if voxels < 2:
        raise RequestError("The two points of the profile are closer than two voxels.", "Draw a longer line.")
    samples = int(np.clip(np.ceil(_SAMPLES_PER_VOXEL * voxels), 9, _MOST_SAMPLES)) + 1
    at = a[:, None] + (b - a)[:, None] * np.linspace(0, 1, samples)
    # only what the line runs through is interpolated: spline coefficients of all of it would take long
    low = np.maximum(np.floor(np.minimum(a, b)).astype(int) - _MARGIN_VOXELS, 0)
    high = np.ceil(np.maximum(a, b)).astype(int) + _MARGIN_VOXELS + 1
    part = np.asarray(data[tuple(slice(i, j) for i, j in zip(low, high, strict=True))], np.float64)
    if not np.isfinite(part).all():
        raise RequestError("The image holds NaN or infinite values near the profile.", "Replace them first.")
    values = map_coordinates(part, at - low[:, None], order=3, mode="nearest")
    return measured(np.linspace(0.0, length, samples), values)


def measured(distance_um: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> LineProfile:
    """Return a profile with its widths: a bright peak is looked for.

    Parameters
    ----------
    distance_um, values : ndarray, shape (n,)
    """
    crossing = half_maximum_width(distance_um, values)
    fitted = _fit_gaussian(distance_um, values, crossing)
    if fitted is None:
        return LineProfile(distance_um, values, None, None, None, crossing, None)
    fit, sigma, center = fitted
    spread = float(((values - values.mean()) ** 2).sum())
    r2 = 1 - float(((values - fit) ** 2).sum()) / spread
    return LineProfile(distance_um, values, fit, sigma * _FWHM_PER_SIGMA, r2, crossing, center)


def half_maximum_width(distance_um: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float | None:
    """Return the distance of the two places around the maximum where a profile has half of its height.

    Height is measured from the lowest value; between samples the profile is taken to be straight. None where
    it does not fall to one half on both sides.
    """
    top = int(np.argmax(values))
    half = 0.5 * (float(values.max()) + float(values.min()))
    if not float(np.ptp(values)) > 1e-9 * max(abs(half), 1e-300):
        return None
    below = values < half
    left, right = np.flatnonzero(below[:top]), np.flatnonzero(below[top:])
    if not len(left) or not len(right):
        return None

    def between(inner: int, outer: int) -> float:
        share = (values[inner] - half) / (values[inner] - values[outer])
        return float(distance_um[inner] + share * (distance_um[outer] - distance_um[inner]))

    return between(top + right[0] - 1, top + right[0]) - between(left[-1] + 1, left[-1])


def _fit_gaussian(
    s: npt.NDArray[np.float64], values: npt.NDArray[np.float64], width: float | None
) -> tuple[npt.NDArray[np.float64], float, float] | None:
    from scipy.optimize import least_squares

    span = float(np.ptp(values))
    length = float(s[-1])
    if not span > 1e-9 * max(float(np.abs(values).max()), 1e-300):
        return None
    level = (values - values.min()) / span

    def model(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        out: npt.NDArray[np.float64] = p[0] * np.exp(-0.5 * ((s - p[1]) / p[2]) ** 2) + p[3]
        return out

    begin = np.array([1.0, s[int(np.argmax(level))], (width or length / 3) / _FWHM_PER_SIGMA, 0.0])
    least, most = length / len(s) / 4, length
    bounds = ([0.0, 0.0, least, -2.0], [5.0, length, most, 1.0])
    begin[2] = np.clip(begin[2], 2 * least, most / 2)
    begin[1] = np.clip(begin[1], 1e-6 * length, (1 - 1e-6) * length)
    found = least_squares(lambda p: model(p) - level, begin, bounds=bounds)
    if not found.success or found.x[0] < 1e-3:
        return None
    return model(found.x) * span + values.min(), float(found.x[2]), float(found.x[1])
