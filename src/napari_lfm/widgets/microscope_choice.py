"""Choosing the session's microscope: the same box in every panel that needs one, and what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError
from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names
from napari_lfm.widgets.form import CalmComboBox
from napari_lfm.widgets.microscope_dialog import editor_dialog, wizard_dialog
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.texts import microscope_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.widgets.panel import Panel


class MicroscopeBox(QWidget):
    """The list of microscopes, the chosen one in words, and the ways to another one."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.combo = CalmComboBox()
        self.combo.setToolTip("Published light-field microscopes, and your own")
        self.combo.activated.connect(lambda index: self.chosen.emit(self.combo.itemData(index) or ""))
        layout.addWidget(self.combo)
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        self.edit_button = button("Edit...", "Change any figure of this microscope, and save it as your own")
        self.wizard_button = button(
            "From data sheet...", "Enter what is printed on your objective and in your array's data sheet"
        )
        layout.addLayout(row(self.edit_button, self.wizard_button))

    def show_microscopes(self, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]], chosen: str) -> None:
        """Fill the list: groups of (text, name), with a line between groups."""
        with QSignalBlocker(self.combo):
            self.combo.clear()
            self.combo.addItem("Choose your microscope", "")
            for tip, entries in groups:
                if not entries:
                    continue
                self.combo.insertSeparator(self.combo.count())
                for text, name in entries:
                    self.combo.addItem(text, name)
                    self.combo.setItemData(self.combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
                    if name == chosen:
                        self.combo.setCurrentIndex(self.combo.count() - 1)


class MicroscopeChoice:
    """Connects the box with the session.

    Parameters
    ----------
    panel : Panel
    box : MicroscopeBox
    follow : callable
        Called after a microscope came out of a dialog, also where the session had it already.
    lightfield_only : bool
        List microscopes with lenslets only; else the wide-field ones come first.
    """

    def __init__(
        self,
        panel: Panel,
        box: MicroscopeBox,
        follow: Callable[[], None],
        lightfield_only: bool = True,
    ) -> None:
        self.session, self.box, self._follow = panel.session, box, follow
        self._lightfield_only = lightfield_only
        box.chosen.connect(self.choose)
        box.edit_button.clicked.connect(self._edit)
        box.wizard_button.clicked.connect(self._new)

    def choose(self, name: str) -> None:
        """Use a preset, one of the user's own, or a file; every panel follows."""
        if self.session.microscope is not None and self.session.microscope.name == name:
            return
        try:
            self.session.set_microscope(load_microscope(name) if name else None)
        except LfmError as error:
            self.box.text.show_problems([error.problem()])

    def choose_default(self) -> None:
        """Use the microscope of the settings where the session has none."""
        default = load_settings().microscope
        if default and self.session.microscope is None:
            self.choose(default)

    def show(self) -> None:
        """List what there is, and say what is chosen."""
        own = [(name, name) for name in user_microscope_names()]
        names = preset_names(lightfield_only=self._lightfield_only)
        if not self._lightfield_only:
            with_lenslets = preset_names(lightfield_only=True)
            names = tuple(sorted(names, key=lambda name: name in with_lenslets))
        presets = [(name, name) for name in names]
        chosen = self.session.microscope
        groups = [("Your own microscope", own), ("A published microscope", presets)]
        if chosen is not None and (chosen.name, chosen.name) not in own + presets:
            groups.insert(0, ("In this session only", [(f"{chosen.name} (this session)", chosen.name)]))
        self.box.show_microscopes(groups, "" if chosen is None else chosen.name)
        self.box.text.show_text(
            microscope_line(chosen)
            if chosen is not None
            else "Not in the list? Enter yours with 'From data sheet...'."
            if self._lightfield_only
            else "Not in the list? Take the nearest and change it with 'Edit...'."
        )

    def _use(self, microscope: Microscope) -> None:
        self.session.set_microscope(microscope)
        self._follow()  # also where it was only saved under its name

    def _edit(self) -> None:
        dialog = editor_dialog(self.session.microscope, self.box)
        dialog.accepted_microscope.connect(self._use)
        dialog.open()

    def _new(self) -> None:
        lattice = self.session.lattice
        dialog = wizard_dialog(None if lattice is None else float(np.mean(lattice.pitch_px)), self.box)
        dialog.accepted_microscope.connect(self._use)
        dialog.open()
