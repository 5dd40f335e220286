"""The progress line, JSON, and words for sizes and times."""

from __future__ import annotations

import io

import numpy as np
import pytest

from napari_lfm.cli._console import ProgressLine, jsonable, numbers, size
from napari_lfm.core.events import Preview, Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.core.words import duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    out = Terminal()
    line = ProgressLine(out)
    line(Progress(1, 3, "Iteration 1", 75.0, {"residual": 0.25, "iteration": 1.0}))
    image = labelled(np.zeros((2, 2)), "yx", {})
    line(Preview("volume", image, Progress(3, 3, "Iteration 3", 0.0, {"residual": 0.1})))
    line.end()
    first, second = out.getvalue().strip("\r\n").split("\r")
    assert first == "Iteration 1/3, residual 0.25, 75 s left"
    assert second.rstrip() == "Iteration 3/3, residual 0.1"
    assert len(second) >= len(first)  # nothing of the longer line is left
    assert out.getvalue().endswith("\n")


def test_a_log_gets_few_lines_but_every_stage() -> None:
    out = io.StringIO()
    line = ProgressLine(out)
    line.show(0, 1, "Rectifying")
    for k in range(1, 101):
        line.show(k, 100, f"Iteration {k}")
    line.end()
    lines = out.getvalue().splitlines()
    assert lines[0] == "Rectifying 0/1"
    assert lines[1] == "Iteration 1/100"
    assert lines[-1] == "Iteration 100/100"
    assert len(lines) < 20


def test_json_has_no_words_for_infinity() -> None:
    value = {"a": (1, np.float32(0.5)), "b": float("nan"), "c": np.arange(2), 3: None, "d": {"e": np.inf}}
    assert jsonable(value) == {"a": [1, 0.5], "b": None, "c": [0, 1], "3": None, "d": {"e": None}}


def test_words() -> None:
    assert [duration(s) for s in (0.2, 12.4, 600, 9000)] == ["less than 1 s", "12 s", "10 min", "2.5 h"]
    assert [size(b) for b in (12, 3 * 2**20, 1.5 * 2**30)] == ["12 bytes", "3 MiB", "1.5 GiB"]
    assert numbers("1, 2.5,-3", 3, "size", "1,2,3") == (1.0, 2.5, -3.0)
    for wrong in ("1,2", "1,2,nan", "a,b,c", ""):
        with pytest.raises(RequestError, match="not a size"):
            numbers(wrong, 3, "size", "1,2,3")


def test_a_log_of_many_parts_and_frames_stays_short() -> None:
    out = io.StringIO()
    line = ProgressLine(out)
    for k in range(1, 21):
        for part in range(1, 41):
            line.show(k - 1, 20, f"Iteration {k}, part {part} of 40")
        line.show(k, 20, f"Iteration {k}, frame 1 of 20")
    lines = out.getvalue().splitlines()
    assert len(lines) < 45
    # the number at the end is that of the frames
    assert lines[-1] == "Iteration 20, frame 1 of 20 20/20"
