"""Shapes whose size is known: giant vesicles, beads, and bars."""

from __future__ import annotations

import numpy as np

from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Ball, Bar, Vector


def vesicles(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 1,
    radius_um: float | None = None,
    membrane_um: float = 0.5,
    brightness: float = 1.0,
) -> Scene:
    """Return spherical shells: giant vesicles with a labelled membrane.

    One vesicle sits at the centre; several are spread at random. Without `radius_um` the radii are
    0.3 to 0.45 of the smallest side of the box (a third of that for several).
    """
    out = []
    side = float(box.size_um.min()) * (1.0 if count == 1 else 1 / 3)
    for k in range(count):
        radius = radius_um if radius_um is not None else float(rng.uniform(0.3, 0.45)) * side
        middle = (np.asarray(box.low_um) + np.asarray(box.high_um)) / 2
        centre = middle if count == 1 and k == 0 else box.sample(rng, 1, radius)[0]
        out.append(Ball(_vector(centre), radius, max(radius - membrane_um, 0.0), brightness))
    return Scene(tuple(out), ("vesicles",))


def beads(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 20,
    diameter_um: float = 0.5,
    brightness: float = 1.0,
    brightness_spread: float = 0.0,
    apart_um: float = 0.0,
) -> Scene:
    """Return beads at random sub-voxel positions, at least `apart_um` from one another where that fits."""
    chosen: list[np.ndarray] = []
    for _ in range(count):
        candidates = box.sample(rng, 50, diameter_um)
        if chosen:
            gaps = np.linalg.norm(candidates[:, None] - np.array(chosen), axis=-1).min(1)
            # the first that is far enough, else the farthest there is
            pick = int(np.argmax(gaps >= apart_um)) if (gaps >= apart_um).any() else int(gaps.argmax())
        else:
            pick = 0
        chosen.append(candidates[pick])
    light = brightness * np.exp(brightness_spread * rng.normal(size=count))
    shapes = tuple(
        Ball(_vector(c), diameter_um / 2, brightness=float(b)) for c, b in zip(chosen, light, strict=True)
    )
    return Scene(shapes, ("beads",), tuple(_vector(c) for c in chosen))


def bars(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 12,
    width_um: float | None = None,
    brightness: float = 1.0,
) -> Scene:
    """Return bars of random length and direction in the focal plane, for resolution by eye."""
    side = float(box.size_um[1:].min())
    width = width_um if width_um is not None else side / 40
    out = []
    for centre in box.sample(rng, count, width):
        size = (width, width * float(rng.uniform(1, 2)), side * float(rng.uniform(0.1, 0.35)))
        out.append(Bar(_vector(centre), size, float(rng.uniform(0, 180)), brightness))
    return Scene(tuple(out), ("bars",))


def _vector(values: np.ndarray) -> Vector:
    z, y, x = map(float, values)
    return z, y, x
