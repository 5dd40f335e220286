"""The *Refocus* panel as seen: image and model, the slider, surfaces, stack and movie, trust, fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox
from napari_lfm.widgets.models_view import ModelBox
from napari_lfm.widgets.parts import (
    Fold,
    Sparkline,
    WrappedLabel,
    button,
    panel_column,
    row,
    scrolled,
    section,
)
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.refocus_surface_view import SurfaceBox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.core.problems import Problem

HEADS = (
    ("Confocal (without haze)", "confocal"),
    ("Wide field (as the microscope sees it)", "widefield"),
    ("Both", "both"),
)
DECONVOLUTIONS = (("Wiener", "wiener"), ("Richardson-Lucy", "richardson-lucy"))
STEP_UM = 0.1
NO_IMAGE = "(choose an image layer)"


def length_box(low: float, high: float, value: float, tooltip: str) -> CalmDoubleSpinBox:
    """Return a box for micrometres."""
    box = CalmDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(3)
    box.setValue(value)
    box.setToolTip(tooltip)
    return box


class RefocusView(QWidget):
    """Shows values and tells what was clicked, no more."""

    layer_chosen = Signal(object)
    pixel_entered = Signal(float)
    head_chosen = Signal(str)
    z_moved = Signal(float)
    beside_wanted = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, column = panel_column()
        self._image(column)
        self._focus(column)
        self.surface = SurfaceBox()
        column.addWidget(self.surface)
        self._outputs(column)
        self._checks(column)
        self._tuning(column)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self.setMinimumWidth(340)
        self.show_range(10.0)
        self.show_ready(False)
        self.show_running(False)

    def _image(self, column: QVBoxLayout) -> None:
        box, layout = section("1  Image and model")
        self.layer_combo = CalmComboBox()
        self.layer_combo.setToolTip(
            "A flat image, or a movie or stack: then the frame or plane that is shown"
        )
        self.layer_combo.activated.connect(lambda k: self.layer_chosen.emit(self.layer_combo.itemData(k)))
        layout.addWidget(self.layer_combo)
        self.pixel_row = QWidget()
        self.pixel_box = length_box(
            0.0, 100.0, 0.0, "Of the image, in the sample: camera pixel over magnification"
        )
        self.pixel_box.valueChanged.connect(self.pixel_entered)
        self.pixel_row.setLayout(row(QLabel(f"Pixel size ({MICROMETRES})"), self.pixel_box, stretch=1))
        layout.addWidget(self.pixel_row)
        self.input_text = WrappedLabel()
        layout.addWidget(self.input_text)
        self.models = ModelBox()
        held = QWidget()  # the fold shows and hides this, and the box's controller the box
        inner = QVBoxLayout(held)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.models)
        self.model_fold = Fold("Choose another model, import, card", held)
        layout.addWidget(self.model_fold)
        column.addWidget(box)

    def _focus(self, column: QVBoxLayout) -> None:
        box, layout = section("2  Focus")
        self.head_combo = CalmComboBox()
        for title, name in HEADS:
            self.head_combo.addItem(title, name)
        self.head_combo.setToolTip("What is shown: the model gives both at once")
        self.head_combo.activated.connect(lambda k: self.head_chosen.emit(self.head_combo.itemData(k)))
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Show", self.head_combo)
        layout.addLayout(form)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip(
            "Distance from the image's own plane, of the focus drive; + in the direction of rising planes"
        )
        self.slider.valueChanged.connect(self._slid)
        self.z_box = CalmDoubleSpinBox()
        self.z_box.setDecimals(2)
        self.z_box.setSingleStep(STEP_UM)
        self.z_box.setStepType(CalmDoubleSpinBox.StepType.DefaultStepType)
        self.z_box.setKeyboardTracking(False)
        self.z_box.setMaximumWidth(110)  # the slider is what is dragged
        self.z_box.setToolTip("Also beyond the trained range, where the result is not to be trusted")
        self.z_box.valueChanged.connect(self._typed)
        layout.addLayout(row(QLabel("z"), self.slider, self.z_box, QLabel(MICROMETRES), stretch=1))
        self.beside_box = QCheckBox("Side by side with the image")
        self.beside_box.setToolTip(
            "In cells beside each other: image, refocused, and deconvolved where there is one"
        )
        self.beside_box.toggled.connect(self.beside_wanted)
        self.zero_button = button("Back to 0", "The image's own plane", lambda: self.set_z(0.0))
        layout.addLayout(row(self.beside_box, self.zero_button, stretch=0))
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        column.addWidget(box)

    def _outputs(self, column: QVBoxLayout) -> None:
        box, layout = section("4  Stack and movie")
        tip = "Planes of the stack, from the image's own plane"
        self.from_box = length_box(-100, 100, -5.0, tip)
        self.to_box = length_box(-100, 100, 5.0, tip)
        self.step_box = length_box(0.01, 20, 0.5, tip)
        layout.addLayout(
            row(QLabel("from"), self.from_box, QLabel("to"), self.to_box, QLabel(MICROMETRES), stretch=1)
        )
        self.stack_button = button("Make stack", "All these planes as one layer")
        layout.addLayout(
            row(QLabel("step"), self.step_box, QLabel(MICROMETRES), self.stack_button, stretch=3)
        )
        self.surface_button = button(
            "Make this surface", "What is shown as a layer of its own, with its record"
        )
        self.stop_button = button("Stop", "End within a second; what is finished is kept")
        layout.addLayout(row(self.surface_button, self.stop_button, stretch=0))
        self.drift_line = QLineEdit()
        self.drift_line.setPlaceholderText("no drift")
        self.drift_line.setToolTip(
            f"How far each frame's surface lies from the first one's, in {MICROMETRES}: one value per frame, "
            "or a single one for the drift from frame to frame"
        )
        self.csv_button = button("CSV...", "Read one value per frame from a file")
        self.drift_label = QLabel("Drift")
        self.drift_row = QWidget()
        self.drift_row.setLayout(row(self.drift_label, self.drift_line, self.csv_button, stretch=1))
        layout.addWidget(self.drift_row)
        self.movie_button = button("Make movie", "Every frame onto the surface, moved by the drift")
        layout.addWidget(self.movie_button)
        self.bar = QProgressBar()
        layout.addWidget(self.bar)
        self.run_text = WrappedLabel()
        layout.addWidget(self.run_text)
        column.addWidget(box)

    def _checks(self, column: QVBoxLayout) -> None:
        box, layout = section("5  Compare, and where to trust it")
        self.deconvolution_combo = CalmComboBox()
        for title, name in DECONVOLUTIONS:
            self.deconvolution_combo.addItem(title, name)
        self.deconvolution_combo.setToolTip(
            "With the known blur of this distance, no training; taken as one plane"
        )
        self.deconvolve_button = button("Deconvolve", "The same plane by physics alone, as a further layer")
        layout.addLayout(row(self.deconvolution_combo, self.deconvolve_button, stretch=0))
        self.trust_button = button(
            "Where to trust it",
            "Predicts planes over the whole range, blurs them again, and shows what of the image they leave "
            "unexplained",
        )
        self.cancel_button = button("Stop", "Give up after the present plane")
        layout.addLayout(row(self.trust_button, self.cancel_button, stretch=0))
        self.check_text = WrappedLabel()
        layout.addWidget(self.check_text)
        column.addWidget(box)

    def _tuning(self, column: QVBoxLayout) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 0, 8, 0)
        self.tune_hint = WrappedLabel()
        layout.addWidget(self.tune_hint)
        self.minutes_box = CalmDoubleSpinBox()
        self.minutes_box.setRange(0.05, 6000)
        self.minutes_box.setDecimals(2)
        self.minutes_box.setValue(10)
        self.minutes_box.setToolTip("More is better; 10 minutes change a little, an hour more")
        self.tune_button = button("Fine-tune", "Go on training the chosen model on this stack")
        self.tune_stop_button = button("Stop", "End after the present step; the best so far is kept")
        layout.addLayout(
            row(QLabel("Minutes"), self.minutes_box, self.tune_button, self.tune_stop_button, stretch=1)
        )
        self.tune_curve = Sparkline("Loss")
        self.tune_curve.setVisible(False)
        layout.addWidget(self.tune_curve)
        self.tune_text = WrappedLabel()
        layout.addWidget(self.tune_text)
        self.tune_fold = Fold("6  Fine-tune on this stack", content)
        column.addWidget(self.tune_fold)

    # --------------------------------------------------------------------- z
    @property
    def z_um(self) -> float:
        """The chosen distance."""
        return float(self.z_box.value())

    def set_z(self, z_um: float) -> None:
        """Move box and slider, and tell."""
        self.z_box.setValue(z_um)

    def _slid(self, step: int) -> None:
        self.z_box.setValue(round(step * STEP_UM, 6))

    def _typed(self, z_um: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(z_um / STEP_UM))
        self.z_moved.emit(z_um)

    # -------------------------------------------------------------------- show
    def show_layers(self, layers: Sequence[tuple[str, Any]], chosen: Any) -> None:
        """Fill the list of layers."""
        with QSignalBlocker(self.layer_combo):
            self.layer_combo.clear()
            self.layer_combo.addItem(NO_IMAGE, None)
            for name, layer in layers:
                self.layer_combo.addItem(name, layer)
                if layer is chosen:
                    self.layer_combo.setCurrentIndex(self.layer_combo.count() - 1)

    def show_pixel(self, ask: bool, guess_um: float = 0.0) -> None:
        """Ask for the pixel size where it is not known."""
        self.pixel_row.setVisible(ask)
        if ask and not self.pixel_box.value() and guess_um:
            with QSignalBlocker(self.pixel_box):
                self.pixel_box.setValue(guess_um)

    def show_range(self, range_um: float, limit_um: float | None = None) -> None:
        """Let the slider reach over the trained range, and the box a little further."""
        steps = round(range_um / STEP_UM)
        limit = limit_um or 1.25 * range_um
        with QSignalBlocker(self.slider), QSignalBlocker(self.z_box):
            self.slider.setRange(-steps, steps)
            self.slider.setPageStep(max(1, steps // 10))
            self.z_box.setRange(-limit, limit)
            self.slider.setValue(round(self.z_um / STEP_UM))

    def show_heads(self, confocal: bool) -> None:
        """Offer only the wide field where the model has no confocal head."""
        self.head_combo.setEnabled(confocal)
        if not confocal:
            self.head_combo.setCurrentIndex(1)

    def show_ready(self, ready: bool) -> None:
        """Enable what needs an image and a model."""
        for one in (self.slider, self.z_box, self.zero_button, self.beside_box, self.surface):
            one.setEnabled(ready)

    def show_running(
        self, running: bool, can_run: bool = False, movie: bool = False, surface: bool = False
    ) -> None:
        """Enable what can be pressed while a run goes on, and while none does."""
        self.stack_button.setEnabled(can_run and not running)
        self.surface_button.setEnabled(can_run and surface and not running)
        self.movie_button.setEnabled(can_run and movie and not running)
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)

    def show_movie(self, frames: int) -> None:
        """Show what movies need, where there is one."""
        self.drift_row.setVisible(frames > 1)
        self.movie_button.setVisible(frames > 1)

    def show_progress(self, step: int, total: int, text: str) -> None:
        """Show how far a run is."""
        self.bar.setRange(0, max(0, total))
        self.bar.setValue(min(step, total))
        self.bar.setFormat(f"{step} of {total}" if total > 1 else "")
        self.run_text.show_text(text)

    def show_checking(self, busy: bool, can: bool) -> None:
        """Enable the comparisons."""
        self.deconvolve_button.setEnabled(can and not busy)
        self.trust_button.setEnabled(can and not busy)
        self.cancel_button.setEnabled(busy)

    def show_tuning(self, running: bool, can: bool) -> None:
        """Enable the fine-tuning."""
        self.tune_button.setEnabled(can and not running)
        self.minutes_box.setEnabled(not running)
        self.tune_stop_button.setEnabled(running)

    def show_problem(self, *problems: Problem) -> None:
        """Say what is wrong with the image, the model or the plane."""
        self.text.show_problems(problems)
