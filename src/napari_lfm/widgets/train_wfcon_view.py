"""The page of the *Train* panel for WFCON-Net, as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QListWidget, QWidget

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.train_stacks_view import (
    SizeBoxes,
    SourceBox,
    StacksPage,
    column,
    fill_combo,
    labelled_rows,
    with_label,
)
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
    "validation_share": "share to validate on",
    "patch_planes": "planes of a patch",
}
_SIZES = {"z": "plane distance", "y": "pixel along y", "x": "pixel along x"}


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


class PairsBox(SourceBox):
    """Where the pairs come from."""

    add_clicked = Signal()
    remove_clicked = Signal(int)
    simulated = "tissue"

    def __init__(self) -> None:
        super().__init__("Pairs from", _SOURCES)
        self.zone = FolderZone("Drop a folder with 'widefield' and 'confocal' stacks here")
        folder, self.folder_label = with_label(self.zone)
        tip = f"{MICROMETRES}; only for stacks that do not say it themselves"
        self.sizes = SizeBoxes(
            {axis: (what, f"Along {axis}, {tip}") for axis, what in _SIZES.items()},
            title="Voxel size, where a stack does not say",
        )
        self.size_boxes = list(self.sizes.boxes.values())
        self.register_box = QCheckBox("Register every pair first")
        self.register_box.setChecked(True)
        self.register_box.setToolTip(
            "Find how far the two stacks are shifted, in two ways; where these contradict each other the "
            "pair is left out. Turn it off for pairs that lie on each other already."
        )
        self.register_box.toggled.connect(lambda _: self.changed.emit())
        parts = {"folder": folder, "layers": self._layers(), "tissue": WrappedLabel(_TISSUE)}
        self._lay_out(parts, self.sizes, self.register_box)

    def _layers(self) -> QWidget:
        out = QWidget()
        layout = column(out)
        self.wide_combo, self.confocal_combo = CalmComboBox(), CalmComboBox()
        layout.addLayout(labelled_rows(("Wide field", self.wide_combo), ("Confocal", self.confocal_combo)))
        self.add_button = button("Add pair", "Take these two layers as a pair", self.add_clicked.emit)
        self.remove_button = button("Remove", "Take the marked pair out of the list", self._remove)
        layout.addLayout(row(self.add_button, self.remove_button))
        self.pair_list = QListWidget()
        self.pair_list.setMaximumHeight(96)
        self.pair_list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.pair_list.currentRowChanged.connect(lambda k: self.remove_button.setEnabled(k >= 0))
        layout.addWidget(self.pair_list)
        return out

    def _remove(self) -> None:
        if self.pair_list.currentRow() >= 0:
            self.remove_clicked.emit(self.pair_list.currentRow())

    # -------------------------------------------------------------------- show
    def show_layers(self, names: Sequence[str], wide: str, confocal: str) -> None:
        """List the layers that could be stacks."""
        for combo, chosen in ((self.wide_combo, wide), (self.confocal_combo, confocal)):
            fill_combo(combo, [(name, name) for name in names], chosen)
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


class WfconView(StacksPage):
    """Pairs, start, losses, time."""

    vgg_wanted = Signal()

    def _build(self) -> None:
        self.pairs = PairsBox()
        self._build_source("Pairs", "Wide-field and confocal stacks of the same places", self.pairs)
        self.start_combo = self._combo(
            "Going on from a model that knows such stacks takes less time and fewer pairs. 'One that fits' "
            "is the bundled model for such voxels; without it, and for 'nothing', weights are random."
        )
        self.optics_combo = self._combo(
            "The wide-field optics, for the model's card: it is then refused for stacks of another objective"
        )
        self.vgg_line = QLineEdit()
        self.vgg_line.setPlaceholderText("torchvision's, if it is installed")
        self.vgg_line.setToolTip(
            "File (npz or safetensors) with weights of VGG16, for the loss that compares how slices look. "
            "Without any this loss is left out."
        )
        self.vgg_line.editingFinished.connect(self.changed.emit)
        self.vgg_button = button("File...", "Choose the file with VGG16 weights", self.vgg_wanted.emit)
        self._build_network(
            "Network",
            WfconSettings,
            _LABELS,
            ("start from", self.start_combo),
            ("VGG16 weights", row(self.vgg_line, self.vgg_button, stretch=0)),
            ("microscope", self.optics_combo),
        )

    # -------------------------------------------------------------------- show
    def show_vgg(self, path: str) -> None:
        """Show the file with VGG16 weights."""
        self.vgg_line.setText(path)
        self.changed.emit()

    def show_discriminator(self, used: bool) -> None:
        """Offer what belongs to the adversarial training only where it is wanted."""
        for widget in (self.vgg_line, self.vgg_button):
            widget.setEnabled(used)
