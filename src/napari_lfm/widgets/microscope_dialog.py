"""The microscope editor and the data-sheet wizard: a form, and beside it what follows, live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDialog, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from napari_lfm.core.problems import LfmError, Problem, RequestError, explain_validation
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.presets import physical_sanity, save_user_microscope, user_microscope_names
from napari_lfm.optics.wizard import DataSheet, microscope_from_data_sheet
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import ModelForm
from napari_lfm.widgets.parts import WrappedLabel, button, row, scrolled, section
from napari_lfm.widgets.qt import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

_TIMES = "\N{MULTIPLICATION SIGN}"


def derived_html(m: Microscope) -> str:
    """Return the figures that follow from a microscope, one per line."""
    rows = [
        ("Camera pixel in the sample", f"{m.object_pixel_um:.4g} {MICROMETRES}"),
        ("Diffraction limit (Sparrow)", f"{m.lateral_resolution_um:.3g} {MICROMETRES}"),
        ("Depth of field", f"{m.depth_of_field_um:.3g} {MICROMETRES}"),
        ("f-number of the light at the array", f"{m.image_f_number:.3g}"),
    ]
    if m.lenslets is not None and m.lenslet_um is not None and m.nominal_pitch_px is not None:
        rows += [
            ("f-number of the lenslets", f"{m.lenslets.f_number:.3g}"),
            ("One lenslet in the sample", f"{m.lenslet_um:.3g} {MICROMETRES}"),
            ("Camera pixels per lenslet", f"{m.nominal_pitch_px:.2f}"),
            ("Views kept per lenslet", f"{m.n_pixels} {_TIMES} {m.n_pixels}"),
        ]
    cells = "".join(f"<tr><td>{a}&nbsp;&nbsp;</td><td><b>{b}</b></td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"


def edited_microscope(values: Mapping[str, Any]) -> tuple[Microscope | None, list[Problem]]:
    """Return the microscope that the editor's values describe, and what is odd about it."""
    try:
        microscope = Microscope.model_validate(values)
    except ValidationError as error:
        return None, [Problem("These figures do not make a microscope.", explain_validation(error))]
    return microscope, physical_sanity(microscope)


def sheet_microscope(values: Mapping[str, Any]) -> tuple[Microscope | None, list[Problem]]:
    """Return the microscope that a data sheet describes, and where its figures contradict each other."""
    answers = {name: _number(value) for name, value in values.items() if value not in (None, "")}
    try:
        return microscope_from_data_sheet(**answers)
    except LfmError as error:
        return None, [error.problem()]


def _number(value: Any) -> Any:
    """Turn typed figures such as an immersion index of '1.41' into numbers, leave words alone."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


class MicroscopeDialog(QDialog):
    """A form beside what follows from it; nothing changes until *Use* or *Save as mine* is pressed."""

    accepted_microscope = Signal(object)

    def __init__(
        self,
        title: str,
        model: type[BaseModel],
        compute: Any,
        values: Mapping[str, Any] | None = None,
        advanced: tuple[str, ...] = (),
        hints: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.resize(880, 700)
        self._compute = compute
        self.microscope: Microscope | None = None
        self.form = ModelForm(model, values, advanced=advanced, labels=labels)
        for name, hint in (hints or {}).items():
            editor = self.form.editor(name)
            if isinstance(editor, QLineEdit):
                editor.setPlaceholderText(hint)
        body = QHBoxLayout()
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 8, 0)
        column.addWidget(self.form)
        column.addStretch(1)
        body.addWidget(scrolled(left), 3)
        side = QVBoxLayout()
        box, layout = section("What follows from these figures")
        self.derived = WrappedLabel()
        layout.addWidget(self.derived)
        side.addWidget(box)
        self.problems = WrappedLabel()
        side.addWidget(self.problems)
        side.addStretch(1)
        body.addLayout(side, 2)
        cancel = button("Cancel", "Change nothing", self.reject)
        self.use_button = button("Use", "Use these figures in this session", self._use)
        self.save_button = button(
            "Save as mine", "Keep it under this name for every later session, and use it", self._save
        )
        outer = QVBoxLayout(self)
        outer.addLayout(body, 1)
        outer.addLayout(row(QWidget(), cancel, self.use_button, self.save_button, stretch=0))
        # typing fires at every key; computing waits for a short pause
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(150)
        self._pause.timeout.connect(self.refresh)
        self.form.changed.connect(self._pause.start)
        self.refresh()

    def refresh(self) -> None:
        """Show what follows from the present figures."""
        microscope, problems = self._compute(self.form.values())
        self.microscope = microscope
        usable = microscope is not None
        self.use_button.setEnabled(usable)
        # what the user must decide first is not saved for later sessions
        self.save_button.setEnabled(usable and not any(p.severity == "error" for p in problems))
        self.derived.show_text("" if microscope is None else derived_html(microscope))
        self.problems.show_problems(problems)

    def _use(self) -> None:
        self.refresh()
        if self.microscope is not None:
            self.accepted_microscope.emit(self.microscope)
            self.accept()

    def _save(self) -> None:
        self.refresh()
        if self.microscope is None:
            return
        replacing = self.microscope.name.lower() in (n.lower() for n in user_microscope_names())
        try:
            save_user_microscope(self.microscope, overwrite=replacing)
        except (RequestError, LfmError) as error:
            self.problems.show_problems([error.problem()])
            return
        self._use()


def editor_dialog(microscope: Microscope | None, parent: QWidget | None = None) -> MicroscopeDialog:
    """Return the editor of every figure of a microscope."""
    values = None if microscope is None else microscope.model_dump()
    return MicroscopeDialog(
        "Edit microscope",
        Microscope,
        edited_microscope,
        values,
        hints={"name": "a short name for the menu"},
        parent=parent,
    )


def wizard_dialog(measured_pitch_px: float | None = None, parent: QWidget | None = None) -> MicroscopeDialog:
    """Return the short wizard: what is printed on the objective and in the array's data sheet."""
    values = {} if measured_pitch_px is None else {"measured_pitch_px": round(measured_pitch_px, 3)}
    return MicroscopeDialog(
        "New microscope from data sheet",
        DataSheet,
        sheet_microscope,
        values,
        advanced=(
            "immersion",
            "brand",
            "tube_lens_mm",
            "relay_magnification",
            "radius_of_curvature_um",
            "lens_index",
            "sensor_distance_um",
            "measured_pitch_px",
        ),
        hints={
            "objective": "as printed, e.g. Plan Apo 60x/1.20 W",
            "sample": "water, tissue, glycerol, or an index",
            "fluorophore": "e.g. GFP",
            "immersion": "as printed on the objective",
            "brand": "as printed on the objective",
        },
        labels={
            "objective": "text on the objective",
            "sample": "sample medium",
            "wavelength_nm": "emission (nm)",
            "pixel_um": f"camera pixel ({MICROMETRES})",
            "pitch_um": f"lenslet pitch ({MICROMETRES})",
            "focal_length_um": f"lenslet focal length ({MICROMETRES})",
            "f_number": "or lenslet f-number",
            "lattice": "lenslet lattice",
            "aperture": "lenslet shape",
        },
        parent=parent,
    )
