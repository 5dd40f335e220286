"""Where the blur along z is taken from, as seen: the stack, a microscope, a measured PSF, or by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox
from napari_lfm.widgets.parts import WrappedLabel, row
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from napari_lfm.widgets.isotropic_input import Blur
    from napari_lfm.widgets.stack_view import StackBox

BLUR_TIP = (
    "What blurs the stack along z more than along x and y: planes are blurred by it, and the network learns "
    "to undo that"
)
_BLURS = (
    ("estimate", "estimated from the stack"),
    ("microscope", "the microscope's"),
    ("measured", "of a measured PSF"),
    ("hand", "entered by hand"),
)


class BlurBox(QWidget):
    """The source of the blur, what belongs to it, and the figure that follows.

    Parameters
    ----------
    stack : StackBox
        Whose microscope and point spread function are shown here.
    """

    changed = Signal()

    def __init__(self, stack: StackBox) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.combo = CalmComboBox()
        self.combo.setToolTip(BLUR_TIP)
        self.combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for key, text in _BLURS:
            self.combo.addItem(text, key)
        self.combo.currentIndexChanged.connect(lambda _: self._chosen())
        layout.addWidget(self.combo)
        self.sigma_box = CalmDoubleSpinBox()
        self.sigma_box.setRange(0.0, 100.0)
        self.sigma_box.setDecimals(3)
        self.sigma_box.setSpecialValueText("?")
        self.sigma_box.setSuffix(f" {MICROMETRES}")
        self.sigma_box.setToolTip(
            "Standard deviation: the square root of (that along z squared, less that along x squared). "
            "A full width at half maximum is 2.35 of them."
        )
        self.sigma_box.valueChanged.connect(lambda _: self.changed.emit())
        self.hand_row = QWidget()
        self.hand_row.setLayout(row(QLabel("Standard deviation"), self.sigma_box, stretch=1))
        self._parts = {"microscope": stack.microscope, "measured": stack.psf, "hand": self.hand_row}
        self.text = WrappedLabel()
        for part in (*self._parts.values(), self.text):
            layout.addWidget(part)
        self._show()

    @property
    def source(self) -> Blur:
        """Where the blur is taken from."""
        return cast("Blur", self.combo.currentData())

    @property
    def values(self) -> tuple[Blur, float]:
        """The source, and what is entered by hand (um)."""
        return self.source, self.sigma_box.value()

    def choose(self, source: Blur) -> None:
        """Take the blur from there."""
        self.combo.setCurrentIndex(self.combo.findData(source))

    def _chosen(self) -> None:
        self._show()
        self.text.show_text("")
        self.changed.emit()

    def _show(self) -> None:
        for key, part in self._parts.items():
            part.setVisible(key == self.source)
