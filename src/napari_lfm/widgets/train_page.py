"""What the pages of the *Train* panel have in common, as seen: the plan, Run, and how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qtpy.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from napari_lfm.widgets.parts import WrappedLabel, panel_column, scrolled, section
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.run_row import RunRow
from napari_lfm.widgets.train_course import shown_pictures
from napari_lfm.widgets.train_plots import Curve, Slices
from napari_lfm.widgets.train_texts import figures_html, progress_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.core.events import Progress
    from napari_lfm.widgets.form import ModelForm
    from napari_lfm.widgets.train_course import Course

_BAR = 1000


class TrainRow(RunRow):
    """The run row of a training: its bar shows minutes, and its curves are elsewhere."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.run_button.setToolTip("Start a new training")
        self.stop_button.setToolTip("End after the present step and keep the best network so far")
        self.continue_button.setToolTip("Go on with the last training, for as many minutes more as set above")

    def show_training(self, last: Progress, course: Course) -> None:
        """Show the newest event of a training."""
        share = last.values.get("share")
        self.bar.setUpdatesEnabled(False)  # as in `show_progress`
        if share is None:
            self.bar.setRange(0, max(0, last.total))
            self.bar.setValue(min(last.step, last.total))
            text = f"{last.step} of {last.total}" if last.total else ""
        else:
            self.bar.setRange(0, _BAR)
            self.bar.setValue(round(_BAR * min(share, 1.0)))
            text = f"{course.elapsed:.1f} of {round(course.minutes, 1):g} min"
        self.bar.setUpdatesEnabled(True)
        self.bar.setFormat(text)
        self.text.show_text(progress_words(last, course))

    def show_end(self, text: str, status: str, course: Course) -> None:
        """Show how the training ended."""
        if self.bar.maximum() == 0 or not course.step:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")
        else:
            share = 1.0 if status == "finished" else course.elapsed / course.minutes
            self.bar.setValue(round(self.bar.maximum() * min(share, 1.0)))
            self.bar.setFormat(f"{course.elapsed:.1f} of {round(course.minutes, 1):g} min")
        self.text.show_text(text)


class TrainPage(QWidget):
    """What to train, what it takes, Run, and how it goes; subclasses build the first part."""

    changed = Signal()
    form: ModelForm
    wide_slices: ClassVar[bool] = False
    """Slices lie below one another."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        content, self._column = panel_column()
        self._build()
        self._build_plan()
        self._build_course()
        self._column.addStretch(1)
        footer, layout = section("Run")
        self.run_row = TrainRow()
        layout.addWidget(self.run_row)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._scroll = scrolled(content)
        outer.addWidget(self._scroll, 1)
        outer.addWidget(footer)
        self.setMinimumWidth(340)

    def _build(self) -> None:
        raise NotImplementedError

    def _build_plan(self) -> None:
        box, layout = section("What will be done")
        self.problems = WrappedLabel()
        self.estimate = WrappedLabel()
        layout.addWidget(self.problems)
        layout.addWidget(self.estimate)
        self._column.addWidget(box)

    def _build_course(self) -> None:
        self.course_box, layout = section("How it goes")
        self.notes = WrappedLabel()
        self.loss = Curve("Loss of the training", from_zero=True, waiting="begins with the first step")
        self.score = Curve("Validation PSNR", unit="dB", dots=True, waiting="comes with the first validation")
        self.figures = WrappedLabel()
        self.slices = Slices(below=self.wide_slices)
        self.slices_text = WrappedLabel()
        for widget in (self.notes, self.loss, self.score, self.figures, self.slices, self.slices_text):
            layout.addWidget(widget)
        self._column.addWidget(self.course_box)
        self.course_box.setVisible(False)

    # -------------------------------------------------------------------- show
    def show_values(self, values: Mapping[str, object]) -> None:
        """Set fields of the form."""
        self.form.set_values(values)

    def show_name(self, name: str) -> None:
        """Show, in grey, the name that is taken where none is typed."""
        line = self.form.editor("name")
        assert isinstance(line, QLineEdit)
        line.setPlaceholderText(name)

    def show_course(self, course: Course) -> None:
        """Show the curves, with what the network is compared with."""
        until = max(course.minutes, course.elapsed)
        self.loss.show_points(course.loss.points, until)
        baseline = None if course.baseline is None else (course.scoring.short, course.baseline)
        self.score.show_points(course.scores.points, until, baseline)
        self.figures.show_text(figures_html(course))
        self.course_box.setVisible(True)

    def show_slices(self, course: Course, pixel_um: float) -> None:
        """Show the slices of the last validation."""
        pictures = shown_pictures(course.pictures, course.scoring)
        self.slices.show_pictures(pictures, pixel_um)
        self.slices_text.show_text(
            f"{course.scoring.plane} {course.scoring.one} that it never trained on, at minute "
            f"{course.elapsed:.1f}; all with the same contrast."
            if pictures
            else ""
        )

    def scroll_to_course(self) -> None:
        """Bring the curves into sight."""
        bar = self._scroll.verticalScrollBar()
        if bar is not None:  # the box is the last one
            bar.setValue(bar.maximum())
