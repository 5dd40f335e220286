"""The published generator of virtual refocusing (Deep-Z): an image and distances in, the refocused image out.

Wu et al., Nature Methods 16, 1323 (2019); wiring and sizes are those of a released graph: blocks of two
convolutions with ReLU, their input added with zeros for the channels that it lacks, max-pooling; upwards
transposed convolutions without activation, which are added again after the block.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError

FIRST, SECOND = 25, 48
"""Channels of the two convolutions of the first block; both double, from 24, with every level."""
BIAS = 0.1
Z_UNIT_UM = 10.0
"""Distances are given in units of so many micrometres."""
LEVELS = (5, 6)
_WIDTHS = ((25, 48), (72, 96), (144, 192), (288, 384), (576, 768), (1152, 1536))
_RISING = (72, 144, 288, 576, 1152)


class RefocusPaperNet(nn.Module):
    """The generator.

    Parameters
    ----------
    levels : int
        Blocks on the way down: 5 as described, 6 as in a released network.
    padding : {"zeros", "replicate"}
        Of the convolutions: zeros in the released graph, replicated in the description.
    """

    def __init__(self, levels: int = 5, padding: Literal["zeros", "replicate"] = "zeros") -> None:
        super().__init__()
        if levels not in LEVELS:
            raise RequestError(f"The published network has 5 or 6 levels, not {levels}.", "Give 5 or 6.")
        if padding not in ("zeros", "replicate"):
            raise RequestError(f"There is no padding '{padding}'.", "Give zeros or replicate.")
        self.levels = levels
        widths = _WIDTHS[:levels]

        def conv(given: int, out: int) -> nn.Conv2d:
            return nn.Conv2d(given, out, 3, padding=1, padding_mode=padding)

        given = 2
        self.down = nn.ModuleList()
        for k1, k2 in widths:
            self.down.append(nn.ModuleList([conv(given, k1), conv(k1, k2)]))
            given = k2
        self.up = nn.ModuleList()
        for level in range(levels - 1):
            k2, k3 = widths[level][1], _RISING[level]
            rise = nn.ConvTranspose2d(widths[level + 1][1], k2, 3, stride=2)
            self.up.append(nn.ModuleList([rise, conv(2 * k2, k3), conv(k3, k2)]))
        self.last = conv(widths[0][1], 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.constant_(module.bias, BIAS)

    @property
    def multiple(self) -> int:
        """What rows and columns are padded to a multiple of."""
        return int(2 ** (self.levels - 1))

    def forward(self, image: torch.Tensor, z_um: torch.Tensor) -> torch.Tensor:
        """Return the image on the surface.

        Parameters
        ----------
        image : Tensor, shape (B, 1, y, x)
        z_um : Tensor, shape (B, 1, y, x)
            Where the surface lies from the image's plane.

        Returns
        -------
        Tensor, shape (B, 1, y, x)
        """
        rows, columns = image.shape[2:]
        pads = (0, (-columns) % self.multiple, 0, (-rows) % self.multiple)
        x = functional.pad(torch.cat([image, z_um / Z_UNIT_UM], 1), pads, mode="replicate")
        kept: list[torch.Tensor] = []
        down: Any = self.down
        up: Any = self.up
        for level, (first, second) in enumerate(down):
            if level:
                x = functional.max_pool2d(x, 2)
            y = functional.relu(second(functional.relu(first(x))))
            x = y + functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            kept.append(x)
        for level in reversed(range(self.levels - 1)):
            rise, first, second = up[level]
            # a transposed convolution of the SAME kind: one row and column too many, at the end
            risen = rise(x)[..., : 2 * x.shape[2], : 2 * x.shape[3]]
            y = functional.relu(first(torch.cat([risen, kept[level]], 1)))
            x = functional.relu(second(y)) + risen
        out: torch.Tensor = self.last(x)
        return out[..., :rows, :columns]
