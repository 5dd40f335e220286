"""Haze and sources of a light field are told apart, whichever of them rules."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.purify import noise_of, split_background, temporal_activity

V, T = 9, 25


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Haze that varies over views and lenslets, and three sources that move from view to view."""
    v, u, t, s = np.meshgrid(*(np.arange(n) - n // 2 for n in (V, V, T, T)), indexing="ij")
    haze = (100 - 2.0 * (v**2 + u**2)) * (1 + 0.5 * np.cos(t / 8) * np.sin(s / 9 + 1))
    sources = np.zeros(haze.shape)
    for y, x, slope in ((3, -4, 0.4), (-6, 5, -0.5), (7, 7, 0.25)):
        sources += 150 * np.exp(-((t - y - slope * v) ** 2 + (s - x - slope * u) ** 2) / 1.5)
    return haze.astype(np.float32), sources.astype(np.float32)


@pytest.mark.parametrize("bright", [0.0, 0.02, 1.0, 5.0])
def test_sources_stand_out_of_much_and_of_little_haze(
    scene: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, bright: float
) -> None:
    haze, sources = scene
    field = bright * haze + sources + rng.normal(0, 1, haze.shape).astype(np.float32)
    background, foreground = split_background(field)
    assert foreground.min() >= 0
    error = foreground - sources
    assert np.sqrt((error**2).mean()) < 0.05 * sources.max()
    assert abs(float((background - bright * haze)[sources < 1].mean())) < 0.1 * bright * haze.mean() + 1


def test_the_published_split_takes_the_largest_component(scene: tuple[np.ndarray, np.ndarray]) -> None:
    haze, sources = scene
    field = 5 * haze + sources
    background, _ = split_background(field, "largest")
    matrix = field.reshape(V * V, -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(
        background.reshape(matrix.shape), values[0] * np.outer(left[:, 0], right[0]), rtol=1e-3, atol=0.5
    )
    two, _ = split_background(field, "largest", rank=2)
    assert np.linalg.matrix_rank(two.reshape(matrix.shape), tol=1.0) == 2
    # where sources are all that there is, it takes them away, and the default does not
    alone = sources + 0.01
    assert split_background(alone, "largest")[1].max() < 0.97 * sources.max()
    assert split_background(alone)[1].max() > 0.99 * sources.max()
    nothing, everything = split_background(alone, "none")
    assert not nothing.any()
    np.testing.assert_array_equal(everything, alone)


def test_empty_and_broken_fields(rng: np.random.Generator) -> None:
    for value in (0.0, 7.0):
        background, foreground = split_background(np.full((3, 3, 5, 5), value, np.float32))
        assert np.isfinite(background).all()
        assert foreground.max() < 1e-3
    bad = np.zeros((3, 3, 5, 5))
    bad[1, 1, 2, 2] = np.nan
    with pytest.raises(RequestError, match="no numbers"):
        split_background(bad)


def test_noise_is_told_with_and_without_sources(scene: tuple[np.ndarray, np.ndarray]) -> None:
    noise = np.random.default_rng(1).normal(0, 2, scene[1].shape)
    assert noise_of(np.clip(noise, 0, None)) == pytest.approx(2, rel=0.05)
    assert noise_of(np.clip(noise + scene[1], 0, None)) == pytest.approx(2, rel=0.3)
    assert noise_of(np.zeros((2, 2, 2, 2))) == 0


def test_what_changes_is_told_from_what_glows(
    scene: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    haze, sources = scene
    trace = np.abs(rng.normal(0, 1, 40)).astype(np.float32)
    movie = haze + trace[:, None, None, None, None] * sources + rng.normal(0, 2, (40, *haze.shape))
    found = temporal_activity(movie)
    assert np.corrcoef(found.ravel(), sources.ravel())[0, 1] > 0.95
    assert np.median(found) < 1.0
