"""The page of the *Train* panel for refocusing, as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox, ModelForm
from napari_lfm.widgets.parts import WrappedLabel, row, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.train_page import TrainPage
from napari_lfm.widgets.train_refocus_input import RefocusSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOURCES = (
    ("simulated", "simulated specimens"),
    ("layer", "a focal stack of this viewer"),
    ("files", "files of focal stacks"),
)
_SIMULATED = (
    "Beads, worm-like bodies full of nuclei, and neurons are drawn, and imaged plane by plane by a "
    "wide-field and a confocal microscope. The model's card says that no recording was used."
)
_OWN = (
    "One stack is enough to fine-tune a model; the last fifth of its columns is only compared with. z is the "
    "focus drive's, + as the planes' index rises."
)
_LABELS = {
    "range_um": f"largest distance ({MICROMETRES})",
    "adversarial": "with a discriminator",
    "reverse": "planes in falling order",
    "patch_px": "pixels of a patch",
    "steps": "most steps",
}
_SPACE = 5


class FocalBox(QWidget):
    """Where the focal stacks come from."""

    changed = Signal()
    source_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(_SPACE)
        self.source_combo = CalmComboBox()
        for key, text in _SOURCES:
            self.source_combo.addItem(text, key)
        self.source_combo.currentIndexChanged.connect(
            lambda _: self.source_chosen.emit(self.source_combo.currentData())
        )
        layout.addLayout(row(QLabel("From"), self.source_combo, stretch=1))
        self.parts = {"simulated": WrappedLabel(_SIMULATED), "layer": self._layers(), "files": self._files()}
        for part in self.parts.values():
            layout.addWidget(part)
        self.own_text = WrappedLabel(_OWN)
        layout.addWidget(self.own_text)
        self.sizes = self._sizes()
        layout.addWidget(self.sizes)
        self.show_source("simulated")

    def _layers(self) -> QWidget:
        out = QWidget()
        form = QFormLayout(out)
        form.setContentsMargins(0, 0, 0, 0)
        self.layer_combo, self.confocal_combo = CalmComboBox(), CalmComboBox()
        self.confocal_combo.setToolTip(
            "A registered confocal stack of the same place and shape, for the confocal planes; none is needed"
        )
        for combo in (self.layer_combo, self.confocal_combo):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        form.addRow("Focal stack", self.layer_combo)
        form.addRow("Confocal", self.confocal_combo)
        return out

    def _files(self) -> QWidget:
        out = QWidget()
        layout = QVBoxLayout(out)
        layout.setContentsMargins(0, 0, 0, 0)
        self.zone = DropZone("Drop focal stacks here", what="Open focal stacks")
        self.files_label = WrappedLabel()
        layout.addWidget(self.zone)
        layout.addWidget(self.files_label)
        return out

    def _sizes(self) -> QWidget:
        out = QWidget()
        layout = QFormLayout(out)
        layout.setContentsMargins(0, 0, 0, 0)
        self.size_boxes: dict[str, CalmDoubleSpinBox] = {}
        for key, text in (("step_um", "plane distance"), ("pixel_um", "pixel")):
            box = CalmDoubleSpinBox()
            box.setRange(0.0, 1000.0)
            box.setDecimals(4)
            box.setSpecialValueText("?")
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setToolTip("Only for stacks that do not say it themselves")
            box.valueChanged.connect(lambda _: self.changed.emit())
            self.size_boxes[key] = box
            layout.addRow(f"{text} ({MICROMETRES})", box)
        out.setVisible(False)
        return out

    # -------------------------------------------------------------------- show
    def show_source(self, source: str) -> None:
        """Show the fields of a source."""
        with QSignalBlocker(self.source_combo):
            self.source_combo.setCurrentIndex(self.source_combo.findData(source))
        for key, part in self.parts.items():
            part.setVisible(key == source)
        self.own_text.setVisible(source != "simulated")
        if source == "simulated":
            self.sizes.setVisible(False)

    def show_layers(self, names: Sequence[str], stack: str, confocal: str) -> None:
        """List the layers that could be stacks."""
        fill_combo(self.layer_combo, [(n, n) for n in names], stack)
        fill_combo(self.confocal_combo, [("none", ""), *((n, n) for n in names)], confocal)

    def show_files(self, paths: Sequence[str]) -> None:
        """Name the files that were chosen."""
        self.files_label.show_text("<br>".join(f"<i>{Path(p).name}</i>" for p in paths))

    def show_sizes(self, wanted: bool) -> None:
        """Ask for voxel sizes; what was entered stays in sight."""
        entered = any(box.value() > 0 for box in self.size_boxes.values())
        self.sizes.setVisible((wanted or entered) and self.source_combo.currentData() != "simulated")


class RefocusTrainView(TrainPage):
    """Stacks, optics, start, losses, time."""

    def _build(self) -> None:
        box, layout = section("Focal stacks", "Planes of one place, at several distances of the focus drive")
        self.stacks = FocalBox()
        self.stacks.changed.connect(self.changed)
        layout.addWidget(self.stacks)
        self._column.addWidget(box)
        box, layout = section("Microscope and network")
        self.form = ModelForm(RefocusSettings, labels=_LABELS)
        self.form.changed.connect(self.changed)
        self.optics_combo = CalmComboBox()
        self.optics_combo.setToolTip(
            "The objective, immersion and wavelength. The network is told them; for images of quite another "
            "objective the model is refused."
        )
        self.start_combo = CalmComboBox()
        self.start_combo.setToolTip(
            "For a stack of your own, 'one that fits' is the bundled model of the nearest objective. With "
            "simulated specimens it is none: random weights."
        )
        for combo in (self.optics_combo, self.start_combo):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        more = QFormLayout()
        more.setContentsMargins(0, 0, 0, 0)
        more.addRow("microscope", self.optics_combo)
        more.addRow("start from", self.start_combo)
        layout.addLayout(more)
        layout.addWidget(self.form)
        self._column.addWidget(box)

    # -------------------------------------------------------------------- show
    def show_starts(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, key) of what the training can begin with."""
        fill_combo(self.start_combo, entries, chosen)

    def show_optics(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, key) of objectives and microscopes."""
        fill_combo(self.optics_combo, entries, chosen)


def fill_combo(combo: CalmComboBox, entries: Sequence[tuple[str, str]], chosen: str) -> None:
    """Fill a list, without a word to who listens."""
    with QSignalBlocker(combo):
        combo.clear()
        for text, key in entries:
            combo.addItem(text, key)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))
