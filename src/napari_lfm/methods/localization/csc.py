"""Convolutional sparse coding of epipolar images: the model-based parent of CISTA-net.

Song et al., IEEE Trans. Comput. Imaging 6, 1017 (2020), and equation (1) of Song et al., ICASSP 2021: an
epipolar image is a sum of ``d_k * z_k`` with few, non-negative codes z_k, and atoms d_k that the wave
optics make of a ball at every depth. Here codes run along the lenslets, at two or more places within
each; the problem is solved by FISTA (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009)) at the
frequencies of the lenslets, many images at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

ITERATIONS = 80
SPARSITY = 0.05
"""Lambda of equation (1), as a share of the smallest one for which all codes vanish."""


class EpipolarCsc:
    """Sparse codes of epipolar images over a dictionary.

    Parameters
    ----------
    atoms : ndarray, shape (depths, places, views, lenslets)
        What a ball at each depth and at each of some places within a lenslet looks like; the middle lenslet
        is the one that it lies in.
    sparsity : float
    iterations : int
    device : torch.device or str
    """

    def __init__(
        self,
        atoms: np.ndarray,
        sparsity: float = SPARSITY,
        iterations: int = ITERATIONS,
        device: torch.device | str = "cpu",
    ) -> None:
        self.depths, self.places, self.views, self.lenslets = atoms.shape
        self.sparsity, self.iterations, self.device = sparsity, iterations, torch.device(device)
        flat = torch.from_numpy(np.ascontiguousarray(atoms, np.float32)).reshape(-1, *atoms.shape[2:])
        # all atoms alike, whatever their light: depth is read off shapes
        flat = flat / flat.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
        self._period = scipy.fft.next_fast_len(2 * self.lenslets - 1, real=True)
        middle = self.lenslets // 2
        padded = torch.zeros(len(flat), self.views, self._period)
        padded[..., : self.lenslets] = flat
        spectrum = torch.fft.rfft(padded.roll(-middle, -1)).to(self.device)
        self._analysis = spectrum.permute(2, 1, 0).contiguous()  # frequency, view, atom
        self._gram = self._analysis.mH @ self._analysis
        self._step = 1 / float(torch.linalg.eigvalsh(self._gram)[..., -1].max())

    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """Return the codes of images (B, views, lenslets): (B, depths, places, lenslets), not negative."""
        *_, last = self.steps(images)
        return last

    def steps(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Iterate, yielding the codes after every iteration, so that it can be cancelled."""
        given = images.to(self.device, torch.float32)
        spectrum = torch.fft.rfft(given, n=self._period).permute(2, 1, 0)  # frequency, view, image
        correlation = self._analysis.mH @ spectrum  # frequency, atom, image
        everywhere = torch.fft.irfft(correlation, n=self._period, dim=0)[: self.lenslets]
        shrink = self.sparsity * everywhere.amax((0, 1)).clamp(min=1e-12)  # of each image
        z = torch.zeros_like(everywhere)
        y, momentum = z, 1.0
        for _ in range(self.iterations):
            residual = self._gram @ torch.fft.rfft(y, n=self._period, dim=0) - correlation
            gradient = torch.fft.irfft(residual, n=self._period, dim=0)[: self.lenslets]
            after = (y - self._step * (gradient + shrink)).clamp(min=0)
            rises = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            y = after + (momentum - 1) / rises * (after - z)
            z, momentum = after, rises
            yield z.permute(2, 1, 0).reshape(-1, self.depths, self.places, self.lenslets)

    def curves(self, images: torch.Tensor, near: int | None = None) -> np.ndarray:
        """Return how much of every depth there is, (B, depths), the highest 1.

        Parameters
        ----------
        images : tensor, shape (B, views, lenslets)
        near : int, optional
            Lenslets on either side of the middle to look at; default all.
        """
        codes = self.codes(images)
        if near is not None:
            middle = self.lenslets // 2
            codes = codes[..., max(0, middle - near) : middle + near + 1]
        # a ball between two places is shared out among them and their lenslets
        curve = codes.sum((2, 3)).cpu().numpy() if near is not None else codes.amax((2, 3)).cpu().numpy()
        return np.asarray(curve / np.maximum(curve.max(1, keepdims=True), 1e-12))
