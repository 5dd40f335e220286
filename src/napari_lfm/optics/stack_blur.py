"""Blur of a stack by a point spread function, with surroundings that nobody observed.

What a microscope records of a stack's rim comes in part from beyond it, and light of the rim falls beyond.
So the object is larger than the recording by the reach of the point spread function: `StackBlur.forward`
blurs the whole object and keeps what was observed, and the adjoint spreads it back. Richardson-Lucy on that
pair neither takes the surroundings for dark nor for a mirror image (Bertero & Boccacci, Astron. Astrophys.
437, 369 (2005)).

Stacks that are larger than the memory for their transforms are blurred block by block, every block with all
the input that its output depends on (overlap-save): the result is that of the whole, without seams.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class _Span:
    """One axis of one block: where its output goes, and where its input is taken from and laid down."""

    out: slice
    take: slice
    source: slice
    put: slice


class StackBlur:
    """Convolution of objects (z, y, x), or (y, x), with a point spread function.

    Parameters
    ----------
    psf : ndarray
        As many axes as the stack; its middle entry, ``(n - 1) // 2`` on every axis, is the point. Divided by
        its sum.
    observed : sequence of int
        Shape of the recording.
    device : torch.device or str
        Where the transforms are computed; objects and recordings may lie elsewhere.
    margin : sequence of int, optional
        Entries beyond the recording on either side; default the point spread function's half sizes.
    block : sequence of int, optional
        Most entries of output that are computed at once, per axis; default all.

    Raises
    ------
    RequestError
        If the point spread function has another number of axes, is dark, negative or no number.
    """

    def __init__(
        self,
        psf: np.ndarray,
        observed: Sequence[int],
        device: torch.device | str = "cpu",
        margin: Sequence[int] | None = None,
        block: Sequence[int] | None = None,
    ) -> None:
        psf = np.asarray(psf, np.float32)
        self.observed = tuple(int(n) for n in observed)
        if psf.ndim != len(self.observed):
            raise RequestError(
                f"The point spread function has {psf.ndim} axes and the image {len(self.observed)}.",
                "Choose one with as many axes.",
            )
        total = float(psf.sum(dtype=np.float64))
        if not np.isfinite(psf).all() or psf.min() < 0 or total <= 0:
            raise RequestError(
                "The point spread function is dark, or holds negative values or no numbers.",
                "Take its background off, cut it off at 0, and leave some light.",
            )
        self.half = tuple(n // 2 for n in psf.shape)
        self.margin = self.half if margin is None else tuple(int(n) for n in margin)
        self.shape = tuple(n + 2 * m for n, m in zip(self.observed, self.margin, strict=True))
        self.block = self.shape if block is None else tuple(int(n) for n in block)
        self._size = fft_size(self.observed, self.half, self.margin, self.block)
        self.device = torch.device(device)
        kernel = torch.zeros(self._size)
        kernel[tuple(slice(n) for n in psf.shape)] = torch.from_numpy(psf / total)
        middle = [-((n - 1) // 2) for n in psf.shape]
        kernel = torch.roll(kernel, middle, tuple(range(psf.ndim)))
        self._spectrum = torch.fft.rfftn(kernel.to(self.device), norm="forward")
        self._inside = tuple(slice(m, m + n) for m, n in zip(self.margin, self.observed, strict=True))

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Return what is observed of an object of `shape`."""
        return self._assemble(self.forward_parts(stack), self.observed, stack)

    def adjoint(self, recording: torch.Tensor) -> torch.Tensor:
        """Return a recording spread over the object."""
        return self._assemble(self.adjoint_parts(recording), self.shape, recording)

    def forward_parts(self, stack: torch.Tensor) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        """Yield `forward` block by block: where in the recording, and the values there."""
        spans = [self._spans(axis, n, forward=True) for axis, n in enumerate(self.observed)]
        yield from self._parts(stack, spans, self._spectrum)

    def adjoint_parts(self, recording: torch.Tensor) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        """Yield `adjoint` block by block: where in the object, and the values there."""
        spans = [self._spans(axis, n, forward=False) for axis, n in enumerate(self.shape)]
        yield from self._parts(recording, spans, self._spectrum.conj())

    def seen(self) -> torch.Tensor:
        """Return which share of every entry's light is observed: the adjoint of ones."""
        return self.adjoint(torch.ones(self.observed, device=self.device)).clamp(min=0)

    def crop(self, stack: torch.Tensor) -> torch.Tensor:
        """Return the part of an object that lies within the recording."""
        return stack[self._inside]

    def bytes_needed(self) -> int:
        """Return the memory that forward and adjoint take, beside object and recording."""
        return transform_bytes(self._size)

    def count(self) -> int:
        """Return the number of blocks of one forward and one adjoint."""
        return sum(
            prod(-(-n // min(b, n)) for n, b in zip(shape, self.block, strict=True))
            for shape in (self.observed, self.shape)
        )

    def _spans(self, axis: int, length: int, forward: bool) -> list[_Span]:
        """Return the blocks along one axis of an output with `length` entries."""
        n, m, h = self.observed[axis], self.margin[axis], self.half[axis]
        size, block = (n + 2 * m if forward else n), self.block[axis]
        if block >= n + 2 * m:  # the whole axis: what wraps round meets only zeros, or is not looked at
            at = 0 if forward else m
            taken = slice(m, m + n) if forward else slice(0, length)
            return [_Span(slice(0, length), taken, slice(0, size), slice(at, at + size))]
        out = []
        shift = m if forward else -m
        for first in range(0, length, block):
            last = min(first + block, length)
            begin = first + shift - h  # what is needed, beyond the ends too
            low, high = max(0, begin), max(0, min(size, last + shift + h))
            low = min(low, high)
            out.append(
                _Span(
                    slice(first, last),
                    slice(h, h + last - first),
                    slice(low, high),
                    slice(low - begin, high - begin),
                )
            )
        return out

    def _parts(
        self, source: torch.Tensor, spans: list[list[_Span]], spectrum: torch.Tensor
    ) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        for block in product(*spans):
            part = source[tuple(s.source for s in block)].to(self.device)
            if all(s.put.start == 0 for s in block):
                light = torch.fft.rfftn(part, s=self._size)
            else:
                padded = part.new_zeros(self._size)
                padded[tuple(s.put for s in block)] = part
                light = torch.fft.rfftn(padded)
                del padded
            light *= spectrum
            # the last axis by itself: twice as fast as all at once, and of what is looked at only
            if len(block) > 1:
                light = torch.fft.ifftn(light, dim=tuple(range(len(block) - 1)), norm="forward")
            light = light[tuple(s.take for s in block[:-1])]
            found = torch.fft.irfft(light, n=self._size[-1], norm="forward")[..., block[-1].take]
            del light
            yield tuple(s.out for s in block), found.to(source.device)

    def _assemble(
        self,
        parts: Iterator[tuple[tuple[slice, ...], torch.Tensor]],
        shape: tuple[int, ...],
        like: torch.Tensor,
    ) -> torch.Tensor:
        whole: torch.Tensor | None = None
        for place, part in parts:
            if part.shape == shape:
                return part
            whole = like.new_empty(shape) if whole is None else whole
            whole[place] = part
        assert whole is not None
        return whole


def fft_size(
    observed: Sequence[int], half: Sequence[int], margin: Sequence[int], block: Sequence[int]
) -> tuple[int, ...]:
    """Return the size of the transforms that a `StackBlur` takes.

    A whole axis of ``n`` observed entries, ``m`` beyond them on either side and a point spread function that
    reaches ``h`` needs ``n + m + max(m, h)``: what wraps round then meets zeros or entries not looked at. A
    block of ``b`` needs ``b + 2 h``.
    """
    out = []
    for n, h, m, b in zip(observed, half, margin, block, strict=True):
        need = n + m + max(m, h) if b >= n + 2 * m else b + 2 * h
        out.append(int(next_fast_len(max(need, 2 * h + 1), real=True)))
    return tuple(out)


def transform_bytes(size: Sequence[int]) -> int:
    """Return the memory of the transforms of one block: kernel, padded input, two spectra, output."""
    return 5 * 4 * prod(size[:-1]) * (size[-1] + 2)
