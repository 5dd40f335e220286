"""WFCON-Net: confocal-like stacks from wide-field ones, a 3-D residual U-Net with a discriminator.

Source: the WFCON-Net paper (Optica Publishing Group, 2021), section 2 and figure 2. It leaves out widths, the
order within a block and how depth is pooled; what we chose is said at the arguments.

Two profiles. ``paper`` is the generator as published: full-size first level, max-pooling, two convolutions
and one instance norm per block, nearest-neighbour upsampling. ``modern`` works at half the pixels across
(nothing is lost: pixels become channels) and has no norm: what it gives for a voxel then depends on its
surroundings alone, so tiles agree with the whole.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

Profile = Literal["modern", "paper"]
MODERN_WIDTHS = (16, 32, 64, 96, 128)
MODERN_BANDS = (8, 24, 64)
_FLAT = (-1 / 16, 4 / 16, 10 / 16, 4 / 16, -1 / 16)
BAND_GAIN, BAND_FLOOR = 4.0, 0.02
PAPER_BASE = 32
PAPER_LEVELS = 4


class StackNorm(nn.Module):
    """Instance norm whose statistics may come from elsewhere: from the whole stack instead of one tile.

    Attributes
    ----------
    held : tuple of Tensor or None
        Mean and variance per channel to use; None: those of what comes in. See `WfconNet.hold_statistics`.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps
        self.held: tuple[torch.Tensor, torch.Tensor] | None = None
        self.pooling = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, z, y, x) or (B, C, y, x)."""
        axes = tuple(range(2, x.dim()))
        shape = (1, -1, *(1 for _ in axes))
        if self.held is None:
            wide = x.float()
            over = (0, *axes) if self.pooling else axes
            mean, var = wide.mean(over, keepdim=True), wide.var(over, unbiased=False, keepdim=True)
            if self.pooling:
                self.held = mean.flatten().detach(), var.flatten().detach()
        else:
            mean, var = (value.to(x.device).reshape(shape) for value in self.held)
        scale = self.weight.reshape(shape) * torch.rsqrt(var + self.eps)
        return (x * scale + (self.bias.reshape(shape) - mean * scale)).to(x.dtype)


class _Block(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, given: int, out: int, flat: bool, norm: bool) -> None:
        super().__init__()
        conv = nn.Conv2d if flat else nn.Conv3d
        self.first = conv(given, out, 3, padding=1)
        self.second = conv(out, out, 3, padding=1)
        self.norm: nn.Module = StackNorm(out) if norm else nn.Identity()
        self.straight: nn.Module = conv(given, out, 1) if given != out else nn.Identity()
        self.act: nn.Module = nn.ReLU() if norm else nn.LeakyReLU(0.1)
        if not norm:
            # without a norm the sum of many blocks would grow: the second convolution starts small
            with torch.no_grad():
                self.second.weight.mul_(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block adds to the straight way."""
        y = self.norm(self.second(self.act(self.first(x))))
        out: torch.Tensor = self.act(y + self.straight(x))
        return out


