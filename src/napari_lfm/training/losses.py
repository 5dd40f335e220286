"""Losses as small frozen objects: scalar tensors out of outputs and targets, in float32 also under autocast.

Unless said otherwise a loss takes ``(output, target)`` of shape (B, ...), any further dimensions, and returns
the mean over everything. `Sum` and `combine` weight several and report each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class Loss(Protocol):
    """Anything that turns an output and its target into one number."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return a scalar that is differentiable in `output`."""
        ...


@dataclass(frozen=True)
class L1:
    """``mean |o - t|``."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference."""
        return (output.float() - target.float()).abs().mean()


@dataclass(frozen=True)
class MSE:
    """``mean (o - t)^2``."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared difference."""
        return (output.float() - target.float()).square().mean()


@dataclass(frozen=True)
class Charbonnier:
    """``mean sqrt((o - t)^2 + e^2) - e``: absolute far from zero, squared near it.

    Charbonnier et al., ICIP 1994, shifted so that a perfect output scores 0.

    Attributes
    ----------
    epsilon : float
        Width of the round part, in units of the target.
    """

    epsilon: float = 1e-3

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean."""
        d = output.float() - target.float()
        return ((d.square() + self.epsilon**2).sqrt() - self.epsilon).mean()


@dataclass(frozen=True)
class SmoothL1:
    """``mean h(o - t)``, ``h(d) = d^2 / 2b`` for ``|d| < b``, else ``|d| - b/2`` (Huber 1964, over b).

    Attributes
    ----------
    beta : float
        Where the square turns into the straight part, in units of the target.
    """

    beta: float = 0.1

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean."""
        return functional.smooth_l1_loss(output.float(), target.float(), beta=self.beta)


