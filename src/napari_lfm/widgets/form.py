"""A form made from a pydantic model: one row per field, bounds and documentation included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QLocale, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_lfm.widgets.fields import FieldSpec, specs_of
from napari_lfm.widgets.parts import Fold
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from qtpy.QtGui import QWheelEvent

_HUGE = 1e9
_INT_MAX = 2**31 - 1
_ENTER = "(enter)"


class CalmDoubleSpinBox(QDoubleSpinBox):
    """A spin box that shows no trailing zeros and ignores the wheel unless it has the focus.

    Scrolling a long panel must not change the values that pass under the mouse.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setDecimals(6)
        self.setKeyboardTracking(False)
        self.setLocale(QLocale.c())
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        """Return the value with as few digits as it needs."""
        return f"{value:.7g}"

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Pass the wheel on to the scroll area unless the box has the focus."""
        if event is None:
            return
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class CalmSpinBox(QSpinBox):
    """An integer box that ignores the wheel unless it has the focus."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setKeyboardTracking(False)
        self.setLocale(QLocale.c())
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Pass the wheel on to the scroll area unless the box has the focus."""
        if event is None:
            return
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class CalmComboBox(QComboBox):
    """A combo box that ignores the wheel and does not widen the panel with long entries."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Pass the wheel on to the scroll area."""
        if event is not None:
            event.ignore()


class FieldEditor:
    """The Qt editor of one field, with a value to get and set."""

    def __init__(self, spec: FieldSpec, changed: Any) -> None:
        self.spec = spec
        self.widget: QWidget
        if spec.kind == "float":
            self.widget = self._float_box(changed)
        elif spec.kind == "int":
            self.widget = self._int_box(changed)
        elif spec.kind == "bool":
            box = QCheckBox()
            box.toggled.connect(changed)
            self.widget = box
        elif spec.kind == "choice":
            combo = CalmComboBox()
            for choice in spec.choices:
                combo.addItem(str(choice), choice)
            combo.currentIndexChanged.connect(changed)
            self.widget = combo
        else:
            line = QLineEdit()
            line.textChanged.connect(changed)
            self.widget = line
        self.widget.setToolTip(spec.tooltip)
        self.widget.setObjectName(spec.name)
        if spec.kind != "bool":
            self.widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def _may_be_empty(self) -> bool:
        # a figure that has no default is not made up: the user has to enter it
        return self.spec.optional or self.spec.required

    def _float_box(self, changed: Any) -> QDoubleSpinBox:
        spec, box = self.spec, CalmDoubleSpinBox()
        low = -_HUGE if spec.low is None else spec.low
        high = _HUGE if spec.high is None else spec.high
        if spec.low_open and spec.low is not None:
            low += 1e-6
        if spec.high_open and spec.high is not None:
            high -= 1e-6
        if self._may_be_empty:
            # Qt shows the special text at the minimum: one step below the lowest value means None
            low -= 1e-6 if spec.low_open else 1.0
            box.setSpecialValueText(_ENTER if spec.required else spec.none_text)
        box.setRange(low, high)
        box.valueChanged.connect(changed)
        return box

    def _int_box(self, changed: Any) -> QSpinBox:
        spec, box = self.spec, CalmSpinBox()
        low = -_INT_MAX if spec.low is None else int(spec.low) + int(spec.low_open)
        high = _INT_MAX if spec.high is None else int(spec.high) - int(spec.high_open)
        if self._may_be_empty:
            low -= 1
            box.setSpecialValueText(_ENTER if spec.required else spec.none_text)
        box.setRange(low, high)
        box.valueChanged.connect(changed)
        return box

    @property
    def value(self) -> Any:
        """The present value; None where the special text shows."""
        widget, spec = self.widget, self.spec
        if isinstance(widget, QDoubleSpinBox | QSpinBox):
            if self._may_be_empty and widget.value() == widget.minimum():
                return None
            return widget.value()
        if isinstance(widget, QCheckBox):
            return widget.isChecked()
        if isinstance(widget, QComboBox):
            return widget.currentData()
        text = widget.text() if isinstance(widget, QLineEdit) else ""
        return None if spec.optional and not text.strip() else text

    @value.setter
    def value(self, value: Any) -> None:
        widget = self.widget
        if isinstance(widget, QDoubleSpinBox):
            widget.setValue(widget.minimum() if value is None else float(value))
        elif isinstance(widget, QSpinBox):
            widget.setValue(widget.minimum() if value is None else int(value))
        elif isinstance(widget, QCheckBox):
            widget.setChecked(bool(value))
        elif isinstance(widget, QComboBox):
            index = widget.findData(value)
            if index >= 0:
                widget.setCurrentIndex(index)
        elif isinstance(widget, QLineEdit):
            widget.setText("" if value is None else str(value))
            widget.setCursorPosition(0)


