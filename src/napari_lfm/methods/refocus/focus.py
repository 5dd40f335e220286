"""Everything in focus at once: the sharpest or brightest plane of every place, and its height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, laplace

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.tiles import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lfm.methods.refocus.engine import Refocuser

Head = Literal["confocal", "widefield"]
_NEIGHBOURHOOD_PX = 2.0
_FILL_PX = 6.0
_HALO_PX = 32


@dataclass(frozen=True)
class ExtendedFocus:
    """A projection with extended depth of field.

    Attributes
    ----------
    image : ndarray, float32, shape (y, x)
        Grey values above the dark level.
    height_um : ndarray, float32, shape (y, x)
        Where that was in focus, between planes by a parabola; the less certain, the more it is its
        neighbours' mean.
    certainty : ndarray, float32, shape (y, x)
        How far the best plane stands out: 0 where all are alike, and where there is nothing.
    """

    image: np.ndarray
    height_um: np.ndarray
    certainty: np.ndarray


def extended_focus(
    refocuser: Refocuser, z_um: Sequence[float], head: Head = "confocal"
) -> Iterator[Progress | ExtendedFocus]:
    """Refocus onto planes and keep, pixel by pixel, the one in focus; yields it last.

    Of confocal planes the brightest is in focus, of wide-field ones the sharpest (most of a Laplacian,
    squared). One plane at a time is held.

    Parameters
    ----------
    refocuser : Refocuser
    z_um : sequence of float
        Evenly spaced, rising, two or more.
    head : {"confocal", "widefield"}

    Raises
    ------
    RequestError
        If there are fewer than two planes, or they are not evenly spaced.
    """
    z = np.asarray(z_um, float)
    steps = np.diff(z)
    if len(z) < 2 or steps.min() <= 0 or np.ptp(steps) > 1e-3 * steps.mean():
        raise RequestError(
            "Extended focus needs two planes or more, evenly spaced and rising.", "Give a range and a step."
        )
    best = np.full(refocuser.shape, -np.inf, np.float32)
    before, after, image, total = (np.zeros(refocuser.shape, np.float32) for _ in range(4))
    index = np.zeros(refocuser.shape, np.int32)
    parts = parts_of(refocuser.shape, _HALO_PX)
    for number, (region, at, within) in enumerate(parts):
        last: np.ndarray | None = None
        for k, distance in enumerate(z):
            made = refocuser.plane(float(distance), region)
            plane = made.confocal if head == "confocal" else made.widefield
            score = _in_focus(plane, head)[within]
            total[at] += score
            np.copyto(after[at], score, where=index[at] == k - 1)
            better = score > best[at]
            np.copyto(best[at], score, where=better)
            np.copyto(image[at], plane[within], where=better)
            np.copyto(before[at], score if last is None else last, where=better)
            np.copyto(after[at], score, where=better)  # the last plane has none after it
            index[at][better] = k
            last = score
            yield Progress(number * len(z) + k + 1, len(parts) * len(z), f"Plane at {distance:+.3g} um")
    inner = (index > 0) & (index < len(z) - 1)
    bend = before - 2 * best + after
    shift = np.where(inner & (bend < 0), 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
    height = z[index] + steps.mean() * np.clip(shift, -0.5, 0.5)
    rest = (total - best) / (len(z) - 1)
    # nothing stands out in the dark, whatever the quotient there
    floor = 0.01 * float(np.percentile(best, 99.5))
    certainty = np.where(best > 0, (best - rest) / (best + floor + 1e-12), 0)
    certainty = np.asarray(np.clip(certainty, 0, 1), np.float32)
    yield ExtendedFocus(image, _filled(height, certainty), certainty)


def _filled(height: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return heights that lean on their neighbours where nothing stands out."""
    weight = certainty**2
    # the mean of all counts a little, so that there is one far from everything
    least = 1e-3 * float(weight.max()) + 1e-9
    total = float(weight.sum())
    everywhere = float((weight * height).sum() / total) if total > 0 else float(height.mean())
    around = gaussian_filter(weight * height, _FILL_PX) + least * everywhere
    mean = around / (gaussian_filter(weight, _FILL_PX) + least)
    return np.asarray(certainty * height + (1 - certainty) * mean, np.float32)


def _in_focus(plane: np.ndarray, head: Head) -> np.ndarray:
    """Return, place by place, what is largest in focus."""
    if head == "confocal":
        return np.asarray(gaussian_filter(plane, _NEIGHBOURHOOD_PX / 2), np.float32)
    sharp = laplace(gaussian_filter(plane, 1.0)) ** 2
    return np.asarray(gaussian_filter(sharp, _NEIGHBOURHOOD_PX), np.float32)
