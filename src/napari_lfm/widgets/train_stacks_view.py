"""What the *Train* panel's pages for trainings on stacks have in common, as seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QLabel, QLayout, QSizePolicy, QVBoxLayout, QWidget

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox, ModelForm
from napari_lfm.widgets.parts import WrappedLabel, row, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.train_page import TrainPage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from napari_lfm.widgets.drop_zone import DropZone

_LABELS = {
    "adversarial": "with a discriminator",
    "patch_px": "pixels of a patch",
    "steps": "most steps",
}


def column(widget: QWidget) -> QVBoxLayout:
    """Return a layout of a widget, for others below each other."""
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(5)
    return layout


def labelled_rows(*rows: tuple[str, QWidget | QLayout]) -> QFormLayout:
    """Return rows with a label each."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for text, field in rows:
        layout.addRow(text, field)
    return layout


def with_label(zone: DropZone) -> tuple[QWidget, WrappedLabel]:
    """Return a widget with a drop zone, and the label below it that names what was dropped."""
    out, label = QWidget(), WrappedLabel()
    layout = column(out)
    layout.addWidget(zone)
    layout.addWidget(label)
    return out, label


def fill_combo(combo: CalmComboBox, entries: Sequence[tuple[str, str]], chosen: str) -> None:
    """Fill a list with (text, key), without a word to who listens."""
    with QSignalBlocker(combo):
        combo.clear()
        for text, key in entries:
            combo.addItem(text, key)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))


class SizeBoxes(QWidget):
    """Asks for sizes in micrometres, for stacks that do not say them.

    Parameters
    ----------
    fields : mapping
        Key to (label, tooltip).
    title : str, optional
    """

    changed = Signal()

    def __init__(self, fields: Mapping[str, tuple[str, str]], title: str = "") -> None:
        super().__init__()
        layout = column(self)
        if title:
            layout.addWidget(QLabel(title))
        form = labelled_rows()  # side by side they would make the panel wider
        layout.addLayout(form)
        self.boxes: dict[str, CalmDoubleSpinBox] = {}
        for key, (text, tip) in fields.items():
            box = CalmDoubleSpinBox()
            box.setRange(0.0, 1000.0)
            box.setDecimals(4)
            box.setSpecialValueText("?")
            box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            box.setToolTip(tip)
            box.valueChanged.connect(lambda _: self.changed.emit())
            self.boxes[key] = box
            form.addRow(f"{text} ({MICROMETRES})", box)
        self.setVisible(False)

    @property
    def any_entered(self) -> bool:
        """Whether one of them is not left open."""
        return any(box.value() > 0 for box in self.boxes.values())


class SourceBox(QWidget):
    """Where the stacks come from; subclasses lay out the fields of each source.

    Parameters
    ----------
    text : str
        Label of the list of sources.
    sources : sequence of (key, text)
    """

    changed = Signal()
    source_chosen = Signal(str)
    simulated = "simulated"
    """Key of the source that needs no data of the user."""
    sizes: SizeBoxes

    def __init__(self, text: str, sources: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._layout = column(self)
        self.source_combo = CalmComboBox()
        fill_combo(self.source_combo, [(label, key) for key, label in sources], "")
        self.source_combo.currentIndexChanged.connect(
            lambda _: self.source_chosen.emit(self.source_combo.currentData())
        )
        self._layout.addLayout(row(QLabel(text), self.source_combo, stretch=1))

    def _lay_out(self, parts: Mapping[str, QWidget], *own: QWidget) -> None:
        """Add the fields of each source, and below them what goes with all data of the user, `sizes` too."""
        self.parts, self._own = parts, own
        for widget in (*parts.values(), *own):
            self._layout.addWidget(widget)
        self.sizes.changed.connect(self.changed)
        self.show_source(self.source_combo.currentData())

    def show_source(self, source: str) -> None:
        """Show the fields of a source."""
        with QSignalBlocker(self.source_combo):
            self.source_combo.setCurrentIndex(self.source_combo.findData(source))
        for key, part in self.parts.items():
            part.setVisible(key == source)
        simulated = source == self.simulated
        for widget in self._own:
            if simulated or widget is not self.sizes:  # they are shown when they are asked for
                widget.setVisible(not simulated)

    def show_sizes(self, wanted: bool) -> None:
        """Ask for voxel sizes; what was entered stays in sight."""
        own = self.source_combo.currentData() != self.simulated
        self.sizes.setVisible((wanted or self.sizes.any_entered) and own)


class StacksPage(TrainPage):
    """Stacks, optics, the weights to start from, and the form; subclasses say which."""

    start_combo: CalmComboBox
    optics_combo: CalmComboBox

    def _build_source(self, title: str, tooltip: str, source: SourceBox) -> None:
        box, layout = section(title, tooltip)
        source.changed.connect(self.changed)
        layout.addWidget(source)
        self._column.addWidget(box)

    def _combo(self, tooltip: str) -> CalmComboBox:
        combo = CalmComboBox()
        combo.setToolTip(tooltip)
        combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        return combo

    def _build_network(
        self,
        title: str,
        settings: type[BaseModel],
        labels: Mapping[str, str],
        *rows: tuple[str, QWidget | QLayout],
    ) -> None:
        """Add rows, and the form of the settings below them."""
        box, layout = section(title)
        self.form = ModelForm(settings, labels={**_LABELS, **labels})
        self.form.changed.connect(self.changed)
        layout.addLayout(labelled_rows(*rows))
        layout.addWidget(self.form)
        self._column.addWidget(box)

    # -------------------------------------------------------------------- show
    def show_starts(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, key) of what the training can begin with."""
        fill_combo(self.start_combo, entries, chosen)

    def show_optics(self, entries: Sequence[tuple[str, str]], chosen: str) -> None:
        """List (text, key) of microscopes, and maybe objectives."""
        fill_combo(self.optics_combo, entries, chosen)
