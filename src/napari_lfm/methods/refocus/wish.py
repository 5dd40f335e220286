"""From the parameters of a run to heights: files read, planes counted, surfaces drawn."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import origin_of, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.engine import BEYOND
from napari_lfm.methods.refocus.opening import resampled
from napari_lfm.methods.refocus.surfaces import height_map, through_points, tilted

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.refocus.parameters import RefocusParameters

MOST_PLANES = 1000
_POINT_COLUMNS = ("z_um", "y_um", "x_um")


def with_files(request: Request) -> Request:
    """Return a request that holds what its files say, so that its record is complete in itself.

    Raises
    ------
    RequestError
        If a file is missing or holds something else.
    """
    parameters = parameters_of(request)
    changes: dict[str, Any] = {}
    if parameters.points_file is not None and parameters.surface == "points":
        changes |= {"points_um": read_surface_points(parameters.points_file), "points_file": None}
    if parameters.drift_file is not None:
        changes |= {"drift_um": read_drift(parameters.drift_file), "drift_file": None}
    if parameters.surface == "height-map" and parameters.height_map_file is not None:
        path = Path(parameters.height_map_file).expanduser().absolute()
        changes["height_map_file"] = str(path)
        if "height_map" not in request.inputs:
            inputs = {**request.inputs, "height_map": _read_map(path)}
            request = replace(request, inputs=inputs, sources={**request.sources, "height_map": str(path)})
    if not changes:
        return request
    return replace(request, parameters=type(parameters).model_validate(parameters.model_dump() | changes))


def parameters_of(request: Request) -> RefocusParameters:
    """Return the request's parameters."""
    return request.parameters  # type: ignore[return-value]


def read_surface_points(path: str | Path) -> list[tuple[float, float, float]]:
    """Return the points of a CSV with the columns ``z_um, y_um, x_um``; further ones are left out.

    Raises
    ------
    RequestError
        If there is no such file or column, or a cell is no number.
    """
    path = Path(path).expanduser()
    rows = _rows(path)
    header = [cell.strip() for cell in rows[0]] if rows else []
    missing = [c for c in _POINT_COLUMNS if c not in header]
    if missing:
        raise RequestError(
            f"{path.name} has no column {', '.join(missing)}.",
            "Give a CSV whose first line is z_um,y_um,x_um, as napari-lfm saves points.",
        )
    at = [header.index(c) for c in _POINT_COLUMNS]
    out: list[tuple[float, float, float]] = []
    for number, row in enumerate(rows[1:], 2):
        try:
            z, y, x = (float(row[k]) for k in at)
        except (ValueError, IndexError):
            raise RequestError(
                f"Line {number} of {path.name} has no three numbers.", "Correct or remove it."
            ) from None
        out.append((z, y, x))
    return out


def read_drift(path: str | Path) -> list[float]:
    """Return the first number of every line; a first line in words is a heading.

    Raises
    ------
    RequestError
        If there is no such file, or a line has no number.
    """
    path = Path(path).expanduser()
    out: list[float] = []
    for number, row in enumerate(_rows(path), 1):
        try:
            out.append(float(row[0]))
        except ValueError:
            if number > 1:
                raise RequestError(
                    f"Line {number} of {path.name} begins with '{row[0]}', which is no distance.",
                    "Give one distance in micrometres per line.",
                ) from None
    return out


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row and any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise RequestError(f"{path} cannot be read as text.", "Check the path and the file.") from None


def _read_map(path: Path) -> xr.DataArray:
    import xarray as xr

    from napari_lfm.io.read import read_image

    if path.suffix.lower() != ".npy":
        image = read_image(path, kind=None)
        return image.squeeze([d for d in image.dims if d not in ("y", "x") and image.sizes[d] == 1])
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise RequestError(f"{path.name} cannot be read as a height map.", "Check the path.") from None
    if values.ndim != 2:
        raise RequestError(f"{path.name} has {values.ndim} axes.", "A height map has y and x.")
    return xr.DataArray(values, dims=("y", "x"), attrs={"source": str(path)})


