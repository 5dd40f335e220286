"""``napari-lfm evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

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
