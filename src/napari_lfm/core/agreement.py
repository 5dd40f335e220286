"""Where two stacks of one sample disagree: a network and a deconvolution, or either and the truth.

They have different units and backgrounds, so one is first brought to the other's scale: the darkest part of
each becomes 0, and one factor is fitted that makes them agree in as much of the signal as possible. Then, in
small windows, the difference is held against the level of both: ``(a - b) / max((|a| + |b|) / 2, floor)``.
It is 0 where they agree, +0.1 where the first is 10 % brighter, and at most 2, where only one has anything.
The floor keeps the dark from being divided by nothing: below it, errors count against the floor itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.core.sharpness import sampled

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_PX = 5
"""Edge of the window in which both are averaged, pixels of a plane."""

BACKGROUND_PERCENTILE = 10.0
"""Grey value that counts as no light at all."""

BRIGHT_PERCENTILE = 99.9
FLOOR_SHARE = 0.1
"""Signal is what reaches this share of the brightest (at `BRIGHT_PERCENTILE`) in either stack."""


@dataclass(frozen=True)
class Agreement:
    """How far two stacks agree.

    Attributes
    ----------
    error : ndarray, shape (z, y, x), float32
        Signed local difference, -2 to 2; positive where the first stack has more.
    scale, offset : float
        ``scale * first + offset`` is on the second's scale; `floor` and levels are, too.
    floor : float
        Light above the second's background from which on a voxel counts as signal.
    signal_share : float
        Part of all voxels that are signal.
    within : mapping of float to float
        Part of the signal's voxels whose error is at most this.
    more, less : float
        Part of the signal where the first stack has over half more, and over half less, than both on average.
    """

    error: np.ndarray
    scale: float
    offset: float
    floor: float
    signal_share: float
    within: dict[float, float]
    more: float
    less: float


def local_disagreement(
    first: Any,
    second: Any,
    *,
    window_px: int = WINDOW_PX,
    levels: tuple[float, ...] = (0.1, 0.25, 0.5),
    on_plane: Callable[[float], None] | None = None,
) -> Agreement:
    """Return the local normalised difference of two stacks on one grid, and how much of them agrees.

    Parameters
    ----------
    first, second : array, shape (z, y, x)
        numpy or dask, of the same shape; computed plane by plane.
    window_px : int
        Both are averaged over this many pixels along y and x first, so that noise and a difference in
        sharpness below that count less than light in another place. 1 compares pixels.
    levels : tuple of float
        Errors up to which the share of the signal is counted.
    on_plane : callable, optional
        Called with the share that is done before every plane; an exception in it ends the computation.

    Returns
    -------
    Agreement

    Raises
    ------
    RequestError
        If the shapes differ, there is NaN, or one of the stacks has no light.
    """
    from scipy.ndimage import uniform_filter

    if tuple(first.shape) != tuple(second.shape):
        raise RequestError(
            f"The stacks have shapes {tuple(first.shape)} and {tuple(second.shape)}.",
            "Bring them onto one grid first.",
        )
    if len(first.shape) != 3:
        raise RequestError("An error map needs two stacks (z, y, x).", "Choose stacks.")
    scale, offset, base, floor = match_scale(first, second)
    error = np.empty(first.shape, np.float32)
    edges = (-np.inf, *sorted(levels), np.inf)
    counts = np.zeros(len(edges) - 1)
    more = less = signal = 0
    planes = int(first.shape[0])
    for k in range(planes):
        if on_plane is not None:
            on_plane(k / planes)
        a = uniform_filter(scale * np.asarray(first[k], np.float32) + (offset - base), window_px)
        b = uniform_filter(np.asarray(second[k], np.float32) - base, window_px)
        level = 0.5 * (np.abs(a) + np.abs(b))
        error[k] = (a - b) / np.maximum(level, floor)
        lit = error[k][np.maximum(a, b) >= floor]
        if not np.isfinite(error[k]).all():
            raise RequestError("The stacks contain NaN or infinite values.", "Replace them first.")
        counts += np.histogram(np.abs(lit), edges)[0]
        more, less = more + int((lit > 0.5).sum()), less + int((lit < -0.5).sum())
        signal += lit.size
    total = max(signal, 1)
    within = {e: float(n) / total for e, n in zip(sorted(levels), np.cumsum(counts), strict=False)}
    return Agreement(error, scale, offset, floor, signal / error.size, within, more / total, less / total)


def match_scale(first: Any, second: Any) -> tuple[float, float, float, float]:
    """Return what brings `first` to the scale of `second`, from about two million voxels.

    The factor minimises the sum of absolute differences above both backgrounds (a weighted median of
    ratios): what one of them lacks altogether does not drag it, as it would in least squares.

    Returns
    -------
    scale, offset : float
        ``scale * first + offset`` compares with `second`.
    base : float
        Background of `second`.
    floor : float
        From this much above `base` on a voxel is signal.

    Raises
    ------
    RequestError
        If one of them has NaN or no light above its background.
    """
    x, y = sampled(first).ravel().astype(float), sampled(second).ravel().astype(float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise RequestError("The stacks contain NaN or infinite values.", "Replace them first.")
    dark = [float(np.percentile(v, BACKGROUND_PERCENTILE)) for v in (x, y)]
    bright = [float(np.percentile(v, BRIGHT_PERCENTILE)) for v in (x, y)]
    # a few points on nothing: their peak tells, not a percentile
    bright = [b if b > d else float(v.max()) for b, d, v in zip(bright, dark, (x, y), strict=True)]
    if any(b <= d for b, d in zip(bright, dark, strict=True)):
        raise RequestError(
            "One of the stacks is constant, so nothing can be compared.", "Choose another one."
        )
    x, y = (x - dark[0]) / (bright[0] - dark[0]), (y - dark[1]) / (bright[1] - dark[1])
    lit = (np.maximum(x, y) >= FLOOR_SHARE) & (x > 0)
    factor = _weighted_median(y[lit] / x[lit], x[lit]) if lit.any() else 1.0
    if factor <= 0:  # they share nothing: peaks are then the only thing to go by
        factor = 1.0
    scale = factor * (bright[1] - dark[1]) / (bright[0] - dark[0])
    return scale, dark[1] - scale * dark[0], dark[1], FLOOR_SHARE * (bright[1] - dark[1])


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    mass = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(mass, mass[-1] / 2)])


def agreement_words(found: Agreement, first: str, second: str) -> str:
    """Return in one or two sentences how far two stacks agree.

    Examples
    --------
    >>> import numpy as np
    >>> half = Agreement(np.zeros((1, 1, 1)), 1.0, 0.0, 1.0, 0.25, {0.1: 0.83}, 0.04, 0.01)
    >>> agreement_words(half, "network", "deconvolution")
    'network agrees with deconvolution within 10 % in 83 % of the signal (25 % of all voxels). It has much \
more light in 4 % of it, and much less in 1 %.'
    """
    level, share = min(found.within.items())
    return (
        f"{first} agrees with {second} within {100 * level:.0f} % in {100 * share:.0f} % of the signal "
        f"({100 * found.signal_share:.0f} % of all voxels). It has much more light in "
        f"{100 * found.more:.0f} % of it, and much less in {100 * found.less:.0f} %."
    )
