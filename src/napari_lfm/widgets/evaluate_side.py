"""Side by side in the *Evaluate* panel: ticked layers in cells, and the difference of image and truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.difference import Difference, difference
from napari_lfm.core.problems import Problem
from napari_lfm.io.layers import layer_data_from
from napari_lfm.widgets.compare_stacks import difference_colormap
from napari_lfm.widgets.result_layers import in_units
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.side_by_side import SideBySide
from napari_lfm.widgets.stack_input import layer_dims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image

    from napari_lfm.widgets.evaluate import EvaluateController

# full colour of the difference, as a share of the truth's range
_DIFFERENCE_SHARE = 0.3


class EvaluateSide:
    """Shows layers beside each other, and puts everything back."""

    def __init__(self, main: EvaluateController) -> None:
        self.main = main
        self.viewer = main.viewer
        self.side = SideBySide(self.viewer)
        self.difference_layer: Image | None = None
        main.view.side_button.clicked.connect(lambda: self.show_beside())
        main.view.back_button.clicked.connect(lambda: self.lay_over())

    def refresh(self, here: Sequence[Any]) -> None:
        """Forget a difference that is gone."""
        if self.difference_layer not in here:
            self.difference_layer = None

    def show_beside(self) -> None:
        """Show the ticked layers beside each other, with the difference if it is wanted."""
        if not (self.main.view.difference_box.isChecked() and self.main.view.difference_box.isEnabled()):
            self._beside()
            return
        pair = self.main.pair(self.main.view.side_text)
        if pair is None or self.main.truth is None:
            return
        (image, truth), reference = pair, self.main.truth
        units = dict(zip(layer_dims(reference, truth), map(str, reference.units), strict=True))
        aligned = self.main.aligned()

        def compute() -> Difference:
            return difference(image, truth, aligned=aligned, on_step=self.main.listener())

        def done(found: Difference) -> None:
            self._differ(found, units)

        self.main.work("difference", compute, done, self.main.view.side_text)

    def _differ(self, found: Difference, units: dict[str, str]) -> None:
        self.main.idle()
        self.lay_over()
        if self.difference_layer is not None:
            self.main.viewer.layers.remove(self.difference_layer)
        reach = _DIFFERENCE_SHARE * found.truth_range
        assert self.main.image is not None and self.main.truth is not None
        data, arguments, _ = layer_data_from(
            found.image,
            name=f"{self.main.image.name} - {self.main.truth.name}",
            role="disagreement",
            contrast_limits=(-reach, reach),
        )
        self.difference_layer = bare(
            self.main.viewer.add_image(
                np.asarray(data),
                **in_units(arguments, units),
                colormap=difference_colormap(),
                blending="additive",
            )
        )
        self.difference_layer.contrast_limits_range = (-2 * reach, 2 * reach)
        self._beside()

    def _beside(self) -> None:
        layers: list[Any] = self.main.view.ticked()
        limits: list[tuple[float, float] | None] = [None] * len(layers)
        text = "Each is as bright as its own values ask for; camera and sliders move all."
        shown = self.difference_layer
        if shown is not None and self.main.view.difference_box.isChecked():
            layers.append(shown)
            low, high = shown.contrast_limits
            limits.append((float(low), float(high)))
            text += (
                " Difference: orange where the image has more light than the truth, blue where less, black "
                f"where they agree; full colour is {100 * _DIFFERENCE_SHARE:.0f} % of the truth's range."
            )
        if not layers:
            problem = Problem("No layer is ticked.", "Tick those that you want to see.")
            self.main.view.side_text.show_problems([problem])
            return
        self.side.show(layers, limits)
        self.main.view.side_text.show_text(text)
        self.main.show_buttons()

    def lay_over(self) -> None:
        """Lay the layers over each other again."""
        self.side.restore()
        self.main.view.side_text.show_text("")
        self.main.show_buttons()
