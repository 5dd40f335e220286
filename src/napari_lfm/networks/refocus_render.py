"""Wide-field planes of a confocal stack: what a microscope focused there would see.

Each confocal plane reaches the wide-field plane blurred by the quotient of the two microscopes' transfer
functions. What of the image the stack does not explain (light from beyond its range, noise) stays where it
is at the image's own plane, and is blurred more the further the focus goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.networks.refocus_physics import reblur_planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.networks.refocus_physics import RefocusPhysics

REACH = 2.3
"""Distances between two planes that tables go up to, over the range."""
_SOFTEN = 0.5
"""Width of the blur of what is not explained, over that of the defocused spot."""


@dataclass(frozen=True)
class Blurs:
    """Transfer functions from the planes of a stack to wide-field planes.

    Attributes
    ----------
    planes : Tensor, shape (n, planes, y, x // 2 + 1)
        Distances of planes taken into account.
    soften : Tensor, shape (n, y, x // 2 + 1)
        For what the stack does not explain.
    """

    planes: torch.Tensor
    soften: torch.Tensor

    def to(self, device: torch.device) -> Blurs:
        """Return the same on a device."""
        return Blurs(self.planes.to(device), self.soften.to(device))


def plane_z_um(planes: int, range_um: float) -> np.ndarray:
    """Return where the planes of a stack lie, from the image's plane."""
    return np.linspace(-range_um, range_um, planes)


def blurs(physics: RefocusPhysics, planes: int, z_um: Sequence[float] | np.ndarray) -> Blurs:
    """Return what blurs a stack of so many planes, over the range of `physics`, to wide-field planes.

    Parameters
    ----------
    physics : RefocusPhysics
    planes : int
    z_um : sequence of float
        Of the wide-field planes.
    """
    o, range_um = physics.optics, physics.range_um
    at = plane_z_um(planes, range_um)
    weight = float(at[1] - at[0]) / o.depth_of_field_um
    made = [
        reblur_planes(o, REACH * range_um, at - float(z), physics.padded, physics.pixel_um) * weight
        for z in z_um
    ]
    fy = torch.fft.fftfreq(physics.padded[0], physics.pixel_um)
    fx = torch.fft.rfftfreq(physics.padded[1], physics.pixel_um)
    square = fy[:, None] ** 2 + fx[None] ** 2
    soften = [torch.exp(-2 * np.pi**2 * (_SOFTEN * o.blur_radius_um(float(z))) ** 2 * square) for z in z_um]
    return Blurs(_together(made).to(physics.device), _together(soften).to(physics.device))


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return parts along a new first axis; a single one, as a slider asks for, is not copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def stack_spectrum(physics: RefocusPhysics, light: torch.Tensor) -> torch.Tensor:
    """Return the spectrum (planes, y, x // 2 + 1) of a confocal stack (planes, y, x)."""
    out: torch.Tensor = torch.fft.rfft2(physics.extended(light))
    return out


def unexplained(physics: RefocusPhysics, spectrum: torch.Tensor, own: Blurs) -> torch.Tensor:
    """Return the spectrum (y, x // 2 + 1) of what the image has and the stack does not explain.

    `own` are the blurs of the image's own plane, 0.
    """
    out: torch.Tensor = physics.spectrum - (spectrum * own.planes[0]).sum(0)
    return out


def rendered(
    physics: RefocusPhysics, spectrum: torch.Tensor, rest: torch.Tensor, wanted: Blurs
) -> torch.Tensor:
    """Return wide-field planes (n, y, x), in the units of the image."""
    seen = (spectrum[None] * wanted.planes).sum(1) + rest[None] * wanted.soften
    out: torch.Tensor = physics.inner(torch.fft.irfft2(seen, physics.padded))
    return out
