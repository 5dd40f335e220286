"""Shift-and-sum refocusing, fast enough to follow a slider."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from napari_lfm.core.problems import RequestError


class Refocuser:
    """A light field prepared for refocusing: one Fourier transform now, one weighted sum per slope.

    Shifting view (v, u) by ``slope * (v - vc, u - uc)`` lenslets is a phase in the Fourier transform
    over (t, s), so a refocused image is a sum of N x N products and one inverse transform (the Fourier
    slice of Ng 2005, with the views left separate).

    Parameters
    ----------
    lf4d : numpy.ndarray, shape (v, u, t, s)
        Sub-aperture views of one frame.
    max_slope : float
        Largest |slope| that will be asked for without wrapping round: the border is padded for it.
    """

    def __init__(self, lf4d: np.ndarray, max_slope: float = 0.5) -> None:
        if lf4d.ndim != 4:
            raise RequestError(f"Refocusing needs a (v, u, t, s) light field, not shape {lf4d.shape}.")
        self._views = np.asarray(lf4d, np.float32)
        nv, nu, nt, ns = self._views.shape
        pad = [math.ceil(max_slope * (n - 1) / 2) for n in (nv, nu)]
        self._shape = tuple(
            fft.next_fast_len(n + 2 * p, real=True) for n, p in zip((nt, ns), pad, strict=True)
        )
        padded = _ramp_to(_ramp_to(self._views, self._shape[0], axis=2), self._shape[1], axis=3)
        self._spectrum = fft.rfft2(padded, axes=(2, 3))
        self._whole: np.ndarray | None = None
        self._v = np.arange(nv) - (nv - 1) / 2
        self._u = np.arange(nu) - (nu - 1) / 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (v, u, t, s) of the light field."""
        return self._views.shape

    def view(self, v: float, u: float) -> np.ndarray:
        """Return the sub-aperture view at pixel (v, u), from 0; in between, views are blended linearly."""
        nv, nu = self._views.shape[:2]
        v, u = min(max(v, 0.0), nv - 1.0), min(max(u, 0.0), nu - 1.0)
        v0, u0 = min(int(v), max(nv - 2, 0)), min(int(u), max(nu - 2, 0))
        fv, fu = v - v0, u - u0
        out = np.zeros(self._views.shape[2:], np.float32)
        for dv, du, weight in (
            (0, 0, (1 - fv) * (1 - fu)),
            (0, 1, (1 - fv) * fu),
            (1, 0, fv * (1 - fu)),
            (1, 1, fv * fu),
        ):
            if weight > 0:
                out += np.float32(weight) * self._views[v0 + dv, u0 + du]
        return out

    def refocus(self, slope: float, upsample: int = 1, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the mean of all views, each shifted back by ``slope`` lenslets per view.

        Parameters
        ----------
        slope : float
            Epipolar slope (lenslets per view) of what becomes sharp.
        upsample : int
            Pixels per lenslet of the output. Above 1 the shifts interleave the lenslets' samples
            (linear interpolation between them), which can show detail finer than a lenslet.
        weights : numpy.ndarray, shape (v, u), optional
            Weight of every view, e.g. the pupil; equal by default.

        Returns
        -------
        numpy.ndarray, float32, shape (t * upsample, s * upsample)
            With `upsample` k, pixel (k t + (k-1)/2, k s + (k-1)/2) lies on lenslet (t, s).
        """
        nv, nu, nt, ns = self._views.shape
        height, width = self._shape
        weight = np.full((nv, nu), 1 / (nv * nu)) if weights is None else weights / np.sum(weights)
        # at k pixels per lenslet the frequencies reach k times higher; the samples' spectrum repeats
        fy = fft.fftfreq(height * upsample, 1 / upsample)
        fx = fft.rfftfreq(width * upsample, 1 / upsample)
        phase_v = np.exp(2j * np.pi * slope * self._v[:, None] * fy).astype(np.complex64)
        phase_u = np.exp(2j * np.pi * slope * self._u[:, None] * fx).astype(np.complex64)
        if upsample == 1:
            # a shift by part of a sample is a real, symmetric filter at the Nyquist frequency
            for phase, f in ((phase_v, fy), (phase_u, fx)):
                nyquist = np.isclose(np.abs(f), 0.5)
                phase[:, nyquist] = phase[:, nyquist].real
        phase_u = phase_u[None] * weight.astype(np.float32)[:, :, None]  # (v, u, s)
        total = np.empty((len(fy), len(fx)), np.complex64)
        spectrum = self._spectrum if upsample == 1 else self._whole_spectrum()
        for left in range(0, len(fx), width):
            columns = slice(left, min(left + width, len(fx)))
            part = spectrum[..., : columns.stop - left]
            rows = np.stack(
                [np.einsum("uts,us->ts", a, b) for a, b in zip(part, phase_u[..., columns], strict=True)]
            )
            for top in range(0, len(fy), height):
                total[top : top + height, columns] = np.einsum(
                    "vt,vts->ts", phase_v[:, top : top + height], rows
                )
        if upsample > 1:
            # linear interpolation between samples, and half a fine pixel so that lenslets stay centred
            kernel = [np.sinc(f) ** 2 * np.exp(-1j * np.pi * f * (upsample - 1) / upsample) for f in (fy, fx)]
            total = total * kernel[0][:, None] * kernel[1] * upsample**2
        out = fft.irfft2(total, s=(height * upsample, width * upsample))
        return np.asarray(out[: nt * upsample, : ns * upsample], np.float32)

    def _whole_spectrum(self) -> np.ndarray:
        """Return the spectrum at all frequencies of the samples, negative ones too; made once."""
        if self._whole is None:
            height, width = self._shape
            mirrored = np.arange(width // 2 + 1, width)
            rest = self._spectrum[:, :, (-np.arange(height)) % height][..., width - mirrored].conj()
            self._whole = np.concatenate([self._spectrum, rest], axis=-1)
        return self._whole


def _ramp_to(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Lengthen an axis with a ramp from its last value to its first: periodic without a jump."""
    have = values.shape[axis]
    extra = length - have
    if extra == 0:
        return values
    last, first = (np.take(values, [k], axis=axis) for k in (have - 1, 0))
    shape = [1] * values.ndim
    shape[axis] = extra
    # hold the border on both sides first, so that shifted views bring in border values
    ramp = np.clip(np.linspace(-0.5, 1.5, extra), 0, 1).astype(np.float32).reshape(shape)
    return np.concatenate([values, last * (1 - ramp) + first * ramp], axis=axis)
