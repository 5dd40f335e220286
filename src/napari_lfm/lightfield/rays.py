"""Where sources are across, to a part of a lenslet, from the rays that their depth predicts.

A source at (t, s) with slope k appears in view (v, u) at ``(t + k v, s + k u)``. Samples taken there, in
all views, add up to one small image of the source alone, sampled finer than the lenslets because
every view falls between them in another way; its centroid is where the source is.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 4
_CUT = 0.25
"""Light below this share of the patch's peak is surroundings, not source."""


def refocused_patches(
    field: np.ndarray,
    t: np.ndarray,
    s: np.ndarray,
    slope: np.ndarray,
    half: int = 2,
    reach: int | None = None,
) -> np.ndarray:
    """Return the mean over views of what lies around the predicted places.

    Parameters
    ----------
    field : ndarray, shape (v, u, t, s)
        Background removed.
    t, s : ndarray, shape (n,)
        Places in the central view, in lenslets.
    slope : ndarray, shape (n,)
        Lenslets per view.
    half : int
        Lenslets on either side.
    reach : int, optional
        Views on either side of the central one; default three quarters of all.

    Returns
    -------
    ndarray, shape (n, 2 * half + 1, 2 * half + 1)
        Centred on the places; linear between lenslets. Views in which a place lies outside do not count.
    """
    nv, nu, nt, ns = field.shape
    middle = (nv - 1) // 2, (nu - 1) // 2
    reach = max(1, round(0.75 * middle[0])) if reach is None else reach
    views = np.arange(-reach, reach + 1)
    v, u = (w.ravel() for w in np.meshgrid(views, views, indexing="ij"))
    keep = v**2 + u**2 <= (reach + 0.5) ** 2
    v, u = v[keep], u[keep]
    offset = np.arange(-half, half + 1)
    rows = (np.asarray(t)[:, None] + np.asarray(slope)[:, None] * v)[..., None] + offset  # n, views, patch
    columns = (np.asarray(s)[:, None] + np.asarray(slope)[:, None] * u)[..., None] + offset
    out = np.zeros((len(rows), len(offset), len(offset)))
    weight = np.zeros_like(out)
    low_row, low_column = np.floor(rows).astype(int), np.floor(columns).astype(int)
    at_v, at_u = (v + middle[0])[None, :, None, None], (u + middle[1])[None, :, None, None]
    for dr in (0, 1):
        for dc in (0, 1):
            r, c = low_row + dr, low_column + dc
            share_r = 1 - np.abs(rows - r)
            share_c = 1 - np.abs(columns - c)
            inside = ((r >= 0) & (r < nt))[..., :, None] & ((c >= 0) & (c < ns))[..., None, :]
            share = share_r[..., :, None] * share_c[..., None, :] * inside
            value = field[
                at_v, at_u, np.clip(r, 0, nt - 1)[..., :, None], np.clip(c, 0, ns - 1)[..., None, :]
            ]
            out += (share * value).sum(1)
            weight += share.sum(1)
    return np.asarray(out / np.where(weight > 0, weight, 1))


def refine_across(
    field: np.ndarray, t: np.ndarray, s: np.ndarray, slope: np.ndarray, half: int = 1, most: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where sources are across, by the centroid of what their rays show.

    Parameters
    ----------
    field, t, s, slope, half
        As for `refocused_patches`; a patch wider than the source takes its neighbours in, and the centroid
        goes astray.
    most : float
        Lenslets that a place may move at most: beyond lies another source.

    Returns
    -------
    t, s : ndarray, shape (n,)
    peak : ndarray, shape (n,)
        Brightness of the refocused source.
    """
    first_t, first_s = np.asarray(t, float), np.asarray(s, float)
    t, s = first_t.copy(), first_s.copy()
    offset = np.arange(-half, half + 1)
    peak = np.zeros(len(t))
    for _ in range(ROUNDS):
        patch = refocused_patches(field, t, s, slope, half)
        peak = patch.max((1, 2), initial=0.0)
        lit = np.clip(patch - _CUT * peak[:, None, None], 0, None)
        total = lit.sum((1, 2))
        safe = np.where(total > 0, total, 1)
        dt, ds = (lit.sum(2) * offset).sum(1) / safe, (lit.sum(1) * offset).sum(1) / safe
        t = np.clip(t + dt, first_t - most, first_t + most)
        s = np.clip(s + ds, first_s - most, first_s + most)
        if max(np.abs(dt).max(initial=0), np.abs(ds).max(initial=0)) < 0.005:
            break
    return t, s, peak
