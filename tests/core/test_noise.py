"""Noise of a camera from an image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.noise import estimate_noise


def test_gain_and_read_noise_are_found() -> None:
    rng = np.random.default_rng(0)
    light = 400 * gaussian_filter(rng.random((4, 128, 128)), (0, 12, 12))
    light = (light - light.min()) * 20
    seen = 2.5 * rng.poisson(light) + 6 * rng.standard_normal(light.shape) + 100
    noise = estimate_noise(seen)
    assert noise.known
    assert noise.slope == pytest.approx(2.5, rel=0.1)
    assert noise.slope * 100 + noise.intercept == pytest.approx(36, abs=60)


def test_a_sliver_says_nothing() -> None:
    assert not estimate_noise(np.ones((3, 4, 4))).known
