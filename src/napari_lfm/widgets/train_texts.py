"""Sentences of the *Train* panel: pure functions from plain data to words."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from napari_lfm.core.words import duration
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.texts import coloured
from napari_lfm.widgets.train_input import SPECIMEN_TEXTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_lfm.core.events import Progress
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.training.events import TrainResult
    from napari_lfm.widgets.train_course import Course
    from napari_lfm.widgets.train_input import TrainPlan, TrainSettings

_TIMES = "\N{MULTIPLICATION SIGN}"
_ALIKE_DB = 0.05


def planes_of(settings: TrainSettings) -> int:
    """Return how many planes the network gives."""
    return int((settings.z_max_um - settings.z_min_um) / settings.z_step_um + 1e-6) + 1


def estimate_html(plan: TrainPlan, microscope: Microscope) -> str:
    """Return what the training gives, what that is good for, and what it takes, in plain words."""
    estimate, s = plan.estimate, plan.settings
    if estimate is None:
        return ""
    planes, name = planes_of(s), html.escape(microscope.name)
    voxels = f"{s.voxels_per_lenslet} {_TIMES} {s.voxels_per_lenslet} voxels per lenslet"
    if microscope.lenslet_um is not None:
        voxels += f", {microscope.lenslet_um / s.voxels_per_lenslet:.2g} {MICROMETRES} each"
    # the published network makes a voxel of every pixel, whatever is asked for
    voxels = "a voxel for every pixel" if s.size == "paper" else voxels
    seen = "all kinds of specimens" if s.specimen == "any" else SPECIMEN_TEXTS[s.specimen]
    optics = f"light fields of '{name}'"
    if plan.white is not None:
        optics += f" with the pupil of your white frame ({1 - plan.white.misfit:.0%} of it explained)"
    lines = [
        f"<b>You get:</b> the model <i>{html.escape(plan.model_id)}</i>, {planes} planes from {s.z_min_um:g} "
        f"to {s.z_min_um + (planes - 1) * s.z_step_um:g} {MICROMETRES}, {voxels}",
        f"<b>Good for:</b> {optics}, {seen}",
        f"<b>In figures:</b> {' '.join(map(html.escape, estimate.sentences))}",
    ]
    return "<br>".join(lines)


def readable(sentence: str) -> str:
    """Return a sentence of an estimate with proper signs, as rich text."""
    text = html.escape(sentence).replace(" um", f" {MICROMETRES}")
    text = re.sub(r"(?<=\d) x (?=\d)", f" {_TIMES} ", text)  # x and y are axes
    return text.replace("+-", "\N{PLUS-MINUS SIGN}")


def model_words(model_id: str) -> str:
    """Return what a training on stacks gives."""
    return f"the model <i>{html.escape(model_id)}</i> in the list of models"


def titled_lines(lines: Mapping[str, str]) -> str:
    """Return rich texts below each other, each behind its title."""
    return "<br>".join(f"<b>{title}:</b> {text}" for title, text in lines.items())


def stack_plan_html(sentences: Sequence[str], model_id: str, what: str) -> str:
    """Return what is trained on, what it gives, and what it takes, from an estimate's three sentences."""
    first, learns, figures = (readable(sentence) for sentence in sentences)
    lines = {what: first, "You get": model_words(model_id), "Training": learns, "In figures": figures}
    return titled_lines(lines)


def progress_words(last: Progress, course: Course) -> str:
    """Return what is being done, and how long it still takes."""
    parts = [html.escape(last.message)]
    if "share" in last.values:
        parts[0] = "Training" if last.message in ("Training", "Validated") else parts[0]
        parts.append(f"step {last.step:,}")
        pace = last.values.get("steps_per_s")
        if pace:
            parts.append(f"{pace:.1f} per second" if pace >= 1 else f"{1 / pace:.1f} s each")
    if last.seconds_left is not None:
        parts.append(f"{duration(last.seconds_left)} left")
    text = ", ".join(parts)
    if course.best is not None:
        text += f".<br>Best so far: {best_words(course)}."
    return text


def best_words(course: Course) -> str:
    """Return minute and score of the best weights."""
    assert course.best is not None
    minute, score = course.best
    return f"minute {minute:.1f}, {score:.1f} dB"


def verdict(course: Course) -> str:
    """Return how the kept network compares with its rival, in a sentence; empty where unknown."""
    if course.best is None or course.baseline is None:
        return ""
    gain, rival = course.best[1] - course.baseline, course.scoring.rival
    if abs(gain) < _ALIKE_DB:
        return f"It is as good as {rival} on {course.scoring.seen}."
    if gain > 0:
        return f"It is {gain:.1f} dB better than {rival}."
    return f"{rival[0].upper()}{rival[1:]} is still {-gain:.1f} dB better: Continue trains it further."


def figures_html(course: Course) -> str:
    """Return the scores of the last and the best validation beside the rival's, as a table; or nothing."""
    named = {k: v for k, v in course.scoring.figures.items() if k in course.figures}
    if not named or not course.figures:
        return ""
    rows = [
        (course.scoring.short, "input_", course.figures),
        ("network now", "", course.figures),
        ("network best", "", course.best_figures),
    ]
    cell = '<td align="right" style="padding-left: 12px">'
    lines = ["<tr><td></td>" + "".join(f"{cell}{_whole(v)}</td>" for v in named.values()) + "</tr>"]
    for label, prefix, values in rows:
        shown = [values.get(prefix + k) for k in named]
        if prefix and course.scoring.score in named:
            shown[list(named).index(course.scoring.score)] = values.get(course.scoring.baseline)
        if all(v is None for v in shown):
            continue
        texts = [
            "" if v is None else f"{v:.1f}" if k.endswith("_db") else f"{v:.4f}"
            for k, v in zip(named, shown, strict=True)
        ]
        lines.append(f"<tr><td>{_whole(label)}</td>{''.join(f'{cell}{t}</td>' for t in texts)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def kept_words(course: Course, model_id: str, installed: bool = True) -> str:
    """Return which network was kept, and where it is found."""
    place = f"it is <i>{html.escape(model_id)}</i> in the list of models."
    if not installed:
        return "No network was kept: there was none yet."
    if course.best is None:
        return f"Kept the network as it was then, not validated yet: {place}"
    return f"Kept the network of {best_words(course)}: {place} {verdict(course)}".strip()


def _whole(text: str) -> str:
    """Return a text that a narrow cell does not break."""
    return html.escape(text).replace(" ", "&nbsp;")


def end_words(
    status: str, course: Course, model_id: str, result: TrainResult | None, installed: bool = True
) -> str:
    """Return how a training ended, as rich text."""
    spent = f"{course.elapsed:.1f} min" if course.elapsed < 10 else duration(60 * course.elapsed)
    kept = kept_words(course, model_id, installed)
    if result is not None and result.reason in ("unstable", "collapsed"):
        return f"{coloured(html.escape(result.sentence), 'warning')} {kept}"
    if status == "finished":
        why = f" {html.escape(result.sentence)}" if result is not None and result.reason == "patience" else ""
        return f"{coloured(f'Done after {spent} of training.', 'good')}{why} {kept}"
    head = "Stopped in the preparation." if course.step == 0 else f"Stopped after {spent} of training."
    return f"{coloured(head, 'warning')} {kept}"
