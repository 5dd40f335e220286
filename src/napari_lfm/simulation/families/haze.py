"""Tissue haze: the smooth fluorescence that lies around sharp structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.soft_shapes import Haze, Waves

if TYPE_CHECKING:
    import numpy as np


def tissue(
    box: Box,
    rng: np.random.Generator,
    *,
    scale_um: float | None = None,
    contrast: float = 0.5,
    brightness: float = 0.1,
) -> Scene:
    """Return a smooth random fluorescence that fills the box; by default on the scale of a third of it."""
    scale = scale_um if scale_um is not None else float(box.size_um[1:].min()) / 3
    shape = Haze(box.low_um, box.high_um, Waves.random(rng, scale, 24), contrast, brightness)
    return Scene((shape,), ("tissue",))
