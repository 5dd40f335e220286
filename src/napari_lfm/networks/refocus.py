"""Virtual refocusing, profile "modern": one image to all planes within reach, in one pass.

After the virtual refocusing paper (2019), whose own network is in `refocus_paper`. What differs, and why:

* For every distance the network is shown what undoing the known defocus makes of the image
  (`RefocusPhysics.sweep`), carefully and boldly: what lies there becomes sharp, the rest does not. A first
  part says, cell by cell, what share of the light comes from which plane (`refocus_depth`); each plane's
  estimate is let past in that share; a second part says how bold to be, and mends what the estimates lack.
* It gives the confocal stack around the image at once, in planes a tenth of the range apart. Any wide-field
  plane or surface is then rendered from it with the known optics (`refocus_render`), a matter of
  milliseconds: a slider is live, a surface costs no more than a plane, and the stack can be asked to
  reproduce the image.
* A plane is told its distance and the physical defocus there: path difference at the pupil's edge, blur in
  pixels, sampling. With other optics the sweep is another one too, so that one model serves several
  objectives.
* It gives square roots, for a plane in focus is far brighter than its blurred image.
* It has no norm: what it gives for a pixel depends on its surroundings alone, so tiles agree with the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus_depth import CELL_PX, DepthNet, signed_root, sweep_cues
from napari_lfm.networks.wfcon import _band

if TYPE_CHECKING:
    from collections.abc import Sequence

MODERN_WIDTHS = (32, 64, 96, 128, 160)
MODERN_BANDS = (6, 20, 60)
PLANES = 21
DEPTH_WIDTHS = (32, 48, 64, 64)
CONDITIONS = 6
_CODE = 16
_FOLD = 2
_LEAST_SHARE = 1e-4
_MOST_CHANGE = 1.0
"""Logarithm by which the second part may brighten or dim an estimate."""


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
    depth_widths : sequence of int
        Channels of the part that says where light comes from.
    """

    def __init__(
        self,
        widths: Sequence[int] = MODERN_WIDTHS,
        bands: Sequence[int] = MODERN_BANDS,
        planes: int = PLANES,
        sweep: bool = True,
        depth_widths: Sequence[int] = DEPTH_WIDTHS,
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
        given = folded * (2 + len(self.bands)) + (4 * self.planes if self.sweep else 0)
        # of the outermost plane: what differs from microscope to microscope
        self.code = nn.Sequential(nn.Linear(CONDITIONS, _CODE), nn.LeakyReLU(0.1))
        self.depth = DepthNet(self.planes, CONDITIONS, depth_widths) if self.sweep else None
        self.join = nn.Conv2d(given, widths[0], 1)
        self.enter = _Block(widths[0], widths[0])
        self.down = nn.ModuleList(_Block(a, b) for a, b in pairwise(widths))
        self.rise = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(2 * a, a) for a in widths[:-1])
        # folded planes; how far the estimates are to be brightened or dimmed; how bold to be
        self.leave = nn.Conv2d(widths[0], (folded + (2 if self.sweep else 0)) * self.planes, 1)
        assert self.leave.bias is not None
        with torch.no_grad():
            self.leave.weight.mul_(0.05)
        nn.init.zeros_(self.leave.bias)

    @property
    def multiple(self) -> int:
        """What rows and columns are padded to a multiple of."""
        return max(CELL_PX, int(_FOLD * 2 ** (len(self.widths) - 1)))

    def forward(
        self, image: torch.Tensor, condition: torch.Tensor, sweep: Sweep | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return square roots of the confocal planes, and where light comes from.

        Parameters
        ----------
        image : Tensor, shape (y, x)
            Scaled to about 0..1; sizes are multiples of `multiple`.
        condition : Tensor, shape (planes, CONDITIONS)
            Of `conditions`.
        sweep : Sweep
            Of `RefocusPhysics.sweep`.

        Returns
        -------
        roots : Tensor, shape (planes, y, x)
            What is below 0 stands for no light.
        log_shares : Tensor, shape (planes, y / CELL_PX, x / CELL_PX), or None
            Logarithms of the planes' shares of the light of a cell.
        """
        log_shares = None if sweep is None else self.log_shares(image, condition, sweep)
        return self.mended(image, condition, sweep, log_shares), log_shares

    def log_shares(self, image: torch.Tensor, condition: torch.Tensor, sweep: Sweep) -> torch.Tensor:
        """Return the first part's result alone; see `forward`."""
        assert self.depth is not None
        with torch.no_grad():
            cues = sweep_cues(image, sweep.careful, sweep.bold, sweep.matched)
        out: torch.Tensor = self.depth(cues, condition)
        return out

    def mended(
        self,
        image: torch.Tensor,
        condition: torch.Tensor,
        sweep: Sweep | None,
        log_shares: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the second part's result; see `forward`."""
        one = image[None, None]
        seen = torch.cat(
            [one, signed_root(one), *(_band(one[:, :, None], b)[:, :, 0] for b in self.bands)], 1
        )
        parts, wide = [functional.pixel_unshuffle(seen, _FOLD)], None
        if sweep is not None and log_shares is not None:
            # the last condition: how much brighter all planes together are than the light of one
            shares = ((log_shares.exp() + _LEAST_SHARE) * condition[:, -1, None, None]).sqrt()[None]
            size = (parts[0].shape[-2], parts[0].shape[-1])
            wide = functional.interpolate(shares, size, mode="bilinear", align_corners=False)
            careful, bold = (signed_root(_halved(v))[None] * wide for v in (sweep.careful, sweep.bold))
            parts += [careful, bold, signed_root(sweep.matched)[None], wide]
        given = torch.cat(parts, 1).contiguous(memory_format=torch.channels_last)
        code = self.code(condition[-1:])
        x = self.enter(self.join(given), code)
        kept = []
        for block in self.down:
            kept.append(x)
            x = block(functional.max_pool2d(x, 2), code)
        ways = zip(reversed(list(self.rise)), reversed(list(self.up)), reversed(kept), strict=True)
        for rise, block, skip in ways:
            up = functional.interpolate(rise(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skip, up], 1), code)
        left = self.leave(x).to(torch.float32, memory_format=torch.contiguous_format)
        folded = _FOLD**2 * self.planes
        mend, rest = left[0, :folded].unflatten(0, (self.planes, -1)), left[0, folded:]
        if sweep is None or wide is None:
            return functional.pixel_shuffle(mend, _FOLD)[:, 0]
        change, boldness = rest.chunk(2)
        passes = wide[0] * torch.exp(_MOST_CHANGE * torch.tanh(change))
        share = torch.sigmoid(boldness - 1)
        # plane by plane: what is in the processor's cache is quick
        return torch.stack(
            [
                functional.pixel_shuffle(mend[k], _FOLD)[0]
                + signed_root(torch.lerp(sweep.careful[k], sweep.bold[k], _doubled(share[k])))
                * _doubled(passes[k])
                for k in range(self.planes)
            ]
        )


@dataclass(frozen=True)
class Sweep:
    """What undoing the defocus of every distance makes of an image, linear in the light.

    Attributes
    ----------
    careful, bold : Tensor, shape (planes, y, x)
        Wiener estimates, for much noise and for little.
    matched : Tensor, shape (planes, y / 2, x / 2)
        The matched filter at half the pixels.
    """

    careful: torch.Tensor
    bold: torch.Tensor
    matched: torch.Tensor

    def to(self, device: torch.device) -> Sweep:
        """Return the same on a device."""
        return Sweep(self.careful.to(device), self.bold.to(device), self.matched.to(device))


def _doubled(v: torch.Tensor) -> torch.Tensor:
    """Return values (y, x) at twice the pixels."""
    out: torch.Tensor = functional.interpolate(v[None, None], scale_factor=float(_FOLD), mode="bilinear")
    return out[0, 0]


def _halved(v: torch.Tensor) -> torch.Tensor:
    """Return means of two by two pixels."""
    return (v[..., ::2, ::2] + v[..., 1::2, ::2] + v[..., ::2, 1::2] + v[..., 1::2, 1::2]) / 4


def conditions(
    planes: int,
    range_um: float,
    edge_waves_per_um: float,
    blur_px_per_um: float,
    sampling: float,
    depth_of_field_um: float,
) -> torch.Tensor:
    """Return what the network is told about its planes, (planes, CONDITIONS).

    Parameters
    ----------
    planes : int
    range_um : float
        Distance of the outermost planes.
    edge_waves_per_um, blur_px_per_um : float
        Path difference at the pupil's edge, and radius of the blurred spot, per distance.
    sampling : float
        Pixels over those that just hold every frequency that the aperture passes.
    depth_of_field_um : float
    """
    share = torch.linspace(-1, 1, planes)
    z = share * range_um
    ratio = depth_of_field_um / (2 * range_um / (planes - 1))
    told = [share, share.abs() * 2 - 1, z * (edge_waves_per_um / 8), z.abs() * (blur_px_per_um / 20) - 1]
    return torch.stack([*told, torch.full_like(share, sampling - 1.5), torch.full_like(share, ratio)], 1)
