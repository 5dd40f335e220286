"""Deconvolution with the known defocus, for comparison: all light is taken to come from one plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from napari_lfm.core.noise import estimate_noise
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from napari_lfm.methods.refocus.engine import Refocuser

Deconvolution = Literal["wiener", "richardson-lucy"]
LEVELS = 20
"""Planes from the image to the end of the trained range that a surface is mixed from."""
_LEAST_NOISE, _MOST_NOISE = 1e-4, 0.1


def deconvolved(
    refocuser: Refocuser,
    z_um: float,
    kind: Deconvolution = "wiener",
    iterations: int = 20,
    noise: float | None = None,
) -> np.ndarray:
    """Return the image with the blur of its distance from a plane taken back.

    Parameters
    ----------
    refocuser : Refocuser
    z_um : float
        The plane, as in `Refocuser.plane`; within `Refocuser.limit_um`.
    kind : {"wiener", "richardson-lucy"}
    iterations : int
        Of Richardson-Lucy.
    noise : float, optional
        Noise over signal power of the Wiener filter; default: from the image.

    Returns
    -------
    ndarray, shape (y, x), float32
        Grey values above the dark level.

    Raises
    ------
    RequestError
        If the kind is unknown, or a number is not above 0.
    """
    if kind not in ("wiener", "richardson-lucy"):
        raise RequestError(f"There is no deconvolution '{kind}'.", "Choose wiener or richardson-lucy.")
    if iterations < 1 or (noise is not None and not noise > 0):
        raise RequestError("A deconvolution needs one iteration or more, and a noise above 0.")
    z_um = float(np.clip(z_um, -refocuser.limit_um, refocuser.limit_um))
    physics = refocuser.physics
    # the plane lies z away: the focus of the image is at -z from it
    transfer = physics.transfer([-z_um])[0]
    if kind == "wiener":
        ratio = noise_ratio(refocuser) if noise is None else noise
        made = torch.fft.irfft2(transfer * physics.spectrum / (transfer**2 + ratio), physics.padded)
    else:
        made = _richardson_lucy(physics.spectrum, transfer, physics.padded, iterations)
    m, (rows, columns) = physics.margin, physics.size
    grey = made[m : m + rows, m : m + columns].clamp(min=0) * refocuser.levels.span
    return np.asarray(grey.cpu().numpy(), np.float32)


def noise_ratio(refocuser: Refocuser) -> float:
    """Return noise over signal power, from the image itself."""
    image = np.asarray(refocuser.scaled.cpu().numpy(), np.float32)
    found = estimate_noise(image[None])
    variance = max(found.slope * float(image.mean()) + found.intercept, found.least)
    signal = max(float(image.var()) - variance, 1e-12)
    return float(np.clip(variance / signal, _LEAST_NOISE, _MOST_NOISE))


def _richardson_lucy(
    spectrum: torch.Tensor, transfer: torch.Tensor, padded: tuple[int, int], iterations: int
) -> torch.Tensor:
    """Return the iterate; the spot is round, so that it is its own mirror image."""

    def blurred(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * transfer, padded)
        return out

    image = torch.fft.irfft2(spectrum, padded).clamp(min=0)
    floor = 1e-4 * float(image.max())
    x = torch.full_like(image, max(float(image.mean()), floor))
    for _ in range(iterations):
        x = x * blurred(image / blurred(x).clamp(min=floor)).clamp(min=0)
    return x


def deconvolved_surface(
    refocuser: Refocuser, height_um: np.ndarray, kind: Deconvolution = "wiener", iterations: int = 20
) -> np.ndarray:
    """Return `deconvolved` pixel by pixel at its height, mixed from planes `LEVELS` to the range.

    Parameters
    ----------
    refocuser : Refocuser
    height_um : ndarray, shape (y, x) or (1, 1)
    kind, iterations
        See `deconvolved`.

    Returns
    -------
    ndarray, shape (y, x), float32
    """
    if height_um.size == 1:
        return deconvolved(refocuser, float(height_um.flat[0]), kind, iterations)
    step = refocuser.domain.range_um / LEVELS
    limit = refocuser.limit_um
    place = np.clip(np.asarray(height_um, np.float32), -limit, limit) / step
    out = np.zeros(refocuser.shape, np.float32)
    for level in range(int(np.floor(place.min())), int(np.ceil(place.max())) + 1):
        share = np.maximum(1 - np.abs(place - level), 0)
        if share.any():
            out += share * deconvolved(refocuser, level * step, kind, iterations)
    return out
