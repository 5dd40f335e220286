"""Work of seconds without steps of its own: on a thread, so that a run can be stopped meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from napari_lfm.core.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
_LOOK_S = 0.3


def waited_for(work: Callable[[], T], message: str) -> Generator[Progress, None, T]:
    """Do `work` on a thread; yields a Progress while it lasts, and returns what it returned.

    Closed before, it leaves the thread to end by itself; nothing comes of it.

    Parameters
    ----------
    work : callable
    message : str
        What is being done.
    """
    yield Progress(0, 0, message)
    pool = ThreadPoolExecutor(1, thread_name_prefix="work")
    try:
        future = pool.submit(work)
        while not wait([future], timeout=_LOOK_S).done:
            yield Progress(0, 0, message)
        return future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
