"""Drawing the rectangle that is to be reconstructed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_lfm.widgets.session import bare, update_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.layers import Shapes

NAME = "region"


class RegionTool:
    """A Shapes layer in world micrometres with at most one rectangle that counts: the newest.

    Parameters
    ----------
    viewer : Viewer
    changed : callable
        Called when the rectangle is drawn, moved or deleted.
    """

    def __init__(self, viewer: Viewer, changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._changed = changed
        self._layer: Shapes | None = None

    @property
    def layer(self) -> Shapes | None:
        """The Shapes layer while it is in the viewer."""
        if self._layer is not None and not any(bare(x) is self._layer for x in self._viewer.layers):
            self._layer = None
        return self._layer

    @property
    def region_um(self) -> tuple[float, float, float, float] | None:
        """``(y0, x0, y1, x1)`` in world micrometres, None while there is no rectangle."""
        layer = self.layer
        if layer is None or not layer.data:
            return None
        corners = np.array([layer.data_to_world(corner)[-2:] for corner in np.asarray(layer.data[-1])])
        (y0, x0), (y1, x1) = corners.min(axis=0), corners.max(axis=0)
        return float(y0), float(x0), float(y1), float(x1)

    def draw(self, field_um: float) -> None:
        """Let the user draw a rectangle; `field_um` sets the width of its line."""
        layer = self.layer
        if layer is None:
            layer = bare(
                self._viewer.add_shapes(
                    ndim=2,
                    name=NAME,
                    edge_color="#ffd400",
                    face_color="transparent",
                    edge_width=max(0.004 * field_um, 1e-3),
                    scale=(1.0, 1.0),
                    units=("um", "um"),
                    axis_labels=("y", "x"),
                )
            )
            update_record(layer, role="region")
            layer.events.data.connect(self._on_data)
            self._layer = layer
        layer.visible = True
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"

    def _on_data(self, event: Any) -> None:
        action = str(getattr(event, "action", ""))
        if action in ("added", "changed", "removed"):
            # napari is still inside its own mouse handling: tidy up after it
            QTimer.singleShot(0, self._settle)

    def _settle(self) -> None:
        layer = self.layer
        if layer is None:
            return
        if len(layer.data) > 1:
            with layer.events.data.blocker():
                layer.data = [layer.data[-1]]
        if str(layer.mode) == "add_rectangle" and layer.data:
            layer.mode = "pan_zoom"
        self._changed()