class WfconNet(nn.Module):
    """The generator.

    Parameters
    ----------
    profile : {"modern", "paper"}
    widths : sequence of int, optional
        Channels of the first level and of every down block; default (16, 32, 64, 96, 128), and in the paper
        profile 32 doubling four times, or `base` doubling.
    base : int
        First width of the paper profile; not published.
    z_pool_levels : int
        How many down blocks halve the planes too, the innermost ones; the others halve y and x only. Not
        published: four halvings would leave nothing of the paper's patches of 12 planes.
    flat : bool
        Two-dimensional kernels, plane by plane: the ablation.
    planes : int
        Planes that the flat network is shown as channels around the wanted one (1 or more, odd).
    bands : sequence of int
        Not in the paper: the network is also shown what rises above its surroundings, so many pixels across,
        over the square root of their brightness, so that dim structures in haze stand out as far as their
        noise lets them. Default (8, 24, 64) in the modern profile, none in the paper's and the flat one's.
    """

    def __init__(
        self,
        profile: Profile = "modern",
        widths: Sequence[int] | None = None,
        base: int = PAPER_BASE,
        z_pool_levels: int = 2,
        flat: bool = False,
        planes: int = 1,
        bands: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if profile not in ("modern", "paper"):
            raise RequestError(f"There is no profile '{profile}' of WFCON-Net.", "Choose modern or paper.")
        if widths is None:
            widths = MODERN_WIDTHS if profile == "modern" else [base * 2**k for k in range(PAPER_LEVELS + 1)]
        widths = [int(w) for w in widths]
        if len(widths) < 2 or min(widths) < 1 or not 0 <= z_pool_levels < len(widths):
            raise RequestError(
                f"Widths {widths} with {z_pool_levels} halvings of the planes make no network.",
                "Give two or more widths, and fewer halvings than widths.",
            )
        if planes % 2 == 0 or planes < 1 or (planes > 1 and not flat):
            raise RequestError(f"{planes} planes as channels: give an odd number, with flat kernels only.")
        self.profile, self.widths, self.flat, self.planes = profile, tuple(widths), flat, planes
        self.fold = 2 if profile == "modern" else 1
        if bands is None:
            bands = MODERN_BANDS if profile == "modern" and not flat else ()
        self.bands = tuple(int(b) for b in bands)
        if self.bands and (flat or min(self.bands) < 2):
            raise RequestError(f"Bands of {list(self.bands)} pixels: give 2 or more, and no flat kernels.")
        norm = profile == "paper"
        count = len(widths) - 1
        deep = [not flat and k >= count - z_pool_levels for k in range(count)]
        self.pools = [(2 if d else 1, 2, 2)[1 if flat else 0 :] for d in deep]
        given = self.fold**2 * planes * (1 + len(self.bands))
        conv = nn.Conv2d if flat else nn.Conv3d
        self.enter = _Block(given, widths[0], flat, norm)
        self.down = nn.ModuleList(_Block(a, b, flat, norm) for a, b in pairwise(widths))
        # the paper convolves after upsampling; in the modern profile a 1 x 1 x 1 does
        size, pad = (3, 1) if norm else (1, 0)
        self.rise = nn.ModuleList(conv(b, a, size, padding=pad) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(2 * a, a, flat, norm) for a in widths[:-1])
        self.leave = conv(widths[0], self.fold**2, 3, padding=1)

    @property
    def multiple(self) -> tuple[int, int, int]:
        """What planes, rows and columns of the input are padded to a multiple of."""
        z, across = 1, self.fold
        for pool in self.pools:
            z *= 1 if self.flat else pool[0]
            across *= pool[-1]
        return z, across, across

    @property
    def reach(self) -> tuple[int, int, int]:
        """Voxels on either side that a voxel's value can depend on, (z, y, x)."""
        z, across, step_z, step = 0, 0, 1, self.fold
        for pool in [None, *self.pools]:
            if pool is not None:
                step_z *= 1 if self.flat else pool[0]
                step *= pool[-1]
            # two convolutions down and two up at this level, and what upsampling and pooling spill over
            z += (5 if step_z > 1 else 4) * step_z
            across += 5 * step
        across += self.fold + len(_FLAT) // 2 + 3 * max(self.bands, default=0) // 2
        return (self.planes // 2 if self.flat else z + 1), across, across

    @property
    def has_statistics(self) -> bool:
        """Whether the output depends on means over the whole input."""
        return self.profile == "paper"

    def hold_statistics(self, tiles: torch.Tensor | None) -> None:
        """Measure the statistics of all norms on tiles of one stack, and keep them; None lets go of them.

        Every tile of the stack is then treated alike. With all of the stack in `tiles` they are exactly those
        of the whole.

        Parameters
        ----------
        tiles : Tensor, shape (B, 1, z, y, x), or None
        """
        norms = [m for m in self.modules() if isinstance(m, StackNorm)]
        for norm in norms:
            norm.held, norm.pooling = None, tiles is not None
        if tiles is not None:
            with torch.no_grad():
                self(tiles)
        for norm in norms:
            norm.pooling = False

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Return the confocal-like stack.

        Parameters
        ----------
        stack : Tensor, shape (B, 1, z, y, x)
            Scaled to about 0..1; any sizes, padded by reflection where needed.

        Returns
        -------
        Tensor, shape (B, 1, z, y, x)
        """
        size = stack.shape[2:]
        padded = self._padded(stack)
        if not self.flat:
            if self.bands:
                padded = torch.cat([padded, *(_band(padded, b) for b in self.bands)], 1)
            return self._net(padded)[..., : size[0], : size[1], : size[2]]
        b, _, z, y, x = padded.shape
        half = self.planes // 2
        if half:
            around = functional.pad(padded, (0, 0, 0, 0, half, half), mode="replicate")
            seen = torch.stack([around[:, 0, k : k + z] for k in range(self.planes)], 2)
        else:
            seen = padded[:, 0, :, None]
        out = self._net(seen.reshape(b * z, self.planes, y, x))
        return out.reshape(b, z, 1, y, x).transpose(1, 2)[..., : size[0], : size[1], : size[2]]

    def _padded(self, stack: torch.Tensor) -> torch.Tensor:
        pads = [(-n) % m for n, m in zip(stack.shape[2:], self.multiple, strict=True)]
        if not any(pads):
            return stack
        mode = "reflect" if all(p < n for p, n in zip(pads, stack.shape[2:], strict=True)) else "replicate"
        return functional.pad(stack, (0, pads[2], 0, pads[1], 0, pads[0]), mode=mode)

    def _net(self, x: torch.Tensor) -> torch.Tensor:
        if self.fold > 1:
            x = _folded(x, self.fold)
        x = self.enter(x)
        kept = []
        pool = functional.max_pool2d if self.flat else functional.max_pool3d
        for size, block in zip(self.pools, self.down, strict=True):
            kept.append(x)
            x = block(pool(x, size))
        for rise, block, skip in zip(
            reversed(list(self.rise)), reversed(list(self.up)), reversed(kept), strict=True
        ):
            if self.fold > 1:  # a 1 x 1 x 1 convolution may come before: less to compute, the same result
                x = functional.interpolate(rise(x), skip.shape[2:], mode="nearest")
            else:
                x = rise(functional.interpolate(x, skip.shape[2:], mode="nearest"))
            x = block(torch.cat([skip, x], 1))
        out: torch.Tensor = self.leave(x)
        return _without_nyquist(_unfolded(out, self.fold)) if self.fold > 1 else out


class Discriminator(nn.Module):
    """Tells confocal patches from made ones; used in training only.

    The 3-D version of Deep-Z's: strided convolutions, then one number per patch. A literal copy would have
    255 million weights; the widths here are a quarter of its own or less.

    Parameters
    ----------
    widths : sequence of int
    flat : bool
        Two-dimensional, plane by plane.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 64), flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        layers: list[nn.Module] = []
        given = 1
        for k, width in enumerate(widths):
            if flat:
                layers.append(nn.Conv2d(given, width, 4, 2, 1))
            else:
                # planes are halved every other time: patches have fewer of them
                layers.append(nn.Conv3d(given, width, (3, 4, 4), (2 if k % 2 else 1, 2, 2), (1, 1, 1)))
            layers.append(nn.LeakyReLU(0.1))
            given = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(given, given), nn.LeakyReLU(0.1), nn.Linear(given, 1))

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Return how real stacks (B, 1, z, y, x) look, (B,), or (B * z,) where flat."""
        if self.flat:
            stack = stack.transpose(1, 2).flatten(0, 1)
        seen = self.body(stack)
        out: torch.Tensor = self.head(seen.mean(tuple(range(2, seen.dim()))))
        return out[:, 0]


def _without_nyquist(stack: torch.Tensor) -> torch.Tensor:
    """Return a stack without what repeats every two pixels across.

    Channels that become neighbouring pixels are never quite alike, which would show as a chequered pattern.
    The filter passes 98 % at a quarter of the highest frequency and 75 % at half of it.
    """
    line = torch.tensor(_FLAT, dtype=stack.dtype, device=stack.device)
    flat = stack.reshape(-1, 1, *stack.shape[-2:])
    half = len(_FLAT) // 2
    mode = "reflect" if min(flat.shape[2:]) > half else "replicate"
    for shape, pads in (((1, 1, 1, -1), (half, half, 0, 0)), ((1, 1, -1, 1), (0, 0, half, half))):
        flat = functional.conv2d(functional.pad(flat, pads, mode=mode), line.reshape(shape))
    return flat.reshape(stack.shape)


def _band(stack: torch.Tensor, size: int) -> torch.Tensor:
    """Return what rises above its surroundings across, over the square root of their brightness."""
    b, c, z, y, x = stack.shape
    flat = stack.float().reshape(b * c * z, 1, y, x)
    # wide surroundings are taken of fewer pixels; their number divides what stacks are padded to
    step = 1
    while 16 * step <= size and y % (2 * step) == 0 and x % (2 * step) == 0:
        step *= 2
    around = functional.avg_pool2d(flat, step) if step > 1 else flat
    half = [min(size // (2 * step), n - 1) for n in around.shape[2:]]
    for _ in range(2):  # two boxes make a triangle: smooth enough
        padded = functional.pad(around, (half[1], half[1], half[0], half[0]), mode="replicate")
        across = functional.avg_pool2d(padded, (1, 2 * half[1] + 1), stride=1)
        around = functional.avg_pool2d(across, (2 * half[0] + 1, 1), stride=1)
    if step > 1:
        around = functional.interpolate(around, (y, x), mode="bilinear", align_corners=False)
    rise = BAND_GAIN * (flat - around) * torch.rsqrt(around.clamp(min=0) + BAND_FLOOR)
    return rise.reshape(stack.shape).to(stack.dtype)


def _folded(x: torch.Tensor, by: int) -> torch.Tensor:
    """Return pixels as channels, (B, C, [z,] y, x) -> (B, C * by * by, [z,] y / by, x / by)."""
    if x.dim() == 4:
        return functional.pixel_unshuffle(x, by)
    b, c, z, y, x_ = x.shape
    out = x.reshape(b, c, z, y // by, by, x_ // by, by).permute(0, 1, 4, 6, 2, 3, 5)
    return out.reshape(b, c * by * by, z, y // by, x_ // by)


def _unfolded(x: torch.Tensor, by: int) -> torch.Tensor:
    """Undo `_folded`."""
    if x.dim() == 4:
        return functional.pixel_shuffle(x, by)
    b, c, z, y, x_ = x.shape
    out = x.reshape(b, c // by**2, by, by, z, y, x_).permute(0, 1, 4, 5, 2, 6, 3)
    return out.reshape(b, c // by**2, z, y * by, x_ * by)
