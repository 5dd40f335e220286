"""WFCON-Net from pairs: read, registered, trained, stopped, gone on with, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.write import write_image
from napari_lfm.methods import wfcon_gather
from napari_lfm.methods.train_jobs import training_folder
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_wfcon import (
    NamedPair,
    PairLeftOut,
    PairReady,
    WfconWish,
    make_wfcon_wish,
    run_wfcon_training,
    wish_on_record,
)
from napari_lfm.methods.train_wfcon_wish import plan_of
from napari_lfm.methods.wfcon_check import best_start, check_wfcon, estimate_wfcon
from napari_lfm.methods.wfcon_gather import Shelf, gather
from napari_lfm.methods.wfcon_pairs import ReadyPair, make_ready, with_voxels
from napari_lfm.methods.wfcon_survey import Survey, survey_folder, survey_layers, survey_words
from napari_lfm.networks import catalogue
from napari_lfm.networks.catalogue import list_models, user_model_dir
from napari_lfm.networks.weights import load_weights
from napari_lfm.training import registration, wfcon
from napari_lfm.training.checkpoint import BEST, load_module_weights
from napari_lfm.training.events import Validated
from napari_lfm.training.stack_pairs import RecordedPairs, count_held

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

SHAPE = (12, 48, 48)
VOXEL = (0.5, 0.108, 0.108)
TUNING = {
    "widths": (4, 8),
    "z_pool_levels": 1,
    "patch": (8, 32, 32),
    "batch_size": 1,
    "validate_every_steps": 2,
}


def stacks(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Return a wide-field and a confocal stack of the same spots."""
    spots = np.random.default_rng(seed).random(shape) > 0.995
    confocal = gaussian_filter(1e4 * spots, 1)
    return (gaussian_filter(confocal, 2) + 50).astype(np.uint16), confocal.astype(np.uint16)


def stack(values: np.ndarray, voxel: tuple[float, ...] = VOXEL) -> xr.DataArray:
    return labelled(values, "zyx", dict(zip("zyx", voxel, strict=True)))


def pair(name: str, seed: int) -> NamedPair:
    wide, confocal = stacks(seed)
    return NamedPair(name, stack(wide), stack(confocal))


@pytest.fixture
def pairs() -> list[NamedPair]:
    return [pair(f"p{k}", k) for k in range(3)]


@pytest.fixture
def folder(tmp_path: Path, pairs: list[NamedPair]) -> Path:
    out = tmp_path / "brain pairs"
    for side in ("widefield", "confocal"):
        (out / side).mkdir(parents=True)
    for p in pairs:
        write_image(out / "widefield" / f"{p.name}.tif", p.widefield)
        write_image(out / "confocal" / f"{p.name}.ome.tif", p.confocal)
    return out


@pytest.fixture(autouse=True)
def _no_torchvision_and_no_bundled_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")
    monkeypatch.setattr(wfcon, "load_vgg", lambda _: None)


def wish_of(given: list[NamedPair] | None = None, **changes: Any) -> WfconWish:
    values: dict[str, Any] = {
        "layers": [p.name for p in given or ()],
        "register_pairs": False,
        "minutes": None,
        "steps": 4,
        "seed": 3,
        "device": "cpu",
        "tuning": TUNING,
    }
    return make_wfcon_wish({**values, **changes})


def trained(*args: Any, **keywords: Any) -> TrainedModel:
    last = list(run_wfcon_training(*args, **keywords))[-1]
    assert isinstance(last, TrainedModel)
    return last


def stopped(wish: WfconWish, pairs: list[NamedPair], step: int) -> TrainedModel:
    """Train up to the validation of a step, and close."""
    events = run_wfcon_training(wish, layers=pairs)
    next(e for e in events if isinstance(e, Validated) and e.step == step)
    # it can be used already
    assert [e.problem for e in list_models("wfcon") if e.card.id == wish.id] == [""]
    events.close()  # type: ignore[attr-defined]
    [entry] = [e for e in list_models("wfcon") if e.card.id == wish.id]
    return TrainedModel(entry, None, training_folder(wish.id))


