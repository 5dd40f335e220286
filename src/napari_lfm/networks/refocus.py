"""Virtual refocusing, profile "modern": one image to any plane or surface, wide-field and confocal.

After the virtual refocusing paper (2019), whose own network is in `refocus_paper`. What differs, and why:

* The image is encoded once. Distance enters the decoder only, so that a live slider and a stack pay for the
  decoder alone.
* Distance enters as what it does: beside z over the trained range the network is told the path difference
  at the pupil's edge, the blur in pixels and the sampling, pixel by pixel; surfaces need nothing else.
* It is shown three physical guesses for every distance (`RefocusPhysics`), and what rises above its
  surroundings on several scales.
* It gives square roots, for a plane in focus is far brighter than its blurred image, and has two heads: the
  wide-field plane and the confocal one.
* It has no norm: what it gives for a pixel depends on its surroundings alone, so tiles agree with the whole.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.wfcon import _band

if TYPE_CHECKING:
    from collections.abc import Sequence

MODERN_WIDTHS = (32, 48, 64, 96, 128)
MODERN_BANDS = (6, 20, 60)
PHYSICS = 3
CONDITIONS = 11
_CODE = 32
_FOLD = 2
HEADS = ("widefield", "confocal")


class _Encoding(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.straight: nn.Module = nn.Conv2d(given, out, 1) if given != out else nn.Identity()
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, out, y, x)."""
        y = self.second(functional.leaky_relu(self.first(x), 0.1))
        return functional.leaky_relu(y + self.straight(x), 0.1)


class _Decoding(nn.Module):
    """A block that is told the distance.

    The encoder's share of the first convolution is the same for every distance: `of_encoder` makes it once.
    """

    def __init__(self, width: int, deeper: int | None, physics: int) -> None:
        super().__init__()
        self.of_encoder = nn.Conv2d(width, width, 3, padding=1)
        self.rise = nn.Conv2d(deeper, width, 1) if deeper else None
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False) if deeper else None
        self.of_physics = nn.Conv2d(physics, width, 3, padding=1, bias=False) if physics else None
        self.turn = nn.Conv2d(_CODE, 2 * width, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)
            self.turn.weight.mul_(0.3)
        assert self.turn.bias is not None
        nn.init.zeros_(self.turn.bias)

    def forward(
        self,
        kept: torch.Tensor,
        straight: torch.Tensor,
        below: torch.Tensor | None,
        physics: torch.Tensor | None,
        code: torch.Tensor,
    ) -> torch.Tensor:
        """Return (N, width, y, x)."""
        x, way = kept, straight
        if below is not None:
            assert self.rise is not None and self.first is not None
            up = functional.interpolate(self.rise(below), kept.shape[2:], mode="nearest")
            x, way = x + self.first(up), way + up
        if physics is not None:
            assert self.of_physics is not None
            x = x + self.of_physics(physics)
        scale, shift = self.turn(code).chunk(2, 1)
        x = functional.leaky_relu(x * (1 + scale) + shift, 0.1)
        return functional.leaky_relu(self.second(x) + way, 0.1)


