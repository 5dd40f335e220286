"""Physical guesses for a refocused plane, and the image that a predicted stack should have given.

All light of the image is taken to come from the wanted plane, which lies z away: its image there is blurred
by the transfer function at -z, which is known. A Wiener filter undoes that; the matched filter gathers what a
point has spread.
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len

from napari_lfm.networks.refocus import Sweep, conditions
from napari_lfm.optics.defocus import all_rows, transfer_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.optics.defocus import DefocusOptics

SWEEP_NOISE = {"careful": 1e-2, "bold": 1e-3}
"""Noise over signal power of the filters."""
_REBLUR_FLOOR = 2e-3


class RefocusPhysics:
    """Guesses for one image.

    Parameters
    ----------
    optics : DefocusOptics
    pixel_um : float
    range_um : float
        Distances that will be asked for.
    image : Tensor, shape (y, x)
        Scaled as the network sees it.
    margin_px : int, optional
        How far the image is mirrored beyond its border, an even number; default: the largest blur. 0: it is
        periodic.
    """

    def __init__(
        self,
        optics: DefocusOptics,
        pixel_um: float,
        range_um: float,
        image: torch.Tensor,
        margin_px: int | None = None,
    ) -> None:
        self.optics, self.pixel_um, self.range_um = optics, pixel_um, range_um
        self.table = transfer_table(optics, max(range_um, 1.0))
        self.size = (int(image.shape[-2]), int(image.shape[-1]))
        self.device = image.device
        if margin_px is None:
            margin_px = 2 * int(optics.blur_radius_um(range_um) / pixel_um / 2) + 4
        self.margin = margin_px
        self.padded = self.size
        if margin_px:
            rows, columns = (2 * next_fast_len((n + 1) // 2 + margin_px, real=True) for n in self.size)
            self.padded = (int(rows), int(columns))
        self.spectrum = torch.fft.rfft2(self.extended(image.float()))

    def to(self, device: torch.device) -> RefocusPhysics:
        """Return the same on a device."""
        other = copy(self)
        other.device, other.spectrum = device, self.spectrum.to(device)
        return other

    def extended(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (..., y, x) mirrored beyond their border."""
        if self.padded == self.size:
            return images
        rows, columns = (
            mirrored(n, m, self.margin).to(images.device) for n, m in zip(self.size, self.padded, strict=True)
        )
        return images[..., rows, :][..., columns]

    def inner(self, images: torch.Tensor) -> torch.Tensor:
        """Return the part of extended images (..., y, x) that is the image."""
        m, (rows, columns) = self.margin, self.size
        return images[..., m : m + rows, m : m + columns]

    def transfer(self, z_um: Sequence[float] | np.ndarray) -> torch.Tensor:
        """Return transfer functions (n, y, x // 2 + 1) at focus distances from the object."""
        planes = self.table.planes("widefield", np.asarray(z_um, float), self.padded, self.pixel_um)
        return torch.from_numpy(planes).to(self.device)

    def conditions(self, planes: int) -> torch.Tensor:
        """Return what the network is told about its planes; see `conditions`."""
        o = self.optics
        return conditions(
            planes,
            self.range_um,
            o.edge_waves(1.0),
            o.blur_radius_um(1.0) / self.pixel_um,
            self.pixel_um * 4 * o.na / o.wavelength_um,
            o.depth_of_field_um,
        ).to(self.device)

    def sweep(self, planes: int) -> Sweep:
        """Return what undoing the defocus of every distance makes of the image.

        Parameters
        ----------
        planes : int
            Distances from minus to plus the range, evenly spaced.
        """
        filters = sweep_filters(self.optics, self.range_um, planes, self.padded, self.pixel_um)
        careful, bold, half = (f.to(self.device) for f in filters)
        sharp = [self.inner(torch.fft.irfft2(f * self.spectrum, self.padded)) for f in (careful, bold)]
        # the low half of the frequencies is the image at half the pixels
        rows, columns = self.padded[0] // 2, self.padded[1] // 2
        made = torch.fft.irfft2(low_half(self.spectrum, rows, columns) * half, (rows, columns)) / 4
        m = self.margin // 2
        matched = made[..., m : m + (self.size[0] + 1) // 2, m : m + (self.size[1] + 1) // 2]
        return Sweep(sharp[0], sharp[1], matched)


@lru_cache(maxsize=2)
def sweep_filters(
    optics: DefocusOptics, range_um: float, planes: int, shape: tuple[int, int], pixel_um: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what undoes the defocus of every plane: carefully, boldly, and matched at half the pixels.

    Frames of a movie and images of one size share them. Parameters as for `RefocusPhysics`, `shape` with
    the margin.
    """
    table, at = transfer_table(optics, max(range_um, 1.0)), -np.linspace(-range_um, range_um, planes)
    transfer = torch.from_numpy(table.planes("widefield", at, shape, pixel_um))
    power = transfer**2
    careful, bold = (
        transfer * ((1 + noise) / (power + noise)) for noise in (SWEEP_NOISE["careful"], SWEEP_NOISE["bold"])
    )
    halved = shape[0] // 2, shape[1] // 2
    matched = table.planes("widefield", at, halved, 2 * pixel_um, pixel_mean=False)
    return careful, bold, torch.from_numpy(matched)


def low_half(spectrum: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the low frequencies (rows, columns // 2 + 1) of a spectrum of twice the sizes."""
    above, below = (rows + 1) // 2, rows // 2
    kept = spectrum[..., : columns // 2 + 1]
    return torch.cat([kept[..., :above, :], kept[..., kept.shape[-2] - below :, :]], -2)


def mirrored(size: int, padded: int, before: int) -> torch.Tensor:
    """Return indices into `size` values that mirror them beyond both ends, again and again where needed."""
    at = (torch.arange(padded) - before) % (2 * size)
    return torch.where(at < size, at, 2 * size - 1 - at)


@lru_cache(maxsize=64)
def reblur_lines(optics: DefocusOptics, range_um: float, step_um: float = 0.25) -> tuple[np.ndarray, ...]:
    """Return how a confocal plane appears in the wide-field image.

    The confocal stack is the specimen blurred by the confocal microscope along z too; the quotient of the two
    transfer functions, in all three dimensions, turns it into the wide-field stack. With small values kept
    from being divided by (Wiener).

    Returns
    -------
    z_um : ndarray, shape (k,)
        Focus of the wide-field image from the confocal plane.
    frequency : ndarray, shape (m,)
    lines : ndarray, shape (k, m)
        Transfer functions, to be summed over planes times their distance over the depth of field.
    """
    table = transfer_table(optics, range_um + 4.0, step_um)
    length = next_fast_len(2 * len(table.z_um))
    half = len(table.z_um) // 2

    def along_z(lines: np.ndarray) -> np.ndarray:
        wide = np.zeros((length, lines.shape[1]))
        wide[: len(lines)] = lines
        return np.asarray(np.fft.fft(np.roll(wide, -half, 0), axis=0))

    # the ends of the wide-field table fade out: along z it would wrap around
    edge = np.clip((table.z_um[-1] - np.abs(table.z_um)) / 3.0, 0, 1)[:, None]
    wide, confocal = along_z(table.widefield * edge), along_z(table.confocal) * step_um
    quotient = wide * confocal.conj() / (np.abs(confocal) ** 2 + _REBLUR_FLOOR)
    lines = np.roll(np.fft.ifft(quotient, axis=0).real, half, 0)[: len(table.z_um)]
    return table.z_um, table.frequency, np.asarray(lines, np.float32)


@lru_cache(maxsize=8)
def _radii(shape: tuple[int, int], pixel_um: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where in a table half the frequencies of an image are: index below, and share of the next."""
    fy, fx = np.arange(shape[0] // 2 + 1) / (shape[0] * pixel_um), np.fft.rfftfreq(shape[1], pixel_um)
    at = np.hypot(fy[:, None], fx) / step
    low = at.astype(np.int32)
    return low, (at - low).astype(np.float32)


def reblur_planes(
    optics: DefocusOptics,
    range_um: float,
    z_um: Sequence[float] | np.ndarray,
    shape: tuple[int, int],
    pixel_um: float,
) -> torch.Tensor:
    """Return transfer functions (n, y, x // 2 + 1) from confocal planes at z to the image at 0.

    The image is their sum over planes, times the planes' distance over the depth of field.

    Parameters
    ----------
    optics : DefocusOptics
    range_um : float
        Largest distance that is asked for.
    z_um : ndarray, shape (n,)
    shape : tuple of int
    pixel_um : float
    """
    at_z, frequency, lines = reblur_lines(optics, range_um)
    wanted = -np.asarray(z_um, float)
    place = np.clip((wanted - at_z[0]) / (at_z[1] - at_z[0]), 0, len(at_z) - 1.001)
    low = place.astype(int)
    share = (place - low)[:, None].astype(np.float32)
    chosen = np.zeros((len(wanted), len(frequency) + 2), np.float32)  # nothing beyond the table
    chosen[:, :-2] = lines[low] * (1 - share) + lines[low + 1] * share
    index, rest = _radii(shape, pixel_um, float(frequency[1] - frequency[0]))
    index = np.minimum(index, len(frequency))
    half = chosen[:, index] * (1 - rest) + chosen[:, index + 1] * rest
    return torch.from_numpy(all_rows(half, shape[0]))
