"""Simulate, calibrate, run, run again, evaluate: the real method, from a shell, on a tiny microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_lfm.io.provenance import read_provenance
from napari_lfm.io.read import read_image
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.presets import save_microscope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

PLANES = ("--set", "z_min_um=-8", "--set", "z_max_um=8", "--set", "z_step_um=4")


@pytest.fixture(scope="module")
def optics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    microscope = Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
    )
    return save_microscope(microscope, tmp_path_factory.mktemp("optics") / "tiny.yaml")


@pytest.fixture(scope="module")
def recording(optics: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from napari_lfm.cli import app

    folder = tmp_path_factory.mktemp("recording")
    words = ["simulate", "lightfield", "-o", str(folder), "--microscope", str(optics), "--lenslets", "13,15"]
    words += ["--z-min-um", "-8", "--z-max-um", "8", "--z-step-um", "4", "--pitch-px", "9.15", "--seed", "3"]
    words += ["--background", "0.2", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    return folder


def test_a_simulated_recording_is_complete(recording: Path) -> None:
    names = {p.name for p in recording.iterdir()}
    assert {"raw.ome.tif", "white.ome.tif", "dark.ome.tif", "truth.ome.tif", "points.csv"} <= names
    assert {"grid.json", "microscope.yaml"} <= names
    truth = read_image(recording / "truth.ome.tif")
    assert truth.sizes["z"] == 5
    assert float(truth.z[0]) == -8


def test_calibrate(shell: Shell, recording: Path, optics: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.json"
    words = ["calibrate", recording / "raw.ome.tif", "--microscope", optics, "-o", out, "--json"]
    for more in ([], ["--white", recording / "white.ome.tif", "--dark", recording / "dark.ome.tif"]):
        done = shell(*words, *more)
        assert done.status == 0, done.err
        found = done.json
        assert found["pitch_px"] == pytest.approx([9.15, 9.15], abs=0.03)
        assert found["rotation_deg"] == pytest.approx(0.3, abs=0.15)
        assert found["lenslets"] == [13, 15]
        assert found["lattice"] == "square"
        assert 0 <= found["confidence"] <= 1
        assert found["residual_px"] < 0.3
        assert out.exists()


def test_a_simulation_is_no_result(shell: Shell, recording: Path, tmp_path: Path) -> None:
    for name in ("raw.ome.tif", "truth.ome.tif"):
        done = shell("run", "--from", recording / name, "-o", tmp_path / "v.tif")
        assert done.status == 2
        assert f"{name} is a simulation, not the result of a method" in done.err


def test_what_will_be_made_is_said_once(shell: Shell, recording: Path, optics: Path, tmp_path: Path) -> None:
    words = ("run", "deconvolve-lightfield", recording / "raw.ome.tif", "--microscope", optics)
    done = shell(*words, "-o", tmp_path / "v.tif", "--set", "iterations=1", "--set", "z_step_um=40")
    assert done.status == 0, done.err
    assert done.err.count("The operator is") == 1
    assert "do not reach 7 um: the only plane is -7 um" in done.err


def test_three_frames_tagged_as_a_colour_picture(
    shell: Shell, recording: Path, optics: Path, tmp_path: Path
) -> None:
    raw = read_image(recording / "raw.ome.tif", "image").values
    movie, out = tmp_path / "movie.tif", tmp_path / "out"
    tifffile.imwrite(movie, np.stack([raw] * 3), photometric="rgb", planarconfig="separate")
    frames = ["--white", recording / "white.ome.tif", "--dark", recording / "dark.ome.tif"]
    quick = ["--set", "iterations=1", "--set", "z_step_um=40"]
    for words in (["calibrate", movie], ["run", "deconvolve-lightfield", movie, *quick]):
        asked = [*words, "--microscope", optics, *frames, "-o", out]
        done = shell(*asked)
        assert done.status == 2
        assert "as frames with --axes TYX" in done.err
        done = shell(*asked, "--axes", "TYX")
        assert done.status == 0, done.err
    assert read_image(out, None).sizes["t"] == 3


def test_frames_that_the_file_calls_planes_are_told(
    shell: Shell, recording: Path, optics: Path, tmp_path: Path
) -> None:
    raw = read_image(recording / "raw.ome.tif", "image").values
    path = tmp_path / "slices.tif"
    tifffile.imwrite(path, np.stack([raw] * 2), imagej=True, metadata={"axes": "ZYX"})
    words = ("run", "deconvolve-lightfield", path, "--microscope", optics, "--set", "iterations=1")
    done = shell(*words, "-o", tmp_path / "v.tif", "--set", "z_step_um=40")
    assert done.status == 0, done.err
    assert "calls its first axis z; its 2 frames are read as a movie" in done.err


def test_calibrate_refuses_the_wrong_microscope(shell: Shell, recording: Path, tmp_path: Path) -> None:
    words = ("calibrate", recording / "raw.ome.tif", "-o", tmp_path / "g.json")
    done = shell(*words, "--microscope", "mbl-60x1.2w", "--json")
    assert (done.status, done.out) == (2, "")
    assert "9.15 px" in done.err  # says which pitch was seen
    assert not (tmp_path / "g.json").exists()
    assert shell(*words).status == 0  # without a microscope the lattice is found all the same


def test_run_again_and_evaluate(shell: Shell, recording: Path, optics: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.ome.tif", tmp_path / "second.ome.tif"
    done = shell(
        *("run", "deconvolve-lightfield", recording / "raw.ome.tif", "-o", first, "--microscope", optics),
        *("--white", recording / "white.ome.tif", "--grid", recording / "grid.json", *PLANES),
        *("--set", "iterations=4", "--device", "cpu", "--json"),
    )
    assert done.status == 0, done.err
    assert 0 < done.json["residual"] < 1
    record = read_provenance(first)
    assert record["microscope"]["name"] == "tiny"
    assert record["lattice"]["rows"] == 13

    done = shell("run", "--from", first, "-o", second)
    assert done.status == 0, done.err
    a, b = read_image(first), read_image(second)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-4 * float(a.max()))
    assert read_provenance(second)["parameters"] == record["parameters"]

    scores = shell("evaluate", first, recording / "truth.ome.tif", "--json").json
    assert scores["coverage"] > 0.8
    assert scores["nrmse"] < scores["constant"]["nrmse"]
    assert scores["pearson"] > 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--microscope", "mbl-60x1.2w"], "9.15 px"),
        (["--microscope", "wf-20x0.8"], "no lenslet array"),
        ([], "microscope"),
        (["--microscope", "OPTICS", "--memory-gib", "0.001"], "GiB"),
        (["--microscope", "OPTICS", "--set", "z_min_um=9", "--set", "z_max_um=-9"], "z_max_um"),
        (["--microscope", "OPTICS", "--device", "tpu"], "device"),
        (["--microscope", "OPTICS", "--layout", "round"], "layout"),
        (["--microscope", "OPTICS", "--white", "TRUTH"], "white frame"),
        (["--microscope", "OPTICS", "--region-px", "9000,9000,9100,9100"], "region"),
    ],
)
def test_wrong_requests(
    shell: Shell, recording: Path, optics: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    from napari_lfm.core.labelled import labelled
    from napari_lfm.io.write import write_image

    other = write_image(tmp_path / "other.tif", labelled(np.ones((40, 40), np.uint16), "yx", {}))
    replaced = [{"OPTICS": str(optics), "TRUTH": str(other)}.get(w, w) for w in words]
    raw = read_image(recording / "raw.ome.tif", "image")
    bare = write_image(tmp_path / "bare.tif", labelled(raw.values, "yx", {}))  # carries no microscope
    done = shell("run", "deconvolve-lightfield", bare, "-o", tmp_path / "v.tif", *replaced, "--json")
    assert done.status == 2, done.err
    assert message in done.err
    assert done.out == ""
    assert not (tmp_path / "v.tif").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["widefield"], "cannot be simulated"),
        (["lightfeild"], "Did you mean 'lightfield'"),
        (["lightfield", "--phantom", "beds"], "Did you mean 'beads'"),
        (["lightfield", "--microscope", "wf-20x0.8"], "no lenslet array"),
        (["lightfield", "--lenslets", "9"], "number of lenslets"),
        (["lightfield", "--z-min-um", "3", "--z-max-um", "1"], "depth range"),
        (["lightfield", "--volume", "missing.tif"], "missing.tif"),
    ],
)
def test_wrong_simulations(shell: Shell, tmp_path: Path, words: list[str], message: str) -> None:
    done = shell("simulate", *words, "-o", tmp_path / "out", "--json")
    assert (done.status, done.out) == (2, "")
    assert message in done.err
