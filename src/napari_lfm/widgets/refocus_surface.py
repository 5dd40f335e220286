"""Surfaces of the *Refocus* panel: from boxes, clicked points and layers to heights, and their layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import QTimer

from napari_lfm.core.labelled import origin_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.resolve_stack import required_stack
from napari_lfm.widgets.session import bare, layer_info, update_record

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    import xarray as xr

    from napari_lfm.widgets.refocus_input import FlatInput
    from napari_lfm.widgets.refocus_surface_view import SurfaceBox
    from napari_lfm.widgets.session import Session

Surface = tuple["Callable[[tuple[int, int], float], np.ndarray]", "Hashable"]
POINTS = "points of the surface"
FEATURE = "z_um"


@dataclass(frozen=True)
class SurfaceWish:
    """A surface as parameters of the method, with the map that it may need."""

    values: Mapping[str, Any]
    inputs: Mapping[str, xr.DataArray] = field(default_factory=dict)


class SurfaceTool:
    """Knows which surface is chosen, and keeps its points.

    Parameters
    ----------
    session : Session
    view : SurfaceBox
    changed : callable
        Called when the surface is another one.
    image : callable
        Returns the image layer, None without one.
    found : callable
        Returns the plane of it that is looked at, None without one.
    z_um : callable
        Returns the z of the slider: that of the next point.
    """

    def __init__(
        self,
        session: Session,
        view: SurfaceBox,
        changed: Callable[[], None],
        image: Callable[[], Image | None],
        found: Callable[[], FlatInput | None],
        z_um: Callable[[], float],
    ) -> None:
        self.session, self.view = session, view
        self._changed, self._layer, self._found, self._z_um = changed, image, found, z_um
        self.layer: Points | None = None
        self.map: Image | None = None
        self._count = 0
        view.kind_chosen.connect(self._on_kind)
        view.changed.connect(changed)
        view.points_chosen.connect(self.choose_points)
        view.map_chosen.connect(self.choose_map)
        view.height_typed.connect(self.set_height)
        view.point_deleted.connect(self.delete)
        view.click_button.toggled.connect(self.click)
        self.refresh()

    # -------------------------------------------------------------------- choice
    def _image(self) -> tuple[Image | None, float]:
        """Return the image layer and its pixel in um; (None, 0) without one."""
        layer, found = self._layer(), self._found()
        return (None, 0.0) if layer is None or found is None else (layer, found.pixel_um)

    def _plane_um(self) -> float:
        found = self._found()
        return 0.0 if found is None else found.z_um

    @property
    def kind(self) -> str:
        """The kind of surface that is focused on: a plane while points are looked for."""
        kind = self.view.kind
        if kind == "points" and not self.view.show_button.isChecked():
            return "plane"
        return kind

    def choose_kind(self, kind: str) -> None:
        """Choose a surface as the list does."""
        self.view.show_kind(kind)
        self._on_kind(kind)

    def choose_points(self, layer: Any) -> None:
        """Take a Points layer."""
        layer = bare(layer)
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_points)
            self.layer.events.features.disconnect(self._on_points)
        self.layer = layer
        self._count = 0 if layer is None else len(layer.data)
        if layer is not None:
            layer.events.data.connect(self._on_points)
            layer.events.features.connect(self._on_points)
        self.refresh()
        self._show_points()

    def choose_map(self, layer: Any) -> None:
        """Take an image layer as a height map."""
        self.map = bare(layer)
        self._changed()

    def refresh(self) -> None:
        """Read the lists of layers anew; what is gone is forgotten."""
        layers = [bare(x) for x in self.session.viewer.layers]
        points = [x for x in layers if isinstance(x, Points)]
        images = [x for x in layers if isinstance(x, Image) and not x.rgb and x is not self._layer()]
        if self.layer is not None and not any(x is self.layer for x in points):
            self.layer = None
            self._show_points()
        if self.map is not None and not any(x is self.map for x in images):
            self.map = None
            self._changed()
        view = self.view
        view.show_choices(view.points_combo, "(no points yet)", [(x.name, x) for x in points], self.layer)
        maps = [x for x in images if "refocused" not in x.name or x is self.map]
        view.show_choices(view.map_combo, "(choose a height map)", [(x.name, x) for x in maps], self.map)

    def _on_kind(self, kind: str) -> None:
        if kind != "points":
            self.view.click_button.setChecked(False)
            self.view.text.show_text("")
            self._changed()
        else:
            self._show_points()

    # -------------------------------------------------------------------- points
    def click(self, on: bool) -> None:
        """Let the user click points; each gets the z of the slider."""
        if not on:
            if self.layer is not None:
                self.layer.mode = "pan_zoom"
            return
        image, pixel_um = self._image()
        if image is None or not pixel_um:
            self.view.click_button.setChecked(False)
            return
        self.view.show_button.setChecked(False)
        if self.layer is None:
            size = max(6.0, 0.02 * max(image.data.shape[-2:]))
            layer = bare(
                self.session.viewer.add_points(
                    np.zeros((0, 2)),
                    name=POINTS,
                    features={FEATURE: np.zeros(0)},
                    text={"string": "{z_um:.1f}", "color": "#ffd400", "size": 10, "translation": [-size, 0]},
                    face_color="transparent",
                    border_color="#ffd400",
                    border_width=0.15,
                    size=size,
                    scale=tuple(image.scale[-2:]),
                    translate=tuple(image.translate[-2:]),
                    units=tuple(map(str, image.units[-2:])),
                    axis_labels=("y", "x"),
                )
            )
            update_record(layer, role="surface points")
            self.choose_points(layer)
        assert self.layer is not None
        self._next_height()
        self.session.viewer.layers.selection.active = self.layer
        self.layer.mode = "add"

    def slider_moved(self) -> None:
        """Give the next point another height; the plane of the slider is looked at again."""
        if self.view.kind == "points" and self.view.show_button.isChecked():
            self.view.show_button.setChecked(False)
        self._next_height()

    def _next_height(self) -> None:
        if self.layer is not None and self.layer.ndim == 2:
            self.layer.feature_defaults = {FEATURE: round(self._z_um(), 4)}

    def points_um(self) -> np.ndarray:
        """Return the chosen points (n, 3): height from the image's plane, y and x from its first pixel."""
        image, pixel_um = self._image()
        if self.layer is None or image is None or not len(self.layer.data):
            return np.zeros((0, 3))
        world = np.array([self.layer.data_to_world(p) for p in np.asarray(self.layer.data, float)])
        step = np.asarray(image.scale[-2:], float)
        flat = (world[:, -2:] - np.asarray(image.translate[-2:], float)) / step * pixel_um
        if FEATURE in self.layer.features:
            heights = np.asarray(self.layer.features[FEATURE], float)
        elif world.shape[1] >= 3:
            heights = world[:, -3] * pixel_um / abs(float(step[1])) - self._plane_um()
        else:
            heights = np.zeros(len(world))
        return np.column_stack([heights, flat])

    def set_height(self, number: int, z_um: float) -> None:
        """Move a point up or down."""
        layer = self.layer
        if layer is None or not 0 <= number < len(layer.data):
            return
        if not math.isfinite(z_um):
            self.view.text.show_problems(
                [Problem("A height is no number.", f"Type it in {MICROMETRES}, with a point.")]
            )
        elif FEATURE in layer.features or layer.ndim == 2:
            features = layer.features.copy()
            if FEATURE not in features:
                features[FEATURE] = 0.0
            features.loc[features.index[number], FEATURE] = z_um
            layer.features = features
            layer.refresh_text()
        else:
            image, pixel_um = self._image()
            assert image is not None
            data = np.array(layer.data, float)
            world = (z_um + self._plane_um()) * abs(float(image.scale[-1])) / pixel_um
            data[number, -3] = (world - layer.translate[-3]) / layer.scale[-3]
            layer.data = data
        self._show_points()

    def delete(self, number: int) -> None:
        """Take a point away."""
        if self.layer is not None and 0 <= number < len(self.layer.data):
            self.layer.selected_data = {number}
            self.layer.remove_selected()

    def _on_points(self, event: Any = None) -> None:
        # napari is still inside its own mouse handling: look after it
        QTimer.singleShot(0, self._settle)

    def _settle(self) -> None:
        layer = self.layer
        if layer is None:
            return
        if len(layer.data) > self._count and FEATURE in layer.features and self.view.click_button.isChecked():
            # napari gives a new point what the selected one has
            features = layer.features.copy()
            features.loc[features.index[self._count :], FEATURE] = round(self._z_um(), 4)
            self._count = len(layer.data)
            layer.features = features
            layer.refresh_text()
        self._count = len(layer.data)
        self._show_points()

    def _show_points(self) -> None:
        points = self.points_um()
        self.view.show_points(points)
        count = len(points)
        if self.view.kind == "points":
            words = {0: "three points", 1: "two more points", 2: "one more point"}.get(count)
            what = "A tilted plane" if count == 3 else f"A curved surface through {count} points"
            self.view.text.show_text(
                f"Click {words}: slide until a place is sharp, and click it."
                if words
                else f"{what}: 'Focus on the surface' shows it. More points are welcome."
            )
            self.view.show_button.setEnabled(count >= 3)
            if count < 3:
                self.view.show_button.setChecked(False)
        self._changed()

    # ------------------------------------------------------------------- heights
    def surface(self) -> Surface | Problem | None:
        """Return what makes the heights, and all that they depend on; None for the plane of the slider."""
        kind, view, z = self.kind, self.view, self._z_um()
        if kind == "plane":
            return None
        if kind == "tilt":
            x, y = view.tilt_x_box.value(), view.tilt_y_box.value()
            return lambda shape, pixel: _surfaces().tilted(shape, pixel, z, x, y), (kind, z, x, y)
        if kind == "points":
            points = self.points_um()
            return (
                lambda shape, pixel: _surfaces().through_points(points, shape, pixel),
                (kind, points.tobytes()),
            )
        if self.map is None:
            return Problem("No height map is chosen.", "Choose an image layer whose values are heights.")
        try:
            values = _flat(self.map)
        except RequestError as error:
            return error.problem()
        unit = str(view.unit_combo.currentData())
        return (
            lambda shape, pixel: np.float32(z) + _surfaces().height_map(values, shape, pixel, unit),
            (kind, id(self.map.data), unit, z),
        )

    def wish(self) -> SurfaceWish:
        """Return the surface as parameters of the method.

        Raises
        ------
        RequestError
            If it lacks something.
        """
        found, view, kind, z = self._found(), self.view, self.kind, self._z_um()
        if kind == "tilt":
            angles = {"tilt_x_deg": view.tilt_x_box.value(), "tilt_y_deg": view.tilt_y_box.value()}
            return SurfaceWish({"surface": "tilt", "z_um": z, **angles})
        if kind == "points" and found is not None:
            origin = origin_of(found.image)
            shift = np.array([0.0, origin.get("y", 0.0), origin.get("x", 0.0)])
            points = [tuple(map(float, p)) for p in self.points_um() + shift]
            return SurfaceWish({"surface": "points", "points_um": points})
        if kind == "map":
            if self.map is None:
                raise RequestError("No height map is chosen.", "Choose an image layer of heights above.")
            heights = required_stack(layer_info(self.map))
            unit = str(view.unit_combo.currentData())
            return SurfaceWish(
                {"surface": "height-map", "height_map_unit": unit, "z_um": z}, {"height_map": heights}
            )
        return SurfaceWish({"surface": "plane", "z_um": z})


def _surfaces() -> Any:
    """Return the module that makes heights; it takes its time to import (worker thread)."""
    from napari_lfm.methods.refocus import surfaces

    return surfaces


def _flat(layer: Image) -> np.ndarray:
    """Return the values of a flat layer; of a larger one, where its further axes have length 1."""
    data = layer.data[0] if layer.multiscale else layer.data
    if math.prod(data.shape[:-2]) != 1:
        raise RequestError(
            f"'{layer.name}' has {data.ndim} axes, {' x '.join(map(str, data.shape))}.",
            "A height map is flat: choose one image (y, x).",
        )
    return np.asarray(data).reshape(data.shape[-2:])
