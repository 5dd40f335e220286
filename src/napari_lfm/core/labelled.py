"""Labelled images: dims out of ``t c z y x`` with micrometre coordinates.

One world for everything: object-space micrometres, origin at the centre of raw
camera pixel (0, 0). Axis-aligned images say where they are by their coordinates.
An image on a rotated or sheared lattice also carries ``attrs["affine_um"]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

SPATIAL = ("z", "y", "x")


def labelled(
    data: Any,
    dims: Sequence[str],
    spacing: Mapping[str, float],
    origin: Mapping[str, float] | None = None,
    name: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Wrap an array with dims and evenly spaced coordinates.

    Parameters
    ----------
    data : array
        Any array that xarray takes (numpy or dask).
    dims : sequence of str
        Dimension names, out of ``t c z y x``.
    spacing : mapping
        Spacing per dim: micrometres for z, y, x; seconds for t. Dims left out get none.
    origin : mapping, optional
        Coordinate of index 0, default 0.
    name, attrs
        Passed on.

    Returns
    -------
    xarray.DataArray
    """
    import xarray as xr  # machines that only train have none

    origin = origin or {}
    coords = {}
    for dim, size in zip(dims, np.shape(data), strict=True):
        if dim in spacing:
            values = origin.get(dim, 0.0) + spacing[dim] * np.arange(size)
            coords[dim] = xr.Variable((dim,), values, {"units": "um" if dim in SPATIAL else "s"})
    spacing_attr = {d: float(s) for d, s in spacing.items() if d in dims}
    return xr.DataArray(
        data, dims=tuple(dims), coords=coords, name=name, attrs={"spacing": spacing_attr, **(attrs or {})}
    )


def spacing_of(image: xr.DataArray) -> dict[str, float]:
    """Return the spacing of every dim that has coordinates (length-1 dims use ``attrs["spacing"]``)."""
    out: dict[str, float] = {}
    for dim in image.dims:
        key = str(dim)
        kept = image.attrs.get("spacing", {})
        if dim in image.coords and image.sizes[dim] > 1 and image.coords[dim].dtype.kind in "iuf":
            values = image.coords[dim].values
            out[key] = float((values[-1] - values[0]) / (len(values) - 1))
        elif key in kept:
            out[key] = float(kept[key])
    return out


def origin_of(image: xr.DataArray) -> dict[str, float]:
    """Return the coordinate of index 0 of every dim that has coordinates, names of channels apart."""
    placed = [d for d in image.dims if d in image.coords and image.coords[d].dtype.kind in "iuf"]
    return {str(d): float(image.coords[d].values[0]) for d in placed}


def affine_of(image: xr.DataArray) -> np.ndarray:
    """Return the homogeneous index-to-world matrix, shape (ndim + 1, ndim + 1), in dim order.

    Uses ``attrs["affine_um"]`` where the image has one (rotated lattices), else coordinates.
    """
    if "affine_um" in image.attrs:
        return np.asarray(image.attrs["affine_um"], float)
    spacing, origin = spacing_of(image), origin_of(image)
    out = np.eye(image.ndim + 1)
    for i, dim in enumerate(map(str, image.dims)):
        out[i, i], out[i, -1] = spacing.get(dim, 1.0), origin.get(dim, 0.0)
    return out
