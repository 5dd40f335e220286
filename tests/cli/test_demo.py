"""``napari-lfm demo`` on a tiny recording; its pictures and its points."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_lfm.cli import _window, demo
from napari_lfm.cli._beads import find_spots
from napari_lfm.cli._pictures import Panel, sheet, shown, signed
from napari_lfm.core.labelled import labelled
from napari_lfm.io.points import read_points
from napari_lfm.io.provenance import read_provenance
from napari_lfm.io.read import read_image
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.simulation import sample
from napari_lfm.simulation.scene import Grid, Scene, render
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


@pytest.fixture
def tiny_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    microscope = Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
    )
    beads = ((-4.0, -12.0, 6.0), (4.0, 10.0, -12.0), (6.0, 12.0, 12.0))
    scene = Scene(
        (Ball((0.0, 0.0, 0.0), 7.0, 5.0), *(Ball(p, 1.0, brightness=8.0) for p in beads)),
        ("vesicles", "beads"),
        beads,
    )
    monkeypatch.setattr(sample, "sample_microscope", lambda: microscope)
    monkeypatch.setattr(sample, "sample_scene", lambda: scene)
    monkeypatch.setattr(sample, "LENSLETS", (13, 13))
    monkeypatch.setattr(sample, "Z_UM", (-8.0, 8.0, 4.0))
    monkeypatch.setattr(sample, "PITCH_PX", 9.15)
    monkeypatch.setattr(sample, "OFFSET_PX", (0.4, -0.6))
    monkeypatch.setattr(demo, "ITERATIONS", 3)


def test_the_demo_leaves_files_pictures_and_scores(
    shell: Shell, tmp_path: Path, tiny_sample: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_window, "why_no_window", lambda: "this is a test")
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/volume.ome.tif").write_text("an older file")
    done = shell("demo", "--out", "out", "--no-gui", "--json")
    assert done.status == 0, done.err
    report = done.json
    for path in report["files"].values():
        assert Path(path).is_file(), path
        assert not Path(path).is_absolute()
    for name in ("lightfield", "lattice", "volume", "residual"):
        picture = np.asarray(Image.open(report["files"][f"{name}_picture"]))
        assert picture.shape[0] > 100
        assert picture.std() > 10
    assert {"psnr_db", "ssim", "nrmse", "pearson", "constant"} <= set(report["scores"])
    assert report["calibration"]["centre_error_px"] < 0.5
    assert report["beads"]["truth"] == 3
    assert 0 < report["relative_residual"] < 1
    volume = read_image(tmp_path / "out" / "volume.ome.tif")
    assert volume.dims == ("z", "y", "x")
    record = read_provenance(tmp_path / "out" / "volume.ome.tif")
    assert record["sources"]["image"] == str(Path("out/measurement/raw.ome.tif"))
    assert read_points(tmp_path / "out" / "beads.csv").columns[0] == "z_um"
    assert "this is a test" in done.err

    # what the demo made can be made again from its own record
    done = shell("run", "--from", "out/volume.ome.tif", "-o", "again.ome.tif")
    assert done.status == 0, done.err
    again = read_image(tmp_path / "again.ome.tif")
    np.testing.assert_allclose(again.values, volume.values, atol=1e-3 * float(volume.max()))


def test_the_sample_is_kept_and_read_back(tiny_sample: None) -> None:
    from napari_lfm.optics.cache import cache_dir

    steps: list[int] = []
    first = sample.sample_recording(on_progress=lambda k, n, text: steps.append(k))
    assert steps
    steps.clear()
    second = sample.sample_recording(on_progress=lambda k, n, text: steps.append(k))
    assert not steps
    for name in ("raw", "white", "dark"):
        np.testing.assert_array_equal(first[name].values, second[name].values)  # type: ignore[literal-required]
    np.testing.assert_allclose(first["truth"].values, second["truth"].values)
    np.testing.assert_allclose(first["points"], second["points"])
    assert first["lattice"] == second["lattice"]
    # a damaged copy is made anew
    kept = next((cache_dir() / "samples").iterdir())
    (kept / "raw.ome.tif").write_bytes(b"broken")
    sample.sample_recording(on_progress=lambda k, n, text: steps.append(k))
    assert steps


def test_sample_layers_are_ready_for_the_panels(tiny_sample: None) -> None:
    from napari_lfm._sample_data import vesicle_and_beads

    layers = vesicle_and_beads()
    roles = [arguments["metadata"]["napari_lfm"]["role"] for _, arguments, _ in layers]
    assert roles[-1] == "lightfield"  # on top, and the one to see
    assert {"white", "truth", "points"} <= set(roles)
    for _, arguments, _ in layers:
        assert set(arguments["units"]) == {"um"}
    raw = layers[-1][1]
    assert raw["scale"] == pytest.approx((0.55, 0.55))
    assert raw["metadata"]["napari_lfm"]["microscope"]["name"] == "tiny"


def test_spots_are_found_and_membranes_are_not() -> None:
    beads = ((2.0, 8.1, 7.9), (-3.0, -9.2, 3.3), (0.0, 9.0, -8.0))
    shell_and_beads = Scene((Ball((0.0, 0.0, 0.0), 5.0, 4.0), *(Ball(p, 0.6, brightness=3.0) for p in beads)))
    volume = render(shell_and_beads, Grid.centred((15, 48, 48), (1, 0.5, 0.5)))
    found = find_spots(volume)
    assert len(found) == 3
    places = found[["z_um", "y_um", "x_um"]].to_numpy()
    for bead in beads:
        assert np.abs(places - bead).max(1).min() < 0.4
    assert found["confidence"].between(0, 1).all()
    assert found["confidence"].is_monotonic_decreasing
    assert len(find_spots(volume * 0)) == 0


def test_a_bead_on_both_sides_of_the_native_plane_is_one() -> None:
    two = Scene((Ball((1.0, 0.0, 0.0), 0.6), Ball((-1.0, 0.0, 0.1), 0.6)))
    found = find_spots(render(two, Grid.centred((11, 31, 31), (1, 0.5, 0.5))))
    assert len(found) == 1
    assert abs(found["z_um"][0]) < 0.3


def test_spots_of_a_rotated_volume_are_in_world_coordinates() -> None:
    volume = render(Scene((Ball((0.0, 0.0, 5.0), 0.6),)), Grid.centred((7, 41, 41), (1, 0.5, 0.5)))
    turn = np.diag([1.0, 0.5, 0.5, 1.0])
    turn[1:3, 1:3] = 0.5 * np.array([[0, 1], [-1, 0]])
    turn[:3, 3] = (10, 20, 30)
    turned = labelled(volume.values, "zyx", {"z": 1, "y": 0.5, "x": 0.5}, attrs={"affine_um": turn.tolist()})
    found = find_spots(turned)
    index = np.array([3.0, 20.0, 30.0])
    np.testing.assert_allclose(found.iloc[0, :3], turn[:3, :3] @ index + turn[:3, 3], atol=0.1)


def test_panels_are_drawn_to_scale() -> None:
    image = np.zeros((10, 20))
    image[2:4, 5:7] = 1
    square = sheet([[Panel(image, "a", (1.0, 1.0), 5)]], "title", 10)
    tall = sheet([[Panel(image, "a", (2.0, 1.0), 5)]], "title", 10)
    assert tall.height - square.height == 100
    assert tall.width == square.width
    assert shown([0.0, 5.0, 10.0], 0, 10).tolist() == [0, 0.5, 1]
    colours = signed([-1.0, 0.0, 1.0], 1.0)
    assert colours[0, 2] > colours[0, 0]  # blue
    assert colours[2, 0] > colours[2, 2]  # red
    assert colours[1].min() > 0.9  # white


def test_where_a_window_can_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_window.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI", "NAPARI_LFM_DEMO_BLOCK"):
        monkeypatch.delenv(name, raising=False)
    assert _window.why_no_window() == "there is no screen"
    assert _window.show_window(tmp_path, stay=True) is None
    monkeypatch.setenv("DISPLAY", ":0")
    assert _window.why_no_window() == ""
    monkeypatch.setenv("XAUTHORITY", "/tmp/xvfb-run.x1/Xauthority")
    assert not _window.somebody_looks()
    monkeypatch.setenv("XAUTHORITY", "/home/me/.Xauthority")
    assert _window.somebody_looks()
    monkeypatch.setenv("CI", "true")
    assert not _window.somebody_looks()
    monkeypatch.setenv("NAPARI_LFM_DEMO_BLOCK", "1")
    assert _window.somebody_looks()


def test_a_window_that_does_not_open_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_window, "why_no_window", lambda: "")
    monkeypatch.setattr(_window, "somebody_looks", lambda: False)
    # the folder is empty, so the process that should show it ends with an error
    monkeypatch.setattr(_window.sys, "executable", sys.executable)
    monkeypatch.setenv("DISPLAY", ":987654")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert _window.show_window(tmp_path, stay=True) is None
    assert "No picture of the napari window" in capsys.readouterr().err
