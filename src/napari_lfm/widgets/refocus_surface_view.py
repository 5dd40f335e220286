"""The *Surface* box of the *Refocus* panel: which surface, its points, its heights, its look in 3-D."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QGroupBox,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox
from napari_lfm.widgets.parts import WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

KINDS = (
    ("Plane", "plane"),
    ("Tilted plane", "tilt"),
    ("Through points (tilted or curved)", "points"),
    ("Height map (an image layer)", "map"),
)
_ROWS = 4


class SurfaceBox(QGroupBox):
    """Shows values and tells what was clicked, no more."""

    changed = Signal()
    kind_chosen = Signal(str)
    points_chosen = Signal(object)
    map_chosen = Signal(object)
    height_typed = Signal(int, float)
    point_deleted = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("3  Surface", parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 12, 8, 8)
        layout.setSpacing(5)
        self.kind_combo = CalmComboBox()
        for title, name in KINDS:
            self.kind_combo.addItem(title, name)
        self.kind_combo.setToolTip("What is brought into focus at once")
        self.kind_combo.activated.connect(lambda k: self._choose(self.kind_combo.itemData(k)))
        layout.addWidget(self.kind_combo)
        self.pages: dict[str, QWidget] = {
            "plane": self._plane_page(),
            "tilt": self._tilt_page(),
            "points": self._points_page(),
            "map": self._map_page(),
        }
        for page in self.pages.values():
            layout.addWidget(page)
        self.heights = WrappedLabel()
        layout.addWidget(self.heights)
        self.solid_button = QPushButton("Show in 3-D")
        self.solid_button.setCheckable(True)
        self.solid_button.setAutoDefault(False)
        self.solid_button.setToolTip("Turn to the surface itself, in micrometres; again: back to the image")
        self.colour_combo = CalmComboBox()
        self.colour_combo.addItem("Coloured by picture", "picture")
        self.colour_combo.addItem("Coloured by height", "height")
        self.colour_combo.setToolTip("Colours of the surface in 3-D")
        layout.addLayout(row(self.solid_button, self.colour_combo, stretch=1))
        self.extended_button = button(
            "All in focus",
            "Refocuses over the whole range, and keeps the plane in focus at every place: a picture, and a "
            "height map, which can then be the surface",
        )
        self.stop_button = button("Stop", "Give up after the present plane")
        layout.addLayout(row(self.extended_button, self.stop_button, stretch=0))
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        self.show_kind("plane")
        self.show_busy(False)

    def _plane_page(self) -> QWidget:
        return WrappedLabel("One plane, at the z of the slider.")

    def _tilt_page(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        form.setContentsMargins(0, 0, 0, 0)
        self.tilt_x_box, self.tilt_y_box = self._angle("x"), self._angle("y")
        form.addRow("Tilt along x (degrees)", self.tilt_x_box)
        form.addRow("Tilt along y (degrees)", self.tilt_y_box)
        form.addRow(WrappedLabel("The slider's z is that of the image's centre."))
        return page

    def _angle(self, axis: str) -> CalmDoubleSpinBox:
        box = CalmDoubleSpinBox()
        box.setRange(-60, 60)
        box.setDecimals(2)
        box.setSingleStep(0.1)
        box.setStepType(CalmDoubleSpinBox.StepType.DefaultStepType)
        box.setToolTip(f"z rises along + {axis} where it is positive")
        box.valueChanged.connect(lambda _: self.changed.emit())
        return box

    def _points_page(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.points_combo = CalmComboBox()
        self.points_combo.setToolTip("Any Points layer: its z, or its feature 'z_um', is the height")
        self.points_combo.activated.connect(lambda k: self.points_chosen.emit(self.points_combo.itemData(k)))
        self.click_button = QPushButton("Click points")
        self.click_button.setCheckable(True)
        self.click_button.setAutoDefault(False)
        self.click_button.setToolTip(
            "Move the slider until something is sharp, click on it, go on to the next: every point gets the "
            "z of the slider"
        )
        layout.addLayout(row(self.points_combo, self.click_button, stretch=0))
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels([f"{axis} ({MICROMETRES})" for axis in "zyx"])
        header = self.table.horizontalHeader()
        assert header is not None
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setToolTip("Type another z to move a point up or down")
        self.table.cellChanged.connect(self._typed)
        layout.addWidget(self.table)
        self.delete_button = button("Delete point", "Take the selected point away", self._delete)
        self.show_button = QPushButton("Focus on the surface")
        self.show_button.setCheckable(True)
        self.show_button.setAutoDefault(False)
        self.show_button.setToolTip(
            "Off: the plane of the slider, to find more points. On: the surface through them"
        )
        self.show_button.toggled.connect(lambda _: self.changed.emit())
        layout.addLayout(row(self.show_button, self.delete_button, stretch=0))
        return page

    def _map_page(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
        self.map_combo = CalmComboBox()
        self.map_combo.setToolTip("A flat image layer whose grey values are heights")
        self.map_combo.activated.connect(lambda k: self.map_chosen.emit(self.map_combo.itemData(k)))
        self.unit_combo = CalmComboBox()
        self.unit_combo.setMinimumContentsLength(3)
        for unit in ("um", "nm", "mm"):
            self.unit_combo.addItem(MICROMETRES if unit == "um" else unit, unit)
        self.unit_combo.setToolTip("Unit of its grey values")
        self.unit_combo.activated.connect(lambda _: self.changed.emit())
        layout.addLayout(row(self.map_combo, self.unit_combo, stretch=0))
        layout.addWidget(WrappedLabel("The slider's z is added to the map."))
        return page

    # -------------------------------------------------------------------- tell
    @property
    def kind(self) -> str:
        """Which surface is chosen."""
        return str(self.kind_combo.currentData())

    def _choose(self, kind: str) -> None:
        self.show_kind(kind)
        self.kind_chosen.emit(kind)

    def _typed(self, at: int, column: int) -> None:
        item = self.table.item(at, column)
        if column == 0 and item is not None:
            try:
                value = float(item.text().replace("\N{MINUS SIGN}", "-").replace(",", "."))
            except ValueError:
                value = float("nan")
            self.height_typed.emit(at, value)

    def _delete(self) -> None:
        at = self.table.currentRow()
        if at >= 0:
            self.point_deleted.emit(at)

    # -------------------------------------------------------------------- show
    def show_kind(self, kind: str) -> None:
        """Show the page of a surface."""
        with QSignalBlocker(self.kind_combo):
            self.kind_combo.setCurrentIndex([name for _, name in KINDS].index(kind))
        for name, page in self.pages.items():
            page.setVisible(name == kind)
        if kind == "plane":
            self.heights.show_text("")

    def show_choices(
        self, combo: CalmComboBox, none: str, layers: Sequence[tuple[str, Any]], chosen: Any
    ) -> None:
        """Fill a list of layers."""
        with QSignalBlocker(combo):
            combo.clear()
            combo.addItem(none, None)
            for name, layer in layers:
                combo.addItem(name, layer)
                if layer is chosen:
                    combo.setCurrentIndex(combo.count() - 1)

    def show_points(self, points_um: np.ndarray) -> None:
        """Show points (n, 3), z y x, in the table."""
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(points_um))
            for at, point in enumerate(points_um):
                for column, value in enumerate(point):
                    item = QTableWidgetItem(f"{value:.2f}")
                    if column:
                        item.setFlags(item.flags() & ~_editable())
                    self.table.setItem(at, column, item)
        header, line = self.table.horizontalHeader(), self.table.verticalHeader()
        assert header is not None
        assert line is not None
        rows = min(max(len(points_um), 1), _ROWS)
        self.table.setFixedHeight(header.sizeHint().height() + rows * line.defaultSectionSize() + 4)
        self.delete_button.setEnabled(len(points_um) > 0)

    def show_busy(self, busy: bool) -> None:
        """Enable what can be pressed while planes are computed."""
        self.extended_button.setEnabled(not busy)
        self.stop_button.setEnabled(busy)


def _editable() -> Any:
    from qtpy.QtCore import Qt

    return Qt.ItemFlag.ItemIsEditable
