"""Richardson-Lucy on the lenslet projector, with the camera inside the model.

The prediction of a pixel is ``W (H x + b) + offset``. Data are kept as they are, negative values
included: a shift c of data and prediction alike (the read noise's variance, or more where the data
ask for it) keeps the Poisson likelihood defined (Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993)).

References
----------
Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974).
Biggs & Andrews, Appl. Opt. 36, 1766 (1997): acceleration.
Dey et al., Microsc. Res. Tech. 69, 260 (2006): total variation.
Stefanoiu et al., Opt. Express 27, 31644 (2019): depth-dependent filter against light-field aliasing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from napari_lfm.methods.smoothing import Smoother, put_fine, sampling_gap_um

if TYPE_CHECKING:
    from napari_lfm.optics.projector import LensletProjector

__all__ = ["Measurement", "Options", "RichardsonLucy", "State", "sampling_gap_um"]

_TINY = 1e-12


@dataclass(frozen=True)
class Measurement:
    """What the camera saw, on the projector's cells.

    Attributes
    ----------
    data : tensor, shape (frames, pixel channels, rows, columns)
        Grey values, dark subtracted, not clipped; stored channel order.
    response : tensor, shape (1, pixel channels, rows, columns)
        W, mean about 1; 0 where a pixel is not observed.
    background : float
        b, grey values of an even background inside the optics.
    shift : tensor, shape (frames, 1, 1, 1)
        c, grey values; each frame has its own, so that no frame depends on its neighbours.
    noise : float
        Expected rms of the noise, per pixel, relative to the rms of the data.
    """

    data: torch.Tensor
    response: torch.Tensor
    background: float
    shift: torch.Tensor
    noise: float


@dataclass(frozen=True)
class State:
    """Where an iteration stands; never changed in place, so that it can be kept and gone on from.

    Attributes
    ----------
    x : tensor, shape (frames, voxel channels, Ty, Tx)
        The estimate, before the anti-aliasing sieve (`RichardsonLucy.volume` applies it).
    offset : tensor, shape (frames, 1, 1, 1)
        Fitted camera offset, grey values.
    iteration : int
        Iterations done.
    residuals : tuple of float
        Relative residual before each iteration.
    """

    x: torch.Tensor
    offset: torch.Tensor
    iteration: int = 0
    residuals: tuple[float, ...] = ()
    previous: torch.Tensor | None = None
    steps: tuple[torch.Tensor, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Options:
    """How to iterate; see the parameters of `DeconvolveLightfield`."""

    fit_offset: bool = True
    accelerate: bool = False
    total_variation: float = 0.0
    anti_aliasing: bool = True


class RichardsonLucy:
    """One problem: a projector, a measurement, options.

    Parameters
    ----------
    projector : LensletProjector
    measurement : Measurement
    options : Options
    n_fine : int
        The first `n_fine` planes of the projector are the volume; the rest are guard planes.
    voxel_um : tuple of float
        Voxel size (z, y, x).
    """

    def __init__(
        self,
        projector: LensletProjector,
        measurement: Measurement,
        options: Options,
        n_fine: int,
        voxel_um: tuple[float, float, float],
    ) -> None:
        self.projector, self.measurement, self.options = projector, measurement, options
        self.n_fine, self.voxel_um = n_fine, voxel_um
        self.smooth = Smoother(projector, n_fine) if options.anti_aliasing else None
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        norm = self._sieve(projector.backproject(measurement.response))
        # voxels that no observed pixel sees keep their start value instead of running away
        self._inverse_norm = 1 / norm.clamp(min=1e-3 * float(norm.max()))
        seen = (measurement.response > 0).to(norm.dtype)
        self.seen = None if bool(seen.all()) else seen
        self._count = float(seen.sum())
        self._take(measurement)

    def _take(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self._shifted = (measurement.data + measurement.shift).clamp(min=0)
        data = (measurement.data if self.seen is None else measurement.data * self.seen).flatten(1)
        self._sums = data.sum(1, dtype=torch.float64)
        self._squares = (data * data).sum(1, dtype=torch.float64)

    def with_options(self, options: Options) -> RichardsonLucy:
        """Return the same problem iterated in another way; operator and normaliser are shared."""
        if options.anti_aliasing != self.options.anti_aliasing:  # the normaliser is another one
            return RichardsonLucy(self.projector, self.measurement, options, self.n_fine, self.voxel_um)
        other = copy.copy(self)
        other.options = options
        return other

    def for_measurement(self, measurement: Measurement) -> RichardsonLucy:
        """Return the same problem with other frames; operator and normaliser are shared."""
        other = copy.copy(self)
        other._take(measurement)  # noqa: SLF001 - its own class
        return other

    def start(self) -> State:
        """Return the even start that has the data's brightness."""
        m, g = self.measurement, self.projector.geometry
        frames = len(m.data)
        one = m.data.new_ones(1, g.voxel_channels, *g.volume_cells)
        flat = m.response * self.projector.project(one)
        offset = m.data.new_zeros(frames, 1, 1, 1)
        if self.options.fit_offset:
            # the dark gaps hold the offset; start at their level, the fit refines it
            low = torch.quantile(m.data.flatten(1)[:, :: max(1, m.data[0].numel() // 200_000)], 0.01, dim=1)
            offset = low.clamp(max=0).reshape(-1, 1, 1, 1)
        signal = m.data - offset if self.seen is None else (m.data - offset) * self.seen
        light = signal.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return State(one * light / flat.mean().clamp(min=_TINY), offset)

    def predict(self, state: State) -> torch.Tensor:
        """Return the grey values that the estimate would give, offset included."""
        m = self.measurement
        return m.response * (self.projector.project(self._shown(state.x)) + m.background) + state.offset

    def residual(self, state: State, predicted: torch.Tensor | None = None) -> float:
        """Return ``||data - prediction|| / ||data - offset||`` over observed pixels."""
        predicted = self.predict(state) if predicted is None else predicted
        difference = self.measurement.data - predicted
        if self.seen is not None:
            difference *= self.seen
        return float(difference.norm()) / self._signal(state.offset)

    def _signal(self, offset: torch.Tensor) -> float:
        """Return ``||data - offset||`` from sums that never change."""
        o = offset.reshape(-1).double()
        total = self._squares - 2 * o * self._sums + self._count * o * o
        return max(float(total.sum().clamp(min=0).sqrt()), _TINY)

    def step(self, state: State) -> State:
        """Do one iteration; the residual it records is that of the state it starts from."""
        m, o = self.measurement, self.options
        start = self._extrapolate(state) if o.accelerate else state.x
        light = self.projector.project(self._shown(start))
        if m.background:
            light += m.background
        light *= m.response
        difference = m.data - light
        difference -= state.offset
        if self.seen is not None:
            difference *= self.seen
        residual = float(difference.norm()) / self._signal(state.offset)
        level = (state.offset + m.shift).clamp(min=1e-3 * m.shift + _TINY)
        ratio = torch.div(self._shifted, light.add_(level).clamp_(min=_TINY), out=difference)
        offset = state.offset
        if o.fit_offset:
            # the offset is one more emitter, seen by every pixel alike: the same multiplicative update
            seen = ratio if self.seen is None else ratio * self.seen
            offset = level * seen.sum((1, 2, 3), keepdim=True) / self._count - m.shift
        factor = self._sieve(self.projector.backproject(ratio.mul_(m.response))).mul_(self._inverse_norm)
        if o.total_variation > 0:
            factor = factor * self._total_variation(start)
        x = factor.mul_(start).clamp_(min=0)  # rounding in the FFTs
        return replace(
            state,
            x=x,
            offset=offset,
            iteration=state.iteration + 1,
            residuals=(*state.residuals, residual),
            previous=state.x if o.accelerate else None,
            steps=((x - start), *state.steps[:1]) if o.accelerate else (),
        )

    def _extrapolate(self, state: State) -> torch.Tensor:
        if state.previous is None or len(state.steps) < 2:
            return state.x
        new, old = state.steps
        agreement = (new * old).sum((1, 2, 3), keepdim=True)
        share = agreement / (old * old).sum((1, 2, 3), keepdim=True).clamp(min=_TINY)
        share = share.clamp(0.0, 0.95)
        return (state.x + share * (state.x - state.previous)).clamp(min=0)

    def _total_variation(self, x: torch.Tensor) -> torch.Tensor:
        volume = self.fine(x)
        scale = volume.amax((1, 2, 3), keepdim=True).clamp(min=_TINY)
        u = volume / scale
        dz, dy, dx = self.voxel_um
        weights = (min(1.0, dy / dz), 1.0, dy / dx)
        grads = []
        for dim, weight in zip((1, 2, 3), weights, strict=True):
            step = torch.zeros_like(u)
            n = u.shape[dim]
            step.narrow(dim, 0, n - 1).copy_((u.narrow(dim, 1, n - 1) - u.narrow(dim, 0, n - 1)) * weight)
            grads.append(step)
        size = torch.sqrt(torch.stack(grads).square_().sum(0) + 1e-6)
        divergence = torch.zeros_like(u)
        for dim, (step, weight) in zip((1, 2, 3), zip(grads, weights, strict=True), strict=True):
            flow, n = step / size * weight, u.shape[dim]
            divergence += flow
            divergence.narrow(dim, 1, n - 1).sub_(flow.narrow(dim, 0, n - 1))
        factor = 1 / (1 - self.options.total_variation * divergence).clamp(min=0.1)
        return self._put_back(torch.ones_like(x), factor)

    def _sieve(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.smooth is None else self.smooth(x)

    def _shown(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sieved estimate; kept, for a preview and the next step ask for the same one."""
        if self._last is None or self._last[0] is not x:
            self._last = (x, self._sieve(x))
        return self._last[1]

    def volume(self, state: State) -> torch.Tensor:
        """Return the observed volume, (frames, z, rows * sy, columns * sx)."""
        return self.crop(self.fine(self._shown(state.x)))

    def fine(self, x: torch.Tensor) -> torch.Tensor:
        """Return the volume without guard planes, (frames, z, Ty * sy, Tx * sx)."""
        return self.projector.channels_to_volume(x, slice(0, self.n_fine))

    def crop(self, volume: torch.Tensor) -> torch.Tensor:
        """Cut the observed field out of an enlarged volume."""
        g = self.projector.geometry
        (sy, sx), (my, mx), (rows, columns) = g.planes[0].voxels, g.margin, g.cells
        return volume[..., my * sy : (my + rows) * sy, mx * sx : (mx + columns) * sx]

    def _put_back(self, x: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        return put_fine(self.projector, x, volume, self.n_fine)
