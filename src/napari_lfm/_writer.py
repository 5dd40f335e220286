"""npe2 writers: image and labels layers to OME-TIFF or OME-Zarr, points layers to CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr


def write_image(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write one image or labels layer; sizes, units and provenance travel with it."""
    from napari_lfm.io.write import write_image as write

    return [str(write(path, _image(data, meta)))]


def write_image_layers(path: str, layers: Sequence[tuple[Any, Mapping[str, Any], str]]) -> list[str]:
    """Write several layers: the first image to `path`, each other one beside it, named after its layer."""
    from napari_lfm.io.write import further_path
    from napari_lfm.io.write import write_image as write

    written: list[str] = []
    taken = {Path(path)}
    first = next((i for i, (_, _, kind) in enumerate(layers) if kind != "points"), 0)
    for number, (data, meta, kind) in enumerate(layers):
        name = str(meta.get("name") or f"{kind}-{number}")
        if number == first:
            place = Path(path)
        else:
            suffix = ".csv" if kind == "points" else ".tif"
            place = further_path(Path(path), name, suffix)
            if place in taken:  # two layers of the same name
                place = further_path(Path(path), f"{name}-{number}", suffix)
        taken.add(place)
        if kind == "points":
            written += write_points(str(place), data, meta)
        else:
            written.append(str(write(place, _image(data, meta))))
    return written


def write_points(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a points layer as CSV in micrometres, its features as further columns."""
    from napari_lfm.io.point_layers import points_from_layer_info
    from napari_lfm.io.points import write_points as write

    table = points_from_layer_info(
        data,
        scale=meta.get("scale"),
        translate=meta.get("translate"),
        affine=meta.get("affine"),
        units=meta.get("units"),
        axis_labels=meta.get("axis_labels"),
        features=meta.get("features"),
        rotate=meta.get("rotate"),
        shear=meta.get("shear"),
        metadata=meta.get("metadata"),
    )
    return [str(write(path, table))]


def _image(data: Any, meta: Mapping[str, Any]) -> xr.DataArray:
    from napari_lfm.io.layers import image_from_layer_info

    return image_from_layer_info(
        data,
        scale=meta.get("scale"),
        translate=meta.get("translate"),
        affine=meta.get("affine"),
        units=meta.get("units"),
        axis_labels=meta.get("axis_labels"),
        metadata=meta.get("metadata"),
        name=meta.get("name"),
        rgb=bool(meta.get("rgb")),
        rotate=meta.get("rotate"),
        shear=meta.get("shear"),
    )
