"""Traces of neurons from a movie of light fields."""

from __future__ import annotations

import numpy as np

from napari_lfm.methods.localization.traces import footprints, relative_change, unmix

SHAPE = (9, 9, 21, 21)
T, S = np.array([6.0, 8.5, 15.0]), np.array([7.0, 8.0, 14.0])  # the first two overlap
SLOPE = np.array([0.3, -0.2, 0.0])


def test_overlapping_neurons_keep_their_own_light() -> None:
    rng = np.random.default_rng(0)
    marks = footprints(SHAPE, T, S, SLOPE, 1.2)
    np.testing.assert_allclose(marks.sum((1, 2, 3, 4)), 1, rtol=1e-5)
    haze = np.ones(SHAPE, np.float32)
    truth = 1000 * (1 + np.abs(rng.normal(0, 1, (60, 3)).cumsum(0)) * 0.1)
    level = 2 + rng.random(60)
    frames = [
        (np.tensordot(a, marks, 1) + b * haze / haze.sum() * 1e4 + rng.normal(0, 0.05, SHAPE))
        for a, b in zip(truth, level, strict=True)
    ]
    found, background = zip(*unmix(frames, marks, haze), strict=True)
    for k in range(3):
        assert np.corrcoef(np.array(found)[:, k], truth[:, k])[0, 1] > 0.99
    np.testing.assert_allclose(np.array(found), truth, rtol=0.05)
    np.testing.assert_allclose(background, level * 1e4, rtol=0.05)


def test_footprints_follow_the_rays() -> None:
    mark = footprints(SHAPE, T[:1], S[:1], SLOPE[:1], 0.8)[0]
    for v in (0, 4, 8):
        view = mark[v, 4]
        assert abs((view.sum(1) * np.arange(21)).sum() / view.sum() - (6 + 0.3 * (v - 4))) < 0.05
    shaded = footprints(SHAPE, T[:1], S[:1], SLOPE[:1], 0.8, np.eye(9))[0]
    assert shaded[0, 1].sum() == 0


def test_relative_change() -> None:
    traces = np.stack([np.r_[np.full(8, 10.0), 15, 20], np.zeros(10)], 1)
    change = relative_change(traces)
    np.testing.assert_allclose(change[-2:, 0], [0.5, 1.0])
    assert np.isnan(change[:, 1]).all()
