"""One volume or plane out of a labelled image, and its voxel size, or a sentence why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.labelled import SPATIAL, affine_of, spacing_of
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import xarray as xr


def one_image(image: xr.DataArray, what: str) -> xr.DataArray:
    """Return an image as one volume (z, y, x) or plane (y, x).

    Raises
    ------
    RequestError
        If it has time points, channels or other axes left, or lies turned.
    """
    thin = [d for d in image.dims if d not in SPATIAL and image.sizes[d] == 1]
    if "z" in image.dims and image.sizes["z"] == 1:
        thin.append("z")
    if thin and "affine_um" not in image.attrs:
        image = image.isel(dict.fromkeys(thin, 0), drop=True)
    if set(image.dims) not in ({"z", "y", "x"}, {"y", "x"}):
        raise RequestError(
            f"{what} has the axes {', '.join(map(str, image.dims))}.",
            "These measures take one volume (z, y, x) or plane (y, x): choose a channel and a time point.",
        )
    if "affine_um" in image.attrs:
        matrix = affine_of(image)[: image.ndim, : image.ndim]
        if np.abs(matrix - np.diag(np.diag(matrix))).max() > 1e-6 * np.abs(matrix).max():
            raise RequestError(f"{what} lies turned in its coordinates.", "Resample it first.")
    return image.transpose(*[d for d in SPATIAL if d in image.dims])


def voxel_um_of(image: xr.DataArray) -> dict[str, float]:
    """Return the voxel size along every axis.

    Raises
    ------
    RequestError
        If it is not known along one.
    """
    known = {d: abs(s) for d, s in spacing_of(image).items()}
    missing = [str(d) for d in image.dims if not known.get(str(d), 0.0) > 0]
    if missing:
        raise RequestError(
            f"The image does not say how large its voxels are (no size along {', '.join(missing)}).",
            "Give the voxel size in micrometres.",
        )
    return {str(d): known[str(d)] for d in image.dims}
