"""``napari-lfm run``: results, records, stops, and every kind of bad request."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_lfm.io.points import read_points
from napari_lfm.io.provenance import read_provenance
from napari_lfm.io.read import read_image

if TYPE_CHECKING:
    from tests.cli.conftest import Shell, Stretch  # only for reading


def test_a_run_saves_its_result_and_says_so(shell: Shell, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.tif"
    done = shell("run", "stretch", image, "-o", out, "--set", "gain=3", "--set", "steps=4", "--json")
    assert done.status == 0
    assert done.json["output"] == str(out)
    assert done.json["residual"] == pytest.approx(0.25)
    assert {"method", "files", "seconds", "device"} <= set(done.json)
    result = read_image(out, kind="image")
    np.testing.assert_allclose(result.values, 3 * read_image(image, kind="image").values)
    assert result.coords["x"].attrs["units"] == "um"
    record = read_provenance(out)
    assert record["parameters"]["gain"] == 3
    assert record["sources"]["image"] == str(image)
    assert "Making 10 x 10 (y x): about 1 MiB of memory, less than 1 s." in done.err
    assert "residual" in done.err
    assert "a library that prints" in done.err  # and not on stdout


def test_without_json_stdout_names_the_file_only(shell: Shell, image: Path, tmp_path: Path) -> None:
    done = shell("run", "stretch", image, "-o", tmp_path / "out.tif")
    assert done.out.strip() == str(tmp_path / "out.tif")


def test_further_outputs_stand_beside(shell: Shell, image: Path, tmp_path: Path) -> None:
    done = shell("run", "stretch", image, "-o", tmp_path / "out.tif", "--set", "mode=points", "--json")
    assert done.json["files"] == [str(tmp_path / "out.tif"), str(tmp_path / "out.points.csv")]
    assert len(read_points(tmp_path / "out.points.csv")) == 1


def test_running_again_from_a_result(shell: Shell, image: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    words = ("--set", "gain=5", "--region-px", "1,2,9,8", "--memory-gib", "2", "--axes", "YX")
    shell("run", "stretch", image, "-o", first, *words)
    done = shell("run", "--from", first, "-o", second)
    assert done.status == 0, done.err
    np.testing.assert_array_equal(read_image(first, "image").values, read_image(second, "image").values)
    a, b = read_provenance(first), read_provenance(second)
    for key in ("method", "parameters", "inputs", "sources", "region_px", "memory_gib", "layout"):
        assert a[key] == b[key], key
    done = shell("run", "--from", first, "-o", second, "--set", "gain=6")
    assert read_provenance(second)["parameters"]["gain"] == 6


def test_running_again_finds_the_input_beside_the_result(shell: Shell, image: Path, tmp_path: Path) -> None:
    shell("run", "stretch", image, "-o", tmp_path / "first.tif")
    away = tmp_path / "moved"
    away.mkdir()
    (tmp_path / "first.tif").rename(away / "first.tif")
    image.rename(away / image.name)
    done = shell("run", "--from", away / "first.tif", "-o", away / "second.tif")
    assert done.status == 0, done.err
    (away / image.name).unlink()
    done = shell("run", "--from", away / "first.tif", "-o", away / "second.tif")
    assert done.status == 2
    assert "not there any more" in done.err


def test_running_again_on_a_changed_input_warns(shell: Shell, image: Path, tmp_path: Path) -> None:
    from napari_lfm.io.write import write_image

    shell("run", "stretch", image, "-o", tmp_path / "first.tif")
    write_image(image, read_image(image, "image") + 1)
    done = shell("run", "--from", tmp_path / "first.tif", "-o", tmp_path / "second.tif")
    assert done.status == 0
    assert "pixels differ" in done.err


def test_several_inputs_go_into_a_folder(shell: Shell, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "image.tif"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    done = shell("run", "stretch", image, other, "-o", tmp_path / "out", "--json")
    assert done.status == 0
    names = [Path(r["output"]).name for r in done.json["results"]]
    assert names == ["image.stretch.ome.tif", "image-2.stretch.ome.tif"]
    done = shell("run", "stretch", image, other, "-o", tmp_path / "one.tif")
    assert done.status == 2
    assert "Give a folder" in done.err


def test_a_stray_file_in_a_folder_is_left_out(shell: Shell, image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image.rename(folder / "a.tif")
    (folder / "b.tif").write_text("no image")
    (folder / "notes.txt").write_text("not an image either")
    done = shell("run", "stretch", folder, "-o", tmp_path / "out", "--json")
    assert done.status == 0
    assert len(done.json["results"]) == 1
    assert done.json["left_out"] == [str(folder / "b.tif")]
    assert "Left out" in done.err


@pytest.mark.parametrize("mode", ["interrupt", "terminate"])
def test_ctrl_c_and_kill_leave_the_old_file_and_close_the_run(
    shell: Shell, image: Path, tmp_path: Path, stretch: type[Stretch], mode: str
) -> None:
    out = tmp_path / "out.tif"
    out.write_bytes(b"old")
    before = signal.getsignal(signal.SIGTERM)
    done = shell("run", "stretch", image, "-o", out, "--set", f"mode={mode}")
    assert signal.getsignal(signal.SIGTERM) == before
    assert done.status == 1
    assert "Stopped" in done.err
    assert out.read_bytes() == b"old"
    assert stretch.closed == [True]


@pytest.mark.parametrize("mode", ["interrupt", "terminate"])
def test_a_stopped_run_keeps_the_last_preview_when_asked(
    shell: Shell, image: Path, tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "out.tif"
    done = shell("run", "stretch", image, "-o", out, "--set", f"mode={mode}", "--keep-partial", "--json")
    assert done.status == 1
    assert (done.json["output"], done.json["stopped_after"], done.json["stopped_of"]) == (str(out), 2, 3)
    assert done.json["residual"] == 0.5
    assert "Saved the last preview" in done.err
    expected = read_image(image, "image").values * (2.0 * 2 / 3)
    np.testing.assert_allclose(read_image(out, "image").values, expected, rtol=1e-6)
    record = read_provenance(out)
    assert (record["stopped_after"], record["stopped_of"]) == (2, 3)


def test_a_run_stopped_before_its_first_preview_has_nothing_to_keep(
    shell: Shell, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    out.write_bytes(b"old")
    done = shell("run", "stretch", image, "-o", out, "--set", "mode=early", "--keep-partial", "--json")
    assert done.status == 1
    assert (done.json["output"], done.json["stopped_after"]) == (None, 0)
    assert "before the first preview" in done.err
    assert out.read_bytes() == b"old"


def test_a_stop_ends_a_batch(shell: Shell, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    other.write_bytes(image.read_bytes())
    words = ("--set", "mode=interrupt", "--keep-partial", "--json")
    done = shell("run", "stretch", image, other, "-o", tmp_path / "out", *words)
    assert done.status == 1
    assert [r["input"] for r in done.json["results"]] == [str(image)]


def test_a_bug_becomes_a_sentence_and_a_log_file(
    shell: Shell, image: Path, tmp_path: Path, lfm_home: Path, stretch: type[Stretch]
) -> None:
    done = shell("run", "stretch", image, "-o", tmp_path / "out.tif", "--set", "mode=bug", "--json")
    assert done.status == 1
    assert done.out == ""
    assert "ZeroDivisionError" in done.err
    logs = list((lfm_home / "log").glob("*.log"))
    assert len(logs) == 1
    assert str(logs[0]) in done.err
    assert "a bug" in logs[0].read_text()
    assert stretch.closed == [True]


def test_a_full_disk_is_no_mystery(shell: Shell, image: Path, tmp_path: Path) -> None:
    done = shell("run", "stretch", image, "-o", tmp_path / "out.tif", "--set", "mode=full")
    assert done.status == 1
    assert "No space left" in done.err
    assert "Free some space" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strech", "IN"], "Did you mean 'stretch'?"),
        (["stretch", "IN", "--set", "gian=2"], "Did you mean 'gain'?"),
        (["stretch", "IN", "--set", "gain=0"], "gain"),
        (["stretch", "IN", "--set", "gain=much"], "gain"),
        (["stretch", "IN", "--set", "gain"], "not a setting"),
        (["stretch", "IN", "--set", "gain=1", "--set", "gain=2"], "set twice"),
        (["stretch", "IN", "--microscope", "mbl-60x1.2"], "Did you mean 'mbl-60x1.2w'?"),
        (["stretch", "IN", "--microscope", "none.yaml"], "no file none.yaml"),
        (["stretch", "IN", "--grid", "none.json"], "no grid file"),
        (["stretch", "IN", "--memory-gib", "0.1"], "too small"),
        (["stretch", "IN", "--region-px", "1,2,3"], "not a region"),
        (["stretch", "IN", "--voxel-um", "1,a,1"], "not a voxel size"),
        (["stretch", "missing.tif"], "no file missing.tif"),
        (["stretch", "TEXT"], "not a TIFF"),
        (["stretch", "TRUNCATED"], "truncated.tif"),
        (["stretch", "EMPTY"], "empty.tif"),
        (["stretch", "RGB"], "colour"),
        (["stretch", "LINE"], "one-dimensional"),
        (["stretch", "FOLDER"], "no image"),
        (["stretch"], "A method and an input"),
        ([], "A method and an input"),
    ],
)
def test_bad_requests_end_with_status_2_and_a_sentence(
    shell: Shell, image: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    files = {
        "IN": image,
        "TEXT": tmp_path / "text.tif",
        "TRUNCATED": tmp_path / "truncated.tif",
        "EMPTY": tmp_path / "empty.tif",
        "RGB": tmp_path / "rgb.tif",
        "LINE": tmp_path / "line.tif",
        "FOLDER": tmp_path / "folder",
    }
    files["TEXT"].write_text("This is a letter.")
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, np.zeros((64, 64), np.uint16))
    files["TRUNCATED"].write_bytes(whole.read_bytes()[:300])
    files["EMPTY"].write_bytes(b"")
    tifffile.imwrite(files["RGB"], np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(files["LINE"], np.zeros((1, 9), np.uint8))
    files["FOLDER"].mkdir()
    out = tmp_path / "out.tif"
    done = shell("run", *(files.get(w, w) for w in words), "-o", out, "--json")
    assert done.status == 2, done.err
    assert message in done.err
    assert done.out == ""
    assert not out.exists()


@pytest.mark.parametrize("place", ["a-file/out.tif", "a-folder"])
def test_an_output_that_cannot_be_written_is_refused_before_the_run(
    shell: Shell, image: Path, tmp_path: Path, stretch: type[Stretch], place: str
) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    done = shell("run", "stretch", image, "-o", tmp_path / place)
    assert done.status == 2
    assert done.err.startswith("Error: ")
    assert stretch.closed == []  # nothing was started


def test_no_output_and_two_wishes(shell: Shell, image: Path, tmp_path: Path) -> None:
    assert "nowhere to put" in shell("run", "stretch", image).err
    done = shell("run", "stretch", "--from", image, "-o", tmp_path / "o.tif")
    assert (done.status, "With --from" in done.err) == (2, True)
    done = shell("run", "--from", image, "-o", tmp_path / "o.tif")
    assert (done.status, "provenance" in done.err) == (2, True)


def test_settings_are_read_as_written() -> None:
    from napari_lfm.cli._wishes import parse_settings

    assert parse_settings(["a=1", "b-c=x=y", "d=null", "e=[1, 2]", "f=true", "g=", "h={"]) == {
        "a": "1",
        "b_c": "x=y",
        "d": None,
        "e": [1, 2],
        "f": True,
        "g": "",
        "h": "{",
    }


def test_null_unsets_an_optional_parameter(shell: Shell, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    assert shell("run", "stretch", image, "-o", out, "--set", "limit=null").status == 0
    assert read_provenance(out)["parameters"]["limit"] is None
