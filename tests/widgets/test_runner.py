from __future__ import annotations

import gc
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled
from napari_lfm.methods.base import Request
from napari_lfm.widgets.background import Background
from napari_lfm.widgets.crew import Crew
from napari_lfm.widgets.runner import Outcome, Runner, contrast_limits


@pytest.fixture
def request_(fake_method: Any) -> Request:
    image = labelled(np.ones((20, 20)), ("y", "x"), {"y": 0.1, "x": 0.1})
    return Request("fake", {"image": image}, fake_method.Parameters(iterations=6))


@pytest.fixture
def crew() -> Any:
    crew = Crew()
    yield crew
    assert crew.close()


@pytest.fixture
def runner(crew: Crew, qapp: Any) -> Runner:
    return Runner(crew)


def run(qtbot: Any, runner: Runner, method: Any, request: Request) -> Outcome:
    with qtbot.waitSignal(runner.finished, timeout=20_000) as caught:
        runner.start(method, request)
    return caught.args[0]


def test_a_complete_run(qtbot: Any, runner: Runner, fake_method: Any, request_: Request) -> None:
    progress: list[Any] = []
    previews: list[Any] = []
    runner.progressed.connect(progress.extend)
    runner.previewed.connect(previews.append)
    outcome = run(qtbot, runner, fake_method, request_)
    assert outcome.status == "finished"
    assert outcome.result is not None
    assert outcome.state == 6
    # every step is told, previews may be skipped, but never the last one
    assert [p.step for p in progress] == [0, 1, 2, 3, 4, 5, 6]
    assert previews[-1].preview.progress.step == 6
    shown = previews[-1].preview.image.values
    assert shown.dtype == np.float32
    assert shown.flags.c_contiguous
    # limits are those of the first preview, for good
    low, high = contrast_limits(fake_method.volume(1).values)
    assert previews[-1].limits == (low, pytest.approx(low + 2.5 * (high - low)))
    assert not runner.is_running


def test_stop_ends_within_one_step_and_keeps_the_preview(
    qtbot: Any, runner: Runner, fake_method: Any, request_: Request
) -> None:
    fake_method.gate = threading.Semaphore(0)
    runner.start(fake_method, replace(request_, parameters=fake_method.Parameters(iterations=1000)))
    for _ in range(3):
        fake_method.gate.release()
    qtbot.waitUntil(lambda: fake_method.steps == 3)
    with qtbot.waitSignal(runner.finished, timeout=20_000) as caught:
        runner.stop()
        assert runner.is_stopping
        fake_method.gate.release()  # the step that was under way
    outcome = caught.args[0]
    assert outcome.status == "stopped"
    assert fake_method.steps == 4
    assert fake_method.closed.is_set()
    assert outcome.preview is not None
    assert float(outcome.preview.preview.image.max()) == 8.0


def test_failure_is_a_sentence(qtbot: Any, runner: Runner, fake_method: Any, request_: Request) -> None:
    outcome = run(
        qtbot,
        runner,
        fake_method,
        replace(request_, parameters=fake_method.Parameters(iterations=9, fail_at=3)),
    )
    assert outcome.status == "failed"
    assert str(outcome.problem) == "The light field is all zero. Choose another one."
    assert outcome.preview is not None  # what came before the failure is kept


def test_unexpected_failure_is_a_sentence_too(
    qtbot: Any, runner: Runner, fake_method: Any, request_: Request, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fake_method, "volume", lambda i: 1 / 0)
    outcome = run(qtbot, runner, fake_method, request_)
    assert outcome.status == "failed"
    assert outcome.problem is not None
    assert "ZeroDivisionError" in outcome.problem.message
    assert "Traceback" not in str(outcome.problem)


def test_continue_goes_on_from_the_state(
    qtbot: Any, runner: Runner, fake_method: Any, request_: Request
) -> None:
    first = run(qtbot, runner, fake_method, request_)
    second = run(qtbot, runner, fake_method, replace(request_, continue_from=first.state))
    assert second.state == 12


def test_second_start_is_ignored(qtbot: Any, runner: Runner, fake_method: Any, request_: Request) -> None:
    fake_method.gate = threading.Semaphore(0)
    runner.start(fake_method, request_)
    runner.start(fake_method, request_)
    with qtbot.waitSignal(runner.finished, timeout=20_000):
        fake_method.gate.release(6)
    assert len(fake_method.requests) == 1


def test_closing_joins_the_worker(qtbot: Any, fake_method: Any, request_: Request) -> None:
    crew = Crew()
    runner = Runner(crew)
    heard: list[Any] = []
    runner.finished.connect(heard.append)
    runner.start(fake_method, replace(request_, parameters=fake_method.Parameters(iterations=100_000)))
    qtbot.waitUntil(lambda: fake_method.steps > 2)
    assert crew.close()
    steps = fake_method.steps
    qtbot.wait(50)
    assert fake_method.steps == steps
    assert heard == []
    gc.collect()
    assert fake_method.closed.is_set()


def test_background_answers_only_the_newest(qtbot: Any, crew: Crew) -> None:
    background = Background(crew)
    gate, answers, ran = threading.Event(), [], []

    def job(n: int) -> int:
        gate.wait()
        ran.append(n)
        return n

    for n in range(5):
        background.submit("check", lambda n=n: job(n), answers.append, answers.append)
    gate.set()
    qtbot.waitUntil(lambda: bool(answers))
    assert answers == [4]
    assert ran == [0, 4]
    assert not background.is_busy("check")


def test_contrast_limits() -> None:
    assert contrast_limits(np.zeros((4, 4))) == (0.0, 1.0)
    assert contrast_limits(np.full(4, np.nan)) == (0.0, 1.0)
    low, high = contrast_limits(np.linspace(0, 1, 10_001))
    assert (low, high) == (pytest.approx(0.01), pytest.approx(0.999))
