"""From the field at the native image plane through the lenslets to the pixels of the sensor.

References
----------
Broxton et al., Opt. Express 21, 25418 (2013), eqs. 4-6.
Matsushima & Shimobaba, Opt. Express 17, 19662 (2009): band-limited angular spectrum.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import torch

if TYPE_CHECKING:
    from napari_lfm.optics.psf import CellOptics


class RadialTable:
    """Linear interpolation of a complex radial function on a fine, even table.

    Parameters
    ----------
    values : ndarray of complex, shape (R,)
        The function at radii ``0, step, 2 step, ...``.
    step : float
        Micrometres.
    """

    def __init__(self, values: np.ndarray, step: float) -> None:
        table = torch.from_numpy(np.stack([values.real, values.imag], -1).astype(np.float32))
        self.pairs = torch.cat([table[:-1], table[1:] - table[:-1]], -1)  # value and slope side by side
        self.step = step

    def __call__(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the function on the grid of rows `y` and columns `x` (micrometres), complex64."""
        position = torch.sqrt(y[:, None] ** 2 + x[None, :] ** 2) / self.step
        cell = position.to(torch.int32)
        pairs = self.pairs.index_select(0, cell.ravel()).reshape(*position.shape, 4)
        fraction = (position - cell)[..., None]
        return torch.view_as_complex(torch.addcmul(pairs[..., :2], pairs[..., 2:], fraction))


def lens_transmittance(optics: CellOptics, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the lenslet array's complex transmittance on the grid of rows `y` and columns `x`, complex64.

    Positions in micrometres from a lenslet's centre; ``exp(-i k0 rho^2 / (2 f))`` within each lenslet.
    """
    k0 = 2 * math.pi / optics.wavelength_um  # vacuum: the array stands in air whatever the immersion
    cy, cx = optics.cell_um
    yy, xx = torch.meshgrid(
        torch.remainder(y + cy / 2, cy) - cy / 2, torch.remainder(x + cx / 2, cx) - cx / 2, indexing="ij"
    )
    rho2 = yy**2 + xx**2
    if optics.lattice == "hexagonal":  # the second lenslet of the rectangular cell sits at its corners
        rho2 = torch.minimum(rho2, (yy.abs() - cy / 2) ** 2 + (xx.abs() - cx / 2) ** 2)
    out = torch.polar(torch.ones_like(rho2), -k0 * rho2 / (2 * optics.focal_length_um))
    if optics.aperture == "circular":
        out = out * (rho2 <= (optics.pitch_um / 2) ** 2)
    return out.to(torch.complex64)


class Propagator:
    """Field at the lenslets -> pixel intensities, for one window size.

    Parameters
    ----------
    optics : CellOptics
    half : tuple of int
        Half width (y, x) of the window in cells.
    """

    def __init__(self, optics: CellOptics, half: tuple[int, int]) -> None:
        self.optics, self.half = optics, half
        os = optics.oversampling
        self.samples = [n * os for n in optics.cell_px]
        self.step = [c / n for c, n in zip(optics.cell_um, self.samples, strict=True)]
        # one cell more on each side: light that lenslets throw inwards from beyond the window
        self.size = [(2 * h + 3) * n for h, n in zip(half, self.samples, strict=True)]
        self.axes = [
            (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * d
            for n, d in zip(self.size, self.step, strict=True)
        ]
        self.fft = [scipy.fft.next_fast_len(n) for n in self.size]
        self.lens = lens_transmittance(optics, *self.axes)
        self.transfer = self._transfer()

    def _transfer(self) -> torch.Tensor:
        o = self.optics
        f2 = [torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in zip(self.fft, self.step, strict=True)]
        total = 1 / o.wavelength_um**2 - (f2[0] ** 2)[:, None] - (f2[1] ** 2)[None, :]
        kz = 2 * math.pi * torch.sqrt(total.clamp(min=0))
        # Matsushima & Shimobaba: above this frequency the sampled chirp would alias
        limits = [
            1 / (o.wavelength_um * math.sqrt((2 * o.distance_um / (n * d)) ** 2 + 1))
            for n, d in zip(self.fft, self.step, strict=True)
        ]
        keep = (f2[0].abs() <= limits[0])[:, None] & (f2[1].abs() <= limits[1])[None, :] & (total > 0)
        kz0 = 2 * math.pi / o.wavelength_um  # a common phase: keeps the float32 angle small
        chirp: torch.Tensor = torch.polar(torch.ones_like(kz), (kz - kz0) * o.distance_um) * keep
        return chirp.to(torch.complex64)

    def __call__(self, radial: RadialTable, y_cells: float, x_cells: float) -> np.ndarray:
        """Return the sensor image of a point at (y, x), in cells from the middle of the window.

        Returns
        -------
        ndarray of float32, shape ((2 hy + 1) Ny, (2 hx + 1) Nx)
            Fraction of the collected light per pixel.
        """
        o, os = self.optics, self.optics.oversampling
        y = ((self.axes[0] - y_cells * o.cell_um[0]) / o.magnification).float()
        x = ((self.axes[1] - x_cells * o.cell_um[1]) / o.magnification).float()
        field = radial(y, x) * self.lens
        spectrum = torch.fft.fft2(field, s=self.fft)
        field = torch.fft.ifft2(spectrum * self.transfer)
        (ny, nx), (hy, hx) = o.cell_px, self.half
        inner = field[self.samples[0] : self.samples[0] * (2 * hy + 2),
                      self.samples[1] : self.samples[1] * (2 * hx + 2)]  # fmt: skip
        intensity = inner.real**2 + inner.imag**2
        pixels = intensity.reshape((2 * hy + 1) * ny, os, (2 * hx + 1) * nx, os).sum((1, 3))
        area = self.step[0] * self.step[1] / o.magnification**2
        out: np.ndarray = (pixels * area).numpy()
        return out
