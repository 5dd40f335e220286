"""The *Compare stacks* panel as seen: which stacks, sharpness, error map, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.parts import WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.sharpness_plot import SharpnessPlot
from napari_lfm.widgets.stack_view import fill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SLOTS: Mapping[str, tuple[str, str]] = {
    "input": ("Input", "What the microscope took"),
    "result1": ("Result", "For example the deconvolved stack"),
    "result2": ("2nd result", "For example that of a network"),
    "result3": ("3rd result", "One more"),
    "truth": ("Truth", "What the sample really is (confocal, simulation), if you have it"),
}
NONE = "(none)"


class CompareStacksView(QWidget):
    """Four steps from top to bottom."""

    slot_chosen = Signal(str, object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self._build_stacks()
        self._build_side()
        self._build_sharpness()
        self._build_error()
        self._column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content), 1)
        self._build_progress(outer)
        self.setMinimumWidth(340)

    # ------------------------------------------------------------------- build
    def _build_stacks(self) -> None:
        box, layout = section("1  Stacks of one sample")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.combos: dict[str, CalmComboBox] = {}
        for slot, (title, tip) in SLOTS.items():
            combo = CalmComboBox()
            combo.setToolTip(tip)
            combo.activated.connect(lambda i, s=slot: self.slot_chosen.emit(s, self.combos[s].itemData(i)))
            self.combos[slot] = combo
            form.addRow(title, combo)
        layout.addLayout(form)
        self.stacks_text = WrappedLabel()
        layout.addWidget(self.stacks_text)
        self._column.addWidget(box)

    def _build_side(self) -> None:
        box, layout = section("2  Side by side")
        self.map_box = QCheckBox("and the error map, where there is one")
        self.map_box.setChecked(True)
        layout.addWidget(self.map_box)
        self.side_button = button(
            "Side by side",
            "In cells; camera and sliders are those of all, brightness is fitted to each",
        )
        self.back_button = button("Back to overlay", "Lay the layers over each other again, as they were")
        self.back_button.setEnabled(False)
        layout.addLayout(row(self.side_button, self.back_button))
        self.side_text = WrappedLabel()
        layout.addWidget(self.side_text)
        self._column.addWidget(box)

    def _build_sharpness(self) -> None:
        box, layout = section("3  Sharpness against depth")
        self.sharpness_button = button(
            "Measure", "How much contrast of fine detail is left in every plane of each stack"
        )
        layout.addWidget(self.sharpness_button)
        self.plot = SharpnessPlot()
        layout.addWidget(self.plot)
        self.sharpness_text = WrappedLabel()
        layout.addWidget(self.sharpness_text)
        self._column.addWidget(box)

    def _build_error(self) -> None:
        box, layout = section("4  Error map: where two of them disagree")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.first_combo, self.second_combo = CalmComboBox(), CalmComboBox()
        self.first_combo.setToolTip("Orange in the map: this one has more light")
        self.second_combo.setToolTip("Blue in the map: this one has more light")
        form.addRow("Compare", self.first_combo)
        form.addRow("with", self.second_combo)
        layout.addLayout(form)
        self.error_button = button("Make the map", "Adds a layer")
        layout.addWidget(self.error_button)
        self.error_text = WrappedLabel()
        layout.addWidget(self.error_text)
        self._column.addWidget(box)

    def _build_progress(self, outer: QVBoxLayout) -> None:
        self.progress_row = QWidget()
        layout = QHBoxLayout(self.progress_row)
        layout.setContentsMargins(6, 0, 6, 6)
        self.progress = QProgressBar()
        self.progress.setRange(0, 100)
        self.stop_button = button("Stop", "Stop computing; nothing is changed")
        layout.addWidget(self.progress, 1)
        layout.addWidget(self.stop_button)
        outer.addWidget(self.progress_row)
        self.progress_row.setVisible(False)

    # -------------------------------------------------------------------- show
    def show_slots(self, layers: Sequence[tuple[str, object]], chosen: Mapping[str, object | None]) -> None:
        """Fill the lists of stacks, and what is chosen in each."""
        for slot, combo in self.combos.items():
            fill(combo, NONE, layers, chosen.get(slot))

    def show_pairs(self, layers: Sequence[tuple[str, object]], first: object, second: object) -> None:
        """Fill the lists of the error map with the chosen stacks."""
        for combo, mark in ((self.first_combo, first), (self.second_combo, second)):
            with QSignalBlocker(combo):
                combo.clear()
                for name, layer in layers:
                    combo.addItem(name, layer)
                    if layer is mark:
                        combo.setCurrentIndex(combo.count() - 1)

    def show_buttons(self, stacks: int, busy: bool, beside: bool) -> None:
        """Enable what can be done with this many chosen stacks."""
        self.sharpness_button.setEnabled(stacks > 0 and not busy)
        self.error_button.setEnabled(stacks > 1 and not busy)
        self.side_button.setEnabled(stacks > 1)
        self.back_button.setEnabled(beside)
        self.progress_row.setVisible(busy)
