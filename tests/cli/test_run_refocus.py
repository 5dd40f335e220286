"""``napari-lfm run refocus``: surfaces from the command line, movies, and running a result again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image
from napari_lfm.methods.refocus.card import RefocusDomain, scalers_of
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.defocus import DefocusOptics

if TYPE_CHECKING:
    from pathlib import Path

PIXEL = 0.325


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    network: dict[str, Any] = {"widths": [4, 6], "bands": [4], "planes": 5, "sweep": True}
    card = ModelCard(
        id="small", title="", version="1", method="refocus", architecture="refocus", network=network,
        microscope=None, n_pixels=None, z_um=[], voxels_per_lenslet=None,
        scalers=scalers_of(RefocusDomain(DefocusOptics(), PIXEL, 4.0, 1.0)), specimens=[], licence="",
        data="", training={}, scores=[], hours=0.0, trained_on="", date="2026-01-01", parameters=1, sha256="",
        versions={}, notes="",
    )  # fmt: skip
    save_model(tmp_path / "models" / "small", card, RefocusNet(**network).state_dict())
    return "small"


def picture(tmp_path: Path, shape: tuple[int, ...] = (40, 48), pixel: float | None = PIXEL) -> Path:
    rough = gaussian_filter(np.random.default_rng(0).random(shape) ** 6, (*[0] * (len(shape) - 2), 1, 1))
    sizes = {} if pixel is None else {"y": pixel, "x": pixel, "t": 1.0}
    data = (100 + 900 * rough / rough.max()).astype(np.uint16)
    return write_image(tmp_path / "image.tif", labelled(data, "tyx"[-len(shape) :], sizes))


def test_surfaces_from_the_command_line(tmp_path: Path, small: str, shell: Any) -> None:
    image, out = picture(tmp_path), tmp_path / "out.tif"
    done = shell("run", "refocus", image, "-o", out, "--model", small, "--set", "z_um=3", "--json")
    assert done.status == 0, done.err
    assert [p.rpartition("/")[2] for p in done.json["files"]] == ["out.tif", "out.confocal-like.tif"]
    assert read_image(out, kind="image").dims == ("y", "x")

    done = shell("run", "refocus", image, "-o", out, "--model", small, "--set", "surface=stack")
    assert done.status == 0, done.err
    assert "9 x 40 x 48 (z y x)" in done.err
    stack = read_image(out)
    assert spacing_of(stack)["z"] == pytest.approx(1.0)
    assert float(stack.coords["z"][0]) == -4.0

    done = shell("run", "refocus", image, "-o", out, "--model", small,
                 "--set", "surface=tilt", "--set", "tilt_x_deg=40")  # fmt: skip
    assert "of the pixels lie outside the trained range of -4 to 4 um" in done.err
    assert (tmp_path / "out.beyond.tif").exists()


def test_points_and_a_result_that_is_made_again(tmp_path: Path, small: str, shell: Any) -> None:
    image, out, points = picture(tmp_path), tmp_path / "out.tif", tmp_path / "points.csv"
    points.write_text("z_um,y_um,x_um\n-1,1,1\n2,12,2\n0,3,14\n1,12,15\n")
    done = shell("run", "refocus", image, "-o", out, "--model", small,
                 "--set", "surface=points", "--set", f"points_file={points}")  # fmt: skip
    assert done.status == 0, done.err
    points.unlink()  # the result knows them
    done = shell("run", "--from", out, "-o", tmp_path / "again.tif")
    assert done.status == 0, done.err
    for name in ("", ".height"):
        one, other = (read_image(tmp_path / f"{n}{name}.tif", kind="image") for n in ("out", "again"))
        assert np.array_equal(one.values, other.values)


def test_height_maps_are_spared_and_known_again(tmp_path: Path, small: str, shell: Any) -> None:
    image, heights = picture(tmp_path), tmp_path / "heights.tif"
    write_image(heights, labelled(np.linspace(-2, 2, 24, dtype=np.float32)[None].repeat(20, 0), "yx", {}))
    words = ("run", "refocus", image, "--model", small, "--set", "surface=height-map",
             "--set", f"height_map_file={heights}", "-o")  # fmt: skip
    done = shell(*words, heights)
    assert done.status == 2 and "would overwrite" in done.err
    assert shell(*words, tmp_path / "out.tif").status == 0
    again = shell("run", "--from", tmp_path / "out.tif", "-o", tmp_path / "again.tif")
    assert again.status == 0 and "not given" not in again.err
    write_image(heights, labelled(np.zeros((20, 24), np.float32), "yx", {}))
    changed = shell("run", "--from", tmp_path / "out.tif", "-o", tmp_path / "again.tif")
    assert "height_map is not the same as in the first run" in changed.err


def test_a_movie_with_drift(tmp_path: Path, small: str, shell: Any) -> None:
    image, out, drift = picture(tmp_path, (3, 40, 48)), tmp_path / "out.tif", tmp_path / "drift.txt"
    drift.write_text("0\n1\n2\n")
    words = ("run", "refocus", image, "-o", out, "--model", small, "--set", f"drift_file={drift}")
    done = shell(*words, "--set", "output=widefield")
    assert done.status == 0, done.err
    assert read_image(out, kind="image").sizes["t"] == 3
    drift.write_text("0\n1\n")
    done = shell(*words)
    assert done.status == 2 and "3 frames, and 2 values of drift" in done.err


def test_pixel_sizes_are_asked_for(tmp_path: Path, small: str, shell: Any) -> None:
    image, out = picture(tmp_path, pixel=None), tmp_path / "out.tif"
    words = ("run", "refocus", image, "-o", out, "--model", small)
    done = shell(*words)
    assert done.status == 2 and "how large its pixels are" in done.err and "--voxel-um" in done.err
    done = shell(*words, "--voxel-um", "1,0.65,0.65")
    assert done.status == 0 and "resampled" in done.err
    assert spacing_of(read_image(out, kind="image"))["x"] == pytest.approx(PIXEL)


def test_it_is_listed(shell: Any) -> None:
    done = shell("methods", "--json")
    (entry,) = [m for m in done.json["methods"] if m["id"] == "refocus"]
    assert entry["input"] == "image"
    surface = next(p for p in entry["parameters"] if p["name"] == "surface")
    assert "height-map" in str(surface)
