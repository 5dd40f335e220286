"""Depth and epipolar slope, against the figures of the physics notes and their own limits."""

from __future__ import annotations

import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.slopes import (
    default_view_range,
    depth_at_slope,
    paraxial_slope_per_um,
    slope_at_depth,
    slope_per_um,
)
from napari_lfm.optics.presets import load_microscope

IMPERIAL = load_microscope("imperial-25x1.0w")


def test_imperial_figures() -> None:
    assert paraxial_slope_per_um(IMPERIAL) == pytest.approx(0.0198, abs=5e-5)
    assert slope_per_um(IMPERIAL, view_range=5) == pytest.approx(0.0218, abs=5e-5)


def test_the_exact_slope_grows_with_the_range_of_views_from_the_paraxial_one() -> None:
    slopes = [slope_per_um(IMPERIAL, m) for m in range(1, 8)]
    assert slopes == sorted(slopes)
    assert slopes[0] == pytest.approx(paraxial_slope_per_um(IMPERIAL), rel=0.01)


def test_there_and_back() -> None:
    for z in (-30.0, 0.0, 12.5):
        assert depth_at_slope(slope_at_depth(z, IMPERIAL, 4), IMPERIAL, 4) == pytest.approx(z)
    assert slope_at_depth(24.0, IMPERIAL, 5) == pytest.approx(-0.523, abs=0.002)


def test_more_pixels_per_lenslet_make_smaller_slopes() -> None:
    few, many = slope_per_um(IMPERIAL, 5, 19), slope_per_um(IMPERIAL, 10, 38)
    assert many == pytest.approx(few / 2, rel=0.03)


def test_default_views_stay_inside_the_pupil() -> None:
    for name in ("imperial-25x1.0w", "mbl-60x1.2w", "bern-40x0.9", "wagner-22x0.5w"):
        microscope = load_microscope(name)
        m = default_view_range(microscope)
        assert 1 <= m <= (microscope.n_pixels - 1) / 2
        assert slope_per_um(microscope) > 0


def test_refusals() -> None:
    with pytest.raises(RequestError, match="no lenslet array"):
        slope_per_um(load_microscope("wf-20x0.8"))
    with pytest.raises(RequestError, match="1 or more"):
        slope_per_um(IMPERIAL, 0)
    with pytest.raises(RequestError, match="beyond what the sample"):
        slope_per_um(IMPERIAL, 40)
