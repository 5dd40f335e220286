"""Richardson-Lucy on a stack with unobserved surroundings.

The prediction of a pixel is ``(H x)_i + b``. Only observed pixels are compared with it; the object reaches
beyond them, and its normaliser is the share of every entry's light that is observed (Bertero & Boccacci,
Astron. Astrophys. 437, 369 (2005)). A shift of data and prediction alike, the read noise's variance less the
camera's offset, makes them Poisson-like (Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993)).

References
----------
Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974).
Biggs & Andrews, Appl. Opt. 36, 1766 (1997): acceleration.
Dey et al., Microsc. Res. Tech. 69, 260 (2006): total variation.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.core.noise import Noise
    from napari_lfm.optics.stack_blur import StackBlur

_TINY = 1e-12
_LEAST_SEEN = 1e-3
"""Entries of which a smaller share is observed are not divided by it: they would only amplify noise."""
_MOST_EXTRAPOLATED = 0.95
_PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class Options:
    """How to iterate; see `WidefieldParameters`."""

    accelerate: bool = False
    total_variation: float = 0.0
    masked_borders: bool = True


@dataclass(frozen=True)
class Measurement:
    """What the camera saw.

    Attributes
    ----------
    data : tensor, shape (z, y, x)
        Grey values; 0 where a pixel is not observed. The solver shifts them in place.
    mask : tensor of bool or None
        Observed pixels; None for all.
    background : float
        Grey values.
    noise : Noise
        Variance of a grey value.
    """

    data: torch.Tensor
    mask: torch.Tensor | None
    background: float
    noise: Noise


@dataclass
class State:
    """Where an iteration stands. Its arrays are overwritten by the next one: large stacks leave no room.

    Attributes
    ----------
    x : tensor, shape of the object
    iteration : int
        Iterations done.
    residuals : list of float
        ``||data - prediction|| / ||data - background||`` before each iteration.
    misfits : list of float
        Mean squared difference in units of the noise's variance, before each iteration; 1 is noise alone.
    """

    x: torch.Tensor
    iteration: int = 0
    residuals: list[float] = field(default_factory=list)
    misfits: list[float] = field(default_factory=list)
    previous: torch.Tensor | None = None
    step: torch.Tensor | None = None
    share: float = 0.0

    def copy(self) -> State:
        """Return a state that goes its own way."""
        return replace(
            self,
            x=self.x.clone(),
            residuals=list(self.residuals),
            misfits=list(self.misfits),
            previous=None if self.previous is None else self.previous.clone(),
            step=None if self.step is None else self.step.clone(),
        )


class RichardsonLucy:
    """One problem: a blur, a measurement, options.

    Parameters
    ----------
    blur : StackBlur
    measurement : Measurement
    options : Options
    voxel_um : tuple of float
        Voxel size (z, y, x).
    """

    def __init__(
        self,
        blur: StackBlur,
        measurement: Measurement,
        options: Options,
        voxel_um: tuple[float, float, float],
        inverse_norm: torch.Tensor | None = None,
    ) -> None:
        self.blur, self.measurement = blur, measurement
        self.options, self.voxel_um = options, voxel_um
        m = measurement
        self._count = float(m.data.numel() if m.mask is None else m.mask.sum())
        m.data.sub_(m.background)
        if m.mask is not None:
            m.data.mul_(m.mask)
        self.light = max(float(m.data.mean()) * m.data.numel() / max(self._count, 1.0), 0.0)
        self._signal = max(float(m.data.norm()), _TINY)
        self.shift = m.noise.shift_counts
        m.data.add_(m.background + self.shift).clamp_(min=0)
        if m.mask is not None:
            m.data.mul_(m.mask)
        self._inverse_norm = inverse_norm
        if inverse_norm is None and options.masked_borders:
            self._inverse_norm = self._norm().clamp_(min=_LEAST_SEEN).reciprocal_()

    def _norm(self) -> torch.Tensor:
        m = self.measurement
        ones = torch.ones_like(m.data) if m.mask is None else m.mask.to(m.data.dtype)
        return self.blur.adjoint(ones)

    def for_measurement(self, measurement: Measurement) -> RichardsonLucy:
        """Return the same problem with another frame; the normaliser is shared where it is the same."""
        same = measurement.mask is None and self.measurement.mask is None
        return RichardsonLucy(
            self.blur, measurement, self.options, self.voxel_um, self._inverse_norm if same else None
        )

    def with_options(self, options: Options) -> RichardsonLucy:
        """Return the same problem iterated in another way."""
        other = copy.copy(self)
        other.options = options
        return other

    def start(self) -> State:
        """Return the even start that has the data's brightness."""
        return State(torch.full(self.blur.shape, max(self.light, 1e-6), device=self.measurement.data.device))

    def volume(self, state: State) -> torch.Tensor:
        """Return the part of the object that lies within the recording."""
        return self.blur.crop(state.x)

    def steps(self, state: State) -> Iterator[tuple[int, int]]:
        """Do one iteration on `state`, block by block; yields (blocks done, blocks)."""
        options, total, done = self.options, self.blur.count(), 0
        start = self._extrapolate(state) if options.accelerate else state.x
        smooth = _variation_factor(start, options.total_variation, self.voxel_um)
        ratio = torch.empty_like(self.measurement.data)
        sums = [0.0, 0.0]
        for place, part in self.blur.forward_parts(start):
            self._compare(place, part, ratio, sums)
            done += 1
            yield done, total
        state.residuals.append(math.sqrt(sums[0]) / self._signal)
        state.misfits.append(sums[1] / max(self._count, 1.0))
        along = before = 0.0
        for place, part in self.blur.adjoint_parts(ratio):
            if self._inverse_norm is not None:
                part *= self._inverse_norm[place]
            if smooth is not None:
                part *= smooth[place]
            target = start[place]
            if options.accelerate:
                part = part.mul_(target).clamp_(min=0)
                change, step = part - target, self._step(state)[place]
                along += float((change * step).sum())
                before += float(step.norm()) ** 2
                step.copy_(change)
                target.copy_(part)
            else:
                target.mul_(part).clamp_(min=0)  # rounding in the FFTs
            done += 1
            yield done, total
        if options.accelerate:
            state.x, state.previous = start, state.x
            # the first step has none before it, the second one's is too large to go by
            ready = state.iteration >= 1 and before > 0
            state.share = min(max(along / max(before, _TINY), 0.0), _MOST_EXTRAPOLATED) if ready else 0.0
        else:
            state.previous, state.step, state.share = None, None, 0.0
        state.iteration += 1

    def _compare(
        self, place: tuple[slice, ...], part: torch.Tensor, ratio: torch.Tensor, sums: list[float]
    ) -> None:
        """Write data over prediction into `ratio`, and add up how far they differ."""
        m = self.measurement
        data = m.data[place]
        # a pixel without light and background would divide by nothing
        part = part.add_(m.background + self.shift).clamp_(min=_TINY + 1e-6 * self.light)
        target = ratio[place]
        torch.sub(data, part, out=target)
        if m.mask is not None:
            target *= m.mask[place]
        sums[0] += float(target.norm()) ** 2
        if m.noise.known:
            variance = (part - self.shift).mul_(m.noise.slope).add_(m.noise.intercept)
            variance = variance.clamp_(min=max(m.noise.least, _TINY))
            sums[1] += float((target / variance.sqrt_()).norm()) ** 2
        torch.div(data, part, out=target)

    def _step(self, state: State) -> torch.Tensor:
        if state.step is None:
            state.step = torch.zeros_like(state.x)
        return state.step

    def _extrapolate(self, state: State) -> torch.Tensor:
        """Return the start of an accelerated step, in the memory of the estimate before the last."""
        if state.previous is None:
            return state.x.clone()
        start = state.previous
        return start.sub_(state.x).mul_(-state.share).add_(state.x).clamp_(min=0)


