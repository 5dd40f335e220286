"""``train refocus``: from simulated specimens or a focal stack to a model, stopped, gone on with, refused."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.io.write import write_image
from napari_lfm.training import refocus

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell  # only for reading

RECIPE: dict[str, Any] = {
    "minutes": 30,
    "range_um": 4.0,
    "device": "cpu",
    "start_from": "",
    "tuning": {
        "widths": [4, 6],
        "bands": [6],
        "sweep": True,
        "patch_px": 32,
        "planes": 2,
        "validate_every_steps": 2,
    },
}


@pytest.fixture
def worm(tmp_path: Path) -> Path:
    spots = 1e4 * (np.random.default_rng(1).random((32, 96)) > 0.98)
    planes = np.stack([gaussian_filter(spots, 1 + abs(k - 3)) + 50 for k in range(7)])
    path = tmp_path / "worm.tif"
    write_image(path, labelled(planes.astype(np.uint16), "zyx", {"z": 2.0, "y": 0.65, "x": 0.65}))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_a_stack_becomes_a_model(shell: Shell, worm: Path, recipe: Path, tmp_path: Path) -> None:
    words = ("train", "refocus", worm, "--na", 0.3, "--recipe", recipe, "--steps", 2, "--json")
    done = shell(*words, "-o", tmp_path / "mine")
    assert done.status == 0, done.err
    assert (done.json["id"], done.json["reason"], done.json["steps"]) == ("mine", "steps", 2)
    assert {"psnr_db", "input_db"} <= set(done.json)
    assert "confocal_db" not in done.json
    # before the start, and while it runs
    assert "7 planes of 32 x 96 pixels, 2 um apart" in done.err
    assert "+ as the planes' index rises" in done.err
    assert "Step 2: refocused" in done.err
    shown = shell("models", "--show", tmp_path / "mine")
    assert "1 focal stack of the user (worm.tif)" in shown.out + shown.err


def test_stopping_keeps_the_best_and_resume_goes_on(
    shell: Shell, worm: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = refocus.RefocusTask.batch

    def batch(self: Any, index: int) -> Any:
        if index == 3:
            signal.raise_signal(signal.SIGINT)
        return real(self, index)

    monkeypatch.setattr(refocus.RefocusTask, "batch", batch)
    words = ("train", "refocus", worm, "--na", 0.3, "--recipe", recipe, "--json")
    stopped = shell(*words, "--steps", 4)
    assert (stopped.status, stopped.json["reason"]) == (1, "stopped"), stopped.err
    assert stopped.json["id"] == "refocus-worm"
    assert "--resume goes on" in stopped.err
    assert shell("models", "--locate", "refocus-worm").status == 0
    monkeypatch.setattr(refocus.RefocusTask, "batch", real)
    done = shell(*words, "--steps", 4, "--resume")
    assert (done.status, done.json["reason"], done.json["steps"]) == (0, "steps", 4), done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere.tif",), "nowhere.tif"),
        (("--voxel-um", "2,0.3,0.65"), "no squares"),
        (("--voxel-um", "0.2,0.65,0.65"), "2 um apart, and the training is for 0.2 um"),
        (("--start-from", "nothing"), "nothing"),
        (("--na", "1.4"), "immersion"),
        (("--confocal", "a.tif", "--confocal", "b.tif"), "1 stacks and 2 confocal ones"),
        (("--confocal", "nowhere.tif"), "nowhere.tif"),
        (("--set", "patc=3"), "Did you mean 'patch_px'"),
        (("--specimen", "beads"), "--specimen means nothing to 'refocus'"),
        (("--pairs", "somewhere"), "--pairs means nothing to 'refocus'"),
        (("--resume", "--id", "never"), "no training to go on with"),
        (("--minutes", "0"), "minutes"),
    ],
)
def test_wrong_options_are_told_in_words(
    shell: Shell, worm: Path, recipe: Path, words: tuple[str, ...], says: str
) -> None:
    given = () if words[0] == "nowhere.tif" else (worm,)
    options = () if "--na" in words else ("--na", 0.3)
    failed = shell("train", "refocus", *given, *options, "--recipe", recipe, *words)
    assert failed.status == 2
    assert says in failed.err
    assert "Traceback" not in failed.err


def test_other_networks_do_not_take_focal_stacks(shell: Shell, worm: Path) -> None:
    for method in ("lfmnet", "wfcon", "localize"):
        failed = shell("train", method, worm)
        assert failed.status == 2
        assert f"STACKS means nothing to '{method}'" in failed.err
