"""Richardson-Lucy on the lenslet projector, with the camera inside the model.

The prediction of a pixel is ``W (H x + b) + offset``. Data are kept as they are, negative values
included: a shift c of data and prediction alike (the read noise's variance, or more where the data
ask for it) keeps the Poisson likelihood defined (Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993)).

References
----------
Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974).
Biggs & Andrews, Appl. Opt. 36, 1766 (1997): acceleration.
Dey et al., Microsc. Res. Tech. 69, 260 (2006): total variation.
Stefanoiu et al., Opt. Express 27, 31644 (2019): estimate-maximise-smooth against light-field aliasing.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from napari_lfm.optics.projector import LensletProjector
from napari_lfm.optics.psf import CellOptics

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
    shift : float
        c, grey values.
    noise : float
        Expected rms of the noise, per pixel, relative to the rms of the data.
    """

    data: torch.Tensor
    response: torch.Tensor
    background: float
    shift: float
    noise: float


@dataclass(frozen=True)
class State:
    """Where an iteration stands; never changed in place, so that it can be kept and gone on from.

    Attributes
    ----------
    x : tensor, shape (frames, voxel channels, Ty, Tx)
        The estimate.
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
        norm = projector.backproject(measurement.response)
        # voxels that no observed pixel sees keep their start value instead of running away
        self.norm = norm.clamp(min=1e-3 * float(norm.max()))
        self.smooth = _Smoother(projector, n_fine) if options.anti_aliasing else None

    def for_measurement(self, measurement: Measurement) -> RichardsonLucy:
        """Return the same problem with other frames; operator and normaliser are shared."""
        other = copy.copy(self)
        other.measurement = measurement
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
        light = (m.data - offset).mean((1, 2, 3), keepdim=True).clamp(min=1e-6)
        return State(one * light / flat.mean().clamp(min=_TINY), offset)

    def predict(self, state: State) -> torch.Tensor:
        """Return the grey values that the estimate would give, offset included."""
        m = self.measurement
        return m.response * (self.projector.project(state.x) + m.background) + state.offset

    def residual(self, state: State, predicted: torch.Tensor | None = None) -> float:
        """Return ``||data - prediction|| / ||data - offset||`` over observed pixels."""
        m = self.measurement
        predicted = self.predict(state) if predicted is None else predicted
        seen = m.response > 0
        top = ((m.data - predicted) * seen).norm()
        return float(top / ((m.data - state.offset) * seen).norm().clamp(min=_TINY))

    def step(self, state: State) -> State:
        """Do one iteration; the residual it records is that of the state it starts from."""
        m, o = self.measurement, self.options
        start, gains = (self._extrapolate(state) if o.accelerate else (state.x, ()))
        light = m.response * (self.projector.project(start) + m.background)
        shifted = (m.data + m.shift).clamp(min=0)
        residual = float(
            (m.data - light - state.offset).mul_(m.response > 0).norm()
            / (m.data - state.offset).norm().clamp(min=_TINY)
        )
        offset = state.offset
        if o.fit_offset:
            # the offset is one more emitter, seen by every pixel alike: the same multiplicative update
            seen = (m.response > 0).to(light.dtype)
            for _ in range(2):
                level = (offset + m.shift).clamp(min=1e-3 * m.shift + _TINY)
                ratio = (shifted / (light + level).clamp(min=_TINY)) * seen
                offset = level * ratio.sum((1, 2, 3), keepdim=True) / seen.sum() - m.shift
        ratio = shifted / (light + (offset + m.shift).clamp(min=0)).clamp(min=_TINY)
        factor = self.projector.backproject(ratio.mul_(m.response)).div_(self.norm)
        if o.total_variation > 0:
            factor = factor * self._total_variation(start)
        x = (start * factor).clamp_(min=0)
        if self.smooth is not None:
            x = self.smooth(x)
        if o.accelerate:
            gains = ((x - start), *state.steps[:1])
        return replace(
            state,
            x=x,
            offset=offset,
            iteration=state.iteration + 1,
            residuals=(*state.residuals, residual),
            previous=state.x if o.accelerate else None,
            steps=gains,
        )

    def _extrapolate(self, state: State) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        if state.previous is None or len(state.steps) < 2:
            return state.x, ()
        new, old = state.steps
        share = float((new * old).sum() / (old * old).sum().clamp(min=_TINY))
        share = min(max(share, 0.0), 0.95)
        return (state.x + share * (state.x - state.previous)).clamp(min=0), ()

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
            step.narrow(dim, 0, n - 1).copy_(
                (u.narrow(dim, 1, n - 1) - u.narrow(dim, 0, n - 1)) * weight
            )
            grads.append(step)
        size = torch.sqrt(sum(g * g for g in grads) + 1e-6)
        divergence = torch.zeros_like(u)
        for dim, (step, weight) in zip((1, 2, 3), zip(grads, weights, strict=True), strict=True):
            flow, n = step / size * weight, u.shape[dim]
            divergence += flow
            divergence.narrow(dim, 1, n - 1).sub_(flow.narrow(dim, 0, n - 1))
        factor = 1 / (1 - self.options.total_variation * divergence).clamp(min=0.1)
        return self._put_back(torch.ones_like(x), factor)

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


def put_fine(projector: LensletProjector, x: torch.Tensor, volume: torch.Tensor, n_fine: int) -> torch.Tensor:
    """Return channels `x` with the fine planes replaced by `volume`."""
    (sy, sx), (b, nz) = projector.geometry.planes[0].voxels, volume.shape[:2]
    ty, tx = volume.shape[2] // sy, volume.shape[3] // sx
    cells = volume.reshape(b, nz, ty, sy, tx, sx).permute(0, 1, 3, 5, 2, 4).reshape(b, -1, ty, tx)
    out = x.clone()
    out[:, projector.stored_channels(n_fine)] = cells
    return out


def sampling_gap_um(optics: CellOptics, z_um: float) -> float:
    """Return the largest gap between ray centres at a depth, in object-space micrometres.

    The pixels behind a lenslet see depth z along rays that cross the native plane at the lenslet's
    centre, at angle theta(pixel): they sample it at ``z tan(theta)``, repeated with the lenslet pitch.
    At z = 0 all coincide and the gap is the pitch (lenslet blocks); away from it they interleave.
    """
    n = optics.cell_px[1]
    pixel_um = optics.cell_um[1] / n
    offsets = (np.arange(n) - (n - 1) / 2) * pixel_um
    aperture = offsets / optics.distance_um * optics.magnification
    aperture = aperture[np.abs(aperture) <= optics.na]
    if len(aperture) == 0:
        aperture = np.zeros(1)
    shift = z_um * aperture / np.sqrt(optics.sample_index**2 - aperture**2)
    pitch = optics.pitch_um / optics.magnification
    places = np.sort(np.mod(shift, pitch))
    return float(np.max(np.diff(np.append(places, places[0] + pitch))))


class _Smoother:
    """Depth-dependent low-pass: a raised cosine whose first zero is the sampling gap's frequency."""

    def __init__(self, projector: LensletProjector, n_fine: int) -> None:
        g = projector.geometry
        self.projector, self.n_fine = projector, n_fine
        sy, sx = g.planes[0].voxels
        cell = [c / g.optics.magnification for c in g.optics.cell_um]
        gaps = [sampling_gap_um(g.optics, p.z_um) for p in g.planes[:n_fine]]
        self.kernels = []
        for size, s in zip(cell, (sy, sx), strict=True):
            voxel = size / s
            reach = max(0, math.ceil(max(gaps) / voxel) - 1)
            taps = np.arange(-reach, reach + 1) * voxel
            rows = [
                np.where(np.abs(taps) < max(gap, voxel), 0.5 + 0.5 * np.cos(np.pi * taps / max(gap, voxel)), 0)
                for gap in gaps
            ]
            self.kernels.append(torch.from_numpy(np.stack([r / r.sum() for r in rows]).astype(np.float32)))
        self.active = any(float(k.max(1).values.min()) < 1 for k in self.kernels)
        # only the planes near the native one need it: the others keep their values untouched
        self.planes = [i for i in range(n_fine) if any(float(k[i].max()) < 1 for k in self.kernels)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.active:
            return x
        volume = self.projector.channels_to_volume(x, slice(0, self.n_fine))
        part = volume[:, self.planes]
        for dim, kernel in zip((2, 3), self.kernels, strict=True):
            weights = kernel[self.planes].to(x)
            reach = weights.shape[1] // 2
            pad = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
            shape = (-1, 1, weights.shape[1], 1) if dim == 2 else (-1, 1, 1, weights.shape[1])
            part = torch.nn.functional.conv2d(
                torch.nn.functional.pad(part, pad, mode="replicate"),
                weights.reshape(shape),
                groups=len(self.planes),
            )
        out = volume.clone()
        out[:, self.planes] = part
        return put_fine(self.projector, x, out, self.n_fine)
