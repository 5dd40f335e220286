"""Measured and predicted light field and their residual, side by side or one over the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lfm.io.layers import layer_data_from
from napari_lfm.widgets.result_layers import layer_name
from napari_lfm.widgets.session import bare

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Layer

PARTS = ("measured", "predicted", "residual")
_GAP = 1.04


class Compare:
    """Shows the three images of a re-projection; everything else is hidden meanwhile.

    One over the other they lie in the world of the raw frame; side by side the second and third are
    moved to the right.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[str, Image] = {}
        self._home: dict[str, Any] = {}
        self._hidden: list[Layer] = []

    def show(self, found: Any, base: str) -> None:
        """Add the layers of a `Reprojection` and show them side by side."""
        self.choose("volume")
        for layer in self._present().values():
            self._viewer.layers.remove(layer)
        self._layers, self._home = {}, {}
        limits: tuple[float, float] | None = None
        for part, colormap in zip(PARTS, ("gray", "gray", "bwr"), strict=True):
            data, arguments, _ = layer_data_from(
                getattr(found, part),
                name=layer_name(part, base),
                role="reprojection",
                colormap=colormap,
                visible=False,
            )
            own = arguments.get("contrast_limits", (0.0, 1.0))
            if part == "measured":
                limits = own
            elif part == "predicted" and limits is not None:
                arguments["contrast_limits"] = limits  # the same brightness means the same light
            else:
                reach = max(abs(v) for v in own)
                arguments["contrast_limits"] = (-reach, reach)
            self._layers[part] = bare(self._viewer.add_image(data, **arguments))
            self._home[part] = tuple(self._layers[part].translate)
        self.choose("all")

    def choose(self, mode: str) -> None:
        """Show ``all`` side by side, one of the three, or the ``volume`` (everything as before)."""
        present = self._present()
        if mode == "volume":
            for layer in present.values():
                layer.visible = False
            for layer in self._hidden:
                layer.visible = True
            self._hidden = []
            return
        if not present:
            return
        self._viewer.dims.ndisplay = 2
        for layer in self._viewer.layers:
            if layer.visible and bare(layer) not in present.values():
                layer.visible = False
                self._hidden.append(bare(layer))
        for number, part in enumerate(PARTS):
            if part not in present:
                continue
            layer, home = present[part], self._home[part]
            width = layer.data.shape[-1] * layer.scale[-1]
            shift = number * _GAP * width if mode == "all" else 0.0
            layer.translate = (*home[:-1], home[-1] + shift)
            layer.visible = mode in ("all", part)
        self._viewer.reset_view()

    def _present(self) -> dict[str, Image]:
        here = [bare(layer) for layer in self._viewer.layers]
        return {part: layer for part, layer in self._layers.items() if layer in here}
