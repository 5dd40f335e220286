"""Where sources are in the central view, and the epipolar images through them.

An epipolar image (view, lenslet) through a source shows one line, whose slope says the depth
(`napari_lfm.lightfield.slopes`). Along x it is cut from the views of one row v, along y from those
of one column u; both follow the same rule, so that one dictionary and one network serve both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from skimage.feature import peak_local_max

Direction = Literal["x", "y"]
CENTRAL = 1
"""Views on either side of the central one that seeds are looked for in: less noise, next to no parallax."""


@dataclass(frozen=True)
class Seeds:
    """Sources as the central view shows them.

    Attributes
    ----------
    t, s : ndarray, shape (n,)
        Lenslet row and column, with a fraction.
    value : ndarray, shape (n,)
        Brightness there.
    """

    t: np.ndarray
    s: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.t)


def central_view(field: np.ndarray, reach: int = CENTRAL) -> np.ndarray:
    """Return the mean of the views within `reach` of the central one, shape (t, s)."""
    nv, nu = field.shape[:2]
    v, u = (nv - 1) // 2, (nu - 1) // 2
    rows = slice(max(0, v - reach), v + reach + 1)
    return np.asarray(field[rows, max(0, u - reach) : u + reach + 1].mean((0, 1)), np.float32)


def find_seeds(view: np.ndarray, threshold: float = 0.1, min_distance: int = 1) -> Seeds:
    """Return the peaks of a view, the brightest first.

    Parameters
    ----------
    view : ndarray, shape (t, s)
        Background removed.
    threshold : float
        Share of the view's brightest value below which nothing is a peak.
    min_distance : int
        Lenslets between peaks.
    """
    top = float(view.max(initial=0.0))
    if top <= 0:
        empty = np.zeros(0)
        return Seeds(empty, empty, empty)
    at: np.ndarray = peak_local_max(  # type: ignore[no-untyped-call]
        view, min_distance=min_distance, threshold_abs=threshold * top, exclude_border=False
    )
    fine = np.array([_parabola(view, *place) for place in at]).reshape(-1, 2)
    return Seeds(fine[:, 0], fine[:, 1], np.array([float(view[tuple(p)]) for p in at]))


def bright_places(view: np.ndarray, threshold: float) -> Seeds:
    """Return every lenslet of a view above a share of the brightest, the brightest first.

    Where sources overlap in the view, a weaker one is no peak, but its place is bright all the same.
    """
    top = float(view.max(initial=0.0))
    rows, columns = np.nonzero(view > max(threshold * top, 0.0))
    value = np.asarray(view[rows, columns], float)
    order = np.argsort(-value, kind="stable")
    return Seeds(rows[order].astype(float), columns[order].astype(float), value[order])


def epipolar_windows(
    field: np.ndarray,
    t: np.ndarray,
    s: np.ndarray,
    half: int,
    direction: Direction,
    view: np.ndarray | int | None = None,
) -> np.ndarray:
    """Cut the epipolar images around places of the central view.

    Parameters
    ----------
    field : ndarray, shape (v, u, t, s)
    t, s : ndarray, shape (n,)
        Places; the lenslet nearest to each is in the middle of its image.
    half : int
        Lenslets on either side of it; beyond the field there is 0.
    direction : {"x", "y"}
        ``x``: images (u, s) of the views in row v, through lenslet row t. ``y``: (v, t) through column s.
    view : int or ndarray of int, optional
        The row v (or column u) to cut from, counted from the central one; default 0.

    Returns
    -------
    ndarray, shape (n, views, 2 * half + 1), float32
    """
    if direction == "y":
        field, t, s = field.transpose(1, 0, 3, 2), s, t
    nv, _, nt, ns = field.shape
    rows, columns = np.rint(np.asarray(t)).astype(int), np.rint(np.asarray(s)).astype(int)
    chosen = np.broadcast_to(np.asarray(0 if view is None else view, int) + (nv - 1) // 2, rows.shape)
    around = columns[:, None] + np.arange(-half, half + 1)
    inside = (around >= 0) & (around < ns) & ((rows >= 0) & (rows < nt))[:, None]
    inside &= ((chosen >= 0) & (chosen < nv))[:, None]
    out = field[
        np.clip(chosen, 0, nv - 1)[:, None],
        :,
        np.clip(rows, 0, nt - 1)[:, None],
        np.clip(around, 0, ns - 1),
    ]  # n, lenslets, views
    return np.ascontiguousarray((out * inside[..., None]).transpose(0, 2, 1), np.float32)


def brightest_one(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return epipolar images divided by their brightest pixel, and what that was; dark ones stay as they are.

    Parameters
    ----------
    images : ndarray, shape (n, views, lenslets)
    """
    peak = images.max((1, 2), initial=0.0)
    return images / np.where(peak > 0, peak, 1)[:, None, None], peak


def _parabola(view: np.ndarray, row: int, column: int) -> tuple[float, float]:
    """Return where the parabolas through a peak and its neighbours have their tops."""
    out = []
    for axis, (at, line) in enumerate(((row, view[:, column]), (column, view[row]))):
        fine = float(at)
        if 0 < at < view.shape[axis] - 1:
            low, mid, high = (float(line[at + k]) for k in (-1, 0, 1))
            bend = low - 2 * mid + high
            if bend < 0:
                fine += float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))
        out.append(fine)
    return out[0], out[1]
