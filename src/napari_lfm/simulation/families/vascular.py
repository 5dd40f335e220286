"""Vessel trees: tortuous, branching, radii and angles by Murray's law."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from napari_lfm.simulation.scene import Box, Scene
from napari_lfm.simulation.shapes import Shape, Tube, Union

Array = npt.NDArray[np.float64]
_MOST_BRANCHES = 150


def vessels(
    box: Box,
    rng: np.random.Generator,
    *,
    trees: int = 2,
    radius_um: float | None = None,
    smallest_um: float | None = None,
    wall_um: float | None = None,
    tortuosity: float = 0.35,
    brightness: float = 1.0,
) -> Scene:
    """Return trees of tubes that branch by Murray's law, hollow with `wall_um`.

    The cubes of the daughters' radii add up to the mother's, and the angles are those of least work
    (Murray, J. Gen. Physiol. 9, 1926). `tortuosity` is the wandering of the direction per radius of way,
    radians; the thinnest branches, the capillaries, wander on to the border of the box.
    """
    side = float(box.size_um[1:].min())
    root = radius_um if radius_um is not None else side / 25
    smallest = smallest_um if smallest_um is not None else root / 4
    bodies: list[Shape] = []
    for _ in range(trees):
        start = box.sample(rng, 1)[0]
        face, end = int(rng.integers(1, 3)), int(rng.integers(2))
        start[face] = (box.low_um, box.high_um)[end][face]
        way = 0.4 * rng.normal(size=3) * (0.3, 1, 1)
        way[face] = 1 - 2 * end
        stack, tree = [(start, way / np.linalg.norm(way), root)], list[Shape]()
        while stack and len(tree) < _MOST_BRANCHES:
            # the thickest first: where the number of branches runs out, capillaries are missing, not limbs
            stack.sort(key=lambda item: item[2])
            tree.append(_branch(box, rng, stack, smallest, wall_um, tortuosity))
        bodies.append(Union(tuple(tree), brightness))
    return Scene(tuple(bodies), ("vessels",))


def _branch(
    box: Box,
    rng: np.random.Generator,
    stack: list[tuple[Array, Array, float]],
    smallest: float,
    wall_um: float | None,
    tortuosity: float,
) -> Tube:
    """Grow one unbranched vessel from the thickest tip, and push its daughters."""
    point, way, radius = stack.pop()
    capillary = radius <= smallest
    step = 1.2 * radius
    count = int(rng.integers(20, 50)) if capillary else int(rng.integers(7, 18))
    # the direction wanders, and remembers where it came from for about ten radii
    turns = rng.normal(size=(count, 3)) * (0.6, 1, 1) * tortuosity * (1.4 if capillary else 1.0)
    ways = np.cumsum(turns, 0)
    ways -= np.cumsum(0.1 * ways, 0) * 0.5
    ways = ways + way
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
    track = np.concatenate([point[None], point + np.cumsum(step * ways, 0)])
    track = _folded(track, box, radius)
    out = np.asarray(((track[:, 1:] < box.low_um[1:]) | (track[:, 1:] > box.high_um[1:])).any(1))
    out[0] = False
    leaves = bool(out.any())
    if leaves:
        track = track[: max(int(np.argmax(out)) + 1, 2)]
    # real calibres are not perfectly even
    uneven = 1 + 0.05 * np.cumsum(rng.normal(size=len(track))) / math.sqrt(len(track))
    radii = radius * np.clip(uneven, 0.8, 1.2)
    if not leaves and not capillary:
        stack.extend(_daughters(rng, track, radius, smallest))
    return Tube(tuple((z, y, x) for z, y, x in track.tolist()), tuple(radii.tolist()), wall_um)


def _daughters(
    rng: np.random.Generator, track: Array, radius: float, smallest: float
) -> list[tuple[Array, Array, float]]:
    way = track[-1] - track[-2]
    way = way / np.linalg.norm(way)
    share = float(rng.uniform(0.15, 0.5))
    side = rng.normal(size=3) * (0.5, 1, 1)
    side -= (side @ way) * way
    side /= max(float(np.linalg.norm(side)), 1e-9)
    thin, thick = radius * share ** (1 / 3), radius * (1 - share) ** (1 / 3)
    out = []
    for mine, other, sign in ((thin, thick, 1.0), (thick, thin, -1.0)):
        # Murray: cos(angle) = (r0^4 + r1^4 - r2^4) / (2 r0^2 r1^2)
        cosine = (radius**4 + mine**4 - other**4) / (2 * radius**2 * mine**2)
        angle = math.acos(min(max(cosine, -1.0), 1.0)) + 0.15 * float(rng.normal())
        turn = math.cos(angle) * way + sign * math.sin(angle) * side
        # side branches given off on the way thin a vessel between its forks
        out.append((track[-1], turn, max(0.88 * mine, 0.9 * smallest)))
    return out


def _folded(track: Array, box: Box, radius: float) -> Array:
    """Reflect a track at the top and bottom of the box."""
    low, high = box.low_um[0] + radius, box.high_um[0] - radius
    if high <= low:
        low = high = (box.low_um[0] + box.high_um[0]) / 2
    span = max(high - low, 1e-9)
    away = np.mod(track[:, 0] - low, 2 * span)
    out = track.copy()
    out[:, 0] = low + np.where(away > span, 2 * span - away, away)
    out[0] = track[0]
    return out
