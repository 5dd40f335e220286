"""``napari-lfm evaluate``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_lfm.core.labelled import labelled
from napari_lfm.io.points import write_points
from napari_lfm.io.write import write_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell


@pytest.fixture
def volumes(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    truth = np.zeros((8, 24, 24), np.float32)
    truth[3:5, 6:18, 6:18] = 10
    noisy = 3 * truth + rng.normal(0, 1, truth.shape).astype(np.float32)
    spacing = {"z": 1.0, "y": 0.5, "x": 0.5}
    return (
        write_image(tmp_path / "result.tif", labelled(noisy, "zyx", spacing)),
        write_image(tmp_path / "truth.tif", labelled(truth, "zyx", spacing)),
    )


def test_volumes(shell: Shell, volumes: tuple[Path, Path]) -> None:
    done = shell("evaluate", *volumes, "--input", volumes[0], "--json")
    assert done.status == 0, done.err
    scores = done.json
    assert scores["psnr_db"] == pytest.approx(20 * np.log10(10 / (1 / 3)), abs=0.5)
    assert scores["scale"] == pytest.approx(1 / 3, rel=0.03)
    assert 0.5 < scores["ssim"] < 1
    assert scores["nrmse"] < 0.2 < scores["constant"]["nrmse"]
    assert scores["pearson"] > 0.98
    assert scores["input"]["psnr_db"] == scores["psnr_db"]
    text = shell("evaluate", *volumes).out
    assert "constant" in text


def test_a_perfect_result_is_still_json(shell: Shell, volumes: tuple[Path, Path]) -> None:
    scores = shell("evaluate", volumes[1], volumes[1], "--json").json
    assert scores["psnr_db"] is None  # infinite: JSON has no word for it
    assert scores["nrmse"] == 0


def test_content_counts_not_the_suffix(shell: Shell, volumes: tuple[Path, Path], tmp_path: Path) -> None:
    odd = tmp_path / "result.csv"
    odd.write_bytes(volumes[0].read_bytes())
    assert shell("evaluate", odd, volumes[1], "--json").json == shell("evaluate", *volumes, "--json").json


def test_points(shell: Shell, tmp_path: Path) -> None:
    truth = pd.DataFrame({"z_um": [0.0, 5], "y_um": [0.0, 5], "x_um": [0.0, 5], "confidence": 1.0})
    found = truth.iloc[:1].assign(z_um=1.0, x_um=0.5)
    a = write_points(tmp_path / "found.csv", found)
    b = write_points(tmp_path / "truth.csv", truth)
    scores = shell("evaluate", a, b, "--tolerance-um", "2", "--json").json
    assert scores["rmse_um"] == {"z": 1.0, "y": 0.0, "x": 0.5}
    assert (scores["precision"], scores["recall"]) == (1.0, 0.5)
    nothing = shell("evaluate", a, b, "--tolerance-um", "0.1", "--json").json
    assert nothing["rmse_um"] == {"z": None, "y": None, "x": None}
    assert "precision 1.000" in shell("evaluate", a, b).out


def test_bad_pairs(shell: Shell, volumes: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    assert "Give two CSV files" in shell("evaluate", volumes[0], table).err
    assert shell("evaluate", table, table).status == 2
    flat = write_image(tmp_path / "flat.tif", labelled(np.zeros((5, 5)), "yx", {"y": 1, "x": 1}))
    done = shell("evaluate", volumes[0], flat, "--json")
    assert (done.status, done.out) == (2, "")
    assert "different axes" in done.err
    done = shell("evaluate", flat, flat)
    assert "constant" in done.err


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A random stack that ends at 2 um along z and at 0.8 um along y and x, in a little noise."""
    rng = np.random.default_rng(0)
    shape, voxel, period = (24, 64, 64), (0.4, 0.2, 0.2), (2.0, 0.8, 0.8)
    k = np.meshgrid(
        *(np.fft.fftfreq(n, v) * p for n, v, p in zip(shape, voxel, period, strict=True)), indexing="ij"
    )
    image = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * (sum(f**2 for f in k) < 1)).real
    image += rng.normal(0, 0.1 * image.std(), shape)
    return write_image(
        tmp_path / "stack.tif",
        labelled(image.astype(np.float32), "zyx", dict(zip("zyx", voxel, strict=True))),
    )


