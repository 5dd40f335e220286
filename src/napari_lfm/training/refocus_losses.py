"""Defocus consistency: the predicted confocal stack, blurred by the microscope, must be the image."""

from __future__ import annotations

import torch
from torch.nn import functional

from napari_lfm.networks.refocus_physics import mirrored

CONSISTENT_PX = 8.0
"""Consistency is asked for below this scale: haze from beyond the range is not the stack's."""


def consistency_loss(roots: torch.Tensor, reblur: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return how far the blurred confocal stack is from the image, in its middle.

    Parameters
    ----------
    roots : Tensor, shape (z, y, x)
        Square roots of the confocal planes, evenly spaced over the whole range.
    reblur : Tensor, shape (z, side, side // 2 + 1)
        Transfer functions from the planes to the image, weights included.
    image : Tensor, shape (y, x)
        No larger than `side`.
    """
    stack = roots.clamp(min=0) ** 2
    side, patch = 2 * (reblur.shape[-1] - 1), image.shape[-1]
    index = [mirrored(n, side, (side - n) // 2).to(image.device) for n in image.shape]
    wide = stack[:, index[0]][:, :, index[1]]
    seen = torch.fft.irfft2((torch.fft.rfft2(wide) * reblur).sum(0), (side, side))
    top, left = ((side - n) // 2 for n in image.shape)
    seen = seen[top : top + image.shape[0], left : left + patch]
    rest = high_passed(seen[None] - image[None])[0]
    cut = patch // 5
    return rest[cut:-cut, cut:-cut].abs().mean()


def high_passed(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, y, x) without what is wider than a scale."""
    half = int(2 * CONSISTENT_PX)
    line = torch.exp(-0.5 * (torch.arange(-half, half + 1, device=images.device) / CONSISTENT_PX) ** 2)
    line = (line / line.sum()).to(images.dtype)
    padded = functional.pad(images[:, None], (half,) * 4, mode="reflect")
    smooth = functional.conv2d(functional.conv2d(padded, line[None, None, None]), line[None, None, :, None])
    return images - smooth[:, 0]
