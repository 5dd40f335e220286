"""Between labelled images and napari layers, as plain data: nothing here imports napari.

A layer keeps what an image knows: scale, translation (or an affine matrix), units and axis labels
where napari shows them, everything else under ``metadata["napari_lfm"]``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from napari_lfm.core.labelled import affine_of, labelled
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.axes import ORDER, Kind, canonical, name_axes
from napari_lfm.io.ome_zarr import is_zarr, read_ome_zarr
from napari_lfm.io.record import apply_record, exact_spacing
from napari_lfm.io.tiff import describe
from napari_lfm.io.units import length_in_um, time_in_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

METADATA_KEY = "napari_lfm"
_LIGHT_FIELD = ("v", "u", "t", "s")
# image attributes that stand elsewhere in a layer
_ELSEWHERE = ("spacing", "affine_um")
_SAMPLED_PIXELS = 2**20


def layer_data_from(
    image: xr.DataArray,
    name: str | None = None,
    role: str = "image",
    *,
    colormap: str | None = None,
    contrast_limits: tuple[float, float] | None = None,
    **extra: Any,
) -> tuple[Any, dict[str, Any], str]:
    """Return the napari layer data of a labelled image.

    Parameters
    ----------
    image : xarray.DataArray
        dims out of ``t c z y x``, or ``v u t s``; numpy or dask.
    name : str, optional
        Layer name; default the image's.
    role : str
        ``lightfield``, ``white``, ``dark``, ``volume``, ...: what panels take it for.
    colormap : str, optional
        napari colormap name.
    contrast_limits : tuple of float, optional
        Default: the 0.1 and 99.9 percentiles of a sample (one frame of a lazy image).
    **extra
        Further layer arguments (``blending``, ``visible``, ...).

    Returns
    -------
    tuple
        ``(data, arguments, "image")``; axes of unknown size have scale 1 and the unit ``pixel``.
    """
    dims = tuple(map(str, image.dims))
    if "c" in dims and "c" in image.coords and image["c"].dtype.kind not in "iuf":
        image = image.drop_vars("c")  # names have no place on an axis in napari
    matrix = affine_of(image)
    if "affine_um" not in image.attrs:
        spacing = exact_spacing(image)
        np.fill_diagonal(matrix[:-1, :-1], [spacing.get(d, 1.0) for d in dims])
    arguments: dict[str, Any] = {
        "name": name or ("image" if image.name is None else str(image.name)),
        "axis_labels": dims,
        "units": tuple(_unit(image, d) for d in dims),
    }
    scale = np.linalg.norm(matrix[:-1, :-1], axis=0)
    straight = matrix[:-1, :-1]
    if np.allclose(straight, np.diag(np.diag(straight)), atol=1e-12 * max(1.0, float(scale.max()))):
        arguments["scale"] = tuple(float(v) for v in np.diag(straight))
        arguments["translate"] = tuple(float(v) for v in matrix[:-1, -1])
    else:
        # keep the voxel size readable as the layer's scale; the matrix does the rest
        arguments["scale"] = tuple(float(v) for v in scale)
        arguments["affine"] = matrix @ np.diag([*(1 / scale), 1.0])
    kept = {str(k): v for k, v in image.attrs.items() if k not in _ELSEWHERE}
    arguments["metadata"] = {METADATA_KEY: {**kept, "role": role}}
    limits = contrast_limits if contrast_limits is not None else contrast_of(image)
    if limits is not None:
        arguments["contrast_limits"] = limits
    if colormap is not None:
        arguments["colormap"] = colormap
    arguments.update(extra)
    return image.data, arguments, "image"


def _unit(image: xr.DataArray, dim: str) -> str:
    if "v" in image.dims or dim == "c":
        return "pixel"
    known = dim in image.coords or dim in image.attrs.get("spacing", {})
    if dim == "t":
        return "s" if known else "pixel"
    return "um" if known or "affine_um" in image.attrs else "pixel"  # not "px": that is a CSS pixel


def contrast_of(image: xr.DataArray) -> tuple[float, float] | None:
    """Return contrast limits from about a million pixels, None when the sample is flat."""
    data = image.data
    if hasattr(data, "dask"):  # a lazy image: its middle frame
        data = data[tuple(n // 2 for n in data.shape[:-2])] if data.ndim > 2 else data
    step = max(1, int(np.ceil(np.sqrt(data.size / _SAMPLED_PIXELS))))
    sample = np.asarray(data[..., ::step, ::step], float)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    low, high = (float(v) for v in np.percentile(sample, (0.1, 99.9)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else None


def image_from_layer_info(
    data: Any,
    scale: Sequence[float] | None = None,
    translate: Sequence[float] | None = None,
    affine: Any = None,
    units: Sequence[Any] | None = None,
    axis_labels: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    source_path: str | Path | None = None,
    *,
    name: str | None = None,
    rgb: bool = False,
    rotate: Any = None,
    shear: Any = None,
    kind: Kind | None = None,
) -> xr.DataArray:
    """Return the labelled image of any napari layer, whoever opened it.

    What the layer itself says comes first. Where it says nothing (napari's own reader sets neither
    labels nor sizes), the file at `source_path` is asked, and then `kind`.

    Parameters
    ----------
    data : array or sequence of arrays
        ``layer.data``; of a multiscale layer the finest level is taken.
    scale, translate, affine, units, axis_labels, metadata
        As the layer has them; `units` as text or pint units, `affine` as a matrix.
    source_path : path, optional
        ``layer.source.path``.
    name : str, optional
        ``layer.name``.
    rgb : bool
        ``layer.rgb``.
    rotate, shear : optional
        ``layer.rotate`` (a matrix) and ``layer.shear`` (its upper triangle).
    kind : {"stack", "image", "lightfield"} or None
        What the image is to be used as; names a leading axis that nobody named.

    Returns
    -------
    xarray.DataArray
        Coordinates in micrometres (and s) where sizes are known.

    Raises
    ------
    RequestError
        If the layer is a colour picture or its axes cannot be named.
    """
    title = name or (Path(source_path).name if source_path else "The layer")
    if rgb:
        raise RequestError(
            f"{title} is a colour picture with {np.shape(data)[-1]} channels (RGB), not a grey image.",
            "Split it (Layer > Split RGB) and choose one of its channels.",
        )
    if isinstance(data, list | tuple) or hasattr(data, "shapes"):
        data = data[0]
    if isinstance(data, xr.DataArray):
        data = data.data
    n = len(data.shape)
    if n < 2:
        raise RequestError(f"{title} is one-dimensional.", "Choose an image with rows and columns.")
    matrix = total_matrix(n, scale, translate, affine, rotate, shear)
    units = tuple(str(u) for u in units) if units is not None else ("pixel",) * n
    placed = not np.array_equal(matrix, np.eye(n + 1)) or any(_factor(u) is not None for u in units)
    ours = dict((metadata or {}).get(METADATA_KEY, {}))
    dims = _labels(axis_labels, n)
    from_file = None
    if source_path and not ours and not placed:
        from_file = _ask_file(data, Path(source_path), kind)
    if from_file is not None and (dims is None or dims == from_file.dims):
        from_file.name = name or from_file.name
        return from_file
    if dims is None:
        dims = name_axes("Q" * (n - 2) + "YX", tuple(data.shape), kind, title)
    elif kind == "lightfield" and "z" in dims and "t" not in dims:
        at = dims.index("z")  # a movie that its file calls slices; a raw light field has no z axis
        dims = (*dims[:at], "t", *dims[at + 1 :])
        if time_in_s(units[at]) is None:
            units = (*units[:at], "pixel", *units[at + 1 :])
    attrs = {k: v for k, v in ours.items() if k != "role"}
    if source_path and "source" not in attrs:
        attrs["source"] = str(source_path)
    image = _placed_image(data, dims, matrix, units, placed, attrs)
    image.name = name  # xarray would take dask's
    return image if dims == _LIGHT_FIELD else image.transpose(*canonical(dims))


def _labels(axis_labels: Sequence[str] | None, n: int) -> tuple[str, ...] | None:
    """Return the layer's labels as dims, None when they are napari's defaults or foreign words."""
    dims = tuple(str(a).lower() for a in axis_labels or ())
    if dims == _LIGHT_FIELD:
        return dims
    good = len(dims) == n == len(set(dims)) and set(dims) <= set(ORDER) and {"y", "x"} <= set(dims)
    return dims if good else None


def total_matrix(
    n: int,
    scale: Sequence[float] | None,
    translate: Sequence[float] | None,
    affine: Any = None,
    rotate: Any = None,
    shear: Any = None,
) -> np.ndarray[Any, Any]:
    """Return a layer's whole data-to-world matrix, shape (n + 1, n + 1).

    napari applies scale, shear, rotation, translation, and then the affine matrix. `rotate` is a
    matrix and `shear` the entries above its diagonal, as layers have them.
    """
    own = np.eye(n + 1)
    if scale is not None:
        own[:n, :n] = np.diag(np.asarray(scale, float))
    if shear is not None:
        sheared = np.eye(n)
        sheared[np.triu_indices(n, 1)] = np.asarray(shear, float)
        own[:n, :n] = sheared @ own[:n, :n]
    if rotate is not None:
        own[:n, :n] = np.asarray(rotate, float) @ own[:n, :n]
    if translate is not None:
        own[:n, -1] = np.asarray(translate, float)
    if affine is None:
        return own
    return np.asarray(getattr(affine, "affine_matrix", affine), float) @ own


def _factor(unit: str) -> float | None:
    return length_in_um(unit) or time_in_s(unit)


def _placed_image(
    data: Any,
    dims: tuple[str, ...],
    matrix: np.ndarray[Any, Any],
    units: tuple[str, ...],
    placed: bool,
    attrs: dict[str, Any],
) -> xr.DataArray:
    if dims == _LIGHT_FIELD or not placed:
        return xr.DataArray(data, dims=dims, attrs={"spacing": {}, **attrs})
    # readers that set a scale without units mean micrometres: only then is "pixel" not to be believed
    unitless = all(_factor(u) is None for u in units)
    known: dict[str, float] = {}
    for i, (dim, unit) in enumerate(zip(dims, units, strict=True)):
        factor = time_in_s(unit) if dim == "t" else length_in_um(unit) if dim in "zyx" else None
        if factor is None and unitless and dim != "c" and (dim in "yx" or matrix[i, i] != 1.0):
            factor = 1.0
        if factor is not None:
            known[dim] = factor
    factors = np.array([*(known.get(d, 1.0) for d in dims), 1.0])
    matrix = factors[:, None] * matrix
    straight = matrix[:-1, :-1]
    if np.allclose(straight, np.diag(np.diag(straight)), atol=1e-9 * float(np.abs(straight).max())):
        spacing = {d: float(matrix[i, i]) for i, d in enumerate(dims) if d in known}
        origin = {d: float(matrix[i, -1]) for i, d in enumerate(dims) if d in known}
        return labelled(data, dims, spacing, origin, attrs=attrs)
    norms = np.linalg.norm(straight, axis=0)
    spacing = {d: float(norms[i]) for i, d in enumerate(dims) if d in known}
    if dims != canonical(dims):
        raise RequestError(
            "A rotated layer must have its axes in the order t, c, z, y, x.", "Transpose it first."
        )
    return xr.DataArray(data, dims=dims, attrs={**attrs, "spacing": spacing, "affine_um": matrix.tolist()})


def _ask_file(data: Any, path: Path, kind: Kind | None) -> xr.DataArray | None:
    """Label `data` with what the file it came from says, None when file and data do not fit."""
    try:
        if is_zarr(path):
            image = read_ome_zarr(path)
            return image.copy(data=data) if image.shape == tuple(data.shape) else None
        if path.suffix.lower() not in (".tif", ".tiff"):
            return None
        series = describe(path)[0]
        if series.record:
            return apply_record(data, series.record, str(path))
        axes = "".join(a for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX")
        if len(axes) != len(data.shape) or [n for n in series.shape if n > 1] != [
            n for n in data.shape if n > 1
        ]:
            return None
        dims = name_axes(axes, tuple(data.shape), kind, path.name)
    except LfmError as error:
        logger.debug("%s tells nothing about its layer: %s", path, error)
        return None
    order = canonical(dims)
    spacing = {d: s for d, s in series.spacing.items() if d in order}
    flat = data.transpose([dims.index(d) for d in order])
    image = labelled(flat, order, spacing, attrs={"source": str(path)})
    image.name = path.stem
    return image