def test_without_a_truth_it_is_resolution(shell: Shell, stack: Path) -> None:
    found = shell("evaluate", stack, "--json").json
    assert "psnr_db" not in found
    for measure, tolerance in (("decorrelation", 0.15), ("noise_floor", 0.4)):
        assert found["resolution_um"][measure] == pytest.approx({"z": 2.0, "y": 0.8, "x": 0.8}, rel=tolerance)
    single = found["resolution_um"]["fsc_single"]
    assert single["z"] > 1.5 * max(single["y"], single["x"])
    assert found["voxel_um"] == pytest.approx({"z": 0.4, "y": 0.2, "x": 0.2})
    text = shell("evaluate", stack).out
    assert "Decorrelation" in text
    assert "resolution_um" in text


def test_align_resolution_and_profile_with_a_truth(shell: Shell, stack: Path, tmp_path: Path) -> None:
    from scipy.ndimage import shift

    from napari_lfm.io.read import read_image

    truth = read_image(stack)
    moved = truth.copy(data=shift(np.asarray(truth.values), (0.5, -1.5, 2.25), order=3, mode="nearest"))
    other = write_image(tmp_path / "moved.tif", moved)
    before = shell("evaluate", other, stack, "--json").json
    found = shell(
        "evaluate", other, stack, "--align", "--resolution", "--input", other,
        "--profile", "12,20,20:12,20,40", "--plots", tmp_path / "plots", "--json",
    ).json  # fmt: skip
    assert found["shift_um"] == pytest.approx({"z": -0.2, "y": 0.3, "x": -0.45}, abs=0.03)
    assert found["psnr_db"] > before["psnr_db"] + 10
    assert found["input"]["psnr_db"] == pytest.approx(found["psnr_db"])
    assert found["coverage"] < 1
    assert set(found["resolution_um"]) > {"fsc_truth", "fsc_pair", "decorrelation"}
    assert set(found["truth_resolution_um"]) == {"fsc_single", "decorrelation", "noise_floor"}
    assert found["profile"]["length_um"] == pytest.approx(4.0)
    assert "fwhm_gauss_um" in found["truth_profile"]
    names = {p.name for p in (tmp_path / "plots").iterdir()}
    keys = ("fsc-truth", "fsc-single", "spectra", "decorrelation", "profile")
    assert names == {f"{key}{suffix}" for key in keys for suffix in (".svg", ".csv")} | {"measures.csv"}
    assert len(found["plots"]) == len(names)
    text = shell("evaluate", other, stack, "--align", "--profile", "12,20,20:12,20,40").out
    assert "constant" in text
    assert "Aligned: moved by z -0.2" in text
    assert "resolution_um" not in text  # was not asked for


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--align"], "--align needs a truth"),
        (["--input", "x.tif"], "--input needs a truth"),
        (["--profile", "1,2:3,4"], "'1,2' is not a point"),
        (["--profile", "1,2,3"], "'1,2,3' is not a line"),
        (["--profile", "1,2,3:1,2,99"], "leaves the image"),
        (["--voxel-um", "a,b,c"], "is not a voxel size"),
        (["--voxel-um", "-1,1,1"], "above 0|positive|voxel"),
    ],
)
def test_bad_options_get_a_sentence(shell: Shell, stack: Path, options: list[str], says: str) -> None:
    done = shell("evaluate", stack, *options)
    assert (done.status, done.out) == (2, "")
    assert re.search(says, done.err)
    assert len(done.err.strip().splitlines()) == 1


def test_images_that_say_nothing_get_a_sentence(shell: Shell, tmp_path: Path) -> None:
    spacing = {"z": 1.0, "y": 1.0, "x": 1.0}
    for data, says in (
        (np.ones((16, 16, 16)), "constant"),
        (np.full((16, 16, 16), np.nan), "NaN"),
        (np.random.default_rng(0).random((3, 16, 16)), "at least 8"),
    ):
        done = shell(
            "evaluate", write_image(tmp_path / "bad.tif", labelled(data.astype(np.float32), "zyx", spacing))
        )
        assert (done.status, done.out) == (2, "")
        assert says in done.err
    bare = tmp_path / "bare.tif"
    tifffile.imwrite(bare, np.random.default_rng(0).random((16, 16, 16)).astype(np.float32))
    done = shell("evaluate", bare)
    assert done.status == 2
    assert "--voxel-um" in done.err
    assert shell("evaluate", bare, "--voxel-um", "1,1,1").status == 0
    plane = write_image(
        tmp_path / "plane.tif", labelled(np.random.default_rng(0).random((32, 32)), "yx", {"y": 1, "x": 1})
    )
    assert set(shell("evaluate", plane, "--json").json["voxel_um"]) == {"y", "x"}
