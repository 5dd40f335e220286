"""Worker threads of one panel: they are stopped and joined before the panel goes."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Crew:
    """The running workers of a panel, as pairs of events (please stop, has ended).

    It knows neither Qt objects nor the panel, so that the panel's own ``destroyed`` signal may
    hold it without keeping the panel alive.
    """

    def __init__(self) -> None:
        self._members: list[tuple[threading.Event, threading.Event]] = []
        self._goodbyes: list[Callable[[], None]] = []
        self.closed = False

    def at_close(self, goodbye: Callable[[], None]) -> None:
        """Call `goodbye` when the panel goes; it must not hold the panel."""
        self._goodbyes.append(goodbye)

    def enlist(self) -> tuple[threading.Event, threading.Event]:
        """Return new ``(stop, done)`` events for a worker about to start."""
        self._members = [m for m in self._members if not m[1].is_set()]
        member = (threading.Event(), threading.Event())
        if self.closed:
            member[0].set()
        self._members.append(member)
        return member

    def close(self, timeout_s: float = 20.0) -> bool:
        """Ask every worker to stop and wait for them; return whether all have ended."""
        self.closed = True
        for goodbye in self._goodbyes:
            goodbye()
        self._goodbyes.clear()
        for stop, _ in self._members:
            stop.set()
        deadline = time.monotonic() + timeout_s
        ended = [done.wait(max(0.0, deadline - time.monotonic())) for _, done in self._members]
        if not all(ended):
            _log.warning("%d worker(s) still run after %.0f s", ended.count(False), timeout_s)
        return all(ended)
