"""Bright dots in a volume: the demo's points, until a method localises them better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_lfm.core.labelled import affine_of, spacing_of

if TYPE_CHECKING:
    import xarray as xr

_MERGE_UM = (2.5, 0.8)


def find_spots(
    volume: xr.DataArray, *, size_um: float = 0.6, ring_um: float = 2.2, contrast: float = 4.0
) -> pd.DataFrame:
    """Return local maxima that stand alone in the focal plane.

    A maximum counts when it is `contrast` times as bright as the 80th percentile of a ring around it: a
    membrane runs through the ring, a bead does not. Its position is the centroid of the voxels
    next to it. Maxima one above the other become one: near the native plane a light field tells +z from
    -z poorly, and a bead shows on both sides of it.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x``, micrometres.
    size_um : float
        Lateral smoothing (full width) before the search.
    ring_um : float
        Radius of the ring.
    contrast : float
        Smallest ratio of a dot to its ring.

    Returns
    -------
    pandas.DataFrame
        ``z_um, y_um, x_um, confidence``, the most certain first; confidence is ``1 - contrast / ratio``.
    """
    from scipy.ndimage import gaussian_filter, percentile_filter
    from skimage.feature import peak_local_max

    volume = volume.transpose("z", "y", "x")
    step = spacing_of(volume)
    lateral = (step["y"] + step["x"]) / 2
    data = np.asarray(volume.values, np.float32)
    smooth = gaussian_filter(data, (0.5, *(size_um / 2.355 / step[d] for d in "yx")))
    reach = max(2, round(ring_um / lateral))
    yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    ring = (np.hypot(yy, xx) <= reach) & (np.hypot(yy, xx) > reach - 1.5)
    around = percentile_filter(smooth, 80, footprint=ring[None])
    apart = max(1, round(0.8 / lateral))
    near = np.ones((3, 2 * apart + 1, 2 * apart + 1), bool)
    peaks = peak_local_max(smooth, footprint=near, exclude_border=(0, 2, 2))  # type: ignore[no-untyped-call]
    at = tuple(peaks.T)
    # a thousandth of the brightest voxel keeps the ratio finite in the dark
    ratio = smooth[at] / np.maximum(around[at], 1e-3 * smooth.max())
    keep = ratio > contrast
    matrix = affine_of(volume)
    places = [matrix[:3, :3] @ _centroid(smooth, p) + matrix[:3, 3] for p in peaks[keep]]
    world, light, ratio = _merged(np.reshape(places, (-1, 3)), smooth[at][keep], ratio[keep])
    out = pd.DataFrame(world, columns=["z_um", "y_um", "x_um"])
    out["confidence"] = 1 - contrast / ratio
    out["brightness"] = light
    return out.sort_values("confidence", ascending=False, ignore_index=True)


def _centroid(data: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Return the centroid of the 3 x 3 x 3 voxels around a peak, above their minimum."""
    box = tuple(slice(max(p - 1, 0), p + 2) for p in peak)
    part = data[box] - data[box].min()
    total = float(part.sum())
    if total <= 0:
        return np.asarray(peak, float)
    grid = np.indices(part.shape) + np.array([s.start for s in box]).reshape(3, 1, 1, 1)
    return np.asarray((grid * part).sum((1, 2, 3)) / total)


def _merged(
    places: np.ndarray, light: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge maxima that lie one above the other; positions are weighted by brightness."""
    left = list(np.argsort(-light))
    out: list[tuple[np.ndarray, float, float]] = []
    while left:
        first = left[0]
        away = np.abs(places[left] - places[first])
        one = (away[:, 0] < _MERGE_UM[0]) & (np.hypot(away[:, 1], away[:, 2]) < _MERGE_UM[1])
        group = [k for k, same in zip(left, one, strict=True) if same]
        left = [k for k, same in zip(left, one, strict=True) if not same]
        weight = light[group] / light[group].sum()
        out.append((weight @ places[group], float(light[group].max()), float(ratio[group].max())))
    if not out:
        return np.empty((0, 3)), np.empty(0), np.empty(0)
    merged = [np.array(column) for column in zip(*out, strict=True)]
    return merged[0], merged[1], merged[2]
