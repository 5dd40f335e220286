"""Scores of a result against the truth.

Volumes: one intensity scale is fitted per volume by least squares, the same way
for every method, because no reconstruction knows its absolute brightness; the
data range is the truth's, fixed. Points: the best one-to-one matching within a tolerance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

SCORES = ("psnr_db", "ssim", "nrmse", "pearson")


def fit_scale(result: npt.ArrayLike, truth: npt.ArrayLike, *, offset: bool = False) -> tuple[float, float]:
    """Return (a, b) that minimise ``|a * result + b - truth|^2``; b is 0 unless `offset`.

    A result that carries no signal (all zero, or constant with `offset`) gets a = 0.
    """
    x, y = _flat(result), _flat(truth)
    mx, my = (x.mean(), y.mean()) if offset else (0.0, 0.0)
    power = float(((x - mx) ** 2).mean())
    # relative test: the variance of a constant array is only zero up to rounding
    if power <= 1e-12 * float((x**2).mean()) or power == 0:
        return 0.0, float(my)
    a = float(((x - mx) * (y - my)).mean()) / power
    return a, float(my - a * mx)


def psnr_db(
    result: npt.ArrayLike, truth: npt.ArrayLike, *, data_range: float | None = None, offset: bool = False
) -> float:
    """Return the peak signal-to-noise ratio in decibel after the scale fit.

    ``20 log10(data_range) - 10 log10(mean squared error)``; infinite for a perfect result.

    Parameters
    ----------
    result, truth : array
        Same shape, any number of dims.
    data_range : float, optional
        Peak; default the truth's maximum minus minimum.
    offset : bool
        Fit an additive offset too.
    """
    x, y, span = _prepared(result, truth, data_range, offset)
    error = float(np.mean((x - y) ** 2))
    return float("inf") if error == 0 else float(20 * np.log10(span) - 10 * np.log10(error))


def nrmse(result: npt.ArrayLike, truth: npt.ArrayLike, *, offset: bool = False) -> float:
    """Return ``|a * result + b - truth| / |truth|`` (Euclidean norms) after the scale fit."""
    x, y, _ = _prepared(result, truth, 1.0, offset)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def pearson(result: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return the correlation coefficient of all voxels; 0 where one of them is constant."""
    x, y = _flat(result), _flat(truth)
    if x.shape != y.shape:
        raise RequestError("The two images have different shapes.", "Bring them onto one grid first.")
    floor = 1e-12 * max(float((x**2).mean()), 1e-300)
    x, y = x - x.mean(), y - y.mean()
    if float((x**2).mean()) <= floor or not y.any():
        return 0.0
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def ssim(
    result: npt.ArrayLike, truth: npt.ArrayLike, *, data_range: float | None = None, offset: bool = False
) -> float:
    """Return the mean structural similarity (Wang et al. 2004) after the scale fit, in 2-D or 3-D.

    The window is 7 samples wide, or the largest odd width that fits the thinnest dimension;
    single-plane dimensions are dropped.
    """
    from skimage.metrics import structural_similarity

    x, y, span = _prepared(result, truth, data_range, offset)
    x, y = np.squeeze(x), np.squeeze(y)
    if x.ndim == 0 or min(x.shape) < 3:
        raise RequestError(
            f"Structural similarity needs at least 3 samples along every axis, not {np.shape(truth)}."
        )
    window = min(7, min(x.shape) - 1 + min(x.shape) % 2)
    return float(structural_similarity(y, x, data_range=span, win_size=window))  # type: ignore[no-untyped-call]


def score_volume(
    result: npt.ArrayLike | xr.DataArray,
    truth: npt.ArrayLike | xr.DataArray,
    *,
    reference_input: npt.ArrayLike | xr.DataArray | None = None,
    data_range: float | None = None,
    offset: bool = False,
) -> dict[str, Any]:
    """Return every volume score, and the same scores of images that know nothing.

    Labelled images on different grids are compared on the truth's grid, where both are known.

    Parameters
    ----------
    result, truth : array or xarray.DataArray
        Volumes ``(z, y, x)`` or any other images of the same dims.
    reference_input : array or xarray.DataArray, optional
        What the method started from (a wide-field stack, say), scored the same way.
    data_range : float, optional
        Fixed peak; default the truth's maximum minus minimum.
    offset : bool
        Fit an additive offset beside the scale, for every image scored.

    Returns
    -------
    dict
        ``psnr_db, ssim, nrmse, pearson, scale, data_range, coverage`` (share of the truth's voxels
        compared), ``constant`` and, if given, ``input``: dicts of the four scores.
    """
    images = [result] if reference_input is None else [result, reference_input]
    aligned = [_aligned(image, truth) for image in images]
    y = aligned[0][1]
    span = float(data_range if data_range is not None else np.ptp(np.asarray(truth)))
    out = _four(aligned[0][0], y, span, offset)
    out["scale"] = fit_scale(aligned[0][0], y, offset=offset)[0]
    out["data_range"] = span
    out["coverage"] = float(y.size / np.size(truth))
    out["constant"] = _four(np.ones_like(y), y, span, offset)
    if reference_input is not None:
        out["input"] = _four(*aligned[1], span, offset)
    return out


