"""From an image layer to a volume that a light field can be simulated from, or a sentence why not. No Qt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from pydantic import BaseModel, ConfigDict, Field

from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.io.layers import image_from_layer_info

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

_MOST_LENSLETS = 61
_USUAL_PLANES = 15


class SimulateSettings(BaseModel):
    """How a volume is recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    focus_um: float = Field(default=0.0, ge=-100_000, le=100_000)
    """The z of the layer that lies in the native plane, where the microscope is focused."""
    z_min_um: float = Field(default=-10.0, ge=-10_000, le=10_000)
    """Lowest plane of the recorded depths, from the native plane; + is towards the objective."""
    z_max_um: float = Field(default=10.0, ge=-10_000, le=10_000)
    """Highest plane of the recorded depths, from the native plane."""
    z_step_um: float = Field(default=1.0, gt=0, le=1000)
    """Distance of the planes of the truth; the light itself is simulated in steps half as large."""
    lenslet_rows: int = Field(default=21, ge=3, le=201)
    """Lenslets on the camera from top to bottom."""
    lenslet_columns: int = Field(default=21, ge=3, le=201)
    """Lenslets on the camera from left to right."""
    peak_electrons: float = Field(default=3000.0, gt=0, le=1e7)
    """Photo-electrons in the brightest pixels: fewer are noisier."""
    background: float = Field(default=0.05, ge=0, le=100)
    """Even haze, as a share of the peak."""
    rotation_deg: float = Field(default=0.3, ge=-20, le=20, json_schema_extra={"advanced": True})
    """Rotation of the lenslet array against the camera."""
    exact_optics: bool = Field(default=False, json_schema_extra={"advanced": True})
    """Optics exactly as stated. Otherwise they are off by about a percent, as in a real microscope."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra={"advanced": True})
    """The same seed gives the same noise."""

    @property
    def z_um(self) -> tuple[float, float, float]:
        """First plane, last plane and step."""
        return self.z_min_um, self.z_max_um, self.z_step_um


def volume_of(layer: Any) -> xr.DataArray:
    """Return the volume (z, y, x) in micrometres that an image layer shows; its values are not looked at.

    Raises
    ------
    RequestError
        If the layer is no image, has no depth, several frames or channels, no sizes, or is turned.
    """
    if not isinstance(layer, Image):
        raise RequestError(f"'{layer.name}' is not an image layer.", "Choose an image layer with a volume.")
    data = layer.data[0] if layer.multiscale else layer.data
    if 0 in data.shape:
        raise RequestError(f"'{layer.name}' is empty.", "Choose a layer with a volume.")
    if len(data.shape) == 2:
        raise RequestError(
            f"'{layer.name}' is a flat image, without depth.", "Choose a volume with the axes z, y, x."
        )
    image = image_from_layer_info(
        data,
        layer.scale,
        layer.translate,
        layer.affine,
        layer.units,
        layer.axis_labels,
        layer.metadata,
        layer.source.path,
        name=layer.name,
        rgb=bool(layer.rgb),
        rotate=layer.rotate,
        shear=layer.shear,
        kind="stack",
    )
    single = [d for d in image.dims if d not in ("z", "y", "x") and image.sizes[d] == 1]
    image = image.isel(dict.fromkeys(single, 0), drop=True)
    if set(image.dims) != {"z", "y", "x"}:
        axes = ", ".join(map(str, image.dims))
        raise RequestError(
            f"'{layer.name}' has the axes {axes}, not one volume z, y, x.",
            "Give one time point and one channel (Layer > Split Stack).",
        )
    if image.sizes["z"] < 2:
        raise RequestError(f"'{layer.name}' is a single plane, without depth.", "Choose a volume.")
    if "affine_um" in image.attrs:
        raise RequestError(
            f"'{layer.name}' is turned in space.", "Reset its rotation, shear and affine matrix."
        )
    if not all(d in spacing_of(image) for d in "zyx"):
        raise RequestError(
            f"'{layer.name}' has no voxel size in micrometres.",
            "Set the layer's scale and units (um), or open its file with this plugin.",
        )
    return image


def checked(volume: xr.DataArray, focus_um: float) -> xr.DataArray:
    """Return the volume as float32 with `focus_um` at z = 0; looks at every value.

    Raises
    ------
    RequestError
        If values are negative or not finite, or all of them are zero.
    """
    data = np.asarray(volume.values, np.float32)
    name = volume.name
    if not np.isfinite(data).all():
        raise RequestError(
            f"'{name}' holds values that are not numbers (NaN or infinite).", "Replace them, say by 0."
        )
    if data.min() < 0:
        raise RequestError(
            f"'{name}' holds negative values, and light is never negative.",
            "Clip them at 0, or add an offset to the whole volume.",
        )
    if data.max() <= 0:
        raise RequestError(f"'{name}' is black: all of its values are 0.", "Choose a volume with some light.")
    spacing = spacing_of(volume)
    origin = {"z": float(volume.coords["z"].values[0]) - focus_um}
    return labelled(data, ("z", "y", "x"), {d: spacing[d] for d in "zyx"}, origin, name=str(name))


def proposal(volume: xr.DataArray, microscope: Microscope) -> dict[str, float | int]:
    """Return settings that record the whole volume, its middle in focus."""
    step = spacing_of(volume)
    z = volume.coords["z"].values
    low, high = sorted((float(z[0]), float(z[-1])))
    middle = (low + high) / 2
    unit = microscope.lenslet_um or 1.0
    half = (high - low) / 2
    planes = max(min(len(z), _USUAL_PLANES), 2)
    # the light of the lowest and highest plane spreads sideways: two lenslets more than the volume
    across = [int(np.clip(math.ceil(volume.sizes[d] * step[d] / unit) + 2, 5, _MOST_LENSLETS)) for d in "yx"]
    return {
        "focus_um": round(middle, 3),
        "z_min_um": round(-half, 3),
        "z_max_um": round(half, 3),
        "z_step_um": max(round(2 * half / (planes - 1), 3), 0.001),
        "lenslet_rows": across[0],
        "lenslet_columns": across[1],
    }
