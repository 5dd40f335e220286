"""From light fields to points: places, depths, what is merged, what lies at the edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_lfm.lightfield.epipolar import Seeds
from napari_lfm.methods.localization.csc import EpipolarCsc
from napari_lfm.methods.localization.finders import CscFinder
from napari_lfm.methods.localization.points import Localizer, PointOptions, Sigma

V, CELLS, HALF = 11, 31, 8
SLOPE = -0.05  # lenslets per view and um
Z = np.arange(-12.0, 13.0)
Neuron = tuple[float, float, float]
THREE: tuple[Neuron, ...] = ((-7.3, 8.2, 9.0), (4.6, 21.4, 12.7), (9.0, 14.0, 23.3))


def field_of(neurons: tuple[Neuron, ...], width: float = 0.8, noise: float = 0.01) -> np.ndarray:
    """A light field (v, u, t, s) of neurons (z_um, t, s)."""
    view = np.arange(V) - V // 2
    v, u, t, s = np.meshgrid(view, view, np.arange(CELLS), np.arange(CELLS), indexing="ij")
    out = np.random.default_rng(0).normal(0, noise, t.shape)
    for z, y, x in neurons:
        away = (t - y - SLOPE * z * v) ** 2 + (s - x - SLOPE * z * u) ** 2
        out += np.exp(-away / 2 / width**2)
    return out.astype(np.float32)


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    view, at = np.arange(V) - V // 2, np.arange(2 * HALF + 1)
    offsets = (-0.25, 0.25)
    atoms = np.stack(
        [
            [np.exp(-((at - HALF - o - SLOPE * z * view[:, None]) ** 2) / 2 / 0.8**2) for o in offsets]
            for z in Z
        ]
    )
    finder = CscFinder(EpipolarCsc(atoms.astype(np.float32), iterations=60), Z)
    return Localizer(finder, SLOPE, 5.0, PointOptions(confidence=0.5))


def test_neurons_are_where_they_are(localizer: Localizer) -> None:
    found = localizer.find(field_of(THREE))
    assert len(found) == 3
    order = np.argsort(found.z_um)
    wanted = np.array(THREE)
    np.testing.assert_allclose(found.z_um[order], wanted[:, 0], atol=0.8)
    np.testing.assert_allclose(found.t[order], wanted[:, 1], atol=0.06)
    np.testing.assert_allclose(found.s[order], wanted[:, 2], atol=0.06)
    assert (np.diff(found.confidence) <= 0).all()
    assert (found.sigma_z_um > 0).all()
    assert (found.snr > 20).all()
    assert not found.at_edge.any()
    assert found.curve.shape == (3, len(Z))


def test_a_click_gives_the_neuron_under_it(localizer: Localizer) -> None:
    foreground = localizer.foreground(field_of(THREE))
    found = localizer.at(foreground, Seeds(np.array([21.0]), np.array([13.0]), np.array([1.0])))
    assert len(found) == 1
    assert abs(found.z_um[0] - 4.6) < 0.8
    assert abs(found.t[0] - 21.4) < 0.1 and abs(found.s[0] - 12.7) < 0.1
    nothing = localizer.at(foreground * 0, Seeds(np.array([3.0]), np.array([3.0]), np.array([1.0])))
    assert len(nothing) == 0
    assert len(localizer.at(foreground, Seeds(*(np.zeros(0),) * 3))) == 0


def test_neurons_one_above_the_other_are_both_reported(localizer: Localizer) -> None:
    found = localizer.find(field_of(((-8.0, 15.0, 15.0), (8.0, 15.0, 15.0)), 0.5))
    assert len(found) == 2
    np.testing.assert_allclose(np.sort(found.z_um), [-8, 8], atol=1.2)


def test_what_is_found_twice_is_one_neuron(localizer: Localizer) -> None:
    foreground = localizer.foreground(field_of(THREE[:1]))
    seeds = Seeds(np.array([8.0, 8.4, 8.0]), np.array([9.0, 9.0, 9.4]), np.ones(3))
    assert len(localizer.at(foreground, seeds)) == 1
    apart = localizer.with_options(replace(localizer.options, merge_um=0.0))
    assert len(apart.at(foreground, seeds)) == 3


def test_a_neuron_at_the_end_of_the_range_is_marked(localizer: Localizer) -> None:
    found = localizer.find(field_of(((12.4, 15.0, 15.0),)))
    assert len(found) == 1
    assert found.at_edge[0]


def test_neurons_at_the_border_and_empty_fields(localizer: Localizer) -> None:
    found = localizer.find(field_of(((3.0, 0.3, 15.0),)))
    assert len(found) <= 1
    if len(found):
        assert abs(found.z_um[0] - 3) < 2.5
    assert len(localizer.find(np.zeros((V, V, CELLS, CELLS), np.float32))) == 0


def test_peaks_alone_are_fewer_places(localizer: Localizer) -> None:
    foreground = localizer.foreground(field_of(THREE))
    peaks = localizer.with_options(replace(localizer.options, seeds="peaks"))
    assert len(peaks.seeds(foreground)) == 3 < len(localizer.seeds(foreground))
    one, other = localizer.find(field_of(THREE)), peaks.find(field_of(THREE))
    np.testing.assert_allclose(np.sort(one.z_um), np.sort(other.z_um), atol=0.5)


def test_sigma_grows_with_the_width_and_with_doubt() -> None:
    sigma = Sigma(0.3, 0.5, 1.0)
    one = sigma.of(np.array([1.0, 3.0, 1.0]), np.array([0.9, 0.9, 0.3]))
    assert one[1] > one[0] and one[2] > one[0]
    assert np.isfinite(sigma.of(np.array([0.0]), np.array([0.0]))).all()
