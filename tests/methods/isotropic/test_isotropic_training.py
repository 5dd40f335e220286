"""Training on the stack itself: from a file or in one job with restoring, stopped, gone on with, refused."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.write import write_image
from napari_lfm.methods.base import get_method
from napari_lfm.methods.isotropic.job import restore_after_training
from napari_lfm.methods.train_isotropic import (
    IsotropicStack,
    IsotropicWish,
    TrainedModel,
    make_isotropic_wish,
    run_isotropic_training,
    training_folder,
    wish_on_record,
)
from napari_lfm.methods.train_isotropic_check import check_isotropic, estimate_isotropic
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.networks.weights import load_weights
from napari_lfm.training import isotropic
from napari_lfm.training.events import Validated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.methods.base import Request

METHOD = get_method("isotropic")
TUNING: dict[str, Any] = {"widths": (4, 6), "patch_px": 32, "batch_size": 2, "validate_every_steps": 2}


@pytest.fixture
def stack(make: Any) -> IsotropicStack:
    return IsotropicStack("cells", make.image(make.values()))


def wish_of(**changes: Any) -> IsotropicWish:
    values: dict[str, Any] = {
        "layers": () if "stacks" in changes else "cells",
        "blur_um": 0.25,
        "minutes": None,
        "steps": 4,
        "device": "cpu",
        "precision": "float32",
        "tuning": TUNING,
    }
    return make_isotropic_wish({**values, **changes})


def trained(wish: IsotropicWish, stack: IsotropicStack | None = None, **how: Any) -> TrainedModel:
    last = list(run_isotropic_training(wish, layers=[] if stack is None else [stack], **how))[-1]
    assert isinstance(last, TrainedModel)
    return last


def weights_of(model: TrainedModel) -> dict[str, torch.Tensor]:
    assert model.entry is not None
    return load_weights(model.entry.folder, model.entry.card)


def same(a: TrainedModel, b: TrainedModel) -> bool:
    one, two = weights_of(a), weights_of(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# ------------------------------------------------------------------------ a training
def test_from_a_file_to_a_model(make: Any, bundled: Any, tmp_path: Path) -> None:
    path = tmp_path / "my cells.ome.tif"
    write_image(path, make.image(make.values()))
    wish = wish_of(stacks=str(path), blur_um=0, title="Mine")
    events = list(run_isotropic_training(wish))
    said = [e.message for e in events if isinstance(e, Progress)]
    assert said[0] == "Reading my cells.ome.tif"
    assert any(s.startswith("Blur along z beyond x and y: sigma") for s in said)
    scores = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in scores] == [0, 2, 4]
    assert set(scores[0].images) == {"truth", "input", "network", "xz_before", "xz_after"}
    # before the first step the network changes nothing
    assert scores[0].values["gain_db"] == pytest.approx(0, abs=1e-4)
    assert np.allclose(scores[0].images["xz_before"], scores[0].images["xz_after"])
    last = events[-1]
    assert isinstance(last, TrainedModel)
    assert last.entry is not None
    card = last.entry.card
    assert [e.card.id for e in list_models("isotropic")] == ["isotropic-my-cells"]
    assert (card.title, card.architecture, card.licence) == ("Mine", "isotropic", "user's own")
    assert card.network == {"widths": [4, 6], "channels": 1}
    assert card.scalers["factor"] == pytest.approx(4.8)
    assert (card.scalers["low_percentile"], card.scalers["high_percentile"]) == (2.0, 99.8)
    assert card.training["stack"]["fingerprint"].startswith("sha256:")
    assert card.training["blur"]["blur_source"] in ("estimate", "assumed")
    assert card.training["task"]["stack"]["degradation"]["factor"] == pytest.approx(4.8)
    assert "10 x 40 x 48 voxels, planes 4.8 pixels apart" in card.data
    assert card.scores[0]["psnr_db"] == pytest.approx(max(e.score for e in scores[1:]))


def test_going_on_equals_a_training_that_was_not_stopped(bundled: Any, stack: IsotropicStack) -> None:
    whole = trained(wish_of(id="whole"), stack)
    events: Any = run_isotropic_training(wish_of(id="parts"), layers=[stack])
    next(e for e in events if isinstance(e, Validated) and e.step == 2)
    assert [e.card.id for e in list_models("isotropic")] == ["parts", "whole"]
    events.close()
    folder = training_folder("parts")
    parts = trained(make_isotropic_wish(wish_on_record(folder)), stack, resume=True)
    assert parts.result is not None
    assert (parts.result.step, parts.result.reason) == (4, "steps")
    assert same(whole, parts)
    with pytest.raises(RequestError, match="another one: factor"):
        trained(wish_of(id="parts", factor=4), stack, resume=True)
    with pytest.raises(RequestError, match=r"a training in .* already"):
        trained(wish_of(id="parts"), stack)


def test_another_stack_is_not_gone_on_with(make: Any, bundled: Any, stack: IsotropicStack) -> None:
    trained(wish_of(id="mine", steps=2), stack)
    other = IsotropicStack("cells", make.image(make.values(seed=5)))
    with pytest.raises(RequestError, match="another training run"):
        trained(wish_of(id="mine", steps=3), other, resume=True)
    with pytest.raises(RequestError, match="not here: cells"):
        trained(wish_of(id="mine", steps=3), resume=True)


@pytest.mark.parametrize(
    ("wishes", "network"),
    [
        ({"probabilistic": True}, {"widths": [4, 6], "channels": 1, "probabilistic": True}),
        (
            {"architecture": "isotropic-csbdeep", "profile": "csbdeep", "tuning": {"base": 4, "kernel": 3}},
            {"base": 4, "kernel": 3, "channels": 2},
        ),
        (
            {"architecture": "isotropic-csbdeep", "tuning": {"base": 4, "depth": 1}},
            {"base": 4, "depth": 1, "channels": 1},
        ),
        ({"architecture": "isotropic-isonet1", "tuning": {}}, {}),
    ],
)
def test_networks_and_channels(
    make: Any, bundled: Any, wishes: dict[str, Any], network: dict[str, Any]
) -> None:
    both = IsotropicStack("cells", make.image(np.stack([make.values(), make.values(seed=1)]), "czyx"))
    tuning = {**TUNING, **wishes.pop("tuning", {})}
    if "architecture" in wishes:
        tuning.pop("widths")
    model = trained(wish_of(steps=2, tuning=tuning, **wishes), both)
    assert model.entry is not None
    assert model.entry.card.network == network
    assert model.entry.card.scalers["csbdeep"] == float(wishes.get("profile") == "csbdeep")
    assert "2 channels" in model.entry.card.data


def test_one_frame_and_one_channel(make: Any, bundled: Any) -> None:
    movie = np.stack([np.stack([make.values(seed=2 * t + c) for c in range(2)]) for t in range(3)])
    stack = IsotropicStack("cells", make.image(movie, "tczyx"))
    model = trained(wish_of(steps=1, channel=1), stack)
    assert model.result is not None and model.entry is not None
    assert model.result.task["stack"]["shape"] == [1, 10, 40, 48]
    assert model.entry.card.training["stack"]["frame"] == 1
    with pytest.raises(RequestError, match="There is no frame 3: the stack has 3"):
        trained(wish_of(frame=3), stack)


# ------------------------------------------------------------------ where it begins
def test_the_starter_is_the_start_unless_something_else_is_said(
    make: Any, starter: Any, bundled: Any, stack: IsotropicStack
) -> None:
    tuning = {k: v for k, v in TUNING.items() if k != "widths"}
    wish = wish_of(tuning=tuning, id="warm", steps=1)
    assert (wish.start_from, wish.tuning.widths) == ("isotropic-starter", (4, 6))
    first = next(e for e in run_isotropic_training(wish, layers=[stack]) if isinstance(e, Validated))
    assert first.step == 0
    assert abs(first.values["gain_db"]) > 1e-3  # the starter changes what it sees
    assert not list((user_model_dir()).glob("*"))
    shutil.rmtree(training_folder("warm"))
    warm = trained(wish, stack)
    assert warm.entry is not None
    assert "fine-tuned from 'isotropic-starter'" in warm.entry.card.data
    assert wish_of(tuning=tuning, start_from="None").start_from == "none"
    assert wish_of().start_from == "none"  # other widths are asked for
    assert wish_of(tuning=tuning, architecture="isotropic-isonet2").start_from == "none"
    assert wish_of(tuning=tuning, profile="csbdeep").start_from == "none"
    # widths are learned anew, all else is the starter's
    unsure = trained(wish_of(tuning=tuning, id="unsure", probabilistic=True, steps=1), stack)
    assert unsure.entry is not None
    assert unsure.entry.card.network["probabilistic"] is True
    # a training that was begun does not need its start any more
    shutil.rmtree(bundled / "isotropic-starter")
    on = make_isotropic_wish({**wish_on_record(warm.folder), "steps": 2})
    assert trained(on, stack, resume=True).result is not None


def test_starts_that_do_not_fit(make: Any, bundled: Any, stack: IsotropicStack) -> None:
    make.put_model(bundled, "two", network={"widths": [4, 6], "channels": 2})
    make.put_model(bundled, "wide", method="wfcon")
    with pytest.raises(RequestError, match="another one than the one to be trained"):
        trained(wish_of(start_from="two"), stack)
    [problem] = check_isotropic(wish_of(start_from="two"), [stack])
    assert "sees 2 channels together" in problem.message
    with pytest.raises(RequestError, match="for the method 'wfcon'"):
        wish_of(start_from="wide", tuning={})
    with pytest.raises(RequestError, match="is 'isotropic', not 'isotropic-isonet1'"):
        wish_of(start_from="two", architecture="isotropic-isonet1", tuning={})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": ()}, "no stack is given"),
        ({"layers": ("a", "b")}, "2 stacks are given"),
        ({"steps": None}, "give the length"),
        ({"factr": 2}, "Did you mean 'factor'"),
        ({"tuning": {"batch": 2}}, "Did you mean 'batch_size'"),
        ({"tuning": {"factor": 100}}, "factor = 100"),
        ({"id": "a b"}, "cannot be the id"),
        ({"voxel_um": (1, 0, 1)}, "above 0"),
        ({"architecture": "isotropic-isonet2", "probabilistic": True}, "does not state"),
    ],
)
def test_wishes_that_are_none(bundled: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        wish_of(**changes)


def test_what_a_training_takes(bundled: Any, stack: IsotropicStack) -> None:
    wish = wish_of(steps=None, minutes=5)
    assert check_isotropic(wish, [stack]) == []
    estimate = estimate_isotropic(wish, [stack])
    assert estimate.steps > 100
    assert "10 planes become 44" in estimate.sentences[0]
    assert "begins with random weights" in estimate.sentences[1]
    assert "in 5 min" in estimate.sentences[2]
    assert estimate_isotropic(wish_of(steps=7), [stack]).steps == 7


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda v: v[:2], "too small"),
        (lambda v: v[:, :20], "too small to train on"),
        (lambda v: 0 * v, "All pixels are zero"),
        (lambda v: np.full(v.shape, np.nan, np.float32), "No pixel holds a number"),
    ],
)
def test_stacks_that_cannot_be_trained_on_leave_nothing(
    make: Any, bundled: Any, spoil: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    stack = IsotropicStack("cells", make.image(spoil(make.values())))
    assert says in check_isotropic(wish_of(), [stack])[0].message
    with pytest.raises(RequestError):
        trained(wish_of(id="mine"), stack)
    assert not training_folder("mine").exists()


def test_a_full_disk_is_told(bundled: Any, stack: IsotropicStack, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    events: Any = run_isotropic_training(wish_of(id="mine"), layers=[stack])
    next(e for e in events if isinstance(e, Validated))
    monkeypatch.setattr("napari_lfm.io.atomic.os.fsync", full)
    with pytest.raises(LfmError, match="the disk is full"):
        list(events)


# ---------------------------------------------------------------- one job with restoring
def test_train_and_restore(make: Any, ask: Callable[..., Request], starter: Any) -> None:
    request = ask(make.image(make.values()), train_steps=2, sources={"image": "/data/my cells.tif"})
    assert METHOD.check(request) == []
    events = list(restore_after_training(request))
    kinds = [type(e).__name__ for e in events if not isinstance(e, Progress)]
    assert kinds == ["Validated", "Validated", "TrainedModel", "Preview", "Result"]
    result, model = events[-1], next(e for e in events if isinstance(e, TrainedModel))
    assert isinstance(result, Result) and model.entry is not None
    assert model.entry.card.id == "isotropic-my-cells"
    assert model.entry.card.training["blur"]["blur_um"] == result.provenance["figures"]["blur_um"]
    assert result.provenance["model"]["id"] == "isotropic-my-cells"
    assert result.provenance["figures"]["trained"]["steps"] == 2
    assert result.provenance["figures"]["trained"]["started_from"] == "isotropic-starter"
    # the same again uses what was trained
    record = result.provenance
    assert (record["parameters"]["train_minutes"], record["parameters"].get("train_steps")) == (0, None)
    again = list(
        METHOD.run(ask(make.image(make.values()), model="isotropic-my-cells", **record["parameters"]))
    )
    assert isinstance(again[-1], Result)
    assert np.array_equal(again[-1].outputs["isotropic"], result.outputs["isotropic"])


def test_the_method_says_what_the_training_does(ask: Callable[..., Request], starter: Any) -> None:
    events = list(METHOD.run(ask(train_steps=2)))
    assert {type(e) for e in events} == {Progress, Preview, Result}
    said = [e.message for e in events if isinstance(e, Progress)]
    assert any(s.startswith("Planes that were set aside: ") for s in said)
    assert "Training, step 2" in said
    assert "The model will be 'isotropic-cells'; stopping keeps the best so far" in said


def test_stopping_keeps_the_model_and_goes_on(
    ask: Callable[..., Request], starter: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(isotropic, "BATCH_SIZE", 2)
    request = ask(train_steps=4)
    events: Any = restore_after_training(request)
    next(e for e in events if isinstance(e, Progress) and e.message == "Training" and e.step == 2)
    events.close()
    [entry] = [e for e in list_models("isotropic") if e.source == "user"]
    assert (entry.card.id, entry.problem) == ("isotropic-cells", "")
    on = list(restore_after_training(request, resume=True))
    model = next(e for e in on if isinstance(e, TrainedModel))
    assert model.result is not None and model.result.step == 4
    assert isinstance(on[-1], Result)


def test_stopping_before_the_first_step_leaves_no_model(ask: Callable[..., Request], starter: Any) -> None:
    request = ask(train_steps=4)
    events: Any = restore_after_training(request)
    next(e for e in events if isinstance(e, Validated))
    events.close()
    assert [e for e in list_models("isotropic") if e.source == "user"] == []


def test_no_model_is_wanted(make: Any, ask: Callable[..., Request], starter: Any, bundled: Any) -> None:
    [problem] = METHOD.check(ask(model="none"))
    assert "set train_minutes" in problem.remedy
    assert METHOD.check(ask(model="none", train_minutes=1)) == []
    make.put_model(bundled, "wide", method="wfcon")
    [problem] = METHOD.check(ask(model="wide", train_minutes=1))
    assert (problem.severity, problem.field) == ("error", "model")