def weights_of(model: TrainedModel) -> dict[str, torch.Tensor]:
    assert model.entry is not None
    return load_weights(model.entry.folder, model.entry.card)


def same(a: TrainedModel, b: TrainedModel) -> bool:
    one, two = weights_of(a), weights_of(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# ------------------------------------------------------------------------ a training
def test_from_a_folder_of_pairs_to_a_model(folder: Path) -> None:
    events = list(run_wfcon_training(wish_of(pairs=str(folder), title="Mine")))
    assert [e.message for e in events if isinstance(e, Progress)][:2] == ["Reading p0", "p0: as it is"]
    scores = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in scores] == [2, 4]
    assert {"rmse", "ssim", "psnr_db", "input_rmse", "input_ssim", "input_psnr_db"} <= set(scores[0].values)
    assert set(scores[0].images) == {"truth", "network", "input"}
    last = events[-1]
    assert isinstance(last, TrainedModel)
    assert last.entry is not None
    card = last.entry.card
    assert [e.card.id for e in list_models("wfcon") if e.source == "user"] == ["wfcon-brain-pairs"]
    assert (card.id, card.title, card.licence) == ("wfcon-brain-pairs", "Mine", "user's own")
    assert card.data == "3 pairs of the user (folder brain pairs), as they were"
    assert [card.scalers[f"voxel_{a}_um"] for a in "zyx"] == list(VOXEL)
    assert card.scores[0]["set"] == "validation: pairs that were set aside"
    assert card.scores[0]["psnr_db"] == pytest.approx(max(e.score for e in scores))
    assert {"L1", "least-squares GAN"} <= set(card.training["losses"])
    assert "no VGG16 weights" in card.notes


def test_going_on_equals_a_training_that_was_not_stopped(pairs: list[NamedPair]) -> None:
    whole = trained(wish_of(pairs, id="whole"), layers=pairs)
    first = stopped(wish_of(pairs, id="parts"), pairs, 2)
    assert not same(whole, first)
    parts = trained(make_wfcon_wish(wish_on_record(first.folder)), layers=pairs, resume=True)
    assert parts.result is not None
    assert (parts.result.step, parts.result.reason) == (4, "steps")
    assert same(whole, parts)
    longer = make_wfcon_wish({**wish_on_record(first.folder), "steps": 5})
    assert trained(longer, layers=pairs, resume=True).result is not None


def test_stopping_keeps_the_best(pairs: list[NamedPair]) -> None:
    model = stopped(wish_of(pairs, id="mine", steps=1000), pairs, 2)
    best = load_module_weights(model.folder / BEST, "network")
    assert all(torch.allclose(v, best[k], atol=2e-3) for k, v in weights_of(model).items())
    assert model.entry is not None
    assert model.entry.card.training["steps"] == 2
    assert model.entry.card.training["ended"] == "stopped"


def test_stopping_while_pairs_are_read_leaves_nothing(pairs: list[NamedPair]) -> None:
    events = run_wfcon_training(wish_of(pairs, id="mine"), layers=pairs)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert not training_folder("mine").exists()
    assert not (user_model_dir() / "mine").exists()


def test_another_training_is_not_gone_on_with(pairs: list[NamedPair]) -> None:
    trained(wish_of(pairs, id="mine", steps=2), layers=pairs)
    with pytest.raises(RequestError, match="another one: adversarial"):
        trained(wish_of(pairs, id="mine", adversarial=False), layers=pairs, resume=True)
    with pytest.raises(RequestError, match="another training run"):
        trained(wish_of(pairs, id="mine"), layers=pairs[:2], resume=True)
    with pytest.raises(RequestError, match=r"a training in .* already"):
        trained(wish_of(pairs, id="mine"), layers=pairs)


