"""Search for a rotation about z and a magnification between two stacks, on projections along z.

A shift along z leaves projections of what is sharp nearly as they are, so that turning is looked for in two
dimensions: candidates are tried from coarse to fine, each judged by its best correlation over all shifts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import next_fast_len
from scipy.ndimage import affine_transform

from napari_lfm.training.registration_grid import Turn
from napari_lfm.training.shift_estimates import high_passed, window

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_ANGLE_STEP, _SIZE_STEP = 1.0, 0.01
_HALVINGS = 5


def projected(stack: torch.Tensor) -> np.ndarray:
    """Return the brightest sharp thing over every place, (y, x)."""
    return high_passed(stack).amax(0).cpu().numpy()


def find_turn(
    moving: np.ndarray,
    fixed: np.ndarray,
    pixel_um: tuple[float, float],
    max_rotation_deg: float,
    max_magnification: float,
) -> Iterator[tuple[int, int] | Turn]:
    """Give (steps done, steps) after each row of candidates, and at last how `moving` is turned.

    Parameters
    ----------
    moving, fixed : ndarray, shape (y, x)
        `projected`, on one grid.
    pixel_um : tuple of float
        (y, x).
    max_rotation_deg, max_magnification : float
        What is searched: rotations up to this both ways, magnifications from ``1 - m`` to ``1 + m``.

    Yields
    ------
    (int, int), then Turn
        About the middle of the grid, in um from its first pixel.
    """
    pixel = np.asarray(pixel_um)
    middle = (np.array(fixed.shape) - 1) / 2
    weight = window(fixed.shape).numpy()
    size = [next_fast_len(n + n // 4, real=True) for n in fixed.shape]
    target = np.fft.rfft2(_level(fixed, weight), size).conj()

    def match(angle: float, stretch: float) -> float:
        turn = Turn(angle, 1 + stretch)
        matrix = turn.matrix() * pixel / pixel[:, None]
        turned = affine_transform(moving, matrix, middle - matrix @ middle, order=1, mode="nearest")
        return float(np.fft.irfft2(np.fft.rfft2(_level(turned, weight), size) * target, size).max())

    angles = _symmetric(max_rotation_deg, _ANGLE_STEP)
    stretches = _symmetric(max_magnification, _SIZE_STEP)
    steps = len(angles) + _HALVINGS
    best = (-np.inf, 0.0, 0.0)
    for number, angle in enumerate(angles):
        best = max(best, *((match(angle, s), angle, s) for s in stretches))
        yield number + 1, steps
    spans = _ANGLE_STEP * (max_rotation_deg > 0), _SIZE_STEP * (max_magnification > 0)
    for number in range(_HALVINGS):
        spans = spans[0] / 2, spans[1] / 2
        _, angle, stretch = best
        around = {
            (angle + i * spans[0], stretch + j * spans[1])
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if abs(angle + i * spans[0]) <= max_rotation_deg
            and abs(stretch + j * spans[1]) <= max_magnification
        } - {(angle, stretch)}
        best = max(best, *((match(a, s), a, s) for a, s in around)) if around else best
        yield len(angles) + number + 1, steps
    y, x = middle * pixel
    yield Turn(best[1], 1 + best[2], (float(y), float(x)))


def _symmetric(most: float, step: float) -> list[float]:
    """Return 0 and steps both ways, up to `most`."""
    count = int(np.floor(most / step + 1e-9))
    return [k * step for k in range(-count, count + 1)]


def _level(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    level = (image - (image * weight).sum() / weight.sum()) * weight
    return np.asarray(level / max(float(np.linalg.norm(level)), 1e-12))
