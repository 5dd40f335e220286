"""Make a network's confocal stack explain its image: a few long Richardson-Lucy steps from there on.

The network says where light comes from; how much of it there is, the image itself says. The stack is blurred
as the microscope would have, compared with the image, and brightened or dimmed where the two differ
(Richardson, JOSA 62, 55 (1972); Lucy, AJ 79, 745 (1974)): what is dark stays dark, so that the network's
depths are kept. All of it happens at half the pixels, which hold what defocus leaves of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_lfm.networks.refocus_physics import low_half, mirrored, reblur_planes
from napari_lfm.networks.refocus_render import REACH, plane_z_um

if TYPE_CHECKING:
    from napari_lfm.networks.refocus_physics import RefocusPhysics

ROUNDS = 4
"""More gain little: what is left is noise, and light from beyond the range."""
_LENGTH = 3.0
_MOST = 3.0
"""Steps are longer than Richardson and Lucy's, but change no voxel by more than this factor."""
_HAZE_PX = 16.0
"""Wider structure that the stack does not explain comes from beyond its range."""
_LEAST_LIGHT = 0.02


def explaining(physics: RefocusPhysics, light: torch.Tensor, rounds: int = ROUNDS) -> torch.Tensor:
    """Return a confocal stack that explains the image better.

    Parameters
    ----------
    physics : RefocusPhysics
        Of the image.
    light : Tensor, shape (planes, y, x)
        Confocal planes over the range of `physics`, in the units of the image, 0 or more; even sizes.
    rounds : int
        0: as it is.

    Returns
    -------
    Tensor, shape (planes, y, x)
    """
    if rounds <= 0:
        return light
    padded = physics.padded[0] // 2, physics.padded[1] // 2
    at = plane_z_um(len(light), physics.range_um)
    weight = float(at[1] - at[0]) / physics.optics.depth_of_field_um
    blur = reblur_planes(physics.optics, REACH * physics.range_um, at, padded, 2 * physics.pixel_um) * weight
    blur = blur.to(physics.device)
    seen = low_half(physics.spectrum, *padded) / 4
    image = torch.fft.irfft2(seen, padded).clamp(min=0) + _LEAST_LIGHT
    smooth = _gaussian(padded, _HAZE_PX / 2).to(physics.device)
    half = functional.avg_pool2d(light[None], 2)[0]
    margin, (rows, columns) = physics.margin // 2, (half.shape[1], half.shape[2])
    index = [mirrored(n, m, margin).to(physics.device) for n, m in zip((rows, columns), padded, strict=True)]
    inner = (..., slice(margin, margin + rows), slice(margin, margin + columns))
    changed = torch.ones_like(half)
    for _ in range(rounds):
        extended = (half * changed)[:, index[0]][:, :, index[1]]
        spectrum = (torch.fft.rfft2(extended) * blur).sum(0)
        haze = torch.fft.irfft2((seen - spectrum) * smooth, padded).clamp(min=0)
        expected = (torch.fft.irfft2(spectrum, padded) + haze).clamp(min=0) + _LEAST_LIGHT
        missing = torch.fft.rfft2(image / expected - 1)
        back = torch.fft.irfft2(missing * blur, padded)[inner] / blur[:, :1, 0][..., None]
        changed = changed * (1 + _LENGTH * back).clamp(1 / _MOST, _MOST)
    size = (light.shape[1], light.shape[2])
    return light * functional.interpolate(changed[None], size, mode="bilinear", align_corners=False)[0]


def _gaussian(padded: tuple[int, int], sigma_px: float) -> torch.Tensor:
    fy, fx = torch.fft.fftfreq(padded[0]), torch.fft.rfftfreq(padded[1])
    return torch.exp(-2 * (torch.pi * sigma_px) ** 2 * (fy[:, None] ** 2 + fx**2))
