"""Training of CISTA-net: what it leaves is a model that finds neurons; a stopped one goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_lfm.core.events import Result
from napari_lfm.core.metrics import match_points
from napari_lfm.core.problems import RequestError
from napari_lfm.methods import train_localize_wish
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.localization import card as localize_card
from napari_lfm.methods.localization.templates import make_templates
from napari_lfm.methods.train_localize import run_localize_training
from napari_lfm.methods.train_localize_wish import make_localize_wish, task_of
from napari_lfm.methods.train_wish import load_recipe
from napari_lfm.networks.catalogue import list_models, read_model
from napari_lfm.simulation.neuron_fields import OPTICS, NeuronSettings
from napari_lfm.training import cista
from napari_lfm.training.events import Validated

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

METHOD = get_method("localize")
RESPONSES: dict[str, Any] = {}
Make = Any


@pytest.fixture
def make(tiny: Microscope, recording: Recording) -> Callable[..., Request]:
    def request(fields: dict[str, Any] | None = None, **parameters: Any) -> Request:
        given = {
            "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
            "microscope": tiny,
            "lattice": recording["lattice"],
            "device": "cpu",
            **(fields or {}),
        }
        return Request("localize", parameters=make_parameters(METHOD, parameters), **given)

    return request


def result_of(request: Request) -> Result:
    last = list(METHOD.run(request))[-1]
    assert isinstance(last, Result)
    return last


def errors(request: Request) -> str:
    return " ".join(f"{p.message} {p.remedy}" for p in METHOD.check(request) if p.severity == "error")


TUNING = {
    "pool": 12,
    "most": 40,
    "fresh_every": 4,
    "batch_size": 64,
    "kernels": [5, 7],
    "cells": 11,
    "neurons_most": 3,
    "validate_every_steps": 60,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few fields through one microscope in planes far apart; what a view shows of a ball is computed once."""
    monkeypatch.setattr(cista, "VALIDATION_FIELDS", 8)
    monkeypatch.setattr(localize_card, "SIGMA_FIELDS", 12)
    monkeypatch.setattr(localize_card, "SCORE_FIELDS", 9)

    def coarse(**settings: Any) -> NeuronSettings:
        return NeuronSettings(**{**settings, "z_step_um": 3.0, "optics": OPTICS[:1]})

    monkeypatch.setattr(train_localize_wish, "NeuronSettings", coarse)

    def once(*arguments: Any) -> Any:
        key = repr(arguments)
        if key not in RESPONSES:
            RESPONSES[key] = yield from make_templates(*arguments)
        return RESPONSES[key]

    monkeypatch.setattr(localize_card, "make_templates", once)


def wish_of(tiny: Microscope, **changes: Any) -> Any:
    values = {
        "microscope": tiny,
        "z_min_um": -24,
        "z_max_um": 24,
        "z_step_um": 6,
        "diameter_min_um": 6,
        "diameter_max_um": 8,
        "minutes": None,
        "steps": 120,
        "seed": 1,
        "device": "cpu",
        "id": "tiny-cista",
        "tuning": TUNING,
    }
    return make_localize_wish({**values, **changes})


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_network_is_trained_installed_and_used(
    make: Make, tiny: Microscope, recording: Recording, tmp_path: Path
) -> None:
    events = list(run_localize_training(wish_of(tiny), tmp_path / "run"))
    scores = [e.values for e in events if isinstance(e, Validated)]
    assert scores[-1]["near"] < scores[0]["near"] or len(scores) == 1
    card = events[-1].entry.card  # type: ignore[union-attr]
    assert (card.method, card.architecture, card.n_pixels) == ("localize", "cista", tiny.n_pixels)
    assert card.z_um == [-24.0, -18.0, -12.0, -6.0, 0.0, 6.0, 12.0, 18.0, 24.0]
    assert {"sigma_floor_um", "sigma_share", "sigma_fade"} < set(card.scalers)
    assert {"joint_floor_um", "joint_share", "joint_optics"} < set(card.scalers)
    assert [s["set"].partition(",")[0] for s in card.scores] == ["depth curves alone", "joint fit"]
    assert card.scores[0]["neurons"] > 3
    assert "tiny-cista" in [e.card.id for e in list_models("localize")]
    result = result_of(make(threshold=0.1, fit="none"))
    assert result.provenance["model"]["id"] == "tiny-cista"
    points = result.outputs["points"][["z_um", "y_um", "x_um"]].to_numpy()
    truth = recording["points"][["z_um", "y_um", "x_um"]].to_numpy()
    assert match_points(points, truth, 12.0).recall >= 2 / 3
    assert "was trained for depths" in errors(make(z_min_um=-200.0))
    bare = make({"microscope": None, "model": "tiny-cista"})
    completed, notes = METHOD.complete(bare)  # type: ignore[attr-defined]
    assert completed.microscope == tiny and "taken to be 'tiny'" in notes[0].message
    assert METHOD.complete(make({"microscope": None}, algorithm="csc"))[1] == []  # type: ignore[attr-defined]
    # the same training again is refused, and goes on where it is asked to
    with pytest.raises(RequestError, match="already"):
        list(run_localize_training(wish_of(tiny), tmp_path / "run"))
    with pytest.raises(RequestError, match="seed differ"):
        list(run_localize_training(wish_of(tiny, seed=2), tmp_path / "run", resume=True))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_stopped_training_leaves_a_model_and_goes_on_exactly(
    tiny: Microscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SIGMA_FIELDS", "SCORE_FIELDS"):  # nobody looks at the scores of these three models
        monkeypatch.setattr(localize_card, name, 2)
    whole = wish_of(tiny, id="whole", tuning={**TUNING, "validate_every_steps": 20}, steps=40)
    list(run_localize_training(whole, tmp_path / "whole", model_folder=tmp_path / "m1"))
    part = wish_of(tiny, id="part", tuning={**TUNING, "validate_every_steps": 20}, steps=40)
    events = run_localize_training(part, tmp_path / "part", model_folder=tmp_path / "m2")
    for event in events:
        if isinstance(event, Validated):
            break
    events.close()  # type: ignore[attr-defined]
    assert not read_model(tmp_path / "m2").problem
    list(run_localize_training(part, tmp_path / "part", resume=True))
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "part"))
    names = [k for k in one if one[k].is_floating_point()]
    assert names
    for name in names:
        torch.testing.assert_close(one[name], other[name])


def test_wishes_that_cannot_be_fulfilled(tiny: Microscope) -> None:
    for changes, reason in (
        ({"minutes": None, "steps": None}, "length of the training"),
        ({"diameter_min_um": 20, "diameter_max_um": 10}, "smaller than the smallest"),
        ({"z_min_um": 5, "z_max_um": 5}, "depth bins"),
        ({"id": "a/b"}, "cannot be the id"),
        ({"colour": 1}, "no setting 'colour'"),
        ({"tuning": {"poool": 3}}, "Did you mean 'pool'"),
        ({"microscope": None}, "no microscope"),
    ):
        with pytest.raises(RequestError, match=reason):
            wish_of(tiny, **changes)


def test_the_recipes_are_wishes() -> None:
    folder = Path(__file__).resolve().parents[2] / "recipes"
    for path in sorted(folder.glob("cista-*.yaml")):
        wish = make_localize_wish(load_recipe(path))
        assert wish.id == path.stem
        task = task_of(wish)
        assert task.arguments["n_views"] == wish.microscope.n_pixels
        assert task.arguments["depths"] == len(wish.bins_um())
