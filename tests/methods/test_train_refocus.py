"""Refocusing from simulated or own focal stacks: trained, stopped, gone on with, refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.write import write_image
from napari_lfm.methods.refocus.card import domain_of
from napari_lfm.methods.refocus.own_stacks import checked_stack
from napari_lfm.methods.train_jobs import training_folder
from napari_lfm.methods.train_refocus import (
    NamedStack,
    RefocusWish,
    TrainedModel,
    install_run,
    make_refocus_wish,
    refocus_task,
    run_refocus_training,
    wish_on_record,
)
from napari_lfm.methods.train_refocus_check import check_refocus, estimate_refocus
from napari_lfm.methods.train_refocus_plan import (
    aberration_range,
    config_of,
    microscope_of,
    plan_of,
    simulation_of,
    spread_of,
)
from napari_lfm.methods.train_wish import load_recipe
from napari_lfm.networks import catalogue
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.networks.registry import open_network
from napari_lfm.networks.weights import load_weights
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_stacks import FocalSettings
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, read_state
from napari_lfm.training.config import make_config
from napari_lfm.training.events import Validated
from napari_lfm.training.focal_pairs import OpticsSpread, SimulatedFocal
from napari_lfm.training.refocus import RefocusPlan

if TYPE_CHECKING:
    import xarray as xr

RECIPES = Path(__file__).parents[2] / "recipes"
TUNING: dict[str, Any] = {
    "widths": (4, 6, 8),
    "bands": (6,),
    "patch_px": 32,
    "planes": 2,
    "depth_widths": (8, 8),
    "first_steps": 1,
    "pool": 2,
    "fresh_every": 2,
    "validation_stacks": 1,
    "shape": (5, 32, 32),
    "beyond": 1,
    "validate_every_steps": 2,
}
OPTICS: dict[str, Any] = {
    "na": 0.3,
    "range_um": 4.0,
    "step_um": 2.0,
    "pixel_um": 0.65,
    "spread": {"variants": 1},
}


@pytest.fixture(autouse=True)
def _no_bundled_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")


def planes(seed: int = 0, shape: tuple[int, int, int] = (7, 32, 96)) -> np.ndarray:
    """Return spots that are blurred more in every further plane."""
    from scipy.ndimage import gaussian_filter

    spots = 1e4 * (np.random.default_rng(seed).random(shape[1:]) > 0.98)
    middle = (shape[0] - 1) / 2
    return np.stack([gaussian_filter(spots, 1 + abs(k - middle)) + 50 for k in range(shape[0])]).astype(
        np.uint16
    )


def stack(values: np.ndarray, voxel: tuple[float, ...] = (2.0, 0.65, 0.65)) -> xr.DataArray:
    return labelled(values, "zyx", dict(zip("zyx", voxel, strict=True)))


def wish_of(**changes: Any) -> RefocusWish:
    values = {**OPTICS, "steps": 4, "seed": 3, "device": "cpu", "tuning": TUNING}
    return make_refocus_wish({**values, **changes})


def own_of(**changes: Any) -> RefocusWish:
    return wish_of(**{"layers": ("own",), "start_from": "", **changes})


OWN = NamedStack("own", stack(planes()))


def trained(*args: Any, **keywords: Any) -> TrainedModel:
    last = list(run_refocus_training(*args, **keywords))[-1]
    assert isinstance(last, TrainedModel)
    return last


def stopped(wish: RefocusWish, step: int) -> TrainedModel:
    """Train on the own stack up to the validation of a step, and close."""
    events = run_refocus_training(wish, layers=[OWN])
    next(e for e in events if isinstance(e, Validated) and e.step == step)
    # it can be used already
    assert [e.problem for e in list_models("refocus") if e.card.id == wish.id] == [""]
    events.close()  # type: ignore[attr-defined]
    [entry] = [e for e in list_models("refocus") if e.card.id == wish.id]
    return TrainedModel(entry, None, training_folder(wish.id))


def weights_of(model: TrainedModel) -> dict[str, torch.Tensor]:
    assert model.entry is not None
    return load_weights(model.entry.folder, model.entry.card)


def network_in(model: TrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights as the training left them, the best or not."""
    return load_module_weights(model.folder / LAST, "network")


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --------------------------------------------------------------------------- recipes
def recipe_wish(name: str) -> RefocusWish:
    """Return the wish of a recipe; the model that it goes on from need not be there."""
    values = load_recipe(RECIPES / name)
    if values.get("start_from"):
        values["tuning"] |= {"widths": ()}  # the start's, which is the usual network
    return make_refocus_wish(values)


