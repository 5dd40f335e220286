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
from napari_lfm.methods.localize import default_threshold
from napari_lfm.widgets.localize_click import ClickTool
from napari_lfm.widgets.localize_compare import NAMES, SYMBOLS, Comparison
from napari_lfm.widgets.localize_export import export_points
from napari_lfm.widgets.localize_input import parameters_of, point_words
from napari_lfm.widgets.localize_points import PointsOfNeurons, as_features
from napari_lfm.widgets.localize_run import Answer, Stopped, find, traces_of
from napari_lfm.widgets.localize_view import LocalizeView
from napari_lfm.widgets.models import Models
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.resolve import frame_count, microscope_problems, resolve
from napari_lfm.widgets.session import layer_info, layer_record
from napari_lfm.widgets.state import ROLES, ReconstructState
from napari_lfm.widgets.texts import coloured, understood_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.core.events import Progress
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.localization.engine import LocalizeEngine
    from napari_lfm.widgets.localize_traces import MovieTraces

TITLE = "Localize"
_TICK_MS = 100
_JOB = "localize"


class LocalizeController:
    """Connects the view with the session, the engine and the points layer."""

    def __init__(self, panel: LocalizeWidget, view: LocalizeView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.background = panel.background
        self.algorithm = "cista"
        self.threshold = default_threshold(self.algorithm, "joint")
        self.points = PointsOfNeurons(self.session.viewer, self._show_point, self._corrected)
        self.engine: LocalizeEngine | None = None
        self._engine_for: Any = None
        self._shown_for: Any = None
        self.traces: MovieTraces | None = None
        self._stop: threading.Event | None = None
        self.comparison = Comparison(self)
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
        view.compare_button.clicked.connect(lambda: self.comparison.begin())
        view.traces_button.clicked.connect(lambda: self.read_traces())
        view.export_button.clicked.connect(lambda: self.ask_export())
        view.view_button.clicked.connect(lambda: self.show_central_view())
        for signal in (
            self.session.inputs_changed,
            self.session.microscope_changed,
            self.session.lattice_changed,
        ):
            panel.listen(signal, self._look)
        self.clicks = ClickTool(self)
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
        self.threshold = default_threshold(name, self.view.form.values()["fit"])
        self.view.show_algorithms(name)
        self.view.models.setVisible(name == "cista")
        self.points.symbol = SYMBOLS[name]
        self.points.begin(self._layer_name())
        self._shown_for = self.traces = None
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
            frame=self._frame,
            device=load_settings().device,
            memory_gib=load_settings().memory_gib or None,
            model=self.models.key if self.algorithm == "cista" else None,
        )
        found = resolve(state, session.infos())
        # a click is a place in micrometres: without a microscope there are none
        lacking = microscope_problems(session.microscope)
        return found if isinstance(found, list) or not lacking else lacking

    @property
    def _frame(self) -> int | None:
        """The frame that is looked at; None for the whole movie."""
        return None if self._frames() > 1 and self.view.movie_box.isChecked() else self.session.frame

    def _frames(self) -> int:
        layer = self.session.input("lightfield")
        return 0 if layer is None else frame_count(layer_info(layer), self.session.layout)

    def circumstances(self) -> Any:
        """Return all that an engine depends on, to compare."""
        session = self.session
        data = [0 if (one := session.input(role)) is None else id(one.data) for role in ROLES]
        values = tuple(sorted(self.view.form.values().items(), key=lambda item: item[0]))
        model = self.models.key if self.algorithm == "cista" else None
        micro = None if session.microscope is None else session.microscope.model_dump_json()
        lattice = None if session.lattice is None else str(session.lattice.to_json())
        return (tuple(data), values, model, micro, lattice, self._frame, session.layout, self.algorithm)

    def _look(self) -> None:
        """Say what is there and what is missing."""
        if not hasattr(self, "models"):
            return
        self.view.show_frames(self._frames())
        found = self.request()
        if isinstance(found, list):
            self.view.input_text.show_problems(found)
        else:
            self.view.input_text.show_text(understood_html(found))
        lacking = self.algorithm == "cista" and not self.models.offers
        self.view.show_running(self.is_running, not isinstance(found, list) and not lacking)
        self.view.show_can_compare(not self.is_running and not isinstance(found, list))

    # --------------------------------------------------------------------- run
    def detect(self) -> None:
        """Find every neuron, in a worker thread."""
        self._submit(None)

    def click_at(self, y_um: float, x_um: float) -> None:
        """Find the neuron under a place of the world."""
        if self.engine is not None and self._engine_for == self.circumstances() and not self.is_running:
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
        circumstances, name = self.circumstances(), self._layer_name()
        engine = self.engine if self._engine_for == circumstances else None
        report = self._begin_job()

        def work() -> Answer | None:
            try:
                return find(request, engine, report, everything=click is None)
            except Stopped:
                return None

        self.background.submit(
            _JOB, work, lambda found: self._have(found, circumstances, name, click), self._failed
        )

    def take_engine(self, engine: LocalizeEngine, circumstances: Any) -> None:
        """Answer questions with an engine as long as nothing that it depends on changes."""
        self.engine, self._engine_for = engine, circumstances

    def stop(self) -> None:
        """End after the present step."""
        self.comparison.give_up()
        if self._stop is not None:
            self._stop.set()
            self.view.text.show_text("Stopping after this step...")

    def _end(self) -> float:
        self._timer.stop()
        self._stop = None
        self._look()
        return time.perf_counter() - self._begin

    def _failed(self, problem: Problem) -> None:
        self.comparison.give_up()
        self._end()
        self.view.text.show_problems([problem])

    def _have(
        self, found: Answer | None, circumstances: Any, name: str, click: tuple[float, float] | None
    ) -> None:
        seconds = self._end()
        if found is None:
            self.view.text.show_text(coloured(f"Stopped after {duration(seconds)}.", "warning"))
            return
        self.engine, self._engine_for = found.engine, circumstances
        if self._shown_for != circumstances:
            self._shown_for, self.traces = circumstances, None
            self.points.begin(name, found.provenance)
        if click is not None and found.engine is not None:
            self.view.text.show_text("")
            self._answer_click(found.engine, *click)
            return
        self.points.show(as_features(found.points, "detected"), self.threshold)
        self.traces = found.traces or self.traces
        shown = self._count()
        text = f"{shown} neurons in {duration(seconds)}."
        if not len(found.points):
            text = "No neuron stands out. Lower the seed threshold under 'More settings'."
        self.view.text.show_text(coloured(text, "good" if len(found.points) else "warning"))
        if self.comparison.is_going:
            self.comparison.go_on()
        elif len(found.points) and self.engine is not None and self.engine.frames > 1:
            self.read_traces()

    def read_traces(self) -> None:
        """Read what the points that are shown did in the movie, in a worker thread."""
        engine, table = self.engine, self.points.table()
        if self.is_running:
            return
        if engine is None or not len(table) or engine.frames < 2:
            problem = Problem(
                "There are no neurons of a movie to read.",
                "Detect neurons in a movie first, by CISTA-net or sparse coding.",
            )
            self.view.export_text.show_problems([problem])
            return
        places = table[["z_um", "y_um", "x_um"]].to_numpy(float)
        done = self.view.text.text()
        report = self._begin_job()

        def work() -> MovieTraces | None:
            try:
                return traces_of(engine, places, report)
            except Stopped:
                return None

        def have(found: MovieTraces | None) -> None:
            self._end()
            self.view.text.show_text(done if found is not None else coloured("Stopped.", "warning"))
            self.traces = found or self.traces
            self.show_selected()

        self.background.submit(_JOB, work, have, self._failed)

    def _begin_job(self) -> Callable[[Progress], None]:
        """Show that something runs; returns what it reports to, which ends it when it is to stop."""
        self._stop = stop = threading.Event()
        self._begin = time.perf_counter()
        crew = self.panel.crew

        def report(event: Progress) -> None:
            if stop.is_set() or crew.closed:
                raise Stopped
            self._progress = (event.step, event.total, event.message)

        self._progress = (0, 0, "Preparing")
        self.view.show_running(True, True)
        self.view.show_can_compare(False)
        self.view.show_progress(*self._progress)
        self._timer.start()
        return report

    def _layer_name(self) -> str:
        return f"{self.session.input_name('lightfield')} neurons ({NAMES[self.algorithm]})"

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

    def show_selected(self) -> None:
        """Show what the selected points rest on, and their traces."""
        self._show_point(self.points.selected())

    def _show_point(self, place: tuple[float, float, float] | None) -> None:
        drawn = self.view.trace_plot.show_traces(self.traces, self.points.selected_places())
        if place is None:
            self.view.show_point("", several=drawn)
            return
        table = self.points.table()
        away = np.linalg.norm(table[["z_um", "y_um", "x_um"]].to_numpy(float) - np.asarray(place), axis=1)
        self.view.show_point(point_words(table.iloc[int(away.argmin())].to_dict()))
        if self.engine is not None:
            self.view.plot.show_grounds(self.engine.grounds(*place), place[0])

    # ------------------------------------------------------------------ export
    def show_central_view(self) -> None:
        """Add the central view of the light field as a layer."""
        if self.engine is None:
            self.view.text.show_problems(
                [Problem("The light field has not been read yet.", "Press 'Detect all' first.")]
            )
            return
        self.points.show_central_view(self.engine.data, self.session.input_name("lightfield"))

    def ask_export(self) -> None:
        """Ask for a place, and write the points there."""
        path, _ = QFileDialog.getSaveFileName(self.panel, "Export points", "neurons.csv", "Points (*.csv)")
        if path:
            self.export(Path(path))

    def export(self, path: Path) -> None:
        """Write the points that are shown, and their traces, as CSV; corrections are in the record beside."""
        layer = self.points.layer
        record = {} if layer is None else layer_record(layer)
        try:
            text = export_points(path, self.points.table(), record.get("provenance"), self.traces)
        except LfmError as error:
            self.view.export_text.show_problems([error.problem()])
            return
        self.view.export_text.show_text(coloured(text, "good"))


class LocalizeWidget(Panel):
    """Find neurons in 3-D in a light field."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = LocalizeView()
        self.fill(self.view)
        self.controller = LocalizeController(self, self.view)
