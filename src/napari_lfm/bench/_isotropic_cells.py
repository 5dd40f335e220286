"""Whether nuclei are found in a restored stack as in the truth: a standard watershed, against given labels.

The check of Weigert et al. (MICCAI 2017): the same segmentation, with the same settings, of the truth, of the
interpolated stack and of the restored one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from napari_lfm.bench._isotropic_quality import best_richardson_lucy
from napari_lfm.bench._isotropic_scenes import SEED, SHAPE, drawn, labels_of, recorded, scene_of
from napari_lfm.bench._isotropic_ways import cubic, learnt, new_task, patches_of, restored, wish_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str], None]

FACTORS = (4, 6, 8)
STEPS = 400
SMOOTH_PX, APART_PX, LEAST_VOXELS = 1.0, 9, 500


def segmentation(
    say: Say = lambda _: None,
    factors: tuple[int, ...] = FACTORS,
    steps: int = STEPS,
    shape: tuple[int, int, int] = SHAPE,
    patch_px: int = 64,
) -> dict[str, Any]:
    """Return adjusted Rand index and mean intersection over union of nuclei, by way and anisotropy.

    Returns
    -------
    dict
        ``nuclei`` (how many are given); ``rows``: ``factor``, ``way`` (truth, cubic, richardson-lucy,
        network), ``rand``, ``iou``, ``found``.
    """
    scene = scene_of("nuclei", SEED + 1, shape)
    labels, volume = labels_of(scene, shape), drawn(scene, shape)
    rows = []
    for factor in factors:
        case = recorded("nuclei", volume, factor)
        given = labels[: len(case.truth)]
        say(f"nuclei, every {factor}th plane: our network, {steps} steps")
        wish = wish_of(steps=steps, patch_px=patch_px, validate_every_steps=max(1, steps // 20))
        network = learnt(new_task(patches_of(case, wish), wish), wish).network
        ways = {
            "truth": case.truth,
            "cubic": cubic(case),
            "richardson-lucy": best_richardson_lucy(case)[1],
            "network": restored(network, case),
        }
        for way, stack in ways.items():
            found = watershed_of(stack)
            rows.append({"factor": factor, "way": way, **agreement(found, given)})
    return {"nuclei": int(labels.max()), "rows": rows}


def watershed_of(stack: np.ndarray) -> np.ndarray:
    """Return labels of nuclei: Otsu's threshold, distance to the background, watershed from its peaks."""
    smooth = gaussian_filter(stack, SMOOTH_PX)
    # a few bright voxels must not lift the threshold above dim nuclei
    level = threshold_otsu(np.minimum(smooth, np.percentile(smooth, 99)))  # type: ignore[no-untyped-call]
    inside = smooth > level
    inside = ndimage.binary_fill_holes(inside)
    depth = gaussian_filter(ndimage.distance_transform_edt(inside).astype(np.float32), 2.0)
    at = peak_local_max(  # type: ignore[no-untyped-call]
        depth, min_distance=APART_PX, labels=inside.astype(np.int32), exclude_border=False
    )
    seeds = np.zeros(stack.shape, np.int32)
    seeds[tuple(at.T)] = np.arange(1, len(at) + 1)
    found = np.asarray(watershed(-depth, seeds, mask=inside), np.int32)  # type: ignore[no-untyped-call]
    small = np.bincount(found.ravel()) < LEAST_VOXELS
    return np.where(small[found], 0, found)


def agreement(found: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """Return how far labels agree with given ones.

    Returns
    -------
    dict
        ``rand``: adjusted Rand index of voxels that are a nucleus in either (Hubert and Arabie, J. Classif.
        2, 193 (1985)); ``iou``: intersection over union of every given nucleus with the label that overlaps
        it most, mean; ``found``: share of the given ones with more than 0.5.
    """
    table = overlaps(found, given)
    sizes = table.sum(0)
    both = table[1:, 1:]
    union = table.sum(1)[1:, None] + sizes[None, 1:] - both
    iou = (both / np.maximum(union, 1)).max(0) if both.shape[0] else np.zeros(both.shape[1])
    known = sizes[1:] >= LEAST_VOXELS
    return {
        "rand": adjusted_rand(table),
        "iou": float(iou[known].mean()),
        "found": float((iou[known] > 0.5).mean()),
    }


def overlaps(found: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return how many voxels have label i in `found` and j in `given`, shape (i, j), float64."""
    size = int(found.max()) + 1, int(given.max()) + 1
    flat = found.ravel().astype(np.int64) * size[1] + given.ravel()
    return np.bincount(flat, minlength=size[0] * size[1]).reshape(size).astype(np.float64)


def adjusted_rand(table: np.ndarray) -> float:
    """Return the adjusted Rand index of a table of overlaps, without what is background in both."""
    table = table.copy()
    table[0, 0] = 0
    total = table.sum()

    def pairs(n: np.ndarray) -> float:
        return float((n * (n - 1) / 2).sum())

    same, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = rows * columns / max(total * (total - 1) / 2, 1.0)
    return float((same - chance) / max((rows + columns) / 2 - chance, 1e-12))
