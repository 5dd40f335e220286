"""The layers that the *Refocus* panel paints: refocused pictures, the mask of what is beyond, the surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.widgets.refocus_mesh import mesh
from napari_lfm.widgets.runner import contrast_limits
from napari_lfm.widgets.session import bare, update_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Image, Labels, Layer, Surface

    from napari_lfm.widgets.refocus_input import FlatInput, Region

NAMES = {"confocal": "refocused, confocal", "widefield": "refocused, wide field"}
MASK = "beyond the trained range"
SURFACE = "surface"
ROLE = "volume"
_MASK_COLOUR = "#e05a4e"
_HEADROOM = 4.0
# obliquely from above, so that heights are seen; z y x
_LOOKING, _UP = (-0.55, -0.7, 0.45), (1.0, 0.0, 0.0)


def placement(layer: Image, factor: float) -> dict[str, Any]:
    """Return the layer arguments of a flat picture over a layer; its pixels are smaller by a factor.

    The first pixels of both lie in the same place.
    """
    return {
        "scale": tuple(float(s) / factor for s in layer.scale[-2:]),
        "translate": tuple(float(t) for t in layer.translate[-2:]),
        "units": tuple(map(str, layer.units[-2:])),
        "axis_labels": ("y", "x"),
    }


def camera_of(viewer: Viewer) -> Any:
    """Return the viewer's camera, which napari 0.9 has moved to its scene."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


