"""LFMNet, profile "modern": lenslet neighbourhoods first, then a 2-D U-Net to depth channels.

The idea is that of Page et al., IEEE Trans. Comput. Imaging 7, 775 (2021): a 4-D convolution across
neighbouring lenslets that keeps the angles apart, then a 2-D U-Net whose output channels are the depths.
What differs from the published network: the output has a chosen number of voxels per lenslet instead of
one per pixel; nothing depends on the size of the frame (no normalisation over it, no resizing), so that
tiles agree with the whole; the output is linear in the exposure and not squeezed through a sigmoid.
It may be given a start, volumes that a linear inverse of the optics or a few iterations make
(`napari_lfm.optics.start`): what physics knows need not be learned then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

_POOLINGS = 2
_SLOPE = 0.1
_APERTURES = (1.0, 0.5)
_MOST_ITERATIONS = 100


class EpipolarConvolution(nn.Module):
    """A separable 4-D convolution along epipolar lines: refocusing, as a layer that learns.

    A point at a given depth moves from lenslet to lenslet as the view changes, along a line whose slope says
    the depth. Along y and along x alike, the layer gathers N views of nearby lenslets into s voxels per
    lenslet and plane. It starts as plain refocusing (every view, linearly interpolated between lenslets
    where the line goes) and is trained from there, so that the optics need not be learned from nothing.

    Parameters
    ----------
    n_pixels : int
        Views along one axis, N.
    slopes : sequence of float
        Lenslets per view for each plane (`napari_lfm.lightfield.slopes.slope_at_depth`).
    voxels_per_lenslet : int
        s.
    aperture : float
        Views used at the start, as a share of N.
    """

    def __init__(
        self, n_pixels: int, slopes: Sequence[float], voxels_per_lenslet: int, aperture: float = 1.0
    ) -> None:
        super().__init__()
        n, s, planes = n_pixels, voxels_per_lenslet, len(slopes)
        self.n_pixels, self.planes, self.voxels_per_lenslet = n, planes, s
        self.reach = math.ceil(max(abs(v) for v in slopes) * (n - 1) / 2) + 1
        weights = torch.zeros(planes, s, n, 2 * self.reach + 1)
        views = torch.arange(n) - (n - 1) / 2
        inside = views.abs() <= aperture * n / 2
        for plane, slope in enumerate(slopes):
            for voxel in range(s):
                place = (voxel - (s - 1) / 2) / s + slope * views + self.reach
                low = place.floor().long()
                part = place - low
                for step, share in ((0, 1 - part), (1, part)):
                    column = (low + step).clamp(0, 2 * self.reach)
                    weights[plane, voxel, torch.arange(n), column] += share * inside / inside.sum()
        self.along_y = nn.Parameter(weights.reshape(planes * s, n, -1, 1).clone())
        self.along_x = nn.Parameter(weights.reshape(planes * s, n, 1, -1).clone())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, rows * N, columns * N) -> (B, planes, rows * s, columns * s)."""
        n, s, d, b = self.n_pixels, self.voxels_per_lenslet, self.planes, image.shape[0]
        rows, columns = image.shape[1] // n, image.shape[2] // n
        views = image.reshape(b, rows, n, columns, n).permute(0, 4, 2, 1, 3)
        x = functional.conv2d(
            views.reshape(b * n, n, rows, columns), self.along_y, padding=(self.reach, 0)
        )  # (B * Nx, planes * sy, rows, columns)
        x = x.reshape(b, n, d, s, rows, columns).permute(0, 3, 2, 1, 4, 5)
        x = functional.conv2d(
            x.reshape(b * s, d * n, rows, columns), self.along_x, padding=(0, self.reach), groups=d
        )  # (B * sy, planes * sx, rows, columns)
        x = x.reshape(b, s, d, s, rows, columns).permute(0, 2, 4, 1, 5, 3)
        return torch.Tensor(x.reshape(b, d, rows * s, columns * s))


class AngularConvolution(nn.Module):
    """A 4-D convolution over 3 x 3 angles and 3 x 3 lenslets, from one channel to a few.

    One 2-D convolution does it: the nine neighbouring angles become channels and every angle a member
    of the batch (as `napari_lfm.networks.conv4d`, which does it for the published network).

    Parameters
    ----------
    n_pixels : int
        Pixels per lenslet, N.
    channels : int
        Output channels of every angle.
    """

    def __init__(self, n_pixels: int, channels: int) -> None:
        super().__init__()
        self.n_pixels, self.channels = n_pixels, channels
        self.convolution = nn.Conv2d(9, channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, rows * N, columns * N) -> (B, channels * N * N, rows, columns)."""
        n, b = self.n_pixels, image.shape[0]
        rows, columns = image.shape[1] // n, image.shape[2] // n
        views = image.reshape(b, rows, n, columns, n).permute(0, 2, 4, 1, 3)
        padded = functional.pad(views, (0, 0, 0, 0, 1, 1, 1, 1))
        near = torch.stack(
            [padded[:, i : i + n, j : j + n] for i in range(3) for j in range(3)], dim=3
        )  # (B, N, N, 9, rows, columns)
        out = self.convolution(near.reshape(b * n * n, 9, rows, columns))
        # channels beside angles: the next layer mixes both
        return torch.Tensor(out.reshape(b, n * n * self.channels, rows, columns))


class _Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus what was learned."""
        return x + torch.Tensor(self.second(_act(self.first(_act(x)))))