def planes_um(parameters: RefocusParameters, range_um: float, step_um: float) -> np.ndarray:
    """Return the distances of a stack.

    Parameters
    ----------
    parameters : RefocusParameters
    range_um, step_um : float
        The model's.

    Raises
    ------
    RequestError
        If the range is reversed, holds too many planes, or leaves what can be computed.
    """
    low = -range_um if parameters.z_min_um is None else parameters.z_min_um
    high = range_um if parameters.z_max_um is None else parameters.z_max_um
    step = step_um if parameters.z_step_um is None else parameters.z_step_um
    if high < low:
        raise RequestError(f"z_max_um = {high:g} lies below z_min_um = {low:g}.", "Swap them.")
    refuse_far(low, range_um)
    refuse_far(high, range_um)
    count = int(np.floor((high - low) / step + 1e-6)) + 1
    if count > MOST_PLANES:
        raise RequestError(
            f"{low:g} to {high:g} um in steps of {step:g} um are {count} planes; {MOST_PLANES} are the most.",
            f"Give a larger z_step_um; the model was trained on {step_um:g} um.",
        )
    return np.asarray(low + step * np.arange(count))


def refuse_far(z_um: float, range_um: float) -> None:
    """Refuse a plane that is too far beyond the trained range.

    Raises
    ------
    RequestError
    """
    if abs(z_um) > BEYOND * range_um * (1 + 1e-6):
        raise RequestError(
            f"A distance of {z_um:g} um is too far: the model was trained for {-range_um:g} to {range_um:g} "
            f"um, and nothing is computed beyond {BEYOND * range_um:g} um.",
            "Stay within the range, or choose a model with a longer one.",
        )


@dataclass(frozen=True)
class Pixels:
    """Pixels that heights are wanted for.

    Attributes
    ----------
    shape : tuple of int
        Of the image, (y, x).
    pixel_um : float
        Of the image.
    factor : float
        Pixels of the result per pixel of the image.
    result_shape : tuple of int
    """

    shape: tuple[int, int]
    pixel_um: float
    factor: float
    result_shape: tuple[int, int]

    @property
    def result_pixel_um(self) -> float:
        """Pixels of the result."""
        return self.pixel_um / self.factor


def heights_um(request: Request, pixels: Pixels) -> np.ndarray:
    """Return the surface on the pixels of the result, drift apart; (1, 1) for a plane.

    Raises
    ------
    RequestError
        If the surface is none.
    """
    p = parameters_of(request)
    shape, pixel_um = pixels.result_shape, pixels.result_pixel_um
    if p.surface == "plane":
        return np.full((1, 1), p.z_um, np.float32)
    if p.surface == "tilt":
        return tilted(shape, pixel_um, p.z_um, p.tilt_x_deg, p.tilt_y_deg)
    if p.surface == "points":
        points = p.points_um
        if points is None and p.points_file is not None:
            points = read_surface_points(p.points_file)
        if points is None:
            raise RequestError(
                "A surface through points needs points.", "Give points_file, a CSV with z_um, y_um, x_um."
            )
        placed = _from_corner(np.array(points, float).reshape(-1, 3), request.inputs["image"], pixels)
        return through_points(placed, shape, pixel_um, p.smoothing) + np.float32(p.z_um)
    if p.surface != "height-map":
        raise RequestError(f"'{p.surface}' is no single surface.")
    given = request.inputs.get("height_map")
    if given is None and p.height_map_file is not None:
        given = _read_map(Path(p.height_map_file).expanduser())
    if given is None:
        raise RequestError("There is no height map.", "Give height_map_file, or choose its layer.")
    heights = height_map(given.values, pixels.shape, pixels.pixel_um, p.height_map_unit)
    return resampled(heights, pixels.factor) + np.float32(p.z_um) if pixels.factor != 1 else heights + p.z_um


def _from_corner(points_um: np.ndarray, image: xr.DataArray, pixels: Pixels) -> np.ndarray:
    """Return points as distances from the first pixel, whatever the image's own coordinates."""
    origin, spacing = origin_of(image), spacing_of(image)
    out = points_um.copy()
    for k, d in ((1, "y"), (2, "x")):
        turned = -1.0 if spacing.get(d, 1.0) < 0 else 1.0
        out[:, k] = turned * (points_um[:, k] - origin.get(d, 0.0))
    return out


def drift_of(request: Request, frames: int) -> np.ndarray:
    """Return what is added to the surface, frame by frame.

    Raises
    ------
    RequestError
        If there is another number of values than frames.
    """
    p = parameters_of(request)
    values = p.drift_um
    if values is None and p.drift_file is not None:
        values = read_drift(p.drift_file)
    if values is None:
        return np.zeros(frames)
    if len(values) != frames:
        movie = f"The movie has {frames} frames" if frames > 1 else "There is one image"
        raise RequestError(
            f"{movie}, and {len(values)} values of drift are given.", "Give one value per frame."
        )
    if not np.isfinite(values).all():
        raise RequestError("A value of the drift is no number.", "Correct it.")
    return np.asarray(values, float)
