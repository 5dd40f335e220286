"""The learning rate over a run, as a function of how much of the run is over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_lfm.training.config import ScheduleName, TrainConfig

ONE_CYCLE_START = 1 / 25
"""First learning rate of the one-cycle policy over its largest."""
END = 1e-4
"""Last learning rate over the largest."""


def progress(config: TrainConfig, step: int, seconds: float) -> float:
    """Return the share of the run that is over, 0 to 1: the larger of steps and time.

    Parameters
    ----------
    config : TrainConfig
    step : int
        Steps done.
    seconds : float
        Training seconds so far, those before a resume included.
    """
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (60 * config.minutes) if config.minutes else 0.0
    return min(max(by_steps, by_time, 0.0), 1.0)


def rate_factor(schedule: ScheduleName, progress: float, warmup_share: float) -> float:
    """Return the learning rate over its largest value.

    Parameters
    ----------
    schedule : {"one-cycle", "cosine", "constant"}
        ``one-cycle``: half a cosine up from 1/25 to 1, then half a cosine down to 1e-4 (Smith and Topin,
        arXiv 1708.07120, with cosine arms). ``cosine``: a straight rise from 0, then the same way down
        (Loshchilov and Hutter, arXiv 1608.03983, one period). ``constant``: a straight rise, then 1.
    progress : float
        Share of the run that is over, 0 to 1.
    warmup_share : float
        Share of the run in which the rate rises.
    """
    if progress < warmup_share:
        rise = progress / warmup_share
        return _between(ONE_CYCLE_START, 1.0, rise) if schedule == "one-cycle" else max(rise, END)
    if schedule == "constant":
        return 1.0
    rest = (progress - warmup_share) / (1 - warmup_share)
    return _between(1.0, END, min(rest, 1.0))


def _between(start: float, end: float, share: float) -> float:
    # half a period of a cosine from start to end
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
