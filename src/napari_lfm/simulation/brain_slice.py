"""Scenes of a labelled brain slice: cell bodies, neurites, microglia, puncta, and a faint stain everywhere.

What a slice stained for neurons and microglia shows at 60x, after the specimens of the WFCON-Net paper (mouse
cortex and hippocampus, NeuN and Iba1, 40 um). Every scene draws its own mixture and densities.
"""

from __future__ import annotations

import numpy as np

from napari_lfm.simulation.families.cells import spaced
from napari_lfm.simulation.families.filaments import filaments
from napari_lfm.simulation.families.haze import tissue
from napari_lfm.simulation.morphology import grow_neuron, random_rotation
from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Ball, Shape, Vector
from napari_lfm.simulation.soft_shapes import Ellipsoid, Waves, rotation_of

SOMATA_PER_MM3 = (3e4, 3.5e5)
"""From sparse cortex to a dense cell layer."""
MICROGLIA_PER_MM3 = (0.0, 6e4)
STAIN = (0.005, 0.06)
"""Brightness of the faint stain, over a cell body's."""


def brain_slice(box: Box, rng: np.random.Generator) -> Scene:
    """Return a random piece of a labelled slice.

    Parameters
    ----------
    box : Box
        The tissue; bodies may be cut by its sides, as they are by the field of view.
    rng : numpy.random.Generator
    """
    volume_mm3 = float(box.size_um.prod()) * 1e-9
    density = float(np.exp(rng.uniform(*np.log(SOMATA_PER_MM3))))
    scene = _somata(box, rng, max(1, rng.poisson(density * volume_mm3)))
    scene = scene + _microglia(box, rng, int(rng.poisson(rng.uniform(*MICROGLIA_PER_MM3) * volume_mm3)))
    area = float(box.size_um[1:].prod())
    if rng.random() < 0.85:
        count = int(rng.integers(5, 60) * area / 1700) + 1
        scene = scene + filaments(
            box,
            rng,
            count=count,
            length_um=float(rng.uniform(15, 50)),
            persistence_um=float(rng.uniform(10, 60)),
            radius_um=float(rng.uniform(0.15, 0.6)),
            brightness=float(rng.uniform(0.15, 0.9)),
        )
    if rng.random() < 0.5:
        spots = box.sample(rng, int(rng.integers(20, 250) * area / 1700) + 1)
        sizes = rng.uniform(0.12, 0.35, len(spots))
        light = float(rng.uniform(0.4, 1.5))
        balls = tuple(Ball(_vector(p), float(r), brightness=light) for p, r in zip(spots, sizes, strict=True))
        scene = scene + Scene(balls, ("puncta",))
    if rng.random() < 0.3:
        # hollow things of every size: not everything that is labelled is filled
        scene = scene + _shells(box, rng, int(rng.integers(2, 12) * area / 1700) + 1)
    stain = float(np.exp(rng.uniform(*np.log(STAIN))))
    return scene + tissue(box, rng, scale_um=float(rng.uniform(4, 25)), contrast=0.5, brightness=stain)


def _somata(box: Box, rng: np.random.Generator, count: int) -> Scene:
    """Return neuronal cell bodies; the nucleus is brighter than the cytoplasm (NeuN), or darker (cytosol)."""
    shapes: list[Shape] = []
    nuclear = rng.random() < 0.6
    radius = float(rng.uniform(3.5, 6.5))
    # thick slices are flat boxes: bodies may lie across the sides
    centres = spaced(box, rng, count, 1.5 * radius)
    for centre in centres:
        half = radius * np.exp(0.2 * rng.normal(size=3)) * (0.95, 1.0, 1.1)
        level = float(rng.uniform(1.2, 2.5) if nuclear else rng.uniform(0.15, 0.7))
        shapes.append(
            Ellipsoid(
                _vector(centre),
                _vector(half),
                rotation_of(random_rotation(rng)),
                core_share=float(rng.uniform(0.45, 0.7)),
                core_level=level,
                bumps=Waves.random(rng, 2.0, 5),
                bumpiness=float(rng.uniform(0.02, 0.1)),
                texture=Waves.random(rng, float(rng.uniform(0.5, 2.5)), 24),
                contrast=float(rng.uniform(0.15, 0.45)),
                brightness=float(np.exp(0.5 * rng.normal())),
            )
        )
    return Scene(tuple(shapes), ("somata",), tuple(_vector(c) for c in centres))


def _shells(box: Box, rng: np.random.Generator, count: int) -> Scene:
    """Return hollow balls of many sizes."""
    wall = float(rng.uniform(0.2, 0.6))
    radii = np.exp(rng.uniform(np.log(0.8), np.log(5.0), count))
    light = np.exp(0.5 * rng.normal(size=count))
    shapes = tuple(
        Ball(_vector(c), float(r), inner_um=float(r) - min(wall, 0.8 * float(r)), brightness=float(b))
        for c, r, b in zip(box.sample(rng, count), radii, light, strict=True)
    )
    return Scene(shapes, ("shells",))


def _microglia(box: Box, rng: np.random.Generator, count: int) -> Scene:
    """Return small bodies with many thin branching processes."""
    cells: list[Shape] = []
    centres = box.sample(rng, count)
    for centre in centres:
        grown = grow_neuron(
            rng,
            reach_um=float(rng.uniform(12, 25)),
            dendrites=int(rng.integers(4, 8)),
            soma_um=float(rng.uniform(2.2, 3.5)),
        )
        light = float(np.exp(0.4 * rng.normal()))
        cells.append(
            grown.body(
                _vector(centre), random_rotation(rng), 1.0, 0.9 * light, light, float(rng.uniform(0.4, 1.2))
            )
        )
    return Scene(tuple(cells), ("microglia",), tuple(_vector(c) for c in centres))


def _vector(values: np.ndarray) -> Vector:
    z, y, x = map(float, values)
    return z, y, x
