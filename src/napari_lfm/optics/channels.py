"""Moving channels between the lenslet grid and the folded frequency slots of the projector.

Channels are kept in *paired order*: first one member of every pair {c, half turn of c}, then the
self-paired ones, then the second members. Even and odd parts are then sums and differences of two
contiguous halves. The factor 1/sqrt(2) of the orthonormal parity basis sits in the matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.optics.symmetry import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.optics.fold import FrequencyFold


def inverse(op: Operation) -> Operation:
    """Return the inverse of a symmetry operation."""
    return Operation(True, op.flip_x, op.flip_y) if op.transpose else op


def mix(block: torch.Tensor, dim: int) -> torch.Tensor:
    """Bring one cell dimension (natural order, any size) into the parity basis: evens, then odds."""
    n = block.shape[dim]
    h = n // 2
    first, second = block.narrow(dim, 0, h), block.narrow(dim, n - h, h).flip(dim)
    middle = block.narrow(dim, h, n - 2 * h)
    return torch.cat([(first + second) / 2, middle, (first - second) / 2], dim)


def wrap(cells: torch.Tensor, period: tuple[int, int], half: tuple[int, int]) -> torch.Tensor:
    """Lay kernels (..., 2 hy + 1, 2 hx + 1) round the origin of a periodic grid."""
    for dim, (p, h) in zip((-2, -1), zip(period, half, strict=True), strict=True):
        index = torch.remainder(torch.arange(-h, h + 1, device=cells.device), p)
        shape = list(cells.shape)
        shape[dim] = p
        cells = torch.zeros(shape, dtype=cells.dtype, device=cells.device).index_add_(dim, index, cells)
    return cells


class ChannelTables:
    """Index and sign tables for one side (voxels or pixels) of a folded operator.

    Parameters
    ----------
    fold : FrequencyFold
    planes : sequence of tuple of int
        Samples (y, x) per cell of each plane; natural channel order is plane by plane, row by row.
    real : bool
        Whether the half turn is a symmetry: paired order and real matrices, else natural order and
        complex ones.
    device : torch.device

    Attributes
    ----------
    order : ndarray of int, shape (C,)
        Natural channel of each stored channel.
    place : ndarray of int, shape (C,)
        Position among the parity channels of each plane's parity channels, plane by plane.
    """

    def __init__(
        self, fold: FrequencyFold, planes: Sequence[tuple[int, int]], real: bool, device: torch.device
    ) -> None:
        self.device, self.real = device, real
        sizes = np.array([y * x for y, x in planes])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        self.channels = int(starts[-1])
        self.f_count, self.n_cosets, self.half = len(fold.fundamental), len(fold.cosets), len(fold.slot)
        self.order = self.place = np.arange(self.channels)
        self.pairs = 0
        if real:
            self._pair(sizes, starts)

        self.to_stored = torch.from_numpy(self.order).to(device)
        self.to_natural = torch.from_numpy(np.argsort(self.order)).to(device)

        def everywhere(op: Operation) -> np.ndarray:
            return np.concatenate([op.on_index(s) + o for s, o in zip(planes, starts, strict=False)])

        towards = [self._permute(everywhere(g)) for g in fold.cosets]
        back = [self._permute(everywhere(inverse(g))) for g in fold.cosets]
        odd = np.arange(self.channels) >= self.channels - self.pairs
        self._tables(fold, towards, back, odd)

    def _pair(self, sizes: np.ndarray, starts: np.ndarray) -> None:
        firsts, middles, seconds, places = [], [], [], []
        n_pairs, n_middles = int((sizes // 2).sum()), int((sizes % 2).sum())
        pair = middle = 0
        for n, o in zip(sizes, starts, strict=False):
            h = n // 2
            firsts += list(range(o, o + h))
            middles += list(range(o + h, o + n - h))
            seconds += list(range(o + n - 1, o + n - 1 - h, -1))
            run = np.arange(pair, pair + h)
            places += [run, n_pairs + np.arange(middle, middle + n % 2), n_pairs + n_middles + run]
            pair, middle = pair + h, middle + n % 2
        self.pairs = n_pairs
        self.order = np.array(firsts + middles + seconds)
        self.place = np.concatenate(places)

    def _permute(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parity-basis form of ``x~[c] = x[target[c]]``: (source parity channel, sign)."""
        if not self.real:
            return target, np.ones(self.channels)
        stored = np.argsort(self.order)  # natural -> stored
        n_even = self.channels - self.pairs
        moved = stored[target[self.order[:n_even]]]  # where each pair's first member goes
        second = moved >= n_even
        even = np.where(second, moved - n_even, moved)
        odd = even[: self.pairs] + n_even
        sign = np.where(second[: self.pairs], -1.0, 1.0)
        return np.concatenate([even, odd]), np.concatenate([np.ones(n_even), sign])

    def _tables(
        self,
        fold: FrequencyFold,
        towards: list[tuple[np.ndarray, np.ndarray]],
        back: list[tuple[np.ndarray, np.ndarray]],
        odd: np.ndarray,
    ) -> None:
        channel = np.stack([t[0] for t in towards])  # (G, C)
        sign = np.stack([t[1] for t in towards])
        # (F, G, C): frequency row and channel of the value that each slot needs
        row = np.broadcast_to(fold.source[:, :, None], (self.f_count, self.n_cosets, self.channels))
        index, signs = self._split(row, channel[None], fold.source_conj[:, :, None], odd)
        flip, one = signs
        signs = np.stack([np.where(odd, -flip, one), np.where(odd, one, flip)], -2) * sign[None, :, None]
        self._gather, self._gather_sign = self._tensors(index, signs)
        f_of, g_of = np.divmod(fold.slot, self.n_cosets)
        channel = np.stack([t[0] for t in back])[g_of]  # (Fh, C)
        sign = np.stack([t[1] for t in back])[g_of]
        row = np.broadcast_to((f_of * self.n_cosets + g_of)[:, None], channel.shape)
        index, signs = self._split(row, channel, fold.slot_conj[:, None], odd)
        flip, one = signs
        signs = np.stack([one, np.where(odd, -flip, flip)], -2) * sign[:, None]
        self._scatter, self._scatter_sign = self._tensors(index, signs)
        self._scatter_many: tuple[int, torch.Tensor] | None = None

    def _split(
        self, row: np.ndarray, channel: np.ndarray, conj: np.ndarray, odd: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Index of real and imaginary parts, (..., 2, C), in rows of (2, C) floats; and conjugation signs.

        A slot holds even channels as they are and odd ones times i, which swaps the parts:
        ``i z = (-im, re)``, ``i conj(z) = (im, re)``; back, ``z = (im, -re)``.
        """
        parts = (np.where(odd, 1, 0), np.where(odd, 0, 1))
        index = np.stack([(row * 2 + part) * self.channels + channel for part in parts], -2)
        flip = np.broadcast_to(np.where(conj, -1.0, 1.0), row.shape)
        return index, (flip, np.ones(row.shape))

    def _tensors(self, index: np.ndarray, signs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        flat = torch.from_numpy(index.astype(np.int32).ravel()).to(self.device)
        return flat, torch.from_numpy(signs.astype(np.float32)).to(self.device)

    def to_parity(self, data: torch.Tensor) -> torch.Tensor:
        """(C, y, x) in paired order -> sums, self-paired, differences."""
        p = self.pairs
        if p == 0:
            return data
        out = torch.empty_like(data)
        first, second = data[:p], data[self.channels - p :]
        torch.add(first, second, out=out[:p])
        out[p : self.channels - p] = data[p : self.channels - p]
        torch.sub(first, second, out=out[self.channels - p :])
        return out

    from_parity = to_parity  # sums and differences again: the scale sits in the matrices

    def gather(self, spectrum: torch.Tensor, out: torch.Tensor) -> None:
        """Fill `out` (F, G, 2, C) with what the matrices are multiplied with, from (C, Fh) complex."""
        rows = torch.view_as_real(spectrum).permute(1, 2, 0).reshape(-1)
        picked = rows.index_select(0, self._gather).reshape(self._gather_sign.shape)
        torch.mul(picked, self._gather_sign.to(picked.dtype), out=out)

    def scatter(self, product: torch.Tensor, frame: int, frames: int) -> torch.Tensor:
        """Invert `gather` for one frame: (F, frames, G, 2, C) real -> (C, Fh) complex."""
        size = self.n_cosets * 2 * self.channels
        rows = product.reshape(-1)[frame * size :]
        picked = rows.index_select(0, self._scatter_among(frames)).reshape(self._scatter_sign.shape)
        out = picked.new_empty(self.channels, self.half, 2)
        # the product lands in its transposed place at once: one pass less over the data
        torch.mul(picked, self._scatter_sign.to(picked.dtype), out=out.permute(1, 2, 0))
        return torch.view_as_complex(out)

    def _scatter_among(self, frames: int) -> torch.Tensor:
        """Return the scatter index for data with other frames between the frequencies."""
        if frames == 1:
            return self._scatter
        if self._scatter_many is None or self._scatter_many[0] != frames:
            size = self.n_cosets * 2 * self.channels
            index = self._scatter.long()
            index = index + torch.div(index, size, rounding_mode="floor") * (frames - 1) * size
            if self.f_count * frames * size < 2**31:
                index = index.int()
            self._scatter_many = (frames, index)
        return self._scatter_many[1]
