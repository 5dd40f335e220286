"""Surfaces to refocus onto: tilts, points, height maps, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.surfaces import MOST_POINTS, height_map, through_points, tilted

SHAPE, PIXEL = (40, 61), 0.5


def test_a_tilt_has_its_angle_and_its_height_at_the_centre() -> None:
    heights = tilted((41, 61), PIXEL, 2.0, 3.0, -1.0)
    assert heights.dtype == np.float32
    assert heights[20, 30] == pytest.approx(2.0)
    assert np.allclose(np.diff(heights, axis=1), PIXEL * np.tan(np.deg2rad(3)), atol=1e-5)
    assert np.allclose(np.diff(heights, axis=0), -PIXEL * np.tan(np.deg2rad(1)), atol=1e-5)


def test_three_points_make_the_plane_through_them() -> None:
    points = np.array([(1, 2, 3), (-2, 15, 4), (3, 6, 28)], float)
    heights = through_points(points, SHAPE, PIXEL)
    for z, y, x in points:
        assert heights[round(y / PIXEL), round(x / PIXEL)] == pytest.approx(z, abs=1e-4)
    assert np.abs(np.diff(heights, 2, axis=0)).max() < 1e-4
    assert np.abs(np.diff(heights, 2, axis=1)).max() < 1e-4


@pytest.mark.parametrize("shape", [SHAPE, (300, 280)])  # the large one goes over a coarser grid
def test_more_points_make_a_spline_through_all_of_them(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    places = np.stack([rng.integers(0, n, 12) for n in shape], 1)
    points = np.column_stack([rng.uniform(-5, 5, 12), places * PIXEL])
    heights = through_points(points, shape, PIXEL)
    assert heights.shape == shape
    assert heights[places[:, 0], places[:, 1]] == pytest.approx(points[:, 0], abs=0.02)
    smooth = through_points(points, shape, PIXEL, smoothing=1.0)
    missed = np.abs(smooth[places[:, 0], places[:, 1]] - points[:, 0])
    assert missed.max() > 0.5
    assert np.ptp(smooth) < np.ptp(heights)


def test_a_spline_through_a_plane_is_that_plane() -> None:
    places = np.array([(0, 0), (0, 30), (19, 0), (19, 30), (8, 12)], float)
    heights = 1 + 0.2 * places[:, 0] - 0.1 * places[:, 1]
    made = through_points(np.column_stack([heights, places]), SHAPE, PIXEL)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * PIXEL
    assert np.allclose(made, 1 + 0.2 * y - 0.1 * x, atol=1e-3)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([], "no points are given"),
        ([(0, 0, 0)], "one point is given"),
        ([(0, 0, 0), (1, 5, 5)], "2 points are given"),
        ([(0, 1, 1), (1, 5, 5), (2, 9, 9.01)], "on one line"),
        ([(0, 3, 1), (1, 3, 5), (2, 3, 9), (1, 3, 12)], "on one line"),
        ([(0, 1, 1), (1, 1, 1.1), (2, 9, 3)], "same place"),
        ([(0, 1, 1), (np.nan, 1, 5), (2, 9, 3)], "no number"),
        ([(0, 1), (1, 5), (3, 2)], "no list of z, y, x"),
        (np.random.default_rng(0).random((MOST_POINTS + 1, 3)), "more than"),
    ],
)
def test_points_that_span_nothing_are_refused(points: object, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        through_points(points, SHAPE, PIXEL)  # type: ignore[arg-type]


def test_height_maps_have_units_and_are_resampled() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    plane = (0.1 * y - 0.02 * x).astype(np.float32)
    assert np.array_equal(height_map(plane, SHAPE, PIXEL), plane)
    assert np.allclose(height_map(plane * 1000, SHAPE, PIXEL, "nm"), plane, atol=1e-5)
    assert np.allclose(height_map(plane / 1000, SHAPE, PIXEL, "mm"), plane, atol=1e-5)
    half = plane.reshape(20, 2, 61).mean(1)[:, :60].reshape(20, 30, 2).mean(2)
    again = height_map(half, (40, 60), PIXEL)
    assert np.allclose(again[2:-2, 2:-2], plane[2:-2, 2:58], atol=1e-4)


@pytest.mark.parametrize(
    ("values", "unit", "says"),
    [
        (np.zeros((30, 30)), "um", "do not show the same field"),
        (np.zeros(SHAPE), "px", "Heights in 'px' are not known"),
        (np.where(np.eye(*SHAPE) > 0, np.nan, 1), "um", "40 of 2440 values of the height map"),
        (np.zeros((*SHAPE, 3)), "um", "is no map"),
        (np.zeros((1, 1)), "um", "is no map"),
        (np.zeros(SHAPE, complex), "um", "is no map"),
    ],
)
def test_height_maps_that_are_none_are_refused(values: np.ndarray, unit: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        height_map(values, SHAPE, PIXEL, unit)


def test_steep_tilts_and_negative_smoothing_are_refused() -> None:
    with pytest.raises(RequestError, match="tilt"):
        tilted(SHAPE, PIXEL, tilt_x_deg=89)
    with pytest.raises(RequestError, match="smoothing"):
        through_points([(0, 0, 0), (1, 5, 5), (0, 3, 9)], SHAPE, PIXEL, -1)
