"""The layers of a run: one that sharpens with every preview, and what the result adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QTimer

from napari_lfm.core.labelled import SPATIAL
from napari_lfm.io.layers import layer_data_from
from napari_lfm.io.units import length_in_um, time_in_s
from napari_lfm.widgets.runner import contrast_limits
from napari_lfm.widgets.session import bare, update_record
from napari_lfm.widgets.state import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from napari import Viewer
    from napari.layers import Image, Layer

    from napari_lfm.core.events import Result
    from napari_lfm.core.problems import Estimate
    from napari_lfm.widgets.runner import ReadyPreview

_COLORMAP = "inferno"
# the slider of the layer reaches this many times the first preview's upper limit, as volumes sharpen
_HEADROOM = 4.0
_MOVIE_NDIM = 4
_SHARE_COLORMAP = "viridis"


def layer_name(output: str, base: str, maker: str = "") -> str:
    """Return the name of an output's layer: what it is comes first, as long names are cut."""
    what = f"{maker} {output}".strip()
    return f"{what} ({base})" if base else what


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes are the same, or those of movies that differ in their frames only."""
    return one == other or (len(one) == len(other) == _MOVIE_NDIM and one[1:] == other[1:])


def _set_limits(layer: Image, limits: tuple[float, float]) -> None:
    # the range first: napari cuts limits to it
    layer.contrast_limits_range = (min(limits[0], 0.0), limits[1] * _HEADROOM)
    layer.contrast_limits = limits


def in_world(image: xr.DataArray, world: Mapping[str, str]) -> xr.DataArray:
    """Return a result with its axes in the order of its input's layer, where it has the same ones."""
    order = [d for d in world if d in image.dims]
    if len(order) < image.ndim or order == list(image.dims) or "affine_um" in image.attrs:
        return image
    return image.transpose(*order)


def in_units(arguments: dict[str, Any], world: Mapping[str, str]) -> dict[str, Any]:
    """Return layer arguments in the units of the input's layer, so that both lie in one world.

    Results are in micrometres and seconds. What a layer without units has for scale is taken to be those.
    """
    dims = arguments["axis_labels"]
    units, factors = list(arguments["units"]), []
    for at, dim in enumerate(dims):
        wanted, known = world.get(dim, units[at]), length_in_um if dim in SPATIAL else time_in_s
        each = known(wanted) if known(units[at]) is not None else None
        factors.append(1.0 if each is None else each)
        units[at] = wanted
    out = {**arguments, "units": tuple(units)}
    if "affine" in out:
        return arguments
    for key in ("scale", "translate"):
        out[key] = tuple(v / f for v, f in zip(out[key], factors, strict=True))
    return out


