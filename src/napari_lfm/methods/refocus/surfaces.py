"""Surfaces to refocus onto: heights from the image's plane, in micrometres of focus drive, pixel by pixel.

Pixel (0, 0) lies at y = x = 0 um.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import RBFInterpolator, RectBivariateSpline
from scipy.ndimage import zoom
from scipy.spatial.distance import pdist

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

UNITS_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "mm": 1e3}
MOST_POINTS = 2000
STEEPEST_DEG = 80.0
_SAME_ASPECT = 0.02
_COARSE = 128
_LEAST_WIDTH = 0.01
"""Width over length of the points below which they lie on a line."""


def tilted(
    shape: tuple[int, int],
    pixel_um: float,
    z_um: float = 0.0,
    tilt_x_deg: float = 0.0,
    tilt_y_deg: float = 0.0,
) -> np.ndarray:
    """Return a tilted plane.

    Parameters
    ----------
    shape : tuple of int
        (y, x).
    pixel_um : float
    z_um : float
        At the image's centre.
    tilt_x_deg, tilt_y_deg : float
        Between plane and image, along x and y; z rises with the coordinate where they are positive.

    Returns
    -------
    ndarray, shape (y, x), float32

    Raises
    ------
    RequestError
        If an angle is above `STEEPEST_DEG`.
    """
    if not max(abs(tilt_x_deg), abs(tilt_y_deg)) <= STEEPEST_DEG:
        raise RequestError(
            f"A tilt of {tilt_x_deg:g} and {tilt_y_deg:g} degrees is no surface across the image.",
            f"Give angles within {STEEPEST_DEG:g} degrees.",
        )
    rows, columns = (pixel_um * (np.arange(n) - (n - 1) / 2) for n in shape)
    y, x = rows * np.tan(np.deg2rad(tilt_y_deg)), columns * np.tan(np.deg2rad(tilt_x_deg))
    return np.asarray(z_um + y[:, None] + x, np.float32)


def through_points(
    points_um: ArrayLike, shape: tuple[int, int], pixel_um: float, smoothing: float = 0.0
) -> np.ndarray:
    """Return the plane through three points, or the thin-plate spline through more.

    Parameters
    ----------
    points_um : array, shape (n, 3)
        z, y, x.
    shape : tuple of int
        (y, x).
    pixel_um : float
    smoothing : float
        0: through every point; else points may be missed, by more the larger it is.

    Returns
    -------
    ndarray, shape (y, x), float32

    Raises
    ------
    RequestError
        If there are fewer than three points, two in one place, all on a line, or values that are no numbers.
    """
    points = checked_points(points_um, pixel_um)
    if smoothing < 0:
        raise RequestError(f"A smoothing of {smoothing:g} is none.", "Give 0 or more.")
    rows, columns = (pixel_um * np.arange(n) for n in shape)
    if len(points) == 3:
        matrix = np.column_stack([np.ones(3), points[:, 1:]])
        level, along_y, along_x = np.linalg.solve(matrix, points[:, 0])
        return np.asarray(level + along_y * rows[:, None] + along_x * columns, np.float32)
    # scaled, so that the smoothing means the same in small and large fields
    middle, size = points[:, 1:].mean(0), float(np.ptp(points[:, 1:], axis=0).max())
    spline = RBFInterpolator(
        (points[:, 1:] - middle) / size, points[:, 0], smoothing=smoothing, kernel="thin_plate_spline"
    )
    # smooth on the scale of the points: asked for on a coarser grid where the image is large
    coarse = [np.linspace(0, line[-1], min(len(line), _COARSE)) for line in (rows, columns)]
    at = np.stack(np.meshgrid(*coarse, indexing="ij"), -1).reshape(-1, 2)
    heights = spline((at - middle) / size).reshape(len(coarse[0]), len(coarse[1]))
    if heights.shape != tuple(shape):
        orders = [min(3, len(line) - 1) for line in coarse]
        heights = RectBivariateSpline(*coarse, heights, kx=orders[0], ky=orders[1])(rows, columns)
    return np.asarray(heights, np.float32)


def checked_points(points_um: ArrayLike, pixel_um: float) -> np.ndarray:
    """Return points (n, 3) that span a surface.

    Raises
    ------
    RequestError
        See `through_points`.
    """
    points = np.asarray(points_um, float)
    if points.size == 0:
        points = points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise RequestError("The points are no list of z, y, x.", "Give three numbers for each, um.")
    if not np.isfinite(points).all():
        raise RequestError("A point has a coordinate that is no number.", "Correct or remove it.")
    if len(points) < 3:
        count = "one point is" if len(points) == 1 else f"{len(points) or 'no'} points are"
        raise RequestError(
            f"A surface needs three points or more, and {count} given.",
            "Add points at places whose focus you know.",
        )
    if len(points) > MOST_POINTS:
        raise RequestError(
            f"{len(points)} points are more than the {MOST_POINTS} that a spline is drawn through.",
            "Give fewer, or a height map.",
        )
    places = points[:, 1:]
    if float(pdist(places).min()) < pixel_um / 2:
        raise RequestError(
            "Two points lie at the same place in the image.", "A surface has one height there: remove one."
        )
    length, width = np.linalg.svd(places - places.mean(0), compute_uv=False)
    if width < _LEAST_WIDTH * length:
        raise RequestError(
            "All points lie on one line: they do not say how the surface is tilted across it.",
            "Add a point beside the line.",
        )
    return points


def height_map(values: ArrayLike, shape: tuple[int, int], pixel_um: float, unit: str = "um") -> np.ndarray:
    """Return a map of heights on the pixels of an image.

    Parameters
    ----------
    values : array, shape (y, x)
        Of another shape but the same aspect ratio: resampled.
    shape : tuple of int
        Of the image, (y, x).
    pixel_um : float
        Of the image.
    unit : {"nm", "um", "mm"}

    Returns
    -------
    ndarray, shape (y, x), float32

    Raises
    ------
    RequestError
        If it is no flat map of numbers, has another aspect ratio, or the unit is unknown.
    """
    if unit not in UNITS_UM:
        raise RequestError(f"Heights in '{unit}' are not known.", "Give them in nm, um or mm.")
    heights = np.squeeze(np.asarray(values))
    if heights.ndim != 2 or heights.dtype.kind not in "biuf" or min(heights.shape) < 2:
        raise RequestError(
            f"A height map of shape {np.shape(values)} is no map (y, x) of numbers.",
            "Give one grey image whose values are heights.",
        )
    heights = heights.astype(np.float32)
    bad = heights.size - int(np.count_nonzero(np.isfinite(heights)))
    if bad:
        raise RequestError(
            f"{bad} of {heights.size} values of the height map are no numbers.",
            "Fill the gaps, for example with the median of their neighbours.",
        )
    heights *= np.float32(UNITS_UM[unit])
    if heights.shape == tuple(shape):
        return heights
    if abs(heights.shape[0] / heights.shape[1] * shape[1] / shape[0] - 1) > _SAME_ASPECT:
        field = " x ".join(f"{n * pixel_um:.4g}" for n in shape)
        raise RequestError(
            f"The height map has {heights.shape[0]} x {heights.shape[1]} values and the image "
            f"{shape[0]} x {shape[1]} pixels ({field} um): they do not show the same field.",
            "Give a height map of the same field.",
        )
    factors = [n / m for n, m in zip(shape, heights.shape, strict=True)]
    made = zoom(heights, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(made, np.float32)
