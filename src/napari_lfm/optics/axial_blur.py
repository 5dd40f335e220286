"""What a stack is blurred by along z more than along x and y: kernels for lateral slices.

A lateral slice that is blurred with such a kernel along one of its axes looks like a slice along z. Kernels
have the shape (lateral, axial); the axial axis is the last one, in lateral pixels, and they sum to 1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from napari_lfm.core.problems import RequestError

PsfRule = Literal["exact", "csbdeep"]

_REACH = 4.0
"""Half the width of Gaussian kernels, in standard deviations."""
_LEAST_RESPONSE = 0.03
"""Share of the largest lateral response below which a frequency is not divided by it any more."""


def anisotropic_sigma_um(sigma_z_um: float, sigma_x_um: float, rule: PsfRule = "exact") -> float:
    """Return the width by which slices along z are blurred beyond lateral ones.

    Parameters
    ----------
    sigma_z_um, sigma_x_um : float
        Standard deviations of the point spread function along z and along x.
    rule : {"exact", "csbdeep"}
        ``exact``: variances of Gaussians add, so ``sqrt(sigma_z^2 - sigma_x^2)``. ``csbdeep``: the
        difference of the widths, as CSBDeep's example takes it.

    Raises
    ------
    RequestError
        If a width is negative or no number, or the axial one is the smaller.
    """
    if not (np.isfinite([sigma_z_um, sigma_x_um]).all() and 0 <= sigma_x_um <= sigma_z_um):
        raise RequestError(
            f"Widths of {sigma_z_um:g} um along z and {sigma_x_um:g} um along x are not those of a"
            " microscope that is coarser along z.",
            "Give an axial width that is at least the lateral one.",
        )
    if rule == "csbdeep":
        return sigma_z_um - sigma_x_um
    return float(np.sqrt(sigma_z_um**2 - sigma_x_um**2))


def gaussian_kernel(sigma_z_px: float, sigma_x_px: float = 0.0) -> np.ndarray:
    """Return a Gaussian kernel, shape (lateral, axial), float32.

    Parameters
    ----------
    sigma_z_px, sigma_x_px : float
        Standard deviations in lateral pixels; 0: a delta. The kernel ends at 4 of them.
    """
    lines = []
    for sigma in (sigma_x_px, sigma_z_px):
        half = int(np.ceil(_REACH * sigma))
        at = np.arange(-half, half + 1)
        # a width far below a pixel is a delta; 0 itself cannot be divided by
        lines.append(np.exp(-(at**2) / (2 * max(sigma, 1e-3) ** 2)))
    return unit_sum(lines[0][:, None] * lines[1])


def csbdeep_kernel(sigma_z_px: float, sigma_x_px: float) -> np.ndarray:
    """Return the kernel of CSBDeep's example of isotropic restoration, shape (lateral, axial), float32.

    ``exp(-(x^2 / 2 sx^2 + z^2 / 2 (sz - sx)^2))``. It blurs laterally too, so that a network that learns to
    undo it also sharpens along x beyond what the microscope has shown.
    """
    return gaussian_kernel(anisotropic_sigma_um(sigma_z_px, sigma_x_px, "csbdeep"), sigma_x_px)


def kernel_of_plane(psf: np.ndarray, voxel_um: tuple[float, float, float], pixel_um: float) -> np.ndarray:
    """Return the central plane (y, z) of a measured anisotropic point spread function as a kernel.

    Taken as it is: the function given has to be what slices along z have *beyond* lateral ones (as
    CSBDeep takes it). `kernel_of_line` takes the lateral blur out first.

    Parameters
    ----------
    psf : ndarray, shape (z, y, x)
        Centre of gravity in the middle voxel or anywhere else.
    voxel_um : tuple of float
        Its voxel size (z, y, x).
    pixel_um : float
        Lateral pixel of the stack to restore.

    Returns
    -------
    ndarray, shape (lateral, axial), float32
        Odd sizes.

    Raises
    ------
    RequestError
        If it is not a stack, or has no light.
    """
    light, centre = _light(psf)
    plane = light[:, :, round(centre[2])].T
    for axis, (step, middle) in enumerate(((voxel_um[1], centre[1]), (voxel_um[0], centre[0]))):
        plane = _resampled(plane, axis, step, middle, pixel_um)
    return unit_sum(plane)


def kernel_of_line(psf: np.ndarray, voxel_um: tuple[float, float, float], pixel_um: float) -> np.ndarray:
    """Return what blurs the lateral profile of a measured point spread function into its axial one.

    The profiles through the brightest place, ``H_z H_x / (H_x^2 + e)`` in frequencies (Wiener's filter),
    negative values cut. So sizes of beads, which widen both, cancel to first order.

    Parameters
    ----------
    psf, voxel_um, pixel_um
        As for `kernel_of_plane`, but the whole point spread function of the microscope.

    Returns
    -------
    ndarray, shape (1, axial), float32
    """
    light, centre = _light(psf)
    at = [round(c) for c in centre]
    lines = []
    for values, step, middle in (
        (light[:, at[1], at[2]], voxel_um[0], centre[0]),
        (light[at[0], :, at[2]], voxel_um[1], centre[1]),
        (light[at[0], at[1], :], voxel_um[2], centre[2]),
    ):
        lines.append(_resampled(values[None], 1, step, middle, pixel_um)[0])
    size = 2 * max(len(line) for line in lines) + 1
    spectra = []
    for line in lines:
        wide = np.zeros(size)
        half = len(line) // 2
        wide[: half + 1], wide[size - half :] = line[half:], line[:half]
        spectra.append(np.fft.rfft(wide / wide.sum()))
    lateral = np.abs(spectra[1] + spectra[2]) / 2
    quotient = spectra[0] * lateral / (lateral**2 + _LEAST_RESPONSE**2) * (1 + _LEAST_RESPONSE**2)
    kernel = np.fft.fftshift(np.fft.irfft(quotient, size)).clip(min=0)
    return unit_sum(_trimmed(kernel)[None])


def unit_sum(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel over its L1 norm, float32.

    Raises
    ------
    RequestError
        If it holds what is no number, or nothing.
    """
    kernel = np.asarray(kernel, np.float64)
    total = np.abs(kernel).sum()
    if not np.isfinite(total) or total <= 0:
        raise RequestError("The point spread function holds no light, or what is no number.", "Give another.")
    out: np.ndarray = (kernel / total).astype(np.float32)
    return out


def _light(psf: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return light above the background, and the centre of what is bright."""
    psf = np.asarray(psf, np.float64)
    if psf.ndim != 3 or min(psf.shape) < 3:
        raise RequestError(
            f"A point spread function of {' x '.join(map(str, psf.shape))} values is no stack.",
            "Give one with planes, rows and columns.",
        )
    if not np.isfinite(psf).all():
        raise RequestError("The point spread function holds what is no number.", "Replace or crop it.")
    faces = np.concatenate([np.take(psf, (0, -1), axis).ravel() for axis in range(3)])
    light = psf - np.median(faces)
    top = light.max()
    if top <= 0:
        raise RequestError("The point spread function holds no light.", "Give another.")
    bright = np.where(light > 0.5 * top, light, 0)
    centre = [
        float((np.arange(n) * bright.sum(tuple(a for a in range(3) if a != axis))).sum() / bright.sum())
        for axis, n in enumerate(psf.shape)
    ]
    return light.clip(min=0), centre


def _resampled(values: np.ndarray, axis: int, step_um: float, centre: float, pixel_um: float) -> np.ndarray:
    """Return values along an axis at multiples of the pixel from the centre, an odd number of them."""
    count = values.shape[axis]
    half = max(int(min(centre, count - 1 - centre) * step_um / pixel_um + 1e-6), 0)
    at = centre + np.arange(-half, half + 1) * pixel_um / step_um
    out = np.apply_along_axis(lambda line: np.interp(at, np.arange(count), line), axis, values)
    return np.asarray(out)


def _trimmed(line: np.ndarray) -> np.ndarray:
    """Return the middle of a line that holds all but a thousandth of it."""
    half, total = len(line) // 2, line.sum()
    for reach in range(half + 1):
        part = line[half - reach : half + reach + 1]
        if part.sum() >= 0.999 * total:
            return part
    return line
