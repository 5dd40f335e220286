"""Sharpness against depth: known gradients, what it must not depend on, and haze that it must see."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.core.sharpness import grey_limits, patch_gradients, sampled, sharpness_by_depth


def test_gradient_of_a_ramp_is_its_slope() -> None:
    y, x = np.mgrid[:64, :96]
    found = patch_gradients(2.0 * x + 3.0 * y, 32)
    assert found.shape == (2, 3)
    # forward differences: 5 per pixel; the image's last row and column lack one of the two
    np.testing.assert_allclose(found[0, :2], 5.0, rtol=1e-6)
    assert found[0, 2] == pytest.approx(5.0 - 2.0 / 32)
    assert found[1, 0] == pytest.approx(5.0 - 3.0 / 32)


def test_patches_that_do_not_fit_are_left_out() -> None:
    plane = np.zeros((70, 33))
    plane[66, 5] = 100.0  # in rows that no whole patch covers
    assert not patch_gradients(plane, 32).any()
    assert patch_gradients(np.eye(10), 32).shape == (1, 1)


def test_sharpest_and_flattest_patch_are_told() -> None:
    stack = np.zeros((2, 64, 64))
    stack[:, :32, :32] = 50 * (np.indices((32, 32)).sum(0) % 2)
    stack[1] *= 0.5
    found = sharpness_by_depth(stack, percentiles=(0, 100))
    assert found.limits == (0.0, 50.0)
    np.testing.assert_allclose(found.signal[1] / found.signal[0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.background, 0.0)
    assert np.isnan(found.ratio).all()
    # a checkerboard of amplitude 1 has a gradient of nearly 2
    assert 1.9 < found.signal[0] <= 2.0


def test_units_do_not_matter() -> None:
    stack = np.random.default_rng(0).gamma(1.0, 1.0, (3, 64, 64))
    one, other = sharpness_by_depth(stack), sharpness_by_depth(7.0 * stack + 300)
    np.testing.assert_allclose(one.signal, other.signal, rtol=1e-4)
    np.testing.assert_allclose(one.background, other.background, rtol=1e-4)
    assert (one.ratio > 1).all()


def test_haze_lowers_the_signal_with_depth() -> None:
    from scipy.ndimage import gaussian_filter

    sharp = np.random.default_rng(1).gamma(0.3, 1.0, (4, 96, 96))
    hazy = np.stack([gaussian_filter(p, 0.5 + k) for k, p in enumerate(sharp)])
    found = sharpness_by_depth(hazy).signal
    assert (np.diff(found) < 0).all()


def test_progress_and_cancelling() -> None:
    seen: list[float] = []

    def stop(share: float) -> None:
        seen.append(share)
        if len(seen) == 2:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        sharpness_by_depth(np.random.default_rng(0).random((4, 8, 8)), on_plane=stop)
    assert seen == [0.0, 0.25]


def test_lazy_stacks_are_read_by_planes() -> None:
    import dask.array as da

    stack = np.random.default_rng(2).random((3, 40, 40))
    lazy = da.from_array(stack, chunks=(1, 40, 40))  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(sharpness_by_depth(lazy).signal, sharpness_by_depth(stack).signal)


def test_bad_stacks_are_refused_in_words() -> None:
    with pytest.raises(RequestError, match="constant"):
        sharpness_by_depth(np.ones((2, 40, 40)))
    with pytest.raises(RequestError, match="NaN"):
        sharpness_by_depth(np.full((2, 40, 40), np.nan))
    with pytest.raises(RequestError, match="40 x 40"):
        sharpness_by_depth(np.ones((40, 40)))


def test_samples_stand_for_the_stack() -> None:
    stack = np.random.default_rng(3).normal(100, 10, (5, 200, 300)).astype(np.float32)
    few = sampled(stack, 10_000)
    assert 3_000 < few.size <= 12_000
    assert few.mean() == pytest.approx(stack.mean(), abs=1.0)
    spot = np.zeros((2, 40, 40))
    spot[0, 0, 0] = 9.0
    assert grey_limits(spot) == (0.0, 9.0)
