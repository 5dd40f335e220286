"""The *Register pair* panel: a wide-field layer is brought to lie upon a confocal one."""

from __future__ import annotations

import html
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import napari  # noqa: TC002  (napari gives a widget its viewer by the annotation)
from qtpy.QtCore import QTimer

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.io.layers import layer_data_from
from napari_lfm.training.registration_result import Registration
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core
from napari_lfm.widgets.register_input import SHORT, along_z, brightest, click_callback, stack_of, table_html
from napari_lfm.widgets.register_plot import BLUE, GREEN, MAGENTA, ORANGE, Line
from napari_lfm.widgets.register_view import RegisterView
from napari_lfm.widgets.session import bare, update_record
from napari_lfm.widgets.texts import coloured, shape_text

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Image

TITLE = "Register pair"
_TICK_MS = 100
_JOB = "register"


class RegisterController:
    """Connects the view with the two layers and the search."""

    def __init__(self, panel: RegisterWidget, view: RegisterView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.moving: Image | None = None
        self.fixed: Image | None = None
        self.registration: Registration | None = None
        self.made: Image | None = None
        self.place_um: tuple[float, float] | None = None
        self._home: tuple[float, ...] | None = None
        self._looks: list[tuple[Image, str, str]] = []
        self._stop: threading.Event | None = None
        self._progress = (0, 0, "")
        self._begin = 0.0
        self._timer = QTimer(panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(lambda: self.view.show_progress(*self._progress))
        view.moving_chosen.connect(lambda layer: self.choose(layer, self.fixed))
        view.fixed_chosen.connect(lambda layer: self.choose(self.moving, layer))
        view.run_button.clicked.connect(lambda: self.run())
        view.stop_button.clicked.connect(lambda: self.stop())
        view.apply_button.clicked.connect(lambda: self.apply())
        view.undo_button.clicked.connect(lambda: self.undo())
        view.nudged.connect(lambda: self.nudge())
        view.before_wanted.connect(self.show_before)
        view.overlay_wanted.connect(self.show_overlay)
        panel.listen(self.session.layers_changed, self._follow_layers)
        weak = WeakMethod(self.choose_place)
        clicked, callbacks = click_callback(weak), self.session.viewer.mouse_drag_callbacks
        callbacks.append(clicked)
        panel.crew.at_close(lambda: callbacks.remove(clicked))
        self._guess()

    @property
    def is_running(self) -> bool:
        """Whether a shift is being looked for."""
        return self._stop is not None

    @property
    def is_moved(self) -> bool:
        """Whether the layer has been moved, or a resampled one added."""
        return self._home is not None or self.made is not None

    # ------------------------------------------------------------------- input
    def choose(self, moving: Any, fixed: Any) -> None:
        """Take two layers; what was found for others is forgotten."""
        moving, fixed = bare(moving), bare(fixed)
        if moving is not self.moving or fixed is not self.fixed:
            self.show_overlay(False)
            self.view.overlay_box.setChecked(False)
            self.moving, self.fixed, self.registration = moving, fixed, None
            self.made = self._home = self.place_um = None
            self.view.text.show_text("")
            self.view.table.show_text("")
            self.view.move_text.show_text("")
            self.view.evidence.show_lines([])
            self.view.show_shift((0.0, 0.0, 0.0))
        self._look()

    def _guess(self) -> None:
        """Take the last two stacks, the one named like a confocal one as fixed."""
        stacks = [layer for layer in self.session.images() if layer.ndim >= 3 and not layer.rgb][-2:]
        if len(stacks) == 2 and "confocal" in stacks[0].name.lower():
            stacks.reverse()
        self.choose(*stacks) if len(stacks) == 2 else self._look()

    def _follow_layers(self) -> None:
        here = [bare(layer) for layer in self.session.viewer.layers]
        if self.made is not None and not any(self.made is layer for layer in here):
            self.made = None
        kept = [any(one is layer for layer in here) for one in (self.moving, self.fixed)]
        if self.moving is None and self.fixed is None:
            self._guess()
        elif not all(kept):
            self.choose(self.moving if kept[0] else None, self.fixed if kept[1] else None)
        else:
            self._look()

    def pair(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Return wide-field and confocal stack.

        Raises
        ------
        RequestError
            If one is missing or no stack.
        """
        if self.moving is None or self.fixed is None:
            raise RequestError("Two layers are needed.", "Open both stacks, and choose them above.")
        if self.moving is self.fixed:
            raise RequestError("Both are the same layer.", "Choose two layers.")
        return stack_of(self.moving), stack_of(self.fixed)

    def _look(self) -> None:
        layers = [
            (layer.name, bare(layer)) for layer in self.session.images() if bare(layer) is not self.made
        ]
        self.view.show_layers(layers, self.moving, self.fixed)
        fine = False
        try:
            pair = self.pair()
        except LfmError as error:
            self.view.input_text.show_problems([error.problem()])
        else:
            fine = True
            self.view.input_text.show_text(
                "<br>".join(f"{html.escape(str(i.name))}: {shape_text(i)}" for i in pair)
            )
            steps = [spacing_of(pair[1]).get(d, 1.0) for d in "zyx"]
            self.view.show_shift(self.view.shift_um(), steps)
        self.view.show_running(self.is_running, fine)
        self.view.show_movable(fine and not self.is_running, self.is_moved)
        self.draw_profile()

    # --------------------------------------------------------------------- run
    def run(self) -> None:
        """Look for the shift, in a worker thread."""
        if self.is_running:
            return
        try:
            self.undo()  # where the layer was before is where the search starts
            moving, fixed = self.pair()
        except LfmError as error:
            self.view.text.show_problems([error.problem()])
            return
        turning = self.view.turn_box.isChecked()
        self._stop = stop = threading.Event()
        self._progress, self._begin = (0, 0, "Looking at the stacks"), time.perf_counter()
        crew = self.panel.crew

        def work() -> Registration | None:
            import_torch_gently()
            leave_a_core()
            from napari_lfm.training.registration import register_pair

            for event in register_pair(moving, fixed, find_rotation=turning):
                if isinstance(event, Registration):
                    return event
                if stop.is_set() or crew.closed:
                    return None
                self._progress = event.step, event.total, event.message
            return None

        self.view.table.show_text("")
        self.view.show_running(True, True)
        self.view.show_movable(False, False)
        self.view.show_progress(*self._progress)
        self._timer.start()
        self.panel.background.submit(_JOB, work, self._have, self._failed)

    def stop(self) -> None:
        """Give up after the present step."""
        if self._stop is not None:
            self._stop.set()
            self._timer.stop()
            self.view.text.show_text("Stopping after this step...")

    def _end(self) -> float:
        self._timer.stop()
        self._stop = None
        self._look()
        return time.perf_counter() - self._begin

    def _failed(self, problem: Problem) -> None:
        self._end()
        self.view.text.show_problems([problem])

    def _have(self, found: Registration | None) -> None:
        seconds = self._end()
        if found is None:
            self.view.text.show_text(coloured(f"Stopped after {duration(seconds)}.", "warning"))
            return
        self.registration = found
        head = coloured("Accepted.", "good") if found.accepted else coloured("Not accepted.", "warning")
        words = [found.reason, *found.notes, f"It took {duration(seconds)}."]
        self.view.text.show_text(f"<b>{head}</b> " + " ".join(map(html.escape, words)))
        self.view.table.show_text(table_html(found))
        self.view.evidence.show_lines(
            [
                Line(SHORT[e.method], colour, e.profile_um, e.profile)
                for e, colour in zip(found.estimates, (ORANGE, BLUE), strict=True)
            ],
            found.shift_um[0],
        )
        self.view.show_shift(found.shift_um)
        self.view.move_text.show_text(
            "" if found.accepted else "Look at the overlay, and correct the shift by hand if it is wrong."
        )
        self.draw_profile()

    # -------------------------------------------------------------------- move
    def apply(self) -> None:
        """Move the layer by what the boxes say, or add a resampled one where it is turned."""
        if self.moving is None or self.fixed is None or self.is_moved:
            return
        found = self.registration
        if found is not None and not found.turn.is_none:
            self._add_resampled(found)
        else:
            self._home = tuple(self.moving.translate)
            self._place(self.view.shift_um())
            record = {} if found is None else found.to_json()
            update_record(self.moving, registration={**record, "shift_um": list(self.view.shift_um())})
        self._look()

    def _add_resampled(self, found: Registration) -> None:
        from napari_lfm.training.registration import apply_registration

        assert self.moving is not None and self.fixed is not None
        if self.view.shift_um() != tuple(round(s, 4) for s in found.shift_um):
            found = found.moved_by(self.view.shift_um())
        try:
            out = apply_registration(stack_of(self.moving), found, stack_of(self.fixed))
        except LfmError as error:
            self.view.move_text.show_problems([error.problem()])
            return
        data, arguments, _ = layer_data_from(out, f"{self.moving.name} registered", "image")
        arguments |= {
            "colormap": self.moving.colormap,
            "blending": self.moving.blending,
            "contrast_limits": self.moving.contrast_limits,
        }
        self.made = bare(self.session.viewer.add_image(data, **arguments))
        update_record(self.made, registration=found.to_json())
        self.moving.visible = False

    def undo(self) -> None:
        """Put everything back where it was."""
        if self.made is not None:
            made, self.made = self.made, None
            if any(bare(layer) is made for layer in self.session.viewer.layers):
                self.session.viewer.layers.remove(made)
            if self.moving is not None:
                self.moving.visible = True
        if self._home is not None and self.moving is not None:
            self.moving.translate = self._home
            update_record(self.moving, registration=None)
        self._home = None
        self._look()

    def nudge(self) -> None:
        """Follow the boxes with a layer that has been moved."""
        if self._home is not None and not self.view.before_box.isChecked():
            self._place(self.view.shift_um())
            assert self.moving is not None
            update_record(self.moving, registration={"shift_um": list(self.view.shift_um()), "by": "hand"})
        self.draw_profile()

    def _place(self, shift_um: tuple[float, float, float]) -> None:
        assert self.moving is not None and self._home is not None
        known = spacing_of(stack_of(self.moving))
        lead = self.moving.ndim - 3
        # the layer's own unit may be another one
        steps = [s / known.get(d, s) for s, d in zip(self.moving.scale[lead:], ("z", "y", "x"), strict=True)]
        move = [0.0] * lead + [s * k for s, k in zip(shift_um, steps, strict=True)]
        self.moving.translate = tuple(h + m for h, m in zip(self._home, move, strict=True))

    def show_before(self, before: bool) -> None:
        """Show the pair as it was, or as it is."""
        if self.made is not None and self.moving is not None:
            self.made.visible, self.moving.visible = not before, before
        elif self._home is not None:
            self._place((0.0, 0.0, 0.0) if before else self.view.shift_um())

    def show_overlay(self, on: bool) -> None:
        """Colour both layers so that they can be told apart, or as they were."""
        for layer, colormap, blending in self._looks:
            layer.colormap, layer.blending = colormap, blending
        self._looks = []
        if not on:
            return
        for layer, colour in ((self.moving, "magenta"), (self.made, "magenta"), (self.fixed, "green")):
            if layer is not None:
                self._looks.append((layer, layer.colormap.name, str(layer.blending)))
                layer.colormap, layer.blending = colour, "additive"

    # ----------------------------------------------------------------- profile
    def choose_place(self, y: float, x: float) -> None:
        """Show profiles at a place, in world coordinates."""
        self.place_um = y, x
        self.draw_profile()

    def draw_profile(self) -> None:
        """Draw the intensity of both layers along z, before and after (the paper's figure 8)."""
        try:
            moving, fixed = self.pair()
        except LfmError:
            self.view.profile.show_lines([])
            self.view.profile_text.show_text("")
            return
        assert self.moving is not None
        if self.place_um is None:
            self.place_um = brightest(fixed)
        y, x = self.place_um
        shift = self.view.shift_um()
        lines = [Line("confocal", GREEN, *along_z(fixed, y, x))]
        moved = self._home is not None and not self.view.before_box.isChecked()
        # the layer's coordinates may be those after the shift
        dz, dy, dx = shift if moved else (0.0, 0.0, 0.0)
        z, values = along_z(moving, y + dy, x + dx)
        lines.append(Line("wide-field before", MAGENTA, z - dz, values, dashed=True))
        if any(shift):
            rest = [s - d for s, d in zip(shift, (dz, dy, dx), strict=True)]
            z, values = along_z(moving, y - rest[1], x - rest[2])
            lines.append(Line("wide-field after", MAGENTA, z + rest[0], values))
        self.view.profile_text.show_text(
            f"At y {y:.1f}, x {x:.1f} {MICROMETRES}; click on the image for another place."
        )
        self.view.profile.show_lines(lines)


class RegisterWidget(Panel):
    """Bring a wide-field stack to lie upon the confocal one of the same sample."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = RegisterView()
        self.fill(self.view)
        self.controller = RegisterController(self, self.view)
