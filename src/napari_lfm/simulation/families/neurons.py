"""Neurons: grown, or from morphology files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_lfm.simulation.morphology import grow_neuron, random_rotation, read_morphology
from napari_lfm.simulation.scene import Box, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np


def neurons(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 3,
    morphologies: Sequence[str | Path] = (),
    scale: float = 1.0,
    soma_um: float | None = None,
    reach_um: float | None = None,
    soma_brightness: float = 1.0,
    nucleus_level: float = 0.5,
    brightness: float = 1.0,
    brightness_spread: float = 0.0,
) -> Scene:
    """Return neurons from morphology files (SWC, HDF5), or grown ones where none is given.

    `brightness` is that of the neurites, `nucleus_level` the nucleus's in shares of the cell body's (above 1
    for a nuclear label), and `reach_um` the length of a grown dendrite (default half of the field).
    """
    read = [read_morphology(p) for p in morphologies]
    side = float(box.size_um[1:].min())
    soma = soma_um if soma_um is not None else min(6.0, 0.06 * side)
    reach = reach_um if reach_um is not None else side / 2
    cells = []
    centres = box.sample(rng, count, 2 * soma)
    for centre in centres:
        cell = read[int(rng.integers(len(read)))] if read else grow_neuron(rng, reach_um=reach, soma_um=soma)
        light = math.exp(brightness_spread * rng.normal())
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        turn = random_rotation(rng)
        cells.append(
            cell.body(place, turn, scale, light * brightness, light * soma_brightness, nucleus_level)
        )
    points = tuple((float(z), float(y), float(x)) for z, y, x in centres)
    return Scene(tuple(cells), ("neurons",), points)
