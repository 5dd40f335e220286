"""OME-Zarr images (NGFF 0.5 written; 0.4 and 0.5 read). Needs the extra ``napari-lfm[zarr]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.axes import ORDER, canonical
from napari_lfm.io.planes import LAZY_BYTES
from napari_lfm.io.record import apply_record
from napari_lfm.io.tiff import check_file
from napari_lfm.io.units import length_in_um, time_in_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import xarray as xr

_MARKERS = ("zarr.json", ".zgroup", ".zarray")
_RECORD = "napari_lfm"
_CHUNK_BYTES = 8 * 2**20


def is_zarr(path: Path) -> bool:
    """Return whether `path` is, or by its name will be, a Zarr store."""
    return path.name.lower().endswith(".zarr") or (
        path.is_dir() and any((path / m).is_file() for m in _MARKERS)
    )


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise RequestError(
            "OME-Zarr files need the package zarr, which is not installed.",
            "Install it with: pip install 'napari-lfm[zarr]'.",
        ) from None
    return zarr


def _open(path: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the image group, its first multiscales entry and all its attributes."""
    zarr = _zarr()
    if not path.exists():
        check_file(path)
    try:
        group = zarr.open_group(str(path), mode="r")
        if "bioformats2raw.layout" in {**group.attrs, **group.attrs.get("ome", {})}:
            group = group["0"]  # what bioformats2raw writes: one group per image
        attributes = dict(group.attrs)
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(
            f"{path.name} is not a Zarr group.", "Give a folder written as OME-Zarr."
        ) from None
    found = attributes.get("ome", attributes).get("multiscales")
    if not isinstance(found, list) or not found:
        raise RequestError(
            f"{path.name} is a Zarr folder without an OME-Zarr image in it.", "Give the folder of one image."
        )
    return group, found[0], attributes


def record_from_zarr(path: Path) -> dict[str, Any]:
    """Return our own record in an OME-Zarr image, an empty dict when it has none."""
    record = _open(path)[2].get(_RECORD, {})
    return record if isinstance(record, dict) else {}


def read_ome_zarr(path: Path, force_lazy: bool = False) -> xr.DataArray:
    """Read the full-resolution image of an OME-Zarr folder; movies and big ones stay lazy.

    With `force_lazy` no pixels are read at all.

    Raises
    ------
    RequestError
        If zarr is not installed, or the folder holds no image that we can label.
    """
    group, multiscale, attributes = _open(path)
    try:
        dataset = multiscale["datasets"][0]
        array = group[dataset["path"]]
        shape = tuple(int(n) for n in array.shape)
        axes = multiscale.get("axes", list(ORDER[-len(shape) :]))
        axes = [a if isinstance(a, dict) else {"name": a} for a in axes]
        dims = tuple(str(a["name"]).lower() for a in axes)
        scale, origin = _transform(dataset, multiscale, len(shape))
    except (KeyError, IndexError, TypeError, ValueError):
        raise RequestError(
            f"The OME-Zarr description in {path.name} is not valid.", "Write the image again."
        ) from None
    if len(dims) != len(shape) or any(d not in ORDER for d in dims) or not {"y", "x"} <= set(dims):
        raise RequestError(
            f"The axes of {path.name} ({' '.join(dims)}) are not t, c, z, y, x.", "Export it anew."
        )
    movie = "t" in dims and shape[dims.index("t")] > 1
    pixels = _pixels(array, path, lazy=force_lazy or movie or array.nbytes > LAZY_BYTES)
    record = attributes.get(_RECORD)
    if isinstance(record, dict):
        image = apply_record(pixels, record, str(path))
        if image is not None:
            return image
    spacing, start = {}, {}
    for i, (dim, axis) in enumerate(zip(dims, axes, strict=True)):
        factor = time_in_s(axis.get("unit")) if dim == "t" else length_in_um(axis.get("unit"))
        if dim != "c" and factor is not None:
            spacing[dim], start[dim] = scale[i] * factor, origin[i] * factor
    image = labelled(pixels, dims, spacing, start).transpose(*canonical(dims))
    image.name = multiscale.get("name")  # xarray would take dask's
    return image


