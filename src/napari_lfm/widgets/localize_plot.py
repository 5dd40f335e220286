"""What one point rests on, drawn: its two epipolar images with the fitted line, and its depth curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.parts import ACCENT, small_font
from napari_lfm.widgets.train_course import nice_ticks

if TYPE_CHECKING:
    from napari_lfm.methods.localization.engine import Grounds

_GAP = 8
_LINE = "#ff5a36"


class GroundsPlot(QWidget):
    """Two epipolar images side by side, below them the depth curve."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.grounds: Grounds | None = None
        self.z_um = 0.0
        self._images: dict[str, QImage] = {}
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(230)
        self.setToolTip(
            "Above: the views (from top to bottom) against the lenslets, along x and along y; the line is "
            "where a source at this depth lies. Below: how much speaks for every depth."
        )

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(300, 230)

    def show_grounds(self, grounds: Grounds | None, z_um: float = 0.0) -> None:
        """Show what a point rests on, or nothing."""
        self.grounds, self.z_um = grounds, z_um
        self._images = {}
        for way, image in ({} if grounds is None else grounds.images).items():
            grey = np.ascontiguousarray(255 * np.clip(image, 0, 1) ** 0.7, np.uint8)
            rows, columns = grey.shape
            self._images[way] = QImage(
                grey.tobytes(), columns, rows, columns, QImage.Format.Format_Grayscale8
            ).copy()
        self.setVisible(grounds is not None)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw images, lines and the curve."""
        if self.grounds is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small_font(painter)
        ink = self.palette().color(self.palette().ColorRole.WindowText)
        painter.setPen(ink)
        line = painter.fontMetrics().height()
        each = (self.width() - _GAP) / 2
        height = self.height() - 4 * line - 84
        for k, (way, image) in enumerate(self._images.items()):
            box = QRectF(k * (each + _GAP), line + 2, each, height)
            painter.setPen(ink)
            painter.drawText(
                QRectF(box.left(), 0, each, line),
                int(Qt.AlignmentFlag.AlignLeft),
                f"epipolar image along {way}",
            )
            painter.drawImage(box, image)
            self._draw_line(painter, box, way)
        top = line + height + 10
        self._draw_curve(painter, QRectF(4, top, self.width() - 8, self.height() - top), ink)

    def _draw_line(self, painter: QPainter, box: QRectF, way: str) -> None:
        assert self.grounds is not None
        rows, columns = self.grounds.images[way].shape
        views = np.arange(rows) - (rows - 1) / 2
        at = (columns - 1) / 2 + self.grounds.offset[way] + self.grounds.slope * views
        points = [
            QPointF(
                box.left() + box.width() * (a + 0.5) / columns, box.top() + box.height() * (k + 0.5) / rows
            )
            for k, a in enumerate(at)
            if 0 <= a <= columns - 1
        ]
        painter.setPen(QPen(QColor(_LINE), 1.4, Qt.PenStyle.DashLine))
        painter.drawPolyline(QPolygonF(points))

    def _draw_curve(self, painter: QPainter, box: QRectF, ink: QColor) -> None:
        assert self.grounds is not None
        z, curve = self.grounds.z_um, self.grounds.curve
        metrics = painter.fontMetrics()
        line = metrics.height()
        painter.setPen(ink)
        painter.drawText(
            QRectF(box.left(), box.top(), box.width(), line),
            int(Qt.AlignmentFlag.AlignLeft),
            f"depth curve ({MICROMETRES}); this point: {self.z_um:.1f}",
        )
        low, high = float(z[0]), float(z[-1])
        area = QRectF(box.left(), box.top() + line + 4, box.width(), box.height() - 2 * line - 10)

        def place(depth: float, value: float) -> QPointF:
            across = (depth - low) / max(high - low, 1e-9)
            return QPointF(area.left() + area.width() * across, area.bottom() - area.height() * value)

        painter.drawLine(area.bottomLeft(), area.bottomRight())
        for tick in nice_ticks(low, high, 6):
            foot = place(tick, 0)
            painter.drawLine(foot, QPointF(foot.x(), foot.y() + 3))
            text = f"{tick:g}"
            wide = metrics.horizontalAdvance(text) + 2
            start = min(max(foot.x() - wide / 2, box.left()), box.right() - wide)
            painter.drawText(
                QRectF(start, foot.y() + 4, wide, line), int(Qt.AlignmentFlag.AlignHCenter), text
            )
        painter.setPen(QPen(QColor(_LINE), 1.2, Qt.PenStyle.DashLine))
        if low <= self.z_um <= high:
            painter.drawLine(place(self.z_um, 0), place(self.z_um, 1))
        painter.setPen(QPen(QColor(ACCENT), 1.8))
        painter.drawPolyline(
            QPolygonF([place(float(d), float(np.clip(v, 0, 1))) for d, v in zip(z, curve, strict=True)])
        )
