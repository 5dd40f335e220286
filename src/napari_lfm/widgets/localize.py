"""The *Localize* panel: neurons of a light field in 3-D, all at once or by a click."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari  # noqa: TC002  (napari gives a widget its viewer by the annotation)
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.methods.localize import THRESHOLDS
from napari_lfm.widgets.localize_click import clicked_place
from napari_lfm.widgets.localize_input import parameters_of, point_words
from napari_lfm.widgets.localize_points import PointsOfNeurons, as_features
from napari_lfm.widgets.localize_run import Answer, Stopped, find
from napari_lfm.widgets.localize_view import LocalizeView
from napari_lfm.widgets.models import Models
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.resolve import microscope_problems, resolve
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.state import ROLES, ReconstructState
from napari_lfm.widgets.texts import coloured, understood_html

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.core.events import Progress
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.localization.engine import LocalizeEngine

TITLE = "Localize"
_TICK_MS = 100
_JOB = "localize"


class LocalizeController:
    """Connects the view with the session, the engine and the points layer."""

    def __init__(self, panel: LocalizeWidget, view: LocalizeView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.algorithm = "cista"
        self.threshold = THRESHOLDS[self.algorithm]
        self.points = PointsOfNeurons(self.session.viewer, self._show_point, self._corrected)
        self.engine: LocalizeEngine | None = None
        self._engine_for: Any = None
        self._shown_for: Any = None
        self._stop: threading.Event | None = None
        self._progress = (0, 0, "")
        self._begin = 0.0
        self.models = Models(panel, view.models, self._look)
        self._timer = QTimer(panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(lambda: self.view.show_progress(*self._progress))
        view.algorithm_chosen.connect(self.choose_algorithm)
        view.changed.connect(self._look)
        view.threshold_moved.connect(self.move_threshold)
        view.detect_button.clicked.connect(lambda: self.detect())
        view.stop_button.clicked.connect(lambda: self.stop())
        view.click_button.toggled.connect(self._toggle_click)
        view.export_button.clicked.connect(lambda: self.ask_export())
        view.view_button.clicked.connect(lambda: self.show_central_view())
        for signal in (
            self.session.inputs_changed,
            self.session.microscope_changed,
            self.session.lattice_changed,
        ):
            panel.listen(signal, self._look)
        viewer = self.session.viewer
        viewer.mouse_drag_callbacks.append(self.on_mouse)
        panel.crew.at_close(self._let_go)
        self.models.use("localize")
        self.choose_algorithm("cista")

    @property
    def is_running(self) -> bool:
        """Whether something is being looked for."""
        return self._stop is not None

    # ------------------------------------------------------------------- input
    def choose_algorithm(self, name: str) -> None:
        """Find depths in another way; its points get a layer of their own."""
        self.algorithm = name
        self.threshold = THRESHOLDS[name]
        self.view.show_algorithms(name)
        self.view.models.setVisible(name == "cista")
        self.points.begin(self._layer_name())
        self._shown_for = None
        self._look()
        self._count()

    def request(self) -> Request | list[Problem]:
        """Return what the panel asks for, or why it cannot."""
        session = self.session
        state = ReconstructState(
            method="localize",
            lightfield=session.input_name("lightfield"),
            white=session.input_name("white"),
            dark=session.input_name("dark"),
            microscope=session.microscope,
            lattice=session.lattice,
            parameters=parameters_of(self.algorithm, self.view.form.values()),
            layout=session.layout,
            frame=session.frame,
            device=load_settings().device,
            memory_gib=load_settings().memory_gib or None,
            model=self.models.key if self.algorithm == "cista" else None,
        )
        found = resolve(state, session.infos())
        # a click is a place in micrometres: without a microscope there are none
        lacking = microscope_problems(session.microscope)
        return found if isinstance(found, list) or not lacking else lacking

    def _circumstances(self) -> Any:
        """Return all that an engine depends on, to compare."""
        session = self.session
        data = [0 if (one := session.input(role)) is None else id(one.data) for role in ROLES]
        values = tuple(sorted(self.view.form.values().items(), key=lambda item: item[0]))
        model = self.models.key if self.algorithm == "cista" else None
        micro = None if session.microscope is None else session.microscope.model_dump_json()
        lattice = None if session.lattice is None else str(session.lattice.to_json())
        return (tuple(data), values, model, micro, lattice, session.frame, session.layout, self.algorithm)

    def _look(self) -> None:
        """Say what is there and what is missing."""
        if not hasattr(self, "models"):
            return
        found = self.request()
        if isinstance(found, list):
            self.view.input_text.show_problems(found)
        else:
            self.view.input_text.show_text(understood_html(found))
        lacking = self.algorithm == "cista" and not self.models.offers
        self.view.show_running(self.is_running, not isinstance(found, list) and not lacking)

    # --------------------------------------------------------------------- run
    def detect(self) -> None:
        """Find every neuron, in a worker thread."""
        self._submit(None)

    def click_at(self, y_um: float, x_um: float) -> None:
        """Find the neuron under a place of the world."""
        if self.engine is not None and self._engine_for == self._circumstances() and not self.is_running:
            self._answer_click(self.engine, y_um, x_um)  # milliseconds: not worth a thread
        else:
            self._submit((y_um, x_um))

    def _submit(self, click: tuple[float, float] | None) -> None:
        request = self.request()
        if self.is_running:
            return
        doubt = self.models.doubt() if self.algorithm == "cista" else None
        if isinstance(request, list) or doubt is not None:
            self.view.text.show_problems([doubt] if doubt is not None else request)  # type: ignore[arg-type]
            return
        if click is not None and self.algorithm == "phase-space":
            self.view.text.show_problems(
                [
                    Problem(
                        "Phase space fits the whole light field.", "Use 'Detect all', or another algorithm."
                    )
                ]
            )
            return
        self._stop = stop = threading.Event()
        self._begin = time.perf_counter()
        circumstances = self._circumstances()
        engine = self.engine if self._engine_for == circumstances else None
        crew = self.panel.crew

        def report(event: Progress) -> None:
            if stop.is_set() or crew.closed:
                raise Stopped
            self._progress = (event.step, event.total, event.message)

        def work() -> Answer | None:
            try:
                return find(request, engine, report, everything=click is None)
            except Stopped:
                return None

        self._progress = (0, 0, "Preparing")
        self.view.show_running(True, True)
        self.view.show_progress(*self._progress)
        self._timer.start()
        self.background.submit(
            _JOB, work, lambda found: self._have(found, circumstances, click), self._failed
        )

    def stop(self) -> None:
        """End after the present step."""
        if self._stop is not None:
            self._stop.set()
            self.view.text.show_text("Stopping after this step...")

    def _end(self) -> float:
        self._timer.stop()
        self._stop = None
        self._look()
        return time.perf_counter() - self._begin

    def _failed(self, problem: Problem) -> None:
        self._end()
        self.view.text.show_problems([problem])

    def _have(self, found: Answer | None, circumstances: Any, click: tuple[float, float] | None) -> None:
        seconds = self._end()
        if found is None:
            self.view.text.show_text(coloured(f"Stopped after {duration(seconds)}.", "warning"))
            return
        if found.engine is not None:
            self.engine, self._engine_for = found.engine, circumstances
        if self._shown_for != circumstances:
            self._shown_for = circumstances
            self.points.begin(self._layer_name(), found.provenance)
        if click is not None and found.engine is not None:
            self.view.text.show_text("")
            self._answer_click(found.engine, *click)
            return
        self.points.show(as_features(found.points, "detected"), self.threshold)
        shown = self._count()
        text = f"{shown} neurons in {duration(seconds)}."
        if not len(found.points):
            text = "No neuron stands out. Lower the seed threshold under 'More settings'."
        self.view.text.show_text(coloured(text, "good" if len(found.points) else "warning"))

    def _layer_name(self) -> str:
        names = {"cista": "CISTA-net", "csc": "sparse coding", "phase-space": "phase space"}
        return f"{self.session.input_name('lightfield')} neurons ({names[self.algorithm]})"

    def _answer_click(self, engine: LocalizeEngine, y_um: float, x_um: float) -> None:
        begun = time.perf_counter()
        try:
            found = engine.at(y_um, x_um)
        except LfmError as error:
            self.view.text.show_problems([error.problem()])
            return
        from napari_lfm.methods.localization.table import points_table

        sure = found.taken(np.flatnonzero(found.confidence >= min(self.threshold, 0.15)))
        if not len(sure):
            problem = RequestError(
                "No depth can be told here.", "Click on a neuron, or lower the confidence."
            ).problem()
            self.view.text.show_problems([problem])
            return
        table = as_features(points_table(sure, engine.data, self.algorithm), "clicked")
        new = self.points.add(table)
        self._count()
        what = "1 neuron" if len(table) == 1 else f"{len(table)} neurons one above the other"
        known = "" if new else " It was there already."
        ms = 1e3 * (time.perf_counter() - begun)
        self.view.text.show_text(coloured(f"{what} in {ms:.0f} ms.{known}", "good"))

    # ------------------------------------------------------------------ points
    def move_threshold(self, value: float) -> None:
        """Show other detections; what was made by hand stays."""
        self.threshold = value
        self.points.filter(value)
        self._count()

    def _count(self) -> int:
        shown = len(self.points.table())
        self.view.show_threshold(self.threshold, shown, max(shown, len(self.points.found)))
        return shown

    def _corrected(self) -> None:
        self._count()

    def _show_point(self, place: tuple[float, float, float] | None) -> None:
        if place is None:
            self.view.show_point("")
            return
        table = self.points.table()
        away = np.linalg.norm(table[["z_um", "y_um", "x_um"]].to_numpy(float) - np.asarray(place), axis=1)
        self.view.show_point(point_words(table.iloc[int(away.argmin())].to_dict()))
        if self.engine is not None:
            self.view.plot.show_grounds(self.engine.grounds(*place), place[0])

    # ------------------------------------------------------------------- mouse
    def _toggle_click(self, on: bool) -> None:
        self.view.text.show_text("Click on a neuron." if on else "")
        if on and self.engine is None and not self.is_running and not isinstance(self.request(), list):
            self._warm_up()

    def _warm_up(self) -> None:
        """Make the engine ready before the first click asks for it."""
        if self.algorithm != "phase-space" and (self.algorithm != "cista" or self.models.offers):
            self._submit_warm()

    def _submit_warm(self) -> None:
        request = self.request()
        if isinstance(request, list):
            return
        circumstances = self._circumstances()

        def work() -> LocalizeEngine | None:
            return find(request, None, lambda _: None, everything=False).engine

        def have(engine: LocalizeEngine | None) -> None:
            if engine is not None and self.engine is None:
                self.engine, self._engine_for = engine, circumstances

        self.background.submit("warm", work, have, lambda problem: self.view.text.show_problems([problem]))

    def on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Take a click without a drag as a question (napari calls this for every press)."""
        if not self.view.click_button.isChecked() or getattr(event, "button", 1) != 1:
            return
        yield
        while event.type == "mouse_move":
            if event.is_dragging:
                return
            yield
        place = clicked_place(bare(viewer), event)
        if place is not None:
            self.click_at(*place)

    def _let_go(self) -> None:
        callbacks = self.session.viewer.mouse_drag_callbacks
        if self.on_mouse in callbacks:
            callbacks.remove(self.on_mouse)

    # ------------------------------------------------------------------ export
    def show_central_view(self) -> None:
        """Add the central view of the light field as a layer."""
        if self.engine is None:
            self.view.text.show_problems(
                [Problem("The light field has not been read yet.", "Press 'Detect all' first.")]
            )
            return
        from napari_lfm.io.layers import layer_data_from
        from napari_lfm.lightfield.views import subaperture_view

        data = self.engine.data
        view = subaperture_view(data.rectified, data.microscope)
        values, arguments, _ = layer_data_from(
            view,
            name=f"{self.session.input_name('lightfield')} central view",
            role="quicklook",
            colormap="gray",
        )
        self.session.viewer.add_image(values, **arguments)

    def ask_export(self) -> None:
        """Ask for a place, and write the points there."""
        path, _ = QFileDialog.getSaveFileName(self.panel, "Export points", "neurons.csv", "Points (*.csv)")
        if path:
            self.export(Path(path))

    def export(self, path: Path) -> None:
        """Write the points that are shown as CSV, with corrections in the record beside it."""
        from napari_lfm.io.points import write_points
        from napari_lfm.widgets.session import layer_record

        table = self.points.table()
        if not len(table) or self.points.layer is None:
            self.view.export_text.show_problems(
                [Problem("There are no points to export.", "Find some first.")]
            )
            return
        path = path if path.suffix else path.with_suffix(".csv")
        try:
            write_points(
                path, table.drop(columns="depth_um"), layer_record(self.points.layer).get("provenance")
            )
        except LfmError as error:
            self.view.export_text.show_problems([error.problem()])
            return
        text = f"{len(table)} points are in {path}."
        self.view.export_text.show_text(coloured(text, "good"))


class LocalizeWidget(Panel):
    """Find neurons in 3-D in a light field."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = LocalizeView()
        self.fill(self.view)
        self.controller = LocalizeController(self, self.view)
