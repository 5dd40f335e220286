"""Where sources are across, from all views."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.lightfield.rays import refine_across, refocused_patches

V, T, S = 11, 21, 23
PLACES = ((6.3, 8.0, 0.3), (14.4, 16.6, -0.4))


def field_of(places: tuple[tuple[float, float, float], ...], width: float = 1.0) -> np.ndarray:
    v, u, t, s = np.meshgrid(
        np.arange(V) - V // 2, np.arange(V) - V // 2, np.arange(T), np.arange(S), indexing="ij"
    )
    out = np.zeros((V, V, T, S))
    for y, x, slope in places:
        out += np.exp(-((t - y - slope * v) ** 2 + (s - x - slope * u) ** 2) / 2 / width**2)
    return out.astype(np.float32)


@pytest.mark.parametrize("off", [(0.0, 0.0), (0.5, -0.4), (-0.7, 0.6)])
def test_places_come_back_from_a_rough_guess(off: tuple[float, float]) -> None:
    t, s, slope = (np.array(v) for v in zip(*PLACES, strict=True))
    found_t, found_s, peak = refine_across(field_of(PLACES), t + off[0], s + off[1], slope)
    np.testing.assert_allclose(found_t, t, atol=0.03)
    np.testing.assert_allclose(found_s, s, atol=0.03)
    assert (peak > 0.7).all()


def test_a_wrong_slope_blurs_and_the_right_one_is_sharp() -> None:
    y, x, slope = PLACES[0]
    at = (np.array([y]), np.array([x]))
    field = field_of(PLACES[:1], 0.7)
    sharp = refocused_patches(field, *at, np.array([slope]))[0]
    blurred = refocused_patches(field, *at, np.array([-slope]))[0]
    assert sharp.max() > 1.5 * blurred.max()
    assert sharp.argmax() == 12  # the middle of 5 x 5


def test_places_at_the_edge_and_in_the_dark() -> None:
    field = field_of(((0.2, 0.4, 0.5),))
    t, s, peak = refine_across(field, np.array([0.0, 12.0]), np.array([0.0, 12.0]), np.array([0.5, 0.0]))
    assert abs(t[0] - 0.2) < 0.35 and abs(s[0] - 0.4) < 0.35
    assert np.isfinite(t).all() and peak[1] < 1e-3
    far, _, _ = refine_across(
        field_of(((8.0, 12.0, 0.0),)), np.array([12.0]), np.array([12.0]), np.array([0.0])
    )
    assert abs(far[0] - 12) <= 1.5  # it does not run away to a neighbour