class _Pair(nn.Module):
    """Two 3 x 3 convolutions with activations."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in, y, x) -> (B, n_out, y, x)."""
        return _act(self.second(_act(self.first(x))))


class LensletNet(nn.Module):
    """Volumes from rectified light fields.

    Parameters
    ----------
    n_pixels : int
        Pixels per lenslet, N.
    depths : int
        Planes of the volume.
    voxels_per_lenslet : int
        Voxels across one lenslet, s.
    slopes : sequence of float
        Epipolar slopes (lenslets per view) of the planes that the refocusing layer starts from; as many as
        there are depths, or fewer.
    width : int
        Channels at full resolution; the deeper levels have 2 and 3 times as many.
    lenslet_width : int
        Channels of the layers that see one vector for each lenslet.
    blocks : int
        Residual blocks at that stage.
    angular : int
        Channels of the 4-D convolution.
    start_voxels : int
        Voxels per lenslet of the start; 0: the network has none.
    start_noise : sequence of float
        Regularisations of the start's volumes (`napari_lfm.optics.inverse.InverseSettings.noise`).
    start_iterations : sequence of int
        Instead of them, the counts of iterations after which its volumes are taken
        (`napari_lfm.optics.iterated.IterationSettings.iterations`).
    """

    tileable = True
    tile_step_lenslets = 1 << _POOLINGS

    def __init__(
        self,
        n_pixels: int,
        depths: int,
        voxels_per_lenslet: int,
        slopes: Sequence[float],
        width: int = 48,
        lenslet_width: int = 96,
        blocks: int = 2,
        angular: int = 2,
        start_voxels: int = 0,
        start_noise: Sequence[float] = (),
        start_iterations: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if len(slopes) < 1:
            raise ValueError("a network needs the epipolar slope of at least one plane")
        volumes = len(start_noise) + len(start_iterations)
        if start_voxels % 1 or (start_voxels > 0) != (volumes > 0) or (start_noise and start_iterations):
            raise ValueError("a start needs its voxels per lenslet, and regularisations or iterations")
        if not 0 <= start_voxels <= max(voxels_per_lenslet, 3):
            raise ValueError(f"a start of {start_voxels} voxels per lenslet is none for this network")
        if not all(0 < v < math.inf for v in start_noise):
            raise ValueError("regularisations of the start must be above 0")
        if any(v % 1 or v < 1 or v > _MOST_ITERATIONS for v in start_iterations):
            raise ValueError("a start takes whole iterations, 1 to 100")
        self.n_pixels, self.depths, self.voxels_per_lenslet = n_pixels, depths, voxels_per_lenslet
        self.blocks = blocks
        self.start_voxels, self.start_noise = start_voxels, tuple(float(v) for v in start_noise)
        self.start_iterations, self.start_volumes = tuple(int(v) for v in start_iterations), volumes
        s, top = voxels_per_lenslet, 3 * width
        self.angles = AngularConvolution(n_pixels, angular)
        self.gather = nn.Conv2d(angular * n_pixels**2, lenslet_width, 1)
        self.views = nn.Conv2d(n_pixels**2, lenslet_width, 1)
        self.lenslets = nn.Sequential(*(_Block(lenslet_width) for _ in range(blocks)))
        self.spread = nn.Conv2d(lenslet_width, width * s * s, 1)
        self.refocus = nn.ModuleList(
            EpipolarConvolution(n_pixels, slopes, voxels_per_lenslet, aperture) for aperture in _APERTURES
        )
        self.mix = nn.Conv2d(len(_APERTURES) * len(slopes) + self.start_channels, width, 1)
        if start_voxels:
            # what bright voxels of the start are divided by; set once, by the training
            self.register_buffer("start_scale", torch.ones(volumes))
            self.straight = nn.Parameter(torch.zeros(volumes, depths))
        self.enter = _Pair(width, width)
        self.down1 = _Pair(width, 2 * width)
        self.down2 = _Pair(2 * width, top)
        self.up1 = nn.ConvTranspose2d(top, 2 * width, 2, stride=2)
        self.merge1 = _Pair(4 * width, 2 * width)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge2 = _Pair(2 * width, width)
        self.leave = nn.Conv2d(width, depths, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Keep the signal's size through all layers (He et al., ICCV 2015): torch's default lets it fade."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, _SLOPE)
            elif isinstance(layer, nn.ConvTranspose2d):
                # a 2 x 2 kernel of stride 2: each output sees one weight of every input channel
                nn.init.normal_(layer.weight, std=(2 / (1 + _SLOPE**2) / layer.in_channels) ** 0.5)
            else:
                continue
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        for block in self.lenslets:
            assert isinstance(block, _Block)
            nn.init.zeros_(block.second.weight)
        # the first volumes are small: large ones would spend the first hundred steps on shrinking
        nn.init.normal_(self.leave.weight, std=1e-3)

    @property
    def start_channels(self) -> int:
        """Planes of all volumes of the start; 0 where there is none."""
        return self.start_volumes * self.depths

    @property
    def reach_lenslets(self) -> int:
        """How many lenslets away a pixel, or a voxel of the start, can still change a voxel."""
        s, q = self.voxels_per_lenslet, 1 << _POOLINGS
        # pairs of 3 x 3 at full, half and quarter resolution on the way down and up, and the pooling's cells
        voxels = 2 + 2 * 2 + 2 * q + 2 * 2 + 2 + (q - 1)
        near = 1 + 2 * self.blocks
        for layer in self.refocus:
            assert isinstance(layer, EpipolarConvolution)
            near = max(near, layer.reach)
        return near + -(-voxels // s)

    def forward(self, image: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Return the volume; see `volume_of`."""
        return self.volume_of(image, start)

    def volume_of(self, image: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Reconstruct.

        Parameters
        ----------
        image : tensor, shape (B, rows * N, columns * N)
            Rectified lenslet images, scaled as the model's card says.
        start : tensor, shape (B, start_channels, rows * start_voxels, columns * start_voxels), optional
            For a network that has a start: what `napari_lfm.optics.start` makes of `image`.

        Returns
        -------
        tensor, shape (B, depths, rows * s, columns * s)

        Raises
        ------
        ValueError
            If the image does not hold whole lenslets, or the start is not that of the image.
        """
        n, s = self.n_pixels, self.voxels_per_lenslet
        if image.ndim != 3 or image.shape[1] % n or image.shape[2] % n:
            raise ValueError(f"images of shape {tuple(image.shape)} do not hold whole lenslets of {n} px")
        rows, columns = image.shape[1] // n, image.shape[2] // n
        wanted = (len(image), self.start_channels, rows * self.start_voxels, columns * self.start_voxels)
        if (start is None) == (self.start_voxels > 0) or (start is not None and start.shape != wanted):
            have = "none" if start is None else tuple(start.shape)
            raise ValueError(f"the start is {have}, but should be {wanted if self.start_voxels else 'none'}")
        step = self.tile_step_lenslets
        more = (-rows % step, -columns % step)
        views = functional.pixel_unshuffle(image[:, None], n)
        if any(more):
            # lenslets like those at the edge: dark ones would be a sharp edge in a hazy frame
            views = functional.pad(views, (0, more[1], 0, more[0]), mode="replicate")
            image = functional.pixel_shuffle(views, n)[:, 0]
        x = self.gather(_act(self.angles(image))) + self.views(views)
        x = _act(self.lenslets(x))
        x = functional.pixel_shuffle(self.spread(x), s)
        fields = [layer(image) for layer in self.refocus]
        if start is not None:
            start = self._fine_start(start, more)
            fields.append(start)
        x = x + self.mix(torch.cat(fields, 1))
        fine = self.enter(_act(x))
        half = self.down1(functional.avg_pool2d(fine, 2))
        low = self.down2(functional.avg_pool2d(half, 2))
        half = self.merge1(torch.cat([self.up1(low), half], 1))
        fine = self.merge2(torch.cat([self.up2(half), fine], 1))
        out = self.leave(fine)
        if start is not None:
            volumes = start.reshape(len(start), self.start_volumes, self.depths, *start.shape[2:])
            out = out + (volumes * self.straight[..., None, None]).sum(1)
        return torch.Tensor(out[..., : rows * s, : columns * s])

    def _fine_start(self, start: torch.Tensor, more: tuple[int, int]) -> torch.Tensor:
        """Return the start on the network's voxels and on the added lenslets, bright ones about 1."""
        v, s = self.start_voxels, self.voxels_per_lenslet
        scale = self.get_buffer("start_scale").repeat_interleave(self.depths)
        start = start / scale[:, None, None]
        if any(more):
            start = functional.pad(start, (0, more[1] * v, 0, more[0] * v), mode="replicate")
        if v == s:
            return start
        size = (start.shape[-2] // v * s, start.shape[-1] // v * s)
        return functional.interpolate(start, size, mode="bilinear", align_corners=False)


def shapes_only(
    network: nn.Module, n_pixels: int, cells: tuple[int, int], batch: int = 1
) -> list[torch.Tensor]:
    """Return what `volume_of` is given for frames of `cells` lenslets, without memory: to ask its cost."""
    rows, columns = cells
    given = [torch.empty(batch, rows * n_pixels, columns * n_pixels, device="meta")]
    if isinstance(network, LensletNet) and network.start_voxels:
        v = network.start_voxels
        given.append(torch.empty(batch, network.start_channels, rows * v, columns * v, device="meta"))
    return given


def _act(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, _SLOPE)
