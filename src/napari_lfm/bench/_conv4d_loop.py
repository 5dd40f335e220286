"""The 4-D convolution as a loop of 3-D ones, to measure against: what general n-D code does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from napari_lfm.networks.conv4d import Conv4d


def looped_conv4d(layer: Conv4d, light_field: torch.Tensor) -> torch.Tensor:
    """Return what `layer` returns, one 3-D convolution for each kernel row and angular row.

    Every angular row of the kernel is laid over every angular row of the light field; results that belong
    to the same output row are added. For LFMNet these are 3 x 33 convolutions over (angle, lenslet,
    lenslet).

    Parameters
    ----------
    layer : Conv4d
    light_field : Tensor, shape (batch, in, A, B, S, T)

    Returns
    -------
    Tensor, shape (batch, out, A, B, S', T')
    """
    ka, kb = layer.kernel_size[:2]
    rows = light_field.shape[2]
    kernel = layer.kernel()
    out: list[torch.Tensor | None] = [None] * rows
    for i in range(ka):
        for j in range(rows):
            to = j - i + ka // 2
            if not 0 <= to < rows:
                continue
            part = functional.conv3d(light_field[:, :, j], kernel[:, :, i], padding=(kb // 2, 0, 0))
            before = out[to]
            out[to] = part if before is None else before.add_(part)
    result = torch.stack([frame for frame in out if frame is not None], dim=2)
    if layer.bias is not None:
        result += layer.bias.view(1, -1, 1, 1, 1, 1)
    return result


def looped_image(layer: Conv4d, light_field: torch.Tensor) -> torch.Tensor:
    """Return the same as a lenslet image, as `Conv4d.to_image`."""
    result = looped_conv4d(layer, light_field)
    n, channels, a, b, s, t = result.shape
    return result.permute(0, 1, 4, 2, 5, 3).reshape(n, channels, s * a, t * b)
