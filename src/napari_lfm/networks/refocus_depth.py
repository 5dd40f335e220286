"""Where along z the light around a pixel comes from: depth from defocus, out of a physical sweep.

Undoing the defocus of every distance makes sharp what lies there, and rings or stays wide elsewhere (as
Levin, Fergus, Durand, Freeman, ACM Trans. Graph. 26, 70 (2007) use it with a coded aperture; here spherical
aberration codes the sign). A small network sees how sharp, sparse and negative each estimate is beside the
others, in cells of a few pixels, and says what share of a cell's light comes from each plane. The same
weights work on every plane; neighbouring planes are seen by shifting a part of the channels along z (Lin,
Gan, Han, Temporal Shift Module, 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL_PX = 8
CUES = 11
"""Of a plane: see `sweep_cues`."""
_OF_IMAGE = 2
_CODE = 16
_FLOOR = 1e-4


def shifted(x: torch.Tensor, planes: int, step: int) -> torch.Tensor:
    """Return features (B * planes, C, y, x), a quarter of their channels from `step` planes below, and above.

    Beyond the ends there is nothing.
    """
    share = x.shape[1] // 4
    if share == 0 or step >= planes:
        return x
    last = x.permute(0, 2, 3, 1)  # channels lie side by side: nothing is moved about
    v = last.reshape(-1, planes, *last.shape[1:])
    below = functional.pad(v[:, :-step, ..., :share], (0, 0, 0, 0, 0, 0, step, 0))
    above = functional.pad(v[:, step:, ..., share : 2 * share], (0, 0, 0, 0, 0, 0, 0, step))
    return torch.cat([below, above, v[..., 2 * share :]], -1).flatten(0, 1).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Two convolutions beside a straight way, scaled and shifted by what is known of the plane."""

    def __init__(self, given: int, out: int, planes: int, step: int) -> None:
        super().__init__()
        self.planes, self.step = planes, step
        self.first = nn.Conv2d(given, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.turn = nn.Linear(_CODE, 2 * out)
        self.straight: nn.Module = nn.Conv2d(given, out, 1) if given != out else nn.Identity()
        with torch.no_grad():
            self.second.weight.mul_(0.3)
            self.turn.weight.mul_(0.3)
        nn.init.zeros_(self.turn.bias)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Return (B * planes, out, y, x)."""
        scale, shift = self.turn(code)[..., None, None].chunk(2, 1)
        y = functional.leaky_relu(self.first(shifted(x, self.planes, self.step)) * (1 + scale) + shift, 0.1)
        y = self.second(shifted(y, self.planes, self.step))
        return functional.leaky_relu(y + self.straight(x), 0.1)


class DepthNet(nn.Module):
    """Shares of light by plane.

    Parameters
    ----------
    planes : int
    conditions : int
        Numbers that each plane is told.
    widths : sequence of int
        Channels in cells, and at each halving.
    """

    def __init__(self, planes: int, conditions: int, widths: Sequence[int] = (32, 48, 64, 64)) -> None:
        super().__init__()
        self.planes, self.widths = int(planes), tuple(int(w) for w in widths)
        self.code = nn.Sequential(
            nn.Linear(conditions, _CODE), nn.LeakyReLU(0.1), nn.Linear(_CODE, _CODE), nn.LeakyReLU(0.1)
        )
        given = [2 * CUES + _OF_IMAGE, *self.widths[:-1]]
        self.down = nn.ModuleList(
            _Block(a, b, self.planes, k + 1) for k, (a, b) in enumerate(zip(given, self.widths, strict=True))
        )
        self.up = nn.ModuleList(
            _Block(a + b, a, self.planes, k + 1)
            for k, (a, b) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True))
        )
        self.leave = nn.Conv2d(self.widths[0], 1, 3, padding=1)

    def forward(self, cues: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return logarithms of shares, (planes, y, x) in cells.

        Parameters
        ----------
        cues : Tensor, shape (planes, 2 * CUES + 2, y, x)
            Of `sweep_cues`, of one image.
        condition : Tensor, shape (planes, conditions)
        """
        code = self.code(condition)
        x = cues.contiguous(memory_format=torch.channels_last)
        kept: list[torch.Tensor] = []
        for k, block in enumerate(self.down):
            x = block(functional.avg_pool2d(x, 2, ceil_mode=True) if k else x, code)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            size = (kept[level].shape[2], kept[level].shape[3])
            x = functional.interpolate(x, size, mode="nearest")
            x = self.up[level](torch.cat([x, kept[level]], 1), code)
        out: torch.Tensor = functional.log_softmax(self.leave(x)[:, 0].float(), 0)
        return out


def signed_root(values: torch.Tensor) -> torch.Tensor:
    """Return ``sign(v) sqrt|v|``, its slope finite at 0."""
    small = 1e-3
    out: torch.Tensor = torch.sign(values) * ((values.abs() + small).sqrt() - small**0.5)
    return out


def sweep_cues(
    image: torch.Tensor, careful: torch.Tensor, bold: torch.Tensor, matched: torch.Tensor
) -> torch.Tensor:
    """Return what tells the right plane, (planes, 2 * CUES + 2, y, x) in cells of `CELL_PX`.

    In a cell, of each plane's estimates: their energy, that of what is negative, skewness, kurtosis; what
    changes from pixel to pixel, of the careful one; of the matched filter: mean and largest. Each beside the
    mean over planes, and that mean; then brightness and detail of the image.

    Parameters
    ----------
    image : Tensor, shape (y, x)
    careful, bold : Tensor, shape (planes, y, x)
        Linear in the light.
    matched : Tensor, shape (planes, y / 2, x / 2)
    """
    low = matched.new_tensor(1e-2)
    # plane by plane: what is in the processor's cache is quick
    cues = torch.cat(
        [
            torch.cat([_moments(c[None, None], True), _moments(b[None, None], False), _of_matched(m, low)], 1)
            for c, b, m in zip(careful, bold, matched, strict=True)
        ]
    )
    mean = cues.mean(0, keepdim=True)
    away = cues - mean
    away = away / (away.square().mean(0, keepdim=True).sqrt() + 0.05)
    own = image[None, None]
    of_image = torch.cat(
        [torch.log(_cells(own).clamp(min=0) + low), torch.log(_cells(_steps(own)) + _FLOOR)], 1
    )
    shared = 0.3 * torch.cat([mean, of_image], 1).expand(len(cues), -1, -1, -1)
    return torch.cat([away, shared], 1)


def _moments(v: torch.Tensor, detail: bool) -> torch.Tensor:
    square = v**2
    energy = _cells(square) + _FLOOR
    log_energy = torch.log(energy)
    parts = [
        log_energy,
        torch.log(_cells(v.clamp(max=0) ** 2) + _FLOOR) - log_energy,
        _cells(square * v) / energy**1.5,
        torch.log(_cells(square**2) + _FLOOR**2) - 2 * log_energy,
    ]
    if detail:
        parts.append(torch.log(_cells(_steps(v)) + _FLOOR) - log_energy)
    return torch.cat(parts, 1)


def _of_matched(matched: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    half = matched[None, None]
    mean = torch.log(_cells(half, CELL_PX // 2).clamp(min=0) + low)
    most = torch.log(functional.max_pool2d(half.clamp(min=0), CELL_PX // 2, ceil_mode=True) + low)
    return torch.cat([mean, most], 1)


def _cells(images: torch.Tensor, cell: int = CELL_PX) -> torch.Tensor:
    return functional.avg_pool2d(images, cell, ceil_mode=True)


def _steps(images: torch.Tensor) -> torch.Tensor:
    """Return squared differences from pixel to pixel, along both axes."""
    down = functional.pad(images, (0, 0, 0, 1), mode="replicate").diff(dim=2)
    right = functional.pad(images, (0, 1, 0, 0), mode="replicate").diff(dim=3)
    return down.square_().add_(right.square_())
