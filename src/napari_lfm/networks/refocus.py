"""Virtual refocusing, profile "modern": one image to all planes within reach, in one pass.

After the virtual refocusing paper (2019), whose own network is in `refocus_paper`. What differs, and why:

* The network gives the confocal stack around the image at once, in planes a tenth of the range apart. Any
  wide-field plane or surface is then rendered from it with the known optics (`refocus_render`), a matter of
  milliseconds: a slider is live, a surface costs no more than a plane, and the stack can be asked to
  reproduce the image.
* Distance enters as what it does. For every distance the network is shown what undoing the known defocus
  makes of the image (`RefocusPhysics.sweep`): what lies there becomes sharp, the rest does not, as in a plane
  sweep of stereo vision. With other optics the sweep is another one, so that one model serves several
  objectives; the network is also told the blur, the path difference at the pupil's edge and the sampling.
* It gives square roots, for a plane in focus is far brighter than its blurred image.
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

MODERN_WIDTHS = (32, 64, 96, 128, 160)
MODERN_BANDS = (6, 20, 60)
PLANES = 21
CONDITIONS = 3
_CODE = 16
_FOLD = 2
MOST_OPEN = 1.5
"""Of a gate: the estimate's brightness is not the confocal one's."""


class _Block(nn.Module):
    """Two convolutions beside a straight way, scaled and shifted by the condition."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.turn = nn.Linear(_CODE, 2 * out)
        self.straight: nn.Module = nn.Conv2d(given, out, 1) if given != out else nn.Identity()
        with torch.no_grad():
            self.second.weight.mul_(0.2)
            self.turn.weight.mul_(0.2)
        nn.init.zeros_(self.turn.bias)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Return (B, out, y, x)."""
        scale, shift = self.turn(code)[..., None, None].chunk(2, 1)
        y = functional.leaky_relu(self.first(x) * (1 + scale) + shift, 0.1)
        return functional.leaky_relu(self.second(y) + self.straight(x), 0.1)


class RefocusNet(nn.Module):
    """The generator.

    Parameters
    ----------
    widths : sequence of int
        Channels of each level, the first at half the pixels.
    bands : sequence of int
        Scales, in pixels, above whose surroundings the input is shown too.
    planes : int
        Of the stack that it gives, from minus to plus the range; odd.
    sweep : bool
        Show it the physical sweep, and let what that makes of each plane past it, as far as it says.
    """

    def __init__(
        self,
        widths: Sequence[int] = MODERN_WIDTHS,
        bands: Sequence[int] = MODERN_BANDS,
        planes: int = PLANES,
        sweep: bool = True,
    ) -> None:
        super().__init__()
        widths = [int(w) for w in widths]
        if len(widths) < 2 or min(widths) < 1:
            raise RequestError(f"Widths {widths} make no network.", "Give two or more.")
        if planes < 3 or planes % 2 == 0:
            raise RequestError(f"{planes} planes: give an odd number from 3 on.")
        self.widths, self.bands = tuple(widths), tuple(int(b) for b in bands)
        self.planes, self.sweep = int(planes), bool(sweep)
        folded = _FOLD**2
        given = folded * (2 + len(self.bands)) + (2 * self.planes if self.sweep else 0)
        self.code = nn.Sequential(nn.Linear(CONDITIONS, _CODE), nn.LeakyReLU(0.1))
        self.enter = _Block(given, widths[0])
        self.down = nn.ModuleList(_Block(a, b) for a, b in pairwise(widths))
        self.rise = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        self.leave = nn.Conv2d(widths[0], folded * self.planes, 3, padding=1)
        # each plane of the sweep goes past the network, through a gate that it opens where the plane is right
        self.gate = nn.Conv2d(widths[0], self.planes, 3, padding=1) if self.sweep else None
        with torch.no_grad():
            self.leave.weight.mul_(0.1)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    @property
    def multiple(self) -> int:
        """What rows and columns are padded to a multiple of."""
        return int(_FOLD * 2 ** (len(self.widths) - 1))

    @property
    def reach(self) -> int:
        """Pixels on either side that a pixel's value can depend on, the sweep apart."""
        total, step = 0, _FOLD
        for _ in self.widths:
            total += 5 * step
            step *= 2
        return total + 3 * max(self.bands, default=0) // 2

    def forward(
        self,
        image: torch.Tensor,
        condition: torch.Tensor,
        sharp: torch.Tensor | None = None,
        coarse: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return square roots of the confocal planes.

        Parameters
        ----------
        image : Tensor, shape (B, 1, y, x)
            Scaled to about 0..1; sizes are multiples of `multiple`.
        condition : Tensor, shape (B, CONDITIONS)
            Of `conditions`.
        sharp : Tensor, shape (B, planes, y, x)
            Of `RefocusPhysics.sweep`.
        coarse : Tensor, shape (B, planes, y / 2, x / 2)

        Returns
        -------
        Tensor, shape (B, planes, y, x)
            What is below 0 stands for no light.
        """
        root = signed_root(image)
        seen = torch.cat([image, root, *(_band(image[:, :, None], b)[:, :, 0] for b in self.bands)], 1)
        parts = [functional.pixel_unshuffle(seen, _FOLD)]
        if self.sweep:
            assert sharp is not None and coarse is not None
            parts += [functional.avg_pool2d(sharp, _FOLD), coarse]
        given = torch.cat(parts, 1)
        code = self.code(condition)
        x = self.enter(given, code)
        kept = []
        for block in self.down:
            kept.append(x)
            x = block(functional.max_pool2d(x, 2), code)
        ways = zip(reversed(list(self.rise)), reversed(list(self.up)), reversed(kept), strict=True)
        for rise, block, skip in ways:
            up = functional.interpolate(rise(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skip, up], 1), code)
        out: torch.Tensor = functional.pixel_shuffle(self.leave(x), _FOLD)
        if self.gate is not None and sharp is not None:
            gate = MOST_OPEN * torch.sigmoid(self.gate(x))
            out = out + sharp * functional.interpolate(gate, scale_factor=float(_FOLD), mode="bilinear")
        return out


def signed_root(values: torch.Tensor) -> torch.Tensor:
    """Return ``sign(v) sqrt|v|``, its slope finite at 0."""
    small = 1e-3
    out: torch.Tensor = torch.sign(values) * ((values.abs() + small).sqrt() - small**0.5)
    return out


def conditions(
    range_um: float, edge_waves_per_um: float, blur_px_per_um: float, sampling: float
) -> torch.Tensor:
    """Return what the network is told about the optics, (1, CONDITIONS).

    Parameters
    ----------
    range_um : float
        Distance of the outermost planes.
    edge_waves_per_um, blur_px_per_um : float
        Path difference at the pupil's edge, and radius of the blurred spot, per distance.
    sampling : float
        Pixels over those that just hold every frequency that the aperture passes.
    """
    values = [range_um * edge_waves_per_um / 8 - 1, range_um * blur_px_per_um / 40 - 1, sampling - 1.5]
    return torch.tensor([values], dtype=torch.float32)
