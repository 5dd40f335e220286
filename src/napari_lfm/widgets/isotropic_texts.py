"""Sentences and slices of the *Restore isotropic* panel: pure functions from plain data. No Qt."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.words import duration
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.texts import about, coloured, size
from napari_lfm.widgets.train_course import Scoring
from napari_lfm.widgets.train_texts import readable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.widgets.isotropic_input import IsotropicPlan
    from napari_lfm.widgets.train_course import Course

LATERAL = Scoring(
    baseline="input_psnr_db",
    rival="the coarse slice itself",
    short="coarse slice",
    seen="planes that it never trained on",
    one="a stack",
    pictures={"input": "made coarse", "network": "restored", "truth": "as recorded"},
    fitted=False,
    score="psnr_db",
    plane="A plane of",
)
"""Planes are made as coarse along one axis as slices along z are, and restored."""
_AXIAL = {"xz_before": "XZ as recorded, interpolated", "xz_after": "XZ restored"}
_MOST_ROWS, _MOST_COLUMNS = 220, 360
_NONE, _GOOD, _FAIR = 0.0005, 0.1, 0.25
_PLUS_MINUS, _TIMES = "\N{PLUS-MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def blur_html(found: ChosenBlur, pixel_um: float) -> str:
    """Return how wide the blur is, how certain that is, and what to keep in mind."""
    width = f"{found.sigma_um:.2f}"
    if found.uncertainty_um is not None:
        width += f" {_PLUS_MINUS} {found.uncertainty_um:.2f}"
    text = (
        f"<b>{width} {MICROMETRES}</b> beyond the blur along x and y (standard deviation; "
        f"{found.sigma_um / pixel_um:.1f} pixels)."
    )
    note = readable(found.note)
    if note and found.source != "microscope":
        note = coloured(note, "warning")
    return f"{text}<br>{note}" if note else text


def plan_html(plan: IsotropicPlan, minutes: float) -> str:
    """Return what the runs give and take."""
    estimate = plan.estimate
    if estimate is None:
        return ""
    shape = f" {_TIMES} ".join(map(str, estimate.output_shape))
    takes = about(estimate.seconds)
    first = f"{minutes:g} min of training, then {takes}" if plan.trains else takes
    lines = [
        f"<b>You get:</b> {shape} voxels ({', '.join(estimate.output_dims)})",
        f"<b>It takes:</b> {first} to restore; {size(estimate.peak_bytes)} of memory",
        *(["Of the movie, the training sees the middle frame."] if _is_movie(plan) and plan.trains else []),
        *(readable(note) for note in estimate.notes if plan.found is None or note != plan.found.sentence),
    ]
    return "<br>".join(lines)


def _is_movie(plan: IsotropicPlan) -> bool:
    return plan.found is not None and plan.found.info.frames > 1


# ----------------------------------------------------------------------------- result
def share_html(figures: Mapping[str, Any]) -> str:
    """Return how much of the stack the result leaves unexplained; empty where that was not computed."""
    shares = [v for v in _numbers(figures.get("consistency_share")) if math.isfinite(v)]
    if not shares:
        return ""
    worst = max(shares)
    if worst < _NONE:
        return coloured(
            "<b>All of the stack is explained</b> within the camera's noise: blurred and sampled as the "
            "microscope does, the result is the stack again.",
            "good",
        )
    text = f"<b>{100 * worst:.1f} % of the stack is not explained</b>"
    if len(shares) > 1:
        text += f" in the worst of {len(shares)} stacks, {100 * float(np.mean(shares)):.1f} % on average"
    text += " by the result, blurred and sampled as the microscope does, beyond the camera's noise."
    if worst < _GOOD:
        return coloured(text, "good")
    hint = "Look where the layer 'not explained' is coloured"
    if worst < _FAIR:
        return f"{coloured(text, 'warning')} {hint}."
    return f"{coloured(text, 'error')} {hint}; the blur may be wrong, or the training too short."


def _numbers(value: Any) -> list[float]:
    """Return all numbers in nested lists."""
    if value is None:
        return []
    return [float(v) for v in np.ravel(np.asarray(value, np.float64))]


def resolution_html(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> str:
    """Return the resolution of input and result along every axis as a table."""
    axes = [a for a in ("z", "y", "x") if a in before or a in after]
    cell = "<td align='right' style='padding-left:14px'>"
    head = "".join(f"<th align='right' style='padding-left:14px'>{a}</th>" for a in axes)
    rows = [f"<tr><th align='left'>Resolution ({MICROMETRES})</th>{head}</tr>"]
    for title, found in (("Stack", before), ("Restored", after)):
        texts = ["-" if found.get(a) is None else f"{found[a]:.2f}" for a in axes]
        rows.append(f"<tr><td>{title}</td>{''.join(f'{cell}{t}</td>' for t in texts)}</tr>")
    table = f"<table>{''.join(rows)}</table>"
    z = before.get("z"), after.get("z")
    gain = "" if not (z[0] and z[1]) else f"Along z {z[0] / z[1]:.1f} times finer. "
    return f"{table}{gain}By decorrelation, which needs no truth; it cannot tell detail from invention."


def end_html(status: str, seconds: float, trained: str, stage: str, kept: bool = False) -> str:
    """Return how a run ended.

    Parameters
    ----------
    status : str
        ``finished`` or ``stopped``.
    seconds : float
    trained : str
        Id of the model that was trained; empty for none.
    stage : str
        What was stopped: ``training``, ``restoring`` or ``preparing``.
    kept : bool
        Whether something of a stopped result is there.
    """
    model = f"The network is the model <i>{html.escape(trained)}</i>." if trained else ""
    if status == "finished":
        return f"{coloured(f'Done in {duration(seconds)}.', 'good')} {model}".strip()
    head = coloured(f"Stopped after {duration(seconds)}.", "warning")
    if kept:
        return f"{head} What was restored so far is kept. {model}".strip()
    if trained:
        best = "The best network so far" if stage == "training" else "The trained network"
        return (
            f"{head} {best} is kept: <i>{html.escape(trained)}</i>. It is chosen above, and <b>Restore</b> "
            "uses it."
        )
    return f"{head} There was nothing to keep yet."


# ----------------------------------------------------------------------------- slices
def axial_pictures(images: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Return the slice along z before and after as 8-bit pictures with one contrast, and their labels.

    Of a wide slice the part with most in it, so that it is seen pixel by pixel. Black and white follow from
    the slice before alone: they stay while the network changes.
    """
    before = images.get("xz_before")
    if before is None:
        return []
    before = np.nan_to_num(np.asarray(before, np.float32))
    part = busiest(before, (_MOST_ROWS, _MOST_COLUMNS))
    low, high = (float(v) for v in np.percentile(before[part], (1.0, 99.8)))
    span = 1.15 * (high - low) or 1.0
    out = []
    for key, label in _AXIAL.items():
        if key not in images:
            continue
        values = np.nan_to_num(np.asarray(images[key], np.float32))[part]
        grey = np.clip((values - low) / span, 0, 1)
        out.append((label, np.ascontiguousarray(np.round(255 * grey), dtype=np.uint8)))
    return out


def slices_text(course: Course) -> str:
    """Return what the slices are."""
    return f"One slice of the stack at minute {course.elapsed:.1f}, both with the same contrast."


def busiest(image: np.ndarray, most: Sequence[int]) -> tuple[slice, slice]:
    """Return the part of an image, at most so large, whose values vary most.

    Examples
    --------
    >>> image = np.zeros((4, 30))
    >>> image[:, 21:23] = 1
    >>> busiest(image, (4, 10))[1].start >= 13
    True
    """
    size_px = [min(n, m) for n, m in zip(image.shape, most, strict=True)]
    best, out = -1.0, (slice(0, size_px[0]), slice(0, size_px[1]))
    starts = [
        np.unique(np.linspace(0, n - m, 9).astype(int)) for n, m in zip(image.shape, size_px, strict=True)
    ]
    for y in starts[0]:
        for x in starts[1]:
            part = slice(int(y), int(y) + size_px[0]), slice(int(x), int(x) + size_px[1])
            varies = float(image[part].std())
            if varies > best:
                best, out = varies, part
    return out
