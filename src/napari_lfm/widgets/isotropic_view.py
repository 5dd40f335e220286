"""The *Restore isotropic* panel as seen: it shows values and tells what was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from napari_lfm.methods.isotropic.parameters import IsotropicParameters
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox, ModelForm
from napari_lfm.widgets.isotropic_blur_view import BLUR_TIP, BlurBox
from napari_lfm.widgets.isotropic_texts import axial_pictures, slices_text
from napari_lfm.widgets.models_view import ModelBox
from napari_lfm.widgets.parts import Fold, WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.stack_view import StackBox
from napari_lfm.widgets.train_page import TrainRow
from napari_lfm.widgets.train_plots import Curve, Slices

if TYPE_CHECKING:
    from napari_lfm.widgets.train_course import Course

_OWN = ("train_minutes", "train_steps", "factor", "blur", "blur_um")
"""Parameters that have places of their own in the panel."""
_LABELS = {
    "mean": "join XZ and YZ by",
    "uncertainty": "disagreement layer",
    "consistency": "check against the stack",
    "probabilistic": "network states its error",
    "architecture": "new network",
    "psf_rule": "blur from PSF",
}
_FROM_SIDE, _FROM_TOP = "from the side (XZ)", "plane by plane (XY)"


class IsotropicRow(TrainRow):
    """Minutes, *Train and restore*, *Restore*, *Stop*, and how far it is."""

    def _lay_out(self, layout: QVBoxLayout) -> None:
        self.minutes_box = CalmDoubleSpinBox()
        self.minutes_box.setRange(0.1, 600.0)
        self.minutes_box.setDecimals(1)
        self.minutes_box.setValue(5.0)
        self.minutes_box.setSuffix(" min")
        self.minutes_box.setToolTip(
            "How long to train on this stack before it is restored. Most is gained in the first minutes."
        )
        layout.addLayout(row(QLabel("Train for"), self.minutes_box, self.run_button, stretch=2))
        layout.addLayout(row(self.continue_button, self.stop_button))

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.run_button.setText("Train and restore")
        self.run_button.setToolTip("Train on this very stack, then restore it")
        self.stop_button.setToolTip("End within a second; the best network so far is kept")
        self.restore_button = self.continue_button
        self.show_restore(training=False)

    def show_restore(self, training: bool) -> None:
        """Offer to restore at once: with the chosen model, or with the network that is being trained."""
        self.restore_button.setText("Enough: restore now" if training else "Restore")
        self.restore_button.setToolTip(
            "End the training, and restore with the best network so far"
            if training
            else "With the model that is chosen above, without training"
        )


class IsotropicView(QWidget):
    """Stack, blur, model, plan; how the training goes; what came out."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self._build_stack()
        self._build_blur()
        self._build_model()
        self._build_plan()
        self._build_course()
        self._build_result()
        self._column.addStretch(1)
        footer, layout = section("Run")
        self.run_row = IsotropicRow()
        self.run_row.minutes_box.valueChanged.connect(lambda _: self.changed.emit())
        layout.addWidget(self.run_row)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._scroll = scrolled(content)
        outer.addWidget(self._scroll, 1)
        outer.addWidget(footer)
        self.setMinimumWidth(360)

    # ------------------------------------------------------------------- build
    def _build_stack(self) -> None:
        box, layout = section("1  Stack")
        self.stack = StackBox(apart=True)
        layout.addWidget(self.stack)
        self.understood = WrappedLabel()
        layout.addWidget(self.understood)
        self.agree_box = QCheckBox("Restore it all the same")
        self.agree_box.setToolTip("There is little to gain where planes lie about as close as pixels")
        self.agree_box.toggled.connect(lambda _: self.changed.emit())
        self.agree_box.setVisible(False)
        layout.addWidget(self.agree_box)
        self._column.addWidget(box)

    def _build_blur(self) -> None:
        box, layout = section("2  Blur along z", BLUR_TIP)
        self.blur = BlurBox(self.stack)
        self.blur.changed.connect(self.changed)
        layout.addWidget(self.blur)
        self._column.addWidget(box)

    def _build_model(self) -> None:
        box, layout = section("3  Network", "What a training begins with, and what Restore uses")
        self.model_text = WrappedLabel()
        layout.addWidget(self.model_text)
        self.models = ModelBox()
        held = QWidget()
        inner = QVBoxLayout(held)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.models)
        self.model_fold = Fold("Choose another model, import, card", held)
        layout.addWidget(self.model_fold)
        self.form = ModelForm(IsotropicParameters, skip=_OWN, labels=_LABELS)
        self.form.changed.connect(self.changed)
        layout.addWidget(Fold("Settings of network and result", self.form))
        self._column.addWidget(box)

    def _build_plan(self) -> None:
        box, layout = section("What will be done")
        self.problems, self.estimate = WrappedLabel(), WrappedLabel()
        layout.addWidget(self.problems)
        layout.addWidget(self.estimate)
        self._column.addWidget(box)

    def _build_course(self) -> None:
        self.course_box, layout = section("How it goes")
        self.slices = Slices(below=True)
        self.slices_text = WrappedLabel()
        self.loss = Curve("Loss of the training", from_zero=True, waiting="begins with the first step")
        self.score = Curve(
            "PSNR of planes kept out", unit="dB", dots=True, waiting="comes with the first validation"
        )
        for widget in (self.slices, self.slices_text, self.loss, self.score):
            layout.addWidget(widget)
        self.slices.setVisible(False)
        self._column.addWidget(self.course_box)
        self.course_box.setVisible(False)

    def _build_result(self) -> None:
        self.result_box, layout = section("Result")
        self.result_text = WrappedLabel()
        layout.addWidget(self.result_text)
        self.share_text = WrappedLabel()
        layout.addWidget(self.share_text)
        self.beside_button = button("Side by side", "Stack and result in two cells; one camera moves both")
        self.beside_button.setCheckable(True)
        self.beside_combo = CalmComboBox()
        for key, text in (("side", _FROM_SIDE), ("top", _FROM_TOP)):
            self.beside_combo.addItem(text, key)
        self.beside_combo.setToolTip("Slices along z show what was gained, planes that nothing was lost")
        layout.addLayout(row(self.beside_button, self.beside_combo, stretch=1))
        self.resolution_button = button(
            "Measure resolution", "Along z, y and x, of the stack and of the result, without any truth"
        )
        self.evaluate_button = button(
            "Evaluate...", "Curves, widths along a line, and figures against a truth, in the panel for that"
        )
        layout.addLayout(row(self.resolution_button, self.evaluate_button))
        self.resolution_text = WrappedLabel()
        layout.addWidget(self.resolution_text)
        self.save_button = button(
            "Save...", "OME-TIFF or OME-Zarr, with sizes in micrometres and how it was made"
        )
        self.python_button = button("Copy as Python", "A script that repeats this run")
        self.command_button = button("Copy as command", "A command line that repeats this run")
        layout.addLayout(row(self.save_button, self.python_button, self.command_button))
        self.save_text = WrappedLabel()
        layout.addWidget(self.save_text)
        self._column.addWidget(self.result_box)
        self.result_box.setVisible(False)

    # -------------------------------------------------------------------- show
    def show_agreement(self, wanted: bool) -> None:
        """Ask whether a stack that is fine along z is restored; another stack is asked for anew."""
        if not wanted:
            self.agree_box.setChecked(False)
        self.agree_box.setVisible(wanted)

    def show_course(self, course: Course) -> None:
        """Show the curves, with what the network is compared with."""
        until = max(course.minutes, course.elapsed)
        self.loss.show_points(course.loss.points, until)
        line = None if course.baseline is None else (course.scoring.short, course.baseline)
        self.score.show_points(course.scores.points, until, line)
        self.course_box.setVisible(True)

    def show_slices(self, course: Course, pixel_um: float) -> None:
        """Show the slice along z, before and after."""
        pictures = axial_pictures(course.pictures)
        self.slices.show_pictures(pictures, pixel_um)
        self.slices_text.show_text(slices_text(course) if pictures else "")

    def forget_result(self) -> None:
        """Take away what was said of the last result: there will be another one."""
        self.result_box.setVisible(False)
        for label in (self.resolution_text, self.save_text):
            label.show_text("")

    def show_result(self, text: str, share: str) -> None:
        """Offer what can be done with a result."""
        self.result_box.setVisible(True)
        self.result_text.show_text(text)
        self.share_text.show_text(share)

    def scroll_to(self, box: QWidget) -> None:
        """Bring a box into sight, its upper end first."""
        bar = self._scroll.verticalScrollBar()
        if bar is not None:
            bar.setValue(min(bar.maximum(), max(0, box.y() - 4)))
