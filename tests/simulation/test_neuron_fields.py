"""Light fields of neurons: where they say they are, what the camera adds, and the labels made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.epipolar import central_view, find_seeds
from napari_lfm.lightfield.rays import refine_across
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.neuron_fields import NeuronFields, NeuronSettings

N = 7
SETTINGS = NeuronSettings(
    z_um=(-10, 10), z_beyond_um=2, z_step_um=2, cells=15, neurons=(1, 3), diameter_um=(6, 8), jitter_px=0.0
)


@pytest.fixture(scope="module")
def fields() -> NeuronFields:
    tiny = Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=100 / 7),
        wavelength_um=0.55,
        sample_index=1.0,
    )
    out = NeuronFields(tiny, N, SETTINGS, seed=3)
    list(out.prepare())
    return out


def test_neurons_are_seen_where_they_are(fields: NeuronFields) -> None:
    wanted = np.array([[-8.0, 4.2, 9.7, 3.5, 1.0], [7.0, 10.4, 4.0, 3.5, 1.0]])
    for index in range(4):  # balls and bodies with nuclei
        field = fields.clean(index, wanted)
        slope = slope_at_depth(1.0, fields.microscope, None, N) * wanted[:, 0]
        t, s, _ = refine_across(field.views, np.rint(wanted[:, 1]), np.rint(wanted[:, 2]), slope)
        np.testing.assert_allclose(t, wanted[:, 1], atol=0.15)
        np.testing.assert_allclose(s, wanted[:, 2], atol=0.15)
        assert len(find_seeds(central_view(field.views))) == 2


def test_a_field_depends_on_seed_and_number_alone(fields: NeuronFields) -> None:
    one, again = fields.clean(4), fields.other(3).clean(4)
    np.testing.assert_array_equal(one.neurons, again.neurons)
    np.testing.assert_array_equal(one.views, again.views)
    assert not np.array_equal(fields.other(4).clean(4).neurons, one.neurons)
    many = fields.other(3, replace(SETTINGS, neurons=(20, 20)))
    assert len(many.clean(0).neurons) > 10
    for z, t, s, radius, _ in many.clean(0).neurons:
        assert -12 <= z <= 12 and 3 <= radius <= 4 and -5 < t < 20 and -5 < s < 20


def test_bodies_do_not_lie_in_one_another(fields: NeuronFields) -> None:
    neurons = fields.other(0, replace(SETTINGS, neurons=(30, 30))).clean(1).neurons
    place = np.stack([neurons[:, 0], neurons[:, 1] * 5, neurons[:, 2] * 5], 1)
    apart = np.linalg.norm(place[:, None] - place, axis=-1)
    touching = neurons[:, 3] + neurons[:, 3][:, None]
    np.fill_diagonal(apart, np.inf)
    assert (apart > touching).all()


@pytest.mark.parametrize(("electrons", "haze"), [(50.0, 0.05), (5000.0, 3.0)])
def test_the_camera_adds_what_it_is_told(fields: NeuronFields, electrons: float, haze: float) -> None:
    clean = fields.clean(2)
    seen = fields.recorded(clean, np.random.default_rng(0), electrons, haze)
    assert np.percentile(seen.views, 99.9) == pytest.approx(electrons, rel=0.35)
    other = fields.recorded(clean, np.random.default_rng(1), electrons, haze)
    assert not np.array_equal(seen.views, other.views)
    dark = np.median(seen.views) / electrons
    assert (dark > 0.15) == (haze > 1)


def test_a_field_without_light_stays_finite(fields: NeuronFields) -> None:
    empty = replace(fields.clean(0), views=np.zeros_like(fields.clean(0).views))
    assert np.isfinite(fields.recorded(empty, np.random.default_rng(0)).views).all()


def test_other_microscopes_are_refused() -> None:
    with pytest.raises(RequestError, match="no square lenslet array"):
        NeuronFields(load_microscope("wf-20x0.8"), 15)


def test_views_are_tensors_of_the_right_order(fields: NeuronFields) -> None:
    """A neuron above the native plane is seen by larger u at smaller s."""
    from napari_lfm.lightfield.epipolar import epipolar_windows

    field = fields.clean(0, np.array([[8.0, 7.0, 7.0, 3.5, 1.0]]))
    image = epipolar_windows(field.views, np.array([7.0]), np.array([7.0]), 3, "x")[0]
    centre = (image * np.arange(7)).sum(1) / image.sum(1)
    assert centre[-2] < centre[1] - 0.15
    assert torch.from_numpy(field.views).shape == (N, N, 15, 15)
