"""The record that travels inside every image file: what a plain format cannot say about an image.

One JSON object: dims and shape as they were, spacing and origin exactly, coordinates that are not
evenly spaced, the index-to-world matrix of a rotated lattice, microscope, lattice and provenance.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from napari_lfm import __version__
from napari_lfm.core.labelled import labelled, origin_of, spacing_of

logger = logging.getLogger(__name__)

# attributes that have a place of their own, or that describe the file rather than the image
_OWN_PLACE = {"spacing", "affine_um", "provenance", "source"}


def jsonable(value: Any) -> Any:
    """Return `value` with numpy arrays and scalars, tuples and mappings made JSON-ready.

    NaN and infinity, which JSON has not, become the words ``nan``, ``inf`` and ``-inf``: a figure that
    went wrong must not keep a result from being saved.

    Raises
    ------
    TypeError
        If something in it has no JSON form.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if hasattr(value, "model_dump"):  # pydantic models: microscopes, lattices, parameters
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def make_record(image: xr.DataArray, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON-ready record of `image`; `provenance` replaces the one in its attributes."""
    listed = [d for d in map(str, image.dims) if not _even(image, d)]
    even = image.drop_vars(listed)
    spacing, origin = exact_spacing(even), origin_of(even)
    record: dict[str, Any] = {
        "napari_lfm": __version__,
        "dims": [str(d) for d in image.dims],
        "shape": [int(n) for n in image.shape],
        "spacing": jsonable(spacing),
        "origin": jsonable(origin),
    }
    if listed:
        record["coords"] = {
            d: {
                "values": jsonable(image.coords[d].values),
                "units": str(image.coords[d].attrs.get("units", "")),
            }
            for d in listed
        }
    if image.name is not None:
        record["name"] = str(image.name)
    if "affine_um" in image.attrs:
        record["affine_um"] = np.asarray(image.attrs["affine_um"], float).tolist()
    provenance = image.attrs.get("provenance") if provenance is None else provenance
    if provenance:
        record["provenance"] = jsonable(dict(provenance))
    attrs: dict[str, Any] = {}
    for key, value in image.attrs.items():
        if key in _OWN_PLACE:
            continue
        try:
            attrs[str(key)] = jsonable(value)
        except TypeError as error:
            logger.warning("The attribute '%s' is not saved: %s.", key, error)
    if attrs:
        record["attrs"] = attrs
    return record


def exact_spacing(image: xr.DataArray) -> dict[str, float]:
    """Return the spacing of every dim, as it was given where that reproduces the coordinates.

    The mean step between coordinates differs from it in the last digit, and 0.09999999999999999 is
    nothing to show to anyone.
    """
    spacing = spacing_of(image)
    for dim, kept in image.attrs.get("spacing", {}).items():
        if dim not in image.dims or dim not in image.coords:
            continue
        values = image.coords[dim].values
        if np.array_equal(values, values[0] + kept * np.arange(len(values))):
            spacing[dim] = float(kept)
    return spacing


def apply_record(data: Any, record: Mapping[str, Any], source: str = "") -> xr.DataArray | None:
    """Return `data` labelled as `record` says, or None when the record does not fit the data.

    `data` may have lost or gained axes of length 1 on its way through a file.
    """
    dims, shape = record.get("dims"), record.get("shape")
    if not dims or not shape or len(dims) != len(shape) or int(np.prod(shape)) != int(np.prod(data.shape)):
        return None
    if [n for n in data.shape if n != 1] != [n for n in shape if n != 1]:
        return None
    record = copy.deepcopy(dict(record))  # the file's description may be used again
    attrs = dict(record.get("attrs", {}))
    if "affine_um" in record:
        attrs["affine_um"] = record["affine_um"]
    if "provenance" in record:
        attrs["provenance"] = record["provenance"]
    if source:
        attrs["source"] = source
    # an axis without coordinates has no origin either; its spacing alone stays an attribute
    located = set(record.get("origin", {}))
    spacing = {k: float(v) for k, v in record.get("spacing", {}).items()}
    image = labelled(
        data.reshape(shape),
        dims,
        {k: v for k, v in spacing.items() if k in located},
        record.get("origin"),
        attrs=attrs,
    )
    image.attrs["spacing"] = spacing
    image.name = record.get("name")  # xarray would take dask's
    for dim, entry in record.get("coords", {}).items():
        units = {"units": entry["units"]} if entry.get("units") else {}
        image = image.assign_coords({dim: xr.Variable((dim,), np.asarray(entry["values"]), units)})
    return image


def channel_names(image: xr.DataArray) -> tuple[str, ...]:
    """Return the names along ``c``, empty when it has none."""
    if "c" not in image.dims or "c" not in image.coords:
        return ()
    return tuple(str(v) for v in image.coords["c"].values)


def _even(image: xr.DataArray, dim: str) -> bool:
    """Whether spacing and origin say all about the coordinates of `dim`."""
    if dim not in image.coords:
        return True
    values = image.coords[dim].values
    if dim not in "tzyx" or "v" in image.dims or values.dtype.kind not in "iuf":
        return False
    if len(values) < 3:
        return True
    steps = np.diff(values.astype(float))
    return bool(
        np.allclose(steps, steps.mean(), rtol=1e-6, atol=1e-9 * max(1.0, float(np.abs(values).max())))
    )