def test_the_recipes_are_the_trainings_of_the_shipped_models() -> None:
    common: dict[str, Any] = {
        "batch_size": 1, "schedule": "one-cycle", "warmup_share": 0.05, "ema_decay": 0.998,
        "weight_decay": 1e-4, "validate_every_s": 240.0, "checkpoint_every_s": 240.0, "prefetch": 0,
        "seed": 0, "device": "cpu", "precision": "auto",
    }  # fmt: skip
    air = recipe_wish("refocus-20x0.8.yaml")
    assert plan_of(air) == RefocusPlan()
    assert config_of(air) == make_config(minutes=90, learning_rate=1e-3, **common)
    made, usual = simulation_of(air), SimulatedFocal(pool=40, fresh_every=10)
    assert (made.settings, made.optics, made.spread) == (FocalSettings(), DefocusOptics(), OpticsSpread())
    assert made.describe() == usual.describe()
    oil = recipe_wish("refocus-40x1.3.yaml")
    assert oil.start_from == "refocus-20x0.8"
    assert plan_of(oil) == RefocusPlan(range_um=2.7, first_steps=1200)
    assert config_of(oil) == make_config(minutes=50, learning_rate=1e-3, **common)
    made = simulation_of(oil)
    assert made.settings == FocalSettings(step_um=0.135, pixel_um=0.1625)
    assert made.optics == DefocusOptics(na=1.3, immersion_index=1.515, sample_index=1.38, depth_um=7.0)
    assert made.spread == OpticsSpread((4.0, 10.0), (0.0, 0.0), (1.36, 1.40), na_share=0.05)
    # aberration tells +z from -z: of one sign each, and not the same one
    assert 0 < aberration_range(air)[0] < air.optics.spherical_rms_waves < aberration_range(air)[1]
    assert aberration_range(oil)[0] < oil.optics.spherical_rms_waves < aberration_range(oil)[1] < 0


def test_other_microscopes_get_what_suits_them() -> None:
    usual = make_refocus_wish({})
    assert (usual.range_um, usual.step_um, usual.minutes, usual.adversarial) == (10.0, 0.5, 66.0, False)
    assert spread_of(usual) == OpticsSpread()
    oil = make_refocus_wish({"microscope": "wf-60x1.4o", "minutes": 5})
    assert (oil.na, oil.immersion_index, oil.pixel_um) == (1.4, 1.518, pytest.approx(0.1083, abs=1e-4))
    assert oil.range_um < 5
    assert 2 * round(oil.range_um / oil.step_um) + 1 == 41
    assert oil.na * (1 + oil.na_share) < oil.immersion_index
    assert microscope_of(oil).object_pixel_um == pytest.approx(oil.pixel_um, rel=1e-3)
    # what is filled in is written down: the same again
    assert make_refocus_wish(oil.model_dump(mode="json")) == oil


# ------------------------------------------------------------------------ a training
def test_from_simulated_specimens_to_a_model() -> None:
    wish = wish_of(title="Mine", adversarial=True)
    events = list(run_refocus_training(wish))
    scores = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in scores] == [2, 4]
    assert {"psnr_db", "input_db", "confocal_db"} <= set(scores[0].values)
    last = events[-1]
    assert isinstance(last, TrainedModel)
    assert last.entry is not None
    card = last.entry.card
    assert (card.id, card.title, card.licence) == ("refocus-10x0.3", "Mine", "user's own")
    assert "no recording was used" in card.data
    domain = domain_of(card)
    assert (domain.range_um, domain.pixel_um, domain.step_um, domain.confocal) == (4.0, 0.65, 2.0, True)
    assert domain.optics == wish.optics
    assert card.optics is not None
    assert card.optics.objective.na == 0.3
    best = max(scores, key=lambda e: e.score)
    assert card.scores[0]["psnr_db"] == pytest.approx(best.values["psnr_db"])
    assert "least-squares GAN" in card.training["losses"]
    low, high = aberration_range(wish)
    told = card.training["spherical_aberration_rms_waves"]
    assert (told["lowest"], told["highest"]) == (round(low, 4), round(high, 4))
    assert f"{low:+.3f} to {high:+.3f} waves rms" in card.notes
    # the network of the card is the trained one, whatever the usual widths will be
    assert card.network == {
        "widths": [4, 6, 8],
        "bands": [6],
        "planes": 21,
        "sweep": True,
        "depth_widths": [8, 8],
    }
    open_network(last.entry)


