"""A run that was stopped, killed or interrupted ends equal to one that was not."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.training.checkpoint import BEST, LAST, load, read_state, save
from napari_lfm.training.events import TrainResult
from napari_lfm.training.loop import train
from napari_lfm.training.outcome import read_result


@pytest.fixture
def settings(config):
    return config(steps=20, validate_every_steps=6, checkpoint_every_steps=4)


@pytest.fixture
def whole(shift, settings, tmp_path):
    """Folder of a run that nothing disturbed."""
    list(train(shift(), settings, tmp_path / "whole"))
    return tmp_path / "whole"


def until(generator, step: int) -> None:
    for event in generator:
        if getattr(event, "step", 0) == step:
            return


def steps_of(folder) -> list[int]:
    lines = (folder / "log.csv").read_text("utf-8").splitlines()
    return [int(row["step"]) for row in csv.DictReader(lines)]


@pytest.mark.parametrize("step", [0, 1, 6, 11, 19])
def test_stopped_and_continued(shift, settings, whole, same_files, tmp_path, step) -> None:
    folder = tmp_path / "stopped"
    generator = train(shift(), settings, folder)
    until(generator, step)
    generator.close()
    result = read_result(folder)
    assert (result.reason, result.step) == ("stopped", step)
    list(train(shift(seed=1), settings, folder))
    same_files(whole, folder)
    assert steps_of(folder) == steps_of(whole) == list(range(1, 21))


@pytest.mark.parametrize(("step", "prefetch"), [(5, 0), (7, 2), (12, 0), (15, 2)])
def test_killed_between_checkpoints(shift, config, whole, same_files, tmp_path, step, prefetch) -> None:
    settings = config(steps=20, validate_every_steps=6, checkpoint_every_steps=4, prefetch=prefetch)
    folder, killed = tmp_path / "running", tmp_path / "killed"
    generator = train(shift(), settings, folder)
    until(generator, step)
    shutil.copytree(folder, killed)  # what a kill leaves: the last checkpoint, and logs of later steps
    generator.close()
    assert read_state(killed / LAST)["step"] < step or step == 12
    assert steps_of(killed)[-1] == step
    list(train(shift(), settings, killed))
    same_files(whole, killed)
    assert steps_of(killed) == list(range(1, 21))


@pytest.mark.parametrize("where", ["loss", "validate", "batch"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_middle(shift, settings, whole, same_files, tmp_path, where, error) -> None:
    folder, task = tmp_path / "broken", shift()
    original, calls = getattr(task, where), []

    def breaks(*args):
        calls.append(args)
        if len(calls) == (2 if where == "validate" else 10):
            raise error("in the middle")
        return original(*args)

    setattr(task, where, breaks)
    with pytest.raises(error, match="in the middle"):
        list(train(task, settings, folder))
    assert read_state(folder / LAST)["step"] in (8, 9, 12)
    list(train(shift(), settings, folder))
    same_files(whole, folder)


def test_half_a_step_is_never_saved(duel, config, tmp_path) -> None:
    settings = config(steps=6, validate_every_steps=None, checkpoint_every_steps=2)
    list(train(duel(), settings, tmp_path / "whole"))
    task = duel()
    original = task.loss

    def breaks(phase, batch):
        if batch[0] == 3 * 5 + 2:  # the third update of the fourth step
            raise KeyboardInterrupt
        return original(phase, batch)

    task.loss = breaks
    with pytest.raises(KeyboardInterrupt):
        list(train(task, settings, tmp_path / "broken"))
    assert read_state(tmp_path / "broken" / LAST)["step"] == 2
    list(train(duel(), settings, tmp_path / "broken"))
    one, two = (load(tmp_path / name / LAST)[0] for name in ("whole", "broken"))
    assert [k for k in one if not torch.equal(one[k], two[k])] == []


def test_by_the_clock_too(shift, config, clock, same_files, tmp_path) -> None:
    settings = config(steps=None, minutes=0.4, validate_every_steps=None, validate_every_s=7.0)

    def timed():
        task = shift()
        task.at_loss = clock.tick
        return task

    list(train(timed(), settings, tmp_path / "whole"))
    generator = train(timed(), settings, tmp_path / "stopped")
    until(generator, 9)
    generator.close()
    clock.now += 3600
    list(train(timed(), settings, tmp_path / "stopped"))
    same_files(tmp_path / "whole", tmp_path / "stopped")
    assert read_state(tmp_path / "stopped" / LAST)["seconds"] == 24.0


def test_bfloat16_too(shift, config, same_files, tmp_path) -> None:
    settings = config(precision="bfloat16")
    list(train(shift(), settings, tmp_path / "whole"))
    generator = train(shift(), settings, tmp_path / "stopped")
    until(generator, 7)
    generator.close()
    list(train(shift(), settings, tmp_path / "stopped"))
    same_files(tmp_path / "whole", tmp_path / "stopped")


def test_more_steps_go_on_where_it_ended(shift, config, tmp_path) -> None:
    list(train(shift(), config(steps=5), tmp_path))
    task = shift()
    events = list(train(task, config(steps=9, patience=4), tmp_path))
    assert events[0].step == 5
    assert [i for i in task.made if i < 1000] == [5, 6, 7, 8]
    assert int(task.seen) == 9
    assert isinstance(events[-1], TrainResult)
    assert [h["step"] for h in events[-1].history] == [5, 9]


def test_a_finished_run_is_not_run_again(shift, config, tmp_path) -> None:
    list(train(shift(), config(steps=5), tmp_path))
    task = shift()
    before, _ = load(tmp_path / LAST)
    events = list(train(task, config(steps=5), tmp_path))
    assert len(events) == 2 and events[-1].reason == "steps"
    assert task.made == []
    after, _ = load(tmp_path / LAST)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_half_written_checkpoints_of_a_killed_run_are_removed(shift, config, tmp_path) -> None:
    (tmp_path / f".{LAST}.0123abcd.part").write_bytes(b"half")
    (tmp_path / ".other.part").write_bytes(b"not ours")
    list(train(shift(), config(steps=1), tmp_path))
    assert [p.name for p in tmp_path.glob(".*")] == [".other.part"]


def test_starting_again_keeps_the_old_weights_aside(shift, config, tmp_path) -> None:
    list(train(shift(), config(steps=5), tmp_path))
    old = (tmp_path / BEST).read_bytes()
    events = list(train(shift(), config(steps=3, seed=9), tmp_path, resume=False))
    assert events[0].step == 0 and events[-1].step == 3
    assert (tmp_path / f"previous-{BEST}").read_bytes() == old
    assert steps_of(tmp_path) == [1, 2, 3]


def test_stopped_before_any_validation_leaves_a_model(shift, config, tmp_path) -> None:
    generator = train(shift(), config(steps=50, validate_every_steps=40), tmp_path)
    until(generator, 3)
    generator.close()
    result = read_result(tmp_path)
    assert (result.best_score, result.best_step) == (None, 3)
    assert "modules.network.0.weight" in load(tmp_path / BEST)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"learning_rate": 0.5, "batch_size": 9}, "batch_size was 4 and is now 9, learning_rate was 0.01"),
    ],
)
def test_other_settings_are_refused_by_name(shift, config, tmp_path, change, words) -> None:
    list(train(shift(), config(steps=2), tmp_path))
    with pytest.raises(RequestError, match=words):
        list(train(shift(), config(steps=4, **change), tmp_path))
    assert read_state(tmp_path / LAST)["step"] == 2


def test_another_network_is_refused_by_name(shift, config, tmp_path) -> None:
    list(train(shift(), config(steps=2), tmp_path))
    with pytest.raises(RequestError, match=r"network\.width was 6 and is now 4"):
        list(train(shift(width=4), config(steps=4), tmp_path))
    silent = shift(width=4)
    silent.describe = shift().describe
    with pytest.raises(RequestError, match=r"'modules\.network\.0\.weight' has shape \(6, 1, 3, 3\)"):
        list(train(silent, config(steps=4), tmp_path))
    deeper = shift()
    deeper.modules["network"].append(torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(RequestError, match=r"only the network has 'modules\.network\.5"):
        list(train(deeper, config(steps=4), tmp_path))


@pytest.mark.parametrize("kind", ["truncated", "empty", "pickle", "foreign"])
def test_damaged_and_foreign_checkpoints_are_refused(shift, config, tmp_path, kind) -> None:
    from safetensors.torch import save_file

    list(train(shift(), config(steps=2), tmp_path))
    path = tmp_path / LAST
    if kind == "foreign":
        save_file({"a": torch.ones(2)}, path)
    elif kind == "pickle":
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes(path.read_bytes()[:-100] if kind == "truncated" else b"")
    before = path.read_bytes()
    with pytest.raises(
        RequestError, match="is not a checkpoint of" if kind == "foreign" else "cannot be read"
    ):
        list(train(shift(), config(steps=4), tmp_path))
    assert path.read_bytes() == before
    with pytest.raises(RequestError, match="There is no checkpoint"):
        read_result(tmp_path / "nowhere")


def test_checkpoints_hold_every_type_and_shape_and_are_plain_safetensors(tmp_path) -> None:
    from safetensors.torch import load_file

    tensors = {
        "a": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "b": torch.tensor(3.5, dtype=torch.bfloat16),
        "c": torch.arange(5),
        "d": torch.tensor([True, False, True]),
        "e": torch.zeros(0, 3),
        "f": torch.randn(7, dtype=torch.float64)[::2],
        "g": torch.ones(3, dtype=torch.uint8),
    }
    save(tmp_path / "x.safetensors", tensors, {"score": float("nan"), "names": ("a", 1)})
    found, state = load(tmp_path / "x.safetensors")
    assert (state["score"], state["names"]) == (None, ["a", 1])
    for source in (found, load_file(tmp_path / "x.safetensors")):
        assert source.keys() == tensors.keys()
        for key, value in tensors.items():
            assert source[key].dtype == value.dtype
            assert torch.equal(source[key], value)
    json.dumps(state, allow_nan=False)
