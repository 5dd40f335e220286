"""npe2 reader: grey TIFF, OME-Zarr, 4-D light fields in npz, and our tables of points.

It sets what napari's own reader leaves out (sizes, units, axis labels, provenance) and leaves alone
what it cannot do better: colour pictures, other CSV and npz files, anything it cannot name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import LfmError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

LayerData = tuple[Any, dict[str, Any], str]
_MAX_SERIES = 16


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a function that reads `path`, or None when another reader should.

    Only the head of a file is looked at.
    """
    if not isinstance(path, str):
        # several files at once are to become one stack, which napari's own reader does
        return get_reader(path[0]) if len(path) == 1 else None
    file = Path(path)
    name = file.name.lower()
    try:
        if name.endswith(".csv"):
            from napari_lfm.io.points import is_points_file

            return _read_points if is_points_file(file) else None
        if name.endswith((".tif", ".tiff")):
            return _read_tiff if _is_ours_to_read(file) else None
        if name.rstrip("/").endswith(".zarr"):
            from napari_lfm.io.ome_zarr import read_ome_zarr

            read_ome_zarr(file, force_lazy=True)
            return _read_zarr
        if name.endswith(".npz"):
            return _read_npz if _has_light_field(file) else None
    except LfmError:
        return None
    return None


def _is_ours_to_read(file: Path) -> bool:
    from napari_lfm.io.axes import name_axes
    from napari_lfm.io.tiff import describe

    found = describe(file)
    for series in found:
        if series.colour_channels or series.dtype.kind not in "buif" or len(series.shape) < 2:
            return False
        if not series.record:
            name_axes(series.axes, series.shape, None, file.name)
    return len(found) <= _MAX_SERIES


def _has_light_field(file: Path) -> bool:
    import zipfile

    # names only: the arrays may be large
    try:
        with zipfile.ZipFile(file) as archive:
            return bool({"vuts.npy", "lightfield.npy"} & set(archive.namelist()))
    except (OSError, zipfile.BadZipFile):
        return False


def _one(path: Any) -> Path:
    return Path(path if isinstance(path, str) else path[0])


def _role(image: xr.DataArray) -> str:
    if "v" in image.dims or "layout" in image.attrs:
        return "lightfield"
    return "volume" if "z" in image.dims else "image"


def _read_tiff(path: Any) -> list[LayerData]:
    from napari_lfm.io.layers import layer_data_from
    from napari_lfm.io.read import read_image
    from napari_lfm.io.tiff import describe

    file = _one(path)
    n_series = len(describe(file))
    out: list[LayerData] = []
    for i in range(n_series):
        image = read_image(file, kind=None, series=i)
        name = str(image.name) + (f" [{i}]" if n_series > 1 else "")
        out.append(layer_data_from(image, name, _role(image)))
    return out


def _read_zarr(path: Any) -> list[LayerData]:
    from napari_lfm.io.layers import layer_data_from
    from napari_lfm.io.read import read_image

    image = read_image(_one(path), kind=None)
    return [layer_data_from(image, None, _role(image))]


def _read_npz(path: Any) -> list[LayerData]:
    from napari_lfm.io.layers import layer_data_from
    from napari_lfm.io.read import read_lightfield

    return [layer_data_from(read_lightfield(_one(path)), None, "lightfield")]


def _read_points(path: Any) -> list[LayerData]:
    from napari_lfm.io.point_layers import points_layer_data_from
    from napari_lfm.io.points import read_points

    file = _one(path)
    return [points_layer_data_from(read_points(file), file.stem)]
