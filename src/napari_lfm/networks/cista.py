"""CISTA-net: convolutional sparse coding of epipolar images, unrolled into a network.

Song et al., "Model-inspired deep learning for light-field microscopy with application to neuron
localization", ICASSP 2021 (arXiv 2103.06164). An epipolar image X holds one line for each source, and the
line's slope is its depth. Equation (1) of the paper writes X as a sum of convolutions ``d_m * z_m``, one atom
d_m for each depth m, with sparse codes z_m; a layer is one step of its iterative solution, equation (4):

    Z <- ReLU(Z - S (*) Z + W (*) X - softplus(b))

Two corrections: the gradient step that (4) unrolls is ``z + g D^T (X - D z)`` (equation (2) prints the
step size g in front of one term only), and a non-negative soft threshold subtracts, so that the learned bias
enters with a minus sign (the paper adds a non-negative one, which would make codes denser).

Two profiles. In "paper", codes are images (angle, lenslet) as printed. In "modern", an atom spans all angles,
so that a code is one number for each lenslet of the central view: what a source is, a depth and a place,
and a twentieth of the arithmetic. Trained for it, it also tells whose depth it is: `CistaNet.curve` pools
near one place then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

PROFILES = ("modern", "paper")
_START_THRESHOLD = 0.02
"""Soft threshold of an untrained network; epipolar images are at most 1."""


class SeparableConvolution(nn.Module):
    """A depthwise convolution over the code, then a mixture of depths: S of equation (4).

    Parameters
    ----------
    depths : int
    kernel : int
        Lenslets (and angles, for two-dimensional codes) across.
    dimensions : int
        1 or 2.
    """

    def __init__(self, depths: int, kernel: int, dimensions: int) -> None:
        super().__init__()
        layer = nn.Conv1d if dimensions == 1 else nn.Conv2d
        self.along = layer(depths, depths, kernel, padding=kernel // 2, groups=depths, bias=False)
        self.across = layer(depths, depths, 1, bias=False)
        # S stands for g D^T D: atoms are most like themselves, so the network starts by that
        nn.init.zeros_(self.along.weight)
        middle = (slice(None), 0) + (kernel // 2,) * dimensions
        with torch.no_grad():
            self.along.weight[middle] = 0.5
            weight = torch.eye(depths).reshape(depths, depths, *(1,) * dimensions)
            self.across.weight.copy_(weight + 0.01 * torch.randn_like(weight))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, depths, ...) -> the same."""
        return torch.Tensor(self.across(self.along(codes)))


class CistaLayer(nn.Module):
    """One unrolled iteration, equation (4).

    Parameters
    ----------
    n_views : int
        Angles of the epipolar image.
    depths : int
    kernel : int
        Lenslets across.
    dimensions : int
        1: atoms span all angles; 2: kernels are square, as printed.
    first : bool
        Whether codes are zero before it, so that it needs no S.
    """

    def __init__(self, n_views: int, depths: int, kernel: int, dimensions: int, first: bool) -> None:
        super().__init__()
        if dimensions == 1:
            self.analyse: nn.Module = nn.Conv1d(n_views, depths, kernel, padding=kernel // 2, bias=False)
        else:
            # from one channel a depthwise convolution is one kernel for each depth
            self.analyse = nn.Conv2d(1, depths, kernel, padding=kernel // 2, bias=False)
        self.suppress = None if first else SeparableConvolution(depths, kernel, dimensions)
        start = torch.full((depths,), _START_THRESHOLD).expm1().log()  # softplus gives the threshold back
        self.threshold = nn.Parameter(start)

    def forward(self, epi: torch.Tensor, codes: torch.Tensor | None) -> torch.Tensor:
        """Return the next codes, (B, depths, ...)."""
        found = self.analyse(epi)
        if codes is not None:
            assert self.suppress is not None
            found = found + codes - self.suppress(codes)
        threshold = functional.softplus(self.threshold)
        return functional.relu(found - threshold.reshape(-1, *(1,) * (found.ndim - 2)))


class CistaNet(nn.Module):
    """Depths of the sources in epipolar images.

    Parameters
    ----------
    n_views : int
        Angles, the rows of an epipolar image.
    n_lenslets : int
        Lenslets across it.
    depths : int
        Depth bins, M.
    kernels : sequence of int
        Odd sizes, one for each layer; growing, as the paper has them.
    profile : str
        ``"modern"`` or ``"paper"``, see the module.

    Raises
    ------
    ValueError
        If a size makes no network.
    """

    def __init__(
        self,
        n_views: int,
        n_lenslets: int,
        depths: int,
        kernels: Sequence[int] = (9, 11, 13, 15),
        profile: str = "modern",
    ) -> None:
        super().__init__()
        if profile not in PROFILES:
            raise ValueError(f"there is no profile '{profile}', only {' and '.join(PROFILES)}")
        if not kernels or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ValueError(f"kernels must be odd and at least one, not {list(kernels)}")
        if min(n_views, n_lenslets, depths) < 1:
            raise ValueError("views, lenslets and depths must be at least 1")
        self.n_views, self.n_lenslets, self.depths, self.profile = n_views, n_lenslets, depths, profile
        dimensions = 1 if profile == "modern" else 2
        self.layers = nn.ModuleList(
            CistaLayer(n_views, depths, k, dimensions, first=i == 0) for i, k in enumerate(kernels)
        )
        # "non-linear transformation" of the pooled codes: a fully connected layer, then a sigmoid
        self.decide = nn.Linear(depths, depths)
        with torch.no_grad():
            self.decide.weight.copy_(torch.eye(depths) * 4 + 0.01 * torch.randn(depths, depths))
            self.decide.bias.fill_(-3.0)  # most depths of most images are empty

    def codes(self, epi: torch.Tensor) -> torch.Tensor:
        """Return sparse codes.

        Parameters
        ----------
        epi : tensor, shape (B, n_views, n_lenslets)
            Epipolar images, background removed, brightest pixel 1.

        Returns
        -------
        tensor, shape (B, depths, n_lenslets), or (B, depths, n_views, n_lenslets) in profile "paper"

        Raises
        ------
        ValueError
            If the images have another shape.
        """
        if epi.ndim != 3 or tuple(epi.shape[1:]) != (self.n_views, self.n_lenslets):
            raise ValueError(
                f"epipolar images of shape {tuple(epi.shape)} are not (B, {self.n_views}, {self.n_lenslets})"
            )
        given = epi if self.profile == "modern" else epi[:, None]
        codes: torch.Tensor | None = None
        for layer in self.layers:
            codes = layer(given, codes)
        assert codes is not None
        return codes

    def curve(self, codes: torch.Tensor, near: int | None = None) -> torch.Tensor:
        """Return the logit of every depth.

        Parameters
        ----------
        codes : tensor
            From `codes`.
        near : int, optional
            Lenslets on either side of the middle one to look at; default all. With it the curve is that of
            the sources that the middle of the central view shows.

        Returns
        -------
        tensor, shape (B, depths)
        """
        if near is not None:
            middle = codes.shape[-1] // 2
            codes = codes[..., max(0, middle - near) : middle + near + 1]
        return torch.Tensor(self.decide(codes.flatten(2).amax(2)))

    def forward(self, epi: torch.Tensor, near: int | None = None) -> torch.Tensor:
        """Return the logit of every depth, (B, depths); a sigmoid makes it a probability."""
        return self.curve(self.codes(epi), near)
