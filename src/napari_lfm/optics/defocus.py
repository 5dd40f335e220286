"""What defocus does to one plane: transfer functions of a wide-field and a confocal microscope by distance.

A round pupil without tilt gives round spots, so that a transfer function is real and depends on the radius
alone: a Hankel transform of the spot. A table of it serves images of any size and any pixels.

Signs: z is where the microscope is focused, from the object, in micrometres of focus drive, as the steps of
a stack are. It is positive away from the coverslip. Plane 0 is where a point is brightest, aberrated or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import j0, j1

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf

Kind = Literal["widefield", "confocal"]
_RADIAL_STEP_UM = 0.05
_FREQUENCY_STEP = 0.004
_TOP_SHARE = 1.02
"""Up to how far beyond the highest frequency that the aperture passes the table goes."""
_CONFOCAL_REACH_UM = 8.0
_SEARCH_UM = 25.0


@dataclass(frozen=True)
class DefocusOptics:
    """Microscope whose images are refocused.

    Attributes
    ----------
    na, immersion_index, sample_index : float
    wavelength_um : float
        Of the fluorescence, in vacuum.
    excitation_um : float
        Of the confocal microscope's laser.
    depth_um : float
        How deep the objects lie: it makes the spherical aberration that tells one side of the focus from the
        other.
    coverslip_error_um : float
        How much thicker the coverslip is than the objective is made for: more of the same aberration.
    pinhole_airy : float
        Diameter of the confocal pinhole.
    """

    na: float = 0.8
    wavelength_um: float = 0.6
    immersion_index: float = 1.0
    sample_index: float = 1.33
    excitation_um: float = 0.56
    depth_um: float = 35.0
    coverslip_error_um: float = 0.0
    pinhole_airy: float = 1.0

    def __post_init__(self) -> None:
        """Refuse apertures that no light passes."""
        if not 0.05 <= self.na < min(self.immersion_index, 1.7) or not 0.2 <= self.wavelength_um <= 3:
            raise RequestError(
                f"A numerical aperture of {self.na:g} in a medium of index {self.immersion_index:g} at "
                f"{self.wavelength_um:g} um makes no image.",
                "The aperture is below the index; wavelengths are in micrometres.",
            )

    @property
    def emission(self) -> WidefieldOptics:
        """What the fluorescence passes."""
        return WidefieldOptics(
            self.na,
            self.wavelength_um,
            self.immersion_index,
            self.sample_index,
            coverslip_um=170.0 + self.coverslip_error_um,
            depth_um=self.depth_um,
        )

    def perfect(self, wavelength_um: float) -> WidefieldOptics:
        """Return the same objective without any aberration."""
        return WidefieldOptics(self.na, wavelength_um, self.immersion_index, self.immersion_index)

    @property
    def drive_ratio(self) -> float:
        """How far the focus moves in the sample per focus drive, near the axis."""
        return self.sample_index / self.immersion_index

    def edge_waves(self, z_um: float) -> float:
        """Return the path difference between axis and edge of the pupil, in wavelengths."""
        n = self.immersion_index
        return float(z_um * (n - np.sqrt(n**2 - self.na**2)) / self.wavelength_um)

    def blur_radius_um(self, z_um: float) -> float:
        """Return the radius of the blurred spot in geometrical optics."""
        sine = min(self.na / self.immersion_index, 0.99)
        return float(abs(z_um) * sine / np.sqrt(1 - sine**2))

    @property
    def depth_of_field_um(self) -> float:
        """Return ``wavelength * n / NA^2``."""
        return self.wavelength_um * self.immersion_index / self.na**2

    @property
    def spherical_rms_waves(self) -> float:
        """Root mean square of the wavefront that no refocusing and no tilt takes away, signed.

        Positive as by depth in a sample of higher index than the immersion (air), or by a coverslip that is
        too thick under air; negative in one of lower index (oil).
        """
        share = np.sqrt((np.arange(400) + 0.5) / 400)  # equal areas
        path = self.emission.path_um(share, np.zeros(1))[0] / self.wavelength_um
        focus = np.sqrt(self.immersion_index**2 - (self.na * share) ** 2)
        basis = np.stack([np.ones_like(share), focus], 1)
        rest = path - basis @ np.linalg.lstsq(basis, path, rcond=None)[0]
        return float(np.sqrt((rest**2).mean()) * np.sign(rest[-1]))


@dataclass(frozen=True)
class TransferTable:
    """Transfer functions by distance and frequency.

    Attributes
    ----------
    optics : DefocusOptics
    z_um : ndarray, shape (k,)
        Evenly spaced, rising.
    frequency : ndarray, shape (m,)
        Per micrometre.
    widefield : ndarray, shape (k, m), float32
        1 at frequency 0 for every z: no plane loses light.
    confocal : ndarray, shape (k, m), float32
        Of the same objective without aberration; its integral over z at frequency 0 is 1 um.
    """

    optics: DefocusOptics
    z_um: np.ndarray
    frequency: np.ndarray
    widefield: np.ndarray = field(repr=False)
    confocal: np.ndarray = field(repr=False)

    def planes(
        self,
        kind: Kind,
        z_um: np.ndarray | float,
        shape: tuple[int, int],
        pixel_um: float,
        pixel_mean: bool = True,
    ) -> np.ndarray:
        """Return the transfer functions of an image, for `rfft2`.

        Parameters
        ----------
        kind : {"widefield", "confocal"}
        z_um : ndarray, shape (n,)
            Focus from the object; beyond the table's ends, those of the ends (confocal: none).
        shape : tuple of int
            (y, x).
        pixel_um : float
            In the sample.
        pixel_mean : bool
            Times the transfer of a camera's pixel.

        Returns
        -------
        ndarray, shape (n, y, x // 2 + 1), float32
        """
        lines = self.lines(kind, np.atleast_1d(np.asarray(z_um, float)))
        # rows of opposite frequencies are the same: half of them are made
        fy, fx = np.arange(shape[0] // 2 + 1) / (shape[0] * pixel_um), np.fft.rfftfreq(shape[1], pixel_um)
        at = np.hypot(fy[:, None], fx) / (self.frequency[1] - self.frequency[0])
        low = np.minimum(at.astype(np.int32), len(self.frequency) - 2)
        share = (at - low).astype(np.float32)
        inside = share <= 1  # no light beyond the table
        share = np.where(inside, share, 0)
        out = lines[:, low] * (1 - share) + lines[:, low + 1] * share
        out *= inside
        if pixel_mean:
            out *= (np.sinc(fy * pixel_um)[:, None] * np.sinc(fx * pixel_um)).astype(np.float32)
        return all_rows(np.asarray(out, np.float32), shape[0])

    def lines(self, kind: Kind, z_um: np.ndarray) -> np.ndarray:
        """Return transfer functions (n, m) at these distances, interpolated along z."""
        table = self.widefield if kind == "widefield" else self.confocal
        at = (z_um - self.z_um[0]) / (self.z_um[1] - self.z_um[0])
        inside = (at > -1e-6) & (at < len(self.z_um) - 1 + 1e-6)
        at = np.clip(at, 0, len(self.z_um) - 1)
        low = np.minimum(at.astype(int), len(self.z_um) - 2)
        share = (at - low).astype(np.float32)[:, None]
        out = table[low] * (1 - share) + table[low + 1] * share
        if kind == "confocal":
            out = out * inside[:, None]
        return np.asarray(out, np.float32)


def all_rows(half: np.ndarray, rows: int) -> np.ndarray:
    """Return an even function's rows (..., y, x) at all frequencies, from those at frequencies from 0 on."""
    return np.concatenate([half, half[..., (rows - 1) // 2 : 0 : -1, :]], -2)


@lru_cache(maxsize=96)
def transfer_table(optics: DefocusOptics, range_um: float, step_um: float = 0.25) -> TransferTable:
    """Return the table for distances up to `range_um` on both sides.

    Parameters
    ----------
    optics : DefocusOptics
    range_um : float
    step_um : float
        Between rows; finer ones are interpolated.

    Raises
    ------
    RequestError
        If the range or step is not above 0.
    """
    if not (range_um > 0 and step_um > 0):
        raise RequestError(f"A range of {range_um:g} um in steps of {step_um:g} um is none.")
    half = int(np.ceil(range_um / step_um)) + 1
    z = np.arange(-half, half + 1) * step_um
    reach = 1.15 * optics.blur_radius_um(float(z[-1])) + 8
    radius = (np.arange(int(reach / _RADIAL_STEP_UM)) + 0.5) * _RADIAL_STEP_UM
    top = _TOP_SHARE * 2 * optics.na / min(optics.wavelength_um, optics.excitation_um)
    frequency = np.arange(0, top + _FREQUENCY_STEP, _FREQUENCY_STEP)
    waves = j0(2 * np.pi * np.outer(radius, frequency)) * radius[:, None]
    emission = optics.emission
    spots = radial_psf(emission, z + best_focus_um(emission), radius)
    wide = spots @ waves
    confocal = _confocal(optics, z, radius, frequency, waves)
    return TransferTable(
        optics,
        z,
        frequency,
        np.asarray(wide / wide[:, :1], np.float32),
        np.asarray(confocal / (confocal[:, 0].sum() * step_um), np.float32),
    )


def _confocal(
    optics: DefocusOptics, z: np.ndarray, radius: np.ndarray, frequency: np.ndarray, waves: np.ndarray
) -> np.ndarray:
    """Return ``h_ex * (h_em (*) pinhole)`` as transfer functions (z, frequency), unscaled."""
    near = np.abs(z) <= _CONFOCAL_REACH_UM
    lit = radial_psf(optics.perfect(optics.excitation_um), z[near], radius)
    seen = radial_psf(optics.perfect(optics.wavelength_um), z[near], radius) @ waves
    at = 2 * np.pi * frequency * 0.61 * optics.wavelength_um / optics.na * optics.pinhole_airy
    seen = seen * np.where(at > 1e-9, 2 * j1(at) / np.where(at > 1e-9, at, 1.0), 1.0)
    back = j0(2 * np.pi * np.outer(frequency, radius)) * frequency[:, None]
    out = np.zeros((len(z), len(frequency)))
    out[near] = (lit * np.maximum(seen @ back, 0)) @ waves
    return out


def best_focus_um(optics: WidefieldOptics) -> float:
    """Return the nominal focus, from the point, at which it is brightest: aberration moves it."""
    z = np.linspace(-_SEARCH_UM, _SEARCH_UM, 1001)
    bright = radial_psf(optics, z, np.zeros(1))[:, 0]
    k = int(bright.argmax())
    fine = np.linspace(z[max(k - 1, 0)], z[min(k + 1, len(z) - 1)], 41)
    return float(fine[radial_psf(optics, fine, np.zeros(1))[:, 0].argmax()])