def test_a_finished_run_becomes_a_model(tmp_path: Path) -> None:
    wish = own_of(id="run", steps=2)
    first = trained(wish, layers=[OWN])
    card = install_run(wish, first.folder, tmp_path / "again", "by hand", [OWN], licence="CC0-1.0")
    assert (card.id, card.licence, card.recipe) == ("again", "CC0-1.0", "by hand")
    assert first.entry is not None
    assert card.sha256 == first.entry.card.sha256
    other = wish.model_copy(update={"range_um": 5.0})
    with pytest.raises(RequestError, match="another one: range_um"):
        install_run(other, first.folder, tmp_path / "other", layers=[OWN])
    assert not (tmp_path / "other").exists()
    # a run in two parts: the second went on from the first one's weights
    second = trained(own_of(id="second", start_from="run", steps=1), layers=[OWN])
    whole = own_of(id="whole", steps=1)
    with pytest.raises(RequestError, match="started_from_weights"):
        install_run(whole, second.folder, tmp_path / "whole", layers=[OWN])
    card = install_run(whole, second.folder, tmp_path / "whole", layers=[OWN], earlier_run=first.folder)
    assert card.training["earlier_run"]["steps"] == 2
    assert card.training["earlier_run"]["task"] == {"started_from_weights": False}
    hours = card.training["earlier_run"]["hours"] + read_state(second.folder / BEST)["seconds"] / 3600
    assert card.hours == pytest.approx(hours, abs=2e-4)


def test_going_on_equals_a_training_that_was_not_stopped() -> None:
    whole = trained(own_of(id="whole"), layers=[OWN])
    first = stopped(own_of(id="parts"), 2)
    assert not equal(network_in(whole), network_in(first))
    best = load_module_weights(first.folder / BEST, "network")
    assert all(torch.allclose(v, best[k], atol=2e-3) for k, v in weights_of(first).items())
    assert first.entry is not None
    assert first.entry.card.training["ended"] == "stopped"
    parts = trained(make_refocus_wish(wish_on_record(first.folder)), layers=[OWN], resume=True)
    assert parts.result is not None
    assert (parts.result.step, parts.result.reason) == (4, "steps")
    assert equal(network_in(whole), network_in(parts))
    assert equal(weights_of(whole), weights_of(parts))
    with pytest.raises(RequestError, match="another one: range_um"):
        trained(own_of(id="parts", range_um=5.0), layers=[OWN], resume=True)
    with pytest.raises(RequestError, match=r"a training in .* already"):
        trained(own_of(id="parts"), layers=[OWN])
    with pytest.raises(RequestError, match="not all here"):
        trained(own_of(id="parts", steps=5), resume=True)


