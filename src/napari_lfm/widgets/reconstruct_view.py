"""The *Reconstruct* panel as seen: no behaviour beyond showing values and telling what was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QButtonGroup,
    QFormLayout,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.core.devices import DEVICE_NAMES
from napari_lfm.widgets.form import CalmComboBox, CalmDoubleSpinBox, ModelForm
from napari_lfm.widgets.models_view import ModelBox
from napari_lfm.widgets.parts import Fold, WrappedLabel, button, panel_column, row, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.run_row import RunRow
from napari_lfm.widgets.stack_view import StackBox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

_DEVICE_TEXTS = {
    "auto": "the fastest there is",
    "cpu": "processor (CPU)",
    "cuda": "NVIDIA graphics card",
    "mps": "Apple graphics",
}


COMPARISONS = {
    "all": "Show measured, predicted, residual",
    "measured": "Show the measured light field",
    "predicted": "Show the predicted light field",
    "residual": "Show the residual",
    "volume": "Back to the volume",
}


class ReconstructView(QWidget):
    """What to do, what it will take, Run, and what to do with the result."""

    method_chosen = Signal(str)
    comparison_chosen = Signal(str)
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self.form: ModelForm | None = None
        self._build_method()
        self._build_region()
        self._build_machine()
        self._build_plan()
        self._build_result()
        self._column.addStretch(1)
        # Run stays in sight however far the settings are scrolled
        self.run_row = RunRow()
        footer, layout = section("Run")
        layout.addWidget(self.run_row)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._scroll = scrolled(content)
        outer.addWidget(self._scroll, 1)
        outer.addWidget(footer)
        self.setMinimumWidth(340)

    # ------------------------------------------------------------------- build
    def _build_method(self) -> None:
        box, self._method_layout = section("Method")
        self.method_combo = CalmComboBox()
        self.method_combo.activated.connect(
            lambda index: self.method_chosen.emit(self.method_combo.itemData(index))
        )
        self._method_layout.addWidget(self.method_combo)
        self.summary = WrappedLabel()
        self._method_layout.addWidget(self.summary)
        self.stack = StackBox()
        self._method_layout.addWidget(self.stack)
        self.models = ModelBox()
        self._method_layout.addWidget(self.models)
        self._form_place = QVBoxLayout()
        self._method_layout.addLayout(self._form_place)
        self.reset_button = button(
            "Reset to defaults", "Put all parameters back to what suits the microscope"
        )
        self._method_layout.addWidget(self.reset_button)
        self._column.addWidget(box)

    def _build_region(self) -> None:
        self.region_box, layout = section("Region")
        self.whole_button = QRadioButton("whole field")
        self.drawn_button = QRadioButton("drawn rectangle")
        self.drawn_button.setToolTip("A small region first is the fastest way to find good settings")
        self.whole_button.setChecked(True)
        group = QButtonGroup(self)
        group.addButton(self.whole_button)
        group.addButton(self.drawn_button)
        self.draw_button = button("Draw...", "Draw one rectangle over the image")
        layout.addWidget(self.whole_button)
        layout.addLayout(row(self.drawn_button, self.draw_button, stretch=0))
        self.drawn_button.toggled.connect(lambda _: self.changed.emit())
        self._column.addWidget(self.region_box)

    def _build_machine(self) -> None:
        content = QWidget()
        form = QFormLayout(content)
        form.setContentsMargins(0, 0, 0, 0)
        self.device_combo = CalmComboBox()
        for name in DEVICE_NAMES:
            self.device_combo.addItem(_DEVICE_TEXTS[name], name)
        self.device_combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.memory_box = CalmDoubleSpinBox()
        self.memory_box.setRange(0.0, 4096.0)
        self.memory_box.setSpecialValueText("80 % of what is free")
        self.memory_box.setToolTip("The run stays within this; it takes a slower path where it has to")
        self.memory_box.valueChanged.connect(lambda _: self.changed.emit())
        form.addRow("Compute on", self.device_combo)
        form.addRow("Memory (GiB)", self.memory_box)
        self._column.addWidget(Fold("Computer: processor and memory", content))

    def _build_plan(self) -> None:
        box, layout = section("What will be done")
        self.understood = WrappedLabel()
        self.estimate = WrappedLabel()
        self.problems = WrappedLabel()
        for label in (self.problems, self.understood, self.estimate):
            layout.addWidget(label)
        self._column.addWidget(box)

    def _build_result(self) -> None:
        self.result_box, layout = section("Result")
        self.result_text = WrappedLabel()
        layout.addWidget(self.result_text)
        self.save_button = button(
            "Save...", "OME-TIFF or OME-Zarr, with sizes in micrometres and how it was made"
        )
        self.check_button = button(
            "Check (re-project)",
            "Compute the light field that this volume would give, and lay it over the measured one",
        )
        self.compare_stacks_button = button(
            "Compare...", "Sharpness against depth, error map, and side by side with other stacks"
        )
        self.compare_stacks_button.setVisible(False)
        layout.addLayout(row(self.save_button, self.check_button, self.compare_stacks_button))
        self.python_button = button("Copy as Python", "A script that repeats this run")
        self.command_button = button("Copy as command", "A command line that repeats this run")
        layout.addLayout(row(self.python_button, self.command_button))
        self.volume_button = button("Show in 3-D", "Turn the view between one plane and the volume")
        self.contrast_button = button("Fit contrast", "Set brightness and contrast to the present result")
        layout.addLayout(row(self.volume_button, self.contrast_button))
        self.compare_combo = CalmComboBox()
        for mode, text in COMPARISONS.items():
            self.compare_combo.addItem(text, mode)
        self.compare_combo.activated.connect(
            lambda index: self.comparison_chosen.emit(self.compare_combo.itemData(index))
        )
        self.check_text = WrappedLabel()
        layout.addWidget(self.check_text)
        layout.addWidget(self.compare_combo)
        self.compare_combo.setVisible(False)
        self.residuals_text = WrappedLabel()
        layout.addWidget(self.residuals_text)
        self.judge_button = button(
            "Check the others too", "Re-project the other volumes of this light field, one by one"
        )
        self.judge_button.setVisible(False)
        layout.addWidget(self.judge_button)
        self.judge_text = WrappedLabel()
        layout.addWidget(self.judge_text)
        self.save_text = WrappedLabel()
        layout.addWidget(self.save_text)
        figures_content = QWidget()
        figures_layout = QVBoxLayout(figures_content)
        figures_layout.setContentsMargins(0, 0, 0, 0)
        self.figures_text = WrappedLabel()
        figures_layout.addWidget(self.figures_text)
        layout.addWidget(Fold("Measured figures", figures_content))
        self._column.addWidget(self.result_box)
        self.result_box.setVisible(False)

    # -------------------------------------------------------------------- show
    def show_methods(self, methods: Sequence[tuple[str, str]], chosen: str) -> None:
        """Fill the method combo with (title, id) pairs."""
        with QSignalBlocker(self.method_combo):
            self.method_combo.clear()
            for title, name in methods:
                self.method_combo.addItem(title, name)
                if name == chosen:
                    self.method_combo.setCurrentIndex(self.method_combo.count() - 1)

    def show_form(
        self,
        model: type[BaseModel],
        values: dict[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        none_texts: Mapping[str, str] | None = None,
    ) -> None:
        """Show the parameters of a method."""
        if self.form is not None:
            self._form_place.removeWidget(self.form)
            self.form.hide()
            self.form.deleteLater()
        self.form = ModelForm(model, values, labels=labels, none_texts=none_texts)
        self.form.changed.connect(self.changed)
        self._form_place.addWidget(self.form)

    def show_region(self, possible: bool) -> None:
        """Offer a part of the field, where the method can take one."""
        self.region_box.setVisible(possible)
        if not possible:
            self.whole_button.setChecked(True)

    def show_check(self, possible: bool) -> None:
        """Offer to re-project the result: a light field can be computed from a volume, a stack needs none."""
        self.check_button.setVisible(possible)
        self.compare_stacks_button.setVisible(not possible)

    def show_result(self, text: str) -> None:
        """Offer what can be done with a result; an empty text hides it."""
        self.result_box.setVisible(bool(text))
        self.result_text.show_text(text)

    def show_residuals(self, text: str, more: bool) -> None:
        """Show how well each volume explains the light field; `more`: some were not checked yet."""
        self.residuals_text.show_text(text)
        self.judge_button.setVisible(bool(text) and more)

    def set_result_enabled(self, enabled: bool) -> None:
        """Enable the result's buttons: not in the middle of a run."""
        for one in (
            self.save_button,
            self.check_button,
            self.python_button,
            self.command_button,
            self.judge_button,
        ):
            one.setEnabled(enabled)

    def scroll_to_result(self) -> None:
        """Bring the result's buttons into sight."""
        self._scroll.ensureWidgetVisible(self.result_box)
