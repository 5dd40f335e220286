"""Sharpness against depth: how much of the contrast of a stack is left in every plane.

The measure of Fig. 5b of the WFCON-Net paper (Optica Publishing Group, 2021): the gradient
``|dI/dx| + |dI/dy|`` in patches of 32 x 32 pixels, and in every plane the patch with the largest one (signal)
and with the smallest one (background). Sharpness of the signal that falls along z tells of scattering and
haze; the ratio of both does so for stacks whose noise differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

PATCH_PX = 32
"""Edge of a patch, pixels (the paper's)."""

PERCENTILES = (1.0, 99.9)
"""Values of a stack that become 0 and 1 before gradients are taken: the same two for every stack."""

_SAMPLED_VALUES = 2_000_000


@dataclass(frozen=True)
class Sharpness:
    """Sharpness of every plane of a stack.

    Attributes
    ----------
    signal, background : ndarray, shape (planes,)
        Mean gradient per pixel of the sharpest and of the flattest patch, in units of the stack's
        range between `PERCENTILES`.
    limits : tuple of float
        The grey values that became 0 and 1.
    """

    signal: np.ndarray
    background: np.ndarray
    limits: tuple[float, float]

    @property
    def ratio(self) -> np.ndarray:
        """Signal over background per plane; NaN where the background has no gradient at all."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray = np.where(self.background > 0, self.signal / self.background, np.nan)
        return ratio


def sharpness_by_depth(
    stack: Any,
    *,
    patch_px: int = PATCH_PX,
    percentiles: tuple[float, float] = PERCENTILES,
    on_plane: Callable[[float], None] | None = None,
) -> Sharpness:
    """Return the sharpness of every plane of a stack.

    Parameters
    ----------
    stack : array, shape (z, y, x)
        numpy or dask; one plane at a time is computed.
    patch_px : int
        Edge of a patch. Patches that would reach beyond the image are left out; an image smaller than
        one patch is one patch.
    percentiles : tuple of float
        Grey values at these percentiles of the whole stack become 0 and 1 (without cutting), so that
        stacks of different units can be compared. Two million evenly taken voxels stand for the stack.
    on_plane : callable, optional
        Called with the share that is done before every plane; an exception in it ends the computation.

    Returns
    -------
    Sharpness

    Raises
    ------
    RequestError
        If the stack is not three-dimensional, has NaN, or is constant.
    """
    if len(stack.shape) != 3 or min(stack.shape[1:]) < 2:
        raise RequestError(
            f"Sharpness against depth needs a stack (z, y, x), not an image of {_sizes(stack.shape)}.",
            "Choose a stack.",
        )
    limits = grey_limits(stack, percentiles)
    span = limits[1] - limits[0]
    planes = int(stack.shape[0])
    signal, background = np.empty(planes), np.empty(planes)
    for k in range(planes):
        if on_plane is not None:
            on_plane(k / planes)
        patches = patch_gradients(np.asarray(stack[k], np.float32), patch_px) / span
        signal[k], background[k] = patches.max(), patches.min()
    return Sharpness(signal, background, limits)


def patch_gradients(plane: np.ndarray, patch_px: int = PATCH_PX) -> np.ndarray:
    """Return the mean of ``|dI/dx| + |dI/dy|`` in every whole patch of a plane.

    Parameters
    ----------
    plane : ndarray, shape (y, x)
    patch_px : int

    Returns
    -------
    ndarray, shape (rows, columns)
        Grey values per pixel. Differences are those to the next pixel; the last one of a row and of a
        column has none and counts 0 (it does so in every stack alike).
    """
    if patch_px < 2:
        raise RequestError("A patch must be at least 2 pixels wide.", "The paper's is 32.")
    plane = np.asarray(plane, np.float32)
    steps = np.zeros(plane.shape, np.float32)
    steps[:, :-1] += np.abs(np.diff(plane, axis=1))
    steps[:-1] += np.abs(np.diff(plane, axis=0))
    high, wide = (min(patch_px, n) for n in plane.shape)
    rows, columns = plane.shape[0] // high, plane.shape[1] // wide
    whole = steps[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
    out: np.ndarray = whole.mean(axis=(1, 3), dtype=np.float64)
    return out


def grey_limits(stack: Any, percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Return the grey values of a stack at two percentiles, from about two million even samples.

    Raises
    ------
    RequestError
        If there are NaN or infinite values, or the stack is constant.
    """
    sample = sampled(stack)
    if not np.isfinite(sample).all():
        raise RequestError("The stack contains NaN or infinite values.", "Replace them first.")
    low, high = (float(v) for v in np.percentile(sample, percentiles))
    if high <= low:  # a few bright points on nothing
        low, high = float(sample.min()), float(sample.max())
    if high <= low:
        raise RequestError("The stack is constant, so there is nothing to be sharp.", "Choose another one.")
    return low, high


def sampled(stack: Any, most: int = _SAMPLED_VALUES) -> np.ndarray:
    """Return at most about `most` voxels of a stack as float: every n-th row and column of all planes."""
    size = int(np.prod(stack.shape))
    every = max(1, int(np.ceil(size / most)))
    if every == 1:
        return np.asarray(stack, np.float32)
    rows = max(1, int(np.sqrt(every)))
    columns = max(1, int(np.ceil(every / rows)))
    return np.asarray(stack[..., ::rows, ::columns], np.float32)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
