"""The lattice drawn over the raw frame: light marks at the lenslet centres, coloured by residual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import Colormap
from qtpy.QtCore import QTimer

from napari_lfm.widgets.session import bare, update_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.layers import Points

    from napari_lfm.lightfield.lattice import Lattice

NAME = "lenslet centres"
# residuals in px at which the colour is that of a good and of a bad centre
_GOOD_PX, _BAD_PX = 0.0, 0.5
_COLOURS = [[0.35, 1.0, 0.65], [1.0, 0.85, 0.2], [1.0, 0.25, 0.2]]


class LatticeOverlay:
    """Keeps one Points layer in step with the lattice; tells when a point was dragged.

    Parameters
    ----------
    viewer : Viewer
    dragged : callable
        Called with (row, column, y_px, x_px) when the user has moved a centre.
    """

    def __init__(self, viewer: Viewer, dragged: Callable[[int, int, float, float], None]) -> None:
        self._viewer = viewer
        self._dragged = dragged
        self._layer: Points | None = None
        self._columns = 0
        self._shown = np.zeros((0, 2))
        self._own_change = False

    @property
    def layer(self) -> Points | None:
        """The Points layer while it is in the viewer."""
        if self._layer is not None and not any(bare(x) is self._layer for x in self._viewer.layers):
            self._layer = None
        return self._layer

    def show(self, lattice: Lattice, residual_px: np.ndarray | None, pixel_um: float, unit: str) -> None:
        """Draw a lattice.

        Parameters
        ----------
        lattice : Lattice
        residual_px : numpy.ndarray or None
            Found minus fitted centres, shape (rows, columns, 2), NaN where nothing was found.
        pixel_um : float
            Camera pixel in the world, 1 while no microscope is chosen.
        unit : str
            ``um`` or ``pixel``.
        """
        centres = lattice.centres_px().reshape(-1, 2)
        self._columns = lattice.columns
        features = {"residual_px": _magnitudes(residual_px, len(centres))}
        size = 0.22 * min(lattice.pitch_px)
        layer = self.layer
        self._own_change = True
        try:
            if layer is not None:
                layer.selected_data = set()
                layer.data = centres
                layer.features = features
                layer.size = size
            else:
                self._layer = layer = bare(
                    self._viewer.add_points(
                        centres,
                        name=NAME,
                        features=features,
                        size=size,
                        symbol="cross",
                        border_width=0,
                        face_color="residual_px",
                        face_colormap=Colormap(_COLOURS, name="residual"),
                        face_contrast_limits=(_GOOD_PX, _BAD_PX),
                        opacity=0.9,
                        scale=(pixel_um, pixel_um),
                        units=(unit, unit),
                        axis_labels=("y", "x"),
                    )
                )
                update_record(layer, role="lattice")
                layer.events.data.connect(self._on_data)
            # setting what is set already would redraw for nothing
            if tuple(layer.scale) != (pixel_um, pixel_um):
                layer.scale = (pixel_um, pixel_um)
                layer.units = (unit, unit)
            layer.refresh_colors()
        finally:
            self._own_change = False
        self._shown = np.array(layer.data, float)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the layer."""
        if self.layer is not None and self.layer.visible != visible:
            self.layer.visible = visible

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer = self.layer
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layer = None

    def set_dragging(self, on: bool) -> None:
        """Let the user drag centres, or stop it."""
        layer = self.layer
        if layer is None:
            return
        if on:
            self.set_visible(True)
            self._viewer.layers.selection.active = layer
        # last: napari leaves the mode when visibility is set
        layer.mode = "select" if on else "pan_zoom"

    def _on_data(self, event: Any) -> None:
        if self._own_change or self._layer is None or str(getattr(event, "action", "")) != "changed":
            return
        data = np.asarray(self._layer.data, float)
        if data.shape != self._shown.shape:  # the user deleted or added a mark: draw the lattice anew
            return
        moved = np.linalg.norm(data - self._shown, axis=1)
        index = int(np.argmax(moved))
        if moved[index] < 1e-3:
            return
        row, column = divmod(index, self._columns)
        y, x = float(data[index, 0]), float(data[index, 1])
        # napari is still inside its own mouse handling: move the other marks after it
        QTimer.singleShot(0, lambda: self._dragged(row, column, y, x))


def _magnitudes(residual_px: np.ndarray | None, count: int) -> np.ndarray:
    """Return one residual per centre; unknown ones count as good, as nothing speaks against them."""
    if residual_px is None:
        return np.zeros(count)
    size = np.linalg.norm(np.asarray(residual_px, float).reshape(-1, 2), axis=1)
    return np.nan_to_num(size, nan=0.0) if size.size == count else np.zeros(count)
