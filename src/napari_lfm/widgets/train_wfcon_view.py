"""The page of the *Train* panel for WFCON-Net, as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox, ModelForm
from napari_lfm.widgets.parts import WrappedLabel, button, row, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.train_page import TrainPage
from napari_lfm.widgets.train_wfcon_input import WfconSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOURCES = (
    ("folder", "a folder"),
    ("layers", "layers of this viewer"),
    ("tissue", "simulated thick tissue"),
)
_TIMES = "\N{MULTIPLICATION SIGN}"
_TISSUE = (
    "Cell bodies, neurites and microglia in scattering, hazy tissue are drawn, and imaged by both "
    f"microscopes: 60{_TIMES}/1.4 oil, voxels of 0.5 {_TIMES} 0.108 {_TIMES} 0.108 {MICROMETRES}. The "
    "model's card says that no recording was used."
)
_LABELS = {
    "adversarial": "with a discriminator",
    "validation_share": "share to validate on",
    "patch_planes": "planes of a patch",
    "patch_px": "pixels of a patch",
    "steps": "most steps",
}
_SPACE = 5


class FolderZone(DropZone):
    """Takes the folder of pairs."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setToolTip("TIFF stacks, with equal names in its folders 'widefield' and 'confocal'")
        self.open_button.setText("Choose folder...")
        self.open_button.setToolTip("The folder that holds both")

    def ask(self) -> None:
        """Let the user choose the folder in a dialog."""
        name = QFileDialog.getExistingDirectory(self, "Folder of pairs")
        if name:
            self.files_chosen.emit([Path(name)])


class PairsBox(QWidget):
    """Where the pairs come from."""

    changed = Signal()
    source_chosen = Signal(str)
    add_clicked = Signal()
    remove_clicked = Signal(int)

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
        layout.addLayout(row(QLabel("Pairs from"), self.source_combo, stretch=1))
        self.parts = {"folder": self._folder(), "layers": self._layers(), "tissue": WrappedLabel(_TISSUE)}
        for part in self.parts.values():
            layout.addWidget(part)
        self.sizes = self._sizes()
        layout.addWidget(self.sizes)
        self.register_box = QCheckBox("Register every pair first")
        self.register_box.setChecked(True)
        self.register_box.setToolTip(
            "Find how far the two stacks are shifted, in two ways; where these contradict each other the "
            "pair is left out. Turn it off for pairs that lie on each other already."
        )
        self.register_box.toggled.connect(lambda _: self.changed.emit())
        layout.addWidget(self.register_box)
        self.show_source("folder")

    def _folder(self) -> QWidget:
        out, layout = _column()
        self.zone = FolderZone("Drop a folder with 'widefield' and 'confocal' stacks here")
        self.folder_label = WrappedLabel()
        layout.addWidget(self.zone)
        layout.addWidget(self.folder_label)
        return out

    def _layers(self) -> QWidget:
        out, layout = _column()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.wide_combo, self.confocal_combo = CalmComboBox(), CalmComboBox()
        form.addRow("Wide field", self.wide_combo)
        form.addRow("Confocal", self.confocal_combo)
        layout.addLayout(form)
        self.add_button = button("Add pair", "Take these two layers as a pair", self.add_clicked.emit)
        self.remove_button = button("Remove", "Take the marked pair out of the list", self._remove)
        layout.addLayout(row(self.add_button, self.remove_button))
        self.pair_list = QListWidget()
        self.pair_list.setMaximumHeight(96)
        self.pair_list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.pair_list.currentRowChanged.connect(lambda k: self.remove_button.setEnabled(k >= 0))
        layout.addWidget(self.pair_list)
        return out

    def _sizes(self) -> QWidget:
        out, column = _column()
        column.addWidget(QLabel("Voxel size, where a stack does not say"))
        layout = QFormLayout()  # side by side they would make the panel wider
        layout.setContentsMargins(0, 0, 0, 0)
        column.addLayout(layout)
        self.size_boxes: list[CalmDoubleSpinBox] = []
        for axis in "zyx":
            box = CalmDoubleSpinBox()
            box.setRange(0.0, 1000.0)
            box.setDecimals(4)
            box.setSpecialValueText("?")
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setToolTip(f"Along {axis}, {MICROMETRES}; only for stacks that do not say it themselves")
            box.valueChanged.connect(lambda _: self.changed.emit())
            self.size_boxes.append(box)
            what = "plane distance" if axis == "z" else f"pixel along {axis}"
            layout.addRow(f"{what} ({MICROMETRES})", box)
        out.setVisible(False)
        return out

    def _remove(self) -> None:
        if self.pair_list.currentRow() >= 0:
            self.remove_clicked.emit(self.pair_list.currentRow())

    # -------------------------------------------------------------------- show
    def show_source(self, source: str) -> None:
        """Show the fields of a source."""
        with QSignalBlocker(self.source_combo):
            self.source_combo.setCurrentIndex(self.source_combo.findData(source))
        for key, part in self.parts.items():
            part.setVisible(key == source)
        self.register_box.setVisible(source != "tissue")
        if source == "tissue":
            self.sizes.setVisible(False)

    def show_layers(self, names: Sequence[str], wide: str, confocal: str) -> None:
        """List the layers that could be stacks."""
        for combo, chosen in ((self.wide_combo, wide), (self.confocal_combo, confocal)):
            with QSignalBlocker(combo):
                combo.clear()
                combo.addItems(list(names))
                combo.setCurrentIndex(max(0, combo.findText(chosen)))
        self.add_button.setEnabled(len(names) > 1)

    def show_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """List the pairs of layers."""
        self.pair_list.clear()
        for wide, confocal in pairs:
            self.pair_list.addItem(f"{wide} \N{RIGHTWARDS ARROW} {confocal}")
        self.pair_list.setVisible(bool(pairs))
        self.remove_button.setEnabled(self.pair_list.currentRow() >= 0)

    @property
    def voxel_um(self) -> tuple[float, float, float] | None:
        """The voxel size that was entered, None until all three are."""
        z, y, x = (box.value() for box in self.size_boxes)
        return (z, y, x) if min(z, y, x) > 0 else None

    def show_sizes(self, wanted: bool) -> None:
        """Ask for voxel sizes; what was entered stays in sight."""
        entered = any(box.value() > 0 for box in self.size_boxes)
        self.sizes.setVisible((wanted or entered) and self.source_combo.currentData() != "tissue")


