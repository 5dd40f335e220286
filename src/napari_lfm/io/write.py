"""Writing results: OME-TIFF whatever the suffix, OME-Zarr 0.5 for ``.ome.zarr``, CSV for points.

Every file replaces its predecessor only when it is complete (`napari_lfm.io.atomic`), and carries
micrometres and provenance.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import xarray as xr

from napari_lfm import __version__
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import check_output, replacing_file, replacing_folder
from napari_lfm.io.axes import canonical
from napari_lfm.io.ome import make_xml, pixel_types
from napari_lfm.io.ome_zarr import write_ome_zarr
from napari_lfm.io.points import COLUMNS, write_points, write_table
from napari_lfm.io.record import channel_names, make_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import DTypeLike

    from napari_lfm.core.events import Result

__all__ = ["check_output", "further_path", "write_image", "write_result"]

# where a light field's own dims go in a format that knows t, c, z, y, x only; the record says what they were
_STAND_IN = {"v": "t", "u": "z", "t": "y", "s": "x"}
# classic TIFF counts bytes in 32 bits; leave room for directories
_CLASSIC_LIMIT = 2**32 - 2**26
# level 1 is three times faster than 6 on volumes and costs 2 % of the size
_ZLIB_LEVEL = 1

# frames that wait for compression; tifffile would gather half a gigabyte of them
_BUFFER_BYTES = 4 * 2**20


def write_image(
    path: str | Path,
    image: xr.DataArray,
    provenance: Mapping[str, Any] | None = None,
    *,
    dtype: DTypeLike | None = None,
) -> Path:
    """Write a labelled image; `read_image` gives it back with sizes, origin and provenance.

    Parameters
    ----------
    path : path
        ``*.zarr`` makes an OME-Zarr 0.5 folder, anything else an OME-TIFF.
    image : xarray.DataArray
        dims out of ``t c z y x``, or ``v u t s``. A dask array is computed and written frame by frame.
    provenance : mapping, optional
        Replaces ``image.attrs["provenance"]``.
    dtype : optional
        Data type in the file. Default: integers as they are (64-bit ones as 32-bit where they fit),
        floats as float32, bool as uint8.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    LfmError
        If the disk is full or the place not writable; an old file at `path` is unchanged.
    RequestError
        If the image cannot be stored (axes, complex numbers), or the folder does not exist.
    """
    path = Path(path)
    image = _in_order(image)
    record = make_record(image, provenance)
    target = np.dtype(dtype) if dtype is not None else _storage_type(image)
    if target.name not in pixel_types():
        raise RequestError(
            f"{target.name} numbers cannot be stored in an OME file.", "Use float32 or uint16."
        )
    needed = image.size * target.itemsize + 2**16
    frames = _frames(image.data, target)
    spacing = {d: s for d, s in record["spacing"].items() if d in "tzyx" and "v" not in image.dims}
    origin = {d: o for d, o in record["origin"].items() if d in spacing}
    if path.name.lower().endswith(".zarr"):
        with replacing_folder(path, needed) as folder:
            write_ome_zarr(folder, _as_type(image, target), frames, spacing, origin, record)
        return path
    dims = [_STAND_IN[str(d)] if "v" in image.dims else str(d) for d in image.dims]
    sizes = {"t": 1, "c": 1, "z": 1, **dict(zip(dims, image.shape, strict=True))}
    xml = make_xml(
        name=path.stem if image.name is None else str(image.name),
        dtype=target.name,
        sizes=sizes,
        spacing=spacing,
        origin=origin,
        channels=channel_names(image),
        record=record,
        creator=f"napari-lfm {__version__}",
    )
    options: dict[str, Any] = {}
    if {"y", "x"} <= set(spacing):  # for the many programs that read this tag and no OME-XML
        options["resolution"] = tuple(1e4 / abs(spacing[d]) for d in "xy")
        options["resolutionunit"] = "CENTIMETER"
    with (
        replacing_file(path, needed) as file,
        tifffile.TiffWriter(file, bigtiff=needed > _CLASSIC_LIMIT) as writer,
    ):
        writer.write(
            frames,
            shape=(sizes["t"] * sizes["c"] * sizes["z"], sizes["y"], sizes["x"]),
            dtype=target,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": _ZLIB_LEVEL},
            # differences of neighbours compress integers well; for floats few programs can undo it
            predictor=2 if target.kind in "iu" else None,
            description=xml.encode(),
            software=f"napari-lfm {__version__}",
            metadata=None,
            buffersize=_BUFFER_BYTES,
            **options,
        )
    return path


def write_result(path: str | Path, result: Result, *, dtype: DTypeLike | None = None) -> list[Path]:
    """Write every output of a run; the primary one goes to `path`, each other one beside it.

    Images go to ``OUT.<name>.tif``, tables to ``OUT.<name>.csv``, where OUT is `path` without its
    suffix. Each file carries the provenance of the run and which output it is.

    Returns
    -------
    list of Path
        The files written, the primary one first.

    Raises
    ------
    LfmError
        As `write_image`.
    """
    path = Path(path)
    names = [result.primary, *(name for name in result.outputs if name != result.primary)]
    written: list[Path] = []
    for name in names:
        output = result.outputs[name]
        is_image = isinstance(output, xr.DataArray)
        place = path if name == result.primary else further_path(path, name, ".tif" if is_image else ".csv")
        provenance = {**result.provenance, "output": name}
        if is_image:
            written.append(write_image(place, output, provenance, dtype=dtype))
        else:
            write = write_points if set(COLUMNS) <= set(output.columns) else write_table
            written.append(write(place, output, provenance))
    return written


def further_path(path: Path, name: str, suffix: str) -> Path:
    """Return ``OUT.<name><suffix>`` for the output `name` beside ``OUT`` (`path` without its suffix)."""
    stem = re.sub(r"(\.ome)?\.(tiff?|zarr|csv)$", "", path.name, flags=re.IGNORECASE)
    return path.with_name(f"{stem}.{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}{suffix}")


def _in_order(image: xr.DataArray) -> xr.DataArray:
    dims = tuple(map(str, image.dims))
    if dims == ("v", "u", "t", "s"):
        return image
    order = canonical(dims)
    if len(order) != len(dims) or not {"y", "x"} <= set(dims):
        raise RequestError(
            f"An image with the axes {' '.join(dims) or '(none)'} cannot be saved.",
            "Its axes must be y and x, and may be t, c and z.",
        )
    if 0 in image.shape:
        raise RequestError("An image without pixels cannot be saved.", "Run the method on a larger region.")
    if "affine_um" in image.attrs and order != dims:
        raise RequestError("An image with a rotated lattice must have its axes in the order t c z y x.")
    return image.transpose(*order)


def _as_type(image: xr.DataArray, dtype: np.dtype[Any]) -> xr.DataArray:
    # dask converts when it computes; a numpy image is only asked for its shape and type here
    return image.astype(dtype) if image.chunks is not None else image.astype(dtype, copy=False)


def _storage_type(image: xr.DataArray) -> np.dtype[Any]:
    """Return the smallest common type that holds the image without loss of meaning."""
    dtype = image.dtype
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "iu":
        raise RequestError(f"An image of {dtype.name} numbers cannot be saved.", "Save its magnitude.")
    if dtype.itemsize < 8:
        return dtype.newbyteorder("=")
    low, high = int(image.min()), int(image.max())
    for candidate in (np.uint32, np.int32):
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return np.dtype(candidate)
    return np.dtype(np.float64)


def _frames(data: Any, dtype: np.dtype[Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield planes (y, x) in C order; of a dask array no more than a chunk's frames are in memory."""
    if data.ndim == 2:
        plane = np.asarray(data)
        yield np.ascontiguousarray(plane, dtype)
        return
    if not hasattr(data, "dask"):
        for at in np.ndindex(data.shape[:-2]):
            yield np.ascontiguousarray(data[at], dtype)
        return
    start = 0
    for step in data.chunks[0]:
        if step == 1:
            yield from _frames(data[start], dtype)
        else:
            yield from _frames(np.asarray(data[start : start + step]), dtype)
        start += step
