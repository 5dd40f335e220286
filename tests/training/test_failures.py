"""What goes wrong while training costs as little as it can, and is said in one sentence."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.io import atomic
from napari_lfm.training.checkpoint import BEST, LAST, load
from napari_lfm.training.events import TrainResult
from napari_lfm.training.loop import train
from napari_lfm.training.outcome import read_result


def finite(tensors) -> bool:
    return all(bool(torch.isfinite(v).all()) for v in tensors.values() if v.is_floating_point())


def test_a_few_bad_steps_are_skipped(shift, config, tmp_path) -> None:
    task = shift()
    task.bad_steps = {3, 4, 8}
    events = list(train(task, config(skip_limit=3), tmp_path))
    result = events[-1]
    assert (result.reason, result.step, result.skipped) == ("steps", 12, 3)
    told = [e.step for e in events if isinstance(e, Progress) and "skipped" in e.message]
    assert told == [4, 5, 9]
    for name in (LAST, BEST):
        assert finite(load(tmp_path / name)[0])  # running statistics too
    assert np.isfinite(result.best_score)


def test_a_skipped_step_changes_no_weights(shift, config, tmp_path) -> None:
    task = shift()
    task.bad_steps = {2}
    generator, kept = train(task, config(steps=4), tmp_path), {}
    for event in generator:
        kept[event.step] = {k: v.clone() for k, v in task.modules["network"].state_dict().items()}
    counters = [k for k in kept[2] if k.endswith("num_batches_tracked")]
    assert all(torch.equal(kept[2][k], kept[3][k]) for k in kept[2] if k not in counters)
    assert not torch.equal(kept[3]["0.weight"], kept[4]["0.weight"])


def test_not_finite_for_long_stops_with_the_last_good_weights(shift, config, tmp_path) -> None:
    task = shift()
    task.bad_steps = set(range(7, 100))
    result = list(train(task, config(steps=50, skip_limit=4), tmp_path))[-1]
    assert (result.reason, result.step, result.best_step) == ("unstable", 11, 5)
    assert "not finite 4 times in a row" in result.sentence
    assert "lower learning rate" in result.sentence
    assert finite(load(tmp_path / LAST)[0]) and finite(load(tmp_path / BEST)[0])
    # it may be asked to go on
    again = list(train(shift(), config(steps=14, skip_limit=4), tmp_path))[-1]
    assert (again.reason, again.step) == ("steps", 14)


def test_a_gradient_that_is_not_finite_is_skipped_too(shift, config, tmp_path) -> None:
    task = shift()
    weight = task.modules["network"][0].weight
    task.loss = lambda phase, batch: {"loss": (weight * 0).sqrt().sum()}  # 0, with an infinite slope
    result = list(train(task, config(steps=5, skip_limit=2), tmp_path))[-1]
    assert (result.reason, result.step) == ("unstable", 2)
    assert finite(load(tmp_path / BEST)[0])


def test_a_score_that_is_not_a_number_is_never_the_best(shift, config, tmp_path) -> None:
    task = shift(scores=[float("nan"), -2.0, float("nan")])
    result = list(train(task, config(), tmp_path))[-1]
    assert (result.best_step, result.best_score) == (10, -2.0)
    assert [h["score"] for h in result.history] == [None, -2.0, None]
    assert load(tmp_path / BEST)[1]["step"] == 10


def test_out_of_memory_has_a_remedy_and_the_state_is_kept(shift, config, tmp_path) -> None:
    task = shift()

    def greedy(index: int) -> None:
        if index == 7:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.at_loss = greedy
    with pytest.raises(RequestError, match=r"Memory ran out while training \(step 8\).*smaller batch"):
        list(train(task, config(checkpoint_every_steps=1), tmp_path))
    assert read_result(tmp_path).step == 7


def test_a_network_that_does_not_fit_is_said_in_words(shift, config, monkeypatch, tmp_path) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    task = shift()
    monkeypatch.setattr(task.modules["network"], "to", greedy)
    with pytest.raises(RequestError, match=r"Memory ran out while training\."):
        list(train(task, config(), tmp_path))


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be filled: every flush of a new file then fails."""

    def fill(is_full: bool) -> None:
        monkeypatch.setattr(atomic.os, "fsync", full if is_full else (lambda _: None))

    return fill


