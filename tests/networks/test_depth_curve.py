"""Depths from curves over bins."""

from __future__ import annotations

import numpy as np

from napari_lfm.networks.depth_curve import centre_of, peaks_of

Z = np.arange(-10.0, 11.0)


def bump(z: float, width: float = 1.5, height: float = 1.0) -> np.ndarray:
    return height * np.exp(-((Z - z) ** 2) / 2 / width**2)


def test_centres_lie_between_bins() -> None:
    wanted = np.array([-3.3, 0.0, 4.5, 6.2])
    z, width, height = centre_of(np.stack([bump(v) for v in wanted]), Z)
    np.testing.assert_allclose(z, wanted, atol=0.1)
    assert (np.abs(height - 1) < 0.06).all()
    wide = centre_of(bump(0, 3)[None], Z)[1]
    assert wide[0] > width[1]
    # a second peak does not pull the first one
    both = centre_of((bump(-5) + bump(5, 1.5, 0.8))[None], Z)[0]
    assert abs(both[0] + 5) < 0.1
    assert np.isfinite(centre_of(np.zeros((2, len(Z))), Z)[0]).all()


def test_peaks_are_told_apart() -> None:
    found = peaks_of(bump(-5) + bump(5, 1.5, 0.6), Z, 0.3)
    np.testing.assert_allclose([f[0] for f in found], [-5, 5], atol=0.15)
    assert found[0][2] > found[1][2] > 0.5
    assert len(peaks_of(bump(-5) + bump(5, 1.5, 0.6), Z, 0.8)) == 1
    assert peaks_of(np.zeros(len(Z)), Z, 0.1) == []
    assert len(peaks_of(bump(-8) + bump(-2) + bump(4), Z, 0.1, most=2)) == 2
    edge = peaks_of(bump(-10), Z, 0.3)
    assert len(edge) == 1 and edge[0][0] < -8.5
