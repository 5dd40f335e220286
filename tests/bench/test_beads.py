"""The bead study: its ruler on known spots, its scores on known errors, and a small case of it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.bench._bead_frames import bead_diameter_um, record_beads
from napari_lfm.bench._peaks import brightest_peak, gaussian_of
from napari_lfm.bench.beads import CASES, Case, bead_places, by_depth, score_case, scores
from napari_lfm.core.labelled import labelled
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.presets import load_microscope

FWHM = 2.3548


@pytest.fixture(scope="module")
def coarse() -> Microscope:
    """A coarse light-field microscope whose recordings take a second."""
    return Microscope(
        name="coarse",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
    )


@pytest.mark.parametrize(("centre", "sigma"), [(3.3, 0.8), (4.0, 1.7), (0.2, 1.2), (7.8, 1.0)])
def test_a_gaussian_is_measured_even_at_the_end_of_a_profile(centre: float, sigma: float) -> None:
    profile = 7 * np.exp(-0.5 * ((np.arange(9) - centre) / sigma) ** 2) + 0.7
    found, fwhm = gaussian_of(profile)
    assert found == pytest.approx(centre, abs=0.05)
    assert fwhm == pytest.approx(sigma * FWHM, rel=0.1)


def test_a_single_lit_voxel_has_a_place_and_a_finite_width() -> None:
    profile = np.zeros(9)
    profile[4] = 1.0
    found, fwhm = gaussian_of(profile)
    assert found == pytest.approx(4.0, abs=0.05)
    assert 0.5 < fwhm < 1.2


def test_three_planes_are_enough() -> None:
    found, fwhm = gaussian_of([0.4, 1.0, 0.5])
    assert 0.8 < found < 1.3
    assert fwhm > 0.7


def test_the_peak_is_in_the_world_of_the_volume() -> None:
    z, y, x = np.mgrid[:11, :15, :17].astype(float)
    spot = np.exp(-0.5 * (((z - 6.2) / 1.3) ** 2 + ((y - 4.4) / 0.9) ** 2 + ((x - 9.7) / 1.1) ** 2))
    volume = labelled(spot, "zyx", {"z": 2.0, "y": 0.5, "x": 0.5}, {"z": -10.0, "y": 3.0, "x": 1.0})
    peak = brightest_peak(volume)
    assert peak.place_um == pytest.approx((-10 + 12.4, 3 + 2.2, 1 + 4.85), abs=0.03)
    assert peak.fwhm_um == pytest.approx((2.6 * FWHM, 0.45 * FWHM, 0.55 * FWHM), rel=0.03)


def test_scores_count_voxels_and_steps_and_keep_the_native_plane_apart() -> None:
    rows = [[z, -0.1 * z, 0.3, -0.4, 1, 1, 1] for z in (-6.0, -4.0, 4.0, 6.0)]
    rows += [[0.5, 3.0, 2.0, 0.0, 1, 1, 1]]
    found = scores(np.array(rows), voxel_um=2.0, step_um=0.5, depth_of_field_um=2.0)
    assert found["median_lateral_voxels"] == pytest.approx(0.25)
    assert found["median_axial_steps"] == pytest.approx(1.0)
    assert found["largest_axial_steps"] == pytest.approx(1.2)
    assert found["axial_scale"] == pytest.approx(1 / 0.9)
    assert found["median_axial_steps_near"] == pytest.approx(6.0)
    assert (found["beads_count"], found["beads_near_count"]) == (4, 1)
    assert "median_axial_steps_near" not in scores(np.array(rows[:4]), 2.0, 0.5, 2.0)


def test_depths_are_gathered_at_the_nearest_plane() -> None:
    table = np.array([[0.9, 0.1, 3, 4, 2, 1, 3], [1.2, 0.3, 0, 0, 4, 1, 3], [5.1, 9, 0, 0, 1, 1, 1]])
    found = by_depth(table, np.array([0.0, 1.0, 5.0]))
    assert [row["z_um"] for row in found] == [1.0, 5.0]
    assert found[0]["axial_error_um"] == pytest.approx(0.2)
    assert found[0]["lateral_error_um"] == pytest.approx(2.5)
    assert found[0]["fwhm_axial_um"] == pytest.approx(3.0)


@pytest.mark.parametrize("case", CASES, ids=[c.microscope for c in CASES])
def test_every_plane_has_its_beads_off_the_grid(case: Case) -> None:
    microscope = load_microscope(case.microscope)
    places = bead_places(case, microscope, seed=0)
    rows = by_depth(np.pad(places, ((0, 0), (0, 4))), np.unique(np.round(places[:, 0])))
    assert len(rows) > 10
    assert (np.abs(places[:, 0] - np.round(places[:, 0])) > 1e-6).mean() > 0.9
    assert np.ptp(places[:, 1]) > (microscope.lenslet_um or 0)
    assert bead_diameter_um(microscope) < (microscope.lenslet_um or 0) / 4


def test_beads_come_back_at_their_place(coarse: Microscope) -> None:
    where = np.array([[-31.0, 1.7, -3.1], [28.0, -2.2, 0.4]])
    frames = record_beads(coarse, where, lenslets=17, seed=1)
    assert frames.movie.dims == ("t", "y", "x")
    world = frames.truth[["y_um", "x_um"]].to_numpy() - where[:, 1:]
    np.testing.assert_allclose(world, world[:1].repeat(2, 0), atol=1e-9)
    case = Case(
        "coarse",
        beads_per_plane=1,
        parameters={"z_min_um": -40.0, "z_max_um": 40.0, "z_step_um": 10.0, "iterations": 8},
        variants={"rougher": {"anti_aliasing": False}},
    )
    found = score_case(case, coarse, frames, say=lambda _: None)
    assert found["median_lateral_voxels"] < 0.5
    assert found["median_axial_steps"] < 1
    assert found["axial_scale"] == pytest.approx(1, abs=0.25)
    assert set(found["variants"]) == {"default", "rougher"}
    assert len(found["beads"]) == 2
    assert [row["z_um"] for row in found["by_depth"]] == [-30.0, 30.0]
