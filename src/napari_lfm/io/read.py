"""Reading images and light fields from TIFF, OME-Zarr and npz files, labelled in micrometres."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.axes import Kind, canonical, name_axes, parse_axes
from napari_lfm.io.check import check_pixels
from napari_lfm.io.ome_zarr import is_zarr, read_ome_zarr
from napari_lfm.io.planes import LAZY_BYTES, read_pixels
from napari_lfm.io.record import apply_record
from napari_lfm.io.tiff import TiffSeries, describe
from napari_lfm.io.vuts import LIGHT_FIELD_DIMS, light_field_from_npz

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Kind", "axes_that_fit", "check_pixels", "read_image", "read_lightfield"]

logger = logging.getLogger(__name__)


class _Optics(Protocol):
    """What reading needs of a microscope (`napari_lfm.optics.microscope.Microscope` has it)."""

    @property
    def object_pixel_um(self) -> float: ...

    @property
    def lenslet_um(self) -> float | None: ...


def read_image(
    path: str | Path,
    kind: Kind | None = "stack",
    axes: str | None = None,
    voxel_um: Sequence[float] | None = None,
    series: int = 0,
    flat: bool = False,
) -> xr.DataArray:
    """Read a TIFF or OME-Zarr image; movies and big files are read when they are needed.

    Parameters
    ----------
    path : path
        OME-TIFF, ImageJ or plain TIFF; or an OME-Zarr folder.
    kind : {"stack", "image", "lightfield"} or None
        What it is to be used as. An unnamed leading axis is z for stacks and t for the others.
        A ``"stack"`` must have a z axis and voxel sizes; None asks for nothing (for display).
    axes : str, optional
        One letter per axis of the file out of ``T C Z Y X``; overrides what the file says.
    voxel_um : sequence of float, optional
        Voxel size (z, y, x), or (y, x) for images; overrides what the file says.
    series : int
        Which image of a file with several.
    flat : bool
        Whether a ``"stack"`` may also be an image without a z axis.

    Returns
    -------
    xarray.DataArray
        dims out of ``t c z y x`` in this order (or ``v u t s`` for our own light-field files),
        numpy or dask; coordinates where sizes are known.

    Raises
    ------
    RequestError
        If the file is not a readable grey image, or misses what `kind` needs.
    """
    path = Path(path)
    if is_zarr(path):
        image = read_ome_zarr(path)
        if axes is not None:
            image = _relabel(image, parse_axes(axes, image.shape, path.name))
    else:
        if path.suffix.lower() == ".npz":
            raise RequestError(f"{path.name} is read as a 4-D light field only.", "Use the layout 'vuts'.")
        image = _from_tiff(describe(path), series, path, kind, axes)
    if voxel_um is not None:
        image = _resized(image, voxel_um)
    given: dict[str, Any] = {}
    if axes is not None:
        given["axes"] = axes.upper()
    if voxel_um is not None:
        given["voxel_um"] = [float(v) for v in voxel_um]
    if given:
        image.attrs["read"] = given
    image.attrs["source"] = str(path.absolute())
    if image.name is None:
        image.name = _stem(path)
    if kind == "stack":
        _require_stack(image, path, flat)
    return image


def read_lightfield(
    path: str | Path,
    microscope: _Optics | None = None,
    layout: str = "auto",
    axes: str | None = None,
) -> xr.DataArray:
    """Read a light field: a raw camera frame (or a movie of them), or a rectified 4-D one.

    Parameters
    ----------
    path : path
        TIFF, OME-Zarr, or npz (4-D only).
    microscope : optional
        Its object-space pixel becomes the spacing: cameras write the chip's pixel, a print resolution
        or nothing into raw frames. Without one the file's own sizes are taken, or none.
    layout : str
        ``raw`` (camera frames), ``lenslet:N`` (rectified, N pixels per lenslet), ``vuts`` (4-D), or
        ``auto``: vuts for npz files and for TIFFs with four axes that nobody named, else raw.
    axes : str, optional
        As in `read_image`.

    Returns
    -------
    xarray.DataArray
        dims ``y x`` or ``t y x``; ``v u t s`` for 4-D light fields. ``attrs["layout"]`` says which.

    Raises
    ------
    RequestError
        If the file does not hold a light field of this layout.
    """
    path = Path(path)
    n_pixels = _parse_layout(layout)
    if path.suffix.lower() == ".npz":
        if layout not in ("auto", "vuts"):
            raise RequestError(f"An npz file holds a 4-D light field, not layout '{layout}'.", "Use 'vuts'.")
        image = light_field_from_npz(path)
        image.name = _stem(path)
    elif layout in ("auto", "vuts") and not is_zarr(path) and axes is None:
        image = _raw_or_vuts(path, layout)
    else:
        image = read_image(path, "lightfield", axes)
    is_vuts = image.dims == LIGHT_FIELD_DIMS
    if is_vuts != (layout == "vuts") and layout != "auto":
        raise RequestError(
            f"{path.name} has the axes {' '.join(map(str, image.dims))}, which is not layout '{layout}'.",
            "Use the layout 'vuts' for 4-D light fields and 'raw' for camera frames.",
        )
    if is_vuts:
        if microscope is not None and microscope.lenslet_um is not None:
            image.attrs["lenslet_um"] = float(microscope.lenslet_um)
        image.attrs["layout"] = "vuts"
        return image
    if "z" in image.dims or "c" in image.dims:
        extra = " and ".join(d for d in ("c", "z") if d in image.dims)
        raise RequestError(
            f"{path.name} has a {extra} axis; a raw light field is one camera frame or a movie of frames.",
            "Name its axes, e.g. with --axes TYX, or export one channel."
            if axes is None and image.ndim == 3
            else "Export one channel.",
        )
    if n_pixels and (image.sizes["y"] % n_pixels or image.sizes["x"] % n_pixels):
        raise RequestError(
            f"{path.name} ({image.sizes['y']} x {image.sizes['x']} pixels) is not a whole number of lenslets "
            f"of {n_pixels} pixels.",
            "Check N, or use the layout 'raw'.",
        )
    if microscope is not None:
        size = float(microscope.object_pixel_um)
        if n_pixels and microscope.lenslet_um is not None:
            size = float(microscope.lenslet_um) / n_pixels  # rectified pixels are not the camera's
        image = _resized(image, (size, size))
    image.attrs["layout"] = layout if n_pixels else "raw"
    return image


def axes_that_fit(path: str | Path, axes: str | None) -> str | None:
    """Return `axes` if a file has as many, else None: a white frame has no time axis to name."""
    path = Path(path)
    if axes is None or is_zarr(path) or path.suffix.lower() == ".npz":
        return axes
    return axes if len(describe(path)[0].shape) == len(axes.strip()) else None


def _parse_layout(layout: str) -> int:
    if layout in ("auto", "raw", "vuts"):
        return 0
    match = re.fullmatch(r"lenslet:(\d+)", layout)
    if match is None or not 3 <= int(match.group(1)) <= 1001:
        raise RequestError(
            f"There is no layout '{layout}'.", "Use auto, raw, lenslet:N (e.g. lenslet:15) or vuts."
        )
    return int(match.group(1))


def _from_tiff(
    found: list[TiffSeries], index: int, path: Path, kind: Kind | None, axes: str | None
) -> xr.DataArray:
    if not 0 <= index < len(found):
        raise RequestError(
            f"{path.name} has {len(found)} images, not {index + 1}.", f"Use 0 to {len(found) - 1}."
        )
    if len(found) > 1:
        logger.info("%s holds %d images; this is number %d.", path.name, len(found), index)
    series = found[index]
    _refuse_odd_pixels(series, kind, coloured=axes is None)
    known = series.record.get("dims") if axes is None else None
    if axes is not None:
        dims = parse_axes(axes, series.shape, path.name)
        _refuse_colours_as_pixels(series, dims, axes)
    else:
        dims = name_axes(series.axes, series.shape, kind, path.name)
    at = None if "v" in (known or ()) or "t" not in dims else dims.index("t")
    movie = at is not None and series.shape[at] > 1
    pixels = read_pixels(series, lazy=movie or series.nbytes > LAZY_BYTES, time_axis=at)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if known:
        image = apply_record(pixels, series.record, str(path))
        if image is not None:
            return image
        logger.warning("The record in %s does not fit its pixels and is ignored.", path.name)
    order = canonical(dims)
    as_time = axes is None and kind == "lightfield" and "Z" in series.axes and "z" not in dims
    image = labelled(
        pixels.transpose([dims.index(d) for d in order]),
        order,
        {d: s for d, s in series.spacing.items() if d in order},
    )
    image.name = _stem(path)  # xarray would take dask's
    if as_time and movie:
        image.attrs["z_read_as_t"] = True
    if len(series.channels) == image.sizes.get("c"):
        image = image.assign_coords(c=list(series.channels))
    return image


def _refuse_odd_pixels(series: TiffSeries, kind: Kind | None, coloured: bool) -> None:
    name = series.path.name
    if coloured and series.colour_channels:
        # three frames, or three planes, are often tagged as a colour picture
        name_as = ("T", "frames") if kind in ("image", "lightfield") else ("C", "channels")
        letters = series.axes.replace("S", name_as[0]).replace("Q", "T").replace("I", "T")
        other = f", or read its colours as {name_as[1]} with --axes {letters}"
        if len(set(letters)) < len(letters):
            other = ""
        raise RequestError(
            f"{name} is a colour picture with {series.colour_channels} channels (RGB), not a grey image.",
            f"Convert it to grey (in Fiji: Image > Type > 16-bit){other}.",
        )
    if len(series.shape) < 2 or sorted(series.shape)[-2] < 2:
        raise RequestError(
            f"{name} is one-dimensional ({' x '.join(map(str, series.shape))}).",
            "Give an image with rows and columns.",
        )
    if series.dtype.kind not in "buif":
        raise RequestError(
            f"{name} holds {series.dtype.name} numbers, which is no image.", "Save its magnitude as 32-bit."
        )


def _refuse_colours_as_pixels(series: TiffSeries, dims: tuple[str, ...], axes: str) -> None:
    """Refuse axes that make rows or columns of the three colours of an (y, x, 3) picture."""
    if not series.colour_channels or dims[series.axes.index("S")] not in "yx":
        return
    letters = series.axes.replace("S", next((c for c in "TCZ" if c not in series.axes), "C"))
    raise RequestError(
        f"The axes '{axes.upper()}' do not fit {series.path.name}: its {series.colour_channels} colours are "
        "no rows or columns.",
        f"Give --axes {letters}.",
    )


def _require_stack(image: xr.DataArray, path: Path, flat: bool = False) -> None:
    if "z" not in image.dims and not flat:
        if "t" in image.dims:
            raise RequestError(
                f"{path.name} has a time axis and no z axis.",
                "If its frames are planes, say so with --axes ZYX.",
            )
        raise RequestError(f"{path.name} is a single image; a stack has several planes.", "Give a z-stack.")
    missing = [
        d for d in "zyx" if d in image.dims and d not in image.coords and d not in image.attrs["spacing"]
    ]
    if missing:
        raise RequestError(
            f"{path.name} does not say how large its voxels are (no size along {', '.join(missing)}).",
            "Give it with --voxel-um Z,Y,X (micrometres).",
        )


def _resized(image: xr.DataArray, voxel_um: Sequence[float]) -> xr.DataArray:
    """Replace the sizes of the last spatial dims; the origin stays at 0 (or where it was, in pixels)."""
    values = [float(v) for v in voxel_um]
    dims = [d for d in "zyx" if d in image.dims]
    if len(values) not in (2, 3) or not all(np.isfinite(v) and v > 0 for v in values):
        raise RequestError(
            f"The voxel size {', '.join(f'{v:g}' for v in values)} is not valid.",
            "Give micrometres as Z,Y,X (or Y,X), all above 0.",
        )
    if len(values) < len(dims):
        raise RequestError("The voxel size has two numbers for an image with a z axis.", "Give Z,Y,X.")
    spacing = {
        **image.attrs.get("spacing", {}),
        **dict(zip(dims, values[len(values) - len(dims) :], strict=True)),
    }
    image.attrs.pop("affine_um", None)
    kept = {d: image.coords[d] for d in ("t", "c") if d in image.coords}
    names = [str(d) for d in image.dims]
    out = labelled(image.data, names, {d: spacing[d] for d in dims}, attrs=image.attrs).rename(image.name)
    out.attrs["spacing"] = spacing
    return out.assign_coords(kept)


def _relabel(image: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    spacing = {d: s for d, s in image.attrs.get("spacing", {}).items() if d in dims}
    renamed = labelled(image.data, dims, spacing, attrs={**image.attrs, "spacing": spacing}).rename(
        image.name
    )
    return renamed.transpose(*canonical(dims))


def _raw_or_vuts(path: Path, layout: str) -> xr.DataArray:
    """Read a TIFF whose fourth axis may make it a 4-D light field."""
    series = describe(path)[0]
    ours = series.record.get("dims") == list(LIGHT_FIELD_DIMS)
    unnamed = not set(series.axes[:-2]) - set("QIS")  # tifffile guesses colour from a length of 3 or 4
    if len(series.shape) == 4 and not ours and (layout == "vuts" or unnamed):
        data = read_pixels(series, lazy=False)
        return xr.DataArray(
            data,
            dims=LIGHT_FIELD_DIMS,
            name=_stem(path),
            attrs={"spacing": {}, "source": str(path.absolute())},
        )
    return read_image(path, "lightfield")


def _stem(path: Path) -> str:
    return re.sub(r"\.(ome\.)?(tiff?|zarr|npz)$", "", path.name, flags=re.IGNORECASE)
