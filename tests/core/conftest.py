"""Random images whose spectrum, and so whose resolution, is known in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _filtered(
    shape: Sequence[int], seed: int, transfer: Callable[[list[np.ndarray]], np.ndarray]
) -> np.ndarray:
    values = np.fft.fftn(np.random.default_rng(seed).normal(size=shape))
    k = [
        np.fft.fftfreq(n).reshape([-1 if j == i else 1 for j in range(len(shape))])
        for i, n in enumerate(shape)
    ]
    return np.fft.ifftn(values * transfer(k)).real


@pytest.fixture
def blurred() -> Callable[..., np.ndarray]:
    """White noise (variance 1) blurred by a Gaussian: power ``exp(-4 pi^2 sum (sigma k)^2)``."""

    def make(
        shape: Sequence[int], voxel_um: Sequence[float], sigma_um: Sequence[float], seed: int = 0
    ) -> np.ndarray:
        def transfer(k: list[np.ndarray]) -> np.ndarray:
            parts = ((s / v * f) ** 2 for s, v, f in zip(sigma_um, voxel_um, k, strict=True))
            return np.exp(-2 * np.pi**2 * sum(parts, np.zeros(())))

        return _filtered(shape, seed, transfer)

    return make


@pytest.fixture
def band_limited() -> Callable[..., np.ndarray]:
    """White noise up to an ellipsoid of frequencies, nothing beyond, by its finest periods."""

    def make(
        shape: Sequence[int], voxel_um: Sequence[float], period_um: Sequence[float], seed: int = 0
    ) -> np.ndarray:
        def transfer(k: list[np.ndarray]) -> np.ndarray:
            parts = ((p / v * f) ** 2 for p, v, f in zip(period_um, voxel_um, k, strict=True))
            return sum(parts, np.zeros(())) < 1

        return _filtered(shape, seed, transfer)

    return make
