"""How far a network agrees with itself when its input is flipped: confidence without a truth.

The optics of a square lenslet array look the same after any of the eight symmetries of the square. A
network learns that only as well as its training made it; where its eight answers differ, it guesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from napari_lfm.optics.symmetry import Operation

FLOOR = 0.02
"""Noise floor, as a part of the volume's 99.9th percentile: what is less does not count."""


def apply(operation: Operation, image: torch.Tensor) -> torch.Tensor:
    """Move images (..., y, x) by a symmetry operation, as `Operation.on_image` does for arrays."""
    if operation.transpose:
        image = image.mT
    flips = [d for d, on in ((-2, operation.flip_y), (-1, operation.flip_x)) if on]
    return image.flip(flips) if flips else image


def undo(operation: Operation, image: torch.Tensor) -> torch.Tensor:
    """Move images (..., y, x) back by the inverse of a symmetry operation."""
    flips = [d for d, on in ((-2, operation.flip_y), (-1, operation.flip_x)) if on]
    image = image.flip(flips) if flips else image
    return image.mT if operation.transpose else image


class Agreement:
    """Mean and spread of several answers, one after another (Welford), without keeping them all.

    Parameters
    ----------
    shape : tuple of int
        Of one volume (z, y, x).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = torch.zeros(shape)
        self._squares = torch.zeros(shape)

    def add(self, answer: torch.Tensor) -> None:
        """Take one answer, shape (z, y, x)."""
        self.count += 1
        difference = answer - self.mean
        self.mean += difference / self.count
        self._squares += difference * (answer - self.mean)

    def confidence(self, floor: float = FLOOR) -> torch.Tensor:
        """Return ``1 - spread / (|mean| + floor)``, cut to 0..1, shape (z, y, x).

        The spread is the standard deviation of the answers; the floor is `floor` times the 99.9th
        percentile of the mean. 1: all answers are the same; 0.9: they scatter by a tenth of the
        brightness; 0: by as much as there is, or more.
        """
        bright = percentile(self.mean, 99.9)
        if bright <= 0:
            return (
                torch.ones_like(self.mean) if not bool(self._squares.any()) else torch.zeros_like(self.mean)
            )
        spread = (self._squares / max(1, self.count)).clamp(min=0).sqrt_()
        # the sums carry rounding: equal answers must give exactly 1
        spread[spread < 1e-6 * bright] = 0
        return (1 - spread / (self.mean.abs() + floor * bright)).clamp_(0, 1)


def percentile(values: torch.Tensor, percent: float, most: int = 2_000_000) -> float:
    """Return a percentile of at most `most` evenly taken values."""
    flat = values.flatten()
    flat = flat[:: max(1, flat.numel() // most)].float()
    rank = round(percent / 100 * (flat.numel() - 1))
    return float(flat.kthvalue(rank + 1).values)
