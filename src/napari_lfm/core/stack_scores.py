"""Scores of stacks that are scaled to 0..1 already: no scale is fitted, as papers on restoration do it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MOST_PLANES = 16


def stack_scores(
    result: npt.ArrayLike, truth: npt.ArrayLike, most_planes: int | None = _MOST_PLANES
) -> dict[str, float]:
    """Return ``rmse``, ``ssim`` and ``psnr_db`` of a stack, both clipped to 0..1.

    Parameters
    ----------
    result, truth : array, shape (z, y, x)
    most_planes : int, optional
        Planes, evenly spaced, that the structural similarity (Wang et al. 2004, two-dimensional, window 7) is
        taken of; None: all.

    Returns
    -------
    dict
        Root mean square error and similarity with a data range of 1; the mean over planes.
    """
    from skimage.metrics import structural_similarity

    a, b = (np.clip(np.asarray(v, np.float32), 0, 1) for v in (result, truth))
    rmse = float(np.sqrt(np.mean((a - b) ** 2, dtype=np.float64)))
    count = len(b) if most_planes is None else min(len(b), most_planes)
    planes = np.unique(np.linspace(0, len(b) - 1, count).round().astype(int))
    window = min(7, min(b.shape[1:]) - 1 + min(b.shape[1:]) % 2)
    similar = [
        float(structural_similarity(b[k], a[k], data_range=1.0, win_size=window))  # type: ignore[no-untyped-call]
        for k in planes
    ]
    return {
        "rmse": rmse,
        "ssim": float(np.mean(similar)),
        "psnr_db": float(-20 * np.log10(max(rmse, 1e-9))),
    }
