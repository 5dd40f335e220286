"""The input of stack methods as seen: a place to drop files, the stack, its voxel size, PSF, microscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox
from napari_lfm.widgets.microscope_choice import MicroscopeBox
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_STACK = "(choose a stack)"
MODEL_PSF = "model from the objective"
AXES = ("z", "y", "x")


def fill(combo: CalmComboBox, none: str, layers: Sequence[tuple[str, object]], chosen: object) -> None:
    """Fill a list with a line for none and (name, layer) pairs; mark the chosen one."""
    with QSignalBlocker(combo):
        combo.clear()
        combo.addItem(none, None)
        for name, layer in layers:
            combo.addItem(name, layer)
            if layer is chosen:
                combo.setCurrentIndex(combo.count() - 1)


class StackBox(QWidget):
    """Which stack, how large its voxels are, what blurred it.

    Parameters
    ----------
    parent : QWidget, optional
    apart : bool
        What blurred it is shown elsewhere: `psf` and `microscope` are laid out by the caller.
    """

    stack_chosen = Signal(object)
    psf_chosen = Signal(object)
    psf_file_wanted = Signal()
    voxels_entered = Signal(object)

    def __init__(self, parent: QWidget | None = None, apart: bool = False) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(5)
        self.drop_zone = DropZone("Drop your stack here", what="Open a stack")
        layout.addWidget(self.drop_zone)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.combo = CalmComboBox()
        self.combo.setToolTip(
            "The planes (z, y, x) that the microscope took; also movies and channels of them"
        )
        self.combo.activated.connect(lambda i: self.stack_chosen.emit(self.combo.itemData(i)))
        form.addRow("Stack", self.combo)
        layout.addLayout(form)
        self.words = WrappedLabel()
        layout.addWidget(self.words)
        self.size_button = button(
            "Change the voxel size...", "Where the file says it wrongly", self._show_sizes
        )
        layout.addWidget(self.size_button)
        self.sizes = self._build_sizes()
        layout.addWidget(self.sizes)
        self._build_psf()
        self.microscope = MicroscopeBox()
        self.microscope.combo.setToolTip(
            "Its objective and wavelength count; a light-field microscope does as well as a wide-field one"
        )
        self.microscope.wizard_button.setVisible(False)  # it asks for a lenslet array
        if not apart:
            layout.addWidget(self.psf)
            layout.addWidget(QLabel("Microscope"))
            layout.addWidget(self.microscope)
        self.setVisible(False)

    def _build_psf(self) -> None:
        self.psf = QWidget()
        layout = QVBoxLayout(self.psf)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.psf_row = QWidget()
        psf_form = QFormLayout(self.psf_row)
        psf_form.setContentsMargins(0, 0, 0, 0)
        self.psf_combo = CalmComboBox()
        self.psf_combo.setToolTip(
            "The image of one point. Computed from the objective, or a bead that you recorded with it: "
            "a small stack, as a layer or a file."
        )
        self.psf_combo.activated.connect(lambda i: self.psf_chosen.emit(self.psf_combo.itemData(i)))
        self.psf_button = button("File...", "Open a recorded point spread function (bead)")
        self.psf_button.clicked.connect(lambda: self.psf_file_wanted.emit())
        psf_form.addRow("PSF", row(self.psf_combo, self.psf_button, stretch=0))
        layout.addWidget(self.psf_row)
        self.psf_words = WrappedLabel()
        layout.addWidget(self.psf_words)

    def _build_sizes(self) -> QWidget:
        out = QWidget()
        form = QFormLayout(out)  # side by side they would be cut off in a narrow panel
        form.setContentsMargins(0, 0, 0, 0)
        self.size_boxes: dict[str, CalmDoubleSpinBox] = {}
        for axis in AXES:
            box = CalmDoubleSpinBox()
            box.setRange(0.0, 1000.0)
            box.setSpecialValueText("?")
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            what = "Distance of the planes" if axis == "z" else f"Pixel in the sample along {axis}"
            box.setToolTip(f"{what}, {MICROMETRES}")
            box.valueChanged.connect(lambda _: self._entered())
            self.size_boxes[axis] = box
            form.addRow(f"{axis} ({MICROMETRES})", box)
        out.setVisible(False)
        return out

    def _entered(self) -> None:
        self.voxels_entered.emit({axis: box.value() for axis, box in self.size_boxes.items()})

    def _show_sizes(self) -> None:
        self.sizes.setVisible(True)
        self.size_button.setVisible(False)

    # -------------------------------------------------------------------- show
    def show_sizes(self, voxels: Mapping[str, float], axes: Sequence[str], ask: bool) -> None:
        """Show the voxel size of the stack's axes; `ask` opens the boxes, 0 is not known."""
        if ask:
            self._show_sizes()
        elif not self.sizes.isVisible():
            self.size_button.setVisible(bool(axes))
        for axis, box in self.size_boxes.items():
            box.setEnabled(axis in axes)
            with QSignalBlocker(box):
                box.setValue(voxels.get(axis, 0.0))

    def fold_sizes(self) -> None:
        """Put the boxes away: another stack has been chosen."""
        self.sizes.setVisible(False)
        self.size_button.setVisible(False)
