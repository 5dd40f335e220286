"""Small views used by both panels: wrapped text, section boxes, a row of buttons, a residual curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import (
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.texts import problems_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_lfm.core.problems import Problem

ACCENT = "#3d9be0"  # readable on napari's dark and light themes


class WrappedLabel(QLabel):
    """Rich text that wraps and never makes the panel wider; hidden while empty."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.show_text(text)

    def show_text(self, text: str) -> None:
        """Show rich text, or hide when there is none."""
        self.setText(text)
        self.setVisible(bool(text))

    def show_problems(self, problems: Iterable[Problem]) -> None:
        """Show problems, the worst first; hide when there are none."""
        self.show_text(problems_html(problems))


def section(title: str, tooltip: str = "") -> tuple[QGroupBox, QVBoxLayout]:
    """Return a titled box and its layout."""
    box = QGroupBox(title)
    box.setToolTip(tooltip)
    layout = QVBoxLayout(box)
    layout.setContentsMargins(8, 12, 8, 8)
    layout.setSpacing(5)
    return box, layout


def button(text: str, tooltip: str, clicked: Callable[[], object] | None = None) -> QPushButton:
    """Return a push button with a tooltip, not reacting to Enter elsewhere in the panel."""
    out = QPushButton(text)
    out.setToolTip(tooltip)
    out.setAutoDefault(False)
    if clicked is not None:
        out.clicked.connect(lambda: clicked())
    return out


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Return widgets side by side; `stretch` is the index of the one that grows."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    return layout


def small_font(painter: QPainter) -> None:
    """Write in a drawing a little smaller than beside it."""
    font = painter.font()
    font.setPointSizeF(max(7.0, font.pointSizeF() - 1))
    painter.setFont(font)


def panel_column() -> tuple[QWidget, QVBoxLayout]:
    """Return a panel's content and its column, with the margins that all panels have."""
    content = QWidget()
    column = QVBoxLayout(content)
    column.setContentsMargins(6, 6, 6, 6)
    column.setSpacing(8)
    return content, column


def scrolled(content: QWidget) -> QScrollArea:
    """Return a vertical scroll area around a panel's content."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(content)
    return area


class Fold(QWidget):
    """A line of text with an arrow that shows or hides what is below it."""

    def __init__(self, title: str, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.content = content
        self._button = QToolButton()
        self._button.setText(title)
        self._button.setCheckable(True)
        self._button.setAutoRaise(True)
        self._button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._button.toggled.connect(self._turn)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._button)
        layout.addWidget(content)
        self._turn(False)

    def expand(self) -> None:
        """Show the content."""
        self._button.setChecked(True)

    def _turn(self, opened: bool) -> None:
        self._button.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.content.setVisible(opened)


class Sparkline(QWidget):
    """A small curve of one figure over the steps of a run, with its first and last value."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self._values: list[float] = []
        self.setMinimumHeight(54)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Return the preferred size."""
        return QSize(200, 54)

    @property
    def values(self) -> tuple[float, ...]:
        """The plotted values."""
        return tuple(self._values)

    def clear(self) -> None:
        """Start anew."""
        self._values = []
        self.update()

    def extend(self, values: Iterable[float]) -> None:
        """Add values on the right."""
        self._values.extend(values)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the curve between its own extremes."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        text = palette.color(palette.ColorRole.WindowText)
        font = painter.font()
        font.setPointSizeF(max(7.0, font.pointSizeF() - 1))
        painter.setFont(font)
        painter.setPen(text)
        if not self._values:
            return
        caption = f"{self._name}: {self._values[0]:.3g} \N{RIGHTWARDS ARROW} {self._values[-1]:.3g}"
        painter.drawText(self.rect().adjusted(2, 0, -2, 0), int(Qt.AlignmentFlag.AlignTop), caption)
        if len(self._values) < 2:
            return
        top = painter.fontMetrics().height() + 3
        low, high = min(self._values), max(self._values)
        span = (high - low) or 1.0
        width, height = self.width() - 6, self.height() - top - 5
        points = [
            QPointF(3 + width * i / (len(self._values) - 1), top + height * (1 - (v - low) / span))
            for i, v in enumerate(self._values)
        ]
        painter.setPen(QPen(QColor(ACCENT), 1.8))
        painter.drawPolyline(QPolygonF(points))
