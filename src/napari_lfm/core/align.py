"""Bringing two images on one grid to lie upon each other, to fractions of a voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.core.fourier import LEAST_SAMPLES, checked, middle
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UPSAMPLING = 20
"""Shifts are found to one part in this of a voxel."""

_LEAST_CORRELATION = 0.05


@dataclass(frozen=True)
class Alignment:
    """A shift, and both images after it.

    Attributes
    ----------
    shift_voxels : tuple of float
        That the image was moved by, along every axis, to lie upon the reference.
    shift_um : tuple of float
    image, reference : ndarray, float32
        The part of the grid that both cover.
    part : tuple of slice
        That part of the reference's grid.
    correlation : float
        Pearson's, of both after the shift.
    """

    shift_voxels: tuple[float, ...]
    shift_um: tuple[float, ...]
    image: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]
    part: tuple[slice, ...]
    correlation: float


def find_shift(
    image: npt.ArrayLike,
    reference: npt.ArrayLike,
    upsampling: int = UPSAMPLING,
    on_step: Callable[[float], None] | None = None,
) -> tuple[float, ...]:
    """Return the shift (voxels) that brings an image onto a reference of the same shape.

    Cross-correlation whose peak is refined on a finer grid (Guizar-Sicairos et al., Optics Letters 33, 156,
    2008; from scikit-image), not normalised by frequency, as most frequencies of a blurred image are noise.
    The windows pull towards no shift, so it is done again from where the first one led.

    Parameters
    ----------
    image, reference : array, shape (z, y, x) or (y, x)
    upsampling : int
        Parts of a voxel.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.
    """
    from skimage.registration import phase_cross_correlation

    a, b = (np.asarray(v, np.float32) for v in (image, reference))
    part = middle(b.shape)
    window = _window(tuple(p.stop - p.start for p in part))
    fixed = _prepared(b[part], window)
    total = np.zeros(a.ndim)
    for turn in range(3):
        if on_step is not None:
            on_step(turn / 3)
        whole = np.rint(total).astype(int)
        moved = _prepared(_rolled(a, whole)[part], window)
        rest, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
            fixed, moved, upsample_factor=1 if turn == 0 else upsampling, normalization=None
        )
        total = whole + np.asarray(rest, float)
    return tuple(float(t) for t in total)


def align(
    image: npt.ArrayLike,
    reference: npt.ArrayLike,
    voxel_um: Sequence[float],
    *,
    upsampling: int = UPSAMPLING,
    on_step: Callable[[float], None] | None = None,
) -> Alignment:
    """Move an image onto a reference by a fraction of a voxel, and cut both to what they share.

    Parameters
    ----------
    image, reference : array, shape (z, y, x) or (y, x)
        On one grid.
    voxel_um : sequence of float
        Of every axis, micrometres.
    upsampling : int
        Shifts are found to one part in this of a voxel.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        If the shapes differ, an image cannot be measured (see `fourier.checked`), the two have nothing in
        common, or would hardly overlap.
    """
    from scipy.ndimage import shift as move

    a = checked(image, voxel_um, "The image to align")
    b = checked(reference, voxel_um, "The reference")
    if a.shape != b.shape:
        raise RequestError(
            f"The two images have shapes {a.shape} and {b.shape}.", "Bring them onto one grid first."
        )
    sizes = tuple(float(v) for v in voxel_um)[-a.ndim :]
    tell = on_step or (lambda share: None)
    shift = find_shift(a, b, upsampling, lambda share: tell(0.7 * share))
    tell(0.7)
    part = []
    for s, n in zip(shift, a.shape, strict=True):
        start, stop = max(0, int(np.ceil(s - 1e-6))), min(n, n + int(np.floor(s + 1e-6)))
        if stop - start < max(LEAST_SAMPLES, n // 4):
            raise RequestError(
                "The two images share too little to be aligned.", "Check that they show the same place."
            )
        part.append(slice(start, stop))
    box = tuple(part)
    moved, fixed = np.asarray(a, np.float32), np.asarray(b, np.float32)[box]
    if max(map(abs, shift)) > 1e-6:
        moved = np.asarray(move(moved, shift, order=3, mode="nearest"), np.float32)
    moved = moved[box]
    found = 0.0
    if np.ptp(moved) and np.ptp(fixed):
        found = float(np.corrcoef(moved.ravel(), fixed.ravel())[0, 1])
    if not found > _LEAST_CORRELATION:
        raise RequestError(
            "The two images have nothing in common that they could be aligned by.",
            "Check that they show the same sample, or compare them as they are.",
        )
    shift_um = tuple(s * v for s, v in zip(shift, sizes, strict=True))
    return Alignment(shift, shift_um, moved, fixed, box, found)


def _prepared(data: npt.NDArray[Any], window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    out = np.asarray(data - data.mean(dtype=np.float64), np.float32) * window
    # the squared sums of 16-bit volumes are too much for float32
    return out / max(float(np.abs(out).max()), 1e-30)


def _window(shape: Sequence[int]) -> npt.NDArray[np.float32]:
    out = np.ones((1,) * len(shape), np.float32)
    for axis, n in enumerate(shape):
        one = np.sin(np.pi * (np.arange(n) + 0.5) / n).astype(np.float32)
        out = out * one.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return out


def _rolled(data: npt.NDArray[Any], shift: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Shift by whole voxels; what comes in at a border is its last value."""
    if not shift.any():
        return data
    index = [np.clip(np.arange(n) - s, 0, n - 1) for n, s in zip(data.shape, shift, strict=True)]
    return data[np.ix_(*index)]
