"""Sharpness against depth, drawn: a full line for each stack's signal, a dotted one for its background."""

from __future__ import annotations

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

    from napari_lfm.widgets.stack_comparison import Series

COLOURS = ("#9aa0a6", "#3d9be0", "#e8871e", "#b765d8", "#3fa860")
"""Input, up to three results, truth: told apart on dark and light themes, and by most colour-blind eyes."""


class SharpnessPlot(QWidget):
    """Curves of several stacks with axes and a legend."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.series: list[tuple[Series, str]] = []
        self.depth_um: float | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(220)
        self.setToolTip(
            "Mean gradient |dI/dx| + |dI/dy| in patches of 32 x 32 pixels. Full: the sharpest patch of every "
            "plane (signal); dotted: the flattest one (background)."
        )
        self.setVisible(False)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(300, 220)

    def show_series(self, series: Sequence[tuple[Series, str]]) -> None:
        """Show curves, each with its colour; nothing hides the plot."""
        self.series = list(series)
        line = self.fontMetrics().height()
        self.setMinimumHeight(190 + line * len(self.series))
        self.setVisible(bool(self.series))
        self.updateGeometry()
        self.update()

    def limits(self) -> tuple[float, float]:
        """Return the lowest and highest value of the upright axis, which is logarithmic."""
        values = np.concatenate([np.r_[s.sharpness.signal, s.sharpness.background] for s, _ in self.series])
        positive = values[values > 0]
        if not positive.size:
            return 1e-3, 1.0
        low, high = float(positive.min()), float(positive.max())
        return max(low, high * 1e-4) / 1.15, high * 1.15

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw legend, axes and curves."""
        if not self.series:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small_font(painter)
        ink = self.palette().color(self.palette().ColorRole.WindowText)
        metrics = painter.fontMetrics()
        line = metrics.height()
        top = self._draw_legend(painter, ink, line)
        low, high = self.limits()
        ticks = log_ticks(low, high)
        left = 8 + max(metrics.horizontalAdvance(f"{t:g}") for t in ticks)
        box = QRectF(left, top + line + 6, self.width() - left - 10, self.height() - top - 3 * line - 14)
        far = max(float(s.depth_um[-1]) for s, _ in self.series) or 1.0

        def place(depth: float, value: float) -> QPointF:
            share = np.log(max(value, low) / low) / np.log(high / low)
            return QPointF(box.left() + box.width() * depth / far, box.bottom() - box.height() * float(share))

        painter.setPen(ink)
        painter.drawText(
            QRectF(2, top, self.width() - 4, line), int(Qt.AlignmentFlag.AlignLeft), "gradient per pixel"
        )
        faint = QColor(ink)
        faint.setAlphaF(0.25)
        for tick in ticks:
            y = place(0, tick).y()
            painter.setPen(faint)
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(ink)
            painter.drawText(
                QRectF(0, y - line / 2, left - 4, line), int(Qt.AlignmentFlag.AlignRight), f"{tick:g}"
            )
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        for tick in nice_ticks(0.0, far, 6):
            foot = place(tick, low)
            painter.drawLine(foot, QPointF(foot.x(), foot.y() + 3))
            painter.drawText(
                QRectF(foot.x() - 25, foot.y() + 4, 50, line), int(Qt.AlignmentFlag.AlignHCenter), f"{tick:g}"
            )
        painter.drawText(
            QRectF(box.left(), box.bottom() + line + 5, box.width(), line),
            int(Qt.AlignmentFlag.AlignHCenter),
            f"depth below the first plane ({MICROMETRES})",
        )
        for one, colour in self.series:
            for values, style, width in (
                (one.sharpness.background, Qt.PenStyle.DotLine, 1.4),
                (one.sharpness.signal, Qt.PenStyle.SolidLine, 1.8),
            ):
                painter.setPen(QPen(QColor(colour), width, style))
                points = [place(float(d), float(v)) for d, v in zip(one.depth_um, values, strict=True)]
                painter.drawPolyline(QPolygonF(points))
                if len(points) == 1:
                    painter.drawEllipse(points[0], 2.0, 2.0)

    def _draw_legend(self, painter: QPainter, ink: QColor, line: int) -> float:
        for row, (one, colour) in enumerate(self.series):
            y = row * line + line / 2
            painter.setPen(QPen(QColor(colour), 2.2))
            painter.drawLine(QPointF(4, y), QPointF(22, y))
            painter.setPen(ink)
            box = QRectF(28, row * line, self.width() - 30, line)
            text = painter.fontMetrics().elidedText(one.name, Qt.TextElideMode.ElideMiddle, int(box.width()))
            painter.drawText(box, int(Qt.AlignmentFlag.AlignLeft), text)
        return len(self.series) * line + 4.0


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic axis: 1, 2 and 5 times powers of ten, or powers alone.

    Examples
    --------
    >>> log_ticks(0.015, 0.3)
    [0.02, 0.05, 0.1, 0.2]
    """
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = [round(f * 10.0**p, 12) for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= 7:
            break
    return found or [low]
