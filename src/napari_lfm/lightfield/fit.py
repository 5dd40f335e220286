"""Fitting a lattice to lenslet centres: two vectors and an offset, robustly, and a smooth distortion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.lightfield.lattice import Lattice, distortion_terms

if TYPE_CHECKING:
    from napari_lfm.lightfield.spectrum import Kind

EDGE_TOLERANCE_PX = 0.5
"""A lenslet is whole if no more than this much of its cell is outside the frame."""


@dataclass(frozen=True)
class Geometry:
    """A lattice without borders: where lenslet (i, j) is, for any i and j, in raw pixels (y, x).

    The same convention as `Lattice`; ``distortion`` has shape (2, 7) or is None.
    """

    kind: Kind
    origin: np.ndarray
    row_step: np.ndarray
    column_step: np.ndarray
    image_shape: tuple[int, int]
    distortion: np.ndarray | None = None

    @classmethod
    def from_lattice(cls, lattice: Lattice) -> Geometry:
        """Return the borderless geometry of a lattice."""
        return cls(
            lattice.kind,
            np.asarray(lattice.origin_px),
            np.asarray(lattice.row_step_px),
            np.asarray(lattice.column_step_px),
            lattice.image_shape,
            None if lattice.distortion is None else np.asarray(lattice.distortion),
        )

    @property
    def pitch(self) -> float:
        """Mean distance of neighbouring lenslets in px."""
        down = np.hypot(*self.row_step) * (2 / np.sqrt(3) if self.kind == "hexagonal" else 1)
        return float((down + np.hypot(*self.column_step)) / 2)

    def place_undistorted(self, index: np.ndarray) -> np.ndarray:
        """Return the centres of lenslets `index` (..., 2), rows i and columns j, before distortion."""
        steps = np.stack([self.row_step, self.column_step])
        return np.asarray(self.origin + _half_shifted(index, self.kind) @ steps)

    def place(self, index: np.ndarray) -> np.ndarray:
        """Return the centres of lenslets `index` (..., 2)."""
        plain = self.place_undistorted(index)
        if self.distortion is None:
            return plain
        return np.asarray(plain + distortion_terms(plain, self.image_shape) @ self.distortion.T)

    def half_cell(self) -> np.ndarray:
        """Return half the height and width of the box around one lenslet."""
        if self.kind == "hexagonal":
            return np.full(2, self.pitch / 2)
        return np.asarray((np.abs(self.row_step) + np.abs(self.column_step)) / 2)

    def whole_lenslets(self) -> Lattice:
        """Return the largest lattice of whole lenslets inside the frame; it may have 0 rows."""
        starts = [(0, 0), (1, 0)] if self.kind == "hexagonal" else [(0, 0)]
        best = (0, 0, 0, 0, self)
        for start in starts:  # a hexagonal lattice may begin with either kind of row
            moved = replace(self, origin=self.place_undistorted(np.array(start)))
            i0, j0, rows, columns = _largest_block(moved)
            if rows * columns > best[2] * best[3]:
                best = (i0, j0, rows, columns, moved)
        i0, j0, rows, columns, geometry = best
        origin = geometry.place_undistorted(np.array([i0, j0]))
        bend = self.distortion
        return Lattice(
            kind=self.kind,
            origin_px=_pair(origin),
            row_step_px=_pair(self.row_step),
            column_step_px=_pair(self.column_step),
            rows=rows,
            columns=columns,
            image_shape=self.image_shape,
            distortion=None if bend is None else (tuple(map(float, bend[0])), tuple(map(float, bend[1]))),
        )


@dataclass(frozen=True)
class Fit:
    """A robust fit of a geometry to measured centres.

    Attributes
    ----------
    geometry : Geometry
        The fitted lattice.
    residual : numpy.ndarray, shape (n, 2)
        Measured minus fitted centre in px.
    weight : numpy.ndarray, shape (n,)
        0 (rejected or unmeasured) to 1.
    centre_error : float
        Standard error of a fitted centre at the corners of the field, px: the worst place.
    """

    geometry: Geometry
    residual: np.ndarray
    weight: np.ndarray
    centre_error: float

    @property
    def rms(self) -> float:
        """Root mean square distance of inliers from their fitted centres, px."""
        inlier = self.weight > 0
        if not inlier.any():
            return float("inf")
        return float(np.sqrt((self.residual[inlier] ** 2).sum(axis=1).mean()))


def fit_geometry(
    index: np.ndarray,
    centres: np.ndarray,
    start: Geometry,
    error: np.ndarray | None = None,
    *,
    distortion: bool = False,
) -> Fit:
    """Fit two lattice vectors and an offset (and a distortion) to centres by reweighted least squares.

    Parameters
    ----------
    index : numpy.ndarray, shape (n, 2)
        Lenslet (i, j) of every centre.
    centres : numpy.ndarray, shape (n, 2)
        Measured (y, x) in px.
    start : Geometry
        Gives kind, frame and, for the distortion's terms, approximate places.
    error : numpy.ndarray, shape (n,), optional
        Standard error of each centre in px; infinite for those to leave out.
    distortion : bool
        Also fit the polynomial of `Lattice.distortion_px`.
    """
    error = np.full(len(index), 0.1) if error is None else error
    middle = index[np.isfinite(error)].mean(axis=0) if np.isfinite(error).any() else np.zeros(2)
    shifted = _half_shifted(index, start.kind)
    design = np.column_stack([np.ones(len(index)), shifted - middle])
    if distortion:
        design = np.column_stack(
            [design, distortion_terms(start.place_undistorted(index), start.image_shape)]
        )
    # a floor on the error: lenslets differ by more than their noise
    floor = max(0.03, 0.1 * float(np.median(error[np.isfinite(error)])) if np.isfinite(error).any() else 1.0)
    prior = np.where(np.isfinite(error), floor**2 / (error**2 + floor**2), 0.0)
    weight = prior.copy()
    solution = np.zeros((design.shape[1], 2))
    for _ in range(12):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, centres * root)[0]
        residual = centres - design @ solution
        distance = np.hypot(*residual.T)
        scale = max(1.5 * float(np.median(distance[prior > 0])) if (prior > 0).any() else 1.0, 1e-6)
        tukey = np.clip(1 - (distance / (2 * scale)) ** 2, 0, None) ** 2
        previous, weight = weight, prior * tukey
        if np.abs(weight - previous).max() < 1e-4:
            break
    origin = solution[0] - middle @ solution[1:3]
    bend = solution[3:].T if distortion else None
    geometry = Geometry(start.kind, origin, solution[1], solution[2], start.image_shape, bend)
    normal = np.linalg.pinv((design * weight[:, None]).T @ design)
    spread = (weight[:, None] * residual**2).sum() / 2 / max(weight.sum() - design.shape[1], 1.0)
    worst = np.einsum("ij,jk,ik->i", design, normal, design).max()
    return Fit(geometry, residual, weight, float(np.sqrt(worst * spread)))


def _largest_block(geometry: Geometry) -> tuple[int, int, int, int]:
    """Return first row, first column, rows, columns of the largest block of whole lenslets."""
    height, width = geometry.image_shape
    corners = np.array([[0, 0], [0, width], [height, 0], [height, width]]) - geometry.origin
    reach = corners @ np.linalg.inv(np.stack([geometry.row_step, geometry.column_step]))
    low, high = np.floor(reach.min(0)).astype(int) - 2, np.ceil(reach.max(0)).astype(int) + 2
    low[0] -= low[0] % 2  # an even first row keeps the half shifts of a hexagonal lattice
    i, j = np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)
    centres = geometry.place(np.stack(np.meshgrid(i, j, indexing="ij"), axis=-1))
    margin = geometry.half_cell() - EDGE_TOLERANCE_PX - 0.5
    inside = np.all((centres >= margin) & (centres <= np.array([height, width]) - 1 - margin), axis=-1)
    # whole lenslets of a row are an interval, the frame being convex: intersect intervals of rows
    full = inside.any(axis=1)
    first = np.where(full, inside.argmax(axis=1), len(j))
    last = np.where(full, len(j) - 1 - inside[:, ::-1].argmax(axis=1), -1)
    best = (0, 0, 0, 0)
    for top in range(0, len(i), 2 if geometry.kind == "hexagonal" else 1):
        start = np.maximum.accumulate(first[top:])
        count = np.maximum(np.minimum.accumulate(last[top:]) - start + 1, 0)
        area = count * np.arange(1, len(count) + 1)
        k = int(area.argmax())
        if area[k] > best[2] * best[3]:
            best = (int(i[top]), int(j[start[k]]), k + 1, int(count[k]))
    return best


def _half_shifted(index: np.ndarray, kind: Kind) -> np.ndarray:
    """Return lattice coordinates of lenslets (i, j): odd hexagonal rows stand half a column further."""
    out = np.array(index, float)
    if kind == "hexagonal":
        out[..., 1] += 0.5 * (np.round(out[..., 0]) % 2)
    return out


def _pair(vector: np.ndarray) -> tuple[float, float]:
    return float(vector[0]), float(vector[1])
