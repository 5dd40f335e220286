"""Layers beside each other in napari's grid: one camera, one slider, brightness that compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.widgets.runner import contrast_limits
from napari_lfm.widgets.session import bare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Image

_LONGEST_ROW = 3


class SideBySide:
    """Shows chosen layers in cells, in reading order, and puts everything back afterwards.

    Every layer's contrast is set from the same two percentiles of its own values: their units differ, so
    equal grey values would mean nothing. The camera and the sliders are those of the viewer, for all alike.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._before: dict[str, Any] | None = None

    @property
    def active(self) -> bool:
        """Whether the layers stand beside each other now."""
        return self._before is not None

    def show(
        self,
        layers: Sequence[Image],
        limits: Sequence[tuple[float, float] | None] = (),
        below: bool = False,
    ) -> None:
        """Put layers into cells, each with its name; all others are hidden.

        Parameters
        ----------
        layers : sequence of Image
            In reading order: up to three in a row, more in two rows.
        limits : sequence of (low, high) or None, optional
            Contrast limits; default from percentiles.
        below : bool
            Below one another, for what is wide.
        """
        self.restore()
        viewer, wanted = self._viewer, [bare(x) for x in layers]
        if not wanted:
            return
        present = [bare(x) for x in viewer.layers]
        grid = grid_of(viewer)
        self._before = {
            "grid": (grid.enabled, grid.stride, tuple(grid.shape), grid.spacing),
            "order": present,
            "visible": {x: x.visible for x in present},
            "limits": {x: (tuple(x.contrast_limits_range), tuple(x.contrast_limits)) for x in wanted},
            "colormap": {x: x.colormap for x in wanted},
            "blending": {x: x.blending for x in wanted},
            "names": {x: x.name_overlay.visible for x in wanted if hasattr(x, "name_overlay")},
        }
        viewer.dims.ndisplay = 2
        self._order([*[x for x in present if x not in wanted], *wanted])
        for layer in present:
            layer.visible = layer in wanted
        for number, layer in enumerate(wanted):
            given = limits[number] if number < len(limits) else None
            low, high = given if given is not None else contrast_limits(_sample(layer.data))
            layer.contrast_limits_range = (min(low, 0.0), max(high * 2, low + 1e-6))
            layer.contrast_limits = (low, high)
            if given is None:  # a map with limits of its own has colours of its own, too
                layer.colormap = "gray"
            layer.blending = "translucent"
            if hasattr(layer, "name_overlay"):  # since napari 0.6.5
                layer.name_overlay.visible = True
                layer.name_overlay.position = "top_left"
        # the list's last layer is its uppermost, and comes last with a positive stride
        rows = len(wanted) if below else 1 if len(wanted) <= _LONGEST_ROW else 2
        grid.stride, grid.shape, grid.spacing = 1, (rows, -(-len(wanted) // rows)), 6
        grid.enabled = True
        viewer.reset_view()

    def restore(self) -> None:
        """Lay everything over each other again, as it was before."""
        before, self._before = self._before, None
        if before is None:
            return
        viewer = self._viewer
        grid = grid_of(viewer)
        grid.enabled, grid.stride, grid.shape, grid.spacing = before["grid"]
        here = [bare(x) for x in viewer.layers]
        for layer, shown in before["visible"].items():
            if layer in here:
                layer.visible = shown
        for layer, (reach, limits) in before["limits"].items():
            if layer in here:
                layer.contrast_limits_range = reach
                layer.contrast_limits = limits
                layer.colormap = before["colormap"][layer]
                layer.blending = before["blending"][layer]
                if layer in before["names"]:
                    layer.name_overlay.visible = before["names"][layer]
        known = [x for x in before["order"] if x in here]
        self._order([*known, *[x for x in here if x not in known]])
        viewer.reset_view()

    def _order(self, wanted: Sequence[Any]) -> None:
        """Bring the viewer's layers into an order."""
        layers = self._viewer.layers
        for place, layer in enumerate(wanted):
            now = [bare(x) for x in layers].index(layer)
            if now != place:
                layers.move(now, place)


def grid_of(viewer: Viewer) -> Any:
    """Return the viewer's grid, which napari 0.9 has moved to its canvas."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.grid if canvas is None else canvas.grid


def _sample(data: Any) -> Any:
    """Return an array in memory that stands for a layer's data: of a lazy one its middle plane."""
    if hasattr(data, "dask"):
        data = data[tuple(n // 2 for n in data.shape[:-2])]
    return np.asarray(data)