def test_a_collapse_keeps_the_last_good_weights(
    pairs: list[NamedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = stopped(wish_of(pairs, id="good", steps=100), pairs, 2)
    scores = iter([15.0, 22.0, 12.0])

    def scored(*_: Any) -> dict[str, float]:
        return {"rmse": 0.1, "ssim": 0.5, "psnr_db": next(scores)}

    monkeypatch.setattr(wfcon, "stack_scores", scored)
    model = trained(wish_of(pairs, id="bad", steps=100), layers=pairs)
    assert model.result is not None
    assert (model.result.reason, model.result.step, model.result.best_step) == ("collapsed", 4, 2)
    assert "has collapsed" in model.result.sentence
    assert same(model, good)
    assert model.entry is not None
    assert "10.0 dB worse" in model.entry.card.notes


@pytest.mark.parametrize(
    ("seen", "collapsed"),
    [
        ([(15.0, 0.05), (16.0, 0.1), (18.0, 0.5), (17.0, 0.3)], False),  # it begins with hardly any contrast
        ([(15.0, 0.05), (20.0, 0.8), (19.0, 0.1)], True),  # what it had is lost
        ([(15.0, 0.5), (22.0, 0.8), (15.5, 0.8)], True),
        ([(15.0, 0.5), (float("nan"), 0.5)], True),
    ],
)
def test_what_a_collapse_is(seen: list[tuple[float, float]], collapsed: bool) -> None:
    source = RecordedPairs([("a", *stacks(1)), ("b", *stacks(2))])
    task = wfcon.WfconTask(source, plan_of(wish_of()))
    for db, spread in seen[:-1]:
        task._watch(db, spread)  # noqa: SLF001
        assert task.collapsed == ""
    again = wfcon.WfconTask(source, plan_of(wish_of()))
    again.load_state_dict(task.state_dict())  # a training that goes on remembers
    for one in (task, again):
        one._watch(*seen[-1])  # noqa: SLF001
        assert bool(one.collapsed) == collapsed


def test_a_single_pair_is_split(pairs: list[NamedPair]) -> None:
    model = trained(wish_of(pairs[:1], steps=1), layers=pairs[:1])
    assert model.result is not None
    shapes = model.result.task["pairs"]["shapes"]
    assert [s[2] for s in shapes] == [38, 10]


# ------------------------------------------------------------------ where it begins
def test_a_model_to_start_from_brings_its_network(pairs: list[NamedPair]) -> None:
    first = trained(wish_of(pairs, id="first", steps=2), layers=pairs)
    tuning = {k: v for k, v in TUNING.items() if k not in ("widths", "z_pool_levels")}
    wish = wish_of(pairs, start_from="first", id="second", steps=1, tuning=tuning)
    assert (wish.tuning.widths, wish.tuning.z_pool_levels) == ((4, 8), 1)
    # the average of the weights hardly moves in a step
    second = trained(wish, layers=pairs)
    before, after = weights_of(first), weights_of(second)
    far = max(float((before[k].float() - after[k].float()).abs().max()) for k in before)
    assert 0 < far < 2e-3
    shutil.rmtree(user_model_dir() / "first")  # a training that has begun does not need it any more
    on = make_wfcon_wish({**wish_on_record(second.folder), "steps": 2})
    assert trained(on, layers=pairs, resume=True).result is not None
    with pytest.raises(RequestError, match="first"):
        wish_of(pairs, start_from="first", tuning=tuning)


def test_a_model_of_another_network_is_refused(pairs: list[NamedPair]) -> None:
    trained(wish_of(pairs, id="first", steps=1), layers=pairs)
    wish = wish_of(pairs, start_from="first", tuning={**TUNING, "widths": (4, 6)})
    with pytest.raises(RequestError, match="another one than the one to be trained"):
        trained(wish, layers=pairs)


def test_the_bundled_model_that_fits(pairs: list[NamedPair], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = trained(wish_of(pairs, id="mine", steps=1), layers=pairs).entry
    assert entry is not None
    assert best_start(VOXEL) == ""  # one's own is taken only where it is named
    bundled = replace(entry, source="bundled")
    monkeypatch.setattr(catalogue, "list_models", lambda _: [bundled])
    assert best_start(VOXEL) == "mine"
    assert best_start((0.5, 0.2, 0.2)) == ""


# -------------------------------------------------------------------------- the pairs
def test_what_cannot_be_used_is_left_out(pairs: list[NamedPair]) -> None:
    wide, confocal = stacks(7)
    bad = wide.astype(np.float32)
    bad[1, 2, 3] = np.nan
    almost = confocal * 0
    almost[0, 0, 0] = 900  # not of one brightness, and dark all the same
    given = [
        NamedPair("nan", stack(bad), stack(confocal)),
        NamedPair("even", stack(wide), stack(confocal * 0)),
        NamedPair("dark", stack(wide), stack(almost)),
        NamedPair("far", stack(wide), stack(confocal).assign_coords(z=np.arange(12) * 0.5 + 5.5)),
        NamedPair("flat", stack(wide), labelled(confocal[0], "yx", {"y": 0.1, "x": 0.1})),
        *pairs,
    ]
    events = list(run_wfcon_training(wish_of(given, steps=1), layers=given))
    left = {e.name: e.reason for e in events if isinstance(e, PairLeftOut)}
    assert set(left) == {"nan", "even", "dark", "far", "flat"}
    assert "no numbers" in left["nan"]
    assert "all of one brightness" in left["even"]
    assert "is dark" in left["dark"]
    assert "8 % in common" in left["far"]
    assert "axes y x" in left["flat"]
    last = events[-1]
    assert isinstance(last, TrainedModel)
    assert last.entry is not None
    assert last.entry.card.data.endswith("; 5 left out")
    with pytest.raises(RequestError, match=r"None of the 2 pairs can be used.*no numbers"):
        trained(wish_of(given[:2]), layers=given[:2])
    with pytest.raises(RequestError, match="There is no pair"):
        trained(wish_of(given), layers=())


def test_other_shapes_voxels_and_bit_depths(pairs: list[NamedPair]) -> None:
    wide, confocal = stacks(4)
    fine = gaussian_filter(confocal.astype(float), 1).repeat(2, 1).repeat(2, 2).astype(np.float32)
    half = (0.5, 0.054, 0.054)
    places = {"y": 0.108 * 0.5 - 0.081, "x": 0.108 * 0.5 - 0.081}
    finer = labelled(fine, "zyx", dict(zip("zyx", half, strict=True)), places)
    made = list(make_ready(NamedPair("a", stack(wide), finer), register=False))[-1]
    assert isinstance(made, ReadyPair)
    assert made.widefield.shape == made.confocal.shape == SHAPE
    assert "uint16 and float32, scaled alike" in made.sentence
    # what was sampled twice as finely is brought back to where it was
    assert np.corrcoef(made.confocal.ravel(), gaussian_filter(confocal.astype(float), 1).ravel())[0, 1] > 0.95
    coarse = with_voxels(made, (1.0, 0.108, 0.108))
    assert coarse.confocal.shape == (6, 48, 48)
    assert "resampled to voxels of 1 x 0.108 x 0.108 um" in coarse.sentence
    other = NamedPair("b", stack(wide, (1.0, 0.2, 0.2)), stack(confocal, (1.0, 0.2, 0.2)))
    given = [pairs[0], other, NamedPair("c", stack(wide), stack(confocal[:9, :40]))]
    found = list(gather(wish_of(given), given))[-1]
    assert isinstance(found, wfcon_gather.Gathered)
    assert [p.given.shape for p in found.pairs] == [SHAPE, (23, 88, 88), (9, 40, 48)]
    assert found.voxel_um == VOXEL
    assert {p.given.dtype for p in found.pairs} == {torch.float16}


def test_pairs_are_registered_and_doubtful_ones_left_out(
    pairs: list[NamedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pairs[0]
    moved = NamedPair("p0", one.widefield, one.confocal.copy(data=np.roll(one.confocal.values, 3, axis=2)))

    def correlation(p: ReadyPair) -> float:
        return float(np.corrcoef(p.widefield.ravel(), p.confocal.ravel())[0, 1])

    *steps, made = make_ready(moved)
    *_, plain = make_ready(moved, register=False)
    *_, right = make_ready(one, register=False)
    assert all(isinstance(s, Progress) for s in steps)
    assert isinstance(made, ReadyPair)
    assert isinstance(plain, ReadyPair)
    assert isinstance(right, ReadyPair)
    assert correlation(plain) < 0.7 * correlation(right)
    assert correlation(made) > 0.95 * correlation(right)
    assert "moved by" in made.sentence
    real = registration.register_pair

    def doubtful(*args: Any, **options: Any) -> Any:
        for event in real(*args, **options):
            if isinstance(event, registration.Registration):
                event = replace(event, accepted=False, reason="both estimates differ.")
            yield event

    monkeypatch.setattr(registration, "register_pair", doubtful)
    events = gather(wish_of(pairs[:1], register_pairs=True), pairs[:1])
    seen = []
    with pytest.raises(RequestError, match="The pair cannot be used"):
        for event in events:
            seen.append(event)
    [left] = [e for e in seen if isinstance(e, PairLeftOut)]
    assert "both estimates differ" in left.reason
    assert "'Register pair' panel" in left.remedy
    assert any(e.message == "Registering p0 (1 of 1)" for e in seen if isinstance(e, Progress))


def test_going_on_does_not_register_again(pairs: list[NamedPair], monkeypatch: pytest.MonkeyPatch) -> None:
    first = stopped(wish_of(pairs, id="mine", register_pairs=True), pairs, 2)
    shifts = json.loads((first.folder / "registered.json").read_text())
    assert set(shifts) == {"p0", "p1", "p2"}

    def again(*_: Any) -> Any:
        raise RequestError("Registered again.")

    monkeypatch.setattr(registration, "register_pair", again)
    wish = make_wfcon_wish(wish_on_record(first.folder))
    events = list(run_wfcon_training(wish, layers=pairs, resume=True))
    assert {e.name: list(e.shift_um or ()) for e in events if isinstance(e, PairReady)} == {
        name: found["shift_um"] for name, found in shifts.items()
    }
    # other stacks of the same name are looked at anew; what was placed by hand is never moved
    other = [pair("p0", 17), replace(pairs[1], placed=True), pairs[2]]
    seen = list(gather(wish, other, shifts))
    assert [e.reason for e in seen if isinstance(e, PairLeftOut)] == ["Registered again."]
    ready = {e.name: e for e in seen if isinstance(e, PairReady)}
    assert ready["p1"].shift_um is None
    assert "placed by hand" in ready["p1"].message
    assert ready["p2"].shift_um is not None


def test_pairs_that_do_not_fit_into_memory_wait_on_the_disk(
    pairs: list[NamedPair], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf = Shelf(100, tmp_path)
    small, large = torch.rand(40), torch.rand(3, 4, 5)
    assert torch.equal(shelf.put(small), small.half())
    assert torch.equal(shelf.put(large), large.half())
    assert (shelf.in_memory, shelf.on_disk) == (80, 120)
    usual = trained(wish_of(pairs, id="a", steps=2), layers=pairs)
    monkeypatch.setattr(wfcon_gather, "MEMORY_SHARE", 0.0)
    events = list(run_wfcon_training(wish_of(pairs, id="b", steps=2), layers=pairs))
    assert any("wait on the disk" in e.message for e in events if isinstance(e, Progress))
    assert isinstance(events[-1], TrainedModel)
    assert same(usual, events[-1])

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(LfmError, match="No space left"):
        shelf.put(large)


# ------------------------------------------------------------------------ before a start
def surveyed(folder: Path, **options: Any) -> Survey:
    found = list(survey_folder(folder, **options))[-1]
    assert isinstance(found, Survey)
    return found


def test_a_look_at_files_tells_as_much_as_reading_them(folder: Path, pairs: list[NamedPair]) -> None:
    before = surveyed(folder)
    assert before == survey_layers(pairs)
    assert survey_words(before) == ("3 pairs, 12 planes of 48 x 48 pixels, voxels of 0.5 x 0.108 x 0.108 um.")
    # another program's files: sizes as ImageJ writes them, and none at all
    wide, confocal = stacks(8)
    pixel = 1 / 0.108
    for side, values in (("widefield", wide), ("confocal", confocal)):
        meta = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
        path = folder / side / "imagej.tif"
        tifffile.imwrite(path, values, imagej=True, resolution=(pixel, pixel), metadata=meta)
        tifffile.imwrite(folder / side / "plain.tif", values)
    found = {p.name: p for p in surveyed(folder).pairs}
    assert found["imagej"].problem is None
    assert found["imagej"].widefield is not None
    assert found["imagej"].widefield.voxel_um == pytest.approx(VOXEL, rel=1e-3)
    assert "does not say how large" in str(found["plain"].problem)
    given = surveyed(folder, voxel_um=(1.0, 0.2, 0.2))
    assert given.lacks_voxels is False
    sizes = {p.name: p.widefield.voxel_um for p in given.pairs if p.widefield}
    assert sizes["plain"] == (1.0, 0.2, 0.2)
    assert sizes["imagej"] == pytest.approx(VOXEL, rel=1e-3)  # its own count more
    events = list(gather(wish_of(pairs=str(folder), voxel_um=(1.0, 0.2, 0.2))))
    assert not [e for e in events if isinstance(e, PairLeftOut)]


def test_what_a_training_takes_is_told(pairs: list[NamedPair]) -> None:
    survey, wish = survey_layers(pairs), wish_of(pairs)
    estimate = estimate_wfcon(wish, survey)
    assert (estimate.trained, estimate.validated, estimate.steps) == (2, 1, 4)
    assert "2 are trained on, 1 validated on." in estimate.sentences[0]
    assert check_wfcon(wish, survey) == []
    timed = wish_of(pairs, minutes=30, steps=None)
    plain = wish_of(pairs, minutes=30, steps=None, adversarial=False)
    assert estimate_wfcon(plain, survey).steps > 1.05 * estimate_wfcon(timed, survey).steps
    large = survey_layers([NamedPair("x", *(stack(np.zeros((2, 32, 32))),) * 2)] * 20)
    heads = [replace(h, shape=(76, 2048, 2048)) for h in (large.pairs[0].widefield,) if h]
    large = Survey(tuple(replace(p, widefield=heads[0], confocal=heads[0]) for p in large.pairs))
    big = estimate_wfcon(timed, large)
    assert (big.trained, big.validated) == (16, 4)
    assert big.peak_bytes + big.disk_bytes > 20 * 4 * 76 * 2048**2
    assert "20 pairs, 76 planes of 2048 x 2048 pixels" in big.sentences[0]
    [one] = check_wfcon(wish, survey_layers(pairs[:1]))
    assert "one pair only" in one.message
    [none, bad] = check_wfcon(
        wish, survey_layers([NamedPair("a", pairs[0].widefield, stack(np.zeros((3, 20, 20))))])
    )
    assert none.severity == "error"
    assert "in common" in bad.message


@pytest.mark.parametrize(
    ("pairs", "share", "held"), [(20, 0.2, 4), (2, 0.2, 1), (2, 0.9, 1), (3, 0.5, 2), (1, 0.2, 1)]
)
def test_some_pairs_are_always_left_to_train_on(pairs: int, share: float, held: int) -> None:
    assert count_held(pairs, share) == held