def _transform(
    dataset: Mapping[str, Any], multiscale: Mapping[str, Any], ndim: int
) -> tuple[list[float], list[float]]:
    """Return scale and translation, the data set's own followed by those of all levels."""
    scale, shift = np.ones(ndim), np.zeros(ndim)
    for step in [
        *dataset.get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ]:
        if step["type"] == "scale":
            factor = np.asarray(step["scale"], float)
            scale, shift = scale * factor, shift * factor
        elif step["type"] == "translation":
            shift = shift + np.asarray(step["translation"], float)
    return scale.tolist(), shift.tolist()


def _pixels(array: Any, path: Path, lazy: bool) -> Any:
    if lazy:
        import dask.array as da

        return da.from_array(array, chunks=array.chunks)  # type: ignore[no-untyped-call]
    try:
        return np.asarray(array[...])
    except Exception as error:  # a chunk can break in as many ways as there are codecs
        raise RequestError(
            f"The pixels of {path.name} cannot be read ({error}).", "Copy it again."
        ) from error


def write_ome_zarr(
    folder: Path,
    image: xr.DataArray,
    frames: Iterator[np.ndarray[Any, Any]],
    spacing: Mapping[str, float],
    origin: Mapping[str, float],
    record: Mapping[str, Any],
) -> None:
    """Write an OME-Zarr 0.5 image at one resolution into the new `folder`.

    Parameters
    ----------
    folder : Path
        Where; must not exist.
    image : xarray.DataArray
        Gives name, dims, shape and dtype (as they are to be written).
    frames : iterator of numpy.ndarray
        Planes ``(y, x)`` in the order of the leading dims.
    spacing, origin, record
        As in `napari_lfm.io.ome.make_xml`.
    """
    zarr = _zarr()
    dims = tuple(map(str, image.dims))
    if any(d not in ORDER for d in dims):
        raise RequestError(f"OME-Zarr cannot hold the axes {' '.join(dims)}.", "Save it as .tif.")
    axes: list[dict[str, str]] = []
    for dim in dims:
        kind = {"t": "time", "c": "channel"}.get(dim, "space")
        axes.append({"name": dim, "type": kind})
        if dim in spacing:
            axes[-1]["unit"] = "second" if dim == "t" else "micrometer"
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": [float(spacing.get(d, 1.0)) for d in dims]}]
    if any(origin.values()):
        steps.append({"type": "translation", "translation": [float(origin.get(d, 0.0)) for d in dims]})
    multiscale = {
        "name": "image" if image.name is None else str(image.name),
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    group = zarr.open_group(str(folder), mode="w-", zarr_format=3)
    chunks = [1] * (image.ndim - 2) + list(image.shape[-2:])
    if dims[-3:-2] == ("z",):  # a few planes together, so that small volumes are one file
        plane = image.shape[-1] * image.shape[-2] * image.dtype.itemsize
        chunks[-3] = max(1, min(image.shape[-3], _CHUNK_BYTES // plane))
    array = group.create_array(
        "0", shape=image.shape, dtype=image.dtype, chunks=tuple(chunks), dimension_names=dims
    )
    _fill(array, frames, chunks, image.shape)
    # last, so that a store without it is visibly incomplete
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [multiscale]}, _RECORD: dict(record)})


def _fill(
    array: Any, frames: Iterator[np.ndarray[Any, Any]], chunks: list[int], shape: tuple[int, ...]
) -> None:
    if len(shape) == 2:
        array[...] = next(frames)
        return
    step, depth = chunks[-3], shape[-3]
    for lead in np.ndindex(*shape[:-3]):
        for start in range(0, depth, step):
            stop = min(start + step, depth)
            array[(*lead, slice(start, stop))] = np.stack([next(frames) for _ in range(stop - start)])
