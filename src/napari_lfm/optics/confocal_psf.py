"""Confocal point spread functions, Gaussian ones, and those that were measured with a bead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import j1

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.widefield_psf import widefield_psf

if TYPE_CHECKING:
    from napari_lfm.optics.widefield_psf import Model, WidefieldOptics

_RIM = 2
_LEAST_SNR = 5.0


def confocal_psf(
    excitation: WidefieldOptics,
    emission: WidefieldOptics,
    pinhole_airy: float,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    model: Model = "auto",
    focus_um: float = 0.0,
) -> np.ndarray:
    """Return ``h_ex * (h_em (*) pinhole)``, with a sum of 1.

    Parameters
    ----------
    excitation, emission : WidefieldOptics
        At the wavelengths of the laser and of the fluorescence.
    pinhole_airy : float
        Diameter in Airy units: of 1.22 wavelengths over the aperture, in the sample.
    shape, voxel_um, model, focus_um
        As for `widefield_psf`.
    """
    if not pinhole_airy > 0:
        raise RequestError(f"A pinhole of {pinhole_airy:g} Airy units lets no light through.", "Open it.")
    lit = widefield_psf(excitation, shape, voxel_um, model, focus_um=focus_um)
    seen = widefield_psf(emission, shape, voxel_um, model, focus_um=focus_um)
    radius = 0.61 * emission.wavelength_um / emission.na * pinhole_airy
    size = tuple(next_fast_len(2 * n) for n in shape[1:])
    fy, fx = (
        np.fft.fftfreq(size[0], voxel_um[1])[:, None],
        np.fft.rfftfreq(size[1], voxel_um[2])[None],
    )
    # a disc in the frequency domain: exact however small it is beside a pixel
    at = 2 * np.pi * radius * np.hypot(fy, fx)
    disc = np.where(at > 1e-9, 2 * j1(at) / np.where(at > 1e-9, at, 1.0), 1.0)
    through = irfft2(rfft2(seen, size) * disc, size)[:, : shape[1], : shape[2]]
    out = lit * np.maximum(through, 0)
    return np.asarray(out / out.sum(dtype=np.float64), np.float32)


def gaussian_sigmas_um(optics: WidefieldOptics) -> tuple[float, float]:
    """Return the standard deviations (z, across) of the Gaussian nearest to a wide-field spot.

    Zhang, Zerubia, Olivo-Marin, Appl. Opt. 46, 1819 (2007), table 2: non-paraxial, without aberration.
    """
    n, k = optics.immersion_index, 2 * np.pi / optics.wavelength_um
    sine = min(optics.na / n, 0.999)
    c = np.sqrt(1 - sine**2)
    across = (1 / (n * k)) * ((4 - 7 * c**1.5 + 3 * c**3.5) / (7 * (1 - c**1.5))) ** -0.5
    top = 5 * np.sqrt(7) * (1 - c**1.5)
    below = np.sqrt(6) * n * k * np.sqrt(4 * c**5 - 25 * c**3.5 + 42 * c**2.5 - 25 * c**1.5 + 4)
    return float(top / below), float(across)


def measured_psf(
    bead: np.ndarray, bead_um: tuple[float, float, float], voxel_um: tuple[float, float, float]
) -> np.ndarray:
    """Return a point spread function from the stack of one bead.

    Background is taken off (the median of the stack's rim), the bead's centroid put in the middle, and the
    stack resampled to the data's voxels. Its sizes are odd; its sum is 1.

    Parameters
    ----------
    bead : ndarray, shape (z, y, x)
    bead_um, voxel_um : tuple of float
        Voxels of the bead's stack and of the data, (z, y, x).

    Raises
    ------
    RequestError
        If there is no stack, no bead in it, or it lies at the edge.
    """
    stack = np.asarray(bead, np.float64)
    if stack.ndim != 3 or min(stack.shape) < 2 * _RIM + 1:
        raise RequestError(
            f"A bead of the shape {stack.shape} is no stack.", "Give one stack (z, y, x) with a single bead."
        )
    if not np.isfinite(stack).all():
        raise RequestError("The stack of the bead holds values that are no numbers.", "Replace them.")
    rim = np.ones(stack.shape, bool)
    rim[(slice(_RIM, -_RIM),) * 3] = False
    level, noise = float(np.median(stack[rim])), float(stack[rim].std())
    light = stack - level
    if light.max() <= max(_LEAST_SNR * noise, 1e-12):
        raise RequestError("No bead stands out of the stack.", "Crop a stack around one bright bead.")
    # only what stands out counts: the centroid of noise is the stack's middle
    bright = np.where(light > 0.5 * light.max(), light, 0.0)
    axes = np.meshgrid(*(np.arange(n) for n in stack.shape), indexing="ij", sparse=True)
    middle = [float((bright * a).sum() / bright.sum()) for a in axes]
    half = [int(min(c, n - 1 - c)) for c, n in zip(middle, stack.shape, strict=True)]
    if min(half) < _RIM:
        raise RequestError("The bead lies at the edge of its stack.", "Crop it with the bead in the middle.")
    return _resampled(light, middle, half, bead_um, voxel_um)


def _resampled(
    light: np.ndarray,
    middle: list[float],
    half: list[int],
    bead_um: tuple[float, float, float],
    voxel_um: tuple[float, float, float],
) -> np.ndarray:
    """Return the surroundings of a place on other voxels, the place in the middle."""
    ratio = [v / b for v, b in zip(voxel_um, bead_um, strict=True)]
    # coarser voxels take the mean of what falls into them
    smooth = gaussian_filter(light, [np.sqrt(max(r**2 - 1, 0.0) / 12) for r in ratio], mode="nearest")
    counts = [max(1, int(h / r)) for h, r in zip(half, ratio, strict=True)]
    grid = np.meshgrid(
        *(c + r * np.arange(-n, n + 1) for c, r, n in zip(middle, ratio, counts, strict=True)), indexing="ij"
    )
    out = np.maximum(map_coordinates(smooth, grid, order=3, mode="nearest"), 0)
    return np.asarray(out / out.sum(), np.float32)