def test_disk_full_at_a_checkpoint_then_free_again(shift, config, disk, same_files, tmp_path) -> None:
    settings = config(steps=12, checkpoint_every_steps=2)
    list(train(shift(), settings, tmp_path / "whole"))
    notes = []
    for event in train(shift(), settings, tmp_path / "full"):
        if isinstance(event, Progress) and "disk is full" in event.message:
            notes.append(event.step)
            assert event.message.startswith("Training goes on, but ")
            kept = load(tmp_path / "full" / LAST)[1]
            assert kept["step"] == 4
        if event.step == 5 and isinstance(event, Progress):
            disk(True)
        if event.step == 10:
            disk(False)
    # the validation at step 5 could not be kept either; its weights waited in memory
    assert notes and set(notes) <= {6, 8}
    same_files(tmp_path / "whole", tmp_path / "full")


def test_the_best_weights_wait_in_memory_for_room(shift, config, disk, tmp_path) -> None:
    task = shift(scores=[1.0, 5.0, 0.0])
    list(train(shift(scores=[1.0, 5.0, 0.0]), config(steps=12), tmp_path / "whole"))
    for event in train(task, config(steps=12), tmp_path / "full"):
        if isinstance(event, Progress):
            disk(event.step in (9, 10))  # the best is found at step 10
    best, state = load(tmp_path / "full" / BEST)
    assert state["step"] == 10
    expected, _ = load(tmp_path / "whole" / BEST)
    assert all(torch.equal(best[k], expected[k]) for k in expected)


def test_disk_full_at_the_end_is_one_sentence_and_the_earlier_checkpoint_stays(
    shift, config, disk, tmp_path
) -> None:
    settings = config(steps=12, checkpoint_every_steps=2)
    with pytest.raises(RequestError) as caught:
        for event in train(shift(), settings, tmp_path):
            if event.step == 7:
                disk(True)
    text = str(caught.value)
    assert "was not saved because the disk is full" in text and "is unchanged" in text
    assert "\n" not in text
    assert load(tmp_path / LAST)[1]["step"] == 6
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".part") == []
    disk(False)
    assert list(train(shift(), settings, tmp_path))[-1].step == 12


def test_disk_full_when_stopped(shift, config, disk, tmp_path) -> None:
    generator = train(shift(), config(checkpoint_every_steps=2), tmp_path)
    for event in generator:
        if event.step == 7:
            break
    disk(True)
    with pytest.raises(RequestError, match="disk is full"):
        generator.close()
    assert load(tmp_path / LAST)[1]["step"] == 6


def test_a_log_that_cannot_be_written_stops_nothing(shift, config, monkeypatch, tmp_path) -> None:
    from napari_lfm.training import log

    monkeypatch.setattr(log, "replacing_file", full)
    events = list(train(shift(), config(), tmp_path))
    assert isinstance(events[-1], TrainResult)
    assert not (tmp_path / "log.csv").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_first_step(shift, config, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    task = shift()
    with pytest.raises(RequestError, match="cannot be made"):
        list(train(task, config(), tmp_path / "file" / "run"))
    assert task.made == []


def test_a_wrong_device_is_refused(shift, config, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(RequestError, match="no usable 'cuda' device"):
        list(train(shift(), config(device="cuda"), tmp_path))


def test_request_errors_of_a_task_pass_unchanged(shift, config, tmp_path) -> None:
    task = shift()

    def batch(index):
        raise RequestError("There is nothing to train on.", "Give data.")

    task.batch = batch
    with pytest.raises(RequestError, match=r"There is nothing to train on\. Give data\."):
        list(train(task, config(prefetch=2), tmp_path))
