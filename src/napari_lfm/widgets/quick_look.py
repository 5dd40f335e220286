"""Refocus and perspective sliders on the raw light field: prepared once, then at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.io.layers import layer_data_from
from napari_lfm.widgets.session import bare, layer_info

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Image

    from napari_lfm.core.problems import Problem
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.lightfield.refocus import Refocuser
    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.widgets.light_field_view import LightFieldView
    from napari_lfm.widgets.panel import Panel

NAME = "quick look"
# a slider must answer within 50 ms; most of that is left to drawing
_BUDGET_S = 0.012


@dataclass(frozen=True)
class Prepared:
    """One frame ready for the sliders.

    Attributes
    ----------
    refocuser : Refocuser
    image : xarray.DataArray
        The frame focused on the native plane, labelled; every other look has its shape and place.
    fine : int
        Pixels per lenslet of `image`.
    half_views : int
        Views go from -half_views to half_views.
    half_depth_um : float
        Depths go from minus to plus this.
    microscope : Microscope
    """

    refocuser: Refocuser
    image: xr.DataArray
    fine: int
    half_views: int
    half_depth_um: float
    microscope: Microscope

    def focused(self, z_um: float) -> np.ndarray:
        """Return all views together, focused on a depth."""
        from napari_lfm.lightfield.slopes import slope_at_depth

        return self.refocuser.refocus(slope_at_depth(z_um, self.microscope), self.fine)

    def seen_from(self, v: int, u: int) -> np.ndarray:
        """Return one view, counted from the axis, on the same pixels."""
        centre = (self.refocuser.shape[0] - 1) / 2
        view = self.refocuser.view(centre + v, centre + u)
        return np.repeat(np.repeat(view, self.fine, axis=0), self.fine, axis=1)


def prepare(frame: Any, dark: Any, lattice: Lattice, microscope: Microscope) -> Prepared:
    """Rectify a frame and transform its views (worker thread)."""
    from napari_lfm.lightfield.rectify import rectify
    from napari_lfm.lightfield.refocus import Refocuser
    from napari_lfm.lightfield.slopes import default_view_range, slope_per_um
    from napari_lfm.lightfield.views import lf4d, refocused

    n = microscope.n_pixels
    if n is None:
        raise RequestError("This microscope has no lenslets.", "Choose a light-field microscope.")
    rectified = rectify(frame, lattice, n, dark=dark)
    half = default_view_range(microscope, n)
    per_um = slope_per_um(microscope, half, n)
    # at this depth the outermost views are shifted by six lenslets: little is left to see beyond
    reach_um = min(6.0 / (per_um * max(1, half)), 1.5 * microscope.depth_range_um)
    refocuser = Refocuser(lf4d(rectified), max_slope=reach_um * per_um)
    fine = 1
    for candidate in (2, 3):
        begin = time.perf_counter()
        refocuser.refocus(0.1, candidate)
        if time.perf_counter() - begin > _BUDGET_S:
            break
        fine = candidate
    image = refocused(rectified, microscope, slope=0.0, upsample=fine)
    return Prepared(refocuser, image, fine, half, reach_um, microscope)


class QuickLook:
    """Keeps one layer in step with the sliders."""

    def __init__(self, panel: Panel, view: LightFieldView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.prepared: Prepared | None = None
        self._layer: Image | None = None
        view.refocus_moved.connect(self.refocus)
        view.perspective_moved.connect(self.tilt)
        for signal in (
            self.session.inputs_changed,
            self.session.microscope_changed,
            self.session.lattice_changed,
        ):
            panel.listen(signal, self.prepare)
        self.prepare()

    def prepare(self) -> None:
        """Prepare the present frame in a worker, where everything needed is known."""
        session = self.session
        layer, lattice, microscope = session.input("lightfield"), session.lattice, session.microscope
        self.prepared = None
        missing = ""
        if layer is None:
            missing = "Open a light field first."
        elif microscope is None:
            missing = "Choose the microscope first."
        elif lattice is None:
            missing = "Find the lenslets first; then refocus and tilt the view here."
        if missing or layer is None or lattice is None or microscope is None:
            self.panel.background.forget("quick look")
            self.view.show_quick_look(0, 1.0, missing)
            return
        frame = one_frame(layer, session.frame)
        dark_layer = session.input("dark")
        dark = None if dark_layer is None else one_frame(dark_layer, 0)
        self.panel.background.submit(
            "quick look", lambda: prepare(frame, dark, lattice, microscope), self._ready, self._failed
        )

    def _ready(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.view.show_quick_look(
            prepared.half_views,
            prepared.half_depth_um,
            "Move a slider: a layer 'quick look' shows it at once.",
        )
        self.view.show_depth(self.view.depth_slider.value() / 10.0)
        layer = self.layer
        if layer is not None and layer.data.shape != prepared.image.shape:
            self.session.viewer.layers.remove(layer)
        elif layer is not None:
            self.refocus(self.view.depth_slider.value() / 10.0)

    def _failed(self, problem: Problem) -> None:
        self.view.show_quick_look(0, 1.0, str(problem))

    @property
    def layer(self) -> Image | None:
        """The layer while it is in the viewer."""
        if self._layer is not None and not any(bare(x) is self._layer for x in self.session.viewer.layers):
            self._layer = None
        return self._layer

    def refocus(self, z_um: float) -> None:
        """Show all views focused on a depth."""
        if self.prepared is None:
            return
        self.view.show_depth(z_um)
        self.view.centre_views()
        self._show(self.prepared.focused(z_um))
        self.view.say_look("All views together, focused on the chosen depth.")

    def tilt(self, v: int, u: int) -> None:
        """Show one view."""
        if self.prepared is None:
            return
        self._show(self.prepared.seen_from(v, u))
        self.view.say_look(
            "One view only, as if seen from the side; the depth slider goes back to all views."
        )

    def _show(self, values: np.ndarray) -> None:
        assert self.prepared is not None
        layer = self.layer
        if layer is None:
            viewer = self.session.viewer
            active = viewer.layers.selection.active
            data, arguments, _ = layer_data_from(
                self.prepared.image, name=NAME, role="quicklook", interpolation2d="linear"
            )
            self._layer = layer = bare(viewer.add_image(np.array(data), **arguments))
            if active is not None:
                viewer.layers.selection.active = active
            # the marks lie under the quick look, and drawing them would slow the sliders down
            self.view.overlay_box.setChecked(False)
        layer.data = values
        if not layer.visible:  # setting it anyway costs as much time as the data
            layer.visible = True


def one_frame(layer: Image, frame: int | None) -> Any:
    """Return one frame (y, x) of a layer, whatever leading axes it has."""
    data = layer_info(layer).data
    while data.ndim > 2:
        index = (frame or 0) if data.ndim == 3 else 0
        data = data[min(index, data.shape[0] - 1)]
    return data
