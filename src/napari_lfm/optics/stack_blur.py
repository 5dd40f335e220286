"""Blur of a stack by a point spread function, with surroundings that nobody observed.

What a microscope records of a stack's rim comes in part from beyond it, and light of the rim falls beyond.
So the object is larger than the recording by the reach of the point spread function: `StackBlur.forward`
blurs the whole object and keeps what was observed, and the adjoint spreads it back. Richardson-Lucy on that
pair neither takes the surroundings for dark nor for a mirror image (Bertero & Boccacci, Astron. Astrophys.
437, 369 (2005)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    margin : sequence of int, optional
        Entries beyond the recording on either side; default the point spread function's half sizes.

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
        half = [n // 2 for n in psf.shape] if margin is None else [int(n) for n in margin]
        self.margin = tuple(half)
        self.shape = tuple(n + 2 * m for n, m in zip(self.observed, half, strict=True))
        # room for what is blurred beyond the object, so that nothing wraps round
        self._size = tuple(
            next_fast_len(n + k - 1, real=True) for n, k in zip(self.shape, psf.shape, strict=True)
        )
        self.device = torch.device(device)
        kernel = torch.zeros(self._size)
        kernel[tuple(slice(n) for n in psf.shape)] = torch.from_numpy(psf / total)
        middle = [-((n - 1) // 2) for n in psf.shape]
        kernel = torch.roll(kernel, middle, tuple(range(psf.ndim)))
        self._spectrum = torch.fft.rfftn(kernel.to(self.device))
        self._inside = tuple(slice(m, m + n) for m, n in zip(half, self.observed, strict=True))

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """Return what is observed of an object of `shape`."""
        return self._filtered(stack, self._spectrum)[self._inside]

    def adjoint(self, recording: torch.Tensor) -> torch.Tensor:
        """Return a recording spread over the object."""
        whole = torch.zeros(self.shape, device=self.device, dtype=recording.dtype)
        whole[self._inside] = recording
        return self._filtered(whole, self._spectrum.conj())

    def seen(self) -> torch.Tensor:
        """Return which share of every entry's light is observed: the adjoint of ones."""
        return self.adjoint(torch.ones(self.observed, device=self.device)).clamp(min=0)

    def crop(self, stack: torch.Tensor) -> torch.Tensor:
        """Return the part of an object that lies within the recording."""
        return stack[self._inside]

    def bytes_needed(self) -> int:
        """Return the memory that forward and adjoint take, beside object and recording."""
        return 3 * 8 * int(np.prod(self._size))

    def _filtered(self, stack: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        found = torch.fft.irfftn(torch.fft.rfftn(stack, s=self._size) * spectrum, s=self._size)
        return torch.Tensor(found[tuple(slice(n) for n in self.shape)])
