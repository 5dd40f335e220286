"""Clicks on the sample: where one points, on a plane or through a volume in 3-D, and the tool that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_lfm.widgets.session import bare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari import Viewer

    from napari_lfm.methods.localization.engine import LocalizeEngine
    from napari_lfm.widgets.localize import LocalizeController

_SAMPLES = 512


class ClickTool:
    """While it is on, a click without a drag is a question to the *Localize* panel.

    Parameters
    ----------
    control : LocalizeController
    """

    def __init__(self, control: LocalizeController) -> None:
        self.control = control
        self._viewer = control.session.viewer
        self._viewer.mouse_drag_callbacks.append(self.on_mouse)
        control.panel.crew.at_close(self._let_go)
        control.view.click_button.toggled.connect(self._toggled)

    def on_mouse(self, viewer: Any, event: Any) -> Iterator[None]:
        """Take a click without a drag as a question (napari calls this for every press)."""
        if not self.control.view.click_button.isChecked() or getattr(event, "button", 1) != 1:
            return
        yield
        while event.type == "mouse_move":
            if event.is_dragging:
                return
            yield
        place = clicked_place(bare(viewer), event)
        if place is not None:
            self.control.click_at(*place)

    def _toggled(self, on: bool) -> None:
        control = self.control
        control.view.text.show_text("Click on a neuron." if on else "")
        if on and control.engine is None and not control.is_running:
            self._warm_up()

    def _warm_up(self) -> None:
        """Make the engine ready before the first click asks for it."""
        control = self.control
        request = control.request()
        if isinstance(request, list) or control.algorithm == "phase-space":
            return
        if control.algorithm == "cista" and not control.models.offers:
            return
        circumstances = control.circumstances()

        def work() -> LocalizeEngine | None:
            from napari_lfm.widgets.localize_run import find

            return find(request, None, lambda _: None, everything=False).engine

        def have(engine: LocalizeEngine | None) -> None:
            if engine is not None and control.engine is None:
                control.take_engine(engine, circumstances)

        control.background.submit(
            "warm", work, have, lambda problem: control.view.text.show_problems([problem])
        )

    def _let_go(self) -> None:
        if self.on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self.on_mouse)


def clicked_place(viewer: Viewer, event: Any) -> tuple[float, float] | None:
    """Return (y_um, x_um) of what a click means; None where it means nothing.

    In 2-D it is the place itself. In 3-D it is the brightest voxel along the ray through the topmost visible
    volume.
    """
    if viewer.dims.ndisplay == 2:
        y, x = (float(v) for v in np.asarray(event.position)[-2:])
        return y, x
    for layer in reversed(list(viewer.layers)):
        one = bare(layer)
        volume = isinstance(one, Image) and one.visible and one.ndim == 3
        place = brightest_on_ray(one, event) if volume else None
        if place is not None:
            return place
    return None


def brightest_on_ray(layer: Image, event: Any) -> tuple[float, float] | None:
    """Return (y_um, x_um) of the brightest voxel of a volume along a click's ray; None where it misses."""
    start, end = layer.get_ray_intersections(
        position=event.position,
        view_direction=event.view_direction,
        dims_displayed=list(event.dims_displayed),
        world=True,
    )
    if start is None or end is None:
        return None
    steps = np.linspace(0, 1, _SAMPLES)[:, None]
    along = np.asarray(start) + steps * (np.asarray(end) - np.asarray(start))
    index = np.clip(np.rint(along).astype(int), 0, np.asarray(layer.data.shape) - 1)
    values = np.asarray(layer.data)[tuple(index.T)]
    best = along[int(values.argmax())]
    world = np.asarray(layer.data_to_world(best), float)
    return float(world[-2]), float(world[-1])
