"""Wide-field and confocal stacks of one thick, scattering specimen.

Light of depth z reaches the objective unscattered with the share ``exp(-z / l)``; the rest comes from a halo
that widens with depth (forward scattering). The microscope adds its defocus: every plane of a wide-field
stack holds the light of all others. The confocal stack of the same specimen sees the unscattered light
through a pinhole, with a laser that makes up for the depth, as users set it.

Laterally the specimen goes on periodically, so that its haze comes from beyond the field too; along z there
is nothing beyond the slice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.special import j0

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.confocal_psf import confocal_psf
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf
from napari_lfm.simulation.brain_slice import brain_slice
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene

if TYPE_CHECKING:
    from collections.abc import Callable

HALO_PER_DEPTH = 0.27
"""Width (standard deviation) of the scattered light over its depth: one scattering event anywhere on the way
up, by 25 degrees rms (anisotropy 0.9)."""
_RADIAL_STEP_UM = 0.05
_FREQUENCIES = 2400
_CONFOCAL_PX = 96
_CONFOCAL_UM = 12.0


@dataclass(frozen=True)
class TissueSettings:
    """Microscope and slice; the defaults are those of the WFCON-Net paper.

    Attributes
    ----------
    na, immersion_index, sample_index : float
    emission_um, excitation_um : float
        Wavelengths in vacuum.
    voxel_um : tuple of float
        (z, y, x).
    shape : tuple of int
        Planes and pixels of a stack.
    pinhole_airy : float
        Diameter of the confocal pinhole.
    """

    na: float = 1.4
    immersion_index: float = 1.515
    sample_index: float = 1.47
    emission_um: float = 0.52
    excitation_um: float = 0.488
    voxel_um: tuple[float, float, float] = (0.5, 0.1083, 0.1083)
    shape: tuple[int, int, int] = (80, 384, 384)
    pinhole_airy: float = 1.0

    @property
    def size_um(self) -> tuple[float, float, float]:
        """Size of the slice."""
        z, y, x = (n * v for n, v in zip(self.shape, self.voxel_um, strict=True))
        return z, y, x

    def optics(self, wavelength_um: float, depth_um: float) -> WidefieldOptics:
        """Return what light of a wavelength passes, from a point at a depth."""
        return WidefieldOptics(
            self.na, wavelength_um, self.immersion_index, self.sample_index, depth_um=depth_um
        )


@dataclass(frozen=True)
class Scattering:
    """How hazy a slice is.

    Attributes
    ----------
    length_um : float
        Mean free path of light in it.
    aberration_um : float
        Depth whose spherical aberration the whole stack has.
    """

    length_um: float = 45.0
    aberration_um: float = 6.0


@dataclass(frozen=True)
class TissuePair:
    """Expected light of both microscopes, before any noise.

    Attributes
    ----------
    truth : Tensor, float32, shape (z, y, x)
        Fluorophores.
    widefield, confocal : Tensor, float32, shape (z, y, x)
    scattering : Scattering
    families : tuple of str
    """

    truth: torch.Tensor
    widefield: torch.Tensor
    confocal: torch.Tensor
    scattering: Scattering
    families: tuple[str, ...] = field(default=())


class ThickTissue:
    """Makes pairs of stacks; transfer functions are kept for the next one.

    Parameters
    ----------
    settings : TissueSettings
    device : torch.device or str
    """

    def __init__(self, settings: TissueSettings | None = None, device: torch.device | str = "cpu") -> None:
        self.settings = TissueSettings() if settings is None else settings
        self.device = torch.device(device)
        if min(self.settings.shape) < 2:
            raise RequestError(
                f"A slice of {self.settings.shape} voxels is none.", "Give at least two planes and pixels."
            )

    def grid(self) -> Grid:
        """Return the voxels of the slice, its middle at the origin."""
        return Grid.centred(self.settings.shape, self.settings.voxel_um)

    def pair(
        self,
        seed: int | np.random.Generator,
        scattering: Scattering,
        scene: Callable[[Box, np.random.Generator], Scene] = brain_slice,
    ) -> TissuePair:
        """Return the pair of a random specimen.

        Parameters
        ----------
        seed : int or Generator
        scattering : Scattering
        scene : callable
            Draws a specimen into a box.
        """
        rng = np.random.default_rng(seed)
        box = Box.centred(self.settings.size_um)
        drawn = scene(box, rng)
        truth = rasterise(drawn, self.grid(), self.device)
        return replace(self.image(truth, scattering), families=drawn.families)

    def image(self, truth: torch.Tensor, scattering: Scattering) -> TissuePair:
        """Return the pair of given fluorophores (z, y, x); plane 0 is at the coverslip."""
        wide, confocal = _transfer(self.settings, scattering.aberration_um, str(self.device))
        planes, rows, columns = truth.shape
        spectrum = torch.fft.rfft2(truth.to(self.device, torch.float32))
        depth = (torch.arange(planes, device=self.device) + 0.5) * self.settings.voxel_um[0]
        straight = torch.exp(-depth / scattering.length_um)[:, None, None]
        halo = HALO_PER_DEPTH * depth[:, None, None]
        squares = _squares(self.settings, self.device)
        left = straight + (1 - straight) * torch.exp(-2 * np.pi**2 * halo**2 * squares)
        out = []
        for given, transfer in ((spectrum * left, wide), (spectrum, confocal)):
            line = torch.fft.fft(given, len(transfer), dim=0)
            seen = torch.fft.ifft(line * transfer, dim=0)[:planes]
            out.append(torch.fft.irfft2(seen, (rows, columns)).clamp(min=0))
        return TissuePair(truth, out[0], out[1], scattering)


def _squares(settings: TissueSettings, device: torch.device) -> torch.Tensor:
    """Return squared lateral frequencies (y, x), per square micrometre."""
    _, rows, columns = settings.shape
    fy = torch.fft.fftfreq(rows, settings.voxel_um[1], device=device)
    fx = torch.fft.rfftfreq(columns, settings.voxel_um[2], device=device)
    out: torch.Tensor = (fy**2)[:, None] + (fx**2)[None]
    return out


@lru_cache(maxsize=4)
def _transfer(
    settings: TissueSettings, aberration_um: float, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return transfer functions (z frequency, y frequency, x frequency) of wide field and confocal."""
    planes = settings.shape[0]
    length = next_fast_len(2 * planes)
    shifts = np.fft.fftfreq(length, 1 / length).round().astype(int)  # plane differences in FFT order
    at = np.sqrt(_squares(settings, torch.device("cpu")).numpy())
    frequency, table = _wide_table(settings, aberration_um, shifts)
    wide = np.stack([np.interp(at, frequency, line).astype(np.float32) for line in table]) * _pixel(settings)
    confocal = _confocal_planes(settings, aberration_um, shifts)
    one, other = (torch.fft.fft(torch.from_numpy(k).to(device), dim=0) for k in (wide, confocal))
    return one, other


