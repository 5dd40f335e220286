"""The *Light field* dock widget: its controller, and the widget that napari shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_lfm.core.problems import Problem
from napari_lfm.widgets.lattice_controller import LatticeController
from napari_lfm.widgets.light_field_view import LightFieldView
from napari_lfm.widgets.microscope_choice import MicroscopeChoice
from napari_lfm.widgets.opening import read_files
from napari_lfm.widgets.panel import Panel, show_panel
from napari_lfm.widgets.quick_look import QuickLook
from napari_lfm.widgets.resolve import frame_count
from napari_lfm.widgets.roles import assign_roles
from napari_lfm.widgets.session import bare, layer_info
from napari_lfm.widgets.state import ROLES, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer

TITLE = "Light field"


class LightFieldController:
    """Connects the view with the session: opening files and naming the microscope."""

    def __init__(self, panel: LightFieldWidget, view: LightFieldView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.lattice = LatticeController(panel, view)
        self.quick_look = QuickLook(panel, view)
        self.microscopes = MicroscopeChoice(panel, view.microscope, self._list_microscopes)
        self._connect()
        self._list_microscopes()
        self._show_inputs()
        self.microscopes.choose_default()

    def _connect(self) -> None:
        view, session = self.view, self.session
        view.drop_zone.files_chosen.connect(self.open)
        view.input_chosen.connect(self.session.set_input)
        view.frame_chosen.connect(lambda n: session.set_frame(None if n < 0 else n))
        view.layout_chosen.connect(self._choose_layout)
        view.next_button.clicked.connect(self._next)
        self.panel.listen(session.layers_changed, self._show_inputs)
        self.panel.listen(session.inputs_changed, self._show_inputs)
        self.panel.listen(session.microscope_changed, self._list_microscopes)
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
        ordered = sorted(opened, key=lambda item: roles.get(item[0]) == "lightfield")
        self._tell_images(problems)
        self._add_next([(data, arguments, roles.get(name)) for name, data, arguments in ordered])

    def _add_next(self, rest: list[tuple[Any, dict[str, Any], Role | None]]) -> None:
        """Add one layer per turn of the event loop: each takes napari a tenth of a second."""
        if not rest or self.panel.crew.closed:
            return
        data, arguments, role = rest[0]
        arguments["visible"] = role not in ("white", "dark")
        layer = bare(self.session.viewer.add_image(data, **arguments))
        if role is not None:
            self.session.set_input(role, layer)
        if len(rest) == 1:
            self.session.viewer.reset_view()
        QTimer.singleShot(0, lambda: self._add_next(rest[1:]))

    def _tell_images(self, problems: Sequence[Problem]) -> None:
        self.view.images_text.show_problems(problems)

    def _show_inputs(self) -> None:
        layers = [(layer.name, layer) for layer in self.session.candidates()]
        for role in ROLES:
            self.view.show_choices(role, layers, self.session.input(role))
        layer = self.session.input("lightfield")
        frames = 0 if layer is None else frame_count(layer_info(layer), self.session.layout)
        self.view.show_movie(frames, self.session.frame)
        self.view.calibrate_button.setEnabled(self.session.input("lightfield") is not None)

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
        self.microscopes.show()

    def choose_microscope(self, name: str) -> None:
        """Use a preset, one of the user's own, or a file."""
        self.microscopes.choose(name)

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


class LightFieldWidget(Panel):
    """Open a light field, name its microscope, find its lenslets, look around in it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = LightFieldView()
        self.fill(self.view)
        self.controller = LightFieldController(self, self.view)
