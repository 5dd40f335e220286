"""A surface as triangles in the world of its image. No Qt, no napari."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_NODES = 256
"""Along either side: more draw no better and slower."""


def mesh(
    heights_um: np.ndarray,
    values: np.ndarray,
    step: Sequence[float],
    start: Sequence[float],
    z_start: float = 0.0,
    world_per_um: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (n, 3) z y x, faces (m, 3) and the value of every vertex.

    Parameters
    ----------
    heights_um : ndarray, shape (y, x)
        Distance from the image's plane.
    values : ndarray, shape (y, x)
        What colours it.
    step, start : sequence of float
        Size and place of the pixels, (y, x), in units of the world.
    z_start : float
        Where the image's plane lies, in units of the world.
    world_per_um : float
        Units of the world in a micrometre.
    """
    rows, columns = (nodes(n) for n in heights_um.shape)
    grid = np.ix_(rows, columns)
    z = z_start + world_per_um * heights_um[grid]
    y = np.broadcast_to((start[0] + step[0] * rows)[:, None], z.shape)
    x = np.broadcast_to(start[1] + step[1] * columns, z.shape)
    vertices = np.stack([z, y, x], -1).reshape(-1, 3).astype(np.float32)
    number = np.arange(z.size).reshape(z.shape)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    return vertices, faces.astype(np.int32), np.asarray(values[grid], np.float32).ravel()


def nodes(size: int) -> np.ndarray:
    """Return evenly spread indices, the first and last among them."""
    count = min(size, MOST_NODES)
    return np.unique(np.rint(np.linspace(0, size - 1, count)).astype(int))