class WfconView(TrainPage):
    """Pairs, start, losses, time."""

    vgg_wanted = Signal()

    def _build(self) -> None:
        box, layout = section("Pairs", "Wide-field and confocal stacks of the same places")
        self.pairs = PairsBox()
        self.pairs.changed.connect(self.changed)
        layout.addWidget(self.pairs)
        self._column.addWidget(box)
        box, layout = section("Network")
        self.form = ModelForm(WfconSettings, labels=_LABELS)
        self.form.changed.connect(self.changed)
        self.start_combo = CalmComboBox()
        self.start_combo.setToolTip(
            "Going on from a model that knows such stacks takes less time and fewer pairs. 'One that fits' "
            "is the bundled model for such voxels; without it, and for 'nothing', weights are random."
        )
        self.start_combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.microscope_combo = CalmComboBox()
        self.microscope_combo.setToolTip(
            "The wide-field optics, for the model's card: it is then refused for stacks of another objective"
        )
        self.microscope_combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.vgg_line = QLineEdit()
        self.vgg_line.setPlaceholderText("torchvision's, if it is installed")
        self.vgg_line.setToolTip(
            "File (npz or safetensors) with weights of VGG16, for the loss that compares how slices look. "
            "Without any this loss is left out."
        )
        self.vgg_line.editingFinished.connect(self.changed.emit)
        self.vgg_button = button("File...", "Choose the file with VGG16 weights", self.vgg_wanted.emit)
        layout.addWidget(self.form)
        more = QFormLayout()
        more.setContentsMargins(0, 0, 0, 0)
        more.addRow("start from", self.start_combo)
        more.addRow("VGG16 weights", row(self.vgg_line, self.vgg_button, stretch=0))
        more.addRow("microscope", self.microscope_combo)
        layout.insertLayout(0, more)
        self._column.addWidget(box)

    # -------------------------------------------------------------------- show
    def show_starts(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, key) of what the training can begin with."""
        _fill(self.start_combo, entries, chosen)

    def show_microscopes(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, name) of microscopes."""
        _fill(self.microscope_combo, entries, chosen)

    def show_vgg(self, path: str) -> None:
        """Show the file with VGG16 weights."""
        self.vgg_line.setText(path)
        self.changed.emit()

    def show_discriminator(self, used: bool) -> None:
        """Offer what belongs to the adversarial training only where it is wanted."""
        for widget in (self.vgg_line, self.vgg_button):
            widget.setEnabled(used)


def _column() -> tuple[QWidget, QVBoxLayout]:
    out = QWidget()
    layout = QVBoxLayout(out)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(_SPACE)
    return out, layout


def _fill(combo: CalmComboBox, entries: Sequence[tuple[str, str]], chosen: str) -> None:
    with QSignalBlocker(combo):
        combo.clear()
        for text, key in entries:
            combo.addItem(text, key)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))
