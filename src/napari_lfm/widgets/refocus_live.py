"""Refocusing while one drags: one thread, the newest wish alone, what is seen before the rest. No Qt."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.refocus_input import Region, other_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterator

    import numpy as np

    from napari_lfm.core.problems import Problem
    from napari_lfm.widgets.crew import Crew

QUIET_S = 0.2
"""The rest of the image waits until the slider has rested for so long."""
_IDLE_S = 3.0


@dataclass(frozen=True)
class Source:
    """An image to refocus.

    Attributes
    ----------
    key : hashable
        All that opening it depends on.
    open : callable
        Returns an `OpenedImage` (worker thread).
    """

    key: Hashable
    open: Callable[[], Any]


@dataclass(frozen=True)
class Wish:
    """What is to be seen.

    Attributes
    ----------
    source : Source
    z_um : float
        The plane, where there is no surface.
    surface : callable, optional
        Returns heights (y, x) from rows and columns and the size of a pixel (worker thread).
    surface_key : hashable
        All that the surface depends on, the image apart.
    region : tuple of int, optional
        What is seen, in pixels of the layer; None for everything.
    asked : float
        When, by `time.perf_counter`.
    """

    source: Source
    z_um: float = 0.0
    surface: Callable[[tuple[int, int], float], np.ndarray] | None = None
    surface_key: Hashable = None
    region: Region | None = None
    asked: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Opened:
    """An image is ready."""

    source: Source
    image: Any


@dataclass(frozen=True)
class Surfaced:
    """The heights of a surface are known."""

    wish: Wish
    heights: np.ndarray


@dataclass(frozen=True)
class Painted:
    """A part of the image is refocused; `first` is what was to be seen first, `last` the end."""

    wish: Wish
    part: Region
    picture: Any
    first: bool
    last: bool
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A wish cannot be met."""

    wish: Wish
    problem: Problem


class LiveDesk:
    """Takes wishes, and works on the newest one in a thread of its own.

    A wish that comes while another one is worked on replaces any that waits; what of the old one is not
    computed yet is left out. The thread ends when nothing has come for a while.

    Parameters
    ----------
    crew : Crew
        Of the panel: it ends the thread.
    tell : callable
        Called with every event, in the thread.
    prepare : callable, optional
        Called once in every new thread.
    """

    def __init__(
        self, crew: Crew, tell: Callable[[Any], None], prepare: Callable[[], None] = lambda: None
    ) -> None:
        self._crew, self._tell, self._prepare = crew, tell, prepare
        self._condition = threading.Condition()
        self._waiting: Wish | None = None
        self._alive = self._working = False
        self.lock = threading.Lock()
        """Held while the image's network computes: it does one thing at a time."""
        self.opened: Opened | None = None
        self._heights: tuple[Any, np.ndarray] | None = None
        crew.at_close(self._wake)

    # ---------------------------------------------------------------- any thread
    def ask(self, wish: Wish) -> None:
        """Want something; it replaces what was wanted before."""
        with self._condition:
            if self._crew.closed:
                return
            self._waiting = wish
            if not self._alive:
                self._alive = True
                stop, done = self._crew.enlist()
                threading.Thread(target=self._live, args=(stop, done), daemon=True, name="refocus").start()
            self._condition.notify()

    def forget(self) -> None:
        """Want nothing any more, and let go of the image."""
        with self._condition:
            self._waiting = None
            self.opened = self._heights = None

    @property
    def busy(self) -> bool:
        """Whether a wish waits or is worked on."""
        return self._waiting is not None or self._working

    def in_turn(self, events: Iterator[Any]) -> Generator[Any, None, None]:
        """Yield the events of a longer job on the same image, which lets every wish go first."""
        try:
            while True:
                while self._waiting is not None and not self._crew.closed:
                    time.sleep(0.005)
                with self.lock:
                    try:
                        event = next(events)
                    except StopIteration:
                        return
                yield event
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    # ---------------------------------------------------------------- the thread
    def _live(self, stop: threading.Event, done: threading.Event) -> None:
        try:
            self._prepare()
            while not stop.is_set():
                with self._condition:
                    if self._waiting is None:
                        self._condition.wait(_IDLE_S)
                    wish, self._waiting = self._waiting, None
                    if wish is None or stop.is_set() or self._crew.closed:
                        self._alive = False
                        return
                    self._working = True
                try:
                    self._serve(wish)
                except Exception as error:  # shown as a sentence, logged in full
                    self._say(Failed(wish, problem_of(error)))
                finally:
                    self._working = False
        finally:
            with self._condition:
                self._alive = False
            done.set()

    def _serve(self, wish: Wish) -> None:
        image = self._image(wish.source)
        refocuser = image.refocuser
        heights = self._heights_of(wish, image)
        shape = (int(refocuser.shape[0]), int(refocuser.shape[1]))
        region = scaled_region(wish.region, image.factor, shape)
        rest = other_parts(region, shape)
        for number, part in enumerate([region, *rest]):
            if number == 1 and not self._rested():
                return
            if self._waiting is not None or self._crew.closed:
                return
            with self.lock:
                if heights is None:
                    picture = refocuser.plane(wish.z_um, part)
                else:
                    picture = refocuser.surface(heights, part)
            seconds = time.perf_counter() - wish.asked
            self._say(Painted(wish, part, picture, number == 0, number == len(rest), seconds))

    def _rested(self) -> bool:
        """Wait a moment; return whether nothing new has come."""
        with self._condition:
            if self._waiting is None and not self._crew.closed:
                self._condition.wait(QUIET_S)
            return self._waiting is None and not self._crew.closed

    def _image(self, source: Source) -> Any:
        known = self.opened
        if known is None or known.source.key != source.key:
            image = source.open()
            self._heights = None
            self.opened = known = Opened(source, image)
            self._say(known)
        return known.image

    def _heights_of(self, wish: Wish, image: Any) -> np.ndarray | None:
        if wish.surface is None:
            return None
        key = (wish.surface_key, wish.source.key)
        if self._heights is None or self._heights[0] != key:
            heights = wish.surface(image.refocuser.shape, image.pixel_um)
            self._heights = key, heights
        self._say(Surfaced(wish, self._heights[1]))
        return self._heights[1]

    def _say(self, event: Any) -> None:
        if not self._crew.closed:
            self._tell(event)


def scaled_region(region: Region | None, factor: float, shape: tuple[int, int]) -> Region:
    """Return a region of the layer in pixels of the image that is refocused, which may be resampled."""
    if region is None:
        return 0, 0, *shape
    y0, x0, y1, x1 = (v * factor for v in region)
    top, left = max(0, int(y0)), max(0, int(x0))
    bottom, right = min(shape[0], round(y1 + 0.5)), min(shape[1], round(x1 + 0.5))
    if factor == 1.0:
        bottom, right = min(shape[0], region[2]), min(shape[1], region[3])
    if bottom <= top or right <= left:
        return 0, 0, *shape
    return top, left, bottom, right
