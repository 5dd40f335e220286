"""The 4-D convolution of light fields, as one 2-D convolution.

A light field ``L[a, b, s, t]`` has two angles (a, b: the pixel behind a lenslet) and two positions (s, t:
the lenslet). A kernel of ``ka x kb`` angles and ``ks x kt`` lenslets sees the angular neighbours of every
pixel, which become channels of a 2-D convolution over the lenslets; the angles themselves become members
of the batch. That is exact, and one call instead of the ``ka * A`` 3-D convolutions of a loop over the
first axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 2**30}
"""Output computed at once without gradients: little stays near a processor, much keeps a GPU busy."""


class Conv4d(nn.Module):
    """4-D correlation over angles and lenslets; the angles keep their number.

    The angles are padded with zeros on either side, the lenslets are not: S lenslets become ``S - ks + 1``.
    The state dict holds ``weight`` of shape ``(out, in * ka * kb, ks, kt)``, ready for the 2-D convolution,
    and ``bias`` of shape ``(out,)``. The code of Page et al. keeps five-dimensional slabs instead, which no
    optimised memory order knows; `join_slabs` converts them.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    kernel_size : tuple of int
        (ka, kb, ks, kt); the angular sizes are odd.
    bias : bool
        Whether there is one.

    Notes
    -----
    Kaiming-normal weights for each slab of one angular row, as the authors start; and a bias of 0.1, as they
    start every other layer: theirs of this one is whatever was in memory.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int, int] = (3, 3, 9, 9),
        bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size[0] % 2 == 0 or kernel_size[1] % 2 == 0:
            raise ValueError(f"the angular kernel sizes must be odd, not {kernel_size[:2]}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        ka, kb, ks, kt = kernel_size
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * ka * kb, ks, kt))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again: see the class's notes."""
        _, kb, ks, kt = self.kernel_size
        nn.init.normal_(self.weight, std=(2 / (self.in_channels * kb * ks * kt)) ** 0.5)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.1)

    def forward(self, light_field: torch.Tensor) -> torch.Tensor:
        """Return the correlation.

        Parameters
        ----------
        light_field : Tensor, shape (batch, in, A, B, S, T)

        Returns
        -------
        Tensor, shape (batch, out, A, B, S - ks + 1, T - kt + 1)
        """
        return self._positions(light_field, 0, light_field.shape[2]).permute(0, 3, 1, 2, 4, 5).contiguous()

    def to_image(self, light_field: torch.Tensor) -> torch.Tensor:
        """Return the correlation as a lenslet image: row ``s * A + a``, column ``t * B + b``.

        Without gradients it is computed a few angular rows at a time.

        Parameters
        ----------
        light_field : Tensor, shape (batch, in, A, B, S, T)

        Returns
        -------
        Tensor, shape (batch, out, (S - ks + 1) * A, (T - kt + 1) * B)
            Its memory is ordered channels last.
        """
        n, _, rows, columns, high, wide = light_field.shape
        high, wide = high - self.kernel_size[2] + 1, wide - self.kernel_size[3] + 1
        one_row = n * columns * self.out_channels * high * wide * light_field.element_size()
        needs_grad = torch.is_grad_enabled()
        chunk = CHUNK_BYTES.get(light_field.device.type, CHUNK_BYTES["cpu"])
        step = rows if needs_grad else max(1, min(rows, chunk // max(one_row, 1)))
        image: torch.Tensor | None = None
        for first in range(0, rows, step):
            part = self._positions(light_field, first, min(first + step, rows))
            part = part.permute(0, 4, 1, 5, 2, 3)  # batch, s, a, t, b, out
            if step >= rows:
                image = part.contiguous()
                break
            if image is None:  # only now is the precision known that autocast chose
                image = part.new_empty((n, high, rows, wide, columns, self.out_channels))
            image[:, :, first : first + part.shape[2]] = part
        assert image is not None
        return image.view(n, high * rows, wide * columns, self.out_channels).permute(0, 3, 1, 2)

    def kernel(self) -> torch.Tensor:
        """Return the kernel in one piece, shape (out, in, ka, kb, ks, kt)."""
        return self.weight.reshape(self.out_channels, self.in_channels, *self.kernel_size)

    def _positions(self, light_field: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """(B, in, A, B, S, T) -> (B, rows, B, out, S', T') for the angular rows from `first` to `last`."""
        ka, kb, ks, kt = self.kernel_size
        n, channels, rows, columns, high, wide = light_field.shape
        if high < ks or wide < kt:
            raise ValueError(f"{high} x {wide} lenslets are fewer than the kernel's {ks} x {kt}")
        above, below = max(0, ka // 2 - first), max(0, last + ka // 2 - rows)
        block = light_field[:, :, max(0, first - ka // 2) : last + ka // 2]
        block = functional.pad(block, (0, 0, 0, 0, kb // 2, kb // 2, above, below))
        near = block.unfold(2, ka, 1).unfold(3, kb, 1)  # batch, in, a, b, s, t, ka, kb
        near = near.permute(0, 2, 3, 1, 6, 7, 4, 5)
        batch = near.reshape(n * (last - first) * columns, channels * ka * kb, high, wide)
        batch = batch.contiguous(memory_format=torch.channels_last)
        weight, bias = self.weight.contiguous(memory_format=torch.channels_last), self.bias
        if batch.dtype in (torch.bfloat16, torch.float16) and not half_is_native(batch.device):
            # torch would emulate 16 bits, several times slower and no more exact than this
            wide_bias = None if bias is None else bias.float()
            out = functional.conv2d(batch.float(), weight.float(), wide_bias).to(batch.dtype)
        else:
            out = functional.conv2d(batch, weight, bias)
        return out.view(n, last - first, columns, *out.shape[1:])


def join_slabs(slabs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the weight of a `Conv4d` from the slabs that the authors' code (convNd) keeps.

    Parameters
    ----------
    slabs : sequence of Tensor, shape (out, in, kb, ks, kt)
        ``conv_layers.{i}.weight``, one for each angular row of the kernel.

    Returns
    -------
    Tensor, shape (out, in * ka * kb, ks, kt)
    """
    return torch.stack(tuple(slabs), dim=2).flatten(1, 3)


def half_is_native(device: torch.device | str) -> bool:
    """Return whether `device` multiplies in bfloat16 faster than in float32: GPUs, some processors.

    Elsewhere torch emulates bfloat16, which takes several times as long as float32; autocast does not help.
    """
    if torch.device(device).type != "cpu":
        return True
    if not hasattr(torch.cpu, "get_capabilities"):  # came with torch 2.11
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
