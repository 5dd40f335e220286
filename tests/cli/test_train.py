"""``train lfmnet``: from a recipe or options to a model, stopped with Ctrl-C, gone on with."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from napari_lfm.methods import train_lfmnet
from napari_lfm.training import lfmnet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Shell  # only for reading

RECIPE: dict[str, Any] = {
    "microscope": "optics.yaml",
    "z_min_um": -12,
    "z_max_um": 12,
    "z_step_um": 12,
    "voxels_per_lenslet": 3,
    "specimen": "beads",
    "minutes": 45,
    "device": "cpu",
    "compare": False,
    "tuning": {
        "cells": 6,
        "optics": 1,
        "z_substeps": 1,
        "pool": 2,
        "batch_size": 1,
        "prefetch": 0,
        "validate_every_steps": 2,
    },
}
OPTICS = {
    "name": "tiny",
    "objective": {"magnification": 20, "na": 0.45},
    "lenslets": {"pitch_um": 100, "focal_length_um": 2200},
    "camera": {"pixel_um": 20},
    "wavelength_um": 0.55,
    "sample_index": 1.0,
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lfmnet, "VALIDATION_SCENES", 1)
    monkeypatch.setattr(lfmnet, "REPROJECTION_WEIGHT", 0.0)
    (tmp_path / "optics.yaml").write_text(yaml.safe_dump(OPTICS))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_a_recipe_becomes_a_model(shell: Shell, recipe: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    done = shell("train", "lfmnet", "--recipe", recipe, "--steps", 2, "-o", model, "--json")
    assert done.status == 0, done.err
    assert done.json["model"] == str(model)
    assert (done.json["id"], done.json["steps"], done.json["reason"]) == ("mine", 2, "steps")
    assert done.json["psnr_db"] > 0
    assert "The first step comes after" in done.err
    assert "network" in done.err
    shown = shell("models", "--show", model, "--json")
    assert shown.status == 0, shown.err
    assert (
        "--recipe" in (model / "card.json").read_text() or "napari-lfm" in (model / "card.json").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_keeps_the_best_and_resume_goes_on(
    shell: Shell, recipe: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = train_lfmnet.LfmnetTask.batch

    def batch(self: Any, index: int) -> Any:
        if index == 3:
            signal.raise_signal(number)
        return real(self, index)

    monkeypatch.setattr(train_lfmnet.LfmnetTask, "batch", batch)
    words = ("train", "lfmnet", "--recipe", recipe, "--id", "mine", "--json")
    stopped = shell(*words, "--steps", 4)
    assert stopped.status == 1, stopped.err  # as 'run --keep-partial'
    assert (stopped.json["reason"], stopped.json["steps"], stopped.json["id"]) == ("stopped", 3, "mine")
    assert "--resume goes on" in stopped.err
    assert shell("models", "--locate", "mine").status == 0
    monkeypatch.setattr(train_lfmnet.LfmnetTask, "batch", real)
    done = shell("train", "lfmnet", "--resume", "--id", "mine", "--steps", 4, "--json")
    assert done.status == 0, done.err
    assert (done.json["reason"], done.json["steps"]) == ("steps", 4)


def test_stopping_before_the_first_step_says_that_nothing_is_there(
    shell: Shell, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: Any) -> Iterator[tuple[int, int, str]]:
        yield 1, 2, "Computing the optics"
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lfmnet.LfmnetTask, "prepare", prepare)
    done = shell("train", "lfmnet", "--recipe", recipe, "--steps", 4, "--json")
    assert done.status == 1
    assert done.json["model"] is None
    assert "nothing to keep" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--specimen", "vesels"), "did you mean 'vessels'"),
        (("--size", "meduim"), "did you mean 'medium'"),
        (("--set", "poool=3"), "Did you mean 'pool'"),
        (("--microscope", "wf-20x0.8"), "no lenslet array"),
        (("--minutes", "0.0001"), "nothing can be learned"),
        (("--resume", "--id", "never"), "no training to go on with"),
        (("--white", "nowhere.tif"), "nowhere.tif"),
    ],
)
def test_wrong_options_are_told_in_words(
    shell: Shell, recipe: Path, words: tuple[str, ...], says: str
) -> None:
    done = shell("train", "lfmnet", "--recipe", recipe, *words, "--json")
    assert (done.status, done.out) == (2, "")
    assert says in done.err


def test_a_microscope_is_needed(shell: Shell) -> None:
    done = shell("train", "lfmnet")
    assert done.status == 2
    assert "no microscope" in done.err
