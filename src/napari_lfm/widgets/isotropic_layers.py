"""The layers that isotropic restoration makes, and the stack beside its result, seen from the side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.widgets.result_layers import ResultLayers, layer_name
from napari_lfm.widgets.runner import contrast_limits
from napari_lfm.widgets.session import bare, update_record
from napari_lfm.widgets.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from napari import Viewer
    from napari.layers import Image

    from napari_lfm.core.events import Result

PRIMARY, DISAGREEMENT, RESIDUAL = "isotropic", "disagreement", "residual"
_NAMES = {PRIMARY: "isotropic", DISAGREEMENT: "disagreement", RESIDUAL: "not explained"}
_COLOURS = {PRIMARY: "gray", DISAGREEMENT: "magma", RESIDUAL: "PiYG"}
_REACH_PERCENTILE, _MOST_VALUES = 99.8, 500_000


class IsotropicLayers(ResultLayers):
    """The restored stack; hidden beside it, how far the passes disagree and what is not explained."""

    def _name(self, output: str) -> str:
        return layer_name(_NAMES.get(output, output), self._base)

    def _look(self, name: str, image: xr.DataArray) -> tuple[str, tuple[float, float] | None]:
        if name == PRIMARY:
            return _COLOURS[name], None
        flat = np.abs(np.asarray(image.values, np.float32).reshape(-1))
        reach = float(np.percentile(flat[:: max(1, flat.size // _MOST_VALUES)], _REACH_PERCENTILE)) or 1.0
        return _COLOURS.get(name, "gray"), (-reach if name == RESIDUAL else 0.0, reach)

    def add(self, result: Result, limits: tuple[float, float] | None) -> None:
        """Show a result; the map layers are no stacks to work on."""
        self.show_result(result, limits, refit=True)
        for name in result.outputs:
            layer = self.layer(name)
            if layer is None:
                continue
            if name == PRIMARY:
                self._viewer.layers.selection.active = layer
            else:
                update_record(layer, role="disagreement")


class Beside:
    """Stack and result in two cells, from the side or plane by plane; and everything as it was again.

    Both have the same grey values, and so the same contrast.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._side = SideBySide(viewer)
        self._order: tuple[int, ...] | None = None

    @property
    def active(self) -> bool:
        """Whether they stand beside each other now."""
        return self._side.active

    def show(self, stack: Image, result: Image, from_side: bool) -> None:
        """Put them beside each other."""
        self.restore()
        viewer, result = self._viewer, bare(result)
        dims = viewer.dims
        dims.ndisplay = 2
        if from_side:
            self._order = tuple(dims.order)
            lead = dims.ndim - result.ndim  # of fewer axes than the viewer, a layer has the last ones
            labels = [str(a) for a in result.axis_labels]
            z, y, x = (lead + labels.index(d) for d in ("z", "y", "x"))
            dims.order = (*(d for d in range(dims.ndim) if d not in (z, y, x)), y, z, x)
            at: dict[str, int] = {
                d: dims.current_step[lead + labels.index(d)] for d in ("t", "c") if d in labels
            }
            row = fullest_row(np.asarray(result.data), labels, at)
            dims.set_point(y, float(result.translate[y - lead] + row * result.scale[y - lead]))
        limits = contrast_limits(np.asarray(result.data))
        high, wide = (float(np.ptp(dims.range[d][:2])) for d in dims.order[-2:])
        self._side.show([stack, result], [limits, limits], below=wide > high)

    def restore(self) -> None:
        """Lay them over each other again, seen as before."""
        if self._order is not None and len(self._order) == self._viewer.dims.ndim:
            self._viewer.dims.order = self._order
        self._order = None
        self._side.restore()


def fullest_row(data: np.ndarray, labels: Sequence[str], at: Mapping[str, int]) -> int:
    """Return the row (y) whose slice along z and x varies most: what is looked at first.

    Parameters
    ----------
    data : ndarray
    labels : sequence of str
        Of its axes, out of ``t c z y x``.
    at : mapping of str to int
        Frame and channel.
    """
    few = {d: slice(None, None, max(1, n // 128)) for d, n in zip(labels, data.shape, strict=True)}
    chosen = data[tuple(at[d] if d in at else few[d] if d in "zx" else slice(None) for d in labels)]
    left = [d for d in labels if d not in at]
    spread = np.asarray(chosen, np.float32).std(axis=tuple(k for k, d in enumerate(left) if d != "y"))
    return int(np.argmax(spread))
