"""Lenslets with another number of pixels than the camera gave them: what a trained network asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from napari_lfm.lightfield.grid import cell_grid, sampling_of
from napari_lfm.lightfield.rectify import Rectified, rectify
from napari_lfm.optics.microscope import nearest_odd

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice

_COARSER = 0.75
"""Below this ratio of N to the pitch, interpolating would skip camera pixels."""


def rectify_at(
    frames: Any,
    lattice: Lattice,
    n_pixels: int,
    *,
    dark: Any = None,
    hot_pixel_sigma: float | None = 8.0,
    region_px: tuple[float, float, float, float] | None = None,
) -> Rectified:
    """Rectify at any N: as `rectify`, but every camera pixel counts where N is far below the pitch.

    There the frame is rectified at an odd multiple of N first, and blocks of pixels are summed up; so the
    noise averages out, as on a camera with large pixels.

    Parameters
    ----------
    frames, lattice, n_pixels, dark, hot_pixel_sigma, region_px
        As for `rectify`.

    Returns
    -------
    Rectified

    Raises
    ------
    RequestError
        As `rectify`.
    """
    # a hexagonal cell's rows are no multiple of its columns: there are no blocks to sum up
    fold = 1 if lattice.kind == "hexagonal" else nearest_odd(math.ceil(min(lattice.pitch_px) / n_pixels))
    if n_pixels >= _COARSER * min(lattice.pitch_px):
        fold = 1
    fine = rectify(
        frames, lattice, fold * n_pixels, dark=dark, hot_pixel_sigma=hot_pixel_sigma, region_px=region_px
    )
    if fold == 1:
        return fine
    # odd times odd is odd: the blocks' centres are those of the pixels that are wanted
    whole = cell_grid(lattice, n_pixels)
    grid = replace(whole, cells=fine.cells, first_cell=fine.first_cell)
    height, width = grid.shape
    image = fine.image.reshape(-1, height, fold, width, fold).sum((2, 4))
    mask = fine.mask.reshape(height, fold, width, fold).mean((1, 3)) > 0.5
    return Rectified(image, _variance_factor(fine, fold), mask, grid, fine.hot_pixels)


def _variance_factor(fine: Rectified, fold: int) -> np.ndarray:
    """Return the sum of squared weights of camera pixels in every block of ``fold`` x ``fold`` pixels."""
    height, width = (n // fold for n in fine.grid.shape)
    rows, columns = (np.arange(n) // fold for n in fine.grid.shape)
    block = (rows[:, None] * width + columns).ravel()
    ones = np.ones(len(block), np.float32)
    summing = sparse.csr_array((ones, (block, np.arange(len(block)))), shape=(height * width, len(block)))
    weights = summing @ sampling_of(fine.grid).operator
    return np.asarray(weights.multiply(weights).sum(axis=1), np.float32).reshape(height, width)


def resample_cells(rectified: Rectified, n_pixels: int | None) -> Rectified:
    """Return frames that came rectified with N pixels per lenslet instead; unchanged for None or their own N.

    Parameters
    ----------
    rectified : Rectified
        From `from_lenslet_image` or `from_vuts`: its lattice lies on the lenslet image itself.
    n_pixels : int, optional
        N that is wanted, odd.

    Returns
    -------
    Rectified
    """
    if n_pixels is None or rectified.cell_px == (n_pixels, n_pixels):
        return rectified
    lattice = rectified.lattice.model_copy(update={"image_shape": rectified.grid.shape})
    return rectify_at(rectified.image, lattice, n_pixels, hot_pixel_sigma=None)
