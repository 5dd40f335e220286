"""The choice of a trained model as seen: list, fit, summary of the card, buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QLabel,
    QMenu,
    QSizePolicy,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence


class OpeningComboBox(CalmComboBox):
    """A combo box that tells before its list opens, so that the list can be brought up to date."""

    opening = Signal()

    def showPopup(self) -> None:
        """Tell, then open the list."""
        self.opening.emit()
        super().showPopup()


class ModelBox(QWidget):
    """Which trained model runs, whether it fits, and what its card says."""

    model_chosen = Signal(str)
    confirmed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(5)
        self.combo = OpeningComboBox()
        self.combo.setToolTip("Trained models of this method, the best fit for your microscope first")
        self.combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.combo.activated.connect(lambda index: self.model_chosen.emit(self.combo.itemData(index)))
        label = QLabel("Model")
        label.setBuddy(self.combo)
        layout.addWidget(label)  # above, as the list's lines are as wide as the panel
        layout.addWidget(self.combo)
        self.fit_text = WrappedLabel()
        layout.addWidget(self.fit_text)
        self.confirm_box = QCheckBox()
        self.confirm_box.setToolTip("The model was trained for something slightly different; you decide")
        self.confirm_box.toggled.connect(self.confirmed)
        self.confirm_box.setVisible(False)
        layout.addWidget(self.confirm_box)
        self.summary = WrappedLabel()
        layout.addWidget(self.summary)
        self.more_button = button("More...", "The whole card: training, scores, licence, fingerprint")
        self.fetch_button = button("Fetch", "Bring this model to this machine")
        self.import_button = button(
            "Import...",
            "Add a model folder, a ZIP file of one, or what others trained: a checkpoint of the authors' "
            "LFMNet, a CSBDeep folder (config.json, weights_best.h5)",
        )
        self.locate_button = button("Show folder", "Open the folder that holds the model")
        self.delete_button = button("Delete...", "Remove this model from this machine; only your own")
        menu = QMenu(self.import_button)
        self.folder_action = QAction("Model folder, also of CSBDeep...", self)
        self.file_action = QAction("ZIP file, LFMNet checkpoint or Keras file...", self)
        menu.addAction(self.folder_action)
        menu.addAction(self.file_action)
        self.import_button.setMenu(menu)
        layout.addLayout(row(self.more_button, self.import_button))
        layout.addLayout(row(self.fetch_button, self.locate_button, self.delete_button))
        self.text = WrappedLabel()
        layout.addWidget(self.text)

    def show_models(self, models: Sequence[tuple[str, str, str]], chosen: str) -> None:
        """Fill the list with (title, key, tooltip)."""
        with QSignalBlocker(self.combo):
            self.combo.clear()
            for title, key, tip in models:
                self.combo.addItem(title, key)
                self.combo.setItemData(self.combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
                if key == chosen:
                    self.combo.setCurrentIndex(self.combo.count() - 1)
        self.combo.setEnabled(bool(models))

    def show_fit(self, text: str, question: str) -> None:
        """Show the fit, and what the user has to agree to; a new question starts without a tick."""
        self.fit_text.show_text(text)
        if question != self.confirm_box.text():
            with QSignalBlocker(self.confirm_box):
                self.confirm_box.setChecked(False)
            self.confirm_box.setText(question)
        self.confirm_box.setVisible(bool(question))

    def show_buttons(self, *, known: bool, here: bool, own: bool, remote: bool) -> None:
        """Enable what can be done with the chosen model."""
        self.more_button.setEnabled(known)
        self.locate_button.setEnabled(here)
        self.locate_button.setVisible(not remote)
        self.fetch_button.setVisible(remote)
        self.delete_button.setEnabled(own)


class CardDialog(QDialog):
    """A whole model card, scrollable."""

    def __init__(self, title: str, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Model {title}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(620, 640)
        layout = QVBoxLayout(self)
        self.browser = QTextBrowser()
        self.browser.setOpenExternalLinks(True)
        self.browser.setHtml(text)
        layout.addWidget(self.browser)
        layout.addLayout(row(QWidget(), button("Close", "Back to the panel", self.accept), stretch=0))
