"""A measured or given volume as the subject of a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.simulation.scene import Grid


def sample_volume(volume: xr.DataArray, grid: Grid, rotation_deg: float = 0.0) -> npt.NDArray[np.float32]:
    """Return the volume on a grid around the centre of the field, zero outside the volume.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x`` with voxel sizes, not negative. Its z coordinates are kept; laterally its centre is
        the centre of the field.
    grid : Grid
        Where to sample, in coordinates rotated by `rotation_deg` against the volume's.
    rotation_deg : float
        + from x towards y.

    Raises
    ------
    RequestError
        If the volume has other axes, no voxel sizes, or negative or non-finite values.
    """
    from scipy.ndimage import gaussian_filter1d, map_coordinates

    if set(volume.dims) != {"z", "y", "x"}:
        raise RequestError(
            f"A volume to simulate from needs the axes z, y, x, not {', '.join(map(str, volume.dims))}.",
            "Give one channel and one time point.",
        )
    volume = volume.transpose("z", "y", "x")
    step = spacing_of(volume)
    if not all(d in step for d in "zyx"):
        raise RequestError("The volume has no voxel sizes.", "Give them with --voxel-um Z,Y,X.")
    data = np.asarray(volume.values, np.float32)
    if not np.isfinite(data).all() or data.min() < 0:
        raise RequestError(
            "The volume holds negative or non-finite values.", "Subtract its background and clip at 0 first."
        )
    for axis, (dim, h) in enumerate(zip("zyx", grid.voxel_um, strict=True)):
        ratio = h / step[dim]
        if ratio > 1.2 and data.shape[axis] > 1:
            # a Gaussian as wide as the coarse voxel (sigma = width / sqrt(12)) keeps detail from aliasing
            data = gaussian_filter1d(data, np.sqrt(ratio**2 - 1) / np.sqrt(12), axis, mode="constant")
    z, y, x = grid.axes()
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    py, px = c * y[:, None] + s * x[None, :], c * x[None, :] - s * y[:, None]
    iy = py / step["y"] + (volume.sizes["y"] - 1) / 2
    ix = px / step["x"] + (volume.sizes["x"] - 1) / 2
    out = np.zeros(grid.shape, np.float32)
    for k, depth in enumerate(z):
        iz = (depth - float(volume.coords["z"].values[0])) / step["z"]
        if -0.5 <= iz <= volume.sizes["z"] - 0.5:
            iz = float(np.clip(iz, 0, volume.sizes["z"] - 1))
            where = np.stack([np.full(iy.shape, iz), iy, ix])
            out[k] = map_coordinates(data, where, order=1, mode="constant", prefilter=False)
    return out
