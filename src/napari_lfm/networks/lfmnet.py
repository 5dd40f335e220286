"""LFMNet as published: a light field to a volume in one pass.

Page Vizcaíno, Saltarin, Belyaev, Lyck, Lasser, Favaro: "Learning to reconstruct confocal microscopy stacks
from single light field images", IEEE Trans. Comput. Imaging 7, 775 (2021), profile "paper". A 4-D
convolution over 3 x 3 angles and `fov` x `fov` lenslets makes one channel for each depth; laid out as an
image, a 2-D U-Net turns them into the slices of the volume, between 0 and 1, one voxel per camera pixel.

The network does not commute with shifts: its sizes are mended by a resize whose stretch depends on the size
of the frame (`napari_lfm.networks.lfmnet_blocks`). Run it on the whole frame, as they do, not on tiles.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from napari_lfm.networks.conv4d import Conv4d
from napari_lfm.networks.lfmnet_blocks import Act, Down, UNet

# How far a pixel reaches in the U-Net, pixels, shallow or not: its convolutions, and the shift by the resize.
_REACH_PX = {True: 30, False: 130}


class LFMNet(nn.Module):
    """LFMNet, profile "paper".

    Parameters
    ----------
    n_depths : int
        Slices of the volume.
    fov : int
        Lenslets across that one lenslet's voxels are made from by the 4-D convolution, odd.
    shallow : bool
        The U-Net of two levels (the authors' default), else that of four.
    skip : bool
        Skip connections; the authors' default is none.
    down : {"maxpool", "stride"}, optional
        How the U-Net halves its size. None: as the authors' last version does, "maxpool" when shallow and
        "stride" otherwise. Their shallow one had "stride" and "relu" before 11 October 2020; the
        parameters' names and shapes are the same.
    act : {"leaky", "relu"}, optional
        Activation of the U-Net. None: "leaky" when shallow, "relu" otherwise.
    n_pixels : int, optional
        Pixels per lenslet, N, for `volume_of`. The layers fit any.
    bias : bool
        Whether the 4-D convolution has one.

    Attributes
    ----------
    depths, n_pixels : int
        As above.
    voxels_per_lenslet : None
        As many as pixels.
    tileable : bool
        False: see the module's text.
    """

    tileable = False
    tile_step_lenslets = 1
    voxels_per_lenslet: int | None = None

    def __init__(
        self,
        n_depths: int = 64,
        fov: int = 9,
        shallow: bool = True,
        skip: bool = False,
        down: Down | None = None,
        act: Act | None = None,
        n_pixels: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if n_depths < 1 or fov < 1 or fov % 2 == 0:
            raise ValueError(f"n_depths must be positive and fov odd, not {n_depths} and {fov}")
        if down not in (None, "maxpool", "stride") or act not in (None, "leaky", "relu"):
            raise ValueError(
                f"down is 'maxpool' or 'stride', act 'leaky' or 'relu', not {down!r} and {act!r}"
            )
        self.depths, self.fov, self.n_pixels = n_depths, fov, n_pixels
        self.shallow, self.skip = shallow, skip
        self.down: Down = down or ("maxpool" if shallow else "stride")
        self.act: Act = act or ("leaky" if shallow else "relu")
        self.lensletConvolution = nn.Sequential(
            Conv4d(1, n_depths, (3, 3, fov, fov), bias=bias), nn.LeakyReLU(0.01)
        )
        self.Unet = UNet(n_depths, shallow, skip, self.down, self.act)
        for layer in self.Unet.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.constant_(layer.bias, 0.1)

    @property
    def reach_lenslets(self) -> int:
        """How many lenslets away a pixel can still change a voxel (for N = 33 where N is not told)."""
        return self.fov // 2 + -(-_REACH_PX[self.shallow] // (self.n_pixels or 33))

    def forward(self, light_field: torch.Tensor) -> torch.Tensor:
        """Return the volume in the authors' convention.

        Parameters
        ----------
        light_field : Tensor, shape (B, 1, A_x, A_y, S_x + fov - 1, S_y + fov - 1)
            A: pixels behind a lenslet, S: lenslets. Between 0 and 1.

        Returns
        -------
        Tensor, shape (B, 1, S_x * A_x, S_y * A_y, n_depths)
            Row ``s_x * A_x + a_x``.
        """
        return self._volume(light_field).permute(0, 2, 3, 1).unsqueeze(1)

    def volume_of(self, image: torch.Tensor) -> torch.Tensor:
        """Return the volume of a lenslet image.

        The frame is surrounded by ``fov // 2`` dark lenslets, as the authors do. Without gradients and
        after ``eval()`` the maps are made in chunks and changed in place, which needs a third of the memory.

        Parameters
        ----------
        image : Tensor, shape (B, rows * N, columns * N)
            Row ``t * N + v``.

        Returns
        -------
        Tensor, shape (B, n_depths, rows * N, columns * N)
            Between 0 and 1.
        """
        n = self.n_pixels
        if n is None:
            raise ValueError("volume_of needs n_pixels, the pixels per lenslet")
        if image.shape[1] % n or image.shape[2] % n:
            raise ValueError(f"{tuple(image.shape[1:])} pixels are no whole lenslets of {n} x {n}")
        cells = image.view(image.shape[0], image.shape[1] // n, n, image.shape[2] // n, n)
        angles_first = cells.permute(0, 2, 4, 1, 3).unsqueeze(1)
        edge = self.fov // 2
        return self._volume(functional.pad(angles_first, (edge, edge, edge, edge))).contiguous()

    def _volume(self, light_field: torch.Tensor) -> torch.Tensor:
        first, act = self.lensletConvolution
        assert isinstance(first, Conv4d) and isinstance(act, nn.LeakyReLU)
        image = first.to_image(light_field)
        if torch.is_grad_enabled():
            image = act(image)
        else:
            functional.leaky_relu_(image, act.negative_slope)
        volume: torch.Tensor = self.Unet(image)
        return volume
