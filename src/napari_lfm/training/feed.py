"""Batches in order, some of them made ahead by one background thread."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class Feed:
    """Hands out ``make(0), make(1), ...`` from a start on; a batch is the same however it was made.

    Parameters
    ----------
    make : callable
        `Task.batch`.
    start : int
        First index.
    ahead : int
        Batches made ahead; 0: none, and no thread.
    """

    def __init__(self, make: Callable[[int], Any], start: int, ahead: int) -> None:
        self._make, self._next, self._ahead = make, start, ahead
        self._waiting: deque[Future[Any]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None

    def next(self) -> Any:
        """Return the next batch; whatever went wrong while it was made is raised here."""
        if self._thread is None:
            self._next += 1
            return self._quietly(self._next - 1)
        self._fill(1)
        batch = self._waiting.popleft().result()
        self._fill(self._ahead)
        return batch

    def close(self) -> None:
        """Wait for the batch that is being made and drop it."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _fill(self, count: int) -> None:
        while self._thread is not None and len(self._waiting) < count:
            self._waiting.append(self._thread.submit(self._quietly, self._next))
            self._next += 1

    def _quietly(self, index: int) -> Any:
        with torch.no_grad():  # a setting of each thread
            return self._make(index)


def to_device(batch: Any, device: torch.device) -> Any:
    """Return `batch` with every tensor in it on `device`; dicts, lists, tuples, data classes are entered."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: to_device(getattr(batch, f.name), device) for f in fields(batch)})
    return batch
