"""Shifts are found to a few hundredths of a voxel, also in noise and between images of different blur."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from napari_lfm.core.align import align, find_shift
from napari_lfm.core.problems import RequestError


def pair(shape: Any, move: Any, noise: float, blur: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    whole = gaussian_filter(rng.normal(size=[n + 40 for n in shape]), 1.5)
    inside = tuple(slice(20, -20) for _ in shape)
    moved = gaussian_filter(shift(whole, [-m for m in move], order=5), blur)[inside]
    still = whole[inside]
    return tuple(v + rng.normal(0, noise * v.std(), v.shape) for v in (moved, still))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("shape", "move", "noise"),
    [
        ((48, 64, 64), (1.3, -4.62, 2.25), 0.0),
        ((48, 64, 64), (-0.4, 0.5, 0.1), 0.5),
        ((24, 80, 80), (3.4, -14.62, 0.25), 0.3),
        ((128, 128), (3.37, -10.2), 0.3),
    ],
)
def test_shift_is_found_and_taken_back(shape: Any, move: Any, noise: float) -> None:
    moved, still = pair(shape, move, noise)
    found = align(1000 * moved.astype(np.float32) + 7, still, [0.5] * len(shape))
    np.testing.assert_allclose(found.shift_voxels, move, atol=0.06)
    np.testing.assert_allclose(found.shift_um, np.multiply(0.5, found.shift_voxels))
    assert found.image.shape == found.reference.shape == still[found.part].shape
    assert all(n - m <= np.ceil(abs(d)) + 1 for n, m, d in zip(shape, found.image.shape, move, strict=True))
    assert found.correlation > 0.75


def test_images_that_fit_stay_as_they_are() -> None:
    _, still = pair((16, 32, 32), (0, 0, 0), 0)
    found = align(still, still, (1, 1, 1))
    assert found.shift_voxels == (0, 0, 0)
    np.testing.assert_array_equal(found.image, still.astype(np.float32))


def test_big_numbers_do_no_harm() -> None:
    moved, still = pair((64, 64), (1.5, 0), 0.1)
    np.testing.assert_allclose(find_shift(1e12 * moved, 1e12 * still), (1.5, 0), atol=0.06)


def test_bad_pairs_get_a_sentence() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(16, 16))
    with pytest.raises(RequestError, match="onto one grid"):
        align(image, rng.normal(size=(16, 18)), (1, 1))
    with pytest.raises(RequestError, match="constant"):
        align(image, np.ones((16, 16)), (1, 1))
    with pytest.raises(RequestError, match="NaN"):
        align(np.where(image > 2, np.nan, image), image, (1, 1))
    with pytest.raises(RequestError, match=r"nothing in common|too little"):
        align(image, -image, (1, 1))
