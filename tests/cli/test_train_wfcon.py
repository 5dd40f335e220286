"""``train wfcon``: from a folder of pairs to a model, stopped with Ctrl-C, gone on with, refused in words."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.io.write import write_image
from napari_lfm.methods import train_wfcon
from napari_lfm.training import wfcon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell  # only for reading

RECIPE: dict[str, Any] = {
    "register_pairs": False,
    "minutes": 45,
    "device": "cpu",
    "tuning": {
        "widths": [4, 8],
        "z_pool_levels": 1,
        "patch": [8, 32, 32],
        "batch_size": 1,
        "validate_every_steps": 2,
    },
}


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wfcon, "load_vgg", lambda _: None)
    for side in ("input", "target"):
        (tmp_path / "mouse" / side).mkdir(parents=True)
    for k in range(3):
        confocal = gaussian_filter(1e4 * (np.random.default_rng(k).random((12, 48, 48)) > 0.995), 1)
        wide = gaussian_filter(confocal, 2) + 50
        for side, values in (("input", wide), ("target", confocal)):
            image = labelled(values.astype(np.uint16), "zyx", {"z": 0.5, "y": 0.1, "x": 0.1})
            write_image(tmp_path / "mouse" / side / f"p{k}.tif", image)
    return tmp_path / "mouse"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_a_folder_becomes_a_model(shell: Shell, pairs: Path, recipe: Path) -> None:
    dark = labelled(np.zeros((12, 48, 48), np.uint16), "zyx", {"z": 0.5, "y": 0.1, "x": 0.1})
    for side in ("input", "target"):
        write_image(pairs / side / "night.tif", dark)
    write_image(pairs / "input" / "alone.tif", dark)
    words = ("train", "wfcon", "--pairs", pairs, "--recipe", recipe, "--steps", 2, "--json")
    done = shell(*words)
    assert done.status == 0, done.err
    assert (done.json["id"], done.json["reason"], done.json["steps"]) == ("wfcon-mouse", "steps", 2)
    assert {"rmse", "ssim", "psnr_db"} <= set(done.json)
    # before the start, and while it runs
    assert "4 pairs, 12 planes of 48 x 48 pixels" in done.err
    assert "1 file without a partner: 'alone'" in done.err
    assert "Left out. A stack of 'night' is all of one brightness." in done.err
    assert "Step 2: RMSE" in done.err
    shown = shell("models", "--show", "wfcon-mouse")
    assert "3 pairs of the user" in shown.out + shown.err
    # the same again gets a name of its own; its own weights can be begun with, of their own network
    recipe.write_text(yaml.safe_dump({**RECIPE, "tuning": {"patch": [8, 32, 32], "batch_size": 1}}))
    again = shell(*words, "--start-from", "wfcon-mouse")
    assert again.status == 0, again.err
    assert again.json["id"] == "wfcon-mouse-2"


def test_stopping_keeps_the_best_and_resume_goes_on(
    shell: Shell, pairs: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wfcon.WfconTask.batch

    def batch(self: Any, index: int) -> Any:
        if index == 6:  # two updates a step
            signal.raise_signal(signal.SIGINT)
        return real(self, index)

    monkeypatch.setattr(wfcon.WfconTask, "batch", batch)
    words = ("train", "wfcon", "--pairs", pairs, "--recipe", recipe, "--id", "mine", "--json")
    stopped = shell(*words, "--steps", 4)
    assert stopped.status == 1, stopped.err
    assert (stopped.json["reason"], stopped.json["id"]) == ("stopped", "mine")
    assert "--resume goes on" in stopped.err
    assert shell("models", "--locate", "mine").status == 0
    monkeypatch.setattr(wfcon.WfconTask, "batch", real)
    done = shell("train", "wfcon", "--resume", "--id", "mine", "--steps", 4, "--json")
    assert done.status == 0, done.err
    assert (done.json["reason"], done.json["steps"]) == ("steps", 4)


def test_stop_and_resume_mean_the_training_that_was_begun_last(
    shell: Shell, pairs: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "wfcon", "--pairs", pairs, "--recipe", recipe, "--json")
    assert shell(*words, "--steps", 2).json["id"] == "wfcon-mouse"
    real = wfcon.WfconTask.batch

    def batch(self: Any, index: int) -> Any:
        if index == 6:
            signal.raise_signal(signal.SIGINT)
        return real(self, index)

    monkeypatch.setattr(wfcon.WfconTask, "batch", batch)
    stopped = shell(*words, "--steps", 4)
    assert (stopped.status, stopped.json["id"]) == (1, "wfcon-mouse-2"), stopped.err
    monkeypatch.setattr(wfcon.WfconTask, "batch", real)
    done = shell(*words, "--steps", 4, "--resume")
    assert (done.status, done.json["id"], done.json["steps"]) == (0, "wfcon-mouse-2", 4), done.err

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    # before anything was begun there is nothing to resume, and no other model is claimed
    monkeypatch.setattr(train_wfcon, "gather", interrupted)
    early = shell(*words, "--steps", 4)
    assert (early.status, early.json["model"]) == (1, None)
    assert "before the first step" in early.err
    assert "--resume" not in early.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--pairs", "nowhere"), "There is no folder nowhere"),
        (("--voxel-um", "0.5,0.1"), "0.3,0.1,0.1"),
        (("--vgg", "nowhere.npz"), "There is no file nowhere.npz"),
        (("--start-from", "nothing"), "nothing"),
        (("--set", "patc=3"), "Did you mean 'patch'"),
        (("--specimen", "beads"), "--specimen means nothing to 'wfcon'"),
        (("--resume", "--id", "never"), "no training to go on with"),
        (("--minutes", "0"), "minutes"),
    ],
)
def test_wrong_options_are_told_in_words(
    shell: Shell, pairs: Path, recipe: Path, words: tuple[str, ...], says: str
) -> None:
    done = shell("train", "wfcon", "--pairs", pairs, "--recipe", recipe, *words, "--json")
    assert (done.status, done.out) == (2, ""), done.err
    assert says in done.err


def test_pairs_mean_nothing_to_lfmnet(shell: Shell) -> None:
    done = shell("train", "lfmnet", "--pairs", "x")
    assert done.status == 2
    assert "--pairs means nothing to 'lfmnet'" in done.err
