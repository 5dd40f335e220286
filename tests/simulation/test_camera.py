"""The camera's mean, variance, offset, saturation and depth."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import Camera
from napari_lfm.simulation.camera import full_well_electrons, record

CAMERA = Camera(pixel_um=6.5, gain_e_per_count=0.5, offset_counts=100, read_noise_e=2, bit_depth=12)


def test_mean_and_variance_follow_the_photon_transfer_curve() -> None:
    rng = np.random.default_rng(0)
    for electrons in (0.0, 50.0, 800.0):
        counts = record(np.full((300, 300), electrons), CAMERA, rng).astype(float)
        assert counts.mean() == pytest.approx(100 + electrons / 0.5, abs=0.3)
        # shot and read noise in counts, and the rounding's 1/12
        assert counts.var() == pytest.approx((electrons + 4) / 0.25 + 1 / 12, rel=0.03)


def test_saturation_and_types() -> None:
    rng = np.random.default_rng(0)
    bright = record(np.full((4, 4), 1e6), CAMERA, rng)
    assert bright.dtype == np.uint16
    assert (bright == 4095).all()
    assert full_well_electrons(CAMERA) == pytest.approx((4095 - 100) * 0.5)
    deep = CAMERA.model_copy(update={"bit_depth": 24})
    assert record(np.full((2, 2), 1e5), deep, rng).dtype == np.uint32


def test_same_seed_same_noise() -> None:
    a, b = (record(np.full((9, 9), 40.0), CAMERA, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_light_is_refused(value: float) -> None:
    with pytest.raises(RequestError, match="negative or non-finite"):
        record(np.array([[value]]), CAMERA, np.random.default_rng(0))
