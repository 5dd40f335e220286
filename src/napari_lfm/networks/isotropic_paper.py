"""Published networks of isotropic restoration: CSBDeep's residual U-Net, and IsoNet-1 and IsoNet-2.

Sources: Weigert et al., "Isotropic reconstruction of 3D fluorescence microscopy images using convolutional
neural networks", MICCAI 2017 (arXiv 1704.01510), for the IsoNets; Weigert et al., "Content-aware image
restoration", Nature Methods 15, 1090 (2018), and its software CSBDeep for the U-Net.

All of them are two-dimensional and see what is coarse (z) along the last axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_SCALE = 1e-3
"""Smallest width of the Laplace distribution that the probabilistic network can state."""


class CareNet(nn.Module):
    """CSBDeep's two-dimensional U-Net.

    Its layers are called as Keras calls them in a CSBDeep model, so that weights are imported by name.

    Parameters
    ----------
    channels : int
        Channels in, and out where `channels_out` is not given.
    channels_out : int, optional
    depth : int
        Poolings.
    base : int
        Filters of the first level, doubled with every pooling.
    kernel : int
        Side of the filters, odd, pixels.
    residual : bool
        Whether the input is added to the output; needs as many channels out as in.
    probabilistic : bool
        With a second head: the width of a Laplace distribution around every value.

    Raises
    ------
    RequestError
        If the sizes make no network.
    """

    def __init__(
        self,
        channels: int = 1,
        channels_out: int | None = None,
        depth: int = 2,
        base: int = 32,
        kernel: int = 5,
        residual: bool = True,
        probabilistic: bool = False,
    ) -> None:
        super().__init__()
        out = channels if channels_out is None else channels_out
        if min(channels, out, depth, base) < 1 or kernel < 1 or kernel % 2 == 0:
            raise RequestError(
                f"{channels} channels, {depth} levels of {base} filters of {kernel} pixels make no network.",
                "Give 1 or more of each, and an odd size of the filters.",
            )
        if residual and out != channels:
            raise RequestError(
                f"A residual network cannot turn {channels} channels into {out}.",
                "Give as many channels out as in.",
            )
        self.channels, self.channels_out, self.depth = channels, out, depth
        self.residual, self.probabilistic = residual, probabilistic

        def conv(name: str, given: int, wanted: int, size: int = kernel) -> int:
            self.add_module(name, nn.Conv2d(given, wanted, size, padding=size // 2))
            return wanted

        width, skips = channels, []
        for level in range(depth):
            for k in range(2):
                width = conv(f"down_level_{level}_no_{k}", width, base * 2**level)
            skips.append(width)
        width = conv("middle_0", width, base * 2**depth)
        width = conv("middle_2", width, base * 2 ** (depth - 1))
        for level in reversed(range(depth)):
            width = conv(f"up_level_{level}_no_0", width + skips[level], base * 2**level)
            width = conv(f"up_level_{level}_no_2", width, base * 2 ** max(0, level - 1))
        conv("mean", width, out, 1)
        if probabilistic:
            conv("scale", width, out, 1)
        for module in self.children():
            # what Keras starts from: Glorot's uniform distribution, and biases of zero
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def multiple(self) -> int:
        """What rows and columns of the input are padded to a multiple of."""
        return int(2**self.depth)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return restored slices.

        Parameters
        ----------
        slices : Tensor, shape (B, C, rows, z)
            Scaled to about 0..1; any sizes, padded by reflection where needed.

        Returns
        -------
        Tensor, shape (B, C_out, rows, z), or (B, 2 C_out, rows, z) where probabilistic
            The means, then the widths.
        """
        return padded_call(self._net, slices, self.multiple)

    def _net(self, x: torch.Tensor) -> torch.Tensor:
        given, kept = x, []
        for level in range(self.depth):
            for k in range(2):
                x = self._relu(f"down_level_{level}_no_{k}", x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        for name in ("middle_0", "middle_2"):
            x = self._relu(name, x)
        for level in reversed(range(self.depth)):
            x = torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), kept[level]], 1)
            for k in (0, 2):
                x = self._relu(f"up_level_{level}_no_{k}", x)
        mean: torch.Tensor = self.get_submodule("mean")(x)
        if self.residual:
            mean = mean.float() + given
        if not self.probabilistic:
            return mean
        scale = functional.softplus(self.get_submodule("scale")(x).float()) + LEAST_SCALE
        return torch.cat([mean, scale], 1)

    def _relu(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.get_submodule(name)(x))


class IsoNet1(nn.Module):
    """IsoNet-1 of the MICCAI paper: four convolutions, after SRCNN (57,283 weights).

    Filters: 64 of 9 x 9, 32 of 5 x 5, 1 of 5 x 5, 1 of 1 x 1.
    """

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 1, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(1, 1, 1),
        )

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return restored slices (B, 1, rows, z)."""
        out: torch.Tensor = self.body(slices)
        return out


class IsoNet2(nn.Module):
    """IsoNet-2 of the MICCAI paper: a small U-Net that learns what is missing (314,561 weights).

    Filters of 7 x 7: 16, 32, 64, then 32 and 16 on the way up, with the skipped features as further channels.
    """

    multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 16, 7, padding=3)
        self.down = nn.Conv2d(16, 32, 7, padding=3)
        self.middle = nn.Conv2d(32, 64, 7, padding=3)
        self.up = nn.Conv2d(64 + 32, 32, 7, padding=3)
        self.last = nn.Conv2d(32 + 16, 16, 7, padding=3)
        self.leave = nn.Conv2d(16, 1, 1)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return restored slices (B, 1, rows, z); any sizes."""
        return padded_call(self._net, slices, self.multiple)

    def _net(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.enter(x))
        second = functional.relu(self.down(functional.max_pool2d(first, 2)))
        third = functional.relu(self.middle(functional.max_pool2d(second, 2)))
        risen = torch.cat([functional.interpolate(third, scale_factor=2, mode="nearest"), second], 1)
        risen = functional.relu(self.up(risen))
        risen = torch.cat([functional.interpolate(risen, scale_factor=2, mode="nearest"), first], 1)
        missing: torch.Tensor = self.leave(functional.relu(self.last(risen)))
        return missing.float() + x


def padded_call(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, multiple: int
) -> torch.Tensor:
    """Call a network on an image that is extended by reflection to a multiple, and cut what was added.

    Parameters
    ----------
    network : callable
    x : Tensor, shape (B, C, rows, columns)
    multiple : int
    """
    rows, columns = x.shape[-2:]
    pads = (-rows) % multiple, (-columns) % multiple
    if not any(pads):
        return network(x)
    mode = "reflect" if pads[0] < rows and pads[1] < columns else "replicate"
    return network(functional.pad(x, (0, pads[1], 0, pads[0]), mode=mode))[..., :rows, :columns]
