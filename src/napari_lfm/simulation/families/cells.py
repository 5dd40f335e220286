"""Cells: textured nuclei, and plasma membranes with organelles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.simulation.families.filaments import worm_like
from napari_lfm.simulation.morphology import random_rotation
from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Ball, Shape, Tube, Vector
from napari_lfm.simulation.soft_shapes import Ellipsoid, Waves, rotation_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]


def nuclei(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 12,
    radius_um: float | None = None,
    texture_um: float | None = None,
    contrast: float = 0.35,
    mitotic_share: float = 0.08,
    brightness: float = 1.0,
    brightness_spread: float = 0.3,
) -> Scene:
    """Return ellipsoidal nuclei with a chromatin texture and dark nucleoli; some are dividing.

    A dividing one is a bright plate, or two plates apart. Without `radius_um` the radius is a 14th of the
    field; the texture's scale is 0.6 radii unless `texture_um` says so.
    """
    radius = radius_um if radius_um is not None else float(box.size_um[1:].min()) / 14
    scale = texture_um if texture_um is not None else 0.6 * radius
    shapes: list[Shape] = []
    centres = spaced(box, rng, count, 1.6 * radius)
    for centre in centres:
        light = brightness * float(np.exp(brightness_spread * rng.normal()))
        texture = Waves.random(rng, scale, 24)
        turn = random_rotation(rng)
        size = radius * np.exp(0.15 * rng.normal())
        if rng.random() < mitotic_share:
            apart = float(rng.choice([0.0, 0.7])) * size
            for sign in (-1, 1) if apart else (0,):
                place = centre + sign * apart * turn[:, 0]
                half = _vector(size * np.array([0.22, 0.7, 0.7]))
                shapes.append(
                    Ellipsoid(
                        _vector(place),
                        half,
                        rotation_of(turn),
                        texture=texture,
                        contrast=0.2,
                        brightness=2 * light,
                    )
                )
            continue
        half = size * np.exp(0.18 * rng.normal(size=3))
        # nuclei lie flat
        half[0] *= 0.8
        spin = _about_z(rng)
        core = float(rng.uniform(0.25, 0.4)) if rng.random() < 0.7 else 0.0
        shapes.append(
            Ellipsoid(
                _vector(centre),
                _vector(half),
                rotation_of(spin),
                core_share=core,
                core_level=float(rng.uniform(0.15, 0.6)),
                bumps=Waves.random(rng, 3.0, 4),
                bumpiness=0.04,
                texture=texture,
                contrast=contrast,
                brightness=light,
            )
        )
    return Scene(tuple(shapes), ("nuclei",), tuple(_vector(c) for c in centres))


def cells(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 6,
    radius_um: float | None = None,
    membrane_um: float | None = None,
    bumpiness: float = 0.08,
    organelles: int = 20,
    organelle_brightness: float = 1.0,
    cytosol: float = 0.1,
    brightness: float = 1.0,
) -> Scene:
    """Return cells: a bumpy plasma membrane, a faint cytosol, and organelles (vesicles, mitochondria).

    Without sizes the radius is a tenth of the field and the membrane a 20th of the radius. `cytosol` is its
    brightness in shares of the membrane's.
    """
    radius = radius_um if radius_um is not None else float(box.size_um[1:].min()) / 10
    wall = membrane_um if membrane_um is not None else radius / 20
    shapes: list[Shape] = []
    centres = spaced(box, rng, count, 2.1 * radius)
    for centre in centres:
        light = brightness * float(np.exp(0.25 * rng.normal()))
        half = radius * np.exp(0.15 * rng.normal(size=3)) * (0.8, 1, 1)
        spin, bumps = _about_z(rng), Waves.random(rng, float(rng.uniform(1.2, 3.0)), 6)
        place = _vector(centre)
        membrane = Ellipsoid(
            place, _vector(half), rotation_of(spin), wall, bumps=bumps, bumpiness=bumpiness, brightness=light
        )
        shapes.append(membrane)
        if cytosol > 0:
            inside = _vector(np.maximum(half - wall, 0.2 * half))
            texture = Waves.random(rng, 0.7 * radius, 16)
            shapes.append(
                Ellipsoid(
                    place,
                    inside,
                    rotation_of(spin),
                    core_share=0.5,
                    core_level=0.3,
                    bumps=bumps,
                    bumpiness=bumpiness,
                    texture=texture,
                    contrast=0.3,
                    brightness=cytosol * light,
                )
            )
        shapes.extend(_organelles(rng, centre, half, spin, organelles, organelle_brightness * light))
    return Scene(tuple(shapes), ("cells",), tuple(_vector(c) for c in centres))


def _organelles(
    rng: np.random.Generator, centre: Array, half: Array, spin: Array, count: int, brightness: float
) -> list[Shape]:
    """Return blobs and short tubes between a dark nucleus and the membrane."""
    if count < 1:
        return []
    size = float(half.mean())
    ways = rng.normal(size=(count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    spots = centre + (ways * rng.uniform(0.5, 0.8, (count, 1)) * half) @ spin.T
    tubes = rng.random(count) < 0.5
    out: list[Shape] = [
        Ball(_vector(p), size * float(rng.uniform(0.03, 0.08)), brightness=brightness) for p in spots[~tubes]
    ]
    if tubes.any():
        n = int(tubes.sum())
        # mitochondria lie along the membrane
        along = np.cross(ways[tubes], rng.normal(size=(n, 3))) @ spin.T
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        tracks = worm_like(rng, spots[tubes], along, size * rng.uniform(0.1, 0.4, n), 0.3 * size, 5)
        thick = size * 0.03
        out += [Tube(_track(t), (thick,) * len(t), brightness=brightness) for t in tracks]
    return out


def spaced(box: Box, rng: np.random.Generator, count: int, apart_um: float) -> Array:
    """Return positions in the box, each the best of some candidates: apart where that fits."""
    chosen = box.sample(rng, 1)
    while len(chosen) < count:
        candidates = box.sample(rng, 12)
        gaps = np.linalg.norm(candidates[:, None] - chosen, axis=-1).min(1)
        pick = int(np.argmax(gaps >= apart_um)) if (gaps >= apart_um).any() else int(gaps.argmax())
        chosen = np.concatenate([chosen, candidates[pick : pick + 1]])
    return chosen[:count]


def _about_z(rng: np.random.Generator) -> Array:
    """Return a rotation about z with a slight tilt."""
    angle, tilt = rng.uniform(0, 2 * np.pi), 0.25 * rng.normal()
    c, s, ct, st = np.cos(angle), np.sin(angle), np.cos(tilt), np.sin(tilt)
    turn = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    return np.asarray(turn @ np.array([[ct, st, 0], [-st, ct, 0], [0, 0, 1]]))


def _track(points: Array) -> tuple[Vector, ...]:
    return tuple((z, y, x) for z, y, x in points.tolist())


def _vector(values: Array | Sequence[float]) -> Vector:
    z, y, x = map(float, values)
    return z, y, x
