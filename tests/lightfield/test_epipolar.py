"""Seeds of the central view and the epipolar images through them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.lightfield.epipolar import (
    bright_places,
    brightest_one,
    central_view,
    epipolar_windows,
    find_seeds,
)

V, T, S = 7, 21, 25
PLACES = ((6.3, 8.0, 0.3), (14.0, 17.6, -0.4))


@pytest.fixture
def field() -> np.ndarray:
    """Two sources: at (t, s), with their slope in lenslets per view."""
    v, u, t, s = np.meshgrid(
        np.arange(V) - V // 2, np.arange(V) - V // 2, np.arange(T), np.arange(S), indexing="ij"
    )
    out = np.zeros((V, V, T, S))
    for y, x, slope in PLACES:
        out += np.exp(-((t - y - slope * v) ** 2 + (s - x - slope * u) ** 2) / 2)
    return out.astype(np.float32)


def test_seeds_are_found_between_lenslets(field: np.ndarray) -> None:
    seeds = find_seeds(central_view(field, 0))
    assert len(seeds) == 2
    order = np.argsort(seeds.t)
    np.testing.assert_allclose(seeds.t[order], [p[0] for p in PLACES], atol=0.05)
    np.testing.assert_allclose(seeds.s[order], [p[1] for p in PLACES], atol=0.05)
    assert (np.diff(seeds.value) <= 0).all()
    assert len(find_seeds(np.zeros((5, 5)))) == 0
    corner = np.zeros((5, 5))
    corner[0, 4] = 1.0
    assert (find_seeds(corner).t[0], find_seeds(corner).s[0]) == (0.0, 4.0)


def test_bright_places_are_those_above_a_share() -> None:
    view = np.array([[0.0, 5.0, 10.0], [1.0, 6.0, -3.0]])
    found = bright_places(view, 0.45)
    assert list(zip(found.t, found.s, found.value, strict=True)) == [(0, 2, 10), (1, 1, 6), (0, 1, 5)]
    assert len(bright_places(np.zeros((3, 3)), 0.1)) == 0


@pytest.mark.parametrize("view", [0, -2, 3])
def test_lines_have_the_slope_of_their_source(field: np.ndarray, view: int) -> None:
    for y, x, slope in PLACES:
        # the row that shows the source in that view
        at = y + slope * view
        images = epipolar_windows(field, np.array([at]), np.array([x]), 5, "x", view)
        assert images.shape == (1, V, 11)
        centre = (images[0] * np.arange(-5, 6)).sum(1) / images[0].sum(1) + round(x)
        np.testing.assert_allclose(centre, x + slope * (np.arange(V) - V // 2), atol=0.05)
        turned = epipolar_windows(field, np.array([y]), np.array([x + slope * view]), 5, "y", view)
        centre = (turned[0] * np.arange(-5, 6)).sum(1) / turned[0].sum(1) + round(y)
        np.testing.assert_allclose(centre, y + slope * (np.arange(V) - V // 2), atol=0.05)


def test_beyond_the_field_there_is_nothing(field: np.ndarray) -> None:
    field = field + 1
    images = epipolar_windows(field, np.array([0.0, 40.0, 10.0]), np.array([1.0, 5.0, 5.0]), 3, "x")
    assert (images[0, :, :2] == 0).all()
    assert (images[0, :, 2:] >= 1).all()
    assert (images[1] == 0).all()
    assert (epipolar_windows(field, np.array([5.0]), np.array([5.0]), 3, "x", V) == 0).all()


def test_images_are_scaled_to_their_brightest_pixel(field: np.ndarray) -> None:
    images = np.stack([field[3, :, 6], np.zeros((V, S), np.float32)]) * 40
    scaled, peak = brightest_one(images)
    assert scaled[0].max() == pytest.approx(1)
    assert peak[0] == pytest.approx(images[0].max())
    assert not scaled[1].any()
