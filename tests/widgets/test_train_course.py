"""What is watched of a training: curves, the best so far, sentences, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lfm.core.events import Progress
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.widgets.train_course import MOST_POINTS, Course, Series, nice_ticks, shown_pictures
from napari_lfm.widgets.train_plots import Curve, Slices
from napari_lfm.widgets.train_texts import end_words, kept_words, progress_words, verdict


def step(n: int, share: float, **values: float) -> Progress:
    return Progress(n, 0, "Training", 30.0, {"share": share, **values})


def validated(n: int, share: float, score: float, best_step: int, **values: float) -> Validated:
    return Validated(n, score, max(score, 20.0), best_step, values, {"truth": np.eye(4)}, step(n, share))


def course_of(*scores: float, baseline: float | None = None) -> Course:
    course, best = Course(20.0), 0
    values = {} if baseline is None else {"baseline_psnr_db": baseline}
    for k, score in enumerate(scores, 1):
        best = k if score == max(scores[:k]) else best
        course.take(validated(k, k / 10, score, best, **values), 0.0)
    return course


def test_many_points_become_few_of_the_same_mean() -> None:
    series = Series()
    for k in range(5000):
        series.add(k, math.sin(k / 500))
    series.add(5000, math.nan)
    xs = [x for x, _ in series.points]
    assert MOST_POINTS / 2 <= len(xs) <= MOST_POINTS
    assert xs == sorted(xs)
    assert abs(series.points[-1][0] - 4999) <= 16
    assert max(abs(y - math.sin(x / 500)) for x, y in series.points) < 0.02


def test_minutes_follow_the_share_that_is_over() -> None:
    course = Course(20.0)
    course.take(Progress(3, 8, "Computing the optics"), 0.0)
    assert (course.step, course.elapsed) == (0, 0)
    course.take(step(5, 0.25, loss=0.5), 1e6)
    assert (course.step, course.elapsed) == (5, 5.0)
    assert course.loss.points == [(5.0, 0.5)]
    course.go_on(30.0)
    course.take(step(6, 0.2, loss=0.4), 2e6)
    assert course.elapsed == 6.0


def test_with_steps_the_clock_tells_the_minutes() -> None:
    course = Course(20.0, by_steps=True)
    course.take(step(1, 0.5), 1000.0)
    course.take(step(2, 1.0), 1120.0)
    assert course.elapsed == 2.0
    course.go_on(40.0, by_steps=True)  # the pause between the two does not count
    course.take(step(3, 0.6), 9000.0)
    course.take(step(4, 0.7), 9060.0)
    assert course.elapsed == 3.0


def test_the_best_is_remembered() -> None:
    course = course_of(22.0, 26.0, 25.0, baseline=24.0)
    assert course.best == (4.0, 26.0)
    assert course.baseline == 24.0
    assert not course.improved
    course.take(validated(4, 0.4, math.nan, 2), 0.0)  # a score that is no number is none
    assert course.best == (4.0, 26.0)
    assert len(course.scores.points) == 3
    course.take(validated(5, 0.5, 27.0, 5), 0.0)
    assert course.improved


def test_an_earlier_course_comes_from_its_checkpoint() -> None:
    history: tuple[dict[str, Any], ...] = (
        {"step": 5, "seconds": 60.0, "score": 21.0, "values": {"baseline_psnr_db": 23.0}},
        {"step": 9, "seconds": 120.0, "score": 22.0, "values": {"baseline_psnr_db": 23.0}},
        {"step": 12, "seconds": 180.0, "score": None, "values": {}},
    )
    result = TrainResult("stopped", "", 12, 190.0, 22.0, 9, Path("b"), Path("l"), history)
    course = Course.of(result)
    assert course.best == (2.0, 22.0)
    assert course.scores.points == [(1.0, 21.0), (2.0, 22.0)]
    assert (course.baseline, course.step) == (23.0, 12)
    assert course.elapsed == pytest.approx(190 / 60)


@pytest.mark.parametrize(
    ("score", "words"),
    [(26.1, "2.1 dB better than"), (24.01, "as good as"), (22.0, "still 2.0 dB better: Continue")],
)
def test_the_verdict(score: float, words: str) -> None:
    assert words in verdict(course_of(score, baseline=24.0))
    assert verdict(course_of(score)) == ""


def test_what_was_kept_is_said() -> None:
    course = course_of(22.0, 27.4, 25.0, baseline=25.0)
    assert "Kept the network of minute 4.0, 27.4 dB: it is <i>a&amp;b</i>" in kept_words(course, "a&b")
    assert "not validated yet" in kept_words(Course(20.0), "a")
    assert "No network was kept" in kept_words(Course(20.0), "a", installed=False)
    assert "Stopped after 6.0 min of training." in end_words("stopped", course, "a", None)
    assert "Stopped in the preparation." in end_words("stopped", Course(20.0), "a", None, False)


def test_progress_in_words() -> None:
    event = Progress(1312, 0, "Validated", 600.0, {"share": 0.5, "steps_per_s": 0.5})
    assert progress_words(event, Course(20.0)) == "Training, step 1,312, 2.0 s each, 10 min left"
    event = Progress(2, 8, "Computing <the> optics", 5.0)
    assert progress_words(event, Course(20.0)) == "Computing &lt;the&gt; optics, 5 s left"


def test_pictures_have_one_contrast_and_one_scale() -> None:
    truth = np.outer(np.arange(20.0), np.ones(10))
    pictures = shown_pictures({"richardson-lucy": 7 * truth, "truth": truth, "network": truth * 0 - 1})
    assert [label for label, _ in pictures] == ["truth", "network", "Richardson-Lucy"]
    shown = dict(pictures)
    assert shown["truth"].dtype == np.uint8
    assert shown["truth"].min() == 0
    assert shown["truth"].max() == 255
    np.testing.assert_array_equal(shown["Richardson-Lucy"], shown["truth"])  # scaled as its score is
    assert shown["network"].max() == 0
    assert shown_pictures({"network": truth}) == []
    dark = shown_pictures({"truth": truth * 0, "network": truth})
    assert all(picture.max() == 0 for _, picture in dark)


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (18.3, 27.4), (0.0, 0.031), (-3.0, 4.0), (1.0, 1.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 4)
    assert 1 <= len(ticks) <= 4
    assert all(low <= t <= high for t in ticks)


def test_the_curve_is_drawn_with_its_reference(qtbot: Any) -> None:
    curve = Curve("Validation PSNR", unit="dB", dots=True)
    qtbot.addWidget(curve)
    curve.resize(300, 124)
    empty = curve.grab().toImage()
    curve.show_points([(1.0, 20.0), (2.0, 26.0)], 4.0)
    low, high = curve.limits()
    assert low < 20 < 26 < high
    assert curve.caption() == "Validation PSNR: 26 dB"
    alone = curve.grab().toImage()
    assert alone != empty
    curve.show_points([(1.0, 20.0), (2.0, 26.0)], 4.0, ("Richardson-Lucy", 30.0))
    assert curve.limits()[1] > 30  # the line is always in sight
    assert curve.grab().toImage() != alone
    curve.show_points([(1.0, 5.0)], 4.0)  # a single point is a curve, too
    assert curve.grab().toImage() != empty


def test_slices_keep_their_shape(qtbot: Any) -> None:
    slices = Slices()
    qtbot.addWidget(slices)
    picture = np.zeros((10, 20), np.uint8)
    picture[:, 10:] = 255
    slices.show_pictures([("a", picture), ("b", picture)], pixel_um=0.5)
    assert slices.heightForWidth(206) - slices.heightForWidth(106) == pytest.approx(25, abs=1)
    slices.resize(206, slices.heightForWidth(206))
    image = slices.grab().toImage()
    middle = image.height() // 2 + 10
    assert image.pixelColor(90, middle).lightness() > 240  # right half of the left picture
    assert image.pixelColor(40, middle).lightness() < 20
    slices.show_pictures([])
    assert not slices.isVisibleTo(slices.parentWidget())
