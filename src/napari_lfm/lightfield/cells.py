"""The typical lenslet of a frame, its centre of symmetry, and how far each lenslet is from its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

PATCH_SPAN = 2.0
"""Width of a patch in pitches: the lenslet and half of its neighbours."""
PATCH_POINTS = 33
_FIT_SPAN = 1.1
_MAX_PATCHES = 900


@dataclass(frozen=True)
class Shifts:
    """Displacement of every lenslet from where it was looked for.

    Attributes
    ----------
    found : numpy.ndarray, shape (n, 2)
        Displacement (y, x) in px.
    error : numpy.ndarray, shape (n,)
        Standard error in px, from the misfit of the typical lenslet; infinite where there is none.
    contrast : numpy.ndarray, shape (n,)
        Contrast of each lenslet in units of the typical one.
    """

    found: np.ndarray
    error: np.ndarray
    contrast: np.ndarray


def point_px(pitch: float) -> float:
    """Return the distance of neighbouring points of a patch in px."""
    return PATCH_SPAN * pitch / (PATCH_POINTS - 1)


def patches(image: np.ndarray, centres: np.ndarray, pitch: float, points: int = PATCH_POINTS) -> np.ndarray:
    """Sample square patches of two pitches around centres (n, 2); NaN outside the frame.

    Returns
    -------
    numpy.ndarray, float32, shape (n, points, points)
    """
    offset = np.linspace(-PATCH_SPAN / 2, PATCH_SPAN / 2, points) * pitch
    y = centres[:, 0, None, None] + offset[None, :, None]
    x = centres[:, 1, None, None] + offset[None, None, :]
    y, x = np.broadcast_arrays(y, x)
    out = ndimage.map_coordinates(image, [y, x], order=1, mode="nearest", output=np.float32)
    height, width = image.shape
    out[(y < -0.5) | (y > height - 0.5) | (x < -0.5) | (x > width - 0.5)] = np.nan
    return np.asarray(out)


def typical_patch(stack: np.ndarray) -> np.ndarray:
    """Return the median patch of the lenslets that have light, zero mean.

    The median keeps what lenslets share (the disc and its dark surround), not what the specimen
    put into some of them.
    """
    whole = stack[np.isfinite(stack[:, [0, 0, -1, -1], [0, -1, 0, -1]]).all(axis=1)]
    if len(whole) < 9:  # a small frame has hardly a patch that does not touch its border
        whole = np.where(np.isfinite(stack), stack, np.nanmean(stack, axis=0, keepdims=True))
    whole = whole[:: -(-len(whole) // _MAX_PATCHES)]
    whole = whole - whole.mean(axis=(1, 2), keepdims=True)
    spread = whole.std(axis=(1, 2))
    out = np.median(whole[spread >= 0.5 * np.quantile(spread, 0.9)], axis=0)
    return np.asarray(out - out.mean())


def centre_of_symmetry(patch: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the point about which a patch looks the same when turned by 180 degrees.

    A disc behind a lenslet is symmetric whatever its profile; a centroid would follow the specimen.

    Returns
    -------
    offset : numpy.ndarray, shape (2,)
        Centre (y, x) relative to the patch's middle, in points of the patch.
    score : float
        Correlation of the patch with itself turned about that centre, at most 1.
    """
    half = (len(patch) - 1) // 2
    pitch = half / (PATCH_SPAN / 2)  # in grid steps
    # between lenslets, and between four of them, are centres of symmetry too: stay near the start
    reach = 0.3 * pitch
    grid = np.arange(-int(half - reach), int(half - reach) + 1)
    window = np.hypot(*np.meshgrid(grid, grid, indexing="ij")) <= grid[-1]
    best, score = np.zeros(2), -np.inf
    step, moves = 1.0, np.arange(-int(reach), int(reach) + 1.0)
    while step > 0.01:
        start = best
        for dy in start[0] + moves:
            for dx in start[1] + moves:
                value = _self_similarity(patch, half + dy, half + dx, grid, window)
                if value > score:
                    best, score = np.array([dy, dx]), value
        step /= 2
        moves = step * np.array([-1.0, 0.0, 1.0])
    return best, score


