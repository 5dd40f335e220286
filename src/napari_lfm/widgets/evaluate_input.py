"""What the *Evaluate* panel reads from layers: the image that is looked at, and a line through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes

from napari_lfm.core.labelled import SPATIAL, origin_of, spacing_of
from napari_lfm.core.one_image import one_image
from napari_lfm.core.problems import RequestError
from napari_lfm.widgets.resolve_stack import required_stack, stack_words
from napari_lfm.widgets.session import layer_info
from napari_lfm.widgets.stack_input import layer_dims

if TYPE_CHECKING:
    import xarray as xr
    from napari import Viewer
    from napari.layers import Image, Layer

    Line = tuple[list[float], list[float]]

LINE_NAME = "profile line"


def image_of(layer: Image, viewer: Viewer) -> xr.DataArray:
    """Return one volume or plane of a layer: of movies and channels what the sliders show.

    Raises
    ------
    RequestError
        If there is none.
    """
    image = required_stack(layer_info(layer))
    labels = layer_dims(layer, image)
    sliders = viewer.dims
    lead = sliders.ndim - layer.ndim
    at = {
        d: min(int(sliders.current_step[lead + labels.index(d)]), image.sizes[d] - 1)
        for d in ("t", "c")
        if d in image.dims and d in labels
    }
    return one_image(image.isel(at, drop=True), f"'{layer.name}'")


def image_words(layer: Image, viewer: Viewer) -> str:
    """Return in words what a layer is understood to be, with its voxel size."""
    return stack_words(image_of(layer, viewer))


def line_layers(viewer: Viewer) -> list[Layer]:
    """Return the layers that a line can be taken from: shapes, and points (of which the last two count)."""
    return [x for x in viewer.layers if isinstance(x, Shapes | Points)]


def line_in(layer: Layer, image_layer: Image, viewer: Viewer) -> Line:
    """Return the ends of the line in a Shapes or Points layer, micrometres along the image's axes.

    The selected shape counts, else the newest one; of its corners the first and the last. Where the layer has
    fewer axes than the viewer the sliders say where it lies.

    Raises
    ------
    RequestError
        If there are no two points.
    """
    ends = _ends(layer)
    image = image_of(image_layer, viewer)
    labels = layer_dims(image_layer, image)
    step, first = spacing_of(image), origin_of(image)
    out = []
    for end in ends:
        world = np.array(viewer.dims.point, float)
        here = np.atleast_1d(layer.data_to_world(end))
        world[len(world) - len(here) :] = here[-len(world) :]
        index = np.atleast_1d(image_layer.world_to_data(world[len(world) - image_layer.ndim :]))
        at = dict(zip(labels, index, strict=True))
        out.append([first.get(d, 0.0) + float(at[d]) * step.get(d, 1.0) for d in SPATIAL if d in image.dims])
    return out[0], out[1]


def _ends(layer: Layer) -> tuple[Any, Any]:
    data = layer.data
    if isinstance(layer, Points):
        if len(data) < 2:
            raise RequestError(f"'{layer.name}' has fewer than two points.", "Add the two ends of a line.")
        return data[-2], data[-1]
    if not len(data):
        raise RequestError(f"'{layer.name}' is empty.", "Draw a line in it.")
    chosen = sorted(layer.selected_data)
    shape = np.asarray(data[chosen[-1] if chosen else -1])
    return shape[0], shape[-1]
