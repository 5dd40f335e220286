"""Ways of looking at what the *Refocus* panel makes: over the image, beside it, or as a surface in 3-D."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.widgets.refocus_check import DECONVOLVED
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.side_by_side import SideBySide

if TYPE_CHECKING:
    from napari_lfm.widgets.refocus import RefocusController


class RefocusShow:
    """The box *Side by side*, the button *Show in 3-D*, and the choice of the picture."""

    def __init__(self, control: RefocusController) -> None:
        self.control, self.view, self.layers = control, control.view, control.layers
        self.beside = SideBySide(control.session.viewer)
        view = self.view
        view.head_chosen.connect(self.choose_head)
        view.beside_wanted.connect(self.show_beside)
        view.surface.solid_button.toggled.connect(self.show_solid)
        view.surface.colour_combo.activated.connect(lambda _: self.follow_solid())

    def leave(self) -> None:
        """Lay everything over each other again, before another image is taken."""
        self.view.beside_box.setChecked(False)
        self.view.surface.solid_button.setChecked(False)

    def choose_head(self, head: str) -> None:
        """Show the confocal picture, the wide-field one, or both beside each other."""
        self.layers.show_head(head)
        if head == "both" and not self.view.beside_box.isChecked():
            self.view.beside_box.setChecked(True)
        else:
            self.follow_beside()
        self.follow_solid()

    # --------------------------------------------------------------------- beside
    def show_beside(self, on: bool) -> None:
        """Put image and pictures into cells beside each other, or over each other again."""
        if on:
            self.view.surface.solid_button.setChecked(False)
            layers = self.layers.beside([DECONVOLVED])
            if len(layers) > 1:
                self.beside.show(layers, [self.layers.limits_of(x) for x in layers])
        elif self.beside.active:
            self.beside.restore()

    def follow_beside(self) -> None:
        """Take in a layer that was added while they stand beside each other."""
        if not self.view.beside_box.isChecked() or self.layers.is_solid:
            return
        wanted = self.layers.beside([DECONVOLVED])
        shown = [x for x in map(bare, self.control.session.viewer.layers) if x.visible]
        if not self.beside.active or set(map(id, wanted)) != set(map(id, shown)):
            self.show_beside(True)

    # ---------------------------------------------------------------------- solid
    def show_solid(self, on: bool) -> None:
        """Turn to the surface in 3-D, or back."""
        if not on:
            if self.layers.is_solid:
                self.layers.show_flat()
        elif self.control.opened is None:
            self.view.surface.solid_button.setChecked(False)
        else:
            self.view.beside_box.setChecked(False)
            self.follow_solid()

    def follow_solid(self) -> None:
        """Draw the surface again, while it is looked at."""
        control, found, opened = self.control, self.control.found, self.control.opened
        if not self.view.surface.solid_button.isChecked() or found is None or opened is None:
            return
        heights = control.heights
        if heights is None or heights.shape != self.layers.shape:
            heights = np.full(self.layers.shape, self.view.z_um, np.float32)
        colour = str(self.view.surface.colour_combo.currentData())
        self.layers.show_solid(heights, found, colour, opened.image.pixel_um)