def _pixel(settings: TissueSettings) -> np.ndarray:
    """Return the transfer function of a camera's pixel."""
    _, rows, columns = settings.shape
    return np.asarray(np.sinc(np.fft.fftfreq(rows))[:, None] * np.sinc(np.fft.rfftfreq(columns)), np.float32)


def _wide_table(
    settings: TissueSettings, aberration_um: float, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies, and for each plane difference the transfer function: a Hankel transform.

    Every plane passes the same light: the transfer at frequency 0 is 1.
    """
    optics = settings.optics(settings.emission_um, aberration_um)
    z = shifts * settings.voxel_um[0] + _best_focus_um(optics)
    sine = min(settings.na / settings.immersion_index, 0.99)
    reach = 1.15 * np.abs(z).max() * sine / np.sqrt(1 - sine**2) + 8
    radius = (np.arange(int(reach / _RADIAL_STEP_UM)) + 0.5) * _RADIAL_STEP_UM
    psf = radial_psf(optics, z, radius)
    top = np.sqrt(sum((0.5 / v) ** 2 for v in settings.voxel_um[1:]))
    frequency = np.linspace(0, top * 1.01, _FREQUENCIES)
    waves = j0(2 * np.pi * np.outer(radius, frequency)) * radius[:, None]
    table = psf @ waves
    return frequency, np.asarray(table / table[:, :1], np.float32)


def _confocal_planes(settings: TissueSettings, aberration_um: float, shifts: np.ndarray) -> np.ndarray:
    """Return transfer functions of the confocal microscope for plane differences; the sum passes 1."""
    rows, columns = settings.shape[1:]
    half = min(int(_CONFOCAL_UM / settings.voxel_um[0] / 2), settings.shape[0] - 1)
    px = min(_CONFOCAL_PX, rows, columns)
    shape = (2 * half + 1, px, px)
    given, emitted = (
        settings.optics(w, aberration_um) for w in (settings.excitation_um, settings.emission_um)
    )
    best = _best_focus_um(emitted)  # planes are counted from where the wide-field microscope sees it best
    psf = confocal_psf(given, emitted, settings.pinhole_airy, shape, settings.voxel_um, focus_um=best)
    middle = (px - 1) // 2
    out = np.zeros((len(shifts), rows, columns // 2 + 1), np.float32)
    for k, shift in enumerate(shifts):
        at = half + shift
        if 0 <= at < len(psf):
            plane = np.zeros((rows, columns), np.float32)
            plane[:px, :px] = psf[at]
            plane = np.roll(plane, (-middle, -middle), (0, 1))
            out[k] = np.fft.rfft2(plane).real
    return out


def _best_focus_um(optics: WidefieldOptics) -> float:
    """Return where a point is brightest: aberration moves it from the nominal plane.

    Planes are counted from there, as a user who registers the two stacks would.
    """
    z = np.linspace(-6, 6, 481)
    return float(z[radial_psf(optics, z, np.zeros(1))[:, 0].argmax()])