def _variation_factor(
    x: torch.Tensor, weight: float, voxel_um: tuple[float, float, float]
) -> torch.Tensor | None:
    """Return ``1 / (1 - weight * div(grad u / |grad u|))`` of the estimate, None for no prior."""
    if weight <= 0:
        return None
    scale = 1 / max(float(x.max()), _TINY)
    dz, dy, dx = voxel_um
    weights = (min(1.0, dy / dz), 1.0, dy / dx)
    out = torch.empty_like(x)
    planes = x.shape[0]
    for first in range(0, planes, _PLANES_AT_ONCE):
        last = min(first + _PLANES_AT_ONCE, planes)
        low, high = max(0, first - 1), min(planes, last + 1)
        u = x[low:high] * scale
        flows = []
        for dim, w in enumerate(weights):
            flow, n = torch.zeros_like(u), u.shape[dim]
            if n > 1:
                torch.sub(u.narrow(dim, 1, n - 1), u.narrow(dim, 0, n - 1), out=flow.narrow(dim, 0, n - 1))
                flow *= w
            flows.append(flow)
        size = (flows[0].square() + flows[1].square() + flows[2].square()).add_(1e-6).sqrt_()
        divergence = torch.zeros_like(u)
        for dim, (flow, w) in enumerate(zip(flows, weights, strict=True)):
            flow.div_(size).mul_(w)
            n = u.shape[dim]
            divergence += flow
            divergence.narrow(dim, 1, n - 1).sub_(flow.narrow(dim, 0, n - 1))
        factor = divergence.mul_(-weight).add_(1).clamp_(min=0.1).reciprocal_()
        out[first:last] = factor[first - low : last - low]
    return out
