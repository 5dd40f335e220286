"""Where in the sample a click points: on a plane, or through a volume in 3-D."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_lfm.widgets.session import bare

if TYPE_CHECKING:
    from napari import Viewer

_SAMPLES = 512


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
