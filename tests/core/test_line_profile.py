"""Widths along a line are those of the peak that was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_lfm.core.line_profile import half_maximum_width, line_profile, measured
from napari_lfm.core.problems import RequestError

VOXEL = (0.3, 0.1, 0.1)
SIGMA = (0.6, 0.2, 0.25)
CENTER = (20.3, 19.6, 20.0)
FWHM = 2.3548


def peak(noise: float = 0.0) -> np.ndarray:
    grid = np.indices((40, 40, 40)).astype(float)
    away = sum((((g - c) * v / s) ** 2 for g, c, v, s in zip(grid, CENTER, VOXEL, SIGMA, strict=True)), 0.0)
    return 100 + 1000 * np.exp(-away / 2) + np.random.default_rng(0).normal(0, noise, away.shape)


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.01), (30.0, 0.08)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_width_along_every_axis(axis: int, noise: float, tolerance: float) -> None:
    ends = [list(CENTER), list(CENTER)]
    ends[0][axis], ends[1][axis] = 2.0, 38.0
    found = line_profile(peak(noise), *ends, VOXEL)
    assert found.fwhm_gauss_um == pytest.approx(FWHM * SIGMA[axis], rel=tolerance)
    assert found.fwhm_crossing_um == pytest.approx(FWHM * SIGMA[axis], rel=tolerance)
    assert found.center_um == pytest.approx((CENTER[axis] - 2) * VOXEL[axis], abs=0.1 * SIGMA[axis])
    assert found.distance_um[-1] == pytest.approx(36 * VOXEL[axis])
    assert found.fit_r2 is not None and found.fit_r2 > 0.97


def test_an_oblique_line_is_measured_in_micrometres() -> None:
    found = line_profile(peak(), (20.3, 9.6, 10), (20.3, 29.6, 30), VOXEL)
    sigma = np.sqrt(2 / (1 / SIGMA[1] ** 2 + 1 / SIGMA[2] ** 2))
    assert found.fwhm_gauss_um == pytest.approx(FWHM * sigma, rel=0.01)


def test_other_shapes_are_told_by_the_fit() -> None:
    s = np.linspace(0, 10, 201)
    box = ((s > 3) & (s < 7)).astype(float)
    found = measured(s, box)
    assert found.fwhm_crossing_um == pytest.approx(4, abs=0.1)
    two = measured(s, np.exp(-((s - 2) ** 2) / 0.1) + np.exp(-((s - 8) ** 2) / 0.1))
    assert two.fit_r2 is not None and two.fit_r2 < 0.8


def test_half_a_peak_has_no_crossing() -> None:
    s = np.linspace(0, 1, 50)
    assert half_maximum_width(s, s) is None
    flat = measured(s, np.full(50, 7.0))
    assert (flat.fwhm_gauss_um, flat.fwhm_crossing_um, flat.fit) == (None, None, None)


@pytest.mark.parametrize(
    ("start", "end", "voxel_um", "says"),
    [
        ((0, 0, 0), (50, 0, 0), VOXEL, "leaves the image"),
        ((0, 0, 0), (np.nan, 0, 0), VOXEL, "leaves the image"),
        ((5, 5, 5), (5, 5, 6), VOXEL, "closer than two voxels"),
        ((5, 5), (5, 9), VOXEL, "needs two points"),
        ((5, 5, 5), (5, 5, 15), (1, 1, -1), "voxel sizes"),
    ],
)
def test_bad_lines_get_a_sentence(start: Any, end: Any, voxel_um: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        line_profile(peak(), start, end, voxel_um)


def test_nan_counts_where_the_line_runs() -> None:
    image = peak()
    image[39, 39, 39] = np.nan
    assert line_profile(image, (20, 20, 2), (20, 20, 15), VOXEL).values.shape
    image[20, 20, 5] = np.nan
    with pytest.raises(RequestError, match="NaN"):
        line_profile(image, (20, 20, 2), (20, 20, 15), VOXEL)
