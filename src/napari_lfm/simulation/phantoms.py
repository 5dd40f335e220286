"""Seeded phantom families: vesicles, beads, vessels, neurons, bars.

Each family draws a `Scene` inside a `Box`. Family names are fixed, so that training
and evaluation can be split by family.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.morphology import grow_neuron, random_rotation, read_morphology
from napari_lfm.simulation.scene import Box, Grid, Scene, render, thinned
from napari_lfm.simulation.shapes import Ball, Bar, Shape, Tube, Union, Vector

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

Builder = Callable[..., Scene]
_MOST_BRANCHES = 400


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


def vessels(
    box: Box,
    rng: np.random.Generator,
    *,
    trees: int = 2,
    radius_um: float | None = None,
    smallest_um: float | None = None,
    wall_um: float | None = None,
    brightness: float = 1.0,
) -> Scene:
    """Return branching tubes that follow Murray's law (cubes of the radii add up), hollow with `wall_um`."""
    side = float(box.size_um[1:].min())
    root = radius_um if radius_um is not None else side / 25
    smallest = smallest_um if smallest_um is not None else root / 5
    bodies = []
    for _ in range(trees):
        start = box.sample(rng, 1)[0]
        face = int(rng.integers(1, 3))
        start[face] = box.low_um[face]
        way = np.array([0.0, 0.0, 0.0])
        way[face] = 1.0
        stack, tree = [(start, way, root)], list[Shape]()
        while stack and len(tree) < _MOST_BRANCHES:
            tree.append(_vessel(box, rng, stack, smallest, wall_um))
        bodies.append(Union(tuple(tree), brightness))
    return Scene(tuple(bodies), ("vessels",))


def neurons(
    box: Box,
    rng: np.random.Generator,
    *,
    count: int = 3,
    morphologies: Sequence[str | Path] = (),
    scale: float = 1.0,
    soma_um: float | None = None,
    soma_brightness: float = 1.0,
    brightness: float = 1.0,
) -> Scene:
    """Return neurons from morphology files (SWC, HDF5), or grown ones where none is given."""
    read = [read_morphology(p) for p in morphologies]
    side = float(box.size_um[1:].min())
    soma = soma_um if soma_um is not None else min(6.0, 0.06 * side)
    cells = []
    centres = box.sample(rng, count, 2 * soma)
    for centre in centres:
        cell = (
            read[int(rng.integers(len(read)))] if read else grow_neuron(rng, reach_um=side / 2, soma_um=soma)
        )
        cells.append(cell.body(_vector(centre), random_rotation(rng), scale, brightness, soma_brightness))
    return Scene(tuple(cells), ("neurons",), tuple(_vector(c) for c in centres))


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


FAMILIES: dict[str, Builder] = {
    "vesicles": vesicles,
    "beads": beads,
    "vessels": vessels,
    "neurons": neurons,
    "bars": bars,
}


def make_scene(
    kind: str,
    box: Box,
    seed: int | np.random.Generator = 0,
    *,
    labelled_share: float = 1.0,
    options: dict[str, dict[str, Any]] | None = None,
) -> Scene:
    """Return a scene of one family, or of several joined by ``+`` (``"vesicles+beads"``).

    Parameters
    ----------
    kind : str
        Family names joined by ``+``.
    box : Box
        Where the shapes may be.
    seed : int or numpy.random.Generator
        Same seed, same scene.
    labelled_share : float
        Below 1, only this random share of the bodies is fluorescent (sparse labelling).
    options : dict, optional
        Per family, keyword arguments of its function.

    Raises
    ------
    RequestError
        If a family does not exist; the message suggests the nearest.
    """
    rng = np.random.default_rng(seed)
    out = Scene(())
    for family in (part.strip() for part in kind.split("+")):
        if family not in FAMILIES:
            near = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(FAMILIES)}."
            raise RequestError(f"There is no phantom '{family}'.", hint)
        out = out + FAMILIES[family](box, rng, **(options or {}).get(family, {}))
    if labelled_share < 1:
        out = thinned(out, labelled_share, rng)
    return out


def make_phantom(kind: str, grid: Grid, seed: int | np.random.Generator = 0, **options: Any) -> xr.DataArray:
    """Return a rendered phantom, dims ``z y x``; arguments as for `make_scene`."""
    half = np.asarray(grid.voxel_um) / 2
    low = np.asarray(grid.origin_um) - half
    box = Box(_vector(low), _vector(low + np.asarray(grid.shape) * np.asarray(grid.voxel_um)))
    return render(make_scene(kind, box, seed, **options), grid, name=kind)


def _vessel(
    box: Box,
    rng: np.random.Generator,
    stack: list[tuple[np.ndarray, np.ndarray, float]],
    smallest: float,
    wall_um: float | None,
) -> Tube:
    """Grow one unbranched vessel from the stack, and push its daughters."""
    point, way, radius = stack.pop()
    track, radii = [point], [radius]
    for _ in range(int(rng.integers(4, 9))):
        way = way + 0.25 * rng.normal(size=3) * (0.5, 1, 1)
        # vessels that would leave through the top or bottom bend back
        if not box.low_um[0] + radius < (point + 3 * radius * way)[0] < box.high_um[0] - radius:
            way[0] = -0.5 * way[0]
        way = way / np.linalg.norm(way)
        point = point + 1.3 * radius * way
        track.append(point)
        radii.append(radius)
    inside = bool(((point[1:] > box.low_um[1:]) & (point[1:] < box.high_um[1:])).all())
    share = float(rng.uniform(0.3, 0.7))
    daughters = (radius * share ** (1 / 3), radius * (1 - share) ** (1 / 3))
    if inside and max(daughters) > smallest:
        spread = rng.normal(size=3) * (0.4, 1, 1)
        for daughter, sign in zip(daughters, (1, -1), strict=True):
            # 0.85: vessels also get thinner between branchings, or the trees would never end
            if 0.85 * daughter > smallest:
                turn = way + 0.6 * sign * spread / max(float(np.linalg.norm(spread)), 1e-9)
                stack.append((point, turn / math.sqrt(float(turn @ turn)), 0.85 * daughter))
    return Tube(tuple(_vector(p) for p in track), tuple(radii), wall_um)


def _vector(values: np.ndarray) -> Vector:
    z, y, x = map(float, values)
    return z, y, x
