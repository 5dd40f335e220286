"""The *Register pair* panel as seen: two stacks, the search, the shift, and profiles along z."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QFormLayout, QProgressBar, QVBoxLayout, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox
from napari_lfm.widgets.parts import WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.register_plot import LinesPlot

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE_TEXT = "(none)"
_FAR_UM = 10_000.0


class RegisterView(QWidget):
    """Shows values and tells what was clicked, no more."""

    moving_chosen = Signal(object)
    fixed_chosen = Signal(object)
    nudged = Signal()
    before_wanted = Signal(bool)
    overlay_wanted = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, column = panel_column()
        self._pair(column)
        self._search(column)
        self._move(column)
        self._profiles(column)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self.setMinimumWidth(340)
        self.show_running(False, False)
        self.show_movable(False, False)

    def _pair(self, column: QVBoxLayout) -> None:
        box, layout = section("1  The pair")
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.moving_combo, self.fixed_combo = CalmComboBox(), CalmComboBox()
        self.moving_combo.setToolTip("The stack that is moved")
        self.fixed_combo.setToolTip("The stack that stays where it is")
        self.moving_combo.activated.connect(lambda k: self.moving_chosen.emit(self.moving_combo.itemData(k)))
        self.fixed_combo.activated.connect(lambda k: self.fixed_chosen.emit(self.fixed_combo.itemData(k)))
        form.addRow("Wide-field (moves)", self.moving_combo)
        form.addRow("Confocal (stays)", self.fixed_combo)
        layout.addLayout(form)
        self.input_text = WrappedLabel()
        layout.addWidget(self.input_text)
        column.addWidget(box)

    def _search(self, column: QVBoxLayout) -> None:
        box, layout = section("2  Find the shift")
        self.turn_box = QCheckBox("Rotation and magnification too")
        self.turn_box.setToolTip(
            "Look for a rotation about z up to 5 degrees and a difference in size up to 5 % as well"
        )
        layout.addWidget(self.turn_box)
        self.run_button = button("Register", "Estimate the shift in two ways, and say whether they agree")
        self.stop_button = button("Stop", "Give up; nothing is moved")
        layout.addLayout(row(self.run_button, self.stop_button))
        self.bar = QProgressBar()
        layout.addWidget(self.bar)
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        self.table = WrappedLabel()
        layout.addWidget(self.table)
        self.evidence = LinesPlot(
            "shift along z",
            "Evidence of both estimates for shifts along z; the dotted line is what is proposed",
        )
        layout.addWidget(self.evidence)
        column.addWidget(box)

    def _move(self, column: QVBoxLayout) -> None:
        box, layout = section("3  Move the wide-field layer")
        self.boxes = {axis: CalmDoubleSpinBox() for axis in "zyx"}
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        for axis, spin in self.boxes.items():
            spin.setRange(-_FAR_UM, _FAR_UM)
            spin.setStepType(CalmDoubleSpinBox.StepType.DefaultStepType)
            spin.setToolTip(f"Shift along {axis}; a step is one voxel of the confocal stack")
            spin.valueChanged.connect(lambda _: self.nudged.emit())
            form.addRow(f"Shift along {axis} ({MICROMETRES})", spin)
        layout.addLayout(form)
        self.apply_button = button("Apply", "Move the layer; with a rotation, add a resampled layer")
        self.undo_button = button("Undo", "Put the layer back where it was")
        self.before_box = QCheckBox("Show before")
        self.before_box.setToolTip("Look at the pair as it was")
        self.before_box.toggled.connect(self.before_wanted)
        self.overlay_box = QCheckBox("Overlay in magenta and green")
        self.overlay_box.setToolTip("Wide-field in magenta, confocal in green: what lies together is white")
        self.overlay_box.toggled.connect(self.overlay_wanted)
        layout.addLayout(row(self.apply_button, self.undo_button))
        layout.addWidget(self.overlay_box)
        layout.addWidget(self.before_box)
        self.move_text = WrappedLabel()
        layout.addWidget(self.move_text)
        column.addWidget(box)

    def _profiles(self, column: QVBoxLayout) -> None:
        box, layout = section("4  Along z", "Click on the image to choose where")
        self.profile_text = WrappedLabel()
        layout.addWidget(self.profile_text)
        self.profile = LinesPlot("z", "Intensity along z at the chosen place, each between its own extremes")
        layout.addWidget(self.profile)
        column.addWidget(box)

    # -------------------------------------------------------------------- show
    def show_layers(self, layers: Sequence[tuple[str, object]], moving: object, fixed: object) -> None:
        """List the image layers."""
        for combo, chosen in ((self.moving_combo, moving), (self.fixed_combo, fixed)):
            items = [(NONE_TEXT, None), *layers]
            with QSignalBlocker(combo):
                combo.clear()
                for text, data in items:
                    combo.addItem(text, data)
                found = [k for k, (_, data) in enumerate(items) if data is chosen]
                combo.setCurrentIndex(found[0] if found else 0)

    def show_running(self, running: bool, can_run: bool) -> None:
        """Enable what can be pressed now."""
        self.run_button.setEnabled(can_run and not running)
        self.stop_button.setEnabled(running)
        for widget in (self.moving_combo, self.fixed_combo, self.turn_box):
            widget.setEnabled(not running)
        if not running:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")

    def show_progress(self, step: int, steps: int, message: str) -> None:
        """Show how far it is."""
        self.bar.setRange(0, steps)
        self.bar.setValue(step)
        self.bar.setFormat(f"{step} of {steps}" if steps else "")
        self.text.show_text(message)

    def show_movable(self, can_move: bool, moved: bool) -> None:
        """Enable moving, and what needs a moved layer."""
        for spin in self.boxes.values():
            spin.setEnabled(can_move)
        self.apply_button.setEnabled(can_move and not moved)
        self.undo_button.setEnabled(moved)
        self.before_box.setEnabled(moved)
        if not moved:
            with QSignalBlocker(self.before_box):
                self.before_box.setChecked(False)

    def shift_um(self) -> tuple[float, float, float]:
        """Return what the boxes say."""
        z, y, x = (float(self.boxes[axis].value()) for axis in "zyx")
        return z, y, x

    def show_shift(self, shift_um: Sequence[float], step_um: Sequence[float] | None = None) -> None:
        """Show a shift, without telling that it was changed."""
        for k, spin in enumerate(self.boxes.values()):
            with QSignalBlocker(spin):
                if step_um is not None:
                    spin.setSingleStep(step_um[k])
                spin.setValue(round(shift_um[k], 4))
