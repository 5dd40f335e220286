"""Vignetting from a white frame: the pupil's radial fall-off, and what is left for each pixel.

Light from an even slab is an incoherent sum over pupil points, whatever the slab's depth. The image of
one lenslet in the white frame is therefore linear in the pupil's intensity, and a few radial knots can
be fitted to it. The rest (gain of each lenslet, field fall-off) multiplies the prediction, pixel by
pixel. Nothing is ever divided out of the data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls

from napari_lfm.optics.propagation import lens_transmittance

if TYPE_CHECKING:
    from napari_lfm.optics.psf import CellOptics

KNOTS = 6
LIMITS = (0.25, 1.25)  # in the dark gaps a white frame shows stray light that follows no ray


def slab_cell(optics: CellOptics) -> np.ndarray:
    """Return one cell's image of an even, endless slab of light, mean 1, shape (Ny, Nx)."""
    knots = len(optics.pupil) or 2
    pupil = np.array(optics.pupil or (1.0, 1.0))
    cell = np.tensordot(pupil, _pupil_cells(optics, knots), 1)
    out: np.ndarray = cell / cell.mean()
    return out


def _pupil_cells(optics: CellOptics, knots: int) -> np.ndarray:
    """Return the cell image that each knot of the pupil contributes, shape (knots, Ny, Nx).

    Every pupil point sends a plane wave onto the array. Behind a periodic array its field is a Bloch wave:
    one cell and its diffraction orders say it all, and the orders of one cell are the same for all waves.
    The weights are those of the Debye integral: ``s ds / cos(theta)``, times the hat of each knot.
    """
    o, (ny, nx), os = optics, optics.cell_px, optics.oversampling
    shape = ny * os, nx * os
    steps = [c / n for c, n in zip(o.cell_um, shape, strict=True)]
    axes = [
        (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * d for n, d in zip(shape, steps, strict=True)
    ]
    orders = torch.fft.fft2(lens_transmittance(o, *axes))
    fy, fx = (torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in zip(shape, steps, strict=True))
    # a lenslet's pattern changes over M lambda / pitch of the aperture; two samples for each change
    changes = 2 * o.na * o.pitch_um / (o.magnification * o.wavelength_um)
    nodes, weights = np.polynomial.legendre.leggauss(max(4, math.ceil(2 * changes / (knots - 1))))
    turns = max(8, math.ceil(2 * math.pi * changes / 2))
    angles = (np.arange(turns) + 0.5) * (math.pi / 2 / turns)  # a quarter; the flips give the rest
    out = np.zeros((knots, ny, nx))
    for k in range(knots - 1):
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            s = o.na * (k + node) / (knots - 1)
            tilt = s / (o.magnification * o.wavelength_um)
            gy = fy + torch.from_numpy(tilt * np.sin(angles))[:, None]
            gx = fx + torch.from_numpy(tilt * np.cos(angles))[:, None]
            rest = 1 / o.wavelength_um**2 - gy[:, :, None] ** 2 - gx[:, None, :] ** 2
            phase = 2 * math.pi * (torch.sqrt(rest.clamp(min=0)) - 1 / o.wavelength_um) * o.distance_um
            field = torch.fft.ifft2(orders * torch.polar((rest > 0).to(phase), phase))
            light = (field.real**2 + field.imag**2).mean(0)
            cell = light.reshape(ny, os, nx, os).mean((1, 3)).numpy()
            cell = (cell + cell[::-1] + cell[:, ::-1] + cell[::-1, ::-1]) / 4
            ring = weight * s / math.sqrt(1 - (s / o.sample_index) ** 2)
            out[k] += ring * (1 - node) * cell
            out[k + 1] += ring * node * cell
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
    columns = _pupil_cells(optics, knots).reshape(knots, -1).T
    columns = columns / columns.sum(1).mean()
    target = white_cell.ravel() / white_cell.mean()
    found, rest = nnls(columns, target)
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