@dataclass(frozen=True)
class PointScores:
    """How well found points meet the true ones.

    Attributes
    ----------
    rmse_z_um, rmse_y_um, rmse_x_um, rmse_3d_um : float or None
        Root mean square distance of the matched pairs; None when nothing matched.
    precision, recall : float
        Matched pairs over found points, and over true points (0 where there are none of those).
    matched, found, truth : int
        Counts.
    tolerance_um : float
        Largest distance of a pair.
    """

    rmse_z_um: float | None
    rmse_y_um: float | None
    rmse_x_um: float | None
    rmse_3d_um: float | None
    precision: float
    recall: float
    matched: int
    found: int
    truth: int
    tolerance_um: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures JSON-ready, with ``rmse_um`` per axis as a mapping too."""
        axes = {"z": self.rmse_z_um, "y": self.rmse_y_um, "x": self.rmse_x_um}
        return {"rmse_um": axes, **asdict(self)}


def pair_points(
    found: npt.ArrayLike, truth: npt.ArrayLike, tolerance_um: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return indices of the one-to-one pairs: as many as possible, then as close as possible.

    Parameters
    ----------
    found, truth : array, shape (n, 3) and (m, 3)
        Positions (z, y, x), micrometres.
    tolerance_um : float
        Points farther apart never pair.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    a, b = _points(found), _points(truth)
    if not tolerance_um > 0:
        raise RequestError("The matching tolerance must be above 0 um.", "Give, say, 5.")
    if not len(a) or not len(b):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    distance = cdist(a, b)
    # a pair out of reach costs more than any set of allowed pairs, so it is never bought for closeness
    out_of_reach = tolerance_um**2 * (min(distance.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(distance <= tolerance_um, distance**2, out_of_reach))
    near = distance[rows, columns] <= tolerance_um
    return rows[near], columns[near]


def match_points(found: npt.ArrayLike, truth: npt.ArrayLike, tolerance_um: float = 5.0) -> PointScores:
    """Score found points against true ones by the best one-to-one matching within `tolerance_um`.

    Parameters
    ----------
    found, truth : array, shape (n, 3) and (m, 3)
        Positions (z, y, x), micrometres.
    tolerance_um : float
        Points farther apart never match.

    Returns
    -------
    PointScores
    """
    a, b = _points(found), _points(truth)
    i, j = pair_points(a, b, tolerance_um)
    error = a[i] - b[j]
    z, y, x = (float(v) for v in np.sqrt((error**2).mean(0))) if len(i) else (None, None, None)
    total = float(np.sqrt((error**2).sum(1).mean())) if len(i) else None
    return PointScores(
        rmse_z_um=z,
        rmse_y_um=y,
        rmse_x_um=x,
        rmse_3d_um=total,
        precision=len(i) / len(a) if len(a) else 0.0,
        recall=len(i) / len(b) if len(b) else 0.0,
        matched=len(i),
        found=len(a),
        truth=len(b),
        tolerance_um=float(tolerance_um),
    )


def points_of(table: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Return (z, y, x) positions from a points table with ``z_um, y_um, x_um`` columns."""
    missing = [c for c in ("z_um", "y_um", "x_um") if c not in table]
    if missing:
        raise RequestError(
            f"The points table has no column {', '.join(missing)}.",
            "Its first columns must be z_um, y_um, x_um, confidence.",
        )
    return np.stack([np.asarray(table[c], float) for c in ("z_um", "y_um", "x_um")], -1)


def _aligned(
    image: npt.ArrayLike | xr.DataArray, truth: npt.ArrayLike | xr.DataArray
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if not isinstance(image, np.ndarray) and not isinstance(truth, np.ndarray):
        # plain arrays are scored on machines without xarray too
        import xarray as xr

        from napari_lfm.core.resample import resample_onto

        if isinstance(image, xr.DataArray) and isinstance(truth, xr.DataArray):
            a, b = resample_onto(image, truth)
            return a.values, b.values
    return np.asarray(image), np.asarray(truth)


def _four(result: npt.NDArray[Any], truth: npt.NDArray[Any], span: float, offset: bool) -> dict[str, Any]:
    return {
        "psnr_db": psnr_db(result, truth, data_range=span, offset=offset),
        "ssim": ssim(result, truth, data_range=span, offset=offset),
        "nrmse": nrmse(result, truth, offset=offset),
        "pearson": pearson(result, truth),
    }


def _flat(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(image, np.float64).ravel()


def _points(points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    out = np.asarray(points, np.float64)
    if out.size == 0:
        return out.reshape(0, 3)
    if out.ndim != 2 or out.shape[1] != 3:
        raise RequestError(f"Points must have shape (n, 3), not {out.shape}.", "Give z, y, x per row.")
    return out


def _prepared(
    result: npt.ArrayLike, truth: npt.ArrayLike, data_range: float | None, offset: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    x, y = np.asarray(result, np.float64), np.asarray(truth, np.float64)
    if x.shape != y.shape:
        raise RequestError(
            f"The two images have shapes {x.shape} and {y.shape}.", "Bring them onto one grid first."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise RequestError("The images contain NaN or infinite values.", "Replace them before scoring.")
    span = float(np.ptp(y)) if data_range is None else float(data_range)
    if not span > 0:
        raise RequestError("The truth is constant, so nothing can be scored against it.")
    if not y.any():
        raise RequestError("The truth is zero everywhere, so nothing can be scored against it.")
    a, b = fit_scale(x, y, offset=offset)
    return a * x + b, y, span
