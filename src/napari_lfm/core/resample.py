"""Bringing labelled images onto one another's grid, so that they can be compared voxel by voxel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.labelled import affine_of, origin_of, spacing_of
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import xarray as xr


def resample_onto(image: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Resample `image` onto the part of `reference`'s grid that both cover.

    Linear interpolation in world coordinates. Where `image` is sampled more finely than `reference`
    it is first averaged over one reference voxel, so that fine detail does not alias into the comparison.

    Parameters
    ----------
    image, reference : xarray.DataArray
        Same dims, micrometre coordinates on every dim. Images without coordinates must have
        one shape and are then taken to lie on the same grid.

    Returns
    -------
    image, reference : xarray.DataArray
        Both on the common part of the reference's grid; numpy float32.

    Raises
    ------
    RequestError
        If the dims differ, the images do not overlap, or there is nothing to place them by.
    """
    if set(image.dims) != set(reference.dims):
        raise RequestError(
            f"The images have different axes: {_names(image)} and {_names(reference)}.",
            "Compare images of one kind, or name the axes with --axes.",
        )
    image = image.transpose(*reference.dims)
    placed = all(d in image.coords and d in reference.coords for d in reference.dims)
    if not placed or _same_grid(image, reference):
        if image.shape != reference.shape:
            raise RequestError(
                f"The images have shapes {image.shape} and {reference.shape} and no sizes to place them by.",
                "Save both with voxel sizes, or bring them to one shape.",
            )
        return image.astype(np.float32), reference.astype(np.float32)

    if "affine_um" in image.attrs or "affine_um" in reference.attrs:
        return _resample_turned(image, reference)
    step, fine, start = spacing_of(reference), spacing_of(image), origin_of(image)
    data = np.asarray(image.values, np.float32)
    positions, keep = [], {}
    for axis, dim in enumerate(map(str, reference.dims)):
        where = reference.coords[dim].values
        size = image.sizes[dim]
        pitch = fine.get(dim, step.get(dim, 1.0))
        index = (where - start[dim]) / pitch
        # half a voxel beyond the last centre still belongs to the image
        inside = (index > -0.5 - 1e-6) & (index < size - 0.5 + 1e-6)
        if not inside.any():
            raise RequestError(
                f"The images do not overlap along {dim}.",
                "Check that both are in the same coordinates (micrometres of the same raw frame).",
            )
        keep[dim] = np.flatnonzero(inside)
        positions.append(np.clip(index[inside], 0, size - 1))
        if size > 1 and abs(step.get(dim, pitch)) > 1.2 * abs(
            pitch
        ):  # mirrored axes have falling coordinates
            data = box_average(data, axis, abs(step[dim] / pitch))
    for axis, index in enumerate(positions):
        data = _interpolate(data, axis, index)
    common = reference.isel(keep)
    return common.copy(data=data), common.astype(np.float32)


def _resample_turned(image: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Resample between grids that are rotated against each other; keep a box that both cover."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.inv(affine_of(image)) @ affine_of(reference)
    n = image.ndim
    data = np.asarray(image.values, np.float32)
    for axis in range(n):
        ratio = float(np.abs(matrix[axis, :n]).max())
        if data.shape[axis] > 1 and ratio > 1.2:
            data = box_average(data, axis, ratio)
    shape = reference.shape
    inside = np.ones(shape, bool)
    for axis in range(n):
        position = np.full(shape, matrix[axis, n])
        for other in range(n):
            index = np.arange(shape[other]).reshape([-1 if k == other else 1 for k in range(n)])
            position = position + matrix[axis, other] * index
        inside &= (position > -0.5 - 1e-6) & (position < image.shape[axis] - 0.5 + 1e-6)
    box = _largest_box(inside)
    if box is None:
        raise RequestError(
            "The images do not overlap.",
            "Check that both are in the same coordinates (micrometres of the same raw frame).",
        )
    values = affine_transform(
        data, matrix[:n, :n], matrix[:n, n], output_shape=shape, order=1, mode="nearest"
    )
    common = reference[box].astype(np.float32)
    return common.copy(data=values[box]), common


def _largest_box(inside: np.ndarray) -> tuple[slice, ...] | None:
    """Return a box without a point outside: take the emptiest face away until there is none."""
    box = [slice(0, n) for n in inside.shape]
    while True:
        part = inside[tuple(box)]
        if not part.size or not part.any():
            return None
        if part.all():
            return tuple(box)
        faces = []
        for axis in range(inside.ndim):
            filled = part.mean(axis=tuple(k for k in range(inside.ndim) if k != axis))
            faces += [(filled[0], axis, 0), (filled[-1], axis, 1)]
        _, axis, end = min(faces)
        old = box[axis]
        box[axis] = slice(old.start + 1, old.stop) if end == 0 else slice(old.start, old.stop - 1)


def _same_grid(a: xr.DataArray, b: xr.DataArray) -> bool:
    return a.shape == b.shape and np.allclose(affine_of(a), affine_of(b), atol=1e-6)


def _names(image: xr.DataArray) -> str:
    return " ".join(map(str, image.dims))


def box_average(data: np.ndarray, axis: int, width: float) -> np.ndarray:
    """Average over a running window of `width` samples, a real number: the two end samples count partly."""
    from scipy.ndimage import correlate1d

    half = int(np.ceil((width - 1) / 2))
    weights = np.clip(width / 2 + 0.5 - np.abs(np.arange(-half, half + 1)), 0, 1)
    out: np.ndarray = correlate1d(data, weights / weights.sum(), axis=axis, mode="nearest")
    return out


def _interpolate(data: np.ndarray, axis: int, index: np.ndarray) -> np.ndarray:
    """Linear interpolation along one axis at fractional indices inside the array."""
    low = np.clip(np.floor(index).astype(int), 0, max(data.shape[axis] - 2, 0))
    high = np.minimum(low + 1, data.shape[axis] - 1)
    shape = [1] * data.ndim
    shape[axis] = len(index)
    part = (index - low).astype(np.float32).reshape(shape)
    out: np.ndarray = np.take(data, low, axis) * (1 - part) + np.take(data, high, axis) * part
    return out
