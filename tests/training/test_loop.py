from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.training.checkpoint import BEST, LAST, load, load_module_weights
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.loop import train
from napari_lfm.training.outcome import read_result


def run(task, config, folder, **kwargs: Any) -> tuple[list[Any], TrainResult]:
    events = list(train(task, config, folder, **kwargs))
    assert isinstance(events[-1], TrainResult)
    return events[:-1], events[-1]


def test_every_step_and_validation_is_told(shift, config, tmp_path) -> None:
    events, result = run(shift(), config(), tmp_path)
    steps = [e for e in events if isinstance(e, Progress)]
    assert [e.step for e in steps] == list(range(13))
    assert all(e.total == 12 for e in steps)
    assert {"loss", "l1", "grad_norm", "rate", "steps_per_s", "share"} <= set(steps[3].values)
    assert steps[6].values["score"] == result.history[0]["score"]
    assert steps[-1].values["share"] == 1
    validated = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in validated] == [5, 10, 12]
    assert validated[0].images["network"].shape == (8, 8)
    assert validated[0].values["mse"] == -validated[0].score
    assert (result.reason, result.step, result.sentence) == ("steps", 12, "All 12 steps are done.")
    assert result.best_score == max(e.score for e in validated)
    assert result.best_path.is_file() and result.last_path.is_file()
    assert result.task == {"network": {"width": 6}, "seed": 1}
    assert result.config["learning_rate"] == 1e-2
    assert read_result(tmp_path) == result


def test_it_learns(shift, config, tmp_path) -> None:
    settings = config(steps=100, validate_every_steps=50, learning_rate=0.02, ema_decay=0.9)
    _, result = run(shift(width=12), settings, tmp_path)
    assert -result.best_score < 0.5  # the targets have a variance of 1; dropout leaves some of it


def test_best_holds_the_averaged_weights_of_its_step(shift, config, tmp_path) -> None:
    task = shift(scores=[1.0, 3.0, 2.0])
    _, result = run(task, config(ema_decay=0.9), tmp_path)
    assert (result.best_step, result.best_score) == (10, 3.0)
    best, state = load(tmp_path / BEST)
    assert (state["step"], state["score"]) == (10, 3.0)
    short = tmp_path / "short"
    run(shift(), config(steps=12, validate_every_steps=10, ema_decay=0.9), short)
    again, _ = load(short / LAST)
    assert not torch.equal(best["modules.network.0.weight"], again["modules.network.0.weight"])
    fresh = shift().modules["network"]
    fresh.load_state_dict(load_module_weights(tmp_path / BEST, "network"))
    with pytest.raises(RequestError, match="holds no weights named 'judge'"):
        load_module_weights(tmp_path / BEST, "judge")


def test_early_stop_after_validations_without_gain(shift, config, tmp_path) -> None:
    task = shift(scores=[1.0, 2.0, 2.0, 1.5, 0.0, 0.0])
    _, result = run(task, config(steps=1000, validate_every_steps=3, patience=3), tmp_path)
    assert (result.reason, result.step, result.best_step) == ("patience", 15, 6)
    assert "3 validations in a row were not better than that of step 6" in result.sentence
    # asked to go on, it is given as many validations again
    task = shift(scores=[0.5, 0.5, 0.5, 0.5])
    _, result = run(task, config(steps=1000, validate_every_steps=3, patience=3), tmp_path)
    assert (result.reason, result.step) == ("patience", 24)


def test_minutes_end_a_run_and_bring_the_rate_down(shift, config, clock, tmp_path) -> None:
    task = shift()
    task.at_loss = clock.tick  # a step takes a second
    events, result = run(task, config(steps=None, minutes=0.5, validate_every_steps=None), tmp_path)
    assert (result.reason, result.step, result.seconds) == ("minutes", 30, 30.0)
    rates = [e.values["rate"] for e in events if isinstance(e, Progress) and "rate" in e.values]
    assert max(rates) == pytest.approx(1e-2, rel=0.01)
    assert rates[-1] < 1e-2 / 50
    assert events[10].seconds_left == pytest.approx(20)
    assert result.hours == 30 / 3600


def test_validation_counts_as_time_and_comes_by_the_clock(shift, config, clock, tmp_path) -> None:
    task = shift()
    validate = task.validate

    def slow(modules):
        clock.now += 5
        return validate(modules)

    task.at_loss, task.validate = clock.tick, slow
    settings = config(steps=None, minutes=0.5, validate_every_steps=None, validate_every_s=4.0)
    _, result = run(task, settings, tmp_path)
    # 4 s of steps, 5 s of validation, three times; then three seconds and the last validation
    assert [h["step"] for h in result.history] == [4, 8, 12, 15]
    assert result.step == 15


def test_time_in_the_callers_hands_does_not_count(shift, config, clock, tmp_path) -> None:
    task = shift()
    task.at_loss = clock.tick
    for _ in train(task, config(steps=None, minutes=0.1), tmp_path):
        clock.now += 1000
    assert read_result(tmp_path).seconds == 6.0


def test_averages_clipping_and_layout_do_not_change_a_run_that_has_no_need_of_them(
    shift, config, tmp_path
) -> None:
    outcomes = []
    for i, extra in enumerate(
        [{}, {"ema_decay": 0.0}, {"clip_norm": 0.0}, {"channels_last": False}, {"prefetch": 3}]
    ):
        usual = {"clip_norm": 1e6, "learning_rate": 1e-3}
        run(shift(), config(**{**usual, **extra}), tmp_path / str(i))
        outcomes.append(load(tmp_path / str(i) / LAST)[0]["modules.network.0.weight"])
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])
    torch.testing.assert_close(outcomes[0], outcomes[3])
    assert torch.equal(outcomes[0], outcomes[4])


