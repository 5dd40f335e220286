"""The vesicle study: the fit on shells known exactly, and a small case of it."""

from __future__ import annotations

import pytest

from napari_lfm.bench._shell import shell_figures
from napari_lfm.bench._vesicle import Spheroid, record_vesicle
from napari_lfm.bench.sphere import SUBJECTS, Run, reconstruct_all
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.scene import Grid, Scene, render
from napari_lfm.simulation.shapes import Ball


@pytest.mark.parametrize("stretch", [0.85, 1.0, 1.2])
def test_the_fit_finds_how_flat_a_shell_is(stretch: float) -> None:
    body = Spheroid(Ball((1.0, 0.35, -0.6), 13.6, 13.2), stretch)
    volume = render(Scene((body,)), Grid((15, 84, 84), (1.0, 0.55, 0.55), (-7.0, -23.0, -22.5)))
    found = shell_figures(volume)
    assert found["axial_scale"] == pytest.approx(1 / stretch, rel=0.02)
    assert found["radius_um"] == pytest.approx(13.4, rel=0.01)
    assert found["height_um"] == pytest.approx(1.0, abs=0.1)
    assert found["rms"] < 0.01
    if stretch != 1:
        assert found["rms_of_a_sphere"] > 1.1 * found["rms"]
    assert found["axial_scale_error"] < 0.02


def test_a_stretched_ball_keeps_its_light() -> None:
    ball = Ball((1.0, 0.0, 0.0), 4.2, 3.8, brightness=2.0)
    grid = Grid.centred((40, 40, 40), (0.5, 0.3, 0.3))
    light = {s: float(render(Scene((Spheroid(ball, s),)), grid).sum()) for s in (1.0, 0.8)}
    assert light[0.8] == pytest.approx(0.8 * light[1.0], rel=0.01)
    low, high = Spheroid(ball, 0.5).bounds()
    assert (low[0], high[0]) == pytest.approx((1 - 2.1, 1 + 2.1))
    assert Spheroid(ball, 0.5).turned(90.0).stretch == 0.5


def test_a_small_vesicle_from_recording_to_fit() -> None:
    coarse = load_microscope("mbl-60x1.2w")
    camera = coarse.camera.model_copy(update={"pixel_um": 100 / 9})
    coarse = coarse.model_copy(update={"camera": camera})
    out = record_vesicle(
        coarse, radius_um=5.0, reach_um=(-3.0, 3.0), lenslets=11, voxels_per_lenslet=3, pupil=()
    )
    inputs = {"image": out["raw"], "white": out["white"], "dark": out["dark"]}
    runs = {"as told": Run({"vignetting": "white"}), "other index": Run({"vignetting": "white"}, -0.06)}
    small = {"z_min_um": -3.0, "z_max_um": 3.0, "iterations": 8}
    found = reconstruct_all(inputs, coarse, runs, lambda _: None, small)
    truth = shell_figures(out["truth"])
    assert truth["axial_scale"] == pytest.approx(1, abs=0.05)
    as_told = found["as told"]
    assert as_told["radius_um"] == pytest.approx(5.0, rel=0.06)
    assert as_told["axial_scale"] == pytest.approx(1, abs=0.25)
    assert as_told["relative_residual"] < 0.4
    # a lower index refracts the rays less steeply into depth: the shell comes out flatter
    assert found["other index"]["axial_scale"] > as_told["axial_scale"] + 0.01


def test_every_subject_is_reconstructed_as_the_real_one_is() -> None:
    assert "vignetting pupil" in SUBJECTS["sphere"].runs
    for subject in SUBJECTS.values():
        assert all("iterations" not in r.parameters for n, r in subject.runs.items() if n != "50 iterations")
