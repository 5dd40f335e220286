"""The course of a training as it is watched: losses, scores, the best so far. No Qt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.training.events import Validated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_lfm.core.events import Progress
    from napari_lfm.training.events import TrainResult

MOST_POINTS = 600
BASELINE = "baseline_psnr_db"
PICTURES = {"truth": "truth", "network": "network", "richardson-lucy": "Richardson-Lucy"}


@dataclass(frozen=True)
class Scoring:
    """What a network is held against while it is trained, and what is shown of it.

    Attributes
    ----------
    baseline : str
        Key of the rival's score among a validation's values.
    rival : str
        Its name in a sentence.
    short : str
        Its name beside a line.
    seen : str
        What the validation looks at, in a sentence.
    one : str
        One of them.
    pictures : mapping of str to str
        Keys of a validation's slices, and their labels, from left to right.
    fitted : bool
        Slices are multiplied by the factor that brings them nearest to the truth, as their scores are.
    figures : mapping of str to str
        Keys of further scores, and what they are called; the rival's begin with ``input_``.
    score : str
        Key of the value that the curve shows; empty: what the training takes as its score.
    plane : str
        Which slice is shown, in a sentence.
    """

    baseline: str = BASELINE
    rival: str = "Richardson-Lucy"
    short: str = "Richardson-Lucy"
    seen: str = "these specimens"
    one: str = "a specimen"
    pictures: Mapping[str, str] = field(default_factory=lambda: PICTURES)
    fitted: bool = True
    figures: Mapping[str, str] = field(default_factory=dict)
    score: str = ""
    plane: str = "The brightest plane of"

    def shown(self, score: float | None, values: Mapping[str, float]) -> float | None:
        """Return the value of the curve at a validation."""
        return values.get(self.score, score) if self.score else score


VOLUMES = Scoring()
STACKS = Scoring(
    baseline="input_psnr_db",
    rival="the wide-field stack itself",
    short="wide field",
    seen="these stacks",
    one="a stack",
    pictures={"input": "wide field", "network": "network", "truth": "confocal"},
    fitted=False,
    figures={"rmse": "RMSE", "ssim": "SSIM", "psnr_db": "PSNR (dB)"},
)


PLANES = Scoring(
    baseline="input_db",
    rival="the image as it is",
    short="image",
    seen="these images",
    one="a stack",
    pictures={"input": "image", "network": "refocused", "truth": "in truth"},
    fitted=False,
    figures={"psnr_db": "PSNR (dB)", "confocal_db": "confocal"},
    score="psnr_db",
    plane="The plane furthest from the image, of",
)


class Series:
    """Points of a curve; of too many, each stands for the mean of several."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._stride = 1
        self._open: list[tuple[float, float]] = []

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points, (x, y), left to right; what is not averaged yet comes as one point."""
        return [*self._points, *([_mean(self._open)] if self._open else [])]

    def add(self, x: float, y: float) -> None:
        """Add a point on the right; one that is not finite is left out."""
        if not math.isfinite(y):
            return
        self._open.append((x, y))
        if len(self._open) < self._stride:
            return
        self._points.append(_mean(self._open))
        self._open = []
        if len(self._points) == MOST_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_mean(pair) for pair in pairs]
            self._stride *= 2


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


@dataclass
class Course:
    """Everything that the events of a training have told so far.

    Attributes
    ----------
    minutes : float
        Length of the whole training; grows by Continue.
    by_steps : bool
        Its end may be one of steps: the clock then tells the minutes, not the share that is over.
    elapsed : float
        Minutes of training so far.
    step : int
    loss, scores : Series
        Over minutes; scores in dB.
    baseline : float or None
        Score of what it is compared with, on the same specimens.
    best : (float, float) or None
        Minute and score of the best weights.
    pictures : mapping of str to array
        The last validation's slices.
    scoring : Scoring
    figures, best_figures : mapping of str to float
        All values of the last validation, and of the best one.
    """

    minutes: float
    by_steps: bool = False
    elapsed: float = 0.0
    step: int = 0
    loss: Series = field(default_factory=Series)
    scores: Series = field(default_factory=Series)
    baseline: float | None = None
    best: tuple[float, float] | None = None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    validations: int = 0
    scoring: Scoring = VOLUMES
    figures: Mapping[str, float] = field(default_factory=dict)
    best_figures: Mapping[str, float] = field(default_factory=dict)
    _start: tuple[float, float] | None = None

    @classmethod
    def of(cls, result: TrainResult, scoring: Scoring = VOLUMES) -> Course:
        """Return the course of an earlier training, as far as its checkpoint tells it: no losses."""
        minutes = result.seconds / 60
        course = cls(minutes, elapsed=minutes, step=result.step, scoring=scoring)
        for entry in result.history:
            minute, score = entry["seconds"] / 60, scoring.shown(entry["score"], entry["values"])
            if score is None:
                continue
            course.scores.add(minute, score)
            course.baseline = entry["values"].get(scoring.baseline, course.baseline)
            course.figures = entry["values"]
            if entry["step"] == result.best_step:
                course.best, course.best_figures = (minute, score), course.figures
        return course

    def go_on(self, minutes: float, by_steps: bool = False) -> None:
        """Expect a longer training."""
        self.minutes, self.by_steps = minutes, by_steps
        self._start = None

    def take(self, event: Progress | Validated, clock_s: float) -> None:
        """Take an event in, which came at `clock_s`."""
        progress = event.progress if isinstance(event, Validated) else event
        self._take_time(progress, clock_s)
        if isinstance(event, Validated):
            self._take_score(event)
        elif "loss" in progress.values:
            self.loss.add(self.elapsed, progress.values["loss"])

    def _take_time(self, progress: Progress, clock_s: float) -> None:
        share = progress.values.get("share")
        if share is None:  # the preparation is no training
            return
        self.step = progress.step
        if not self.by_steps:
            self.elapsed = max(self.elapsed, share * self.minutes)
            return
        if self._start is None:
            self._start = clock_s, self.elapsed
        self.elapsed = self._start[1] + (clock_s - self._start[0]) / 60

    def _take_score(self, event: Validated) -> None:
        self.validations += 1
        score = self.scoring.shown(event.score, event.values)
        assert score is not None
        self.scores.add(self.elapsed, score)
        self.figures = event.values
        baseline = event.values.get(self.scoring.baseline)
        if baseline is not None and math.isfinite(baseline):
            self.baseline = baseline
        if event.best_step == event.step and math.isfinite(score):
            self.best, self.best_figures = (self.elapsed, score), event.values
        if event.images:
            self.pictures = event.images

    @property
    def improved(self) -> bool:
        """Whether the last validation was the best one."""
        return self.best is not None and self.best[0] == self.elapsed


def shown_pictures(
    images: Mapping[str, np.ndarray], scoring: Scoring = VOLUMES
) -> list[tuple[str, np.ndarray]]:
    """Return the slices of a validation as 8-bit pictures with one contrast, and their labels.

    Black is 0 and white the truth's 99.9th percentile. Where their scores are fitted, too, the others are
    multiplied by the factor that brings them nearest to the truth.
    """
    truth = images.get("truth")
    if truth is None:
        return []
    reference = np.nan_to_num(np.asarray(truth, np.float64))
    top = float(np.percentile(reference, 99.9)) or float(reference.max())
    out = []
    for key, label in scoring.pictures.items():
        if key not in images:
            continue
        values = np.nan_to_num(np.asarray(images[key], np.float64))
        if key != "truth" and scoring.fitted:
            power = float((values * values).sum())
            fit = float((values * reference).sum()) / power if power > 0 else 1.0
            values = values * max(fit, 0.0)
        grey = np.clip(values / top if top > 0 else values * 0, 0, 1)
        out.append((label, np.ascontiguousarray(np.round(255 * grey), dtype=np.uint8)))
    return out


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers from `low` to `high`, evenly spaced.

    Examples
    --------
    >>> nice_ticks(0.0, 20.0, 5)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    >>> nice_ticks(18.3, 27.4, 4)
    [20.0, 22.0, 24.0, 26.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / max(most, 1)))
    for factor in (1, 2, 5, 10, 20, 50, 100):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(k * step, 12) for k in range(first, last + 1)]
    return [low]
