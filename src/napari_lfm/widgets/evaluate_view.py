"""The *Evaluate* panel as seen: an image and perhaps its truth, figures and curves, a line, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.chart_view import ChartChoice, ChartView
from napari_lfm.widgets.evaluate_texts import EXPLAINED
from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.parts import WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.stack_view import fill

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE = "(none)"
_ROWS = 5


class EvaluateView(QWidget):
    """Shows values and tells what was clicked, no more."""

    image_chosen = Signal(object)
    truth_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self._build_input()
        self._build_measures()
        self._build_line()
        self._build_side()
        self._column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content), 1)
        self._build_progress(outer)
        self.setMinimumWidth(360)

    # ------------------------------------------------------------------- build
    def _build_input(self) -> None:
        box, layout = section("1  What to measure")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.image_combo, self.truth_combo = CalmComboBox(), CalmComboBox()
        self.image_combo.setToolTip("The layer whose resolution and errors are measured")
        self.truth_combo.setToolTip("What the sample really is, or a second image of it, if you have one")
        self.image_combo.activated.connect(lambda i: self.image_chosen.emit(self.image_combo.itemData(i)))
        self.truth_combo.activated.connect(lambda i: self.truth_chosen.emit(self.truth_combo.itemData(i)))
        form.addRow("Image", self.image_combo)
        form.addRow("Truth", self.truth_combo)
        layout.addLayout(form)
        self.input_text = WrappedLabel()
        layout.addWidget(self.input_text)
        self.align_box = QCheckBox("Align first, to fractions of a voxel")
        self.align_box.setToolTip("Move the image onto the truth before comparing; no layer is changed")
        layout.addWidget(self.align_box)
        self._column.addWidget(box)

    def _build_measures(self) -> None:
        box, layout = section("2  Figures and curves")
        self.measure_button = button("Measure", "Resolution along z, y and x; with a truth, how near it is")
        self.save_button = button("Save...", "Charts as PNG and SVG, curves and figures as CSV, in a folder")
        layout.addLayout(row(self.measure_button, self.save_button, stretch=0))
        self.table = WrappedLabel()
        self.table.setToolTip(EXPLAINED)
        layout.addWidget(self.table)
        self.charts = ChartChoice()
        layout.addWidget(self.charts)
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        self._column.addWidget(box)

    def _build_line(self) -> None:
        box, layout = section("3  Width along a line")
        self.line_combo = CalmComboBox()
        self.line_combo.setToolTip("A shapes layer (its selected or newest line), or points (the last two)")
        self.draw_button = button("Draw a line", "Drag from one side of a structure to the other")
        self.line_button = button("Measure the width", "Full width at half maximum of a bright structure")
        layout.addLayout(row(self.line_combo, self.draw_button, stretch=0))
        layout.addWidget(self.line_button)
        self.profile = ChartView()
        layout.addWidget(self.profile)
        self.line_text = WrappedLabel()
        layout.addWidget(self.line_text)
        self._column.addWidget(box)

    def _build_side(self) -> None:
        box, layout = section("4  Compare side by side")
        self.layer_list = QListWidget()
        self.layer_list.setToolTip("Tick the layers to be seen beside each other")
        self.layer_list.setMaximumHeight(_ROWS * 24)
        layout.addWidget(self.layer_list)
        self.difference_box = QCheckBox("and the difference of image and truth")
        self.difference_box.setToolTip("Adds a layer: orange where the image has more light, blue where less")
        layout.addWidget(self.difference_box)
        self.side_button = button("Side by side", "In cells; one camera and one slider move all of them")
        self.back_button = button("Back to overlay", "Lay the layers over each other again, as they were")
        layout.addLayout(row(self.side_button, self.back_button))
        self.side_text = WrappedLabel()
        layout.addWidget(self.side_text)
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
    def show_layers(self, layers: Sequence[tuple[str, object]], image: object, truth: object) -> None:
        """Fill the lists of image layers; ticks of layers that stay are kept, the chosen ones get one."""
        fill(self.image_combo, NONE, layers, image)
        fill(self.truth_combo, NONE, layers, truth)
        known = {id(layer) for layer in self._listed()}
        ticked = {id(layer) for layer in self.ticked()}
        with QSignalBlocker(self.layer_list):
            self.layer_list.clear()
            for name, layer in layers:
                item = QListWidgetItem(name)
                item.setData(Qt.ItemDataRole.UserRole, layer)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                fresh = id(layer) not in known and layer in (image, truth)
                on = fresh or id(layer) in ticked
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
                self.layer_list.addItem(item)

    def tick(self, layers: Sequence[object]) -> None:
        """Put ticks on these layers, too."""
        for k in range(self.layer_list.count()):
            item = self.layer_list.item(k)
            if item is not None and any(item.data(Qt.ItemDataRole.UserRole) is x for x in layers):
                item.setCheckState(Qt.CheckState.Checked)

    def ticked(self) -> list[object]:
        """Return the layers to be seen beside each other."""
        return self._listed(ticked=True)

    def _listed(self, ticked: bool = False) -> list[object]:
        items = [self.layer_list.item(k) for k in range(self.layer_list.count())]
        return [
            i.data(Qt.ItemDataRole.UserRole)
            for i in items
            if i is not None and not (ticked and i.checkState() != Qt.CheckState.Checked)
        ]

    def show_lines(self, layers: Sequence[tuple[str, object]], chosen: object) -> None:
        """Fill the list of layers that hold a line."""
        fill(self.line_combo, NONE, layers, chosen)

    def show_buttons(
        self, *, image: bool, truth: bool, line: bool, busy: bool, beside: bool, measured: bool
    ) -> None:
        """Enable what can be done."""
        self.measure_button.setEnabled(image and not busy)
        self.save_button.setEnabled(measured and not busy)
        self.align_box.setEnabled(truth)
        self.draw_button.setEnabled(image)
        self.line_button.setEnabled(image and line and not busy)
        self.difference_box.setEnabled(image and truth)
        self.side_button.setEnabled(not busy and self.layer_list.count() > 0)
        self.back_button.setEnabled(beside)
        self.progress_row.setVisible(busy)
