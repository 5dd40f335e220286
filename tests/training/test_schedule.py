from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from napari_lfm.core.problems import RequestError
from napari_lfm.training.config import MAY_CHANGE, TrainConfig, make_config
from napari_lfm.training.schedule import END, ONE_CYCLE_START, progress, rate_factor

SHARES = [i / 200 for i in range(201)]


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [("one-cycle", ONE_CYCLE_START, END), ("cosine", END, END), ("constant", END, 1.0)],
)
@pytest.mark.parametrize("warmup", [0.1, 0.5])
def test_end_points_and_peak(schedule: str, first: float, last: float, warmup: float) -> None:
    assert rate_factor(schedule, 0.0, warmup) == pytest.approx(first)
    assert rate_factor(schedule, warmup, warmup) == pytest.approx(1)
    assert rate_factor(schedule, 1.0, warmup) == pytest.approx(last)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_rises_then_never_rises_again(schedule: str, warmup: float) -> None:
    rates = [rate_factor(schedule, share, warmup) for share in SHARES]
    assert all(0 < r <= 1 for r in rates)
    peak = round(warmup * 200)
    assert all(a <= b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))


def test_halfway_down_is_half() -> None:
    assert rate_factor("cosine", 0.55, 0.1) == pytest.approx((1 + END) / 2)


def test_progress_is_the_larger_of_steps_and_time() -> None:
    both = TrainConfig(steps=100, minutes=2)
    assert progress(both, 10, 0) == pytest.approx(0.1)
    assert progress(both, 10, 60) == pytest.approx(0.5)
    assert progress(both, 90, 60) == pytest.approx(0.9)
    assert progress(both, 10, 600) == 1
    assert progress(TrainConfig(steps=100), 10, 1e9) == pytest.approx(0.1)
    assert progress(TrainConfig(minutes=1), 10**9, 30) == pytest.approx(0.5)


def test_settings_need_an_end_and_are_explained() -> None:
    with pytest.raises(RequestError, match="give the length of the training"):
        make_config()
    with pytest.raises(RequestError, match="learning_rate"):
        make_config(steps=3, learning_rate=-1)
    with pytest.raises(RequestError, match="there is no entry 'epochs'"):
        make_config(epochs=3)
    with pytest.raises(RequestError):
        make_config(minutes=float("inf"))


def test_settings_are_frozen_documented_and_survive_json() -> None:
    settings = make_config(steps=7, minutes=1.5, patience=3)
    with pytest.raises(ValidationError):
        settings.steps = 8  # type: ignore[misc]
    assert make_config(**settings.dump()) == settings
    assert all(field.description for field in TrainConfig.model_fields.values())
    assert set(TrainConfig.model_fields) >= MAY_CHANGE
