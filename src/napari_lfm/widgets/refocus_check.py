"""Comparisons of the *Refocus* panel: deconvolution beside it, where to trust it, everything in focus."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import Problem
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core
from napari_lfm.widgets.refocus_input import share_words, signed
from napari_lfm.widgets.refocus_view import DECONVOLUTIONS
from napari_lfm.widgets.session import update_record
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_lfm.widgets.parts import WrappedLabel
    from napari_lfm.widgets.refocus import RefocusController

_JOB = "refocus check"
_TICK_MS = 100
DECONVOLVED, DOUBT, RESIDUAL, EXTENDED, HEIGHT = "deconvolved", "doubt", "residual", "extended", "height"


class RefocusChecks:
    """Jobs on the image that is open; the slider goes before them."""

    def __init__(self, control: RefocusController) -> None:
        self.control, self.view = control, control.view
        self.share: float | None = None
        self._stop: threading.Event | None = None
        self._message = ""
        self._text: WrappedLabel = self.view.check_text
        self._timer = QTimer(control.panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        control.panel.crew.at_close(self._timer.stop)
        view, box = self.view, self.view.surface
        view.deconvolve_button.clicked.connect(lambda: self.deconvolve())
        view.trust_button.clicked.connect(lambda: self.trust())
        view.cancel_button.clicked.connect(lambda: self.stop())
        box.extended_button.clicked.connect(lambda: self.extend())
        box.stop_button.clicked.connect(lambda: self.stop())

    def _tick(self) -> None:
        if not self.control.panel.crew.closed:
            self._text.show_text(self._message)

    @property
    def is_running(self) -> bool:
        """Whether something is computed."""
        return self._stop is not None

    def stop(self) -> None:
        """Give up after the present plane."""
        if self._stop is not None:
            self._stop.set()
            self._message = "Stopping after this plane..."

    # ----------------------------------------------------------------------- jobs
    def deconvolve(self) -> None:
        """Bring the plane of the slider into focus by physics alone."""
        z, kind = self.view.z_um, str(self.view.deconvolution_combo.currentData())
        title = next(t for t, name in DECONVOLUTIONS if name == kind)

        def events(image: Any) -> Iterator[Any]:
            from napari_lfm.methods.refocus.physical import deconvolved

            yield Progress(0, 1, "Deconvolving")
            yield deconvolved(image.refocuser, z, kind)  # type: ignore[arg-type]

        def have(values: np.ndarray) -> None:
            name = f"{title}, z = {signed(z)} {MICROMETRES}"
            # beside the refocused picture, not over it
            self.control.layers.add_flat(DECONVOLVED, name, values).visible = False
            self._text.show_text(
                f"{name}: by the known blur of this distance, as if all light came from this plane."
            )
            self.view.beside_box.setChecked(True)
            self.control.show.follow_beside()

        self._begin(events, have, self.view.check_text)

    def trust(self) -> None:
        """Show where the refocused stack does not explain the image."""

        def events(image: Any) -> Iterator[Any]:
            from napari_lfm.methods.refocus.residual import consistency

            yield from consistency(image.refocuser)

        def have(found: Any) -> None:
            self.share = float(found.share)
            layers = self.control.layers
            high = float(np.percentile(np.abs(found.residual), 99.5)) or 1.0
            layers.add_flat(
                RESIDUAL, "not explained", found.residual, colormap="PiYG", contrast_limits=(-high, high)
            ).visible = False
            layers.add_flat(
                DOUBT, "doubt", found.doubt, colormap="magma", contrast_limits=(0.0, 1.0),
                blending="additive", opacity=0.6,
            )  # fmt: skip
            kind = "good" if self.share < 0.15 else "warning"
            text = coloured(share_words(self.share), kind)
            self._text.show_text(
                f"{text}<br>Layer 'doubt': 0 (dark) trust it, 1 (bright) do not. Layer 'not explained', "
                "hidden: image less prediction."
            )

        self._begin(events, have, self.view.check_text)

    def extend(self) -> None:
        """Bring everything into focus at once, and say at which height it was."""
        head = "widefield" if self.control.layers.head == "widefield" else "confocal"

        def events(image: Any) -> Iterator[Any]:
            from napari_lfm.methods.refocus.focus import extended_focus

            domain = image.refocuser.domain
            steps = max(1, round(domain.range_um / domain.step_um))
            z = np.linspace(-domain.range_um, domain.range_um, 2 * steps + 1)
            yield from extended_focus(image.refocuser, [float(v) for v in z], head)  # type: ignore[arg-type]

        def have(found: Any) -> None:
            layers = self.control.layers
            low, high = float(found.height_um.min()), float(found.height_um.max())
            heights = layers.add_flat(
                HEIGHT, f"height ({MICROMETRES})", found.height_um, colormap="turbo",
                contrast_limits=(low, max(high, low + 1e-3)),
            )  # fmt: skip
            heights.visible = False
            update_record(heights, output="height")
            layers.add_flat(EXTENDED, "all in focus", found.image)
            sure = float((found.certainty > 0.5).mean())
            self._text.show_text(
                f"Layers 'all in focus' and, hidden, 'height ({MICROMETRES})', from {signed(low)} to "
                f"{signed(high)} {MICROMETRES}; one plane stands out clearly in {100 * sure:.0f} % of the "
                "image. Choose 'Height map' above to focus on these heights."
            )
            self.control.surface.refresh()

        self._begin(events, have, self.view.surface.text)

    # ----------------------------------------------------------------------- turn
    def _begin(
        self, make: Callable[[Any], Iterator[Any]], have: Callable[[Any], None], text: WrappedLabel
    ) -> None:
        desk, opened = self.control.desk, self.control.opened
        if self.is_running:
            return
        if opened is None:
            text.show_problems([Problem("No image is open.", "Choose an image and a model above.")])
            return
        self._stop = stop = threading.Event()
        self._text, self._message = text, "Preparing"
        crew = self.control.panel.crew

        def work() -> Any:
            import_torch_gently()
            leave_a_core()
            last: Any = None
            for event in desk.in_turn(make(opened.image)):
                if stop.is_set() or crew.closed:
                    return None
                if isinstance(event, Progress):
                    self._message = f"{event.message} ({event.step} of {event.total})"
                last = event
            return last

        def done(value: Any) -> None:
            self._end()
            if value is None or isinstance(value, Progress):
                text.show_text(coloured("Stopped.", "warning"))
            elif self.control.opened is not opened:
                text.show_text(coloured("The image has changed meanwhile: press again.", "warning"))
            else:
                have(value)

        def failed(problem: Problem) -> None:
            self._end()
            text.show_problems([problem])

        self._timer.start()
        self.control.show_state()
        self.control.panel.background.submit(_JOB, work, done, failed)

    def _end(self) -> None:
        self._timer.stop()
        self._stop = None
        self.control.show_state()
