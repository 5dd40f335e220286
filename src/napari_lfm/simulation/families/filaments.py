"""Worm-like chains: microtubules, actin, bundles and asters."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Shape, Tube, Vector

Array = npt.NDArray[np.float64]
Style = Literal["network", "aster", "bundles"]


def filaments(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 40,
    style: Style = "network",
    length_um: float | None = None,
    persistence_um: float | None = None,
    radius_um: float | None = None,
    strands: int = 6,
    brightness: float = 1.0,
) -> Scene:
    """Return worm-like chains: a network, asters that radiate from a few centres, or bundles.

    Without sizes the filaments are as long as the field is wide, the persistence length is half of
    that, and the radius a 300th of it. `strands` is the number of filaments side by side in a bundle.
    """
    side = float(box.size_um[1:].min())
    length = length_um if length_um is not None else side
    bend = persistence_um if persistence_um is not None else side / 2
    radius = radius_um if radius_um is not None else side / 300
    starts, ways = box.sample(rng, count), _directions(rng, count, box)
    if style == "aster":
        hubs = box.sample(rng, max(count // 40, 1), side / 6)
        starts = hubs[rng.integers(len(hubs), size=count)] + rng.normal(size=(count, 3)) * 2 * radius
    tracks = worm_like(rng, starts, ways, length * np.exp(0.4 * rng.normal(size=count)), bend)
    if style != "aster":
        # a chain is drawn around its middle, so that the field's border is as full as its centre
        tracks = [t - (t[len(t) // 2] - t[0]) for t in tracks]
    shapes: list[Shape] = []
    for track in tracks:
        for strand in _bundle(rng, track, strands, radius) if style == "bundles" else [track]:
            shapes.append(Tube(_points(strand), (radius,) * len(strand), brightness=brightness))
    return Scene(tuple(shapes), ("filaments",))


def worm_like(
    rng: np.random.Generator,
    starts: Array,
    ways: Array,
    lengths: Array,
    persistence_um: float,
    steps: int = 40,
) -> list[Array]:
    """Return worm-like chains, (steps + 1, 3) each; ``<theta^2> = 2 ds / persistence``."""
    way, point = ways.copy(), starts.copy()
    out = [point]
    step = (lengths / steps)[:, None]
    kick = np.sqrt(step / persistence_um)
    for _ in range(steps):
        noise = rng.normal(size=way.shape)
        noise -= (noise * way).sum(1, keepdims=True) * way
        way = way + kick * noise
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        point = point + step * way
        out.append(point)
    return list(np.stack(out, 1))


def _directions(rng: np.random.Generator, count: int, box: Box) -> Array:
    """Return directions that are flatter in flat boxes, as cells on a coverslip are."""
    size = box.size_um
    ways = rng.normal(size=(count, 3)) * (min(1.0, float(size[0] / size[1:].max())), 1.0, 1.0)
    return np.asarray(ways / np.linalg.norm(ways, axis=1, keepdims=True))


def _bundle(rng: np.random.Generator, track: Array, strands: int, radius: float) -> list[Array]:
    """Return strands that follow one track at a few radii, close at some places and apart at others."""
    spread = 3 * radius * math.sqrt(strands)
    out = []
    for _ in range(strands):
        ends = rng.normal(size=(3, 3)) * spread
        u = np.linspace(0, 1, len(track))[:, None]
        out.append(track + ends[0] * (1 - u) ** 2 + ends[1] * 2 * u * (1 - u) + ends[2] * u**2)
    return out


def _points(track: Array) -> tuple[Vector, ...]:
    return tuple((z, y, x) for z, y, x in track.tolist())
