"""The 2-D U-Net of LFMNet, shallow and full, exactly as published.

Page Vizcaíno et al., IEEE Trans. Comput. Imaging 7, 775 (2021), and the authors' code. Modules carry the
names of that code, so that its state dicts fit.

Every double convolution pads its first convolution by reflection and its second with zeros. The transposed
convolutions (3 x 3, stride 2, no output padding) make 2 n - 1 pixels out of n; a bilinear resize mends the
size at the end, so that the volume is stretched a little: 1287 pixels come out of 1281, but 99 out of 93.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Down = Literal["maxpool", "stride"]
Act = Literal["leaky", "relu"]

# (name, channels in, channels out)
_SHALLOW_DOWN = (("down1", 64, 128), ("down2", 128, 128))
_SHALLOW_UP = (("up3", 256, 64), ("up4", 128, 64))
_FULL_DOWN = (("down1", 64, 128), ("down2", 128, 256), ("down3", 256, 512), ("down4", 512, 512))
_FULL_UP = (("up1", 1024, 256), ("up2", 512, 128), ("up3", 256, 64), ("up4", 128, 64))


def make_act(act: Act) -> nn.Module:
    """Return the activation: LeakyReLU with slope 0.01, or ReLU."""
    return nn.LeakyReLU(0.01) if act == "leaky" else nn.ReLU()


class DoubleConv(nn.Module):
    """Twice convolution, batch normalisation, activation."""

    def __init__(self, n_in: int, n_out: int, act: Act) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(n_out),
            make_act(act),
            nn.Conv2d(n_out, n_out, 3, padding=1),
            nn.BatchNorm2d(n_out),
            make_act(act),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, y, x) -> (B, n_out, y, x)."""
        if self.training or torch.is_grad_enabled():
            return _tensor(self.conv(x))
        for at in (0, 3):
            x = _one_go(x, self.conv[at], self.conv[at + 1], self.conv[at + 2])
        return x


class Entry(nn.Module):
    """The first double convolution."""

    def __init__(self, n_in: int, n_out: int, act: Act) -> None:
        super().__init__()
        self.conv = DoubleConv(n_in, n_out, act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, y, x) -> (B, n_out, y, x)."""
        return _tensor(self.conv(x))


class Narrow(nn.Module):
    """A convolution without activation and a double one; half the size by stride 2 or by max pooling."""

    def __init__(self, n_in: int, n_out: int, down: Down, act: Act) -> None:
        super().__init__()
        stride = 2 if down == "stride" else 1
        layers = [
            nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode="reflect"),
            DoubleConv(n_out, n_out, act),
        ]
        self.mpconv = nn.Sequential(*layers, *([nn.MaxPool2d(2)] if down == "maxpool" else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, y, x) -> (B, n_out, y / 2, x / 2), rounded down (max pooling) or up (stride)."""
        return _tensor(self.mpconv(x))


class Widen(nn.Module):
    """A transposed convolution, n -> 2 n - 1, the skip where there is one, a double convolution."""

    def __init__(self, n_in: int, n_out: int, skip: bool, act: Act) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(n_in // 2, n_in // 2 if skip else n_in, 3, stride=2, padding=1)
        self.conv = DoubleConv(n_in, n_out, act)

    def forward(self, x: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        """(B, n_in / 2, y, x) -> (B, n_out, 2 y - 1, 2 x - 1); `beside` is padded or cropped to that."""
        plain = self.training or torch.is_grad_enabled() or x.device.type != "cpu"
        x = self.up(x) if plain else _twice_as_large(x, self.up)
        if beside is not None:
            dy, dx = x.shape[2] - beside.shape[2], x.shape[3] - beside.shape[3]
            beside = functional.pad(beside, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
            x = torch.cat((x, beside), dim=1)
        return _tensor(self.conv(x))


class Exit(nn.Module):
    """The last 1 x 1 convolution."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, y, x) -> (B, n_out, y, x)."""
        return _tensor(self.conv(x))


class UNet(nn.Module):
    """LFMNet's U-Net: from `n_channels` to as many, between 0 and 1.

    Parameters
    ----------
    n_channels : int
        Channels before and after, one for each depth.
    shallow : bool
        Two levels, else four.
    skip : bool
        Whether what went down is set beside what comes up.
    down : {"maxpool", "stride"}
        How the size is halved.
    act : {"leaky", "relu"}
        The activation.
    """

    def __init__(self, n_channels: int, shallow: bool, skip: bool, down: Down, act: Act) -> None:
        super().__init__()
        self.skip = skip
        downs, ups = (_SHALLOW_DOWN, _SHALLOW_UP) if shallow else (_FULL_DOWN, _FULL_UP)
        self.inc = Entry(n_channels, 64, act)
        self.down_names, self.up_names = [name for name, *_ in downs], [name for name, *_ in ups]
        for name, n_in, n_out in downs:
            self.add_module(name, Narrow(n_in, n_out, down, act))
        for name, n_in, n_out in ups:
            self.add_module(name, Widen(n_in, n_out, skip, act))
        self.outc = nn.Sequential(Exit(64, n_channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_channels, y, x) -> the same shape."""
        size = x.shape[-2:]
        x = self.inc(x)
        kept: list[torch.Tensor | None] = []
        for name in self.down_names:
            kept.append(x if self.skip else None)
            x = self.get_submodule(name)(x)
        for name in self.up_names:
            x = self.get_submodule(name)(x, kept.pop())
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        if self.training or torch.is_grad_enabled():
            return _tensor(self.outc(x))
        return _tensor(self.outc[0](x)).sigmoid_()


def _one_go(x: torch.Tensor, conv: nn.Module, norm: nn.Module, act: nn.Module) -> torch.Tensor:
    """Convolution, normalisation and activation with one map held instead of three (no gradients)."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.bias is not None
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    bias = (conv.bias - norm.running_mean) * scale + norm.bias
    padding = 1
    if conv.padding_mode == "reflect":
        x, padding = functional.pad(x, (1, 1, 1, 1), mode="reflect"), 0
    x = functional.conv2d(x, weight, bias, padding=padding)
    if isinstance(act, nn.LeakyReLU):
        return functional.leaky_relu_(x, act.negative_slope)
    return torch.relu_(x)


def _twice_as_large(x: torch.Tensor, up: nn.ConvTranspose2d) -> torch.Tensor:
    """Return the transposed convolution, made of four small ones, one for each parity of row and column.

    With k the kernel along one axis, ``out[2 i] = k[1] x[i]``, ``out[2 i + 1] = k[2] x[i] + k[0] x[i + 1]``.
    Processors have no fast transposed convolution; the arithmetic is the same.
    """
    n, _, high, wide = x.shape
    kernel = up.weight.transpose(0, 1)
    out: torch.Tensor | None = None
    taps = ((1,), (2, 0))
    for row in (0, 1):
        for column in (0, 1):
            part = kernel[:, :, taps[row]][:, :, :, taps[column]]
            part = functional.conv2d(x, part.contiguous(memory_format=torch.channels_last), up.bias)
            if out is None:
                size = (n, up.out_channels, 2 * high - 1, 2 * wide - 1)
                out = torch.empty(size, dtype=part.dtype, memory_format=torch.channels_last)
            out[:, :, row::2, column::2] = part
    assert out is not None
    return out


def _tensor(value: torch.Tensor) -> torch.Tensor:
    """Say what a module returns, which torch's own annotations do not."""
    return value
