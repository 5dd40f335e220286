"""Work on a thread that a generator waits for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.methods import waiting
from napari_lfm.methods.waiting import waited_for

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_lfm.core.events import Progress


def outcome(events: Generator[Progress, None, Any]) -> tuple[list[str], Any]:
    said = []
    while True:
        try:
            said.append(next(events).message)
        except StopIteration as end:
            return said, end.value


def test_it_says_what_it_waits_for_and_returns_what_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_S", 0.001)
    go = threading.Event()
    events = waited_for(lambda: go.wait(60) and 7, "Counting")
    assert [next(events).message for _ in range(3)] == ["Counting"] * 3
    go.set()
    assert outcome(events)[1] == 7


def test_what_goes_wrong_is_raised() -> None:
    def fails() -> None:
        raise TimeoutError("the work's own")

    with pytest.raises(TimeoutError, match="the work's own"):
        outcome(waited_for(fails, "Counting"))


def test_closing_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_S", 0.001)
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(60)
        done.set()

    events = waited_for(work, "Counting")
    next(events)
    next(events)
    events.close()
    assert not done.is_set()
    go.set()
    assert done.wait(60)
