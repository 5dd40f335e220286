"""The page of the *Train* panel for refocusing, as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.parts import WrappedLabel
from napari_lfm.widgets.train_refocus_input import RefocusSettings
from napari_lfm.widgets.train_stacks_view import (
    SizeBoxes,
    SourceBox,
    StacksPage,
    fill_combo,
    labelled_rows,
    with_label,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOURCES = (
    ("simulated", "simulated specimens"),
    ("layer", "a focal stack of this viewer"),
    ("files", "files of focal stacks"),
)
_SIMULATED = (
    "Beads, layers of cells, worm-like bodies full of nuclei, neurons and large soft bodies are drawn, and "
    "imaged plane by plane by a wide-field and a confocal microscope. The model's card says that no "
    "recording was used."
)
_OWN = (
    "One stack is enough to fine-tune a model; the last fifth of its columns is only compared with. z is the "
    "focus drive's, + as the planes' index rises."
)
_LABELS = {
    "range_um": f"largest distance ({MICROMETRES})",
    "reverse": "planes in falling order",
}
_TIP = "Only for stacks that do not say it themselves"


class FocalBox(SourceBox):
    """Where the focal stacks come from."""

    def __init__(self) -> None:
        super().__init__("From", _SOURCES)
        self.zone = DropZone("Drop focal stacks here", what="Open focal stacks")
        files, self.files_label = with_label(self.zone)
        self.own_text = WrappedLabel(_OWN)
        self.sizes = SizeBoxes({"step_um": ("plane distance", _TIP), "pixel_um": ("pixel", _TIP)})
        self.size_boxes = self.sizes.boxes
        parts = {"simulated": WrappedLabel(_SIMULATED), "layer": self._layers(), "files": files}
        self._lay_out(parts, self.own_text, self.sizes)

    def _layers(self) -> QWidget:
        self.layer_combo, self.confocal_combo = CalmComboBox(), CalmComboBox()
        self.confocal_combo.setToolTip(
            "A registered confocal stack of the same place and shape, for the confocal planes; none is needed"
        )
        for combo in (self.layer_combo, self.confocal_combo):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        out = QWidget()
        out.setLayout(labelled_rows(("Focal stack", self.layer_combo), ("Confocal", self.confocal_combo)))
        return out

    # -------------------------------------------------------------------- show
    def show_layers(self, names: Sequence[str], stack: str, confocal: str) -> None:
        """List the layers that could be stacks."""
        fill_combo(self.layer_combo, [(n, n) for n in names], stack)
        fill_combo(self.confocal_combo, [("none", ""), *((n, n) for n in names)], confocal)

    def show_files(self, paths: Sequence[str]) -> None:
        """Name the files that were chosen."""
        self.files_label.show_text("<br>".join(f"<i>{Path(p).name}</i>" for p in paths))


class RefocusTrainView(StacksPage):
    """Stacks, optics, start, losses, time."""

    def _build(self) -> None:
        self.stacks = FocalBox()
        self._build_source(
            "Focal stacks", "Planes of one place, at several distances of the focus drive", self.stacks
        )
        self.optics_combo = self._combo(
            "The objective, immersion and wavelength. The network is told them; for images of quite another "
            "objective the model is refused."
        )
        self.start_combo = self._combo(
            "For a stack of your own, 'one that fits' is the bundled model of the nearest objective. With "
            "simulated specimens it is none: random weights."
        )
        self._build_network(
            "Microscope and network",
            RefocusSettings,
            _LABELS,
            ("microscope", self.optics_combo),
            ("start from", self.start_combo),
        )
