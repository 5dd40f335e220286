"""``run isotropic`` and ``train isotropic``: files in, files and models out, stopped, refused in words."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_lfm.core.labelled import labelled
from napari_lfm.io.provenance import read_provenance
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image
from napari_lfm.networks import catalogue
from napari_lfm.networks.isotropic_paper import CareNet
from napari_lfm.training import isotropic

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell  # only for reading

SIZES = {"z": 0.48, "y": 0.1, "x": 0.1}
RECIPE: dict[str, Any] = {
    "minutes": 30,
    "blur_um": 0.25,
    "device": "cpu",
    "tuning": {"widths": [4, 6], "patch_px": 32, "batch_size": 2, "validate_every_steps": 2},
}


@pytest.fixture(autouse=True)
def _no_bundled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")
    monkeypatch.setattr(catalogue, "remote_cards", list)


def values() -> np.ndarray:
    truth = gaussian_filter((np.random.default_rng(0).random((44, 40, 48)) > 0.99).astype(float), 1.2)
    seen = gaussian_filter1d(truth, 2.5, 0)[np.round(np.arange(10) * 4.8).astype(int).clip(max=43)]
    return (100 + 400 * seen / seen.max()).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write_image(tmp_path / "cells.tif", labelled(values(), "zyx", SIZES))


@pytest.fixture
def bead(tmp_path: Path) -> Path:
    z, y, x = np.meshgrid(*(np.arange(-8, 9) for _ in range(3)), indexing="ij")
    light = 1e4 * np.exp(-(z**2 / 18 + (y**2 + x**2) / 4.5))
    return write_image(
        tmp_path / "bead.tif", labelled(light.astype(np.uint16), "zyx", dict.fromkeys("zyx", 0.1))
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture
def model(shell: Shell, stack: Path, recipe: Path, tmp_path: Path) -> Path:
    """A small model, trained for two steps."""
    done = shell(
        "train", "isotropic", stack, "--recipe", recipe, "--steps", 2, "-o", tmp_path / "mine", "--json"
    )
    assert done.status == 0, done.err
    return tmp_path / "mine"


def keras_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    network = CareNet(1, depth=1, base=4, kernel=3)
    folder.mkdir()
    with h5py.File(folder / "weights_best.h5", "w") as file:
        for name, layer in network.named_children():
            group = file.create_group(f"{'conv2d_3' if name == 'mean' else name}/x")
            group["kernel"] = layer.weight.detach().permute(2, 3, 1, 0).numpy()
            group["bias"] = layer.bias.detach().numpy()
    config = {"n_dim": 2, "n_channel_in": 1, "n_channel_out": 1, "unet_n_depth": 1, "unet_n_first": 4}
    (folder / "config.json").write_text(json.dumps({**config, "unet_kern_size": 3}))
    return folder


# ------------------------------------------------------------------------ training
def test_a_stack_becomes_a_model(shell: Shell, stack: Path, recipe: Path, tmp_path: Path) -> None:
    words = ("train", "isotropic", stack, "--recipe", recipe, "--steps", 2, "--json")
    done = shell(*words, "-o", tmp_path / "mine")
    assert done.status == 0, done.err
    assert (done.json["id"], done.json["reason"], done.json["steps"]) == ("mine", "steps", 2)
    assert {"psnr_db", "input_psnr_db"} <= set(done.json)
    assert "10 planes become 44" in done.err
    assert "Step 0: restored" in done.err and "Step 2: restored" in done.err
    shown = shell("models", "--show", tmp_path / "mine")
    assert "one stack of the user (cells.tif)" in shown.out


def test_stopping_keeps_the_best_and_resume_goes_on(
    shell: Shell, stack: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = isotropic.IsotropicTask.batch

    def batch(self: Any, index: int) -> Any:
        if index == 3:
            signal.raise_signal(signal.SIGINT)
        return real(self, index)

    monkeypatch.setattr(isotropic.IsotropicTask, "batch", batch)
    words = ("train", "isotropic", stack, "--recipe", recipe, "--json")
    stopped = shell(*words, "--steps", 4)
    assert (stopped.status, stopped.json["reason"]) == (1, "stopped"), stopped.err
    assert stopped.json["id"] == "isotropic-cells"
    assert "--resume goes on" in stopped.err
    assert shell("models", "--locate", "isotropic-cells").status == 0
    assert "planes 4.8 px apart" in shell("models").out
    monkeypatch.setattr(isotropic.IsotropicTask, "batch", real)
    done = shell(*words, "--steps", 4, "--resume")
    assert (done.status, done.json["reason"], done.json["steps"]) == (0, "steps", 4), done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere.tif",), "nowhere.tif"),
        (("--voxel-um", "0.48,0.1,0.2"), "no squares"),
        (("--voxel-um", "0.48,0.1"), "voxel size"),
        (("--start-from", "nothing"), "nothing"),
        (("--set", "patc=3"), "Did you mean 'patch_px'"),
        (("--set", "blur=measured", "--set", "blur_um=0"), "no point spread function"),
        (("--set", "frame=2"), "There is no frame 2"),
        (("--na", "0.3"), "--na means nothing to 'isotropic'"),
        (("--pairs", "somewhere"), "--pairs means nothing to 'isotropic'"),
        (("--resume", "--id", "never"), "no training to go on with"),
        (("--minutes", "0"), "minutes"),
    ],
)
def test_wrong_options_are_told_in_words(
    shell: Shell, stack: Path, recipe: Path, words: tuple[str, ...], says: str
) -> None:
    given = () if words[0] == "nowhere.tif" else (stack,)
    failed = shell("train", "isotropic", *given, "--recipe", recipe, *words, "--json")
    assert (failed.status, failed.out) == (2, "")
    assert says in failed.err


def test_two_stacks_or_none(shell: Shell, stack: Path) -> None:
    assert "no stack is given" in shell("train", "isotropic").err
    assert "2 stacks are given" in shell("train", "isotropic", stack, stack).err
    for method in ("lfmnet", "wfcon", "refocus"):
        failed = shell("train", method, "--psf", stack)
        assert (failed.status, f"--psf means nothing to '{method}'" in failed.err) == (2, True)


# ----------------------------------------------------------------------- restoring
def test_a_model_restores(shell: Shell, stack: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharp.tif"
    done = shell("run", "isotropic", stack, "-o", out, "--model", model, "--json")
    assert done.status == 0, done.err
    assert done.json["files"] == [
        str(tmp_path / n) for n in ("sharp.tif", "sharp.disagreement.tif", "sharp.residual.tif")
    ]
    made = read_image(out)
    assert made.shape == (44, 40, 48)
    assert float(made.z[1]) == pytest.approx(0.1)
    assert "Making 44 x 40 x 48 (z y x)" in done.err
    assert "10 planes become 44" in done.err
    assert 0 < done.json["unexplained"] < 1
    again = shell("run", "--from", out, "-o", tmp_path / "again.tif")
    assert again.status == 0, again.err
    assert np.array_equal(read_image(tmp_path / "again.tif"), made)


def test_training_first_and_a_measured_blur(
    shell: Shell, stack: Path, bead: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sharp.tif"
    words = ("run", "isotropic", stack, "-o", out, "--psf", bead, "--model", model)
    done = shell(*words, "--set", "train_steps=1", "--json")
    assert done.status == 0, done.err
    record = read_provenance(out)
    assert record["model"]["id"] == "isotropic-cells"
    assert record["figures"]["blur_source"] == "measured"
    assert record["figures"]["blur_um"] == pytest.approx(0.1 * np.sqrt(9 - 2.25), rel=0.15)
    assert record["figures"]["trained"]["started_from"] == str(model)
    assert record["sources"]["psf"] == str(bead)
    assert "The model will be 'isotropic-cells'" in done.err


def test_a_csbdeep_folder_is_a_model(shell: Shell, stack: Path, tmp_path: Path) -> None:
    care = keras_folder(tmp_path / "care")
    out = tmp_path / "sharp.tif"
    done = shell(
        "run", "isotropic", stack, "-o", out, "--model", care, "--set", "consistency=false", "--json"
    )
    assert done.status == 0, done.err
    assert read_image(out).shape == (48, 40, 48)
    assert read_provenance(out)["model"]["id"] == "isotropic-care"
    listed = shell("models", "--json").json["models"]
    assert [m["architecture"] for m in listed] == ["isotropic-csbdeep"]
    assert shell("models", "--import", care, "--id", "again", "--json").json["id"] == "again"
    failed = shell("models", "--import", care, "--id", "third", "--down", "maxpool")
    assert (failed.status, "belong to other models" in failed.err) == (2, True)
    (care / "config.json").write_text(json.dumps({"n_dim": 3, "n_channel_in": 1, "n_channel_out": 1}))
    for words in (("models", "--import", care), ("run", "isotropic", stack, "-o", out, "--model", care)):
        failed = shell(*words)
        assert failed.status == 2
        assert "3-dimensional" in failed.err


def test_bad_stacks_are_refused_in_words(shell: Shell, stack: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    no_size = write_image(tmp_path / "no-size.tif", labelled(values(), "zyx", {"y": 0.1, "x": 0.1}))
    flat = write_image(tmp_path / "flat.tif", labelled(values()[0], "yx", {"y": 0.1, "x": 0.1}))
    thin = write_image(tmp_path / "thin.tif", labelled(values()[:2], "zyx", SIZES))
    words = ("run", "isotropic")
    for path, says in ((no_size, "--voxel-um"), (flat, "single image"), (thin, "too small")):
        failed = shell(*words, path, "-o", out, "--model", model)
        assert (failed.status, says in failed.err) == (2, True), failed.err
    assert not out.exists()
    nothing = shell(*words, stack, "-o", out)
    assert (nothing.status, "set train_minutes" in nothing.err) == (2, True)
    done = shell(*words, no_size, "-o", out, "--model", model, "--voxel-um", "0.11,0.1,0.1")
    assert done.status == 0, done.err
    assert "hardly coarser than x and y (1.1 times)" in done.err
