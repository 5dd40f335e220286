"""The *Light field* dock widget: its controller, and the widget that napari shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.lightfield import edit
from napari_lfm.lightfield.files import load_lattice, save_lattice
from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names
from napari_lfm.widgets.light_field_view import LightFieldView
from napari_lfm.widgets.microscope_dialog import editor_dialog, wizard_dialog
from napari_lfm.widgets.opening import read_files
from napari_lfm.widgets.overlay import LatticeOverlay
from napari_lfm.widgets.panel import Panel, show_panel
from napari_lfm.widgets.quick_look import QuickLook, one_frame
from napari_lfm.widgets.resolve import frame_dims
from napari_lfm.widgets.roles import assign_roles
from napari_lfm.widgets.session import bare, layer_info
from napari_lfm.widgets.state import ROLES, Role
from napari_lfm.widgets.texts import lattice_html, microscope_line, problems_html

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari import Viewer
    from napari.layers import Image

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

TITLE = "Light field"


class LightFieldController:
    """Connects the view with the session: opening, microscope, calibration, correction, overlay."""

    def __init__(self, panel: LightFieldWidget, view: LightFieldView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.residual: np.ndarray | None = None
        self.notes: list[Problem] = []
        self.overlay = LatticeOverlay(self.session.viewer, self._dragged)
        self.quick_look = QuickLook(panel, view)
        self._connect()
        self._list_microscopes()
        self._show_inputs()
        self._show_lattice()
        default = load_settings().microscope
        if default and self.session.microscope is None:
            self.choose_microscope(default)

    def _connect(self) -> None:
        view, session = self.view, self.session
        view.drop_zone.files_chosen.connect(self.open)
        view.input_chosen.connect(self.session.set_input)
        view.frame_chosen.connect(lambda n: session.set_frame(None if n < 0 else n))
        view.layout_chosen.connect(self._choose_layout)
        view.microscope_chosen.connect(self.choose_microscope)
        view.edit_button.clicked.connect(self._edit_microscope)
        view.wizard_button.clicked.connect(self._new_microscope)
        view.calibrate_button.clicked.connect(self.calibrate)
        view.overlay_box.toggled.connect(self._show_overlay)
        view.nudge_clicked.connect(self.nudge)
        view.turn_clicked.connect(self.turn)
        view.drag_button.toggled.connect(self.overlay.set_dragging)
        view.save_grid_button.clicked.connect(self._ask_save_grid)
        view.load_grid_button.clicked.connect(self._ask_load_grid)
        view.next_button.clicked.connect(self._next)
        self.panel.listen(session.layers_changed, self._show_inputs)
        self.panel.listen(session.inputs_changed, self._show_inputs)
        self.panel.listen(session.microscope_changed, self._on_microscope)
        self.panel.listen(session.lattice_changed, self._show_lattice)
        self.background.busy_changed.connect(self._on_busy)

    # ------------------------------------------------------------------ opening
    def open(self, paths: Sequence[Path]) -> None:
        """Read files in a worker and add them as layers, each in its role."""
        wanted = [Path(p) for p in paths]
        self.background.submit(
            "open", lambda: read_files(wanted), self._opened, lambda p: self._tell_images([p])
        )

    def _opened(self, found: tuple[list[tuple[str, Any, dict[str, Any]]], list[Problem]]) -> None:
        opened, problems = found
        metadata = {name: arguments["metadata"].get("napari_lfm", {}) for name, _, arguments in opened}
        taken = [role for role in ROLES if self.session.input(role) is not None]
        roles = assign_roles([name for name, _, _ in opened], metadata, taken)
        # the light field goes on top and is the one to see
        for name, data, arguments in sorted(opened, key=lambda item: roles.get(item[0]) == "lightfield"):
            role = roles.get(name)
            arguments["visible"] = role not in ("white", "dark")
            layer = bare(self.session.viewer.add_image(data, **arguments))
            if role is not None:
                self.session.set_input(role, layer)
        if opened:
            self.session.viewer.reset_view()
        self._tell_images(problems)

    def _tell_images(self, problems: Sequence[Problem]) -> None:
        self.view.images_text.show_problems(problems)

    def _show_inputs(self) -> None:
        layers = [(layer.name, layer) for layer in self.session.candidates()]
        for role in ROLES:
            self.view.show_choices(role, layers, self.session.input(role))
        self.view.show_movie(self._frames(), self.session.frame)
        self.view.calibrate_button.setEnabled(self.session.input("lightfield") is not None)

    def _frames(self) -> int:
        layer = self.session.input("lightfield")
        if layer is None:
            return 0
        info = layer_info(layer)
        dims = frame_dims(info, self.session.layout)
        return info.shape[-3] if not isinstance(dims, Problem) and dims[-3:] == ("t", "y", "x") else 1

    def _choose_layout(self, layout: str) -> None:
        n = None if self.session.microscope is None else self.session.microscope.n_pixels
        if layout == "lenslet" and n is None:
            self._tell_images(
                [Problem("Choose the microscope first.", "It says how many pixels a lenslet has.")]
            )
            layout = "auto"
        self.session.set_layout(f"lenslet:{n}" if layout == "lenslet" else layout)

    # --------------------------------------------------------------- microscope
    def _list_microscopes(self) -> None:
        own = [(name, name) for name in user_microscope_names()]
        presets = [(name, name) for name in preset_names(lightfield_only=True)]
        chosen = self.session.microscope
        known = {name for _, name in own + presets}
        groups = [("Your own microscope", own), ("A published microscope", presets)]
        if chosen is not None and chosen.name not in known:
            groups.insert(0, ("In this session only", [(f"{chosen.name} (this session)", chosen.name)]))
        self.view.show_microscopes(groups, chosen.name if chosen is not None else "")
        if chosen is None:
            self.view.microscope_text.show_text("Not in the list? Enter yours with 'From data sheet...'.")
        else:
            self.view.microscope_text.show_text(microscope_line(chosen))

    def choose_microscope(self, name: str) -> None:
        """Use a preset, one of the user's own, or a file."""
        if self.session.microscope is not None and self.session.microscope.name == name:
            return
        try:
            self.session.set_microscope(load_microscope(name) if name else None)
        except LfmError as error:
            self.view.microscope_text.show_problems([error.problem()])

    def _use_microscope(self, microscope: Microscope) -> None:
        self.session.set_microscope(microscope)
        self._list_microscopes()

    def _edit_microscope(self) -> None:
        dialog = editor_dialog(self.session.microscope, self.view)
        dialog.accepted_microscope.connect(self._use_microscope)
        dialog.open()

    def _new_microscope(self) -> None:
        lattice = self.session.lattice
        dialog = wizard_dialog(None if lattice is None else float(np.mean(lattice.pitch_px)), self.view)
        dialog.accepted_microscope.connect(self._use_microscope)
        dialog.open()

    def _on_microscope(self) -> None:
        self._list_microscopes()
        self._recheck_pitch()
        self._show_lattice()

    # -------------------------------------------------------------- calibration
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
            self._show_lattice()
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

    def _show_lattice(self) -> None:
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

    # -------------------------------------------------------------------- other
    def _on_busy(self, key: str, busy: bool) -> None:
        if key == "calibrate":
            self.view.calibrate_button.setEnabled(not busy)
        elif key == "open":
            self.view.drop_zone.setEnabled(not busy)

    def _next(self) -> None:
        from napari_lfm.widgets.reconstruct import TITLE as NEXT_TITLE
        from napari_lfm.widgets.reconstruct import ReconstructWidget

        show_panel(self.session.viewer, NEXT_TITLE, ReconstructWidget)


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


class LightFieldWidget(Panel):
    """Open a light field, name its microscope, find its lenslets, look around in it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = LightFieldView()
        self.fill(self.view)
        self.controller = LightFieldController(self, self.view)