class ModelForm(QWidget):
    """A form for a pydantic model; nested models become titled groups.

    Parameters
    ----------
    model : type of BaseModel
        The model whose fields are shown.
    values : mapping, optional
        Values to start with, instead of the defaults.
    skip : tuple of str
        Fields not shown.
    advanced : tuple of str
        Fields shown only under *More settings*, besides those that the model marks itself.
    labels : mapping, optional
        Labels by field name, where the name itself is not clear enough.
    none_texts : mapping, optional
        What an empty field shows, by field name.
    """

    changed = Signal()

    def __init__(
        self,
        model: type[BaseModel],
        values: Mapping[str, Any] | None = None,
        skip: tuple[str, ...] = (),
        advanced: tuple[str, ...] = (),
        labels: Mapping[str, str] | None = None,
        none_texts: Mapping[str, str] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._editors: dict[str, FieldEditor] = {}
        self._parts: dict[str, ModelForm] = {}
        self._quiet = False
        self._specs = [s for s in specs_of(model) if s.name not in skip]
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        plain, hidden = _rows(), _rows()
        self._plain = plain
        for spec in self._specs:
            if spec.kind == "model" and spec.model is not None:
                self._add_part(spec, outer)
                continue
            if none_texts and spec.name in none_texts:
                spec = replace(spec, none_text=none_texts[spec.name])
            editor = FieldEditor(spec, self._on_changed)
            self._editors[spec.name] = editor
            label = QLabel((labels or {}).get(spec.name, spec.label))
            label.setToolTip(spec.tooltip)
            label.setBuddy(editor.widget)
            (hidden if spec.advanced or spec.name in advanced else plain).addRow(label, editor.widget)
        if plain.rowCount():
            outer.insertLayout(0, plain)
        if hidden.rowCount():
            content = QWidget()
            content.setLayout(hidden)
            outer.addWidget(Fold("More settings", content))
        self.reset()
        if values:
            self.set_values(values)

    def _add_part(self, spec: FieldSpec, outer: QVBoxLayout) -> None:
        assert spec.model is not None
        part = ModelForm(spec.model)
        part.changed.connect(self._on_changed)
        group = QGroupBox(spec.label.capitalize())
        group.setToolTip(spec.tooltip)
        group.setCheckable(spec.optional)
        if spec.optional:
            group.toggled.connect(self._on_changed)
        layout = QVBoxLayout(group)
        layout.addWidget(part)
        outer.addWidget(group)
        self._parts[spec.name] = part
        part.setProperty("group", group)

    def _group(self, name: str) -> QGroupBox:
        group = self._parts[name].property("group")
        assert isinstance(group, QGroupBox)
        return group

    def _on_changed(self, *_: object) -> None:
        if not self._quiet:
            self.changed.emit()

    def values(self) -> dict[str, Any]:
        """Return the present values, unvalidated; nested models as dicts."""
        out: dict[str, Any] = {name: editor.value for name, editor in self._editors.items()}
        for name, part in self._parts.items():
            group = self._group(name)
            out[name] = None if group.isCheckable() and not group.isChecked() else part.values()
        return out

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show these values; names that the form does not have are ignored."""
        self._quiet = True
        try:
            for name, value in values.items():
                if name in self._editors:
                    self._editors[name].value = value
                elif name in self._parts:
                    group = self._group(name)
                    if group.isCheckable():
                        group.setChecked(value is not None)
                    if value is not None:
                        self._parts[name].set_values(value)
        finally:
            self._quiet = False
        self.changed.emit()

    def reset(self) -> None:
        """Show the model's defaults."""
        for part in self._parts.values():
            part.reset()
        self.set_values({s.name: s.default for s in self._specs if s.name in self._editors})

    def add_row(self, label: str, widget: QWidget) -> None:
        """Add a row of the caller's own above the fields."""
        self._plain.insertRow(0, label, widget)

    def editor(self, name: str) -> QWidget:
        """Return the Qt editor of a field, for tests and tooltips."""
        return self._editors[name].widget


def _rows() -> QFormLayout:
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    return layout
