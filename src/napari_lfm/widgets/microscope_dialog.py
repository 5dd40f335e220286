"""The microscope editor: a form made from the model, with what follows from the figures, live."""

from __future__ import annotations

from pydantic import ValidationError
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_lfm.core.problems import LfmError, Problem, RequestError, explain_validation
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.presets import physical_sanity, save_user_microscope, user_microscope_names
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.form import ModelForm
from napari_lfm.widgets.parts import WrappedLabel, button, row, scrolled, section

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
            ("Camera pixels per lenslet", f"{m.nominal_pitch_px:.2f}, used as {m.n_pixels} {_TIMES} {m.n_pixels}"),
        ]
    return "<table>" + "".join(f"<tr><td>{a}&nbsp;&nbsp;</td><td><b>{b}</b></td></tr>" for a, b in rows) + "</table>"


def microscope_from_values(values: dict[str, object]) -> Microscope | Problem:
    """Return the microscope that a form's values describe, or what is wrong with them."""
    try:
        return Microscope.model_validate(values)
    except ValidationError as error:
        return Problem("These figures do not make a microscope.", explain_validation(error))


class MicroscopeDialog(QDialog):
    """Edits a copy of a microscope; nothing changes until *Use* or *Save as mine* is pressed."""

    accepted_microscope = Signal(object)

    def __init__(self, microscope: Microscope | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Microscope")
        self.resize(860, 720)
        self.form = ModelForm(Microscope)
        if microscope is not None:
            self.form.set_values(microscope.model_dump())
        self.microscope: Microscope | None = None
        body = QHBoxLayout()
        body.addWidget(scrolled(self.form), 3)
        side = QVBoxLayout()
        box, layout = section("What follows from these figures")
        self.derived = WrappedLabel()
        layout.addWidget(self.derived)
        side.addWidget(box)
        self.problems = WrappedLabel()
        side.addWidget(self.problems)
        side.addStretch(1)
        body.addLayout(side, 2)
        self.use_button = button("Use", "Use these figures in this session", self._use)
        self.save_button = button("Save as mine", "Keep under this name, for every later session, and use it", self._save)
        cancel = button("Cancel", "Change nothing", self.reject)
        outer = QVBoxLayout(self)
        outer.addLayout(body, 1)
        outer.addLayout(row(QWidget(), cancel, self.use_button, self.save_button, stretch=0))
        # typing fires at every key; deriving waits for a short pause
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(120)
        self._pause.timeout.connect(self.refresh)
        self.form.changed.connect(self._pause.start)
        self.refresh()

    def refresh(self) -> None:
        """Show what follows from the present figures."""
        found = microscope_from_values(self.form.values())
        usable = isinstance(found, Microscope)
        self.use_button.setEnabled(usable)
        self.save_button.setEnabled(usable)
        if isinstance(found, Problem):
            self.microscope = None
            self.derived.show_text("")
            self.problems.show_problems([found])
            return
        self.microscope = found
        self.derived.show_text(derived_html(found))
        self.problems.show_problems(physical_sanity(found))

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
