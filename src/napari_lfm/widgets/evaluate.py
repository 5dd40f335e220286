"""The *Evaluate* dock widget: how good is this image, by itself and against a truth."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_lfm.core.evaluation import Evaluation, evaluate
from napari_lfm.core.evaluation_show import charts_of, width_text, write_charts
from napari_lfm.core.problems import LfmError, Problem
from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.chart_view import save_png
from napari_lfm.widgets.evaluate_input import LINE_NAME, image_of, image_words, line_in, line_layers
from napari_lfm.widgets.evaluate_side import EvaluateSide
from napari_lfm.widgets.evaluate_texts import notes_html, table_html
from napari_lfm.widgets.evaluate_view import EvaluateView
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.resolve_stack import size_problems
from napari_lfm.widgets.session import bare, layer_record, update_record
from napari_lfm.widgets.stack_comparison import listener
from napari_lfm.widgets.stack_input import stack_layers
from napari_lfm.widgets.texts import problems_html

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.layers import Image

    from napari_lfm.widgets.parts import WrappedLabel

TITLE = "Evaluate"
_TICK_MS = 100


class EvaluateController:
    """Connects the view with the viewer's layers and the measures."""

    def __init__(self, panel: EvaluateWidget, view: EvaluateView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.viewer = self.session.viewer
        self.image: Image | None = None
        self.truth: Image | None = None
        self.line: Any = None
        self.found: Evaluation | None = None
        self.beside = EvaluateSide(self)
        self.busy = False
        self._stop = threading.Event()
        self._share = 0.0
        self._timer = QTimer(panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        panel.crew.at_close(self._stop.set)
        view.image_chosen.connect(lambda layer: self.choose(layer, self.truth))
        view.truth_chosen.connect(lambda layer: self.choose(self.image, layer))
        view.measure_button.clicked.connect(lambda: self.measure())
        view.save_button.clicked.connect(lambda: self.ask_save())
        view.line_combo.activated.connect(lambda i: self.choose_line(view.line_combo.itemData(i)))
        view.draw_button.clicked.connect(lambda: self.draw_line())
        view.line_button.clicked.connect(lambda: self.measure_line())
        view.stop_button.clicked.connect(self._stop.set)
        panel.listen(self.session.layers_changed, self.refresh)
        self.refresh()

    # ------------------------------------------------------------------- input
    def choose(self, image: Any, truth: Any) -> None:
        """Take an image, and a truth or None; what was measured of others is forgotten."""
        image, truth = bare(image), bare(truth)
        if image is self.image and truth is self.truth:
            return
        self.image, self.truth, self.found = image, truth, None
        for label in (self.view.table, self.view.text, self.view.line_text):
            label.show_text("")
        self.view.charts.show_charts([])
        self.view.profile.show_chart(None)
        self._show()
        self.view.tick([x for x in (image, truth) if x is not None])

    def choose_line(self, layer: Any) -> None:
        """Take the layer that holds the line."""
        self.line = bare(layer)
        self.show_buttons()

    def refresh(self) -> None:
        """Follow the layers that are there."""
        here = [bare(x) for x in self.viewer.layers]
        self.beside.refresh(here)
        image, truth = (x if x in here else None for x in (self.image, self.truth))
        if image is None:
            image = self._first(exclude=truth)
        lines = [bare(x) for x in line_layers(self.viewer)]
        if self.line not in lines:
            self.line = lines[-1] if lines else None
        self.choose(image, truth)
        self._show()

    def _first(self, exclude: Any) -> Image | None:
        """Return the newest result, else the newest image."""
        layers = [bare(x) for x in stack_layers(self.session.images()) if bare(x) is not exclude]
        made = [x for x in layers if layer_record(x).get("role") == "volume"]
        return (made or layers or [None])[-1]

    # -------------------------------------------------------------------- work
    def measure(self) -> None:
        """Measure everything."""
        pair = self.pair(self.view.text)
        if pair is None:
            return
        image, truth = pair
        aligned = self.aligned()
        self.view.text.show_text("")

        def compute() -> Evaluation:
            return evaluate(image, truth, aligned=aligned, on_step=self.listener())

        self.work("evaluate", compute, self._measured, self.view.text)

    def _measured(self, found: Evaluation) -> None:
        self.found = found
        self.view.table.show_text(table_html(found))
        self.view.text.show_text(notes_html(found))
        self.view.charts.show_charts(charts_of(found))
        self.idle()

    def draw_line(self) -> None:
        """Let the user draw a line; a new layer for it if there is none of this panel."""
        if self.image is None:
            return
        layer = next(
            (x for x in map(bare, line_layers(self.viewer)) if layer_record(x).get("role") == "profile"), None
        )
        if layer is None:
            image = self.image
            layer = bare(
                self.viewer.add_shapes(
                    ndim=image.ndim,
                    name=LINE_NAME,
                    edge_color="#ffd400",
                    edge_width=max(1.0, 0.004 * max(image.data.shape[-2:])) if not image.multiscale else 2.0,
                    scale=image.scale,
                    translate=image.translate,
                    units=image.units,
                    axis_labels=image.axis_labels,
                )
            )
            update_record(layer, role="profile")
        self.line = layer
        self.refresh()
        self.viewer.layers.selection.active = layer
        layer.mode = "add_line"
        self.view.line_text.show_text("Drag a line across a bright structure, then press Measure the width.")

    def measure_line(self) -> None:
        """Measure the profile along the line, in the image and in the truth."""
        pair = self.pair(self.view.line_text)
        if pair is None or self.line is None or self.image is None:
            return
        try:
            ends = line_in(self.line, self.image, self.viewer)
        except LfmError as error:
            self.view.line_text.show_problems([error.problem()])
            return
        image, truth = pair
        aligned = self.aligned()

        def compute() -> Evaluation:
            return evaluate(
                image,
                truth,
                aligned=aligned,
                resolution=False,
                profile_um=ends,
                on_step=self.listener(),
            )

        self.work("line", compute, self._profiled, self.view.line_text)

    def _profiled(self, found: Evaluation) -> None:
        known = self.found
        if known is None or known.own is None:
            self.found = found
        else:
            self.found = replace(known, profile=found.profile, truth_profile=found.truth_profile)
            self.view.charts.show_charts([c for c in charts_of(self.found) if c.key != "profile"])
        self.view.profile.show_chart(charts_of(found)[-1])
        parts = (("Image", found.profile), ("Truth", found.truth_profile))
        self.view.line_text.show_text(
            "<br>".join(f"<b>{name}:</b> {width_text(one)}" for name, one in parts if one is not None)
        )
        self.idle()

    def pair(self, text: WrappedLabel) -> tuple[Any, Any] | None:
        """Return image and truth, or say what is wrong with them."""
        if self.image is None:
            return None
        try:
            image = image_of(self.image, self.viewer)
            truth = None if self.truth is None else image_of(self.truth, self.viewer)
        except LfmError as error:
            text.show_problems([error.problem()])
            return None
        problems = [p for x in (image, truth) if x is not None for p in size_problems(x)]
        if problems:
            text.show_problems(problems)
            return None
        return image, truth

    def aligned(self) -> bool:
        """Whether the image is to be moved onto the truth first."""
        return self.truth is not None and self.view.align_box.isChecked()

    def listener(self) -> Callable[[float], None]:
        """Return what a computation tells its progress; it ends the computation when Stop is pressed."""
        out: Callable[[float], None] = listener(self._stop, self._tell)
        return out

    def work(
        self, key: str, function: Callable[[], Any], done: Callable[[Any], None], text: WrappedLabel
    ) -> None:
        """Compute in a worker thread; then `done`, or a sentence in `text`."""
        if self.busy:
            return
        self._stop.clear()
        self.busy, self._share = True, 0.0
        self._timer.start()
        self._tick()
        self.show_buttons()

        def failed(problem: Problem) -> None:
            stopped = self._stop.is_set()
            text.show_text("Stopped.") if stopped else text.show_problems([problem])
            self.idle()

        self.panel.background.submit(key, function, done, failed)

    def _tell(self, share: float) -> None:
        self._share = share  # a float: written by the worker, read by the timer

    def _tick(self) -> None:
        self.view.progress.setValue(round(100 * self._share))

    def idle(self) -> None:
        """Show that nothing is computed any more."""
        self.busy = False
        self._timer.stop()
        self.show_buttons()

    # -------------------------------------------------------------------- save
    def ask_save(self) -> None:
        """Ask for a folder, and write charts and figures into it."""
        folder = QFileDialog.getExistingDirectory(self.panel, "Save charts and figures")
        if folder:
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write charts (PNG, SVG) and figures (CSV) into a folder."""
        if self.found is None:
            return
        try:
            files = write_charts(self.found, folder)
            for chart in charts_of(self.found):
                save_png(chart, folder / f"{chart.key}.png")
        except Exception as error:
            self.view.text.show_problems([problem_of(error)])
            return
        count = len(files) + len(charts_of(self.found))
        self.view.text.show_text(f"{count} files are in {folder}.<br>{notes_html(self.found)}")

    # -------------------------------------------------------------------- show
    def _show(self) -> None:
        layers = [(x.name, bare(x)) for x in stack_layers(self.session.images())]
        self.view.show_layers(layers, self.image, self.truth)
        self.view.show_lines([(x.name, bare(x)) for x in line_layers(self.viewer)], self.line)
        lines = []
        for title, layer in (("Image", self.image), ("Truth", self.truth)):
            if layer is None:
                continue
            try:
                image = image_of(layer, self.viewer)
                words = image_words(layer, self.viewer)
            except LfmError as error:
                lines.append(problems_html([error.problem()]))
                continue
            lines.append(f"<b>{title}:</b> {words}")
            if size_problems(image):
                lines.append(problems_html(size_problems(image)))
        self.view.input_text.show_text("<br>".join(lines) or "Open an image first.")
        self.show_buttons()

    def show_buttons(self) -> None:
        """Enable what can be done now."""
        self.view.show_buttons(
            image=self.image is not None,
            truth=self.truth is not None,
            line=self.line is not None,
            busy=self.busy,
            beside=self.beside.side.active,
            measured=self.found is not None,
        )


class EvaluateWidget(Panel):
    """Measure resolution and errors of a layer, with curves, widths and a view side by side."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = EvaluateView()
        self.fill(self.view)
        self.controller = EvaluateController(self, self.view)
