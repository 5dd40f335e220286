"""One worker for every method: starts it, hands its events to the GUI at a bearable rate, stops it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Qt, QTimer

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Method, Request
    from napari_lfm.widgets.crew import Crew

Status = Literal["finished", "stopped", "failed"]

# what is new is shown together, as every change draws the whole window again
_TICK_MS = 100
# that may take this share of the GUI thread's time at most, whatever it costs to draw
_DRAWING_SHARE = 0.4
_LIMIT_PERCENTILES = (1.0, 99.9)
_GROWTH = 2.5


@dataclass(frozen=True)
class ReadyPreview:
    """A preview prepared in the worker: contiguous float32, and contrast limits of the first one."""

    preview: Preview
    limits: tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and what it leaves."""

    status: Status
    request: Request
    seconds: float
    result: Result | None = None
    preview: ReadyPreview | None = None
    problem: Problem | None = None
    state: Any = None
    steps: int = 0


@dataclass
class Mailbox:
    """Where the worker leaves its latest events; only the newest preview is kept."""

    stop: threading.Event
    done: threading.Event
    lock: threading.Lock = field(default_factory=threading.Lock)
    progress: list[Progress] = field(default_factory=list)
    fresh: ReadyPreview | None = None
    last: ReadyPreview | None = None
    result: Result | None = None
    problem: Problem | None = None
    state: Any = None
    steps: int = 0
    events: Iterator[Event] | None = None

    def leave(self) -> None:
        """Close the method's generator, whoever ended the worker, and say so (worker thread)."""
        close = getattr(self.events, "close", None)
        self.events = None
        if close is not None:
            close()
        self.done.set()

    def empty(self) -> None:
        """Let go of everything: napari keeps workers, and what they hold, as long as its window."""
        with self.lock:
            self.progress, self.fresh, self.last = [], None, None
            self.result = self.state = self.events = None

    def put(self, event: Event) -> None:
        """Take an event of the method (worker thread)."""
        if isinstance(event, Preview):
            ready = make_ready(event, self.last.limits if self.last else None)
            with self.lock:
                self.fresh = self.last = ready
                self.progress.append(event.progress)
                self.steps = event.progress.step
                self.state = event.state
        elif isinstance(event, Result):
            with self.lock:
                self.result, self.state = event, event.state
        else:
            with self.lock:
                self.progress.append(event)

    def take(self) -> tuple[list[Progress], ReadyPreview | None]:
        """Return what came since the last call (GUI thread)."""
        with self.lock:
            progress, self.progress = self.progress, []
            fresh, self.fresh = self.fresh, None
        return progress, fresh


def make_ready(preview: Preview, limits: tuple[float, float] | None) -> ReadyPreview:
    """Make a preview cheap to show: float32, contiguous, limits from percentiles unless given."""
    values = np.ascontiguousarray(preview.image.values, np.float32)
    image = preview.image.copy(data=values)
    if limits is None:
        low, high = contrast_limits(values)
        # iterations with a residual sharpen: the brightest voxels of the first one grow about threefold
        # (measured), and limits are not to jump in the middle of a run
        growth = _GROWTH if "residual" in preview.progress.values else 1.0
        limits = low, low + growth * (high - low)
    return ReadyPreview(replace(preview, image=image), limits)


def contrast_limits(values: np.ndarray, most: int = 500_000) -> tuple[float, float]:
    """Return display limits from percentiles of at most `most` evenly taken values."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // most)]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, _LIMIT_PERCENTILES))
    return (low, high) if high > low else (low, low + 1.0)


def _drive(method: Method, request: Request, mailbox: Mailbox) -> Generator[None, None, None]:
    """Run the method in the worker thread; every step is a chance to stop."""
    try:
        import_torch_gently()
        leave_a_core()
        yield
        if mailbox.stop.is_set():
            return
        mailbox.events = method.run(request)
        for event in mailbox.events:
            mailbox.put(event)
            if mailbox.stop.is_set():
                return
            yield
    except Exception as error:  # shown as a sentence in the panel, logged in full
        mailbox.problem = problem_of(error)


class Runner(QObject):
    """Runs one method at a time for a panel.

    Signals
    -------
    started : ()
    progressed : (list of Progress)
        Everything since the last time, at most ten times a second.
    previewed : (ReadyPreview)
        The newest preview, as often as drawing allows.
    finished : (Outcome)
        Always, exactly once per run, unless the panel is closed.
    """

    started = Signal()
    progressed = Signal(object)
    previewed = Signal(object)
    finished = Signal(object)

    def __init__(self, crew: Crew, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._crew = crew
        self._mailbox: Mailbox | None = None
        self._request: Request | None = None
        self._begin = 0.0
        self._next_show = self._last_tick = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._mailbox is not None

    @property
    def is_stopping(self) -> bool:
        """Whether a run was asked to stop and has not ended yet."""
        return self._mailbox is not None and self._mailbox.stop.is_set()

    def start(self, method: Method, request: Request) -> None:
        """Start a run; ignored while another one is under way or the panel is closed."""
        if self.is_running or self._crew.closed:
            return
        stop, done = self._crew.enlist()
        self._mailbox = mailbox = Mailbox(stop, done)
        self._request = request
        self._begin = time.perf_counter()
        self._next_show, self._last_tick = 0.0, self._begin
        worker = create_worker(_drive, method, request, mailbox, _start_thread=False)
        # direct: called in the worker thread itself, so that a closing panel can wait for it
        worker.finished.connect(mailbox.leave, Qt.ConnectionType.DirectConnection)
        worker.finished.connect(self._ended)
        self.started.emit()
        worker.start()
        self._timer.start()

    def stop(self) -> None:
        """Ask the run to end after its present step; what is there is kept."""
        if self._mailbox is not None:
            self._mailbox.stop.set()

    def _tick(self, last: bool = False) -> None:
        if self._mailbox is None or self._crew.closed:
            return
        now = time.perf_counter()
        # a late tick tells what drawing the last one cost, which no handler sees
        late = max(0.0, now - self._last_tick - _TICK_MS / 1000)
        self._last_tick = now
        if not last and now < self._next_show:
            return
        progress, fresh = self._mailbox.take()
        if progress:
            self.progressed.emit(progress)
        if fresh is not None:
            self.previewed.emit(fresh)
        end = time.perf_counter()
        self._next_show = end + (end - now + late) * (1 / _DRAWING_SHARE - 1)

    def _ended(self) -> None:
        self._timer.stop()
        mailbox, request = self._mailbox, self._request
        if mailbox is None or request is None or self._crew.closed:
            return
        self._tick(last=True)
        self._mailbox = self._request = None
        outcome = self._outcome(mailbox, request)
        mailbox.empty()
        self.finished.emit(outcome)

    def _outcome(self, mailbox: Mailbox, request: Request) -> Outcome:
        if mailbox.problem is not None:
            status: Status = "failed"
        elif mailbox.result is not None:
            status = "finished"
        else:
            status = "stopped"
        return Outcome(
            status=status,
            request=request,
            seconds=time.perf_counter() - self._begin,
            result=mailbox.result,
            preview=mailbox.last,
            problem=mailbox.problem,
            state=mailbox.state,
            steps=mailbox.steps,
        )
