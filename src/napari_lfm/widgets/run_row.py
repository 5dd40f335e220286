"""The Run / Stop / Continue row with progress, time left and the residual curve."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_lfm.core.words import duration
from napari_lfm.widgets.parts import Sparkline, WrappedLabel, button, row
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_lfm.core.events import Progress
    from napari_lfm.core.problems import Problem


class RunRow(QWidget):
    """View of a run: three buttons, a bar, one line of text and a small curve."""

    run_clicked = Signal()
    stop_clicked = Signal()
    continue_clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.run_button = button("Run", "Start (Ctrl+Shift+R)", self.run_clicked.emit)
        self.stop_button = button(
            "Stop", "End after the present step and keep what is there (Ctrl+Shift+S)", self.stop_clicked.emit
        )
        self.continue_button = button(
            "Continue",
            "Go on from the present result with as many iterations again",
            self.continue_clicked.emit,
        )
        self._lay_out(layout)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        layout.addWidget(self.bar)
        self.text = WrappedLabel()
        layout.addWidget(self.text)
        self.curve = Sparkline("Light not explained")
        layout.addWidget(self.curve)
        self.show_idle()

    def _lay_out(self, layout: QVBoxLayout) -> None:
        """Place the buttons."""
        layout.addLayout(row(self.run_button, self.stop_button, self.continue_button))

    def show_idle(self) -> None:
        """Show that nothing runs."""
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.setFormat("")
        self.curve.setVisible(bool(self.curve.values))
        self.set_buttons(can_run=False, running=False, can_continue=False)

    def set_buttons(
        self, *, can_run: bool, running: bool, can_continue: bool, stopping: bool = False
    ) -> None:
        """Enable what can be pressed now."""
        self.run_button.setEnabled(can_run and not running)
        self.stop_button.setEnabled(running and not stopping)
        self.continue_button.setEnabled(can_continue and not running)

    def show_start(self, keep_curve: bool) -> None:
        """Show a beginning run."""
        if not keep_curve:
            self.curve.clear()
        self.curve.setVisible(bool(self.curve.values))
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.text.show_text("Preparing. The first run with new settings takes a little longer.")

    def show_progress(self, events: Iterable[Progress]) -> None:
        """Show the newest of several progress events, and all their residuals."""
        events = list(events)
        if not events:
            return
        self.curve.extend(e.values["residual"] for e in events if "residual" in e.values)
        self.curve.setVisible(bool(self.curve.values))
        last = events[-1]
        # a bar paints at once when its value is set, and with it the whole window: let it wait for the rest
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, max(0, last.total))
        self.bar.setValue(min(last.step, last.total))
        self.bar.setUpdatesEnabled(True)
        self.bar.setFormat(f"{last.step} of {last.total}" if last.total else "")
        parts = [html.escape(last.message)]
        if last.seconds_left is not None:
            parts.append(f"{duration(last.seconds_left)} left")
        self.text.show_text(", ".join(parts))

    def show_steps(self, steps: int) -> None:
        """Show how many steps were done at the end, also those after Stop was pressed."""
        if 0 < steps <= self.bar.maximum() and self.bar.maximum() > 1:
            self.bar.setValue(steps)
            self.bar.setFormat(f"{steps} of {self.bar.maximum()}")

    def show_stopping(self) -> None:
        """Show that Stop was pressed and the present step is being finished."""
        self.text.show_text("Stopping after this step...")

    def show_done(self, status: str, seconds: float, words: str, problem: Problem | None = None) -> None:
        """Show how the run ended."""
        if self.bar.maximum() == 0:
            self.bar.setRange(0, 1)
        if status == "failed" and problem is not None:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")
            self.text.show_problems([problem])
            return
        if status == "finished":
            self.bar.setValue(self.bar.maximum())
            head = coloured(f"Done in {duration(seconds)}.", "good")
        else:
            head = coloured(f"Stopped after {duration(seconds)}.", "warning")
        self.text.show_text(f"{head} {html.escape(words)}")