def test_fine_tuning_says_from_what() -> None:
    first = trained(wish_of(id="first", steps=2))
    tuning = {k: v for k, v in TUNING.items() if k not in ("widths", "bands", "depth_widths")}
    wish = make_refocus_wish(
        {
            "layers": ("own",), "start_from": "first", "pixel_um": 0.65, "step_um": 2.0, "id": "fine",
            "steps": 1, "device": "cpu", "tuning": tuning,
        }
    )  # fmt: skip
    # network, optics and range are the start's
    assert (wish.tuning.widths, wish.na, wish.range_um) == ((4, 6, 8), 0.3, 4.0)
    assert config_of(wish).learning_rate < config_of(own_of()).learning_rate
    fine = trained(wish, layers=[OWN])
    before, after = weights_of(first), weights_of(fine)
    # the average of the weights hardly moves in a step
    far = max(float((before[k].float() - after[k].float()).abs().max()) for k in before)
    assert 0 < far < 2e-3
    assert fine.entry is not None
    assert first.entry is not None
    card = fine.entry.card
    assert card.data.startswith("1 focal stack of the user (own), 7 planes 2 um apart, no confocal one")
    assert card.data.endswith("fine-tuned from 'first'")
    assert card.training["started_from"] == {"id": "first", "sha256": first.entry.card.sha256}
    assert card.scores[0]["set"] == "validation: the last fifth of the columns"
    assert domain_of(card).confocal  # the start's head, tied to the stack by consistency only
    assert "saw no confocal stack" in card.notes
    shutil.rmtree(user_model_dir() / "first")  # a training that has begun does not need it any more
    on = make_refocus_wish({**wish_on_record(fine.folder), "steps": 2})
    assert trained(on, layers=[OWN], resume=True).result is not None
    with pytest.raises(RequestError, match="first"):
        make_refocus_wish({"layers": ("own",), "start_from": "first", "pixel_um": 1, "step_um": 1})


def test_the_bundled_model_that_is_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = trained(wish_of(id="mine", steps=1)).entry
    assert entry is not None
    given: dict[str, Any] = {"layers": ("own",), "na": 0.4, "step_um": 1.0}
    assert make_refocus_wish({**given, "pixel_um": 0.65}).start_from == ""  # one's own only by its name
    monkeypatch.setattr(catalogue, "list_models", lambda *_: [replace(entry, source="bundled")])
    near = make_refocus_wish({**given, "pixel_um": 0.65})
    assert (near.start_from, near.range_um) == ("mine", 4.0)
    assert make_refocus_wish({**given, "pixel_um": 0.65, "start_from": "none"}).start_from == ""
    assert make_refocus_wish({**given, "pixel_um": 3.0}).start_from == ""
    said = [p.message for p in check_refocus(near, [NamedStack("own", stack(planes(), (1, 0.65, 0.65)))])]
    assert any("another microscope: aperture 0.4 here, 0.3 there" in text for text in said)
    with pytest.raises(RequestError, match="another one than the one to be trained"):
        trained(own_of(start_from="mine", tuning={**TUNING, "widths": (4, 6)}), layers=[OWN])


# ------------------------------------------------------------------------- own stacks
def test_planes_are_taken_in_the_order_of_rising_focus() -> None:
    values = planes()
    values[0] += 7
    for given, reverse in (
        (stack(values), False),
        (stack(values[::-1]), True),
        (stack(values[::-1]).assign_coords(z=-2.0 * np.arange(7)), False),  # mirrored in the viewer
    ):
        wide, other = checked_stack(NamedStack("own", given), 0.65, 2.0, reverse)
        assert np.array_equal(wide, values)
        assert other is None


def test_the_last_fifth_of_the_columns_is_held_back() -> None:
    for columns, cut in ((200, 160), (100, 68)):  # enough for a patch
        _, task = refocus_task(own_of(), [NamedStack("own", stack(planes(shape=(7, 32, columns))))])
        [held] = task.source.validation()
        assert task.source.data(0, np.random.default_rng(0)).columns == (0, cut)
        assert held.columns == (cut, columns)


def test_an_empty_end_is_told() -> None:
    values = planes(shape=(7, 32, 200))
    values[:, :, 150:] = 50 + np.random.default_rng(0).integers(0, 3, (7, 32, 50))
    words, _ = refocus_task(own_of(), [NamedStack("own", stack(values))])
    assert "nearly empty" in words
    assert "nearly empty" not in refocus_task(own_of(), [OWN])[0]