def alternation(stack: np.ndarray, classes: np.ndarray) -> tuple[float, int]:
    """Tell whether lenslets look alike, or only those of one class, such as every second.

    Parameters
    ----------
    stack : numpy.ndarray, shape (n, points, points)
        Patches.
    classes : numpy.ndarray, shape (n,)
        Class of each, an integer.

    Returns
    -------
    ratio : float
        Variance between the mean patches of the classes, over the variance within the mean patch of
        all. Well below 1 on the true lattice.
    brightest : int
        The class with the brightest middle.
    """
    level = np.nanmean(stack, axis=(1, 2), keepdims=True)
    values = np.nan_to_num(stack - level)
    keys = np.unique(classes)
    every = np.array([values[classes == key].mean(axis=0) for key in keys])
    middle = (stack.shape[1] - 1) // 2
    spread = every.var(axis=0).mean() / max(float(values.mean(axis=0).var()), 1e-30)
    bright = every[:, middle - 2 : middle + 3, middle - 2 : middle + 3].mean((1, 2))
    return float(spread), int(keys[int(bright.argmax())])


def _self_similarity(patch: np.ndarray, y: float, x: float, grid: np.ndarray, window: np.ndarray) -> float:
    disc = ndimage.map_coordinates(
        patch, np.meshgrid(grid + y, grid + x, indexing="ij"), order=1, mode="nearest"
    )
    here, turned = disc[window], disc[::-1, ::-1][window]
    here = here - here.mean()
    return float(here @ (turned - turned.mean()) / max(float(here @ here), 1e-30))


def measure_shifts(stack: np.ndarray, template: np.ndarray, pitch: float) -> Shifts:
    """Fit ``contrast * template(x - shift) + plane`` to every patch, robustly.

    Linear least squares in the template's gradient (Lucas & Kanade 1981); the plane takes up what
    the specimen adds; outlying pixels (dust, a bright bead) are weighted down (Huber).

    Parameters
    ----------
    stack : numpy.ndarray, shape (n, points, points)
        Patches, NaN outside the frame.
    template : numpy.ndarray, shape (points, points)
        The typical patch.
    pitch : float
        Lenslet pitch in px.
    """
    points = len(template)
    step = PATCH_SPAN * pitch / (points - 1)
    gradient_y, gradient_x = np.gradient(template, step)
    reach = round(_FIT_SPAN / PATCH_SPAN * (points - 1) / 2)
    middle = (points - 1) // 2
    crop = np.s_[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    ramp = np.linspace(-1, 1, 2 * reach + 1)
    plane_y, plane_x = np.meshgrid(ramp, ramp, indexing="ij")
    shape = template[crop]
    basis = np.stack(
        [
            b.ravel()
            for b in (shape, -gradient_y[crop], -gradient_x[crop], np.ones_like(shape), plane_y, plane_x)
        ],
        axis=1,
    )
    values = stack[(slice(None), *crop)].reshape(len(stack), -1).astype(float)
    seen = np.isfinite(values)
    values = np.where(seen, values, 0.0)
    weights = seen.astype(float)
    usable = weights.sum(axis=1) > 0.6 * basis.shape[0]
    ridge = 1e-9 * (basis * basis).sum(axis=0).max() * np.eye(basis.shape[1])
    outer = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    solution = np.zeros((len(stack), basis.shape[1]))
    normal = np.zeros((len(stack), basis.shape[1], basis.shape[1]))
    for _ in range(3):
        normal = (weights @ outer).reshape(normal.shape) + ridge
        solution = np.linalg.solve(normal, ((weights * values) @ basis)[..., None])[..., 0]
        misfit = np.abs(values - solution @ basis.T)
        misfit[~seen] = 0.0
        scale = np.median(misfit, axis=1, keepdims=True)
        for row in np.flatnonzero(usable & ~seen.all(axis=1)):  # at the border of the frame
            scale[row] = np.median(misfit[row, seen[row]])
        weights = seen / np.maximum(misfit / (1.5 * 1.4826 * scale + 1e-12), 1.0)
    contrast = solution[:, 0]
    # neighbouring points of a patch share raw pixels: count independent ones
    independent = min(1.0, (pitch * _FIT_SPAN) ** 2 / basis.shape[0])
    noise = (weights * misfit**2).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    covariance = np.linalg.inv(normal)[:, 1:3, 1:3].trace(axis1=1, axis2=2) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        found = solution[:, 1:3] / contrast[:, None]
        error = np.sqrt(noise / independent * covariance) / contrast
    # a step beyond the template's slope is not to be believed; the next iteration may see it
    lost = ~usable | (contrast < 0.1) | ~np.isfinite(error) | (np.abs(found).max(axis=1) > 0.35 * pitch)
    return Shifts(
        np.where(lost[:, None], 0.0, found), np.where(lost, np.inf, error), np.where(lost, 0, contrast)
    )