class RefocusNet(nn.Module):
    """The generator.

    Parameters
    ----------
    widths : sequence of int
        Channels of each level, the first at half the pixels.
    bands : sequence of int
        Scales, in pixels, above whose surroundings the input is shown too.
    physics : int
        Physical guesses that come with each distance; 0: none.
    """

    def __init__(
        self,
        widths: Sequence[int] = MODERN_WIDTHS,
        bands: Sequence[int] = MODERN_BANDS,
        physics: int = PHYSICS,
    ) -> None:
        super().__init__()
        widths = [int(w) for w in widths]
        if len(widths) < 2 or min(widths) < 1:
            raise RequestError(f"Widths {widths} make no network.", "Give two or more.")
        self.widths, self.bands, self.physics = tuple(widths), tuple(int(b) for b in bands), int(physics)
        folded = _FOLD**2
        self.enter = _Encoding(folded * (2 + len(self.bands)), widths[0])
        self.down = nn.ModuleList(_Encoding(a, b) for a, b in pairwise(widths))
        self.code = nn.Sequential(
            nn.Conv2d(CONDITIONS, _CODE, 1), nn.LeakyReLU(0.1), nn.Conv2d(_CODE, _CODE, 1), nn.LeakyReLU(0.1)
        )
        self.up = nn.ModuleList(
            _Decoding(a, b, folded * self.physics if k == 0 else self.physics if k <= 2 else 0)
            for k, (a, b) in enumerate(zip(widths, [*widths[1:], None], strict=True))
        )
        self.leave = nn.Conv2d(widths[0], folded * len(HEADS), 3, padding=1)
        # image and guesses go past the network too, in shares that the distance decides
        self.mix = nn.Conv2d(_CODE, len(HEADS) * (1 + self.physics), 1)
        start = torch.tensor([0, self.physics])  # the wide-field head begins with image and matched filter
        with torch.no_grad():
            self.leave.weight.mul_(0.3)
            self.mix.weight.mul_(0.1)
        assert self.mix.bias is not None
        nn.init.zeros_(self.mix.bias)
        with torch.no_grad():
            self.mix.bias.index_fill_(0, start, 0.5)

    @property
    def multiple(self) -> int:
        """What rows and columns are padded to a multiple of."""
        return int(_FOLD * 2 ** (len(self.widths) - 1))

    @property
    def reach(self) -> int:
        """Pixels on either side that a pixel's value can depend on, physical guesses apart."""
        total, step = 0, _FOLD
        for _ in self.widths:
            total += 5 * step
            step *= 2
        return total + 3 * max(self.bands, default=0) // 2

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return what the decoder needs of an image.

        Parameters
        ----------
        image : Tensor, shape (B, 1, y, x)
            Scaled to about 0..1; sizes are multiples of `multiple`.
        """
        root = signed_root(image)
        seen = [image, root, *(_band(image[:, :, None], b)[:, :, 0] for b in self.bands)]
        x = self.enter(functional.pixel_unshuffle(torch.cat(seen, 1), _FOLD))
        levels = [x]
        for block in self.down:
            x = block(functional.max_pool2d(x, 2))
            levels.append(x)
        out = [functional.pixel_unshuffle(root, _FOLD)]
        for level, block in zip(levels, self.up, strict=True):
            out += [block.of_encoder(level), level]  # type: ignore[operator]
        return out

    def decode(
        self, encoded: Sequence[torch.Tensor], condition: torch.Tensor, physics: torch.Tensor | None
    ) -> torch.Tensor:
        """Return square roots of the planes.

        Parameters
        ----------
        encoded : sequence of Tensor
            Of `encode`, for one image, or for as many as there are distances.
        condition : Tensor, shape (N, CONDITIONS, y, x) or (N, CONDITIONS, 1, 1)
            Of `conditions`, at half the pixels.
        physics : Tensor, shape (N, PHYSICS, y, x), or None

        Returns
        -------
        Tensor, shape (N, 2, y, x)
            Wide-field and confocal; what is below 0 stands for no light.
        """
        count, uniform = len(condition), condition.shape[-1] == 1 and condition.shape[-2] == 1
        codes = self.code(condition)
        guesses: list[torch.Tensor | None] = [None] * len(self.widths)
        passed = encoded[0].expand(count, -1, -1, -1)[:, None]
        if physics is not None:
            fine = functional.pixel_unshuffle(physics, _FOLD)
            passed = torch.cat([passed, fine.reshape(count, self.physics, _FOLD**2, *fine.shape[2:])], 1)
            guesses[0] = fine
            coarse = functional.avg_pool2d(physics, _FOLD)
            for level in range(1, min(3, len(guesses))):
                coarse = functional.avg_pool2d(coarse, 2)
                guesses[level] = coarse
        x: torch.Tensor | None = None
        for level in reversed(range(len(self.widths))):
            kept, straight = encoded[1 + 2 * level], encoded[2 + 2 * level]
            code = (
                codes
                if uniform or level == 0
                else functional.adaptive_avg_pool2d(codes, (kept.shape[2], kept.shape[3]))
            )
            x = self.up[level](kept, straight, x, guesses[level], code)
        assert x is not None
        shares = self.mix(codes)
        shares = shares.reshape(count, len(HEADS), -1, *shares.shape[2:])
        past = torch.stack([(shares[:, h, :, None] * passed).sum(1) for h in range(len(HEADS))], 1)
        out: torch.Tensor = functional.pixel_shuffle(self.leave(x) + past.flatten(1, 2), _FOLD)
        return out

    def forward(
        self, image: torch.Tensor, condition: torch.Tensor, physics: torch.Tensor | None
    ) -> torch.Tensor:
        """Return `decode` of `encode`; see there."""
        return self.decode(self.encode(image), condition, physics)


def signed_root(values: torch.Tensor) -> torch.Tensor:
    """Return ``sign(v) sqrt|v|``, its slope finite at 0."""
    small = 1e-3
    out: torch.Tensor = torch.sign(values) * ((values.abs() + small).sqrt() - small**0.5)
    return out


def conditions(
    z_um: torch.Tensor, range_um: float, edge_waves_per_um: float, blur_px_per_um: float, sampling: float
) -> torch.Tensor:
    """Return what the network is told about distances.

    Parameters
    ----------
    z_um : Tensor, shape (N, 1, y, x)
        From the image's plane to the wanted one.
    range_um : float
        Largest trained distance.
    edge_waves_per_um, blur_px_per_um : float
        Path difference at the pupil's edge, and radius of the blurred spot, per distance.
    sampling : float
        Pixels over those that just hold every frequency that the aperture passes.
    """
    share = z_um / range_um
    parts = [
        share,
        share.abs(),
        z_um * (edge_waves_per_um / 12),
        z_um.abs() * (blur_px_per_um / 40),
        torch.full_like(share, sampling - 1),
    ]
    for turns in (1, 2, 4):
        parts += [torch.sin(torch.pi * turns * share), torch.cos(torch.pi * turns * share)]
    return torch.cat(parts, 1)