def bad(kind: str) -> NamedStack:
    values = planes()
    if kind == "nan":
        holed = values.astype(np.float32)
        holed[2, 3, 4] = np.nan
        return NamedStack("own", stack(holed))
    if kind == "colour":
        return NamedStack("own", labelled(np.stack([values] * 3), "czyx", {"z": 2.0, "y": 0.65, "x": 0.65}))
    if kind == "flat":
        return NamedStack("own", labelled(values[0], "yx", {"y": 0.65, "x": 0.65}))
    if kind == "other confocal":
        return NamedStack("own", stack(values), stack(values[:6]))
    parts = {
        "few planes": stack(values[:4]),
        "small": stack(values[:, :, :20]),
        "step": stack(values, (0.5, 0.65, 0.65)),
        "pixels": stack(values, (2.0, 0.325, 0.325)),
        "no squares": stack(values, (2.0, 0.65, 0.325)),
        "dark": stack(np.full_like(values, 7)),
    }
    return NamedStack("own", parts[kind])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("nan", "values that are no numbers"),
        ("colour", "an image with the axes c z y x, not a focal stack"),
        ("flat", "a single image, not a focal stack"),
        ("few planes", "4 planes"),
        ("small", "32 x 20 pixels"),
        ("step", "planes of 'own' are 0.5 um apart, and the training is for 2 um"),
        ("pixels", "pixels of 'own' are 0.325 um wide, and the training is for 0.65 um"),
        ("no squares", "no squares"),
        ("dark", "dark"),
        ("other confocal", "Register the two first"),
    ],
)
def test_stacks_that_cannot_be_used_leave_nothing_behind(kind: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        trained(own_of(id="bad"), layers=[bad(kind)])
    assert says in f"{caught.value.message} {caught.value.remedy}"
    assert not training_folder("bad").exists()
    assert not (user_model_dir() / "bad").exists()


def test_a_confocal_stack_teaches_the_confocal_head() -> None:
    both = NamedStack("own", stack(planes()), stack(planes(1)))
    model = trained(own_of(id="both", steps=2), layers=[both])
    assert model.entry is not None
    assert "with registered confocal stacks" in model.entry.card.data
    assert "confocal_db" in model.entry.card.scores[0]
    assert "saw no confocal" not in model.entry.card.notes
    alone = trained(own_of(id="alone", steps=1), layers=[OWN])
    assert alone.entry is not None
    assert not domain_of(alone.entry.card).confocal


def test_a_file_says_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / "worm.tif"
    write_image(path, stack(planes()))
    wish = make_refocus_wish({"stacks": str(path), "na": 0.3, "range_um": 4.0, "tuning": TUNING})
    assert (wish.pixel_um, wish.step_um, wish.minutes) == (0.65, 2.0, 10.0)
    problems = check_refocus(wish)
    assert [p.severity for p in problems] == ["warning"] or problems == []
    sentences = " ".join(estimate_refocus(wish).sentences)
    assert "1 focal stack of your own, 7 planes of 32 x 96 pixels, 2 um apart" in sentences
    assert "+ as the planes' index rises" in sentences
    assert "GiB" in sentences
    short = check_refocus(make_refocus_wish({**wish.model_dump(), "range_um": 20.0}))
    assert "covers 12 um" in short[0].message
    assert estimate_refocus(wish_of()).sentences[0].startswith("Simulated specimens for NA 0.3")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stacks": "nowhere.tif", "na": 0.3}, "nowhere.tif"),
        ({"layers": ("own",), "na": 0.3, "pixel_um": 0.65}, "distance of the planes"),
        ({"layers": ("own",), "pixel_um": 0.65, "step_um": 2.0}, "optics of the stack are not known"),
        ({"layers": ("own",), "na": 0.3, "pixel_um": 0.65, "step_um": 500.0}, "is the step in um?"),
        ({"step_um": 0.001}, "more than 401 planes"),
        ({"na": 1.2}, "index of your immersion"),
        ({"na": -1.0}, "na"),
        ({"minutes": 0}, "minutes"),
        ({"microscop": "wf-20x0.8"}, "Did you mean 'microscope'"),
        ({"tuning": {"plane": 3}}, "Did you mean 'planes'"),
        ({"spread": {"depth_um": [5, 2]}}, "the lowest value comes first"),
        ({"start_from": "nothing"}, "nothing"),
        ({"tuning": {"widths": [4]}, "steps": 1}, "make no network"),
    ],
)
def test_wishes_that_cannot_be_fulfilled(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        estimate_refocus(make_refocus_wish(values))
    assert says in f"{caught.value.message} {caught.value.remedy}"
