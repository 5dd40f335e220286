"""Charts in a panel: the same pictures that are saved, in the colours of the theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QByteArray, QRectF, QSignalBlocker, QSize, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtSvg import QSvgRenderer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.core.charts import to_svg
from napari_lfm.widgets.form import CalmComboBox

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_lfm.core.charts import Chart

_HEIGHT = 260


class ChartView(QWidget):
    """One chart, as wide as the panel."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.chart: Chart | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(_HEIGHT)
        self.setVisible(False)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(340, _HEIGHT)

    def show_chart(self, chart: Chart | None) -> None:
        """Show a chart, or nothing."""
        self.chart = chart
        self.setVisible(chart is not None)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw it."""
        if self.chart is None:
            return
        ink = self.palette().color(self.palette().ColorRole.WindowText).name()
        text = to_svg(self.chart, self.width(), self.height(), ink, "none")
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        _renderer(text).render(painter, QRectF(self.rect()))


class ChartChoice(QWidget):
    """A list of charts, and the chosen one below it; hidden while there are none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.combo = CalmComboBox()
        self.combo.setToolTip("Which curves to look at")
        self.view = ChartView()
        layout.addWidget(self.combo)
        layout.addWidget(self.view)
        self.combo.currentIndexChanged.connect(lambda _: self.view.show_chart(self.combo.currentData()))
        self.setVisible(False)

    def show_charts(self, charts: Sequence[Chart]) -> None:
        """Show charts; the one that was looked at stays chosen."""
        kept = self.view.chart.key if self.view.chart is not None else ""
        with QSignalBlocker(self.combo):
            self.combo.clear()
            for chart in charts:
                self.combo.addItem(chart.title, chart)
            keys = [c.key for c in charts]
            self.combo.setCurrentIndex(keys.index(kept) if kept in keys else 0)
        self.view.show_chart(self.combo.currentData())
        self.setVisible(bool(charts))


def save_png(chart: Chart, path: Path, width: int = 640, height: int = 400, zoom: int = 2) -> None:
    """Save a chart as a PNG picture on white.

    Parameters
    ----------
    chart : Chart
    path : Path
    width, height : int
        As of the SVG; the picture has `zoom` times as many pixels.
    zoom : int
    """
    image = QImage(width * zoom, height * zoom, QImage.Format.Format_RGB32)
    image.fill(Qt.GlobalColor.white)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _renderer(to_svg(chart, width, height)).render(painter)
    painter.end()
    if not image.save(str(path), "PNG"):
        raise OSError(f"{path.name} could not be written")


def _renderer(text: str) -> QSvgRenderer:
    return QSvgRenderer(QByteArray(text.encode("utf-8")))
