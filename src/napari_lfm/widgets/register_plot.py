"""A few lines over a length in micrometres, with their names above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.parts import small_font
from napari_lfm.widgets.train_course import nice_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGENTA, GREEN, BLUE, ORANGE = "#d63fd6", "#2ca84f", "#3d9be0", "#ff9f43"
_HEIGHT = 110


@dataclass(frozen=True)
class Line:
    """One curve: its name, colour, places (um) and values; dashed for what is no more."""

    name: str
    colour: str
    x_um: np.ndarray
    values: np.ndarray
    dashed: bool = False


class LinesPlot(QWidget):
    """Curves that share one axis, each between its own extremes; hidden while there are none."""

    def __init__(self, axis: str, tooltip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.axis = axis
        self.lines: list[Line] = []
        self.mark_um: float | None = None
        self.setToolTip(tooltip)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def sizeHint(self) -> QSize:
        """Return the preferred size: a line of text for every two names."""
        return QSize(300, _HEIGHT + self.fontMetrics().height() * ((len(self.lines) + 1) // 2 + 1))

    def show_lines(self, lines: Sequence[Line], mark_um: float | None = None) -> None:
        """Show curves, and an upright line at a place."""
        self.lines = [line for line in lines if np.isfinite(line.values).any()]
        self.mark_um = mark_um
        self.setVisible(bool(self.lines))
        self.setMinimumHeight(self.sizeHint().height())
        self.updateGeometry()
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw names, curves and the axis."""
        if not self.lines:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small_font(painter)
        ink = self.palette().color(self.palette().ColorRole.WindowText)
        height = painter.fontMetrics().height()
        rows = (len(self.lines) + 1) // 2
        for k, line in enumerate(self.lines):
            self._draw_name(painter, line, (k % 2) * self.width() / 2, (k // 2) * (height + 2), ink)
        top = rows * (height + 2) + 4
        box = QRectF(4, top, self.width() - 8, self.height() - top - 2 * height - 8)
        low = min(float(line.x_um.min()) for line in self.lines)
        high = max(float(line.x_um.max()) for line in self.lines)
        self._draw_axis(painter, box, low, high, ink)

        def place(x: float, y: float) -> QPointF:
            share = (x - low) / max(high - low, 1e-9)
            return QPointF(box.left() + box.width() * share, box.bottom() - box.height() * y)

        if self.mark_um is not None and low <= self.mark_um <= high:
            painter.setPen(QPen(ink, 1, Qt.PenStyle.DotLine))
            painter.drawLine(place(self.mark_um, 0), place(self.mark_um, 1))
        for line in self.lines:
            least, most = float(np.nanmin(line.values)), float(np.nanmax(line.values))
            level = (line.values - least) / max(most - least, 1e-12)
            points = [
                place(float(x), float(v)) for x, v in zip(line.x_um, level, strict=True) if np.isfinite(v)
            ]
            painter.setPen(_pen(line))
            painter.drawPolyline(QPolygonF(points))

    @staticmethod
    def _draw_name(painter: QPainter, line: Line, left: float, top: float, ink: QColor) -> None:
        height = painter.fontMetrics().height()
        painter.setPen(_pen(line))
        painter.drawLine(QPointF(left + 4, top + height / 2), QPointF(left + 22, top + height / 2))
        painter.setPen(ink)
        painter.drawText(QRectF(left + 27, top, 400, height), int(Qt.AlignmentFlag.AlignLeft), line.name)

    def _draw_axis(self, painter: QPainter, box: QRectF, low: float, high: float, ink: QColor) -> None:
        metrics = painter.fontMetrics()
        painter.setPen(ink)
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        for tick in nice_ticks(low, high, 6):
            x = box.left() + box.width() * (tick - low) / max(high - low, 1e-9)
            painter.drawLine(QPointF(x, box.bottom()), QPointF(x, box.bottom() + 3))
            text = f"{tick:g}"
            wide = metrics.horizontalAdvance(text) + 2
            start = min(max(x - wide / 2, 0), self.width() - wide)
            where = QRectF(start, box.bottom() + 4, wide, metrics.height())
            painter.drawText(where, int(Qt.AlignmentFlag.AlignHCenter), text)
        below = QRectF(box.left(), box.bottom() + 4 + metrics.height(), box.width(), metrics.height())
        painter.drawText(below, int(Qt.AlignmentFlag.AlignHCenter), f"{self.axis} ({MICROMETRES})")


def _pen(line: Line) -> QPen:
    style = Qt.PenStyle.DashLine if line.dashed else Qt.PenStyle.SolidLine
    return QPen(QColor(line.colour), 1.7, style)
