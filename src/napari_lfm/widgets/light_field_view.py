"""The *Light field* panel as seen: no behaviour beyond showing values and telling what was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.drop_zone import DropZone
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmSpinBox
from napari_lfm.widgets.microscope_choice import MicroscopeBox
from napari_lfm.widgets.parts import Fold, WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.state import ROLE_TITLES, ROLES, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE_TEXT = "(none)"
LAYOUTS = {
    "auto": "find out by itself",
    "raw": "raw camera frame",
    "lenslet": "rectified lenslet image",
    "vuts": "four axes v, u, t, s",
}
_ROLE_TIPS: dict[Role, str] = {
    "lightfield": "The raw camera image behind the lenslet array, or a movie of them.",
    "white": "A frame of an even, featureless specimen (radiometry, flat field). It shows where the lenslets "
    "are and how their light falls off. Optional: without it the lenslets are found in the image itself.",
    "dark": "A frame taken without light. Optional: without it the camera's own offset is used.",
}


class LightFieldView(QWidget):
    """Four steps from top to bottom: images, microscope, lenslets, quick look."""

    input_chosen = Signal(str, object)
    frame_chosen = Signal(int)
    layout_chosen = Signal(str)
    nudge_clicked = Signal(float, float)
    turn_clicked = Signal(float)
    refocus_moved = Signal(float)
    perspective_moved = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self._build_images()
        self._build_microscope()
        self._build_lenslets()
        self._build_quick_look()
        self.next_button = button(
            "Next: reconstruct a volume", "Open the 'Reconstruct' panel, which uses what is set here"
        )
        self._column.addWidget(self.next_button)
        self._column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self.setMinimumWidth(340)

    # ------------------------------------------------------------------- build
    def _build_images(self) -> None:
        box, layout = section("1  Images")
        self.drop_zone = DropZone(
            "Drop your light field here, with its white and dark frames if you have them"
        )
        layout.addWidget(self.drop_zone)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.combos: dict[Role, CalmComboBox] = {}
        for role in ROLES:
            combo = CalmComboBox()
            combo.setToolTip(_ROLE_TIPS[role])
            combo.activated.connect(
                lambda index, r=role: self.input_chosen.emit(r, self.combos[r].itemData(index))
            )
            self.combos[role] = combo
            form.addRow(ROLE_TITLES[role], combo)
        self.frame_box = CalmSpinBox()
        self.frame_box.setToolTip(
            "Which frame of the movie to look at. 'all' takes every frame to the next panel."
        )
        self.frame_box.setSpecialValueText("all")
        self.frame_box.valueChanged.connect(self.frame_chosen)
        self.frame_label = QLabel("Frame")
        form.addRow(self.frame_label, self.frame_box)
        self.layout_combo = CalmComboBox()
        self.layout_combo.setToolTip(
            "How the pixels are arranged. Change it only for light fields that were rectified before."
        )
        for key, text in LAYOUTS.items():
            self.layout_combo.addItem(text, key)
        self.layout_combo.activated.connect(
            lambda index: self.layout_chosen.emit(self.layout_combo.itemData(index))
        )
        self.layout_label = QLabel("Arrangement")
        form.addRow(self.layout_label, self.layout_combo)
        layout.addLayout(form)
        self.images_text = WrappedLabel()
        layout.addWidget(self.images_text)
        self._column.addWidget(box)
        self.show_movie(0)

    def _build_microscope(self) -> None:
        box, layout = section("2  Microscope", "The optics that took the image")
        self.microscope = MicroscopeBox()
        layout.addWidget(self.microscope)
        self._column.addWidget(box)

    def _build_lenslets(self) -> None:
        box, layout = section("3  Lenslets", "Where the lenslets are on the camera")
        self.calibrate_button = button(
            "Find the lenslets", "Uses the white frame where there is one, else the image"
        )
        layout.addWidget(self.calibrate_button)
        self.lattice_text = WrappedLabel()
        layout.addWidget(self.lattice_text)
        self.overlay_box = QCheckBox("Show the lenslet centres over the image")
        self.overlay_box.setToolTip(
            "Small marks at the found centres, coloured by their distance from the fit"
        )
        self.overlay_box.setChecked(True)
        layout.addWidget(self.overlay_box)
        self.hand = Fold("Correct by hand, save, load", self._hand_controls())
        layout.addWidget(self.hand)
        self._column.addWidget(box)

    def _hand_controls(self) -> QWidget:
        out = QWidget()
        layout = QVBoxLayout(out)
        layout.setContentsMargins(0, 0, 0, 0)
        self.step_combo = CalmComboBox()
        for step in (0.1, 1.0):
            self.step_combo.addItem(f"{step:g} px", step)
        grid = QGridLayout()
        arrows = {
            "\N{UPWARDS ARROW}": (0, 1, -1.0, 0.0, "Move the lattice up"),
            "\N{LEFTWARDS ARROW}": (1, 0, 0.0, -1.0, "Move the lattice left"),
            "\N{RIGHTWARDS ARROW}": (1, 2, 0.0, 1.0, "Move the lattice right"),
            "\N{DOWNWARDS ARROW}": (2, 1, 1.0, 0.0, "Move the lattice down"),
        }
        self.nudge_buttons = {}
        for sign, (line, column, dy, dx, tip) in arrows.items():
            one = button(sign, tip, lambda dy=dy, dx=dx: self._nudge(dy, dx))  # type: ignore[misc]
            self.nudge_buttons[dy, dx] = one
            grid.addWidget(one, line, column)
        grid.addWidget(self.step_combo, 1, 1)
        turn_left = button(
            "\N{ANTICLOCKWISE OPEN CIRCLE ARROW}",
            "Turn the lattice by -0.05 degrees",
            lambda: self.turn_clicked.emit(-0.05),
        )
        turn_right = button(
            "\N{CLOCKWISE OPEN CIRCLE ARROW}",
            "Turn the lattice by +0.05 degrees",
            lambda: self.turn_clicked.emit(0.05),
        )
        grid.addWidget(turn_left, 0, 0)
        grid.addWidget(turn_right, 0, 2)
        layout.addLayout(grid)
        self.drag_button = button(
            "Drag a centre with the mouse",
            "Press, then drag any mark onto its lenslet: the whole lattice follows",
        )
        self.drag_button.setCheckable(True)
        layout.addWidget(self.drag_button)
        self.save_grid_button = button(
            "Save grid...", "Keep this lattice as a file, for other images of this setup"
        )
        self.load_grid_button = button("Load grid...", "Use a lattice saved before")
        layout.addLayout(row(self.save_grid_button, self.load_grid_button))
        return out

    def _build_quick_look(self) -> None:
        box, layout = section(
            "4  Quick look", "A coarse look at the data, at once, before any reconstruction"
        )
        self.look_text = WrappedLabel("Find the lenslets first; then refocus and tilt the view here.")
        layout.addWidget(self.look_text)
        self.look_controls = QWidget()
        form = QFormLayout(self.look_controls)
        form.setContentsMargins(0, 0, 0, 0)
        self.depth_slider, self.depth_label = _slider(-100, 100), QLabel()
        self.depth_slider.setToolTip("Focus on this depth; positive is towards the objective")
        self.u_slider, self.v_slider = _slider(-7, 7), _slider(-7, 7)
        self.u_slider.setToolTip("Look from the left or the right: one pixel behind every lenslet")
        self.v_slider.setToolTip("Look from above or below")
        form.addRow("Refocus", self.depth_slider)
        form.addRow("", self.depth_label)
        form.addRow("View left - right", self.u_slider)
        form.addRow("View up - down", self.v_slider)
        layout.addWidget(self.look_controls)
        self.depth_slider.valueChanged.connect(lambda value: self.refocus_moved.emit(value / 10.0))
        self.u_slider.valueChanged.connect(self._tilt)
        self.v_slider.valueChanged.connect(self._tilt)
        self._column.addWidget(box)
        self.look_controls.setVisible(False)

    def _tilt(self) -> None:
        self.perspective_moved.emit(self.v_slider.value(), self.u_slider.value())

    def _nudge(self, dy: float, dx: float) -> None:
        step = float(self.step_combo.currentData())
        self.nudge_clicked.emit(dy * step, dx * step)

    # -------------------------------------------------------------------- show
    def show_choices(self, role: Role, choices: Sequence[tuple[str, object]], chosen: object) -> None:
        """Fill the combo of a role with (name, layer) pairs and mark the chosen one."""
        combo = self.combos[role]
        with QSignalBlocker(combo):
            combo.clear()
            combo.addItem(NONE_TEXT, None)
            for name, layer in choices:
                combo.addItem(name, layer)
                if layer is chosen:
                    combo.setCurrentIndex(combo.count() - 1)

    def show_movie(self, frames: int, frame: int | None = 0) -> None:
        """Show the frame choice for movies of more than one frame."""
        is_movie = frames > 1
        self.frame_label.setVisible(is_movie)
        self.frame_box.setVisible(is_movie)
        with QSignalBlocker(self.frame_box):
            self.frame_box.setRange(-1, max(0, frames - 1))
            self.frame_box.setValue(-1 if frame is None else frame)

    def show_depth(self, depth_um: float) -> None:
        """Write the depth beside its slider."""
        self.depth_label.setText(f"z = {depth_um:+.1f} {MICROMETRES}")

    def show_quick_look(self, half_views: int, half_depth_um: float, text: str) -> None:
        """Offer the sliders: views from -half to +half, depths likewise."""
        self.look_controls.setVisible(half_views > 0)
        self.look_text.show_text(text)
        with QSignalBlocker(self.depth_slider), QSignalBlocker(self.u_slider), QSignalBlocker(self.v_slider):
            limit = max(1, round(10 * half_depth_um))
            self.depth_slider.setRange(-limit, limit)
            for slider in (self.u_slider, self.v_slider):
                slider.setRange(-half_views, half_views)

    def say_look(self, text: str) -> None:
        """Write what the quick look shows, without a new layout for the same words."""
        if self.look_text.text() != text:
            self.look_text.show_text(text)

    def centre_views(self) -> None:
        """Put the perspective sliders to the middle without telling."""
        with QSignalBlocker(self.u_slider), QSignalBlocker(self.v_slider):
            self.u_slider.setValue(0)
            self.v_slider.setValue(0)


def _slider(low: int, high: int) -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setValue(0)
    return slider
