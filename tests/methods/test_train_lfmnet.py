"""One button makes a network: end to end on a tiny microscope, stopped, gone on with, refused."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.events import Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.methods import train_lfmnet, train_plan
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.train_lfmnet import (
    TrainedModel,
    TrainWish,
    check_training,
    estimate_training,
    load_recipe,
    make_wish,
    outcome_of_training,
    run_training,
    training_folder,
)
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.networks.weights import load_weights
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.training import lfmnet, lfmnet_card, lfmnet_plan
from napari_lfm.training.checkpoint import LAST, load
from napari_lfm.training.events import Validated
from napari_lfm.training.lightfield_pairs import NEAR_OPTICS, PairSettings

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
N, S, CELLS = 5, 3, 6
MICROSCOPE = Microscope(
    name="tiny 5",
    objective=Objective(magnification=20, na=0.45),
    lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
    camera=Camera(pixel_um=20),
    wavelength_um=0.55,
    sample_index=1.0,
)
TUNING = {
    "cells": CELLS,
    "optics": 1,
    "z_substeps": 1,
    "pool": 2,
    "batch_size": 1,
    "validate_every_steps": 2,
    "precision": "float32",
    "prefetch": 0,
}


def wish_of(**changes: Any) -> TrainWish:
    values: dict[str, Any] = {
        "microscope": MICROSCOPE,
        "z_min_um": -12,
        "z_max_um": 12,
        "z_step_um": 12,
        "voxels_per_lenslet": S,
        "specimen": "beads",
        "minutes": None,
        "steps": 4,
        "seed": 3,
        "device": "cpu",
        "compare": False,
        "tuning": TUNING,
    }
    return make_wish({**values, **changes})


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfmnet, "VALIDATION_SCENES", 1)
    monkeypatch.setattr(lfmnet, "REPROJECTION_WEIGHT", 0.0)  # its operator is tested with the task


def trained(*args: Any, **keywords: Any) -> TrainedModel:
    last = list(run_training(*args, **keywords))[-1]
    assert isinstance(last, TrainedModel)
    return last


def test_from_a_microscope_to_a_volume() -> None:
    wish = wish_of(compare=True, title="Mine")
    assert [p for p in check_training(wish) if p.severity == "error"] == []
    events = list(run_training(wish))
    stages = list(dict.fromkeys(e.message for e in events if isinstance(e, Progress)))
    assert stages == [
        "Computing the optics to compare with",
        "Computing the optics",
        "Computing the optics to start from",
        "Drawing specimens",
        "Drawing specimens to validate on",
        "Deconvolving them, to compare with",
        "Training",
    ]
    scores = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in scores] == [2, 4]
    assert {"psnr_db", "baseline_psnr_db", "rl5_psnr_db"} <= set(scores[0].values)
    assert scores[0].values["baseline_psnr_db"] != scores[0].values["rl5_psnr_db"]
    assert scores[0].images["richardson-lucy"].shape == (CELLS * S, CELLS * S)

    last = events[-1]
    assert isinstance(last, TrainedModel)
    assert last.result is not None
    assert (last.result.reason, last.result.step) == ("steps", 4)
    listed = [e for e in list_models("lfmnet") if e.source == "user"]
    assert listed == [last.entry]
    card = listed[0].card
    assert (card.id, card.title, card.licence) == ("lfmnet-tiny-5", "Mine", "user's own")
    assert card.scores[0]["psnr_db"] == pytest.approx(last.result.best_score, abs=1e-3)
    assert card.scores[0]["rl5_psnr_db"] == pytest.approx(scores[0].values["rl5_psnr_db"], abs=1e-3)
    assert estimate_training(wish).parameters == card.parameters

    rng = np.random.default_rng(3)
    frame = labelled(rng.gamma(2.0, 50.0, (7 * N, 8 * N)).astype(np.float32), "yx", {"y": 1.0, "x": 1.0})
    method = get_method("lfmnet")
    request = Request(
        "lfmnet",
        {"image": frame},
        make_parameters(method, {}),
        MICROSCOPE,
        layout=f"lenslet:{N}",
        model=card.id,
        device="cpu",
    )
    result = list(method.run(request))[-1]
    assert isinstance(result, Result)
    assert result.outputs["volume"].shape == (3, 7 * S, 8 * S)
    assert result.provenance["model"]["sha256"] == card.sha256


def test_stopped_and_gone_on_with_ends_equal_to_uninterrupted(tmp_path: Path) -> None:
    whole = trained(wish_of(steps=5, id="whole"))
    events = run_training(wish_of(steps=5), tmp_path / "run", model_folder=tmp_path / "parts")
    for event in events:
        if isinstance(event, Progress) and event.message == "Training" and event.step == 3:
            events.close()  # type: ignore[attr-defined]
            break
    stopped = outcome_of_training(wish_of(steps=5), tmp_path / "run")
    assert stopped.result is not None
    assert (stopped.result.reason, stopped.result.step) == ("stopped", 3)
    assert stopped.entry is not None and not stopped.entry.problem  # the best so far is a model already
    parts = trained(wish_of(steps=5), tmp_path / "run", resume=True)
    one, two = (load(folder / LAST)[0] for folder in (whole.folder, tmp_path / "run"))
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []
    assert whole.entry is not None and parts.entry is not None
    assert parts.entry.folder == tmp_path / "parts"
    assert parts.entry.card.sha256 == whole.entry.card.sha256
    assert parts.entry.card.scalers == whole.entry.card.scalers


def test_going_on_needs_the_same_wish_and_more_time() -> None:
    first = trained(wish_of(steps=2))
    assert first.folder == training_folder("lfmnet-tiny-5")
    with pytest.raises(RequestError, match="2 steps already"):
        list(run_training(wish_of(steps=2), resume=True))
    with pytest.raises(RequestError, match=r"another one: seed was different"):
        list(run_training(wish_of(steps=9, seed=4), resume=True))
    with pytest.raises(RequestError, match="no training to go on with"):
        list(run_training(wish_of(id="never"), resume=True))
    further = trained(wish_of(steps=3, compare=True), resume=True)
    assert further.result is not None
    assert further.result.step == 3
    # a second training takes another name, and the first model stays
    second = trained(wish_of(steps=2))
    assert second.entry is not None
    assert second.entry.card.id == "lfmnet-tiny-5-2"
    assert {e.card.id for e in list_models("lfmnet") if e.source == "user"} == {
        "lfmnet-tiny-5",
        "lfmnet-tiny-5-2",
    }
    with pytest.raises(RequestError, match="already"):
        list(run_training(wish_of(id="lfmnet-tiny-5")))
    with pytest.raises(RequestError, match="already"):
        list(run_training(wish_of(), first.folder))


def test_another_version_does_not_touch_what_an_older_one_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(wish_of(steps=2))
    assert first.entry is not None
    files = {p.name: p.read_bytes() for p in first.entry.folder.iterdir()}
    for noise in ((2.0, 0.3), (1.0,)):  # the same shapes, and others
        monkeypatch.setattr(lfmnet_plan, "START_NOISE", noise)
        with pytest.raises(RequestError, match="belongs to another training run"):
            list(run_training(wish_of(steps=4), resume=True))
    # not even where nothing warns before
    monkeypatch.setattr(train_lfmnet, "refuse_other_run", lambda *_: None)
    with pytest.raises(RequestError):
        list(run_training(wish_of(steps=4), resume=True))
    assert {p.name: p.read_bytes() for p in first.entry.folder.iterdir()} == files
    with pytest.raises(RequestError, match="belong to another network"):
        plan = train_plan.make_plan(wish_of())
        lfmnet_card.finish_model(first.folder, plan, 1.0, first.folder / "model")
    assert not (first.folder / "model").exists()


def test_what_is_stopped_before_its_first_step_leaves_nothing() -> None:
    events = run_training(wish_of())
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert not training_folder("lfmnet-tiny-5").exists()
    assert [e for e in list_models() if e.source == "user"] == []


def test_losses_that_are_no_numbers_keep_the_last_good_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def loss(self: Any, phase: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        calls.append(phase)
        weight = next(self.modules["network"].parameters())
        value = weight.square().mean() * (1.0 if len(calls) <= 3 else float("nan"))
        return {"loss": value}

    monkeypatch.setattr(train_lfmnet.LfmnetTask, "loss", loss)
    last = trained(wish_of(steps=1000, id="nan"))
    assert last.result is not None and last.entry is not None
    assert last.result.reason == "unstable"
    assert "not finite" in last.result.sentence
    assert last.result.best_step <= 3
    weights = load_weights(last.entry.folder, last.entry.card)
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    # nothing but such losses from the start: there is no model, and it is said
    calls.extend(["again"] * 9)
    nothing = trained(wish_of(steps=1000, id="never"))
    assert nothing.entry is None
    assert nothing.result is not None and nothing.result.reason == "unstable"


def test_a_full_disk_is_said_and_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failed = train_lfmnet.finish_model, []

    def full(*args: Any, **keywords: Any) -> Any:
        if not failed:
            failed.append(1)
            raise LfmError("The model was not saved because the disk is full.", "Free some space.")
        return real(*args, **keywords)

    monkeypatch.setattr(train_lfmnet, "finish_model", full)
    events = list(run_training(wish_of()))
    notes = [e.message for e in events if isinstance(e, Progress) and "disk is full" in e.message]
    assert notes == ["Training goes on, but the model was not saved because the disk is full."]
    assert isinstance(events[-1], TrainedModel)
    assert events[-1].entry is not None and not events[-1].entry.problem


def test_a_place_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for places in ({"folder": blocked / "run"}, {"model_folder": blocked / "model"}):
        with pytest.raises(RequestError, match=r"cannot be made"):
            next(run_training(wish_of(), **places))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(RequestError, match="may not write"):
        next(run_training(wish_of(), tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"specimen": "vesels"}, "did you mean 'vessels'"),
        ({"size": "smal"}, "did you mean 'small'"),
        ({"size": "enormous"}, "use one of small, medium, large, paper"),
        ({"minutes": None, "steps": None}, "minutes, steps or both"),
        ({"minutes": -1}, "greater than 0"),
        ({"specimens": "beads"}, "Did you mean 'specimen'"),
        ({"tuning": {"batchsize": 3}}, "Did you mean 'batch_size'"),
        ({"id": "no/slash"}, "cannot be the id"),
        ({"pupil": (0.0, 0.0)}, "two or more intensities"),
        ({"microscope": None}, "no microscope"),
        ({"microscope": "mbl-60x1.2"}, "Did you mean 'mbl-60x1.2w'"),
    ],
)
def test_a_wrong_wish_is_told_in_words(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        wish_of(**changes)


def other_array(**changes: Any) -> Microscope:
    record = MICROSCOPE.model_dump()
    record["lenslets"] = {**record["lenslets"], **changes} if changes else None
    return Microscope.model_validate(record)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wish_of(microscope=other_array()), "no lenslet array"),
        (lambda: wish_of(microscope=other_array(lattice="hexagonal")), "is hexagonal"),
        (lambda: wish_of(z_min_um=5, z_max_um=-5), "is empty"),
        (lambda: wish_of(z_min_um=0, z_max_um=1, z_step_um=3), "One plane is no volume"),
        (lambda: wish_of(n_pixels=6), "must be odd"),
        (lambda: wish_of(minutes=1e-4, steps=None), "nothing can be learned"),
        (lambda: wish_of(device="mps"), "no usable 'mps' device"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    make: Callable[[], TrainWish], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    wish = make()
    assert any(says in p.message and p.severity == "error" for p in check_training(wish))
    with pytest.raises(RequestError, match=says):
        next(run_training(wish))


def test_a_training_that_does_not_fit_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_lfmnet, "memory_budget", lambda device: 2**28)
    (problem,) = check_training(wish_of())
    assert "GiB of memory, and 0.2 GiB can be had" in problem.message


def test_the_minutes_choose_how_many_microscopes_are_simulated() -> None:
    free = {"tuning": {}, "steps": None, "microscope": "mbl-60x1.2w", "voxels_per_lenslet": 3}
    short = train_plan.make_plan(wish_of(**free, minutes=20)).settings
    long = train_plan.make_plan(wish_of(**free, minutes=60)).settings
    own = train_plan.make_plan(wish_of(**free, minutes=20, pupil=(2.0, 1.0))).settings
    assert short.errors == NEAR_OPTICS[:1]
    assert long.errors == NEAR_OPTICS
    assert [e.pupil for e in own.errors] == [(1.0, 0.5), NEAR_OPTICS[0].pupil]
    assert short.cells == 20
    assert short.pool < long.pool


def test_optics_that_no_microscope_has_are_left_out() -> None:
    # a dry sample: no index below air's
    errors = train_plan.make_plan(wish_of(tuning={**TUNING, "optics": 4})).settings.errors
    assert [e.pupil for e in errors] == [e.pupil for e in NEAR_OPTICS]
    assert all(e.sample_index >= 0 for e in errors)
    assert errors[3].na == NEAR_OPTICS[3].na


def test_the_recipes_can_be_planned_and_the_shipped_ones_say_all() -> None:
    for path in sorted(RECIPES.glob("lfmnet-*.yaml")):
        wish = make_wish({**load_recipe(path), "device": "cpu"})
        assert wish.id.startswith(path.stem.split("-gpu")[0][:12])
    mbl = make_wish(load_recipe(RECIPES / "lfmnet-mbl-60x1.2w.yaml"))
    plan, config = train_plan.make_plan(mbl), train_plan.make_settings(mbl)
    assert plan.settings == PairSettings(families=plan.settings.families, cells=20, fresh_every=6)
    assert plan.z_um == tuple(float(z) for z in range(-7, 8))
    recipe = load_recipe(RECIPES / "lfmnet-mbl-60x1.2w.yaml")
    assert (config.minutes, config.seed) == (recipe["minutes"], recipe["seed"])
    # what the recipe says counts, not what would be chosen without it
    tuning = {**recipe["tuning"], "learning_rate": 3e-5, "batch_size": 7}
    changed = train_plan.make_settings(make_wish({**recipe, "tuning": tuning}))
    assert (changed.learning_rate, changed.batch_size) == (3e-5, 7)


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with pytest.raises(RequestError, match="cannot be read"):
        load_recipe(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(RequestError, match="is no recipe"):
        load_recipe(path)
    path.write_text("a: [1\n")
    with pytest.raises(RequestError, match="is not YAML"):
        load_recipe(path)


def test_the_published_network_trains_and_its_estimate_is_honest() -> None:
    wish = wish_of(size="paper", steps=2, id="paper")
    assert any("would take" in s for s in estimate_training(wish).sentences)
    last = trained(wish)
    assert last.entry is not None
    assert (last.entry.card.architecture, last.entry.card.voxels_per_lenslet) == ("lfmnet-paper", N)
    assert user_model_dir() / "paper" == last.entry.folder
