"""Does a model fit a microscope: each figure alone, at its tolerance, and how it is put in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.networks.fit import check_card
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.presets import load_microscope, preset_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.networks.card import ModelCard

    Make = Callable[..., ModelCard]


def changed(microscope: Microscope, **changes: Any) -> Microscope:
    """The microscope with other values; parts are given as ``objective={"na": 1.0}``."""
    values = microscope.model_dump()
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return Microscope.model_validate(values)


@pytest.fixture
def scope(make_card: Make) -> Microscope:
    optics = make_card().optics
    assert optics is not None
    return optics


def test_the_same_optics_match(make_card: Make, scope: Microscope) -> None:
    fit = check_card(make_card(), scope, 15)
    assert (fit.verdict, fit.reasons, fit.z_scale) == ("matches", (), 1.0)
    # neither the camera's noise nor the name matters; nor the pixel, as long as N is the same
    other = changed(scope, name="mine", camera={"gain_e_per_count": 2.0, "pixel_um": 6.6})
    assert check_card(make_card(), other).verdict == "matches"


def test_other_pixels_per_lenslet_are_resampled(make_card: Make, scope: Microscope) -> None:
    fit = check_card(make_card(), scope, 21)
    assert fit.verdict == "resample"
    assert fit.reasons == ("The model was trained with 15 pixels per lenslet, and this recording has 21.",)
    assert fit.z_scale == 1.0
    fine = changed(scope, camera={"pixel_um": 3.3})  # 30.3 pixels: its own N counts
    assert check_card(make_card(), fine).verdict == "resample"
    assert check_card(make_card(), scope, 11).verdict == "resample"
    coarse = check_card(make_card(), scope, 9)
    assert coarse.verdict == "refused"
    assert "needs 15 pixels per lenslet, and 9 were recorded" in coarse.reasons[0]


def test_another_aperture_is_refused_in_words(make_card: Make, scope: Microscope) -> None:
    fit = check_card(make_card(), changed(scope, objective={"na": 0.9}), 15)
    assert fit.verdict == "refused"
    assert fit.reasons == ("The model was trained for NA 1.2, and this microscope has NA 0.9.",)


def test_the_rim_of_the_pupil_may_move_half_a_pixel(make_card: Make, scope: Microscope) -> None:
    # one lenslet spans NA 60 * 100 / 2500 = 2.4 on 15 pixels: half a pixel is NA 0.08
    assert check_card(make_card(), changed(scope, objective={"na": 1.2 - 0.079}), 15).verdict == "matches"
    assert check_card(make_card(), changed(scope, objective={"na": 1.2 - 0.081}), 15).verdict == "refused"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lenslets": {"lattice": "hexagonal"}}, "lattice is square, and this microscope has hexagonal."),
        ({"lenslets": {"aperture": "circular"}}, "shape is square, and this microscope has circular."),
        ({"lenslets": {"focal_length_um": 2000}}, "f/25 behind 60x, and this microscope has f/20 behind 60x"),
        ({"lenslets": {"sensor_distance_um": 2000}}, "the sensor at 1 focal lengths .* here it is at 0.8"),
        ({"wavelength_um": 0.45}, "a wavelength of 593 nm, and this microscope has 450 nm"),
        ({"lenslets": {"pitch_um": 125, "focal_length_um": 3125}}, "lenslets of 1.667 um in the sample"),
    ],
)
def test_what_no_resampling_mends(
    make_card: Make, scope: Microscope, changes: dict[str, Any], says: str
) -> None:
    import re

    fit = check_card(make_card(), changed(scope, **changes), 15)
    assert fit.verdict == "refused"
    assert any(re.search(says, reason) for reason in fit.reasons), fit.reasons
    assert all(reason[0].isupper() and reason.endswith(".") for reason in fit.reasons)


def test_every_reason_is_given(make_card: Make, scope: Microscope) -> None:
    fit = check_card(make_card(), load_microscope("stanford-20x0.5w"))
    assert fit.verdict == "refused"
    assert len(fit.reasons) >= 2
    assert "NA 1.2" in " ".join(fit.reasons)


def test_small_differences_of_colour_are_not_seen(make_card: Make, scope: Microscope) -> None:
    assert check_card(make_card(), changed(scope, wavelength_um=0.58), 15).verdict == "matches"


def test_another_pitch_in_the_object_is_another_depth(make_card: Make, scope: Microscope) -> None:
    # the same f-number, so that the angles stay; one lenslet is k times as wide in the sample
    def wider(k: float) -> Microscope:
        return changed(scope, lenslets={"pitch_um": 100 * k, "focal_length_um": 2500 * k})

    assert check_card(make_card(), wider(1.03), 15).verdict == "matches"
    fit = check_card(make_card(), wider(1.08), 15)
    assert fit.verdict == "resample"
    assert fit.z_scale == pytest.approx(1.08, abs=1e-6)
    assert fit.reasons == (
        "The model was trained for lenslets of 1.667 um in the sample, and this microscope has 1.8 um: its"
        " planes lie at 1.080 times the depths of its card.",
    )
    assert check_card(make_card(), wider(1.12), 15).verdict == "refused"
    assert check_card(make_card(), wider(1 / 1.12), 15).verdict == "refused"


def test_half_a_lenslet_at_the_trained_depth_decides(make_card: Make, scope: Microscope) -> None:
    # at z the rim is z tan(asin(NA / n)) / p lenslets aside: a pitch off by 1 / (2 that) is the limit
    for z in (7.0, 14.0):
        rim = z * math.tan(math.asin(1.2 / 1.35)) / (100 / 60)
        card = make_card(z_um=[-z, 0.0])
        for part, verdict in ((0.9, "matches"), (1.1, "resample")):
            k = 1 / (1 - part * 0.5 / rim)
            seen = changed(scope, lenslets={"pitch_um": 100 * k, "focal_length_um": 2500 * k})
            assert check_card(card, seen, 15).verdict == verdict, (z, part)


def test_a_denser_sample_is_another_depth(make_card: Make, scope: Microscope) -> None:
    card = make_card(z_um=[-7.0, 7.0])
    fit = check_card(card, changed(scope, sample_index=1.375), 15)
    assert fit.verdict == "resample"
    # paraxial rays say 1.375 / 1.35; steep ones weigh more
    assert 1.375 / 1.35 < fit.z_scale < 1.10
    assert "a sample index of 1.35, and this microscope has 1.375" in fit.reasons[0]
    assert check_card(card, changed(scope, sample_index=1.35 + 0.01), 15).verdict == "matches"
    assert check_card(card, changed(scope, sample_index=1.52), 15).verdict == "refused"


def test_the_scaled_depth_shows_the_same_picture(make_card: Make, scope: Microscope) -> None:
    # the ray through each pupil point ends in the same lenslet, from the scaled depth
    seen = changed(scope, lenslets={"pitch_um": 107, "focal_length_um": 2675}, sample_index=1.36)
    fit = check_card(make_card(), seen, 15)
    assert fit.verdict == "resample"
    for na in (0.3, 0.8, 1.2):
        there = 7 * math.tan(math.asin(na / 1.35)) / scope.lenslet_um
        here = 7 * fit.z_scale * math.tan(math.asin(na / 1.36)) / seen.lenslet_um
        assert abs(here - there) < 0.5


def test_a_card_without_optics_says_so(make_card: Make, scope: Microscope) -> None:
    card = make_card(microscope=None)
    fit = check_card(card, scope, 15)
    assert fit.verdict == "matches"
    assert "nothing could be checked" in fit.reasons[0]
    assert check_card(make_card(microscope=None, n_pixels=None), scope, 15).verdict == "matches"
    fit = check_card(card, scope, 21)
    assert fit.verdict == "refused"
    assert fit.reasons[0] == "The model takes 15 pixels per lenslet, and this recording has 21."


def test_lenslets_and_wide_field_are_different_things(make_card: Make, scope: Microscope) -> None:
    wide, other = load_microscope("wf-60x1.4o"), load_microscope("wf-20x0.8")
    fit = check_card(make_card(), wide)
    assert (fit.verdict, "with lenslets, and this one is without" in fit.reasons[0]) == ("refused", True)
    card = make_card(microscope=wide.model_dump(mode="json"), n_pixels=None)
    assert check_card(card, scope).verdict == "refused"
    assert check_card(card, wide).verdict == "matches"
    assert check_card(card, changed(wide, camera={"pixel_um": 7.5})).verdict == "resample"
    assert "NA 1.4" in check_card(card, other).reasons[0]


@pytest.mark.parametrize("name", preset_names(lightfield_only=True))
def test_a_preset_fits_itself_alone(make_card: Make, name: str) -> None:
    own = load_microscope(name)
    card = make_card(microscope=own.model_dump(mode="json"), n_pixels=own.n_pixels, z_um=[-20.0, 20.0])
    fits = {n: check_card(card, load_microscope(n)).verdict for n in preset_names(lightfield_only=True)}
    assert fits.pop(name) == "matches"
    assert set(fits.values()) == {"refused"}
