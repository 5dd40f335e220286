"""What virtual refocusing is trained on: beads, worms, cells in a layer, packed nuclei, neurons, clouds.

After the specimens of the virtual refocusing paper: fluorescent beads, and whole nematodes with labelled
nuclei or neurons; cells on a coverslip; nuclei side by side, as tissue has them; and large soft bodies,
whose depth hardly shows. Evaluation uses other families (`phantoms.FAMILIES`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.simulation.families.cells import spaced
from napari_lfm.simulation.families.filaments import worm_like
from napari_lfm.simulation.morphology import grow_neuron, random_rotation
from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Ball, Shape, Tube, Vector
from napari_lfm.simulation.soft_shapes import Ellipsoid, Waves, rotation_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_lfm.simulation.soft_shapes import Rotation

Builder = Callable[[Box, np.random.Generator], Scene]
TRAINING_FAMILIES = ("bead field", "monolayer", "worm", "sparse neurons", "clouds", "packed nuclei")
THIN_SHARE = 0.6
LAYER_UM = (1.0, 8.0)
"""Thickness of layers."""
LAYER_NUCLEUS_UM = (1.0, 7.0)
"""Radii of nuclei in layers."""
BEAD_UM = (0.1, 1.5)
"""Diameters."""
NUCLEUS_UM = (0.9, 3.0)
"""Radii."""
PER_1000_UM2 = (0.6, 20.0)
"""Beads per area."""
CLOUD_UM = (3.0, 14.0)
"""Half axes."""
PACKED_UM = (1.3, 7.0)
"""Radii of nuclei side by side."""


def bead_field(box: Box, rng: np.random.Generator) -> Scene:
    """Return beads of one or several sizes at random places, sparse to crowded."""
    area = float(box.size_um[1:].prod())
    count = max(3, int(np.exp(rng.uniform(*np.log(PER_1000_UM2))) * area / 1000))
    one = float(np.exp(rng.uniform(*np.log(BEAD_UM))))
    sizes = np.exp(rng.uniform(np.log(BEAD_UM[0]), np.log(BEAD_UM[1]), count))
    sizes = sizes if rng.random() < 0.3 else np.full(count, one)
    light = np.exp(rng.uniform(0, 1) * rng.normal(size=count))
    places = box.sample(rng, count)
    balls = tuple(
        Ball(_vector(p), float(d) / 2, brightness=float(b) * (one / float(d)) ** 2)
        for p, d, b in zip(places, sizes, light, strict=True)
    )
    return Scene(balls, ("bead field",), tuple(_vector(p) for p in places))


def monolayer(box: Box, rng: np.random.Generator) -> Scene:
    """Return flat nuclei side by side, sparse to crowded, some in a faint cell."""
    area = float(box.size_um[1:].prod())
    size = float(np.exp(rng.uniform(*np.log(LAYER_NUCLEUS_UM))))
    count = max(2, int(float(np.exp(rng.uniform(np.log(0.03), np.log(0.5)))) * area / (np.pi * size**2)))
    texture = float(rng.uniform(0.5, 2.5))
    kind = rng.choice(["filled", "cored", "shell"], p=[0.6, 0.2, 0.2])
    shapes: list[Shape] = []
    places = spaced(box, rng, min(count, 300), 1.8 * size)
    for place in places:
        half = size * np.exp(0.15 * rng.normal(size=3)) * (rng.uniform(0.3, 0.8), 1, 1)
        shapes.append(
            Ellipsoid(
                _vector(place),
                _vector(half),
                rotation_of(random_rotation(rng)) if size < 2 else _about_z(rng),
                wall_um=0.35 if kind == "shell" else None,
                core_share=float(rng.uniform(0.3, 0.6)) if kind == "cored" else 0.0,
                core_level=0.3,
                bumps=Waves.random(rng, 3.0, 4),
                bumpiness=0.05,
                texture=Waves.random(rng, texture, 16),
                contrast=float(rng.uniform(0.1, 0.5)),
                brightness=float(np.exp(0.4 * rng.normal())),
            )
        )
        if rng.random() < 0.2:
            shapes.append(Ball(_vector(place), 1.6 * size, brightness=0.05))
    return Scene(tuple(shapes), ("monolayer",), tuple(_vector(p) for p in places))


def worm(box: Box, rng: np.random.Generator) -> Scene:
    """Return one to three bent bodies, each full of nuclei, with a faint glow of its own."""
    shapes: list[Shape] = []
    points: list[Vector] = []
    side = float(box.size_um[1:].min())
    for _ in range(int(rng.integers(1, 4))):
        girth = float(rng.uniform(5, 16))
        way = rng.normal(size=(1, 3)) * (0.12, 1, 1)
        start = box.sample(rng, 1, girth)
        track = worm_like(rng, start, way / np.linalg.norm(way), np.array([1.3 * side]), 2.0 * side)[0]
        track = track - (track[len(track) // 2] - track[0])
        track[:, 0] = start[0, 0] + 0.3 * (track[:, 0] - track[:, 0].mean())
        lit = float(np.exp(rng.uniform(np.log(0.15), 0)))  # share of the nuclei with a label
        size = float(np.exp(rng.uniform(*np.log(NUCLEUS_UM))))
        places = _within(track, girth, size, lit, rng)
        texture = float(rng.uniform(0.6, 2.0))
        # a nuclear label, a cytosolic one with dark nuclei, or membranes
        kind = rng.choice(["filled", "cored", "shell"], p=[0.6, 0.2, 0.2])
        for place in places:
            half = size * np.exp(0.15 * rng.normal(size=3))
            shapes.append(
                Ellipsoid(
                    _vector(place),
                    _vector(half),
                    rotation_of(random_rotation(rng)),
                    wall_um=0.35 if kind == "shell" else None,
                    core_share=float(rng.uniform(0.4, 0.6)) if kind == "cored" else 0.0,
                    core_level=0.3,
                    texture=Waves.random(rng, texture, 12),
                    contrast=float(rng.uniform(0.1, 0.45)),
                    brightness=float(np.exp(0.5 * rng.normal())),
                )
            )
            points.append(_vector(place))
        glow = float(np.exp(rng.uniform(np.log(0.003), np.log(0.08))))
        shapes.append(Tube(tuple(_vector(p) for p in track), (girth,) * len(track), brightness=glow))
    return Scene(tuple(shapes), ("worm",), tuple(points))


def sparse_neurons(box: Box, rng: np.random.Generator) -> Scene:
    """Return neurons with thin, spotted neurites."""
    shapes: list[Shape] = []
    points: list[Vector] = []
    side = float(box.size_um[1:].min())
    count = int(rng.integers(2, 12))
    soma = float(rng.uniform(1.5, 5.0))
    for centre in box.sample(rng, count):
        grown = grow_neuron(
            rng,
            reach_um=float(rng.uniform(0.3, 0.9)) * side,
            dendrites=int(rng.integers(2, 7)),
            soma_um=soma * float(np.exp(0.2 * rng.normal())),
        )
        light = float(np.exp(0.5 * rng.normal()))
        turn = random_rotation(rng)
        turn[0] *= rng.uniform(0.2, 1)  # arbours lie flat more often than not
        shapes.append(
            grown.body(
                _vector(centre),
                turn,
                1.0,
                light * float(rng.uniform(0.3, 1)),
                light,
                float(rng.uniform(0.4, 1.3)),
            )
        )
        points.append(_vector(centre))
    for _ in range(int(rng.integers(0, 4))):
        # boutons along a way
        way = rng.normal(size=(1, 3)) * (0.1, 1, 1)
        length = np.array([side * float(rng.uniform(0.3, 1))])
        track = worm_like(rng, box.sample(rng, 1), way / np.linalg.norm(way), length, side)[0]
        shapes.append(Tube(tuple(_vector(p) for p in track), (0.2,) * len(track), brightness=0.4))
        for place in track[:: int(rng.integers(2, 8))]:
            shapes.append(Ball(_vector(place), float(rng.uniform(0.3, 0.7))))
    return Scene(tuple(shapes), ("sparse neurons",), tuple(points))


def clouds(box: Box, rng: np.random.Generator) -> Scene:
    """Return large bodies of one texture, overlapping or apart, some with bright grains."""
    shapes: list[Shape] = []
    points: list[Vector] = []
    size = float(np.exp(rng.uniform(*np.log(CLOUD_UM))))
    texture = float(np.exp(rng.uniform(np.log(0.8), np.log(4.0))))
    area = float(box.size_um[1:].prod())
    count = int(np.clip(np.exp(rng.uniform(np.log(0.1), np.log(1.2))) * area / (np.pi * size**2), 1, 60))
    grains = float(rng.uniform(2, 30)) if rng.random() < 0.5 else 0.0
    for place in box.sample(rng, count):
        half = size * np.exp(0.3 * rng.normal(size=3)) * (rng.uniform(0.3, 1), 1, 1)
        light = float(np.exp(0.5 * rng.normal()))
        shapes.append(
            Ellipsoid(
                _vector(place),
                _vector(half),
                _about_z(rng),
                bumps=Waves.random(rng, 0.7 * size, 6),
                bumpiness=float(rng.uniform(0, 0.2)),
                texture=Waves.random(rng, texture, 16),
                contrast=float(rng.uniform(0.1, 0.7)),
                brightness=light,
            )
        )
        points.append(_vector(place))
        for offset in rng.normal(size=(int(rng.poisson(grains)), 3)) * 0.4 * half:
            radius = float(rng.uniform(0.2, 0.8))
            shapes.append(Ball(_vector(place + offset), radius, brightness=light * float(rng.uniform(1, 6))))
    return Scene(tuple(shapes), ("clouds",), tuple(points))


def packed_nuclei(box: Box, rng: np.random.Generator) -> Scene:
    """Return nuclei side by side, in a layer or filling the depth, all labelled or only some."""
    size = float(np.exp(rng.uniform(*np.log(PACKED_UM))))
    flat = float(rng.uniform(0.5, 1.0))
    fill = float(np.exp(rng.uniform(np.log(0.12), np.log(0.5))))
    depth = max(float(box.size_um[0]), 1.2 * flat * size)
    room = depth * float(box.size_um[1:].prod())
    count = int(np.clip(fill * room / (4 / 3 * np.pi * flat * size**3), 3, 260))
    texture = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
    contrast, rough = float(rng.uniform(0.1, 0.7)), float(rng.uniform(0, 0.12))
    unlike, spots = float(rng.uniform(0.05, 0.5)), float(rng.uniform(0, 6)) if rng.random() < 0.5 else 0.0
    shapes: list[Shape] = []
    places = spaced(box, rng, count, 1.9 * size)
    for place in places:
        half = size * np.exp(0.12 * rng.normal(size=3)) * (flat, 1, 1)
        light = float(np.exp(unlike * rng.normal()))
        shapes.append(
            Ellipsoid(
                _vector(place),
                _vector(half),
                _about_z(rng) if flat < 0.8 else rotation_of(random_rotation(rng)),
                bumps=Waves.random(rng, 0.8 * size, 5),
                bumpiness=rough,
                texture=Waves.random(rng, texture, 16),
                contrast=contrast,
                brightness=light,
            )
        )
        for offset in rng.uniform(-0.5, 0.5, size=(int(rng.poisson(spots)), 3)) * half:
            radius = float(rng.uniform(0.08, 0.25)) * size
            bright = light * float(rng.uniform(0.3, 2))
            shapes.append(Ball(_vector(place + offset), radius, brightness=bright))
    return Scene(tuple(shapes), ("packed nuclei",), tuple(_vector(p) for p in places))


_THICK: dict[str, tuple[Builder, float]] = {
    "bead field": (bead_field, 0.2),
    "worm": (worm, 0.2),
    "sparse neurons": (sparse_neurons, 0.15),
    "clouds": (clouds, 0.2),
    "packed nuclei": (packed_nuclei, 0.25),
}
_THIN: dict[str, tuple[Builder, float]] = {
    "bead field": (bead_field, 0.25),
    "monolayer": (monolayer, 0.25),
    "sparse neurons": (sparse_neurons, 0.2),
    "clouds": (clouds, 0.1),
    "packed nuclei": (packed_nuclei, 0.2),
}
"""Kinds, and how often each is drawn."""


def focal_scene(box: Box, rng: np.random.Generator) -> Scene:
    """Return a random specimen of the training families, now and then two kinds together.

    More than half of them are layers, as beads and cells on a coverslip are; the
    others fill the whole depth.
    """
    thin = rng.random() < THIN_SHARE
    kinds = _THIN if thin else _THICK
    if thin:
        thick = min(float(np.exp(rng.uniform(*np.log(LAYER_UM)))), float(box.size_um[0]))
        middle = float(rng.uniform(box.low_um[0] + thick / 2, box.high_um[0] - thick / 2))
        low, high = middle - thick / 2, middle + thick / 2
        box = Box((low, *box.low_um[1:]), (high, *box.high_um[1:]))
    often = [share for _, share in kinds.values()]
    names = rng.choice(list(kinds), 2 if rng.random() < 0.15 else 1, replace=False, p=often)
    out = Scene(())
    for name in names:
        out = out + kinds[str(name)][0](box, rng)
    return out


def _about_z(rng: np.random.Generator) -> Rotation:
    """Return a rotation about z."""
    turn = float(rng.uniform(0, 2 * np.pi))
    c, s = float(np.cos(turn)), float(np.sin(turn))
    return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))


def _within(
    track: npt.NDArray[np.float64], girth: float, size: float, lit: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return places in a tube, about as close to one another as nuclei of this radius can be."""
    length = float(np.linalg.norm(np.diff(track, axis=0), axis=1).sum())
    room = np.pi * girth**2 * length
    count = int(min(0.25 * room / (4 / 3 * np.pi * size**3), 700) * lit) + 2
    at = rng.uniform(0, len(track) - 1, count)
    low = at.astype(int)
    middle = track[low] + (at - low)[:, None] * (track[np.minimum(low + 1, len(track) - 1)] - track[low])
    box = Box.centred((2 * girth, 2 * girth, 2 * girth))
    offsets = spaced(box, rng, count, 0) if count < 3 else box.sample(rng, 3 * count)
    offsets = offsets[np.linalg.norm(offsets, axis=1) < girth][:count]
    places = middle[: len(offsets)] + offsets
    kept: list[int] = []
    for k in range(len(places)):  # bodies do not lie within one another
        if not kept or np.linalg.norm(places[kept] - places[k], axis=1).min() > 1.5 * size:
            kept.append(k)
    return np.asarray(places[kept])


def _vector(values: npt.ArrayLike) -> Vector:
    z, y, x = map(float, np.asarray(values))
    return z, y, x
