"""Random scenes in broad, physically sensible ranges, relative to the resolution of a microscope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.simulation.families.cells import cells, nuclei
from napari_lfm.simulation.families.filaments import filaments
from napari_lfm.simulation.families.haze import tissue
from napari_lfm.simulation.families.neurons import neurons
from napari_lfm.simulation.families.simple import bars, beads, vesicles
from napari_lfm.simulation.families.vascular import vessels
from napari_lfm.simulation.scene import Box, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class _Draw:
    """What a recipe draws from: the box, the lenslet, and a brightness for things that fill a voxel."""

    box: Box
    rng: np.random.Generator
    lenslet_um: float
    light: float

    def size(self, low: float, high: float) -> float:
        """Return a size between `low` and `high` lenslets, log-uniform, in micrometres."""
        return self.lenslet_um * self.spread(low, high)

    def spread(self, low: float, high: float) -> float:
        """Return a log-uniform number."""
        return math.exp(float(self.rng.uniform(math.log(low), math.log(max(high, low)))))

    def count(self, reach_um: float, filled: float, most: int) -> int:
        """Return how many bodies of this reach to draw: one, up to the number that fills this share."""
        volume = float(np.prod(np.maximum(self.box.size_um, 2 * reach_um)))
        full = filled * volume / (4 / 3 * math.pi * reach_um**3)
        return max(int(self.spread(1, min(max(full, 1.5), most))), 1)

    def shining(self, thick_um: float, power: int) -> float:
        """Return the brightness that makes a thin thing as visible as a thick one.

        What is thinner than a third of a lenslet fills only a share of a voxel; `power` is 1 for sheets, 2
        for lines, 3 for points. Dyes make up for most of it, not for all.
        """
        share = min(2 * thick_um / (self.lenslet_um / 3), 1.0) ** power
        return float(self.light / share**0.85)


def _vesicles(d: _Draw) -> Scene:
    radius = min(d.size(0.5, 8), 0.48 * float(d.box.size_um[1:].min()))
    wall = min(d.size(0.06, 0.5), 0.6 * radius)
    out = Scene((), ("vesicles",))
    for _ in range(d.count(1.3 * radius, 0.3, 40)):
        size = radius * math.exp(0.3 * float(d.rng.normal()))
        light = d.shining(wall / 2, 1) * math.exp(0.3 * float(d.rng.normal()))
        one = vesicles(d.box, d.rng, count=2, radius_um=size, membrane_um=min(wall, size), brightness=light)
        out = out + Scene(one.shapes[:1], one.families)
    return out


def _beads(d: _Draw) -> Scene:
    size = d.size(0.08, 1.2)
    spread = float(d.rng.uniform(0, 0.8))
    count = d.count(max(size, 0.8 * d.lenslet_um), 0.4, 500)
    light = d.shining(size / 2, 3) if size < d.lenslet_um / 3 else d.light
    return beads(d.box, d.rng, count=count, diameter_um=size, brightness=light, brightness_spread=spread)


def _vessels(d: _Draw) -> Scene:
    root = min(d.size(0.25, 2.5), float(d.box.size_um[1:].min()) / 6)
    smallest = max(root / d.spread(1.5, 6), 0.12 * d.lenslet_um)
    wall = float(d.rng.uniform(0.15, 0.5)) * root if d.rng.random() < 0.25 else None
    return vessels(
        d.box,
        d.rng,
        trees=int(d.rng.integers(1, 5)),
        radius_um=root,
        smallest_um=smallest,
        wall_um=wall,
        tortuosity=float(d.rng.uniform(0.1, 0.5)),
        brightness=d.shining(smallest if wall is None else wall / 2, 2 if wall is None else 1) ** 0.5,
    )


def _neurons(d: _Draw) -> Scene:
    soma = min(d.size(0.5, 3), float(d.box.size_um[1:].min()) / 6)
    neurite = d.shining(0.06 * soma, 2)
    return neurons(
        d.box,
        d.rng,
        count=d.count(3 * soma, 0.5, 10),
        soma_um=soma,
        reach_um=soma * d.spread(5, 25),
        soma_brightness=d.light * d.spread(0.3, 2),
        # neurites are drawn with a cap on their fill, so they must not outshine the soma by far
        brightness=min(neurite, 6 * d.light) * d.spread(0.3, 1.5),
        nucleus_level=float(d.rng.choice([0.2, 0.6, 1.5])),
        brightness_spread=0.4,
    )


def _bars(d: _Draw) -> Scene:
    width = d.size(0.15, 1.5)
    return bars(
        d.box, d.rng, count=d.count(4 * width, 0.6, 60), width_um=width, brightness=d.shining(width / 2, 2)
    )


def _filaments(d: _Draw) -> Scene:
    radius = d.size(0.03, 0.2)
    style = str(d.rng.choice(["network", "aster", "bundles"]))
    length = d.size(4, 40)
    count = int(d.spread(4, 150))
    options: dict[str, Any] = {"style": style, "strands": int(d.rng.integers(3, 8))}
    return filaments(
        d.box,
        d.rng,
        count=max(count // options["strands"], 2) if style == "bundles" else count,
        length_um=length,
        persistence_um=length * d.spread(0.2, 20),
        radius_um=radius,
        brightness=d.shining(radius, 2),
        **options,
    )


def _nuclei(d: _Draw) -> Scene:
    radius = min(d.size(0.6, 5), float(d.box.size_um[1:].min()) / 4)
    return nuclei(
        d.box,
        d.rng,
        count=d.count(1.2 * radius, 0.6, 60),
        radius_um=radius,
        texture_um=radius * d.spread(0.25, 1.0),
        contrast=float(d.rng.uniform(0.1, 0.6)),
        brightness=d.light,
        brightness_spread=float(d.rng.uniform(0.1, 0.6)),
    )


def _cells(d: _Draw) -> Scene:
    radius = min(d.size(1.2, 8), 0.4 * float(d.box.size_um[1:].min()))
    wall = min(d.size(0.06, 0.4), 0.3 * radius)
    return cells(
        d.box,
        d.rng,
        count=d.count(1.2 * radius, 0.6, 30),
        radius_um=radius,
        membrane_um=wall,
        bumpiness=float(d.rng.uniform(0, 0.12)),
        organelles=int(d.rng.integers(0, 30)),
        organelle_brightness=d.spread(0.3, 3),
        cytosol=float(d.rng.uniform(0, 0.25)),
        brightness=d.shining(wall / 2, 1),
    )


def _tissue(d: _Draw) -> Scene:
    return tissue(
        d.box, d.rng, scale_um=d.size(3, 20), contrast=float(d.rng.uniform(0.2, 0.9)), brightness=d.light
    )


RECIPES: dict[str, Callable[[_Draw], Scene]] = {
    "vesicles": _vesicles,
    "beads": _beads,
    "vessels": _vessels,
    "neurons": _neurons,
    "bars": _bars,
    "filaments": _filaments,
    "nuclei": _nuclei,
    "cells": _cells,
    "tissue": _tissue,
}
RANDOM_FAMILIES = tuple(name for name in RECIPES if name != "tissue")


def random_scene(
    families: Sequence[str],
    box: Box,
    rng: np.random.Generator,
    *,
    lenslet_um: float,
    haze: float = 0.3,
    together: bool = False,
    brightness: float = 1.0,
) -> Scene:
    """Return a scene of one to three of `families`, or of all `together`; `haze` is its probability."""
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    some = list(rng.permutation(len(families))[: len(families) if together else count])
    out = Scene(())
    for k in some:
        light = brightness * math.exp(0.6 * float(rng.normal()))
        out = out + RECIPES[families[k]](_Draw(box, rng, lenslet_um, light))
    if "tissue" not in out.families and rng.random() < haze:
        faint = brightness * math.exp(float(rng.uniform(math.log(0.01), math.log(0.25))))
        out = out + _tissue(_Draw(box, rng, lenslet_um, faint))
    return out
