"""The page of the *Train* panel for LFMNet, as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QComboBox

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import ModelForm
from napari_lfm.widgets.microscope_choice import MicroscopeBox
from napari_lfm.widgets.parts import section
from napari_lfm.widgets.train_input import SIZE_TEXTS, SPECIMEN_TEXTS, TrainSettings
from napari_lfm.widgets.train_page import TrainPage

_LABELS = {
    "specimen": "specimens",
    "z_min_um": f"lowest plane ({MICROMETRES})",
    "z_max_um": f"highest plane ({MICROMETRES})",
    "z_step_um": f"plane distance ({MICROMETRES})",
    "size": "network",
    "compare": "compare with Richardson-Lucy",
    "steps": "most steps",
}


class TrainView(TrainPage):
    """The microscope, the specimens and the network."""

    def _build(self) -> None:
        self._build_microscope()
        self._build_settings()

    def _build_microscope(self) -> None:
        box, layout = section("Microscope", "The optics that the network is made for")
        self.microscope = MicroscopeBox()
        layout.addWidget(self.microscope)
        self.white_box = QCheckBox("Use the white frame of the open light field")
        self.white_box.setToolTip(
            "Fit the light in the pupil to it: the network then learns your own optics, not ideal ones"
        )
        self.white_box.toggled.connect(lambda _: self.changed.emit())
        layout.addWidget(self.white_box)
        self._column.addWidget(box)

    def _build_settings(self) -> None:
        box, layout = section("Specimens, volume, network")
        self.form = ModelForm(TrainSettings, labels=_LABELS)
        for name, texts in (("specimen", SPECIMEN_TEXTS), ("size", SIZE_TEXTS)):
            combo = self.form.editor(name)
            assert isinstance(combo, QComboBox)
            for index in range(combo.count()):
                combo.setItemText(index, texts[combo.itemData(index)])
        self.form.changed.connect(self.changed)
        layout.addWidget(self.form)
        self._column.addWidget(box)

    def show_white(self, name: str) -> None:
        """Offer the white frame of this name, or none."""
        with QSignalBlocker(self.white_box):
            self.white_box.setVisible(bool(name))
            if not name:
                self.white_box.setChecked(False)
