"""Foreground and background of a light field: sources that stand out of haze and scattered light.

Views of a hazy specimen are nearly alike: as a matrix (views x lenslets) the haze has a low rank, while a
source moves from view to view and has not. Song et al. (IEEE Trans. Comput. Imaging 6, 1017 (2020)) take the
largest singular component for the background. Where few sources lie in little haze that component is
the brightest source itself; the default here fits the low rank to what lies below the sources
instead, and is the same where haze rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, percentile_filter

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

Way = Literal["robust", "largest", "none"]
_ROUNDS = 12
_ABOVE = 1.5
"""Values further above the background than this many times the noise are sources, and cut off."""
_GAUSSIAN = 1.4826


def split_background(field: np.ndarray, way: Way = "robust", rank: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the background and the foreground of a light field.

    Parameters
    ----------
    field : ndarray, shape (v, u, t, s)
        One frame; dark subtracted, divided by the white frame where there is one.
    way : {"robust", "largest", "none"}
        ``robust``: a low rank below the sources; ``largest``: the largest singular components, as
        published; ``none``: no background.
    rank : int
        Components.

    Returns
    -------
    background, foreground : ndarray, shape (v, u, t, s), float32
        Their sum is `field`, except where the foreground would be negative: there it is 0.

    Raises
    ------
    RequestError
        If the field holds values that are no numbers.
    """
    nv, nu, nt, ns = field.shape
    matrix = np.ascontiguousarray(field, np.float32).reshape(nv * nu, nt * ns)
    if not np.isfinite(matrix).all():
        raise RequestError("The light field holds values that are no numbers.", "Replace them, e.g. by 0.")
    if way == "none":
        low = np.zeros_like(matrix)
    elif way == "largest":
        low = _low_rank(matrix, rank)
    else:
        low = _below(matrix, rank)
    background = low.reshape(field.shape)
    return background, np.maximum(field - background, 0).astype(np.float32)


def smooth_background(background: np.ndarray, body_lenslets: float) -> np.ndarray:
    """Return the part of a background that is wider than cell bodies.

    Where a source lies in the native plane all views show it in the same place, so that a low rank takes it
    for background. What is as small as a body is none.

    Parameters
    ----------
    background : ndarray, shape (v, u, t, s)
        From `split_background`.
    body_lenslets : float
        Diameter of a body.

    Returns
    -------
    ndarray, shape (v, u, t, s), float32
        How bright views are, times a smooth haze.
    """
    view, place = background.mean((2, 3)), background.mean((0, 1))
    size = max(5, 2 * round(1.8 * body_lenslets) + 1)
    low = percentile_filter(place, 20, size=size, mode="nearest")
    smooth = gaussian_filter(low, size / 4.5, mode="nearest", truncate=2)
    mean = float(view.mean())
    if mean <= 1e-3 * float(np.abs(view).max(initial=0.0)):
        # no haze to speak of (a little below 0 where the dark frame was): views are no brighter than others
        return np.asarray(np.broadcast_to(smooth, background.shape), np.float32)
    return np.asarray(view[:, :, None, None] * (smooth / mean), np.float32)


def noise_of(foreground: np.ndarray) -> float:
    """Return the standard deviation of the noise of a foreground, in its units.

    What is left of the noise is its upper half; a quarter of it lies below 0.32 standard deviations, and
    sources, which lie above, hardly move that.
    """
    positive = foreground[foreground > 0]
    if not positive.size:
        return 0.0
    step = max(1, positive.size // 100_000)
    return float(np.quantile(positive[::step], 0.25)) / 0.3186


def temporal_activity(movie: Iterable[np.ndarray]) -> np.ndarray:
    """Return what changes in a movie: the standard deviation over time of every pixel of every view.

    Active neurons stand out, whatever glows all the time does not.

    Parameters
    ----------
    movie : iterable of ndarray, shape (v, u, t, s)
        Frame by frame: two numbers for each pixel are all that is kept.

    Returns
    -------
    ndarray, shape (v, u, t, s), float32
        The noise, which every pixel has, is taken off: in quadrature, the median of all pixels.

    Raises
    ------
    RequestError
        If there is no frame.
    """
    count = 0
    mean: np.ndarray = np.zeros(())
    squares: np.ndarray = np.zeros(())
    for frame in movie:  # Welford's sums: no difference of large numbers
        count += 1
        away = np.asarray(frame, np.float64) - mean
        mean = mean + away / count
        squares = squares + away * (frame - mean)
    if not count:
        raise RequestError("The movie has no frames.", "Choose another file.")
    spread = np.sqrt(np.asarray(squares) / count).astype(np.float32)
    quiet = np.float32(np.median(spread))
    return np.asarray(np.sqrt(np.maximum(spread**2 - quiet**2, 0)))


def _below(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return a low rank that runs below what stands out: cut off, fit, and again."""
    # start from medians: over lenslets for the shading of the views, over views for the haze
    view = np.median(matrix, 1, keepdims=True)
    place = np.median(matrix, 0, keepdims=True)
    middle = float(np.median(view))
    low = view @ place / middle if abs(middle) > 1e-12 else np.broadcast_to(place, matrix.shape)
    for _ in range(_ROUNDS):
        excess = matrix - low
        noise = _GAUSSIAN * float(np.median(np.abs(excess - np.median(excess))))
        fitted = _low_rank(np.minimum(matrix, low + _ABOVE * noise), rank)
        moved = float(np.abs(fitted - low).max())
        low = fitted
        if moved < 0.02 * max(noise, 1e-12):
            break
    return np.asarray(low, np.float32)


def _low_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Return the largest singular components, by subspace iteration from the row means."""
    rank = min(rank, *matrix.shape)
    if rank == 1:
        right = matrix.mean(0)
        for _ in range(6):
            left = matrix @ right
            size = np.linalg.norm(left)
            if size < 1e-20:
                return np.zeros_like(matrix)
            left /= size
            right = left @ matrix
        return np.outer(left, right)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((left[:, :rank] * values[:rank]) @ right[:rank])
