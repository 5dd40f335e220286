"""Fourier shell correlation follows the resolution that the signal's and the noise's power impose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.fourier import LEAST_SAMPLES, spectrum_of
from napari_lfm.core.problems import RequestError
from napari_lfm.core.shell_correlation import (
    AGAINST_TRUTH,
    ONE_SEVENTH,
    corner_mirror,
    shell_correlation,
    single_shell_correlation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., np.ndarray]

NOISE = 0.1
CASES = [
    ((64, 64, 64), (0.1, 0.1, 0.1), (0.12, 0.12, 0.12)),
    ((96, 96, 96), (0.1, 0.1, 0.1), (0.4, 0.12, 0.12)),
    ((32, 160, 160), (0.3, 0.1, 0.1), (0.45, 0.15, 0.15)),
    ((256, 256), (0.1, 0.1), (0.3, 0.15)),
]


def imposed_um(sigma_um: Any, noise: float = NOISE) -> np.ndarray:
    """Period where ``S / (S + N) = 1/7``: signal ``exp(-4 pi^2 sigma^2 k^2)``, noise power ``noise^2``."""
    return 2 * np.pi * np.asarray(sigma_um) / np.sqrt(np.log(6 / noise**2))


def noisy(image: np.ndarray, seed: int, noise: float = NOISE) -> np.ndarray:
    return image + np.random.default_rng(seed).normal(0, noise, image.shape)


@pytest.mark.parametrize(("shape", "voxel_um", "sigma_um"), CASES)
def test_resolution_follows_blur_and_noise(blurred: Make, shape: Any, voxel_um: Any, sigma_um: Any) -> None:
    truth = blurred(shape, voxel_um, sigma_um)
    first, second = noisy(truth, 1), noisy(truth, 2)
    pair = shell_correlation(first, second, voxel_um)
    with_truth = shell_correlation(5 * first + 3, truth, voxel_um, threshold=AGAINST_TRUTH)
    single = single_shell_correlation(first, voxel_um)
    for found, tolerance in ((pair, 0.1), (with_truth, 0.1), (single, 0.15)):
        assert [c.axis for c in found.curves] == ["z", "y", "x"][-len(shape) :]
        measured = [found.resolution_um[c.axis] for c in found.curves]
        np.testing.assert_allclose(measured, imposed_um(sigma_um), rtol=tolerance)
    assert single.white


def test_more_noise_is_less_resolution(blurred: Make) -> None:
    truth = blurred((64, 64, 64), (1, 1, 1), (1.5, 1.5, 1.5))
    found = [shell_correlation(noisy(truth, 1, n), noisy(truth, 2, n), (1, 1, 1)) for n in (0.03, 0.3)]
    for one, noise in zip(found, (0.03, 0.3), strict=True):
        for value in one.resolution_um.values():
            assert value == pytest.approx(imposed_um(1.5, noise), rel=0.15)


def test_threshold_is_chosen_afterwards(blurred: Make) -> None:
    truth = blurred((48, 48, 48), (1, 1, 1), (1.2, 1.2, 1.2))
    found = shell_correlation(noisy(truth, 1), noisy(truth, 2), (1, 1, 1))
    stricter = found.at(0.5)
    assert stricter.curves[0].values is found.curves[0].values
    assert stricter.resolution_um["x"] > found.resolution_um["x"]  # type: ignore[operator]
    assert found.at(0.143).resolution_um["x"] == pytest.approx(found.resolution_um["x"], rel=1e-3)
    assert found.threshold == ONE_SEVENTH
    with pytest.raises(RequestError, match="between 0 and 1"):
        found.at(1.2)


def test_what_never_falls_is_limited_by_the_voxels() -> None:
    image = np.random.default_rng(0).normal(size=(32, 32, 32))
    found = shell_correlation(image, image, (0.2, 0.1, 0.1))
    assert all(c.at_nyquist for c in found.curves)
    assert found.resolution_um == pytest.approx({"z": 0.4, "y": 0.2, "x": 0.2})


def test_strangers_are_not_resolved() -> None:
    rng = np.random.default_rng(0)
    found = shell_correlation(rng.normal(size=(64, 64, 64)), rng.normal(size=(64, 64, 64)), (1, 1, 1))
    assert all(c.cutoff_per_um is None or c.cutoff_per_um < 0.1 for c in found.curves)
    single = single_shell_correlation(rng.normal(size=(64, 64, 64)), (1, 1, 1))
    assert all(c.cutoff_per_um is None or c.cutoff_per_um < 0.1 for c in single.curves)


def test_the_mirror_is_that_of_the_checkerboard() -> None:
    """The split as formulas say it equals the split as it is done by hand."""
    image = np.random.default_rng(3).normal(size=(8, 10, 12))
    board = np.where(np.indices(image.shape).sum(0) % 2, -1.0, 1.0)
    power = np.abs(np.fft.rfftn(image)) ** 2
    np.testing.assert_allclose(corner_mirror(power, image.shape), np.abs(np.fft.rfftn(image * board)) ** 2)


def test_smoothed_noise_is_told(blurred: Make) -> None:
    image = noisy(blurred((48, 48, 48), (1, 1, 1), (2, 2, 2)), 1)
    assert single_shell_correlation(image, (1, 1, 1)).white
    assert not single_shell_correlation(gaussian_filter(image, 0.7), (1, 1, 1)).white


def test_large_images_are_cut_to_their_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(size=(31, 97, 101))
    assert spectrum_of(image, (1, 1, 1)).shape == (30, 96, 100)
    monkeypatch.setattr("napari_lfm.core.fourier.middle.__defaults__", (10_000,))
    assert np.prod(spectrum_of(image, (1, 1, 1)).shape) <= 10_000


def test_it_can_be_stopped() -> None:
    def stop(share: float) -> None:
        if share > 0.4:
            raise KeyError("stop")

    image = np.random.default_rng(0).normal(size=(16, 16, 16))
    for measure in (
        lambda: shell_correlation(image, image, (1, 1, 1), on_step=stop),
        lambda: single_shell_correlation(image, (1, 1, 1), on_step=stop),
    ):
        with pytest.raises(KeyError):
            measure()


_rng = np.random.default_rng(0)
BAD = [
    (np.full((16, 16, 16), 3.0), (1, 1, 1), "constant"),
    (np.zeros((0, 16, 16)), (1, 1, 1), "empty"),
    (_rng.normal(size=(4, 16, 16)), (1, 1, 1), f"at least {LEAST_SAMPLES}"),
    (np.where(_rng.random((16, 16)) < 0.1, np.nan, 1.0), (1, 1), "NaN"),
    (_rng.normal(size=(2, 16, 16, 16)), (1, 1, 1, 1), "4 axes"),
    (_rng.normal(size=16), (1,), "1 axes"),
    (_rng.normal(size=(16, 16)), (1, 1, 1), "3 voxel sizes"),
    (_rng.normal(size=(16, 16)), (0, 1), "above 0"),
    (_rng.normal(size=(16, 16)).astype(complex), (1, 1), "real numbers"),
    (np.pad(_rng.normal(size=(1, 16)), ((0, 15), (0, 4200)))[:, 2100:], (1, 1), "constant"),
]


@pytest.mark.parametrize(("image", "voxel_um", "says"), BAD)
def test_bad_images_get_a_sentence(image: np.ndarray, voxel_um: Any, says: str) -> None:
    for measure in (
        lambda: single_shell_correlation(image, voxel_um),
        lambda: shell_correlation(image, image, voxel_um),
    ):
        with pytest.raises(RequestError, match=says):
            measure()


def test_images_of_two_grids_get_a_sentence() -> None:
    with pytest.raises(RequestError, match="onto one grid"):
        shell_correlation(np.eye(16), np.eye(18), (1, 1))
