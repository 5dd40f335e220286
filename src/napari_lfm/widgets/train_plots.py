"""Small pictures of a training: a curve over minutes, and validation slices side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.parts import ACCENT, small_font
from napari_lfm.widgets.train_course import nice_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_GAP = 6
_MARGIN = 2


class Curve(QWidget):
    """One figure over the minutes of a training, with axes, and a line to compare it with.

    Parameters
    ----------
    title : str
        What is plotted, above the curve.
    unit : str
        Unit of the figure; empty for none.
    from_zero : bool
        The axis starts at 0.
    dots : bool
        Mark every point.
    waiting : str
        Shown while there is no point.
    """

    def __init__(
        self,
        title: str,
        unit: str = "",
        from_zero: bool = False,
        dots: bool = False,
        waiting: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.title, self.unit = title, unit
        self._from_zero, self._dots, self._waiting = from_zero, dots, waiting
        self.points: list[tuple[float, float]] = []
        self.reference: tuple[str, float] | None = None
        self._until = 1.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(124)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(300, 124)

    def show_points(
        self,
        points: Sequence[tuple[float, float]],
        until: float,
        reference: tuple[str, float] | None = None,
    ) -> None:
        """Show points (minute, value) on an axis that ends at `until`, and a labelled line."""
        self.points, self._until, self.reference = list(points), max(until, 1e-3), reference
        self.update()

    def limits(self) -> tuple[float, float]:
        """Return the lower and upper end of the upright axis."""
        values = [y for _, y in self.points]
        if self.reference is not None:
            values.append(self.reference[1])
        if not values:
            return 0.0, 1.0
        low, high = min(values), max(values)
        if self._from_zero:
            low = min(0.0, low)
        span = (high - low) or max(1.0, abs(high) / 10)
        return (low if self._from_zero else low - 0.1 * span), high + 0.1 * span

    def caption(self) -> str:
        """Return title and newest value."""
        if not self.points:
            return self.title
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.title}: {self.points[-1][1]:.3g}{unit}"

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw axes, curve and reference."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small_font(painter)
        ink = self.palette().color(self.palette().ColorRole.WindowText)
        painter.setPen(ink)
        line = painter.fontMetrics().height()
        painter.drawText(
            QRectF(_MARGIN, 0, self.width() - 2 * _MARGIN, line),
            int(Qt.AlignmentFlag.AlignLeft),
            self.caption(),
        )
        if not self.points and self.reference is None:
            self._draw_nothing(painter, ink)
            return
        low, high = self.limits()
        ticks = nice_ticks(low, high, 4)
        labels = [f"{t:g}" for t in ticks]
        left = _MARGIN + 6 + max(painter.fontMetrics().horizontalAdvance(text) for text in labels)
        box = QRectF(left, line + 5, self.width() - left - 8, self.height() - 2 * line - 10)

        def place(x: float, y: float) -> QPointF:
            return QPointF(
                box.left() + box.width() * x / self._until,
                box.bottom() - box.height() * (y - low) / (high - low),
            )

        self._draw_axes(
            painter, box, ink, [(place(0, t).y(), text) for t, text in zip(ticks, labels, strict=True)]
        )
        if self.reference is not None:
            self._draw_reference(painter, box, ink, place(0, self.reference[1]).y())
        painter.setPen(QPen(QColor(ACCENT), 1.8))
        where = [place(x, y) for x, y in self.points]
        painter.drawPolyline(QPolygonF(where))
        if self._dots or len(where) == 1:
            painter.setBrush(QColor(ACCENT))
            for point in where:
                painter.drawEllipse(point, 2.2, 2.2)

    def _draw_nothing(self, painter: QPainter, ink: QColor) -> None:
        faint = QColor(ink)
        faint.setAlphaF(0.6)
        painter.setPen(faint)
        painter.drawText(QRectF(self.rect()), int(Qt.AlignmentFlag.AlignCenter), self._waiting)

    def _draw_axes(
        self, painter: QPainter, box: QRectF, ink: QColor, ticks: Sequence[tuple[float, str]]
    ) -> None:
        faint = QColor(ink)
        faint.setAlphaF(0.2)
        metrics = painter.fontMetrics()
        line = metrics.height()
        for y, text in ticks:
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(ink)
            place = QRectF(0, y - line / 2, box.left() - 4, line)
            painter.drawText(place, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), text)
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        below = box.bottom() + 4
        marks = nice_ticks(0.0, self._until, 6)
        for t in marks:
            text = f"{t:g} min" if t == marks[-1] else f"{t:g}"
            x = box.left() + box.width() * t / self._until
            painter.drawLine(QPointF(x, box.bottom()), QPointF(x, box.bottom() + 3))
            width = metrics.horizontalAdvance(text) + 2
            start = min(x - width / 2, self.width() - width - 1)
            painter.drawText(QRectF(start, below, width, line), int(Qt.AlignmentFlag.AlignHCenter), text)

    def _draw_reference(self, painter: QPainter, box: QRectF, ink: QColor, y: float) -> None:
        assert self.reference is not None
        painter.setPen(QPen(ink, 1.2, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
        painter.setPen(ink)
        line = painter.fontMetrics().height()
        # on the side of the line where there is more room
        above = y - box.top() > box.bottom() - y
        top = y - line - 1 if above else y + 1
        text = f"{self.reference[0]} {self.reference[1]:.1f} {self.unit}".rstrip()
        painter.drawText(
            QRectF(box.left(), top, box.width() - 2, line), int(Qt.AlignmentFlag.AlignRight), text
        )


class Slices(QWidget):
    """Grey pictures of the same size, each with its label above it, and a scale bar.

    Parameters
    ----------
    parent : QWidget, optional
    below : bool
        Wide pictures: they lie below one another, not beside one another.
    """

    def __init__(self, parent: QWidget | None = None, below: bool = False) -> None:
        super().__init__(parent)
        self._below = below
        self.labels: list[str] = []
        self._images: list[QImage] = []
        self._pixel_um = 0.0
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_pictures(self, pictures: Sequence[tuple[str, np.ndarray]], pixel_um: float = 0.0) -> None:
        """Show 8-bit pictures (y, x) with their labels."""
        self.labels = [label for label, _ in pictures]
        # copied: the image must not outlive numpy's memory
        self._images = [
            QImage(p.tobytes(), p.shape[1], p.shape[0], p.shape[1], QImage.Format.Format_Grayscale8).copy()
            for _, p in pictures
        ]
        self._pixel_um = pixel_um
        self.setVisible(bool(pictures))
        self.updateGeometry()
        self.update()

    def hasHeightForWidth(self) -> bool:
        """Return that the height follows from the width."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height that shows every picture undistorted."""
        rows = max(len(self._images), 1) if self._below else 1
        return rows * (round(self._each(width)[1]) + self.fontMetrics().height() + 4)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(300, self.heightForWidth(300))

    def _each(self, width: float) -> tuple[float, float]:
        count = 1 if self._below else max(len(self._images), 1)
        each = (width - _GAP * (count - 1)) / count
        image = self._images[0] if self._images else None
        return each, each if image is None else each * image.height() / max(image.width(), 1)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw labels, pictures and the scale bar."""
        painter = QPainter(self)
        small_font(painter)
        painter.setPen(self.palette().color(self.palette().ColorRole.WindowText))
        line = painter.fontMetrics().height() + 2
        each, height = self._each(self.width())
        for k, (label, image) in enumerate(zip(self.labels, self._images, strict=True)):
            x = 0.0 if self._below else k * (each + _GAP)
            y = k * (line + height + 2) if self._below else 0.0
            # the outer labels may reach over the middle one's picture: its own is short
            side = Qt.AlignmentFlag.AlignHCenter
            if self._below or (k == 0 and len(self.labels) > 1):
                side = Qt.AlignmentFlag.AlignLeft
            elif k == len(self.labels) - 1 > 0:
                side = Qt.AlignmentFlag.AlignRight
            reach = 0 if side == Qt.AlignmentFlag.AlignHCenter else each / 3
            start = x - reach if side == Qt.AlignmentFlag.AlignRight else x
            painter.drawText(QRectF(start, y, each + reach, line), int(side), label)
            painter.drawImage(QRectF(x, y + line, each, height), image)
        if self._images and self._pixel_um > 0:
            self._draw_bar(painter, each, line + height)

    def _draw_bar(self, painter: QPainter, each: float, bottom: float) -> None:
        field = self._images[0].width() * self._pixel_um
        length = nice_ticks(0.0, 0.4 * field, 3)[-1]
        pixels = each * length / field
        painter.setPen(QPen(QColor("white"), 2))
        y = bottom - 6
        painter.drawLine(QPointF(6, y), QPointF(6 + pixels, y))
        text = f"{length:g} {MICROMETRES}"
        line = painter.fontMetrics().height()
        painter.drawText(QRectF(6, y - line - 2, each, line), int(Qt.AlignmentFlag.AlignLeft), text)
