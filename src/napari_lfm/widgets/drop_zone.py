"""A place to drop files on, with Open...: it reads them with this plugin whatever else is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen
from qtpy.QtWidgets import QFileDialog, QFrame, QLabel, QVBoxLayout, QWidget

from napari_lfm.widgets.parts import ACCENT, button
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from qtpy.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent

FILE_FILTER = "Images (*.tif *.tiff *.btf *.npz *.zarr);;All files (*)"


class DropZone(QFrame):
    """Takes one or several files; napari's own drop would ask which reader to use."""

    files_chosen = Signal(list)

    def __init__(
        self,
        text: str,
        parent: QWidget | None = None,
        what: str = "Open light field, white and dark frame",
    ) -> None:
        super().__init__(parent)
        self._hovered, self._what = False, what
        self.setAcceptDrops(True)
        self.setToolTip(
            "Files dropped here are opened with sizes in micrometres, whatever readers are installed."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 10, 10, 10)
        label = QLabel(text)
        label.setWordWrap(True)
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout.addWidget(label)
        self.open_button = button("Open...", "Choose one or several files", self.ask)
        layout.addWidget(self.open_button, alignment=Qt.AlignmentFlag.AlignCenter)

    def ask(self) -> None:
        """Let the user choose files in a dialog."""
        names, _ = QFileDialog.getOpenFileNames(self, self._what, "", FILE_FILTER)
        if names:
            self.files_chosen.emit([Path(name) for name in names])

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Accept local files."""
        if event is None:
            return
        mime = event.mimeData()
        if mime is not None and any(url.isLocalFile() for url in mime.urls()):
            event.acceptProposedAction()
            self._hover(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent | None) -> None:
        """Look as before."""
        self._hover(False)

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Hand the dropped files on, and keep napari's window from opening them too."""
        self._hover(False)
        if event is None:
            return
        mime = event.mimeData()
        paths = [] if mime is None else [Path(url.toLocalFile()) for url in mime.urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.files_chosen.emit(paths)

    def _hover(self, on: bool) -> None:
        self._hovered = on
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the dashed border that says 'drop here'."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour = QColor(ACCENT) if self._hovered else self.palette().color(QPalette.ColorRole.WindowText)
        colour.setAlphaF(1.0 if self._hovered else 0.45)
        painter.setPen(QPen(colour, 1.6, Qt.PenStyle.DashLine))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5), 6.0, 6.0)
