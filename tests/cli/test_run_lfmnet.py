"""``napari-lfm run lfmnet``: models from the shell, and results that can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_lfm.io.provenance import as_command, as_python, read_provenance
from napari_lfm.io.read import read_image
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.presets import save_microscope
from napari_lfm.simulation.lightfield import Exposure, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell  # only for reading

MICROSCOPE = Microscope(
    name="tiny",
    objective=Objective(magnification=20, na=0.45),
    lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
    camera=Camera(pixel_um=11),
    wavelength_um=0.55,
    sample_index=1.0,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with raw.tif, white.tif, dark.tif and tiny.yaml."""
    folder = tmp_path_factory.mktemp("recording")
    found = simulate_lightfield(
        Scene((Ball((6.0, 3.0, -4.0), 4.0), Ball((-6.0, -9.0, 8.0), 3.0))),
        MICROSCOPE,
        z_um=(-12, 12, 6),
        lenslets=(13, 15),
        exposure=Exposure(hot_pixels=0),
        voxels_per_lenslet=3,
        z_substeps=1,
        seed=2,
    )
    for name in ("raw", "white", "dark"):
        # as a camera writes them: nothing in the file says which microscope it was
        tifffile.imwrite(folder / f"{name}.tif", found[name].values)
    save_microscope(MICROSCOPE, folder / "tiny.yaml")
    return folder


def put_model(folder: Path, seed: int = 0, name: str = "tiny-net") -> None:
    """Save a network with random weights as the model `name` in `folder`."""
    import torch

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.lenslet_net import LensletNet
    from napari_lfm.networks.weights import save_model

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_pixels": 9, "depths": 5, "voxels_per_lenslet": 3, "slopes": [-0.1, 0.1]}
    sizes |= {"width": 4, "lenslet_width": 6, "blocks": 0, "angular": 1}
    net = LensletNet(**sizes)
    card = ModelCard(
        id=name,
        title="A test",
        version=f"1.{seed}",
        method="lfmnet",
        architecture="lfmnet-modern",
        network=sizes,
        microscope=MICROSCOPE.model_dump(mode="json"),
        n_pixels=9,
        z_um=[-12.0, -6.0, 0.0, 6.0, 12.0],
        voxels_per_lenslet=3,
        scalers={"input_percentile": 99.9, "output_scale": 1.0},
        specimens=["balls"],
        licence="MIT",
        data="nothing",
        training={},
        scores=[],
        hours=0.0,
        trained_on="nothing",
        date="2026-01-01",
        parameters=sum(p.numel() for p in net.parameters()),
        sha256="",
        versions={},
        notes="",
    )
    save_model(folder / name, card, net.state_dict())


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the user's models with 'tiny-net'."""
    folder = tmp_path / "models"
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(folder))
    put_model(folder)
    return folder


def test_a_volume_and_its_confidence(shell: Shell, files: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.tif"
    words = ["run", "lfmnet", files / "raw.tif", "--white", files / "white.tif", "--dark", files / "dark.tif"]
    words += ["--microscope", files / "tiny.yaml", "--set", "confidence=flips", "-o", out, "--json"]
    done = shell(*words)
    assert done.status == 0, done.err
    assert done.json["files"] == [str(out), str(tmp_path / "v.confidence.tif")]
    assert done.json["primary"] == "volume"
    volume, sure = read_image(out), read_image(tmp_path / "v.confidence.tif")
    assert volume.shape == sure.shape == (5, 39, 45)
    assert list(volume.z.values) == [-12, -6, 0, 6, 12]
    assert 0 <= float(sure.min()) <= float(sure.max()) <= 1
    assert read_provenance(out)["model"]["id"] == "tiny-net"


def test_running_again_gives_the_same_volume_with_the_same_weights_only(
    shell: Shell, files: Path, models: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    words = ["run", "lfmnet", files / "raw.tif", "--dark", files / "dark.tif", "--model", "tiny-net"]
    done = shell(*words, "--set", "z_max_um=6", "-o", first)
    assert done.status == 0, done.err
    assert "The microscope is taken to be 'tiny'" in done.err
    record = read_provenance(first)
    assert record["microscope"]["name"] == "tiny"
    done = shell("run", "--from", first, "-o", second)
    assert done.status == 0, done.err
    np.testing.assert_array_equal(read_image(first).values, read_image(second).values)
    again = read_provenance(second)
    for key in ("method", "parameters", "inputs", "model", "microscope", "lattice"):
        assert again[key] == record[key], key
    assert "--model tiny-net" in as_command(record)
    assert "model='tiny-net'" in as_python(record)

    put_model(models, seed=1)
    done = shell("run", "--from", first, "-o", second)
    assert done.status == 2
    assert "not those that the result was made with (version 1.0 then, 1.1 now" in done.err
    assert "--model tiny-net" in done.err
    done = shell("run", "--from", first, "-o", second, "--model", "tiny-net")
    assert done.status == 0, done.err
    assert read_provenance(second)["model"]["version"] == "1.1"


def test_a_model_may_be_a_folder(shell: Shell, files: Path, models: Path, tmp_path: Path) -> None:
    put_model(tmp_path / "elsewhere", seed=2, name="mine")
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    folder = tmp_path / "elsewhere" / "mine"
    done = shell("run", "lfmnet", files / "raw.tif", "--model", folder, "-o", first)
    assert done.status == 0, done.err
    record = read_provenance(first)
    assert (record["model"]["id"], record["model"]["folder"]) == ("mine", str(folder))
    assert f"--model {folder}" in as_command(record)
    done = shell("run", "--from", first, "-o", second)
    assert done.status == 0, done.err
    np.testing.assert_array_equal(read_image(first).values, read_image(second).values)


def test_what_is_resampled_is_said(shell: Shell, files: Path, models: Path, tmp_path: Path) -> None:
    settings = ("--set", "voxels_per_lenslet=5", "--set", "z_step_um=3")
    words = ("run", "lfmnet", files / "raw.tif", "--microscope", files / "tiny.yaml", *settings)
    done = shell(*words, "-o", tmp_path / "v.tif")
    assert done.status == 0, done.err
    assert "its volume is resampled to 5" in done.err
    assert "they are interpolated" in done.err
    assert read_image(tmp_path / "v.tif").shape == (9, 65, 75)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "tiny-nett"], "tiny-nett"),
        (["--model", "tiny-net", "--set", "z_max_um=40"], "trained for depths of -12 to 12 um"),
        (["--model", "tiny-net", "--microscope", "mbl-60x1.2w"], "does not fit"),
        (["--microscope", "mbl-60x1.2w", "--layout", "lenslet:8"], ""),
        (["--model", "tiny-net", "--memory-gib", "0.01"], "smallest tile"),
        (["--model", "tiny-net", "--set", "refine_iterations=101"], "refine_iterations = '101' must be"),
    ],
)
def test_bad_requests_end_with_a_sentence(
    shell: Shell, files: Path, models: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    out = tmp_path / "v.tif"
    done = shell("run", "lfmnet", files / "raw.tif", *words, "-o", out, "--json")
    assert done.status == 2, done.err
    assert says in done.err
    assert done.out == ""
    assert not out.exists()


def test_weights_that_are_broken_are_refused(shell: Shell, files: Path, models: Path, tmp_path: Path) -> None:
    weights = models / "tiny-net" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = shell("run", "lfmnet", files / "raw.tif", "--model", "tiny-net", "-o", tmp_path / "v.tif")
    assert done.status == 2, done.err
    assert "Traceback" not in done.err