class ResultLayers:
    """Shows previews and results of one run after the other in a viewer.

    A layer that the user deletes in the middle of a run stays away until the run ends; the end
    brings the final state back, so that deleting never loses a result.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[str, Image] = {}
        self._base = self._maker = ""
        self._world: Mapping[str, str] = {}
        self._newest = 0
        self._waiting: Image | None = None
        self._placed = False

    def begin(
        self,
        base: str,
        go_on: bool,
        expected: Estimate | None = None,
        field_um: tuple[float, float, float, float] | None = None,
        maker: str = "",
        world: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare for a run; with `go_on` the layers of the last one are taken up again.

        Where the shape to come is known, and the field ``(y0, x0, y1, x1)`` that it covers, an empty,
        clear layer is added now: adding and first drawing a layer takes napari 0.2 s, filling one 0.01 s,
        and nothing is to jerk during the run. `maker` goes before the layers' names. `world` has the unit of
        every axis of the input's layer, in its order, where results are to be like that.
        """
        self._base, self._maker, self._newest = base, maker, 0
        self._world = world or {}
        if not go_on:
            for name in self._layers:  # the new volume lies in the same place as the old one
                old = self.layer(name)
                if old is not None:
                    old.visible = False
            self._layers = {}
            self._waiting = None
            if self._world:  # an empty layer in another place would move the sliders of the stack
                return
            if expected is not None and field_um is not None and expected.output_dims[-2:] == ("y", "x"):
                self._prepare(expected, field_um)

    def _prepare(self, expected: Estimate, field_um: tuple[float, float, float, float]) -> None:
        dims, shape = expected.output_dims, expected.output_shape
        self._placed = False
        y0, x0, y1, x1 = field_um
        lead = (len(dims) - 2) * (1.0,)
        self._waiting = bare(
            self._viewer.add_image(
                np.broadcast_to(np.float32(0), shape),
                scale=(*lead, (y1 - y0) / shape[-2], (x1 - x0) / shape[-1]),
                translate=(*(0.0 for _ in lead), y0, x0),
                name=self._name("volume"),
                colormap=_COLORMAP,
                contrast_limits=(0.0, 1.0),
                axis_labels=dims,
                units=tuple("um" if d in SPATIAL else "pixel" for d in dims),
                metadata={METADATA_KEY: {"role": "volume"}},
                opacity=0.0,
            )
        )

    def end(self) -> None:
        """Take away an empty layer that nothing came for."""
        if self._waiting is not None and self._present(self._waiting):
            self._viewer.layers.remove(self._waiting)
        self._waiting = None

    def _name(self, output: str) -> str:
        return layer_name(output, self._base, self._maker)

    def layer(self, name: str) -> Image | None:
        """Return the layer of an output while it is in the viewer."""
        layer = self._layers.get(name)
        return layer if layer is not None and self._present(layer) else None

    def show_preview(self, ready: ReadyPreview) -> None:
        """Show a preview, unless the user has deleted its layer."""
        name, waiting = ready.preview.name, self._waiting
        image = in_world(ready.preview.image, self._world)
        if name in self._layers and not self._present(self._layers[name]):
            return
        if waiting is not None and not self._placed and self._fits(waiting, image):
            # the first one in two turns of the event loop: where the layer lies, then what is in it
            self._place(waiting, image)
            QTimer.singleShot(0, lambda: self._show_placed(waiting, ready))
            return
        self._show(name, ready.preview.image, ready.limits)

    def _show_placed(self, waiting: Image, ready: ReadyPreview) -> None:
        # meanwhile the run may have ended, or the layer gone
        if self._waiting is waiting and self._present(waiting):
            self._show(ready.preview.name, ready.preview.image, ready.limits)

    def keep(self, ready: ReadyPreview, provenance: Mapping[str, Any] | None = None) -> None:
        """Make sure that the last preview of a stopped run is a layer."""
        self._show(ready.preview.name, ready.preview.image, ready.limits)
        layer = self.layer(ready.preview.name)
        if layer is not None and provenance:
            update_record(layer, provenance=dict(provenance))

    def show_result(self, result: Result, limits: tuple[float, float] | None, refit: bool = False) -> None:
        """Show every output; only the primary one is visible at first.

        With `refit` its contrast is set anew unless the user has changed it: limits that were taken
        from a first tile say nothing of the whole.
        """
        shown = self.layer(result.primary)
        refit = refit and (shown is None or limits is None or tuple(shown.contrast_limits) == limits)
        for name, output in result.outputs.items():
            if isinstance(output, pd.DataFrame):
                self._show_points(name, output)
            else:
                self._show(name, output, limits if name == result.primary else None, name == result.primary)
            layer = self._layers.get(name)
            if layer is not None:
                update_record(layer, provenance=result.provenance, output=name)
                if refit and name == result.primary:
                    _set_limits(layer, contrast_limits(layer.data))

    def fit_contrast(self) -> None:
        """Set contrast limits from the present data of every result layer."""
        for name in self._layers:
            layer = self.layer(name)
            if layer is not None and hasattr(layer, "contrast_limits"):
                _set_limits(layer, contrast_limits(layer.data))

    def _present(self, layer: Layer) -> bool:
        return any(bare(one) is layer for one in self._viewer.layers)

    def _show(
        self, name: str, image: xr.DataArray, limits: tuple[float, float] | None, visible: bool = True
    ) -> None:
        layer, image = self.layer(name), in_world(image, self._world)
        if layer is not None and _alike(tuple(layer.data.shape), image.shape):
            grown = layer.data.shape != image.shape
            layer.data = image.values
            if grown:
                self._follow(layer)
            return
        if layer is not None:
            self._viewer.layers.remove(layer)
        if limits is None:
            limits = contrast_limits(image.values)
        waiting = self._waiting
        if visible and waiting is not None and self._fits(waiting, image):
            if not self._placed:
                self._place(waiting, image)
            self._waiting = None
            self._layers[name] = self._fill(waiting, name, image, limits)
            return
        colormap, meant = self._look(name, image)
        limits = limits if meant is None else meant
        data, arguments, _ = layer_data_from(
            image,
            name=self._name(name),
            role="volume",
            colormap=colormap,
            contrast_limits=limits,
            visible=visible,
        )
        arguments = in_units(arguments, self._world)
        layer = bare(self._viewer.add_image(data, **arguments))
        if meant is None:
            _set_limits(layer, limits)
        self._layers[name] = layer

    def _look(self, name: str, image: xr.DataArray) -> tuple[str, tuple[float, float] | None]:
        """Return the colours of an output, and its limits where they follow from its meaning."""
        return (_SHARE_COLORMAP, (0.0, 1.0)) if name == "confidence" else (_COLORMAP, None)

    def _fits(self, waiting: Image, image: xr.DataArray) -> bool:
        return self._present(waiting) and _alike(tuple(waiting.data.shape), image.shape)

    def _follow(self, layer: Image) -> None:
        """Go on to the newest frame of a growing movie, unless the user looks at another one."""
        if layer.ndim != _MOVIE_NDIM:
            return
        dims, newest = self._viewer.dims, layer.data.shape[0] - 1
        axis = dims.ndim - layer.ndim
        if newest > self._newest and dims.current_step[axis] == self._newest:
            dims.set_current_step(axis, newest)
        self._newest = newest

    def _place(self, layer: Image, image: xr.DataArray) -> None:
        _, arguments, _ = layer_data_from(image, role="volume", contrast_limits=(0.0, 1.0))
        # units of z, y, x are right already, and every setting costs a redraw
        keys = (
            "scale",
            "translate",
            "affine",
            "metadata",
            *(("units",) if layer.ndim > 3 or self._world else ()),
        )
        for key in keys:
            if key in arguments:
                setattr(layer, key, arguments[key])
        self._placed = True

    def _fill(self, layer: Image, name: str, image: xr.DataArray, limits: tuple[float, float]) -> Image:
        layer.data = image.values
        wanted = self._name(name)
        if not layer.name.startswith(wanted):
            layer.name = wanted
        _set_limits(layer, limits)
        layer.opacity = 1.0
        return layer

    def _show_points(self, name: str, table: pd.DataFrame) -> None:
        columns = ["z_um", "y_um", "x_um"]
        old = self._layers.get(name)
        if old is not None and self._present(old):
            self._viewer.layers.remove(old)
        self._layers[name] = bare(
            self._viewer.add_points(
                table[columns].to_numpy(),
                name=self._name(name),
                features=table.drop(columns=columns),
                size=2.0,
                scale=(1.0, 1.0, 1.0),
                units=("um", "um", "um"),
                axis_labels=("z", "y", "x"),
                metadata={"napari_lfm": {"role": "points"}},
            )
        )
