"""The *Simulate* panel as seen: a volume, a microscope, a few figures, Run and Stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QProgressBar, QVBoxLayout, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, ModelForm
from napari_lfm.widgets.parts import WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.simulation_input import SimulateSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE_TEXT = "(none)"
_LABELS = {
    "focus_um": f"focus at z of the layer ({MICROMETRES})",
    "z_min_um": f"lowest plane ({MICROMETRES})",
    "z_max_um": f"highest plane ({MICROMETRES})",
    "z_step_um": f"plane distance ({MICROMETRES})",
    "peak_electrons": "electrons at the peak",
}


class SimulateView(QWidget):
    """Shows values and tells what was clicked, no more."""

    layer_chosen = Signal(object)
    microscope_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, column = panel_column()
        box, layout = section("1  What is recorded", "The volume, and the microscope that looks at it")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.layer_combo = CalmComboBox()
        self.layer_combo.setToolTip("An image layer with the axes z, y, x and voxel sizes")
        self.layer_combo.activated.connect(lambda k: self.layer_chosen.emit(self.layer_combo.itemData(k)))
        form.addRow("Volume", self.layer_combo)
        self.microscope_combo = CalmComboBox()
        self.microscope_combo.setToolTip("Published light-field microscopes, and your own")
        self.microscope_combo.activated.connect(
            lambda k: self.microscope_chosen.emit(self.microscope_combo.itemData(k) or "")
        )
        form.addRow("Microscope", self.microscope_combo)
        layout.addLayout(form)
        self.input_text = WrappedLabel()
        layout.addWidget(self.input_text)
        column.addWidget(box)
        box, layout = section("2  How it is recorded")
        self.form = ModelForm(SimulateSettings, labels=_LABELS)
        layout.addWidget(self.form)
        self.fit_button = button(
            "Fit to the volume", "Depths, focus and lenslets that take in the whole volume"
        )
        layout.addWidget(self.fit_button)
        column.addWidget(box)
        box, layout = section("3  Record")
        self.run_button = button("Record", "Add a raw frame, a white frame and the truth as layers")
        self.stop_button = button("Stop", "Give up this recording; no layer is added")
        layout.addLayout(row(self.run_button, self.stop_button))
        self.bar = QProgressBar()
        layout.addWidget(self.bar)
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        column.addWidget(box)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self.setMinimumWidth(340)
        self.show_running(False, False)

    def show_layers(self, layers: Sequence[tuple[str, object]], chosen: object) -> None:
        """List the image layers."""
        _fill(self.layer_combo, [(NONE_TEXT, None), *layers], chosen)

    def show_microscopes(self, names: Sequence[str], chosen: str) -> None:
        """List the microscopes."""
        _fill(self.microscope_combo, [(NONE_TEXT, ""), *((n, n) for n in names)], chosen)

    def show_running(self, running: bool, can_run: bool) -> None:
        """Enable what can be pressed now."""
        self.run_button.setEnabled(can_run and not running)
        self.stop_button.setEnabled(running)
        self.fit_button.setEnabled(can_run and not running)
        if not running:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")

    def show_progress(self, step: int, steps: int, message: str) -> None:
        """Show how far the recording is; `steps` of 0 for not known yet."""
        self.bar.setRange(0, steps)
        self.bar.setValue(step)
        self.bar.setFormat(f"{step} of {steps}" if steps else "")
        self.text.show_text(message)


def _fill(combo: CalmComboBox, items: Sequence[tuple[str, object]], chosen: object) -> None:
    with QSignalBlocker(combo):
        combo.clear()
        for text, data in items:
            combo.addItem(text, data)
        # itemData is compared by identity: layers have no useful equality
        found = [k for k, (_, data) in enumerate(items) if data is chosen or data == chosen]
        combo.setCurrentIndex(found[0] if found else 0)