def test_clipping_bounds_the_first_moment(shift, config, tmp_path) -> None:
    events, _ = run(shift(), config(steps=1, clip_norm=1e-3), tmp_path)
    assert events[1].values["grad_norm"] > 0.01
    tensors, _ = load(tmp_path / LAST)
    moments = [v for k, v in tensors.items() if k.endswith(".exp_avg")]
    norm = float(torch.stack([m.norm() for m in moments]).norm())
    assert norm == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_only_matrices_decay(shift, config, tmp_path) -> None:
    task = shift()
    before = {k: v.clone() for k, v in task.modules["network"].state_dict().items()}
    task.loss = lambda phase, batch: {"loss": 0 * sum(p.sum() for p in task.modules["network"].parameters())}
    run(task, config(steps=1, weight_decay=0.5, schedule="constant", warmup_share=0.0), tmp_path)
    after = task.modules["network"].state_dict()
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 1e-2 * 0.5))
    assert torch.equal(after["0.bias"], before["0.bias"])


def test_bfloat16_trains_float32_weights(shift, config, tmp_path) -> None:
    seen = []
    task = shift()
    task.modules["network"][0].register_forward_hook(lambda *args: seen.append(args[2].dtype))
    _, result = run(task, config(precision="bfloat16"), tmp_path)
    assert set(seen) == {torch.bfloat16}
    tensors, state = load(tmp_path / LAST)
    assert tensors["modules.network.0.weight"].dtype == torch.float32
    assert state["machine"]["bfloat16"] is True
    assert np.isfinite(result.best_score)


def test_two_phases_share_a_step(duel, config, tmp_path) -> None:
    task = duel()
    events, _ = run(task, config(steps=2, validate_every_steps=None, clip_norm=0.0), tmp_path)
    names = ["generator"] * 3 + ["discriminator"] * 2
    assert task.calls == [(name, i) for i, name in enumerate(names * 2)]
    values = events[1].values
    assert {"loss", "generator.loss", "discriminator.loss", "discriminator.grad_norm"} <= set(values)
    assert values["loss"] == values["generator.loss"]
    for i, (name, _) in enumerate(task.calls[:-1]):
        for module in names[2:4]:
            same = torch.equal(task.before[i][module], task.before[i + 1][module])
            assert same == (module != name), (i, module)


def test_the_global_random_state_is_left_alone(shift, config, tmp_path) -> None:
    task = shift()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(task, config(), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_notes_of_the_task_are_passed_on(shift, config, tmp_path) -> None:
    task = shift()
    waiting = ["The pair 'a' is skipped."]
    task.notes = lambda: [waiting.pop()] if waiting else []
    events, _ = run(task, config(steps=2), tmp_path)
    assert [e.message for e in events if isinstance(e, Progress)].count("The pair 'a' is skipped.") == 1


def test_log_has_a_row_per_step(shift, config, tmp_path) -> None:
    run(shift(), config(), tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text("utf-8").splitlines()))
    assert [int(r["step"]) for r in rows] == list(range(1, 13))
    assert all(float(r["loss"]) > 0 and float(r["rate"]) > 0 for r in rows)
    scores = list(csv.DictReader((tmp_path / "validation.csv").read_text("utf-8").splitlines()))
    assert [int(r["step"]) for r in scores] == [5, 10, 12]
    assert float(scores[0]["mse"]) == -float(scores[0]["score"])


def test_tensorboard_where_it_is_installed(shift, config, tmp_path, monkeypatch) -> None:
    made: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.rows: list[tuple[str, float, int]] = []
            self.purge_step, self.closed = purge_step, False
            made.append(self)

        def add_scalar(self, *row: Any) -> None:
            self.rows.append(row)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "tensorboard" else None)
    monkeypatch.setitem(
        __import__("sys").modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer)
    )
    run(shift(), config(steps=3), tmp_path)
    run(shift(), config(steps=5), tmp_path)
    assert [w.purge_step for w in made] == [0, 3]
    assert all(w.closed for w in made)
    assert [row[2] for row in made[1].rows if row[0] == "loss"] == [4, 5]
    assert any(row[0] == "score" for row in made[0].rows)


def test_no_tensorboard_folder_without_the_package(shift, config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run(shift(), config(steps=2), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("napari")) == [
        BEST,
        LAST,
        "log.csv",
        "validation.csv",
    ]


def test_random_numbers_of_a_step_belong_to_seed_and_step(shift, config, tmp_path) -> None:
    def drawn(global_seed: int, folder: str, **more: Any) -> list[float]:
        task, out = shift(), []
        task.at_loss = lambda index: out.append(float(torch.rand(())))
        torch.manual_seed(global_seed)
        run(task, config(steps=4, **more), tmp_path / folder)
        return out

    first = drawn(1, "a")
    assert len(set(first)) == 4
    assert drawn(2, "b") == first
    assert not set(drawn(1, "c", seed=8)) & set(first)


def test_each_phase_has_its_own_learning_rate(duel, config, tmp_path) -> None:
    task = duel()
    before = {k: m.weight.detach().clone() for k, m in task.modules.items()}
    settings = config(steps=1, weight_decay=0.0, schedule="constant", warmup_share=0.0, clip_norm=0.0)
    run(task, settings, tmp_path)
    moved = {k: float((m.weight.detach() - before[k]).abs().max()) for k, m in task.modules.items()}
    # Adam moves by about the learning rate per update: 3 of 1e-2, and 2 of 3e-3
    assert moved["generator"] == pytest.approx(3e-2, rel=0.1)
    assert moved["discriminator"] == pytest.approx(6e-3, rel=0.1)
