"""From a curve over depth bins to depths: peaks, their centres between bins, their widths."""

from __future__ import annotations

import numpy as np

_SUPPORT = 0.2
"""Bins count to a peak by how much they are higher than this share of it, and not beyond a valley."""


def centre_of(curve: np.ndarray, z_um: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centre of every curve's highest peak.

    Parameters
    ----------
    curve : ndarray, shape (n, depths)
        Probabilities.
    z_um : ndarray, shape (depths,)

    Returns
    -------
    z_um, width_um, height : ndarray, shape (n,)
        Centroid and standard deviation over the peak's support, and the peak's value.
    """
    peak = curve.argmax(1)
    # what sticks out: a bin at the edge of the support comes in with no weight, so that nothing jumps
    top = curve[np.arange(len(curve)), peak][:, None]
    weight = np.where(_support(curve, peak), curve - _SUPPORT * top, 0.0)
    total = weight.sum(1)
    total = np.where(total > 0, total, 1.0)
    middle = (weight * z_um).sum(1) / total
    width = np.sqrt((weight * (z_um - middle[:, None]) ** 2).sum(1) / total)
    return middle, width, curve[np.arange(len(curve)), peak]


def peaks_of(
    curve: np.ndarray, z_um: np.ndarray, threshold: float, most: int = 4
) -> list[tuple[float, float, float]]:
    """Return (z_um, width_um, height) of every peak of one curve above a threshold, the highest first.

    Parameters
    ----------
    curve : ndarray, shape (depths,)
    z_um : ndarray, shape (depths,)
    threshold : float
    most : int
        So many at most.
    """
    left = np.array(curve, float)
    out: list[tuple[float, float, float]] = []
    while len(out) < most:
        peak = int(left.argmax())
        if left[peak] < threshold or left[peak] <= 0:
            break
        inside = _support(left[None], np.array([peak]))[0]
        weight = (left - _SUPPORT * left[peak]) * inside
        z = float((weight * z_um).sum() / weight.sum())
        width = float(np.sqrt((weight * (z_um - z) ** 2).sum() / weight.sum()))
        out.append((z, width, float(left[peak])))
        # the flanks of a peak are no peaks
        for step in (-1, 1):
            k = peak + step
            while 0 <= k < len(left) and left[k] <= left[k - step] + 1e-9 and left[k] > 0:
                inside[k] = True
                k += step
        left[inside] = 0
    return out


def _support(curve: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Return which bins belong to the peaks: those around them that fall, and are not too low."""
    count, depths = curve.shape
    inside = np.zeros((count, depths), bool)
    rows = np.arange(count)
    inside[rows, peak] = True
    top = curve[rows, peak]
    for step in (-1, 1):
        at, live, last = peak.copy(), np.ones(count, bool), top
        for _ in range(depths):
            at = at + step
            ok = (at >= 0) & (at < depths)
            value = curve[rows, np.clip(at, 0, depths - 1)]
            live &= ok & (value >= _SUPPORT * top) & (value <= last + 1e-9)
            if not live.any():
                break
            inside[rows[live], at[live]] = True
            last = value
    return inside
