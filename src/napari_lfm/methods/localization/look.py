"""The light field that points are looked for in: a frame, or what a movie does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.lightfield.purify import temporal_activity
from napari_lfm.methods.network_input import lenslet_gain

if TYPE_CHECKING:
    from napari_lfm.methods.lightfield_data import LightfieldData

FEW_FRAMES = 8
"""A movie with fewer frames says nothing about activity: its mean is looked at."""


@dataclass(frozen=True)
class Look:
    """Views (v, u, t, s) to look for points in, how many frames they stand for, and what they are."""

    views: np.ndarray
    frames: int
    kind: str


def look_at(data: LightfieldData, movie: str) -> Look:
    """Return the views of one frame; of a movie its ``activity`` or its ``mean``."""
    gain = lenslet_gain(data)
    frames = len(data.rectified.image)
    if frames == 1:
        return Look(views_of(data, 0, gain), 1, "the light field")
    if movie == "mean" or frames < FEW_FRAMES:
        return Look(mean_of(data, gain), frames, "the mean of the movie")
    activity = temporal_activity(views_of(data, k, gain) for k in range(frames))
    return Look(activity, frames, "what changes in the movie")


def views_of(data: LightfieldData, frame: int, gain: np.ndarray | None) -> np.ndarray:
    """Return one frame as (v, u, t, s), every lenslet divided by its brightness in the white frame."""
    views = np.asarray(data.rectified.views(frame), np.float32)
    return views if gain is None else np.asarray(views / gain, np.float32)


def mean_of(data: LightfieldData, gain: np.ndarray | None) -> np.ndarray:
    """Return the mean of all frames, one in memory at a time."""
    total = np.zeros(data.rectified.views(0).shape, np.float64)
    count = len(data.rectified.image)
    for k in range(count):
        total += views_of(data, k, gain)
    return np.asarray(total / count, np.float32)
