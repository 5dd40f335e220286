"""What the neurons of a movie did: read for the points that are shown, drawn for those that are selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_lfm.methods.localization.table import traces_table
from napari_lfm.methods.localization.traces import relative_change
from napari_lfm.widgets.parts import ACCENT, small_font
from napari_lfm.widgets.train_course import nice_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

SAME_UM = 0.5
"""Traces belong to a point that is this near to where they were read."""
_MOST = 6
_COLOURS = (ACCENT, "#ff9f43", "#2ecc71", "#e056fd", "#f6e58d", "#ff5a36")


@dataclass(frozen=True)
class MovieTraces:
    """The light of neurons in every frame.

    Attributes
    ----------
    places : ndarray, shape (n, 3)
        Where they were read, (z, y, x) um.
    light : ndarray, shape (frames, n)
    spacing_s : float, optional
        Between frames; None where it is not known.
    """

    places: np.ndarray
    light: np.ndarray
    spacing_s: float | None

    def numbers_of(self, places: np.ndarray) -> list[int | None]:
        """Return which trace belongs to each place, None where it was not read."""
        out: list[int | None] = []
        for place in np.asarray(places, float).reshape(-1, 3):
            away = np.linalg.norm(self.places - place, axis=1)
            near = len(away) > 0 and away.min() < SAME_UM
            out.append(int(away.argmin()) if near else None)
        return out

    def change(self) -> np.ndarray:
        """Return dF/F, shape (frames, n)."""
        return relative_change(self.light)

    def table(self, places: np.ndarray) -> pd.DataFrame:
        """Return the traces of points as a long table; points are numbered from 1 in their order."""
        known = [(number, k) for number, k in enumerate(self.numbers_of(places), 1) if k is not None]
        columns = [k for _, k in known]
        return traces_table(self.light[:, columns], self.spacing_s, [number for number, _ in known])


class TracePlot(QWidget):
    """dF/F of a few neurons, one above the other, over the time of a movie."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.labels: list[str] = []
        self._curves: list[np.ndarray] = []
        self._unit, self._end = "frame", 1.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Change of light over the resting light (dF/F) of the selected neurons")
        self.setVisible(False)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(300, 40 + 54 * max(1, len(self._curves)))

    def show_traces(self, traces: MovieTraces | None, places: Sequence[tuple[float, float, float]]) -> int:
        """Show the traces of points, the first few of them; returns how many are drawn."""
        self._curves, self.labels = [], []
        if traces is not None and len(places):
            change = traces.change()
            for place, k in zip(places, traces.numbers_of(np.array(places)), strict=True):
                if k is not None and len(self._curves) < _MOST:
                    self._curves.append(np.nan_to_num(change[:, k]))
                    self.labels.append(f"z {place[0]:.1f}, y {place[1]:.0f}, x {place[2]:.0f}")
            frames = len(traces.light)
            self._unit = "frame" if traces.spacing_s is None else "s"
            self._end = (frames - 1) * (traces.spacing_s or 1.0)
        self.setVisible(bool(self._curves))
        self.updateGeometry()
        self.setMinimumHeight(self.sizeHint().height())
        self.update()
        return len(self._curves)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the curves, each with its own scale written beside it, and the time axis."""
        if not self._curves:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small_font(painter)
        ink = self.palette().color(self.palette().ColorRole.WindowText)
        line = painter.fontMetrics().height()
        bottom = self.height() - line - 6
        each = (bottom - line) / len(self._curves)
        painter.setPen(ink)
        painter.drawText(QRectF(0, 0, self.width(), line), int(Qt.AlignmentFlag.AlignLeft), "dF/F")
        for k, (curve, label) in enumerate(zip(self._curves, self.labels, strict=True)):
            top = line + k * each
            colour = QColor(_COLOURS[k % len(_COLOURS)])
            painter.setPen(colour)
            head = QRectF(2, top, self.width() - 4, line)
            text = f"{label}: up to {curve.max():.2g}"
            painter.drawText(head, int(Qt.AlignmentFlag.AlignRight), text)
            box = QRectF(2, top + line, self.width() - 4, each - line - 3)
            self._draw_one(painter, box, curve, colour)
        painter.setPen(ink)
        painter.drawLine(QPointF(2, bottom), QPointF(self.width() - 2, bottom))
        for tick in nice_ticks(0.0, max(self._end, 1e-9), 5):
            x = 2 + (self.width() - 4) * tick / max(self._end, 1e-9)
            painter.drawLine(QPointF(x, bottom), QPointF(x, bottom + 3))
            words = f"{tick:g} {self._unit}" if tick == 0 else f"{tick:g}"
            wide = painter.fontMetrics().horizontalAdvance(words) + 2
            start = min(max(x - wide / 2, 0), self.width() - wide)
            painter.drawText(QRectF(start, bottom + 3, wide, line), int(Qt.AlignmentFlag.AlignLeft), words)

    @staticmethod
    def _draw_one(painter: QPainter, box: QRectF, curve: np.ndarray, colour: QColor) -> None:
        low, high = float(min(curve.min(), 0.0)), float(curve.max())
        span = max(high - low, 1e-9)
        across = np.linspace(box.left(), box.right(), len(curve))
        height = box.bottom() - box.height() * (curve - low) / span
        painter.setPen(QPen(colour, 1.3))
        painter.drawPolyline(
            QPolygonF([QPointF(float(x), float(y)) for x, y in zip(across, height, strict=True)])
        )
