"""Vignetting from a white frame: the pupil's radial fall-off, and what is left for each pixel.

Light from an even slab is an incoherent sum over pupil points, whatever the slab's depth. The image of
one lenslet in the white frame is therefore linear in the pupil's intensity, and a few radial knots can
be fitted to it. The rest (gain of each lenslet, field fall-off) multiplies the prediction, pixel by
pixel. Nothing is ever divided out of the data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls

from napari_lfm.optics.projector import Geometry, LensletProjector, Plane

if TYPE_CHECKING:
    from napari_lfm.optics.psf import CellOptics

KNOTS = 6
LIMITS = (0.25, 1.25)  # in the dark gaps a white frame shows stray light that follows no ray


def slab_cell(optics: CellOptics) -> np.ndarray:
    """Return one cell's image of an even, endless slab of light, mean 1, shape (Ny, Nx)."""
    geometry = Geometry.plan(optics, [Plane(0.0, (3, 3))], (1, 1))
    projector = LensletProjector.build(geometry, use_cache=False)
    cells = projector.project(torch.ones(1, 9, *geometry.volume_cells))
    image = projector.channels_to_image(cells)[0].numpy()
    out: np.ndarray = image / image.mean()
    return out


def fit_pupil(
    white_cell: np.ndarray, optics: CellOptics, knots: int = KNOTS
) -> tuple[tuple[float, ...], float]:
    """Fit the radial intensity of the pupil to the mean lenslet of a white frame.

    Parameters
    ----------
    white_cell : ndarray, shape (Ny, Nx)
        Mean over all cells of the rectified white frame.
    optics : CellOptics
        The optics with a clear pupil.
    knots : int
        Equally spaced radii ``rho = 0 .. 1`` between which the intensity is linear.

    Returns
    -------
    pupil : tuple of float
        Intensity at the knots, maximum 1.
    misfit : float
        ``||fit - white|| / ||white||``.
    """
    s = np.linspace(0, 1, 512)
    weight = s / np.sqrt(1 - (s * optics.na / optics.sample_index) ** 2)
    columns = []
    for k in range(knots):
        hat = np.eye(knots)[k]
        share = float((np.interp(s, np.linspace(0, 1, knots), hat) * weight).sum() / weight.sum())
        columns.append(share * slab_cell(replace(optics, pupil=tuple(hat))).ravel())
    target = white_cell.ravel() / white_cell.mean()
    found, rest = nnls(np.stack(columns, 1), target)
    top = float(found.max())
    if top <= 0:
        return (), 1.0
    return tuple(float(v) for v in found / top), float(rest / np.linalg.norm(target))


def pixel_response(white: np.ndarray, optics: CellOptics) -> np.ndarray:
    """Return what the white frame shows beyond the optics: the factor W of every pixel.

    Parameters
    ----------
    white : ndarray, shape (rows * Ny, columns * Nx)
        Rectified white frame, dark subtracted.
    optics : CellOptics
        With the fitted pupil.

    Returns
    -------
    ndarray of float32
        Mean about 1, within `LIMITS` of each lenslet's own gain.
    """
    ny, nx = optics.cell_px
    rows, columns = white.shape[0] // ny, white.shape[1] // nx
    cells = white.reshape(rows, ny, columns, nx)
    gain = cells.mean((1, 3), keepdims=True)
    gain = np.maximum(gain, 0.02 * gain.mean())
    expected = slab_cell(optics)[None, :, None, :]
    shape = np.clip(cells / gain / np.maximum(expected, 1e-3), *LIMITS)
    out = (shape * gain / gain.mean()).reshape(white.shape)
    return np.asarray(out, np.float32)