@dataclass(frozen=True)
class SignalWeighted:
    """``mean (1 + w t) (d^2 + a |d|)`` with ``d = (o - target) / s``, ``t = clip(target / s, 0, 1)``.

    Sparse volumes are nearly all background: plain L1 or MSE is then least for an empty output, and the
    network collapses to it. Here a bright voxel counts up to ``1 + w`` times (found by trial for this
    project; the idea is the background weight of HyLFM-Net, Wagner et al., Nat. Methods 18, 557, 2021).

    Attributes
    ----------
    weight : float
        w.
    absolute : float
        a, the share of the absolute error; it keeps small errors in the background from being free.
    percentile : float or None
        Percentile of each target that becomes its scale s, so that a dim sample counts as much as a bright
        one; None: s = 1, unless the call gives it.
    """

    weight: float = 8.0
    absolute: float = 0.3
    percentile: float | None = None

    def __call__(self, output: Tensor, target: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the mean; `scale` has shape (B,) and overrides the percentile."""
        output, target = output.float(), target.float()
        if scale is None and self.percentile is not None:
            scale = target_scale(target, self.percentile)
        if scale is not None:
            inverse = scale.float().reciprocal().reshape(-1, *[1] * (target.dim() - 1))
            output, target = output * inverse, target * inverse
        d = output - target
        return ((1 + self.weight * target.clamp(0, 1)) * (d.square() + self.absolute * d.abs())).mean()


def target_scale(target: Tensor, percentile: float = 99.9) -> Tensor:
    """Return the percentile of every sample, shape (B,); 1 for a sample where it is not above 0.

    Parameters
    ----------
    target : Tensor
        Shape (B, ...).
    percentile : float
        0 to 100; the lowest value that so many percent of the voxels do not exceed.
    """
    flat = target.detach().float().flatten(1)
    rank = min(max(math.ceil(percentile / 100 * flat.shape[1] - 1e-6), 1), flat.shape[1])
    found = flat.kthvalue(rank, dim=1).values  # quantile() refuses more than 16 million values
    return torch.where(found > 0, found, torch.ones_like(found))


@dataclass(frozen=True)
class SSIM:
    """``1 - mean SSIM``, structural similarity of 2-D slices (Wang et al., IEEE TIP 13, 600, 2004).

    ``SSIM = (2 m_o m_t + c1)(2 s_ot + c2) / ((m_o^2 + m_t^2 + c1)(s_o^2 + s_t^2 + c2))`` with local means,
    variances and covariance under a Gaussian window, ``c1 = (0.01 R)^2``, ``c2 = (0.03 R)^2``.

    Attributes
    ----------
    data_range : float
        R, in units of the target.
    sigma : float
        Width of the window in samples; it is cut at 11 samples, or the largest odd size that fits.
    """

    data_range: float = 1.0
    sigma: float = 1.5

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean over all slices (the last two dimensions) and positions."""
        height, width = target.shape[-2:]
        with torch.autocast(target.device.type, enabled=False):  # variances are small differences
            o, t = (x.float().reshape(-1, 1, height, width) for x in (output, target))
            kernels = [self._window(n, o) for n in (height, width)]
            moments = torch.cat([o, t, o * o, t * t, o * t], 1).reshape(-1, 1, height, width)
            smooth = functional.conv2d(moments, kernels[0].reshape(1, 1, -1, 1))
            smooth = functional.conv2d(smooth, kernels[1].reshape(1, 1, 1, -1))
            mo, mt, oo, tt, ot = smooth.reshape(-1, 5, *smooth.shape[-2:]).unbind(1)
            c1, c2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
            alike = (2 * mo * mt + c1) * (2 * (ot - mo * mt) + c2)
            size = (mo * mo + mt * mt + c1) * ((oo - mo * mo) + (tt - mt * mt) + c2)
            return 1 - (alike / size).mean()

    def _window(self, samples: int, like: Tensor) -> Tensor:
        half = (min(11, samples) - 1) // 2
        x = torch.arange(-half, half + 1, device=like.device, dtype=like.dtype)
        window = torch.exp(-x.square() / (2 * self.sigma**2))
        return window / window.sum()


@dataclass(frozen=True)
class TotalVariation:
    """``mean sqrt(sum_k (w_k D_k o)^2 + e^2) - e`` of the output alone (Rudin, Osher, Fatemi 1992).

    Attributes
    ----------
    weights : tuple of float
        One per dimension, for the last ``len(weights)`` dimensions; 1 / voxel size makes it isotropic in
        micrometres.
    epsilon : float
        Rounds the corner at zero, in units of the output.
    """

    weights: tuple[float, ...] = (1.0, 1.0)
    epsilon: float = 1e-3

    def __call__(self, output: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the mean; the target is not used."""
        total = torch.zeros_like(output, dtype=torch.float32)
        for difference, weight in zip(_forward(output.float(), len(self.weights)), self.weights, strict=True):
            total = total + (weight * difference).square()
        return ((total + self.epsilon**2).sqrt() - self.epsilon).mean()


@dataclass(frozen=True)
class Gradient:
    """``mean_k |D_k o - D_k t|``: edges where they belong, whatever the local brightness.

    The gradient difference of Mathieu et al., ICLR 2016 (arXiv 1511.05440), with the sign kept.

    Attributes
    ----------
    dims : int
        How many of the last dimensions are differentiated.
    """

    dims: int = 2

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean over voxels and dimensions."""
        differences = _forward(output.float() - target.float(), self.dims)
        return torch.stack([d.abs().mean() for d in differences]).mean()


@dataclass(frozen=True)
class LeastSquaresGenerator:
    """``mean (D(G(x)) - 1)^2 / 2`` (Mao et al., ICCV 2017, eq. 9 with a, b, c = 0, 1, 1)."""

    def __call__(self, fake: Tensor) -> Tensor:
        """Return the loss for the discriminator's scores of generated images."""
        return 0.5 * (fake.float() - 1).square().mean()


@dataclass(frozen=True)
class LeastSquaresDiscriminator:
    """``mean D(G(x))^2 / 2 + mean (D(z) - 1)^2 / 2`` (Mao et al., ICCV 2017, eq. 9)."""

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the loss for the scores of generated images and of real ones."""
        return 0.5 * fake.float().square().mean() + 0.5 * (real.float() - 1).square().mean()


@dataclass(frozen=True)
class Reprojection:
    """``sum (P x - y)^2 / v / sum y^2 / v``: how badly a volume explains the measured image.

    v is the variance of a camera's pixel, ``v = gain max(y, 0) + read_variance``, at least a hundredth of
    its mean in the image. The loss is 0 for a perfect volume and 1 for an empty one, whatever the exposure.

    Attributes
    ----------
    project : callable
        Differentiable forward model, volume (B, depths, y, x) -> image (B, ...), e.g. a
        `napari_lfm.optics.projector.LensletProjector`. Called in float32.
    gain : float
        Variance over signal, in units of the image.
    read_variance : float
        Variance in the dark, in squared units of the image.
    """

    project: Callable[[Tensor], Tensor]
    gain: float = 1.0
    read_variance: float = 0.0

    def __call__(self, volume: Tensor, image: Tensor, variance: Tensor | None = None) -> Tensor:
        """Return the mean over samples; `variance` (above 0, the image's shape) overrides the camera's."""
        with torch.autocast(volume.device.type, enabled=False):
            y = image.float()
            v = (self._variance(y) if variance is None else variance.float()).flatten(1)
            weight = v.reciprocal()
            difference = (self.project(volume.float()) - y).flatten(1)
            power = (y.flatten(1).square() * weight).sum(1)
            return ((difference.square() * weight).sum(1) / torch.where(power > 0, power, 1.0)).mean()

    def _variance(self, y: Tensor) -> Tensor:
        v = self.gain * y.clamp_min(0) + self.read_variance
        mean = v.mean(tuple(range(1, v.dim())), keepdim=True)
        # a frame without light says nothing about the camera
        return torch.where(mean > 0, torch.maximum(v, 0.01 * mean), 1.0)


@dataclass(frozen=True)
class Sum:
    """Weighted sum of losses of the same output and target; each is reported unweighted.

    Attributes
    ----------
    terms : mapping of str to (float, loss)
        E.g. ``{"signal": (1.0, SignalWeighted()), "ssim": (0.1, SSIM())}``.
    """

    terms: Mapping[str, tuple[float, Loss]]

    def __call__(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return ``"loss"`` and every term, ready for `Task.loss`."""
        return combine({name: (weight, loss(output, target)) for name, (weight, loss) in self.terms.items()})


def combine(terms: Mapping[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
    """Return ``{"loss": sum of weight * value, name: value, ...}``; a term of weight 0 is only reported."""
    weighted = [weight * value for weight, value in terms.values() if weight]
    values = {name: value.detach() for name, (_, value) in terms.items()}
    return {"loss": torch.stack(weighted).sum(), **values}


def _forward(x: Tensor, dims: int) -> list[Tensor]:
    # forward differences along the last `dims` dimensions, zero at the far border: same shape as x
    out = []
    for dim in range(x.dim() - dims, x.dim()):
        step = x.diff(dim=dim)
        last = torch.zeros_like(x.narrow(dim, 0, 1))
        out.append(torch.cat([step, last], dim))
    return out
