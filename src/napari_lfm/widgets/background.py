"""Short jobs off the GUI thread: calibrate, check, estimate, re-project, save."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Qt

from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.widgets.crew import Crew

_log = logging.getLogger(__name__)


def problem_of(error: BaseException) -> Problem:
    """Return one plain sentence for any failure; unexpected ones go to the log in full."""
    if isinstance(error, LfmError):
        return error.problem()
    _log.error("unexpected failure", exc_info=error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Problem(
            "The memory ran out.", "Draw a smaller region, take fewer planes, or set a memory budget below."
        )
    return Problem(
        f"This failed unexpectedly ({type(error).__name__}: {error}).",
        "Nothing that was already there is lost. Please report it with the log.",
    )


@dataclass
class _Job:
    function: Callable[[], Any]
    on_done: Callable[[Any], None]
    on_problem: Callable[[Problem], None]


@dataclass(frozen=True)
class _Answer:
    key: str
    token: int
    value: Any = None
    problem: Problem | None = None


class Background(QObject):
    """Runs functions in worker threads; of several jobs with one key only the newest answers.

    A key never has two workers at once: a job that comes while its predecessor computes waits,
    and replaces any other that waits, so that fast typing cannot pile up work.
    """

    busy_changed = Signal(str, bool)

    def __init__(self, crew: Crew, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._crew = crew
        self._tokens: dict[str, int] = {}
        self._active: dict[str, _Job] = {}
        self._waiting: dict[str, _Job] = {}

    def submit(
        self,
        key: str,
        function: Callable[[], Any],
        on_done: Callable[[Any], None],
        on_problem: Callable[[Problem], None],
    ) -> None:
        """Run `function` in a worker; then `on_done(value)` or `on_problem(problem)` in the GUI thread."""
        if self._crew.closed:
            return
        self._tokens[key] = self._tokens.get(key, 0) + 1
        job = _Job(function, on_done, on_problem)
        if key in self._active:
            self._waiting[key] = job
        else:
            self._start(key, job)

    def is_busy(self, key: str) -> bool:
        """Return whether a job with this key computes or waits."""
        return key in self._active

    def forget(self, key: str) -> None:
        """Ignore whatever the running job with this key will answer."""
        self._tokens[key] = self._tokens.get(key, 0) + 1
        self._waiting.pop(key, None)

    def _start(self, key: str, job: _Job) -> None:
        self._active[key] = job
        token = self._tokens[key]
        _, done = self._crew.enlist()
        # napari keeps every worker as long as its window: it must not keep the job's arrays too
        box = [job.function]

        def work() -> _Answer:
            try:
                return _Answer(key, token, value=box.pop()())
            except Exception as error:  # shown as a sentence, logged in full
                return _Answer(key, token, problem=problem_of(error))

        worker = create_worker(work, _start_thread=False)
        worker.returned.connect(self._answer)
        worker.finished.connect(done.set, Qt.ConnectionType.DirectConnection)
        worker.start()
        self.busy_changed.emit(key, True)

    def _answer(self, answer: _Answer) -> None:
        job = self._active.pop(answer.key)
        if self._crew.closed:
            return
        newest = answer.token == self._tokens[answer.key]
        following = self._waiting.pop(answer.key, None)
        if following is not None:
            self._start(answer.key, following)
        else:
            self.busy_changed.emit(answer.key, False)
        if not newest:
            return
        if answer.problem is not None:
            job.on_problem(answer.problem)
        else:
            job.on_done(answer.value)
