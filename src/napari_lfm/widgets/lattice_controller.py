"""Finding the lenslets from the *Light field* panel, correcting them by hand, drawing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QFileDialog

from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.lightfield import edit
from napari_lfm.lightfield.files import load_lattice, save_lattice
from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names
from napari_lfm.widgets.overlay import LatticeOverlay
from napari_lfm.widgets.quick_look import one_frame
from napari_lfm.widgets.state import ROLES, Role
from napari_lfm.widgets.texts import lattice_html, problems_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.widgets.light_field_view import LightFieldView
    from napari_lfm.widgets.panel import Panel


class LatticeController:
    """Calibration, hand correction, grid files and the overlay."""

    def __init__(self, panel: Panel, view: LightFieldView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.residual: np.ndarray | None = None
        self.notes: list[Problem] = []
        self.overlay = LatticeOverlay(self.session.viewer, self._dragged)
        view.calibrate_button.clicked.connect(self.calibrate)
        view.overlay_box.toggled.connect(self._show_overlay)
        view.nudge_clicked.connect(self.nudge)
        view.turn_clicked.connect(self.turn)
        view.drag_button.toggled.connect(self.overlay.set_dragging)
        view.save_grid_button.clicked.connect(self._ask_save_grid)
        view.load_grid_button.clicked.connect(self._ask_load_grid)
        panel.listen(self.session.microscope_changed, self.show)
        panel.listen(self.session.lattice_changed, self.show)
        self.show()

    def calibrate(self) -> None:
        """Find the lenslets in a worker."""
        frames = {role: self._one_frame(role) for role in ROLES}
        if frames["lightfield"] is None:
            return
        microscope = self.session.microscope
        self.view.lattice_text.show_text("Looking for the lenslets...")

        def work() -> tuple[Lattice, np.ndarray]:
            from napari_lfm.lightfield.calibrate import calibrate, residual_map

            raw, white, dark = (frames[role] for role in ROLES)
            lattice = calibrate(raw, white, dark, microscope)
            return lattice, residual_map(lattice, raw if white is None else white, dark)

        self.background.submit("calibrate", work, self._calibrated, self._not_calibrated)

    def _one_frame(self, role: Role) -> Any:
        layer: Image | None = self.session.input(role)
        return None if layer is None else one_frame(layer, self.session.frame if role == "lightfield" else 0)

    def _calibrated(self, found: tuple[Lattice, np.ndarray]) -> None:
        lattice, self.residual = found
        if self.session.lattice == lattice:
            self.show()
        self.session.set_lattice(lattice)

    def _not_calibrated(self, problem: Problem) -> None:
        self.view.lattice_text.show_problems([problem])

    def _recheck_pitch(self) -> None:
        from napari_lfm.lightfield.calibrate import check_pitch

        lattice, microscope = self.session.lattice, self.session.microscope
        self.notes = []
        if lattice is None:
            return
        self.notes = [Problem(text, severity="warning") for text in lattice.warnings]
        if microscope is not None:
            self.notes += check_pitch(lattice, microscope)
        if microscope is None or any(p.severity == "error" for p in self.notes):
            fitting = fitting_presets(lattice)
            if fitting:
                several = "s" if len(fitting) > 1 else ""
                text = f"This pitch fits the microscope{several} {', '.join(fitting)}."
                self.notes.append(Problem(text, severity="info"))

    def show(self) -> None:
        """Say what is known of the lattice, and draw it."""
        lattice = self.session.lattice
        if lattice is None:
            self.residual = None
            self.overlay.remove()
            self.view.lattice_text.show_text("")
            return
        self._recheck_pitch()
        text = lattice_html(lattice)
        if self.notes:
            text += "<br>" + problems_html(self.notes)
        self.view.lattice_text.show_text(text)
        self._show_overlay()

    def _show_overlay(self, _: bool = True) -> None:
        lattice, microscope = self.session.lattice, self.session.microscope
        if lattice is None:
            return
        if not self.view.overlay_box.isChecked():
            self.overlay.set_visible(False)
            return
        pixel = 1.0 if microscope is None else microscope.object_pixel_um
        active = self.session.viewer.layers.selection.active
        new = self.overlay.layer is None
        self.overlay.show(lattice, self.residual, pixel, "pixel" if microscope is None else "um")
        self.overlay.set_visible(True)
        if new and active is not None:
            self.session.viewer.layers.selection.active = active

    # --------------------------------------------------------------- correction
    def nudge(self, dy_px: float, dx_px: float) -> None:
        """Shift the whole lattice."""
        self._correct(lambda lattice: edit.nudge(lattice, dy_px, dx_px))

    def turn(self, degrees: float) -> None:
        """Turn the lattice about the middle of the frame."""
        self._correct(lambda lattice: edit.rotate(lattice, degrees))

    def _dragged(self, row: int, column: int, y_px: float, x_px: float) -> None:
        self._correct(lambda lattice: edit.move_centre(lattice, (row, column), (y_px, x_px)))

    def _correct(self, change: Callable[[Lattice], Lattice]) -> None:
        if self.session.lattice is None:
            return
        try:
            corrected = change(self.session.lattice)
        except LfmError as error:
            self._not_calibrated(error.problem())
            return
        self.session.set_lattice(corrected)
        self._measure_residual()

    def _measure_residual(self) -> None:
        """Measure every lenslet against a lattice that did not come from calibration just now."""
        lattice = self.session.lattice
        frames = {role: self._one_frame(role) for role in ROLES}
        if lattice is None or frames["lightfield"] is None:
            return
        image = frames["lightfield"] if frames["white"] is None else frames["white"]

        def work() -> np.ndarray:
            from napari_lfm.lightfield.calibrate import residual_map

            return residual_map(lattice, image, frames["dark"])

        self.background.submit("residual", work, self._have_residual, lambda _: None)

    def _have_residual(self, residual: np.ndarray) -> None:
        self.residual = residual
        self._show_overlay()

    def _ask_save_grid(self) -> None:
        if self.session.lattice is None:
            return
        name, _ = QFileDialog.getSaveFileName(self.view, "Save grid", "grid.json", "Grid (*.json)")
        if name:
            self.save_grid(Path(name))

    def save_grid(self, path: Path) -> None:
        """Write the lattice as JSON, as the command line's --grid takes it."""
        if self.session.lattice is None:
            return
        try:
            save_lattice(path, self.session.lattice)
        except LfmError as error:
            self._not_calibrated(error.problem())

    def _ask_load_grid(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self.view, "Load grid", "", "Grid (*.json)")
        if name:
            self.load_grid(Path(name))

    def load_grid(self, path: Path) -> None:
        """Take a lattice saved before, where it fits the light field."""
        try:
            lattice = load_lattice(path)
        except LfmError as error:
            self._not_calibrated(error.problem())
            return
        frame = self._one_frame("lightfield")
        if frame is not None and tuple(frame.shape) != tuple(lattice.image_shape):
            have, want = (" x ".join(map(str, s)) for s in (lattice.image_shape, frame.shape))
            self._not_calibrated(
                Problem(f"This grid belongs to frames of {have} pixels, the light field has {want}.")
            )
            return
        self.residual = None
        self.session.set_lattice(lattice)
        self._measure_residual()


def fitting_presets(lattice: Lattice, tolerance: float = 0.01) -> list[str]:
    """Return the microscopes whose pitch and kind of lattice are those that were found."""
    pitch = float(np.mean(lattice.pitch_px))
    out = []
    for name in (*user_microscope_names(), *preset_names(lightfield_only=True)):
        m = load_microscope(name)
        if m.lenslets is None or m.nominal_pitch_px is None:
            continue
        if m.lenslets.lattice == lattice.kind and abs(pitch / m.nominal_pitch_px - 1) < tolerance:
            out.append(name)
    return out
