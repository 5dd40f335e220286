"""What the training loop yields beside `napari_lfm.core.events.Progress`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from napari_lfm.core.events import Progress

Reason = Literal["steps", "minutes", "patience", "unstable", "collapsed", "stopped"]


@dataclass(frozen=True)
class Validated:
    """The averaged weights were scored.

    Attributes
    ----------
    step : int
        Steps done.
    score, best_score : float
        Of now and of the best so far; higher is better. ``best_score`` is -inf before any finite one.
    best_step : int
        Step of the best so far.
    values : mapping of str to float
        The task's further figures.
    images : mapping of str to array
        Slices to look at: truth, network, baseline; float (y, x).
    progress : Progress
        The step it belongs to.
    """

    step: int
    score: float
    best_score: float
    best_step: int
    values: Mapping[str, float]
    images: Mapping[str, np.ndarray]
    progress: Progress


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Attributes
    ----------
    reason : {"steps", "minutes", "patience", "unstable", "collapsed", "stopped"}
        Why it ended.
    sentence : str
        The same in words.
    step : int
        Steps done in all.
    seconds : float
        Training time in all.
    best_score : float or None
        Score of the best weights; None where nothing was validated.
    best_step : int
        Step of the best weights.
    best_path, last_path : Path
        ``best.safetensors`` (averaged weights; missing before the first step) and ``last.safetensors``
        (everything needed to go on).
    history : tuple of dict
        Every validation: ``step, seconds, score`` and ``values``.
    config : dict
        The settings, JSON-ready.
    task : dict
        What the task said of itself.
    skipped : int
        Steps that were skipped because of a loss or gradient that was not finite.
    """

    reason: Reason
    sentence: str
    step: int
    seconds: float
    best_score: float | None
    best_step: int
    best_path: Path
    last_path: Path
    history: tuple[dict[str, Any], ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0

    @property
    def hours(self) -> float:
        """Training time in all, hours."""
        return self.seconds / 3600
