"""Line charts as plain data, as SVG pictures and as CSV tables: the panel shows what is saved."""

from __future__ import annotations

import csv
import html
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

INK, PAPER = "#222222", "#ffffff"
_FONT = "DejaVu Sans, Arial, Helvetica, sans-serif"
_SIZE = 11  # of letters, picture pixels
_LETTER = 6.3  # mean width of one


@dataclass(frozen=True)
class Line:
    """One curve: its name, places, values and colour (``#rrggbb``), and the place of an upright mark, if any.

    A dashed line is a second kind of the same thing.
    """

    name: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    colour: str
    dashed: bool = False
    mark: float | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes
    ----------
    key : str
        Name of its files.
    title, x_label, y_label : str
    lines : tuple of Line
    levels : tuple of (float, str)
        Dotted level lines and their names.
    log_y : bool
    y_range : tuple of float, optional
        Default from the values.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[float, str], ...] = ()
    log_y: bool = False
    y_range: tuple[float, float] | None = None


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` round numbers between two, evenly spaced.

    Examples
    --------
    >>> round_ticks(0.0, 1.0, 6)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (factor * power for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(k * step, 12) for k in range(first, last + 1)]
    return [low]


def power_ticks(low: float, high: float, most: int) -> list[float]:
    """Return powers of ten between two positive numbers, at most `most` of them.

    Examples
    --------
    >>> power_ticks(0.005, 2.0, 5)
    [0.01, 0.1, 1.0]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, -(-(last - first + 1) // most))
    return [float(f"1e{k}") for k in range(last, first - 1, -step)][::-1]


def to_svg(chart: Chart, width: int = 640, height: int = 400, ink: str = INK, paper: str = PAPER) -> str:
    """Return a chart as an SVG picture.

    Parameters
    ----------
    chart : Chart
    width, height : int
        Picture pixels.
    ink, paper : str
        Colours of letters and ground; paper ``none`` for no ground.
    """
    columns = max(1, min(len(chart.lines), int((width - 20) // (_LETTER * (_longest(chart) + 7)))))
    top = 24 + 16 * -(-len(chart.lines) // columns) + 8
    low, high = _y_range(chart)
    ticks = power_ticks(low, high, 6) if chart.log_y else round_ticks(low, high, 6)
    left = 30 + _LETTER * max(len(_number(t)) for t in ticks)
    box = (left, top, width - 14.0, height - 40.0)
    x_low = min((float(line.x.min()) for line in chart.lines), default=0.0)
    x_high = max((float(line.x.max()) for line in chart.lines), default=1.0)

    def px(x: float) -> float:
        return box[0] + (box[2] - box[0]) * (x - x_low) / max(x_high - x_low, 1e-300)

    def py(y: float) -> float:
        if chart.log_y:
            share = math.log(max(y, low) / low) / math.log(high / low)
        else:
            share = (y - low) / (high - low)
        return box[3] - (box[3] - box[1]) * min(max(share, 0.0), 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FONT}" font-size="{_SIZE}">'
    ]
    if paper != "none":
        parts.append(f'<rect width="{width}" height="{height}" fill="{paper}"/>')
    parts.append(_text(width / 2, 16, chart.title, ink, "middle", bold=True))
    for k, line in enumerate(chart.lines):
        x = 10 + (k % columns) * (width - 20) / columns
        y = 32 + 16 * (k // columns)
        parts += [_rule(x, y, x + 22, y, line.colour, 2.2, line.dashed)]
        parts += [_text(x + 28, y + 4, line.name, ink, "start")]
    for tick in ticks:
        parts.append(_rule(box[0], py(tick), box[2], py(tick), ink, 0.6, faint=True))
        parts.append(_text(box[0] - 5, py(tick) + 4, _number(tick), ink, "end"))
    for tick in round_ticks(x_low, x_high, max(3, width // 90)):
        parts.append(_rule(px(tick), box[3], px(tick), box[3] + 4, ink, 1))
        parts.append(_text(px(tick), box[3] + 16, _number(tick), ink, "middle"))
    for level, name in chart.levels:
        if low <= level <= high:
            parts.append(_rule(box[0], py(level), box[2], py(level), ink, 1, dashed=True))
            parts.append(_text(box[2] - 2, py(level) - 4, name, ink, "end"))
    parts.append(_rule(box[0], box[3], box[2], box[3], ink, 1))
    parts.append(_rule(box[0], box[1], box[0], box[3], ink, 1))
    for line in chart.lines:
        if line.mark is not None and x_low <= line.mark <= x_high:
            parts.append(_rule(px(line.mark), box[1], px(line.mark), box[3], line.colour, 1, dashed=True))
        good = np.isfinite(line.y)
        points = " ".join(
            f"{px(float(x)):.1f},{py(float(y)):.1f}" for x, y in zip(line.x[good], line.y[good], strict=True)
        )
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="1.8"{dash}/>'
        )
    parts.append(_text((box[0] + box[2]) / 2, height - 8, chart.x_label, ink, "middle"))
    middle = (box[1] + box[3]) / 2
    parts.append(
        f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle" '
        f'fill="{ink}">{html.escape(chart.y_label)}</text>'
    )
    return "\n".join([*parts, "</svg>"])


def to_csv(chart: Chart) -> str:
    """Return a chart's curves as a table: two columns for each, as their places differ."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head: list[str] = []
    columns: list[Sequence[float]] = []
    for line in chart.lines:
        head += [f"{line.name}: {chart.x_label}", f"{line.name}: {chart.y_label}"]
        columns += [line.x.tolist(), line.y.tolist()]
    writer.writerow(head)
    for row in range(max((len(c) for c in columns), default=0)):
        writer.writerow([f"{c[row]:.7g}" if row < len(c) else "" for c in columns])
    return out.getvalue()


def _longest(chart: Chart) -> int:
    return max((len(line.name) for line in chart.lines), default=1)


def _y_range(chart: Chart) -> tuple[float, float]:
    if chart.y_range is not None:
        return chart.y_range
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in chart.lines] or [np.array([0.0, 1.0])])
    if chart.log_y:
        values = values[values > 0]
        if not values.size:
            return 0.1, 1.0
        high = float(values.max())
        low = min([max(float(values.min()), high * 1e-9), *(v for v, _ in chart.levels if v > 0)])
        return low / 1.5, max(high * 1.5, low * 10)
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _number(value: float) -> str:
    return f"{value:g}"


def _text(x: float, y: float, text: str, ink: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{ink}"{weight}>{html.escape(text)}</text>'


def _rule(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    width: float,
    dashed: bool = False,
    faint: bool = False,
) -> str:
    more = ' stroke-dasharray="4 3"' if dashed else ""
    more += ' stroke-opacity="0.25"' if faint else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{more}/>'
    )
