"""Moving channels between the lenslet grid and the folded frequency slots of the projector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from napari_lfm.optics.fold import FrequencyFold, Parity, parity
from napari_lfm.optics.symmetry import HALF_TURN, Operation


def inverse(op: Operation) -> Operation:
    """Return the inverse of a symmetry operation."""
    return Operation(True, op.flip_x, op.flip_y) if op.transpose else op


def parity_of(shape: tuple[int, int]) -> Parity:
    """Return the parity basis of one plane of a cell with this many samples (y, x)."""
    return parity(HALF_TURN.on_index(shape))


def mix(block: torch.Tensor, basis: Parity, dim: int) -> torch.Tensor:
    """Bring one dimension of a tensor into the parity basis."""
    return _combine(block, (basis.i, basis.j, basis.a, basis.b), dim)


def _combine(
    data: torch.Tensor, table: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dim: int
) -> torch.Tensor:
    i, j, a, b = table
    shape = [1] * data.ndim
    shape[dim] = -1
    real = data.real.dtype if data.is_complex() else data.dtype
    first, second = (torch.from_numpy(t).to(data.device) for t in (i, j))
    wa, wb = (torch.from_numpy(t).to(data.device, real).reshape(shape) for t in (a, b))
    return data.index_select(dim, first) * wa + data.index_select(dim, second) * wb


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
        Samples (y, x) per cell of each plane; channels run plane by plane.
    real : bool
        Whether the parity basis is used (the half turn is a symmetry).
    device : torch.device
    """

    def __init__(
        self, fold: FrequencyFold, planes: Sequence[tuple[int, int]], real: bool, device: torch.device
    ) -> None:
        self.device = device
        self.real = real
        sizes = [y * x for y, x in planes]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        self.channels = int(starts[-1])

        def everywhere(op: Operation) -> np.ndarray:
            return np.concatenate([op.on_index(s) + o for s, o in zip(planes, starts, strict=False)])

        f_count, cosets = len(fold.fundamental), fold.cosets
        half = len(fold.slot)
        self.half, self.n_slots = half, f_count * len(cosets)
        self.place = np.arange(self.channels)  # where a plane-wise parity channel is stored
        if real:
            self.basis = parity(everywhere(HALF_TURN))
            self.n_even = self.basis.n_even
            self.place = self._places(planes, starts)
            towards = [self._permute(everywhere(g)) for g in cosets]
            back = [self._permute(everywhere(inverse(g))) for g in cosets]
        else:
            self.n_even = self.channels
            ones = np.ones(self.channels)
            towards = [(everywhere(g), ones) for g in cosets]
            back = [(everywhere(inverse(g)), ones) for g in cosets]
        odd = np.arange(self.channels) >= self.n_even

        channel = np.stack([t[0] for t in towards], -1)  # (C, G)
        sign = np.stack([t[1] for t in towards], -1)
        gather = channel[None] * half + fold.source[:, None, :]  # (F, C, G)
        conj = fold.source_conj[:, None, :] & np.ones_like(odd)[None, :, None]
        self._gather = self._index(gather)
        self._gather_sign = self._signs(np.broadcast_to(sign, gather.shape), conj, odd[None, :, None])

        f_of, g_of = np.divmod(fold.slot, len(cosets))
        back_channel = np.stack([t[0] for t in back], -1)[:, g_of]  # (C, Fh)
        back_sign = np.stack([t[1] for t in back], -1)[:, g_of]
        scatter = (f_of[None] * self.channels + back_channel) * len(cosets) + g_of[None]
        conj = fold.slot_conj[None] & np.ones_like(odd)[:, None]
        self._scatter = self._index(scatter)
        self._scatter_sign = self._signs(back_sign, conj, odd[:, None])
        self._shape = (f_count, self.channels, len(cosets))

    def _places(self, planes: Sequence[tuple[int, int]], starts: np.ndarray) -> np.ndarray:
        place = []
        for shape, start in zip(planes, starts, strict=False):
            own = parity_of(shape)
            first = own.i + start
            table = np.where(np.arange(len(first)) < own.n_even, self.basis.position[first], -1)
            place.append(np.where(table < 0, self.basis.odd_position[first], table))
        return np.concatenate(place)

    def _permute(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parity-basis form of ``x~[c] = x[target[c]]``: (source channel, sign)."""
        basis = self.basis
        first = target[basis.i]
        even = np.arange(self.channels) < basis.n_even
        return (
            np.where(even, basis.position[first], basis.odd_position[first]),
            np.where(even, 1.0, basis.sign[first]),
        )

    def _index(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(index.ravel().astype(np.int32)).to(self.device)

    def _signs(self, sign: np.ndarray, conj: np.ndarray, odd: np.ndarray) -> torch.Tensor:
        # odd channels carry a factor i, so that conjugation turns their real part over instead
        real = sign * np.where(conj & odd, -1.0, 1.0)
        imag = sign * np.where(conj & ~odd, -1.0, 1.0)
        return torch.from_numpy(np.stack([real, imag], -1).astype(np.float32)).to(self.device)

    def to_parity(self, data: torch.Tensor) -> torch.Tensor:
        """Bring channels (first axis) into the parity basis, all evens first."""
        if not self.real:
            return data
        return _combine(data, (self.basis.i, self.basis.j, self.basis.a, self.basis.b), 0)

    def from_parity(self, data: torch.Tensor) -> torch.Tensor:
        """Invert `to_parity`."""
        return _combine(data, self.basis.inverse, 0) if self.real else data

    def gather(self, spectrum: torch.Tensor) -> torch.Tensor:
        """(C, frames, Fh) complex -> (F, C, columns): what each stored matrix is multiplied with."""
        frames = spectrum.shape[1]
        if self.real:
            spectrum[self.n_even :] *= 1j
        rows = spectrum.permute(0, 2, 1).reshape(-1, frames)
        picked = rows.index_select(0, self._gather).reshape(*self._shape, frames)
        values = torch.view_as_real(picked)
        values *= self._gather_sign.to(values.dtype)[:, :, :, None]
        return (values if self.real else picked).reshape(self._shape[0], self._shape[1], -1)

    def scatter(self, product: torch.Tensor, frames: int) -> torch.Tensor:
        """Invert `gather`: (F, C, columns) -> (C, frames, Fh) complex."""
        rows = product.reshape(-1, frames, 2) if self.real else torch.view_as_real(product.reshape(-1, frames))
        picked = rows.index_select(0, self._scatter).reshape(self.channels, self.half, frames, 2)
        picked = picked * self._scatter_sign.to(picked.dtype)[:, :, None]
        values = torch.view_as_complex(picked.contiguous())
        if self.real:
            values[self.n_even :] *= -1j
        return values.permute(0, 2, 1)
