"""Isotropic restoration: what a slice along z would show if z were resolved as well as x and y.

`IsotropicNet` is our own; the published networks are in `isotropic_paper`. The task is that of Weigert et al.
(MICCAI 2017; Nature Methods 15, 1090 (2018)): a network sees a slice that is coarse along its last axis and
was brought to square pixels by linear interpolation, and gives what is missing.

What is different from CSBDeep's U-Net, and why:

- Pixels become channels (2 x 2, Shi et al., CVPR 2016) before the first convolution: the interpolated slice
  holds less than one value per pixel, so that a quarter of the places with more channels loses nothing, and
  a step costs a fraction.
- Residual blocks (He et al., CVPR 2016) of 3 x 3 without any bias: the output scales with the input (Mohan
  et al., ICLR 2020), so that dim and bright structures are treated alike, and noise levels that were never
  trained on do not add a pattern of their own.
- It starts as the identity: the last convolution starts at zero.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.isotropic_paper import LEAST_SCALE, CareNet, IsoNet1, IsoNet2, padded_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTHS = (48, 80, 128)
BLOCKS = 1
_FLAT = (-1 / 16, 4 / 16, 10 / 16, 4 / 16, -1 / 16)

ARCHITECTURES: dict[str, type[nn.Module]] = {}
"""Name in a card -> class."""


class _Block(nn.Module):
    """Two convolutions that add to what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        with torch.no_grad():  # without a norm a sum of many blocks would grow: they start small
            self.second.weight.mul_(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        out: torch.Tensor = x + self.second(functional.relu(self.first(x)))
        return out


class IsotropicNet(nn.Module):
    """Our network: folded pixels, residual blocks, no bias.

    Parameters
    ----------
    channels : int
        Fluorescence channels, restored together.
    widths : sequence of int
        Channels of the levels; every further level halves rows and columns.
    blocks : int
        Residual blocks of a level on the way down and on the way up each.
    slices : int
        Odd. More than 1: neighbouring slices are channels too (2.5-D), and the middle one is restored.
    fold : int
        Pixels along either axis that become channels; 1: none.
    probabilistic : bool
        With a second head: the width of a Laplace distribution around every value.
    smooth : bool
        Whether what repeats every two pixels is filtered out at the end: folded pixels are never quite
        alike. Detail at a quarter of the highest frequency keeps 98 %, at half of it 75 %.

    Raises
    ------
    RequestError
        If the sizes make no network.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = WIDTHS,
        blocks: int = BLOCKS,
        slices: int = 1,
        fold: int = 2,
        probabilistic: bool = False,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        widths = [int(w) for w in widths]
        if not widths or min(widths) < 1 or min(channels, blocks, fold) < 1:
            raise RequestError(
                f"{channels} channels, widths {widths}, {blocks} blocks, fold {fold}: that makes no network.",
                "Give 1 or more of each.",
            )
        if slices < 1 or slices % 2 == 0:
            raise RequestError(f"{slices} slices have no middle one.", "Give an odd number.")
        self.channels, self.widths, self.slices, self.fold = channels, tuple(widths), slices, fold
        self.probabilistic, self.smooth = probabilistic, smooth
        given, out = channels * slices * fold**2, channels * fold**2
        self.enter = nn.Conv2d(given, widths[0], 3, padding=1, bias=False)
        self.down = nn.ModuleList(_level(w, blocks) for w in widths)
        # pooling by a strided convolution, rising by pixels out of channels: all of it matrix products
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2, bias=False) for a, b in pairwise(widths))
        self.rise = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_level(w, blocks) for w in widths[:-1])
        self.leave = nn.Conv2d(widths[0], out, 3, padding=1, bias=False)
        nn.init.zeros_(self.leave.weight)
        if probabilistic:
            self.scale = nn.Conv2d(widths[0], out, 3, padding=1)
            nn.init.zeros_(self.scale.weight)
            nn.init.constant_(self.scale.bias, -3.0)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """What rows and columns of the input are padded to a multiple of."""
        return int(self.fold * 2 ** (len(self.widths) - 1))

    @property
    def reach(self) -> int:
        """Pixels on either side that a value can depend on."""
        blocks = len(self.down[0])  # type: ignore[arg-type]
        step, out = self.fold, 0
        for level in range(len(self.widths)):
            twice = 1 if level == len(self.widths) - 1 else 2
            out += step * (2 * blocks * twice + 1)
            step *= 2
        return out + 2 * self.fold + 2 * self.smooth

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return restored slices.

        Parameters
        ----------
        slices : Tensor, shape (B, C * slices, rows, z)
            Scaled to about 0..1, all channels of one slice, then all of the next; any sizes, padded by
            reflection where needed.

        Returns
        -------
        Tensor, shape (B, C, rows, z), or (B, 2 C, rows, z) where probabilistic
            The means, then the widths.
        """
        return padded_call(self._net, slices, self.multiple)

    def _net(self, given: torch.Tensor) -> torch.Tensor:
        x = functional.pixel_unshuffle(given, self.fold) if self.fold > 1 else given
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for block, shrink in zip(self.down, [*self.shrink, None], strict=True):
            x = block(x)
            if shrink is not None:
                kept.append(x)
                x = shrink(x)
        for rise, block, skip in zip(
            reversed(list(self.rise)), reversed(list(self.up)), reversed(kept), strict=True
        ):
            # added, not joined: half the channels to multiply
            x = block(functional.interpolate(rise(x), scale_factor=2, mode="nearest") + skip)
        middle = self.slices // 2 * self.channels
        missing = self._unfolded(self.leave(x).float())
        if self.smooth:
            missing = _without_nyquist(missing)
        mean = given[:, middle : middle + self.channels] + missing
        if not self.probabilistic:
            return mean
        scale = functional.softplus(self._unfolded(self.scale(x).float())) + LEAST_SCALE
        return torch.cat([mean, scale], 1)

    def _unfolded(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pixel_shuffle(x, self.fold) if self.fold > 1 else x


def _level(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(blocks)))


def _without_nyquist(image: torch.Tensor) -> torch.Tensor:
    line = torch.tensor(_FLAT, dtype=image.dtype, device=image.device)
    flat = image.reshape(-1, 1, *image.shape[-2:])
    half = len(_FLAT) // 2
    for shape, pads in (((1, 1, 1, -1), (half, half, 0, 0)), ((1, 1, -1, 1), (0, 0, half, half))):
        flat = functional.conv2d(functional.pad(flat, pads, mode="replicate"), line.reshape(shape))
    return flat.reshape(image.shape)


ARCHITECTURES.update(
    {
        "isotropic": IsotropicNet,
        "isotropic-csbdeep": CareNet,
        "isotropic-isonet1": IsoNet1,
        "isotropic-isonet2": IsoNet2,
    }
)


def make_network(architecture: str = "isotropic", arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a network by its name in a card.

    Parameters
    ----------
    architecture : {"isotropic", "isotropic-csbdeep", "isotropic-isonet1", "isotropic-isonet2"}
    arguments : mapping, optional
        Of the class.

    Raises
    ------
    RequestError
        If there is no such network, or it does not have such an argument.
    """
    if architecture not in ARCHITECTURES:
        raise RequestError(
            f"There is no network '{architecture}' of isotropic restoration.",
            f"Choose from {', '.join(ARCHITECTURES)}.",
        )
    try:
        return ARCHITECTURES[architecture](**dict(arguments or {}))
    except TypeError as error:
        raise RequestError(f"The network '{architecture}' cannot be made: {error}.") from None
