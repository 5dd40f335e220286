"""Noise of an image from the image itself: variance against brightness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

_PLANES = 12
_BINS = 16


@dataclass(frozen=True)
class Noise:
    """Variance of a grey value, ``slope * value + intercept``.

    Attributes
    ----------
    slope : float
        Grey values per electron.
    intercept : float
        Read noise less ``slope`` times the camera's offset, grey values squared.
    shift_counts : float
        What to add to data and prediction so that their variance is proportional to them; 0 where the camera
        is not known, for a figure from the data is too uncertain to change them by.
    least : float
        Never less than this, grey values squared.
    known : bool
        Whether there is any noise to speak of.
    source : str
        Where the figures come from, in plain words.
    """

    slope: float
    intercept: float
    least: float
    known: bool
    source: str
    shift_counts: float = 0.0


def some_planes(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a few evenly spaced planes as float32, what is no number replaced by the median."""
    step = -(-len(frame) // _PLANES)
    planes = np.asarray(frame[step // 2 :: step], np.float32)
    bad = ~np.isfinite(planes)
    if bad.any():
        planes = np.where(bad, np.median(planes[~bad]) if not bad.all() else 0, planes)
    return planes


def estimate_noise(frame: np.ndarray[Any, Any]) -> Noise:
    """Return the noise of a frame from the frame: variance of what is rough, against brightness.

    Second differences along y and x leave noise and no smooth structure (Immerkaer, Comput. Vis. Image
    Underst. 64, 300 (1996)); their median size in classes of equal brightness is fitted by a line.
    """
    planes = some_planes(frame)
    none = Noise(0.0, 0.0, 0.0, False, "the data")
    if min(planes.shape[1:]) < 5:
        return none
    rough = planes[:, 2:] - 2 * planes[:, 1:-1] + planes[:, :-2]
    rough = (rough[:, :, 2:] - 2 * rough[:, :, 1:-1] + rough[:, :, :-2]).ravel() / 6  # sqrt(6) each way
    level = uniform_filter(planes, (0, 3, 3), mode="nearest")[:, 1:-1, 1:-1].ravel()
    edges = np.quantile(level, np.linspace(0, 1, _BINS + 1))
    place = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, _BINS - 1)
    at, variance = [], []
    for k in range(_BINS):
        chosen = place == k
        if np.count_nonzero(chosen) >= 50:
            at.append(float(level[chosen].mean()))
            variance.append(float((1.4826 * np.median(np.abs(rough[chosen]))) ** 2))
    if len(at) < 2 or max(variance) <= 0:
        return none
    # relative errors of variances are alike: small ones count as much as large ones
    weight = 1 / np.maximum(variance, 1e-3 * max(variance))
    least = float(min(variance))
    matrix = np.stack([np.asarray(at), np.ones(len(at))], 1) * weight[:, None]
    slope, intercept = np.linalg.lstsq(matrix, np.asarray(variance) * weight, rcond=None)[0]
    if slope <= 0:
        return Noise(0.0, float(np.median(variance)), least, True, "the data")
    return Noise(float(slope), float(intercept), least, True, "the data")