class RefocusLayers:
    """Keeps one picture of each head, and shows those that are wanted.

    A layer that was deleted comes back with the next picture.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._input: Image | None = None
        self._where: dict[str, Any] = {}
        self._pictures: dict[str, np.ndarray] = {}
        self._layers: dict[str, Any] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._hidden: list[tuple[Layer, bool]] = []
        self._beyond = np.zeros((0, 0), np.uint8)
        self.head = "confocal"

    # ------------------------------------------------------------------ pictures
    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pictures."""
        return int(self._beyond.shape[0]), int(self._beyond.shape[1])

    def begin(self, layer: Image, factor: float, shape: tuple[int, int]) -> None:
        """Paint over a layer from now on; pictures of the same place stay until they are painted over."""
        where = placement(layer, factor)
        if layer is self._input and where == self._where and shape == self.shape:
            return
        same_place = shape == self.shape
        self._input, self._where = layer, where
        self._limits = {}
        self._beyond = np.zeros(shape, np.uint8)
        self._pictures = {head: np.zeros(shape, np.float32) for head in NAMES}
        for head in NAMES:
            old = self.layer(head)
            if old is None:
                continue
            if same_place:
                old.data = self._pictures[head]
                old.scale, old.translate = where["scale"], where["translate"]
            else:
                self._viewer.layers.remove(old)
        self._drop_mask()

    def layer(self, name: str) -> Any:
        """Return one of the panel's layers while it is in the viewer; None without it."""
        layer = self._layers.get(name)
        return layer if layer is not None and self._present(layer) else None

    def heads(self) -> tuple[str, ...]:
        """Return what is shown."""
        return tuple(NAMES) if self.head == "both" else (self.head,)

    def show_head(self, head: str) -> None:
        """Show other pictures; they are there already."""
        self.head = head
        if not self._pictures:
            return
        for name in NAMES:
            layer = self.layer(name)
            if name in self.heads():
                self._shown(name)
            elif layer is not None:
                layer.visible = False

    def paint(self, part: Region, picture: Any, last: bool = True) -> None:
        """Put a part of a refocused image into the pictures; the `last` one shows in the list, too."""
        y0, x0, y1, x1 = part
        here = slice(y0, y1), slice(x0, x1)
        if not self._pictures or y1 > self.shape[0] or x1 > self.shape[1]:
            return
        self._beyond[here] = picture.beyond
        for head in NAMES:
            self._pictures[head][here] = getattr(picture, head)
            if head in self.heads():
                layer = self._shown(head)
                self._grow(head, layer, self._pictures[head][here])
                layer.refresh(thumbnail=last, highlight=False, extent=False)
        self._show_mask()

    def _shown(self, head: str) -> Image:
        layer = self.layer(head)
        if layer is None:
            assert self._input is not None
            layer = bare(
                self._viewer.add_image(
                    self._pictures[head],
                    name=NAMES[head],
                    colormap=self._input.colormap,
                    contrast_limits=(0.0, 1.0),
                    metadata={"napari_lfm": {"role": ROLE}},
                    **self._where,
                )
            )
            self._layers[head] = layer
            self._limits.pop(head, None)
            self._viewer.layers.selection.active = self._input
        elif not layer.visible and not self._hidden:
            layer.visible = True
        return layer

    def _grow(self, head: str, layer: Image, values: np.ndarray) -> None:
        """Let the contrast reach what is brighter than all before, unless the user has set it."""
        known = self._limits.get(head)
        if known is not None and tuple(layer.contrast_limits) != known:
            return
        low, high = contrast_limits(values)
        if known is not None:
            low, high = min(low, known[0]), max(high, known[1])
            if high < 1.05 * known[1]:
                return
        layer.contrast_limits_range = (min(low, 0.0), high * _HEADROOM)
        layer.contrast_limits = (low, high)
        self._limits[head] = tuple(layer.contrast_limits)

    # ---------------------------------------------------------------------- mask
    def _show_mask(self) -> None:
        layer: Labels | None = self.layer(MASK)
        if not self._beyond.any():
            self._drop_mask()
            return
        if layer is not None:
            layer.refresh()
            return
        selected = self._viewer.layers.selection.active
        self._layers[MASK] = self.add_mask(self._beyond, name=MASK, **self._where)
        self._layers[MASK].visible = not self._hidden
        self._viewer.layers.selection.active = selected

    def add_mask(self, mask: np.ndarray, **arguments: Any) -> Labels:
        """Add a layer that marks pixels in red."""
        from napari.utils.colormaps import DirectLabelColormap

        colours = {None: "transparent", 0: "transparent", 1: _MASK_COLOUR}
        layer = bare(
            self._viewer.add_labels(
                np.asarray(mask).view(np.uint8) if mask.dtype == bool else mask,
                opacity=0.35,
                colormap=DirectLabelColormap(color_dict=colours),
                **arguments,
            )
        )
        update_record(layer, role="mask")
        return layer

    def _drop_mask(self) -> None:
        layer = self.layer(MASK)
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layers.pop(MASK, None)

    # -------------------------------------------------------------------- others
    def add_flat(self, key: str, name: str, values: np.ndarray, **extra: Any) -> Image:
        """Add a picture over the image, or put it into the layer that the last one of its kind is in."""
        layer = self.layer(key)
        if layer is not None and layer.data.shape == values.shape and self._lies_here(layer):
            layer.data, layer.name, layer.visible = values, name, True
        else:
            if layer is not None:
                self._viewer.layers.remove(layer)
            arguments = {"colormap": "gray" if self._input is None else self._input.colormap, **extra}
            layer = bare(
                self._viewer.add_image(
                    values, name=name, metadata={"napari_lfm": {"role": ROLE}}, **arguments, **self._where
                )
            )
            self._layers[key] = layer
        if "contrast_limits" not in extra:
            low, high = contrast_limits(values)
            layer.contrast_limits_range = (min(low, 0.0), high * _HEADROOM)
            layer.contrast_limits = (low, high)
        return layer

    def _lies_here(self, layer: Image) -> bool:
        where = placement(layer, 1.0)
        return all(where[k] == self._where[k] for k in ("scale", "translate"))

    def limits_of_head(self, head: str) -> tuple[float, float] | None:
        """Return the contrast of a head's picture, None while it is not shown."""
        layer = self.layer(head)
        return None if layer is None else tuple(layer.contrast_limits)

    def limits_of(self, layer: Any) -> tuple[float, float] | None:
        """Return the contrast of one of the panel's pictures, None of any other layer."""
        mine = any(layer is self.layer(name) for name in NAMES)
        return tuple(layer.contrast_limits) if mine else None

    def pictures(self) -> dict[str, np.ndarray]:
        """Return what is painted, by head."""
        return self._pictures

    def beside(self, extra: Sequence[str]) -> list[Any]:
        """Return the layers that are shown side by side."""
        wanted = [self._input, *(self.layer(h) for h in self.heads()), *(self.layer(k) for k in extra)]
        return [x for x in wanted if x is not None and self._present(x)]

    # ---------------------------------------------------------------------- solid
    def show_solid(self, heights: np.ndarray, found: FlatInput, colour: str, pixel_um: float) -> None:
        """Turn to the surface in 3-D: everything else is hidden meanwhile."""
        if self._input is None:
            return
        picture = self._pictures[self.heads()[0]]
        step, start = self._where["scale"], self._where["translate"]
        world_per_um = abs(step[1]) / pixel_um  # the layer's own unit may be another one
        values = heights if colour == "height" else picture
        vertices, faces, shades = mesh(heights, values, step, start, found.z_um * world_per_um, world_per_um)
        old = self.layer(SURFACE)
        if old is not None:
            self._viewer.layers.remove(old)
        if not self._hidden:
            self._hidden = [(bare(x), x.visible) for x in self._viewer.layers]
        for layer, _ in self._hidden:
            layer.visible = False
        limits = contrast_limits(shades) if colour == "height" else self._picture_limits(shades)
        surface: Surface = bare(
            self._viewer.add_surface(
                (vertices, faces, shades),
                name=SURFACE,
                colormap="turbo" if colour == "height" else self._input.colormap,
                contrast_limits=limits,
                shading="smooth" if colour == "height" else "none",
                units=(self._where["units"][1],) * 3,
                axis_labels=("z", "y", "x"),
            )
        )
        self._layers[SURFACE] = surface
        if self._viewer.dims.ndisplay != 3:
            self._viewer.dims.ndisplay = 3
            self._viewer.reset_view()
            camera_of(self._viewer).set_view_direction(_LOOKING, _UP)
            camera_of(self._viewer).zoom *= 0.85

    def _picture_limits(self, shades: np.ndarray) -> tuple[float, float]:
        layer = self.layer(self.heads()[0])
        return contrast_limits(shades) if layer is None else tuple(layer.contrast_limits)

    def show_flat(self) -> None:
        """Turn back to the image."""
        surface = self.layer(SURFACE)
        if surface is not None:
            surface.visible = False
        hidden, self._hidden = self._hidden, []
        for layer, visible in hidden:
            if self._present(layer):
                layer.visible = visible
        self._viewer.dims.ndisplay = 2
        self._viewer.reset_view()

    @property
    def is_solid(self) -> bool:
        """Whether the surface is looked at in 3-D."""
        return bool(self._hidden)

    def _present(self, layer: Any) -> bool:
        return any(bare(one) is layer for one in self._viewer.layers)
