"""The *Simulate* panel: a light-field recording of a volume layer, with its truth."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import napari  # noqa: TC002  (napari gives a menu command its viewer by the annotation)
from napari.layers import Image
from qtpy.QtCore import QTimer

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.io.layers import layer_data_from
from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names
from napari_lfm.widgets.panel import Panel, show_panel
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core
from napari_lfm.widgets.resolve import microscope_problems
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.simulate_view import SimulateView
from napari_lfm.widgets.simulation_input import SimulateSettings, checked, proposal, volume_of
from napari_lfm.widgets.texts import coloured, microscope_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

TITLE = "Simulate"
_TICK_MS = 100
_JOB = "simulate"


class Stopped(Exception):
    """The user gave the recording up."""


class SimulateController:
    """Connects the view with the viewer's layers and the simulation."""

    def __init__(self, panel: SimulateWidget, view: SimulateView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.layer: Image | None = None
        self.microscope: Microscope | None = self.session.microscope
        self._volume: xr.DataArray | None = None
        self._stop: threading.Event | None = None
        self._progress = (0, 0, "")
        self._begin = 0.0
        self._timer = QTimer(panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        view.layer_chosen.connect(self.choose_layer)
        view.microscope_chosen.connect(self.choose_microscope)
        view.fit_button.clicked.connect(lambda: self.fit())
        view.run_button.clicked.connect(lambda: self.run())
        view.stop_button.clicked.connect(lambda: self.stop())
        panel.listen(self.session.layers_changed, self._show_layers)
        panel.listen(self.session.microscope_changed, self._follow_microscope)
        if self.microscope is None and load_settings().microscope:
            self.choose_microscope(load_settings().microscope)
        self.choose_layer(self._active_layer())

    @property
    def is_running(self) -> bool:
        """Whether a recording is being made."""
        return self._stop is not None

    # ------------------------------------------------------------------- input
    def choose_layer(self, layer: Any) -> None:
        """Take a layer as the volume, and fit the figures to it."""
        self.layer = bare(layer)
        self._show_layers()
        self.fit()

    def choose_microscope(self, name: str) -> None:
        """Use a preset, one of the user's own, or a file."""
        try:
            self.microscope = load_microscope(name) if name else None
        except LfmError as error:
            self.view.input_text.show_problems([error.problem()])
            return
        self._look()
        self.fit()

    def fit(self) -> None:
        """Choose depths, focus and lenslets that take in the whole volume."""
        self._look()
        if self._volume is not None and self.microscope is not None and self.microscope.lenslet_um:
            self.view.form.set_values(proposal(self._volume, self.microscope))

    def _active_layer(self) -> Image | None:
        active = bare(self.session.viewer.layers.selection.active)
        if isinstance(active, Image):
            return active
        volumes = [layer for layer in self.session.images() if layer.ndim == 3 and not layer.rgb]
        return volumes[-1] if volumes else None

    def _follow_microscope(self) -> None:
        found = self.session.microscope
        # a recording made here brings its microscope along: what was typed is to stay
        if found is not None and found != self.microscope and not self.is_running:
            self.microscope = found
            self.fit()

    def _show_layers(self) -> None:
        layers = [(layer.name, layer) for layer in self.session.images()]
        if not any(bare(layer) is self.layer for layer in self.session.viewer.layers):
            self.layer = None
        self.view.show_layers(layers, self.layer)
        self._look()

    def _look(self) -> None:
        """Check what is chosen, and say what is wrong in a sentence."""
        names = [*user_microscope_names(), *preset_names(lightfield_only=True)]
        chosen = "" if self.microscope is None else self.microscope.name
        self.view.show_microscopes(names if not chosen or chosen in names else [chosen, *names], chosen)
        self._volume, problems = None, list[Problem]()
        if self.layer is None:
            problems.append(Problem("No volume is chosen.", "Open one, and choose its layer."))
        else:
            try:
                self._volume = volume_of(self.layer)
            except LfmError as error:
                problems.append(error.problem())
        problems += microscope_problems(self.microscope)
        if problems:
            self.view.input_text.show_problems(problems)
        elif self.microscope is not None:
            self.view.input_text.show_text(microscope_line(self.microscope))
        self.view.show_running(self.is_running, not problems)

    # --------------------------------------------------------------------- run
    def run(self) -> None:
        """Make the recording in a worker thread."""
        self._look()
        if self.is_running or self._volume is None or self.microscope is None:
            return
        try:
            settings = SimulateSettings.model_validate(self.view.form.values())
        except ValueError:
            self.view.text.show_problems([Problem("A figure is missing.", "Fill in every field above.")])
            return
        volume, microscope, name = self._volume, self.microscope, str(self._volume.name)
        self._stop = stop = threading.Event()
        self._progress, self._begin = (0, 0, "Looking at the volume"), time.perf_counter()
        crew = self.panel.crew

        def report(step: int, steps: int, message: str) -> None:
            if stop.is_set() or crew.closed:
                raise Stopped
            self._progress = (step, steps, message)

        def work() -> Recording | None:
            try:
                return record_volume(volume, microscope, settings, report)
            except Stopped:
                return None

        self.view.show_running(True, True)
        self.view.show_progress(*self._progress)
        self._timer.start()
        self.background.submit(_JOB, work, lambda found: self._done(found, name), self._failed)

    def stop(self) -> None:
        """Give the recording up after the present plane."""
        if self._stop is not None:
            self._stop.set()
            self._timer.stop()
            self.view.text.show_text("Stopping after this plane...")

    def _tick(self) -> None:
        self.view.show_progress(*self._progress)

    def _end(self) -> float:
        self._timer.stop()
        self._stop = None
        self._look()
        return time.perf_counter() - self._begin

    def _failed(self, problem: Problem) -> None:
        self._end()
        self.view.text.show_problems([problem])

    def _done(self, recording: Recording | None, name: str) -> None:
        seconds = self._end()
        if recording is None:
            text = f"Stopped after {duration(seconds)}."
            self.view.text.show_text(f"{coloured(text, 'warning')} No layer was added.")
            return
        viewer = self.session.viewer
        for data, arguments, _ in recording_layers(recording, name):
            viewer.add_image(data, **arguments)
        if self.layer is not None:
            # the recording has its own origin, the first camera pixel: the volume would lie beside it
            self.layer.visible = False
        viewer.reset_view()
        self.view.text.show_text(
            f"{coloured(f'Done in {duration(seconds)}.', 'good')} The recording, its white frame and the "
            "truth are layers now: go on with the 'Light field' panel."
        )


def record_volume(
    volume: xr.DataArray,
    microscope: Microscope,
    settings: SimulateSettings,
    report: Callable[[int, int, str], None],
) -> Recording:
    """Return the light-field recording of a volume; `report` may raise to end it early.

    Raises
    ------
    RequestError
        If the volume's values are no light, or nothing of it is in the field and depth range.
    """
    if settings.z_min_um > settings.z_max_um:
        raise RequestError("The lowest plane is above the highest.", "Swap the two.")
    report(0, 0, "Looking at the volume")
    subject = checked(volume, settings.focus_um)
    import_torch_gently()
    leave_a_core()
    from napari_lfm.core.devices import pick_device
    from napari_lfm.simulation.lightfield import SLIGHTLY_OFF, Exposure, OpticsError, simulate_lightfield

    report(0, 0, "Computing the point spread function")
    return simulate_lightfield(
        subject,
        microscope,
        z_um=settings.z_um,
        lenslets=(settings.lenslet_rows, settings.lenslet_columns),
        rotation_deg=settings.rotation_deg,
        exposure=Exposure(peak_electrons=settings.peak_electrons, background=settings.background),
        error=OpticsError() if settings.exact_optics else SLIGHTLY_OFF,
        seed=settings.seed,
        device=str(pick_device(load_settings().device)),
        on_progress=report,
    )


def recording_layers(recording: Recording, name: str) -> list[tuple[Any, dict[str, Any], str]]:
    """Return truth, white frame and raw frame as layers in micrometres, the raw frame on top."""
    return [
        layer_data_from(recording["truth"], f"{name} truth", "truth", colormap="gray", visible=False),
        layer_data_from(recording["white"], f"{name} white frame", "white", visible=False),
        layer_data_from(recording["raw"], f"{name} light field", "lightfield"),
    ]


class SimulateWidget(Panel):
    """Record a volume layer with a light-field microscope that exists only in the computer."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = SimulateView()
        self.fill(self.view)
        self.controller = SimulateController(self, self.view)


def simulate_layer(viewer: napari.Viewer) -> None:
    """Open the panel with the selected layer as the volume (menu *Layers > Transform*)."""
    panel = show_panel(viewer, TITLE, SimulateWidget)
    active = bare(bare(viewer).layers.selection.active)
    if active is not None:
        panel.controller.choose_layer(active)  # type: ignore[attr-defined]
