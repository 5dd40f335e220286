"""The joint fit: balls of known place come back, hidden ones are found, and its responses are the optics'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_lfm.lightfield.purify import smooth_background, split_background
from napari_lfm.lightfield.slopes import ray_offsets_per_um, slope_at_depth
from napari_lfm.methods.base import get_method, make_parameters
from napari_lfm.methods.localization.joint import JointLocalizer, JointSigma
from napari_lfm.methods.localization.points import Found, Localizer, PointOptions
from napari_lfm.methods.localization.refit import Body, JointFit
from napari_lfm.methods.localization.setup import body_um
from napari_lfm.methods.localization.templates import Templates, are_ready, make_templates, spline_weights
from napari_lfm.methods.localization.trial import Trial, fit_joint_sigma
from napari_lfm.networks.catalogue import list_models
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.simulation.neuron_fields import NeuronFields, NeuronSettings
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.simulation.shapes import Ball

N, RANGE_UM, BODY_UM = 9, (-13.0, 13.0), 9.0
TINY = Microscope(
    name="tiny",
    objective=Objective(magnification=20, na=0.6),
    lenslets=LensletArray(pitch_um=100, focal_length_um=1600),
    camera=Camera(pixel_um=100 / 9),
    wavelength_um=0.55,
    sample_index=1.0,
)
SETTINGS = NeuronSettings(
    z_um=RANGE_UM, z_beyond_um=0, z_step_um=2, cells=17, diameter_um=(8, 10), optics=(OpticsError(),)
)
# z, t, s, radius, brightness: two on neighbouring rays, one in the native plane
TRUTH = np.array([[10.0, 5.3, 10.7, 4.5, 1.0], [-11.0, 6.1, 11.9, 4.2, 0.5], [0.0, 11.2, 5.4, 4.8, 0.8]])


class Balls(NeuronFields):
    """Even balls alone: what the fit takes bodies for."""

    def _body(self, neuron: np.ndarray, rng: np.random.Generator) -> Ball:
        z, t, s, radius, light = map(float, neuron)
        return Ball((z, (t - 8) * 5.0, (s - 8) * 5.0), radius, brightness=light / radius**3)


class Flat:
    """Proposes nothing of its own."""

    id = "flat"
    half = 6
    z_um = np.arange(-13.0, 14.0)

    def evidence(self, images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), len(self.z_um)))

    def curve(self, evidence: np.ndarray) -> np.ndarray:
        return np.zeros_like(evidence)


def end_of(steps: object) -> Templates:
    while True:
        try:
            next(steps)  # type: ignore[call-overload]
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def templates() -> Templates:
    return end_of(make_templates(TINY, N, RANGE_UM, BODY_UM))


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    fields = Balls(TINY, N, SETTINGS, seed=2)
    clean = fields.clean(0, TRUTH).views
    return np.asarray(clean / clean.max() * 1000, np.float32)


def guesses() -> list[Body]:
    return [Body(t + 0.3, s - 0.2, z + 2.5, BODY_UM / 2) for z, t, s, _, _ in TRUTH]


def test_splines_interpolate_and_their_slopes_are_right() -> None:
    value, slope = spline_weights(np.array([3.3]), 8)
    assert value.sum() == pytest.approx(1) and slope.sum() == pytest.approx(0, abs=1e-6)
    assert (value @ np.arange(8.0))[0] == pytest.approx(3.3, abs=1e-5)
    step = 1e-2
    up, down = (spline_weights(np.array([3.3 + k * step]), 8)[0] for k in (1, -1))
    np.testing.assert_allclose((up - down) / (2 * step), slope, atol=1e-3)


def test_rays_agree_with_the_fitted_slope() -> None:
    rays = ray_offsets_per_um(TINY, N)
    assert rays.shape == (2, N, N)
    middle = N // 2
    assert not rays[:, middle, middle].any()
    assert rays[1, middle, middle + 1] == pytest.approx(slope_at_depth(1.0, TINY, 1, N))
    np.testing.assert_allclose(rays[0], rays[1].T)
    assert np.isnan(rays[:, 0, 0]).all()  # beyond the pupil


def test_responses_are_those_of_the_projector(templates: Templates, views: np.ndarray) -> None:
    exact = [Body(t, s, z, r) for z, t, s, r, _ in TRUTH]
    fit = JointFit(views, templates, (-15, 15), exact)
    for _ in fit.steps(6):
        pass
    v, u = templates.within(0.75).view
    left = fit.remaining()[v, u]
    assert np.sqrt((left**2).mean()) < 0.03 * np.sqrt((views[v, u] ** 2).mean())
    assert templates.spline.shape[2] == np.isfinite(ray_offsets_per_um(TINY, N)[0]).sum()


def test_places_come_back_from_wrong_guesses(templates: Templates, views: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noisy = views + rng.normal(0, 20, views.shape).astype(np.float32)
    fit = JointFit(noisy, templates, (-15, 15), guesses())
    sweeps = list(fit.steps(8))
    assert sweeps == list(range(1, 9))
    for body, (z, t, s, _, _) in zip(fit.bodies, TRUTH, strict=True):
        assert abs(body.z_um - z) < 0.4
        assert abs(body.t - t) < 0.05 and abs(body.s - s) < 0.05
        assert body.significance > 20
        assert 0 < body.sigma_z_um < 0.4
    light = np.array([b.light for b in fit.bodies])
    np.testing.assert_allclose(light / light[0], TRUTH[:, 4] / TRUTH[0, 4], rtol=0.1)


def test_views_that_are_darker_than_told_do_not_move_depths(templates: Templates, views: np.ndarray) -> None:
    at = (np.arange(N) - N // 2) / (N / 2)
    shading = 1 - 0.4 * (at[:, None] ** 2 + at**2) + 0.15 * at
    fit = JointFit(views * shading[:, :, None, None].astype(np.float32), templates, (-15, 15), guesses())
    for _ in fit.steps(8):
        pass
    np.testing.assert_allclose([b.z_um for b in fit.bodies], TRUTH[:, 0], atol=0.4)


def test_views_that_were_not_recorded_say_nothing(templates: Templates, views: np.ndarray) -> None:
    part = np.zeros_like(views)
    part[2:7, 2:7] = views[2:7, 2:7]
    fit = JointFit(part, templates, (-15, 15), guesses())
    for _ in fit.steps(8):
        pass
    np.testing.assert_allclose([b.z_um for b in fit.bodies], TRUTH[:, 0], atol=0.4)


def test_significance_does_not_depend_on_the_unit_of_light(templates: Templates, views: np.ndarray) -> None:
    noisy = views + np.random.default_rng(0).normal(0, 20, views.shape).astype(np.float32)
    found = []
    for size in (1e-3, 1.0, 700.0):
        fit = JointFit(noisy * np.float32(size), templates, (-15, 15), guesses())
        for _ in fit.steps(5):
            pass
        found.append([(b.significance, b.sigma_z_um) for b in fit.bodies])
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)
    np.testing.assert_allclose(found[2], found[1], rtol=0.02)


def test_a_background_around_zero_is_no_reason_to_divide_by_it(views: np.ndarray) -> None:
    for offset in (-0.2, 0.0):
        background, _ = split_background(views + np.float32(offset))
        smooth = smooth_background(background - background.mean(), BODY_UM / 5)
        assert np.abs(smooth).max() <= np.abs(background).max() + 1


def test_a_probe_leaves_the_others_as_they_are(templates: Templates, views: np.ndarray) -> None:
    first, second, third = guesses()
    fit = JointFit(views, templates, (-15, 15), [first, third])
    for _ in fit.steps(6):
        pass
    before, rest = list(fit.bodies), fit.remaining()
    found = fit.probe(second)
    assert abs(found.z_um - TRUTH[1, 0]) < 1.0
    again = fit.probe(first)  # one that is there already
    assert abs(again.z_um - fit.bodies[0].z_um) < 0.3
    assert fit.bodies == before
    np.testing.assert_allclose(fit.remaining(), rest, atol=1e-2)


def test_a_body_in_the_dark_has_no_light(templates: Templates) -> None:
    fit = JointFit(
        np.zeros((N, N, 17, 17), np.float32), templates, (-15, 15), [Body(8, 8, 0, 4.5), Body(-9, 40, 5, 4.5)]
    )
    for _ in fit.steps(2):
        pass
    assert [b.light for b in fit.bodies] == [0, 0]
    assert not fit.remaining().any()


def test_a_source_in_the_native_plane_is_no_background(views: np.ndarray) -> None:
    background, foreground = split_background(views)
    smooth = smooth_background(background, BODY_UM / 5)
    middle = (slice(None), slice(None), 11, 5)
    signal = (views - smooth)[middle].sum()
    assert signal > 0.9 * views[middle].sum()
    assert signal >= foreground[middle].sum()


def test_no_proposals_are_no_points(templates: Templates, views: np.ndarray) -> None:
    joint = JointLocalizer(Localizer(Flat(), slope_at_depth(1.0, TINY, None, N), 5.0), templates)
    assert len(joint.find(views)) == 0


class OneByOne(Flat):
    """Sees the brightest neuron only: the second is hidden until that one is taken off."""

    def __init__(self) -> None:
        self.depths = list(TRUTH[:, 0])

    def curve(self, evidence: np.ndarray) -> np.ndarray:
        depth = self.depths[0]
        return np.exp(-((self.z_um - depth) ** 2) / 4) * np.ones((len(evidence), 1))


def test_what_others_hid_is_found_in_what_is_left(
    templates: Templates, views: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = OneByOne()
    options = PointOptions(confidence=0.02, diameter_um=BODY_UM, merge_um=5.0)
    localizer = Localizer(finder, slope_at_depth(1.0, TINY, None, N), 5.0, options)
    joint = JointLocalizer(localizer, templates)
    proposals = iter(TRUTH)

    def at(self: Localizer, foreground: np.ndarray, seeds: object) -> Found:
        z, t, s, _, _ = next(proposals)
        one = np.ones(1)
        return Found(z * one, t * one, s * one, one, one, one, one, np.zeros((1, 27)), np.zeros(1, bool))

    monkeypatch.setattr(Localizer, "at", at)
    found = joint.find(views)
    assert len(found) == 3
    for z, t, s, _, _ in TRUTH:
        k = int(np.abs(found.z_um - z).argmin())
        assert abs(found.z_um[k] - z) < 0.5 and abs(found.t[k] - t) < 0.1 and abs(found.s[k] - s) < 0.1
    assert (np.diff(found.confidence) <= 0).all() and found.confidence.max() < 1


def test_sigmas_hold_68_percent_whatever_they_come_from() -> None:
    rng = np.random.default_rng(1)
    noise, z = rng.uniform(0.02, 0.5, 4000), rng.uniform(-30, 30, 4000)
    true = np.sqrt(0.1**2 + (2 * noise) ** 2 + (0.01 * z) ** 2)
    error = np.zeros((4000, 3))
    error[:, 0] = rng.normal(size=4000) * true
    trial = Trial(error, true, noise, noise, np.ones(4000, bool), z, 4000, 4000, 4000, 1.0)
    sigma = fit_joint_sigma(trial)
    for part in (np.abs(z) > 20, noise < 0.1, noise > 0.4):
        inside = np.abs(error[part, 0]) <= sigma.of(noise, z)[part]
        assert inside.mean() == pytest.approx(0.68, abs=0.06)
    few = replace(trial, error_um=error[:3], width_um=noise[:3], z_um=z[:3])
    assert fit_joint_sigma(few) == JointSigma()


def test_bundled_models_need_no_waiting() -> None:
    for entry in list_models():
        if entry.card.method == "localize" and entry.source == "bundled":
            microscope, bins = Microscope.model_validate(entry.card.microscope), entry.card.z_um
            body = body_um(make_parameters(get_method("localize"), {}), entry)  # type: ignore[arg-type]
            assert are_ready(microscope, entry.card.n_pixels, (min(bins), max(bins)), body)
            assert not are_ready(microscope, entry.card.n_pixels, (min(bins), max(bins)), body + 1)
