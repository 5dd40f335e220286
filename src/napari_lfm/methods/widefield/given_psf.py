"""A point spread function that the user gives, a recorded bead or a finished one, on the data's voxels."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter, label, map_coordinates

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.confocal_psf import measured_psf

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.widefield.frames import StackInfo

Voxel = tuple[float, float, float]

_LEAST_SHARE = 1e-4
"""What stands round a measured point with less of its peak than this is cut away."""
_LEAST_SIGMAS = 5.0
_DARK = 0.01
"""A finished one has less than this share of its light in a level like that of its rim."""
_ALIKE = 1e-3

_kept: OrderedDict[tuple[Any, ...], ChosenPsf] = OrderedDict()
_MOST_KEPT = 4


@dataclass(frozen=True)
class ChosenPsf:
    """A point spread function on the data's voxels, and what was done to get it.

    Attributes
    ----------
    values : ndarray, shape (z, y, x), float32
        The point is in the middle; sizes are odd.
    notes : tuple of str
    """

    values: np.ndarray
    notes: tuple[str, ...]


def given_psf(psf: xr.DataArray, info: StackInfo, kind: str = "auto") -> ChosenPsf:
    """Return a point spread function that the user gives, on the data's voxels.

    Raises
    ------
    RequestError
        If it has other axes than the data, holds no point, or negative values or no numbers.
    """
    values, voxel, notes = _opened(psf, info)
    # asked for by every look at a request; a few sums tell whether it is still the same
    marks = (float(values.sum()), float(values.max()), float(values.ravel()[::97].sum()))
    turned = tuple(spacing_of(psf).get(d, 1.0) < 0 for d in "zyx"), info.falling
    key = (values.shape, marks, voxel, kind, info.shape, info.voxel_um, info.flat, turned, tuple(notes))
    if key not in _kept:
        _kept[key] = _prepared(values, voxel, notes, info, kind)
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return _kept[key]


def _prepared(values: np.ndarray, voxel: Voxel, notes: list[str], info: StackInfo, kind: str) -> ChosenPsf:
    rim = np.concatenate([np.take(values, (0, -1), axis).ravel() for axis in (1, 2)])
    finished = kind == "given" or (kind == "auto" and _is_finished(values, rim))
    if finished:
        out, more = _finished(values, voxel, info.voxel_um)
    elif len(values) == 1:
        out, more = _finished(np.maximum(values - np.median(rim), 0), voxel, info.voxel_um)
        more = ["its background was taken off", *more]
    else:
        out = _trimmed(measured_psf(values, voxel, info.voxel_um))
        more = ["its background was taken off and the bead put in the middle"]
        if not _same(voxel, info.voxel_um):
            more.append(_resampled_note(voxel, info.voxel_um))
    out, cut = _cut(out, info.shape)
    more += cut
    if more:
        notes.append(f"The point spread function: {'; '.join(more)}.")
    return ChosenPsf(normal(out), tuple(notes))


def _is_finished(values: np.ndarray, rim: np.ndarray) -> bool:
    """Return whether it needs no background taken off: its rim is dark, its sum is 1, or it has no noise."""
    if np.median(rim) * values.size <= _DARK * values.sum() or abs(float(values.sum()) - 1) < 1e-3:
        return True
    middle = [int(k) for k in np.unravel_index(int(values.argmax()), values.shape)]
    half = [min(c, n - 1 - c) for c, n in zip(middle, values.shape, strict=True)]
    part = values[tuple(slice(c - h, c + h + 1) for c, h in zip(middle, half, strict=True))]
    # noise is not the same on either side of the axis
    return min(half[1:]) > 2 and bool(np.abs(part - part[:, ::-1, ::-1]).sum() < _ALIKE * part.sum())


def _opened(psf: xr.DataArray, info: StackInfo) -> tuple[np.ndarray, Voxel, list[str]]:
    """Return the values (z, y, x), voxel size and first notes of what was given."""
    notes: list[str] = []
    image = psf.squeeze([d for d in psf.dims if d in ("t", "c") and psf.sizes[d] == 1])
    extra = [str(d) for d in image.dims if d not in ("z", "y", "x")]
    if extra or "y" not in image.dims or "x" not in image.dims:
        raise RequestError(
            f"The point spread function has the axes {' '.join(map(str, psf.dims))}.",
            "Give one stack (z, y, x) of one point.",
        )
    image = image.transpose(*(d for d in ("z", "y", "x") if d in image.dims))
    values = np.asarray(image.data, np.float64)
    values = values if values.ndim == 3 else values[None]
    if not np.isfinite(values).all():
        raise RequestError("The point spread function holds values that are no numbers.", "Replace them.")
    if values.max() <= 0:
        raise RequestError("The point spread function holds no light.", "Choose a stack of one point.")
    if values.min() < -1e-3 * values.max():
        raise RequestError(
            "The point spread function holds negative values, which no light has.",
            "Give it before a background is taken off, or cut it off at 0.",
        )
    values = np.maximum(values, 0)
    spacing = spacing_of(image)
    # a mirrored layer: both have to be the same way round
    mirrored = tuple(k for k, d in enumerate("zyx") if (spacing.get(d, 1.0) < 0) != info.falling[k])
    values = np.flip(values, mirrored)
    voxel: list[float] = []
    for d, mine in zip("zyx", info.voxel_um, strict=True):
        voxel.append(abs(spacing[d]) if spacing.get(d) else mine)
    missing = [d for d in map(str, image.dims) if not spacing.get(d) and image.sizes[d] > 1]
    if missing:
        notes.append(
            f"The point spread function does not say its voxel size along {', '.join(missing)}: "
            "the stack's is taken."
        )
    if info.flat and len(values) > 1:
        # the sharpest plane is the brightest pixel's
        plane = int(values.max((1, 2)).argmax())
        values = values[plane : plane + 1]
        voxel[0] = info.voxel_um[0]
        notes.append("The image is flat: the sharpest plane of the point spread function is taken.")
    if not info.flat and len(values) == 1:
        raise RequestError(
            "The point spread function is flat, and the image is a stack.",
            "Give a stack of a point with several planes, or a microscope.",
        )
    return values, (voxel[0], voxel[1], voxel[2]), notes


def _finished(values: np.ndarray, voxel: Voxel, wanted: Voxel) -> tuple[np.ndarray, list[str]]:
    """Return a finished point spread function with its point in the middle, on other voxels if need be."""
    centre = _point(values)
    if _same(voxel, wanted):
        whole = [round(c) for c in centre]
        half = [max(c, n - 1 - c) for c, n in zip(whole, values.shape, strict=True)]
        pad = [(h - c, h - (n - 1 - c)) for h, c, n in zip(half, whole, values.shape, strict=True)]
        return np.pad(values, pad), []
    ratio = [w / v for w, v in zip(wanted, voxel, strict=True)]
    # coarser voxels take the mean of what falls into them
    smooth = gaussian_filter(values, [math.sqrt(max(r**2 - 1, 0.0) / 12) for r in ratio], mode="constant")
    half = [math.floor(max(c, n - 1 - c) / r) for c, n, r in zip(centre, values.shape, ratio, strict=True)]
    grid = np.meshgrid(
        *(c + r * np.arange(-h, h + 1) for c, r, h in zip(centre, ratio, half, strict=True)), indexing="ij"
    )
    order = 3 if min(values.shape[1:]) > 3 else 1
    out = np.maximum(map_coordinates(smooth, grid, order=order, mode="constant"), 0)
    return out, [_resampled_note(voxel, wanted)]


def _point(values: np.ndarray) -> list[float]:
    """Return where the point is: the centroid of what is brighter than half the peak."""
    bright = np.where(values >= 0.5 * values.max(), values, 0.0)
    if np.count_nonzero(bright) > 0.5 * values.size:
        raise RequestError(
            "The point spread function holds no point: more than half of it is about equally bright.",
            "Give a stack of one small bright point.",
        )
    total, out = bright.sum(), []
    for axis, n in enumerate(values.shape):
        others = tuple(k for k in range(values.ndim) if k != axis)
        out.append(float((bright.sum(others) * np.arange(n)).sum() / total))
    return out


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Return a measured point without what noise left round it: its rim's level off, and dark rims cut."""
    rim = np.concatenate([np.take(values, (0, -1), axis).ravel() for axis in (1, 2)])
    smooth = gaussian_filter(values, (0, 1, 1))
    level, noise = float(rim.mean()), float(smooth[:, (0, -1)].std())
    lit = smooth - level > max(_LEAST_SHARE * float(smooth.max()), _LEAST_SIGMAS * noise)
    middle = [n // 2 for n in values.shape]
    # what is not joined to the point is another bead, or a hot pixel
    parts, _ = label(lit, np.ones((3, 3, 3)))
    lit = parts == parts[tuple(middle)] if lit[tuple(middle)] else lit
    out = np.maximum(values - level, 0)
    half = []
    for axis, m in enumerate(middle):
        others = tuple(k for k in range(3) if k != axis)
        where = np.flatnonzero(lit.any(others))
        half.append(int(min(m, max(2, np.abs(where - m).max() + 1))) if len(where) else m)
    return out[tuple(slice(m - h, m + h + 1) for m, h in zip(middle, half, strict=True))]


def _cut(values: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Return what of it can join two voxels of the stack."""
    half = [
        min(n // 2, max(1, size - 1) if n > 1 else 0) for n, size in zip(values.shape, shape, strict=True)
    ]
    if all(h == n // 2 for h, n in zip(half, values.shape, strict=True)):
        return values, []
    out = values[tuple(slice(n // 2 - h, n // 2 + h + 1) for n, h in zip(values.shape, half, strict=True))]
    lost = 1 - float(out.sum() / values.sum())
    if lost < 1e-3:
        return out, []
    return out, [f"it is larger than the stack and was cut to fit, with {100 * lost:.1f} % of its light"]


def _same(a: Voxel, b: Voxel) -> bool:
    return all(abs(u / v - 1) < 0.005 for u, v in zip(a, b, strict=True))


def _resampled_note(voxel: Voxel, wanted: Voxel) -> str:
    first, second = (" x ".join(f"{v:.3g}" for v in size) for size in (voxel, wanted))
    return f"it was resampled from voxels of {first} um to the stack's {second} um"


def normal(values: np.ndarray) -> np.ndarray:
    """Return values that sum to 1."""
    return np.asarray(values / values.sum(dtype=np.float64), np.float32)
