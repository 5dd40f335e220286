"""Symmetries of a lenslet cell, and how they act on images and on lattice frequencies.

An operation maps centred positions ``(y, x)``: first an optional transpose, then optional flips.
For a square lattice with centred lenslets and an on-axis pupil all eight symmetries of the square
leave the optics unchanged; a rectangular cell (hexagonal lattice) keeps the four without transpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Operation:
    """``(y, x) -> (+-y', +-x')`` with ``(y', x') = (x, y)`` if `transpose` else ``(y, x)``."""

    transpose: bool
    flip_y: bool
    flip_x: bool

    def on_point(self, y: float, x: float) -> tuple[float, float]:
        """Return the image of a centred position."""
        if self.transpose:
            y, x = x, y
        return (-y if self.flip_y else y, -x if self.flip_x else x)

    def on_image(self, image: np.ndarray) -> np.ndarray:
        """Return the image moved by this operation (last two axes, centred)."""
        if self.transpose:
            image = np.swapaxes(image, -1, -2)
        if self.flip_y:
            image = image[..., ::-1, :]
        return image[..., ::-1] if self.flip_x else image

    def on_index(self, shape: tuple[int, int]) -> np.ndarray:
        """Return ``p`` with ``p[i]`` the flat index of where the flat cell index ``i`` is moved to."""
        ids = np.arange(shape[0] * shape[1]).reshape(shape)
        moved = self.on_image(ids)  # moved[g(y, x)] = id(y, x)
        target = np.empty(ids.size, np.int64)
        target[moved.ravel()] = np.arange(ids.size)
        return target


IDENTITY = Operation(False, False, False)
HALF_TURN = Operation(False, True, True)


def cell_group(square: bool, symmetric: bool = True) -> tuple[Operation, ...]:
    """Return the operations that leave a cell and its optics unchanged.

    Parameters
    ----------
    square : bool
        Square cell with equal sampling on both axes: eight operations, else four.
    symmetric : bool
        False (asymmetric pupil or off-centre lenslets): the identity alone.
    """
    if not symmetric:
        return (IDENTITY,)
    transposes = (False, True) if square else (False,)
    return tuple(Operation(t, fy, fx) for t in transposes for fy in (False, True) for fx in (False, True))
