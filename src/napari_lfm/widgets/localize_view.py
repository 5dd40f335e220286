"""The *Localize* panel as seen: what is looked at, how, the threshold, a click, the selected point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.form import CalmComboBox, ModelForm
from napari_lfm.widgets.localize_input import LocalizeSettings
from napari_lfm.widgets.localize_plot import GroundsPlot
from napari_lfm.widgets.localize_traces import TracePlot
from napari_lfm.widgets.models_view import ModelBox
from napari_lfm.widgets.parts import Fold, WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

ALGORITHMS = (
    ("CISTA-net (trained network)", "cista"),
    ("Sparse coding of epipolar images", "csc"),
    ("Phase space (whole light field)", "phase-space"),
)
_STEPS = 100
_HINT = "Select a point to see what it rests on. Move, add or delete points with the tools of their layer."


class LocalizeView(QWidget):
    """Shows values and tells what was clicked, no more."""

    algorithm_chosen = Signal(str)
    changed = Signal()
    threshold_moved = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, column = panel_column()
        self._how(column)
        self._find(column)
        self._point(column)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self.setMinimumWidth(340)
        self.show_running(False, False)
        self.show_point("")

    def _how(self, column: QVBoxLayout) -> None:
        box, layout = section("1  What is looked at, and how")
        self.input_text = WrappedLabel()
        layout.addWidget(self.input_text)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        self.algorithm_combo = CalmComboBox()
        for title, name in ALGORITHMS:
            self.algorithm_combo.addItem(title, name)
        self.algorithm_combo.setToolTip(
            "How depths are found; several can be compared, each in a layer of its own"
        )
        self.algorithm_combo.activated.connect(
            lambda k: self.algorithm_chosen.emit(self.algorithm_combo.itemData(k))
        )
        form.addRow("Algorithm", self.algorithm_combo)
        layout.addLayout(form)
        self.movie_box = QCheckBox("The whole movie, with traces")
        self.movie_box.setChecked(True)
        self.movie_box.setToolTip(
            "Neurons are looked for in what changes, or in the mean, and their traces are read; "
            "otherwise in the frame that is chosen on the Light field panel"
        )
        self.movie_box.toggled.connect(self.changed)
        self.movie_box.setVisible(False)
        layout.addWidget(self.movie_box)
        self.models = ModelBox()
        layout.addWidget(self.models)
        self.form = ModelForm(LocalizeSettings)
        self.form.changed.connect(self.changed)
        layout.addWidget(Fold("More settings", self.form))
        column.addWidget(box)

    def _find(self, column: QVBoxLayout) -> None:
        box, layout = section("2  Find neurons")
        self.detect_button = button("Detect all", "Find every neuron that stands out in the central view")
        self.stop_button = button("Stop", "End after the present step")
        self.compare_button = button(
            "Compare all",
            "Run all three algorithms, each into a layer of its own, and say how far they agree; "
            "the optics of two of them are computed once, which takes a minute or two",
        )
        layout.addLayout(row(self.detect_button, self.compare_button, self.stop_button))
        self.click_button = QPushButton("Click to localise")
        self.click_button.setCheckable(True)
        self.click_button.setAutoDefault(False)
        self.click_button.setToolTip(
            "While this is on, a click (without dragging) on the light field, on its central view or on a "
            "reconstructed volume finds the neuron there; in 3-D too"
        )
        layout.addWidget(self.click_button)
        self.bar = QProgressBar()
        layout.addWidget(self.bar)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(1, _STEPS)
        self.slider.setToolTip("Least confidence of a point; what you clicked, moved or added stays")
        self.slider.valueChanged.connect(lambda k: self.threshold_moved.emit(k / _STEPS))
        self.threshold_label = QLabel()
        layout.addLayout(row(QLabel("Confidence"), self.slider, self.threshold_label, stretch=1))
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        column.addWidget(box)

    def _point(self, column: QVBoxLayout) -> None:
        box, layout = section("3  Points")
        self.point_text = WrappedLabel()
        layout.addWidget(self.point_text)
        self.plot = GroundsPlot()
        layout.addWidget(self.plot)
        self.trace_plot = TracePlot()
        layout.addWidget(self.trace_plot)
        self.export_button = button(
            "Export CSV...",
            "Points in micrometres and the traces of a movie, with the record of how they were made",
        )
        self.view_button = button("Central view", "Show the central view of the light field as a layer")
        self.traces_button = button(
            "Read traces", "Read what the points that are shown did in the movie; select points to see them"
        )
        layout.addLayout(row(self.export_button, self.traces_button, self.view_button))
        self.export_text = WrappedLabel()
        layout.addWidget(self.export_text)
        column.addWidget(box)

    # -------------------------------------------------------------------- show
    def show_threshold(self, value: float, shown: int, of: int) -> None:
        """Show the threshold and how many points it leaves."""
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(value * _STEPS))
        self.threshold_label.setText(f"{value:.2f}   {shown} of {of}" if of else f"{value:.2f}")

    def show_frames(self, frames: int) -> None:
        """Offer the whole movie where there is one."""
        self.movie_box.setVisible(frames > 1)
        self.traces_button.setVisible(frames > 1)

    def show_running(self, running: bool, can_run: bool) -> None:
        """Enable what can be pressed now."""
        self.detect_button.setEnabled(can_run and not running)
        self.traces_button.setEnabled(can_run and not running)
        self.click_button.setEnabled(can_run)
        self.view_button.setEnabled(can_run and not running)
        self.stop_button.setEnabled(running)
        self.algorithm_combo.setEnabled(not running)
        if not running:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")

    def show_can_compare(self, can: bool) -> None:
        """Enable the comparison: some algorithms need no model."""
        self.compare_button.setEnabled(can)

    def show_progress(self, step: int, steps: int, message: str) -> None:
        """Show how far it is; `steps` of 0 for not known yet."""
        self.bar.setRange(0, steps)
        self.bar.setValue(step)
        self.bar.setFormat(f"{step} of {steps}" if steps > 1 else "")
        self.text.show_text(message)

    def show_point(self, text: str, several: int = 0) -> None:
        """Describe the selected point; an empty text asks for one, unless traces of several are drawn."""
        self.point_text.show_text(text or (f"Traces of {several} points." if several else _HINT))
        if not text:
            self.plot.show_grounds(None)

    def show_algorithms(self, chosen: str) -> None:
        """Show which algorithm is chosen."""
        names: Sequence[str] = [name for _, name in ALGORITHMS]
        with QSignalBlocker(self.algorithm_combo):
            self.algorithm_combo.setCurrentIndex(names.index(chosen))
