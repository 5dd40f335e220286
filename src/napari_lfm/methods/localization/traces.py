"""What every neuron did in a movie: the light of its footprint in each frame, its neighbours' taken out.

A footprint is where a neuron lies in every view: a disc along its rays (`napari_lfm.lightfield.rays`). All
footprints and the background are fitted to each frame at once, so that light in the overlap of two goes to
the one that it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BASELINE_PERCENTILE = 20.0
_HALF = 3


def footprints(
    shape: tuple[int, int, int, int],
    t: np.ndarray,
    s: np.ndarray,
    slope: np.ndarray,
    width: float | np.ndarray,
    shading: np.ndarray | None = None,
) -> np.ndarray:
    """Return where neurons lie in a light field, each with a sum of 1.

    Parameters
    ----------
    shape : tuple of int
        (v, u, t, s).
    t, s, slope : ndarray, shape (n,)
        Places in the central view, lenslets, and lenslets per view.
    width : float or ndarray
        Standard deviation of the disc, lenslets.
    shading : ndarray, shape (v, u), optional
        Brightness of every view.

    Returns
    -------
    ndarray, shape (n, v, u, t, s), float32
    """
    nv, nu, nt, ns = shape
    v, u = np.arange(nv) - (nv - 1) // 2, np.arange(nu) - (nu - 1) // 2
    out = np.zeros((len(t), *shape), np.float32)
    rows, columns = np.arange(nt), np.arange(ns)
    wide = np.broadcast_to(np.asarray(width, float), (len(t),))
    for k in range(len(t)):
        # a Gaussian is the product of its rows and columns, view by view
        down = np.exp(-((rows - t[k] - slope[k] * v[:, None]) ** 2) / 2 / wide[k] ** 2)
        along = np.exp(-((columns - s[k] - slope[k] * u[:, None]) ** 2) / 2 / wide[k] ** 2)
        one = down[:, None, :, None] * along[None, :, None, :]
        if shading is not None:
            one = one * shading[:, :, None, None]
        out[k] = one / max(float(one.sum()), 1e-12)
    return out


def unmix(
    frames: Iterable[np.ndarray], marks: np.ndarray, background: np.ndarray
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield every frame's light of each neuron (n,) and of the background.

    Parameters
    ----------
    frames : iterable of ndarray, shape (v, u, t, s)
    marks : ndarray, shape (n, v, u, t, s)
        From `footprints`.
    background : ndarray, shape (v, u, t, s)
        Its pattern, e.g. from `napari_lfm.lightfield.purify.split_background` of the mean frame.
    """
    level = max(float(background.sum()), 1e-12)
    columns = np.concatenate([marks.reshape(len(marks), -1), background.reshape(1, -1) / level])
    # least squares over the pixels that some footprint covers: elsewhere only the background is told
    gram = columns @ columns.T
    scale = np.sqrt(np.diag(gram)).clip(1e-12)
    normal = gram / scale[:, None] / scale + 1e-6 * np.eye(len(gram))
    for frame in frames:
        right = columns @ np.asarray(frame, np.float32).ravel() / scale
        found = np.linalg.solve(normal, right) / scale
        yield found[:-1], float(found[-1])


def relative_change(traces: np.ndarray, percentile: float = BASELINE_PERCENTILE) -> np.ndarray:
    """Return dF/F: the change over a neuron's own resting light.

    Parameters
    ----------
    traces : ndarray, shape (frames, n)
    percentile : float
        Of a trace, which is its resting light.

    Returns
    -------
    ndarray, shape (frames, n)
        Not a number where a neuron has no resting light.
    """
    rest = np.percentile(traces, percentile, axis=0)
    top = np.abs(traces).max(0, initial=0.0)
    return np.asarray((traces - rest) / np.where(rest > 1e-6 * top, rest, np.nan))
