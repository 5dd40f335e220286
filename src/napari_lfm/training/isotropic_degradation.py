"""Lateral slices made to look like slices along z: blur, noise, coarse sampling, interpolation.

Two profiles. ``csbdeep`` is the published order exactly (Weigert et al., Nature Methods 15, 1090 (2018), as
its software CSBDeep has it): blur, Poisson noise of whole counts, Gaussian noise, sampling, interpolation.
``modern`` records what a microscope would: blur, then points a plane's distance apart that start anywhere,
each with the noise of the camera as the stack itself shows it, then interpolation to the pixels.

The last axis of a slice becomes z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.core.noise import Noise, estimate_noise
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.axial_blur import csbdeep_kernel, gaussian_kernel, unit_sum
from napari_lfm.training.isotropic_resampling import (
    back_to_pixels,
    check_factor,
    csbdeep_down_up,
    csbdeep_factor,
    sample_and_interpolate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Profile = Literal["modern", "csbdeep"]
_PARTED = 4.0
"""Variance of the noise that an input gets more, and its target a fraction of, in parts of the camera's."""
_LEAST_PARTED = 0.1
_LARGE_KERNEL = 400
"""Values of a kernel from which a Fourier transform is the quicker way."""


@dataclass(frozen=True, eq=False)
class Degradation:
    """How slices are degraded; `modern_degradation` and `csbdeep_degradation` make one.

    Attributes
    ----------
    factor : float
        Distance of planes over the lateral pixel, any number from 1.
    kernel : ndarray, shape (lateral, axial), float32
        Sums to 1, odd sizes, in lateral pixels; for ``modern`` the blur beyond the lateral one.
    profile : {"modern", "csbdeep"}
    noise : tuple of Noise
        ``modern``: the camera's, one per channel; empty: none is added.
    poisson : bool
        ``csbdeep``: whether counts are drawn.
    gauss_sigma : float
        ``csbdeep``: standard deviation of further noise, grey values.
    noise_free : bool
        ``modern``: whether slices bring no noise along: of a simulation.
    """

    factor: float
    kernel: np.ndarray = field(default_factory=lambda: gaussian_kernel(0.0))
    profile: Profile = "modern"
    noise: tuple[Noise, ...] = ()
    poisson: bool = True
    gauss_sigma: float = 0.0
    noise_free: bool = False

    def __post_init__(self) -> None:
        check_factor(self.factor)
        if self.profile not in ("modern", "csbdeep"):
            raise RequestError(
                f"There is no profile '{self.profile}' of degradation.", "Choose modern or csbdeep."
            )
        kernel = np.asarray(self.kernel)
        if kernel.ndim != 2 or any(n % 2 == 0 for n in kernel.shape):
            raise RequestError(
                f"A kernel of sizes {kernel.shape} has no middle.",
                "Give two axes (lateral, axial) of odd sizes.",
            )
        if not math.isfinite(self.gauss_sigma) or self.gauss_sigma < 0:
            raise RequestError(f"Noise of {self.gauss_sigma:g} grey values is none.", "Give 0 or more.")
        object.__setattr__(self, "kernel", unit_sum(kernel))

    @property
    def halo_px(self) -> int:
        """Pixels beyond either end of the last axis that a degraded slice depends on."""
        return int(self.kernel.shape[1]) // 2 + math.ceil(self.factor)

    def columns(self, length: int) -> slice:
        """Return which columns of a slice of `length` remain: for ``csbdeep`` its middle, else all."""
        if self.profile != "csbdeep":
            return slice(0, length)
        size = csbdeep_factor(length, self.factor)[1]
        first = (length - size) // 2
        return slice(first, first + size)

    def __call__(self, slices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Degrade slices.

        Parameters
        ----------
        slices : Tensor, shape (B, C, rows, columns)
            Grey values as recorded.
        generator : torch.Generator
            Of everything random, on the CPU.

        Returns
        -------
        Tensor, shape (B, C, rows, columns), float32
            For ``csbdeep`` cropped to `columns`, as many as the factor divides.
        """
        # a validation runs under autocast: counts do not survive it
        with torch.autocast(slices.device.type, enabled=False):
            if self.profile == "csbdeep":
                return self._published(slices.float(), generator)
            return self._modern(slices.float(), generator)

    def pair(self, slices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Degrade slices, and return with them what is to be learnt from them.

        A slice is noisy itself. Were it its own target, the network would learn to give back the noise that
        blur has left in the input. So one sample n of the camera's noise is added to what is degraded and
        subtracted from the target, as ``x + t n`` and ``x - n / t``, whose noises have nothing in common:
        what is learnt then is the light (Pang et al., CVPR 2021). Blur takes most of what is added away, and
        the rest is a part of the noise that a plane has in any case.

        Returns
        -------
        given, wanted : Tensor, shape (B, C, rows, columns), float32
            Where there is no noise, hardly any blur or the published way, `wanted` are the slices as they
            are; for ``csbdeep`` cropped to `columns`.
        """
        parted = self.parted
        if parted <= 0:
            return self(slices, generator), slices.float()[..., self.columns(slices.shape[-1])]
        slices = slices.float()
        drawn = torch.randn(slices.shape, generator=generator).to(slices)
        for c in range(slices.shape[1]):
            noise = self.noise[min(c, len(self.noise) - 1)]
            if not noise.known:
                drawn[:, c] = 0.0
                continue
            # a pixel's own value would make dark ones of its noise less noisy than bright ones
            near = functional.avg_pool2d(slices[:, c : c + 1], 3, 1, 1, count_include_pad=False)[:, 0]
            drawn[:, c] *= (noise.slope * near + noise.intercept).clamp(min=noise.least).sqrt()
        share = math.sqrt(parted)
        with torch.autocast(slices.device.type, enabled=False):
            return self._modern(slices + share * drawn, generator, 1 + parted), slices - drawn / share

    @property
    def parted(self) -> float:
        """Variance of the noise that `pair` adds to what is degraded, in parts of the camera's; 0: none."""
        if self.profile == "csbdeep" or self.noise_free or not any(n.known for n in self.noise):
            return 0.0
        # no more than a plane's noise may be left
        most = 1.0 / self._left - 1.0
        return min(_PARTED, most) if most > _LEAST_PARTED else 0.0

    @property
    def _left(self) -> float:
        """Share of the variance of a slice's noise that blur leaves."""
        return float((self.kernel.astype(np.float64) ** 2).sum())

    def _modern(self, slices: torch.Tensor, generator: torch.Generator, noisy: float = 1.0) -> torch.Tensor:
        blurred = blur(slices, self.kernel)
        out = []
        for one in blurred:  # each starts at a plane of its own
            phase = float(torch.rand((), generator=generator)) * self.factor
            # exactly on pixels where planes are: then nothing is interpolated twice
            phase = math.floor(phase) if float(self.factor).is_integer() else phase
            points, _ = sample_and_interpolate(one, self.factor, min(phase, one.shape[-1] - 1))
            points = self._recorded(points, generator, noisy)
            out.append(back_to_pixels(points, self.factor, phase, one.shape[-1]))
        return torch.stack(out)

    def _recorded(self, points: torch.Tensor, generator: torch.Generator, noisy: float) -> torch.Tensor:
        """Return points (C, rows, planes) with the camera's noise, less what the slice brought along.

        `noisy`: variance of the noise of the slice, in parts of the camera's.
        """
        if not self.noise:
            return points
        brought = 0.0 if self.noise_free else noisy * self._left
        missing = max(0.0, 1.0 - brought)
        out = points.clone()
        for k in range(len(points)):
            noise = self.noise[min(k, len(self.noise) - 1)]
            if noise.known:
                variance = (noise.slope * points[k] + noise.intercept).clamp(min=noise.least)
                drawn = torch.randn(points[k].shape, generator=generator)
                out[k] += (missing * variance).sqrt() * drawn.to(points)
        return out

    def _published(self, slices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        out = blur(slices, self.kernel, border="zero")
        if self.poisson:
            out = torch.poisson(out.clamp(min=0).trunc(), generator=generator)
        if self.gauss_sigma > 0:
            drawn = torch.randn(out.shape, generator=generator)
            out = (out + self.gauss_sigma * drawn.to(out)).clamp(min=0)
        factor, _ = csbdeep_factor(out.shape[-1], self.factor)
        return csbdeep_down_up(out[..., self.columns(out.shape[-1])], factor)

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells this degradation from another."""
        return {
            "factor": self.factor,
            "profile": self.profile,
            "kernel": [[round(float(v), 7) for v in row] for row in self.kernel],
            "noise": [[n.slope, n.intercept, n.least] for n in self.noise if n.known],
            "poisson": self.poisson,
            "gauss_sigma": self.gauss_sigma,
        }


def modern_degradation(
    factor: float,
    sigma_px: float | None = None,
    kernel: np.ndarray | None = None,
    channels: Sequence[np.ndarray] = (),
) -> Degradation:
    """Return the degradation of a recorded stack.

    Parameters
    ----------
    factor : float
        Distance of planes over the lateral pixel.
    sigma_px : float, optional
        ``sqrt(sigma_z^2 - sigma_x^2)`` in lateral pixels; see `napari_lfm.optics.axial_blur`.
    kernel : ndarray, shape (lateral, axial), optional
        Instead of `sigma_px`: of a measured point spread function.
    channels : sequence of ndarray, shape (z, y, x)
        The stack, to take the camera's noise from; none: no noise is added.

    Raises
    ------
    RequestError
        If neither or both of `sigma_px` and `kernel` are given, or they make no sense.
    """
    if (sigma_px is None) == (kernel is None):
        raise RequestError("Give either a width of the blur along z or a kernel.")
    if sigma_px is not None:
        if not (math.isfinite(sigma_px) and 0 <= sigma_px <= 200):
            raise RequestError(f"A blur of {sigma_px:g} pixels is none.", "Give 0 to 200.")
        kernel = gaussian_kernel(sigma_px)
    assert kernel is not None
    return Degradation(factor, kernel, "modern", tuple(estimate_noise(c) for c in channels))


def csbdeep_degradation(
    factor: float,
    sigma_z_px: float | None = None,
    sigma_x_px: float | None = None,
    kernel: np.ndarray | None = None,
    poisson: bool = True,
    gauss_sigma: float = 0.0,
) -> Degradation:
    """Return the published degradation.

    Parameters
    ----------
    factor : float
    sigma_z_px, sigma_x_px : float, optional
        Widths of the whole point spread function, lateral pixels, for the kernel of CSBDeep's example.
    kernel : ndarray, shape (lateral, axial), optional
        Instead of them.
    poisson, gauss_sigma
        As in `Degradation`.
    """
    if kernel is None:
        if sigma_z_px is None or sigma_x_px is None:
            raise RequestError("Give the widths of the point spread function along z and x, or a kernel.")
        kernel = csbdeep_kernel(sigma_z_px, sigma_x_px)
    return Degradation(factor, kernel, "csbdeep", poisson=poisson, gauss_sigma=gauss_sigma)


def blur(
    slices: torch.Tensor, kernel: np.ndarray, border: Literal["reflect", "zero"] = "reflect"
) -> torch.Tensor:
    """Return slices convolved with a kernel, of the same size.

    Parameters
    ----------
    slices : Tensor, shape (B, C, rows, columns), float32
    kernel : ndarray, shape (lateral, axial)
        Odd sizes.
    border : {"reflect", "zero"}
        What is taken to lie beyond.
    """
    if kernel.size == 1:
        return slices * float(kernel[0, 0])
    b, c, rows, columns = slices.shape
    half = kernel.shape[0] // 2, kernel.shape[1] // 2
    fits = half[0] < rows and half[1] < columns
    mode = "constant" if border == "zero" else "reflect" if fits else "replicate"
    flat = functional.pad(
        slices.reshape(b * c, 1, rows, columns), (half[1], half[1], half[0], half[0]), mode=mode
    )
    weight = torch.from_numpy(np.ascontiguousarray(kernel, np.float32)).to(slices.device)
    if kernel.size >= _LARGE_KERNEL and min(kernel.shape) > 1:
        size = [int(n) for n in flat.shape[-2:]]
        spectrum = torch.fft.rfft2(flat) * torch.fft.rfft2(weight, s=size)
        # the circle closes over the first rows and columns only, which are what was added
        out = torch.fft.irfft2(spectrum, s=size)[..., 2 * half[0] :, 2 * half[1] :]
    else:
        # convolution turns the kernel over, torch's does not
        out = functional.conv2d(flat, weight.flip(0, 1)[None, None])
    result: torch.Tensor = out.reshape(b, c, rows, columns)
    return result
