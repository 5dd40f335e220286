"""The same light field seen another way: lenslet image, sub-aperture views, epipolar images, refocus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.grid import interpolation_matrix
from napari_lfm.lightfield.refocus import Refocuser
from napari_lfm.lightfield.slopes import depth_at_slope, slope_at_depth

if TYPE_CHECKING:
    from napari_lfm.lightfield.rectify import Rectified
    from napari_lfm.optics.microscope import Microscope

__all__ = [
    "Refocuser",
    "epipolar_image",
    "lenslet_affine_px",
    "lenslet_image",
    "lf4d",
    "light_field",
    "refocused",
    "subaperture_view",
]


def lf4d(rectified: Rectified, frame: int = 0) -> np.ndarray:
    """Return one frame as a light field (v, u, t, s).

    Square lattices: a strided view of the lenslet image, no copy. Hexagonal ones: every lenslet's
    N x N pixels, resampled over lenslets to a square grid of the same pitch (linear in rows, then
    between rows).

    Parameters
    ----------
    rectified : Rectified
        Any number of frames.
    frame : int
        Which one.

    Returns
    -------
    numpy.ndarray, float32
    """
    if rectified.lattice.kind == "hexagonal":
        return _hexagonal_views(rectified, frame)
    return rectified.views(frame)


def lenslet_image(views: np.ndarray) -> np.ndarray:
    """Return the lenslet image (t*N + v, s*N + u) of a light field (..., v, u, t, s)."""
    *lead, nv, nu, nt, ns = views.shape
    order = (*range(len(lead)), *(len(lead) + k for k in (2, 0, 3, 1)))
    return np.asarray(views.transpose(order).reshape(*lead, nt * nv, ns * nu))


def lenslet_affine_px(rectified: Rectified) -> np.ndarray:
    """Return the homogeneous matrix (3, 3) from (t, s) of `lf4d` to raw (y, x) px."""
    ny, nx = rectified.cell_px
    matrix = rectified.affine_px
    out = np.eye(3)
    out[:2, 0], out[:2, 1] = matrix[:2, 0] * ny, matrix[:2, 1] * nx
    if rectified.lattice.kind == "hexagonal":  # a cell is sqrt(3) lenslets high, the square grid one
        out[:2, 0] /= np.sqrt(3)
    out[:2, 2] = matrix[:2, :2] @ [(ny - 1) / 2, (nx - 1) / 2] + matrix[:2, 2]
    return out


def light_field(rectified: Rectified, microscope: Microscope, frame: int = 0) -> xr.DataArray:
    """Return the light field (v, u, t, s) with coordinates.

    v and u count views from the axis; t and s are object-space micrometres.
    """
    values = lf4d(rectified, frame)
    nv, nu = values.shape[:2]
    plane = _labelled_plane(values[0, 0], rectified, microscope, ("t", "s"))
    coords: dict[str, Any] = {
        "v": ("v", np.arange(nv) - (nv - 1) / 2, {"units": "view"}),
        "u": ("u", np.arange(nu) - (nu - 1) / 2, {"units": "view"}),
        "t": plane.coords["t"],
        "s": plane.coords["s"],
    }
    return xr.DataArray(values, dims=("v", "u", "t", "s"), coords=coords, attrs=plane.attrs)


def subaperture_view(
    rectified: Rectified, microscope: Microscope, v: int | None = None, u: int | None = None, frame: int = 0
) -> xr.DataArray:
    """Return the view (y, x) through pixel (v, u) of every lenslet, the central one by default."""
    values = lf4d(rectified, frame)
    nv, nu = values.shape[:2]
    v, u = (nv - 1) // 2 if v is None else v, (nu - 1) // 2 if u is None else u
    if not (0 <= v < nv and 0 <= u < nu):
        raise RequestError(f"There is no view ({v}, {u}).", f"Views go from (0, 0) to ({nv - 1}, {nu - 1}).")
    return _labelled_plane(values[v, u], rectified, microscope)


def epipolar_image(
    rectified: Rectified,
    microscope: Microscope,
    *,
    t: int | None = None,
    s: int | None = None,
    view: int | None = None,
    frame: int = 0,
) -> xr.DataArray:
    """Return an epipolar image: horizontal (u, s) through lenslet row t, or vertical (v, t) through column s.

    Parameters
    ----------
    rectified : Rectified
        Light field.
    microscope : Microscope
        For micrometres.
    t, s : int
        Exactly one of them: the lenslet row, or column.
    view : int, optional
        Fixed v (horizontal) or u (vertical); the central one by default.
    frame : int
        Which frame.

    Returns
    -------
    xarray.DataArray
        Dims (u, s) or (v, t); views counted from the axis, lenslets in um.
    """
    if (t is None) == (s is None):
        raise RequestError("An epipolar image goes through one lenslet row t or one column s.", "Give one.")
    field = light_field(rectified, microscope, frame)
    fixed, along = ("t", "v") if t is not None else ("s", "u")
    index = t if t is not None else s
    centre = (field.sizes[along] - 1) // 2 if view is None else view
    try:
        out = field.isel({fixed: index, along: centre})
    except IndexError:
        raise RequestError(
            f"There is no lenslet {fixed} = {index}.", f"It goes up to {field.sizes[fixed] - 1}."
        ) from None
    return out.drop_vars([fixed, along])


def refocused(
    rectified: Rectified,
    microscope: Microscope,
    *,
    z_um: float | None = None,
    slope: float | None = None,
    view_range: int | None = None,
    upsample: int = 1,
    frame: int = 0,
) -> xr.DataArray:
    """Return the light field refocused by shift-and-sum to a depth, or to a slope (lenslets per view).

    Parameters
    ----------
    rectified : Rectified
        Light field.
    microscope : Microscope
        For depth and micrometres.
    z_um, slope : float
        One of them: the depth (positive towards the objective) or the epipolar slope.
    view_range : int, optional
        Views over which depth is turned into slope (`slopes.slope_per_um`).
    upsample : int
        Pixels per lenslet.
    frame : int
        Which frame.

    Returns
    -------
    xarray.DataArray
        Dims (y, x) in um; attrs ``z_um`` and ``slope``.
    """
    if (z_um is None) == (slope is None):
        raise RequestError("Refocusing needs one depth z_um or one slope.", "Give one of them.")
    n = rectified.cell_px[1]
    if slope is None:
        slope = slope_at_depth(float(z_um or 0.0), microscope, view_range, n)
    else:
        z_um = depth_at_slope(slope, microscope, view_range, n)
    values = Refocuser(lf4d(rectified, frame), max_slope=abs(slope)).refocus(slope, upsample)
    out = _labelled_plane(values, rectified, microscope, upsample=upsample)
    out.attrs.update(z_um=float(z_um or 0.0), slope=float(slope))
    return out


def _labelled_plane(
    values: np.ndarray,
    rectified: Rectified,
    microscope: Microscope,
    dims: tuple[str, str] = ("y", "x"),
    upsample: int = 1,
) -> xr.DataArray:
    """Label an image on the lenslet grid with object-space micrometres, and its affine where rotated."""
    affine = lenslet_affine_px(rectified)
    affine[:2] *= microscope.object_pixel_um
    fine = np.eye(3)
    fine[:2, :2] /= upsample
    fine[:2, 2] = -(upsample - 1) / 2 / upsample
    affine = affine @ fine
    spacing = {d: float(np.hypot(*affine[:2, k])) for k, d in enumerate(dims)}
    origin = {d: float(affine[k, 2]) for k, d in enumerate(dims)}
    out = labelled(values, dims, spacing, origin)
    for dim in dims:
        out.coords[dim].attrs["units"] = "um"
    if abs(affine[0, 1]) + abs(affine[1, 0]) > 1e-9:
        out.attrs["affine_um"] = affine
    return out


def _hexagonal_views(rectified: Rectified, frame: int) -> np.ndarray:
    """Return (v, u, t, s) on a square grid from a hexagonal lattice's rectangular cells."""
    (cell_rows, columns), (ny, nx) = rectified.cells, rectified.cell_px
    n = nx
    rows = min(2 * cell_rows, rectified.lattice.rows - 2 * rectified.first_cell[0])
    i, j = np.mgrid[0:rows, 0:columns].astype(float)
    odd = i % 2
    # centres on the rectified image: even rows in the middle of a cell, odd rows at its corner
    centre = np.stack([(ny - 1) / 2 + i * ny / 2, (nx - 1) / 2 + (j + 0.5 * odd) * nx], axis=-1)
    offset = np.arange(n) - (n - 1) / 2
    row = centre[None, None, ..., 0] + offset[:, None, None, None] * ny / (np.sqrt(3) * n)
    col = centre[None, None, ..., 1] + offset[None, :, None, None]
    positions = np.stack(np.broadcast_arrays(row, col), axis=-1)
    height, width = rectified.grid.shape
    positions = np.clip(positions, 0, [height - 1, width - 1])
    matrix, _, _ = interpolation_matrix(positions, (height, width))
    values = np.asarray(matrix @ rectified.image[frame].ravel()).reshape(n, n, rows, columns)
    # bring odd rows onto the even rows' columns, then rows onto the square grid
    shifted = values.copy()
    left = values[..., 1::2, :]
    shifted[..., 1::2, 1:] = (left[..., 1:] + left[..., :-1]) / 2
    count = int((rows - 1) * np.sqrt(3) / 2) + 1
    at = np.arange(count) * 2 / np.sqrt(3)
    low = np.minimum(at.astype(int), rows - 2)
    part = (at - low).astype(np.float32)[:, None]
    return np.asarray(shifted[..., low, :] * (1 - part) + shifted[..., low + 1, :] * part, np.float32)
