"""Where every pixel of a rectified lenslet image lies on the raw frame, and how it is sampled there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import nearest_odd

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice

Interpolation = Literal["cubic", "linear"]

SNAP_PX = 0.2
"""Grids that stay this close to whole raw pixels are sliced: a shift that small blurs less than
interpolating does."""


@dataclass(frozen=True)
class CellGrid:
    """A rectangular block of lattice cells, each cut into ``cell_px`` pixels; frozen and hashable.

    A cell is one lenslet of a square lattice. Of a hexagonal one it is the rectangle of one pitch by
    sqrt(3) pitches around a lenslet of an even row; it holds that lenslet and four quarters.

    Attributes
    ----------
    lattice : Lattice
        The calibrated lattice.
    cell_px : tuple of int
        Pixels per cell (Ny, Nx), both odd.
    cells : tuple of int
        Cells in this block (rows, columns).
    first_cell : tuple of int
        Index of the block's first cell in the whole lattice.
    """

    lattice: Lattice
    cell_px: tuple[int, int]
    cells: tuple[int, int]
    first_cell: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the rectified image."""
        return self.cells[0] * self.cell_px[0], self.cells[1] * self.cell_px[1]

    @property
    def cell_steps_px(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps from cell to cell along rows and columns, (y, x) in raw pixels."""
        rows_per_cell = 2 if self.lattice.kind == "hexagonal" else 1
        return rows_per_cell * np.asarray(self.lattice.row_step_px), np.asarray(self.lattice.column_step_px)

    @property
    def affine_px(self) -> np.ndarray:
        """Homogeneous matrix (3, 3) from rectified (row, col) to raw (y, x), distortion apart."""
        down, right = self.cell_steps_px
        ny, nx = self.cell_px
        first = (
            np.asarray(self.lattice.origin_px) + self.first_cell[0] * down + self.first_cell[1] * right
        ) - ((ny - 1) / 2 / ny * down + (nx - 1) / 2 / nx * right)
        out = np.eye(3)
        out[:2, 0], out[:2, 1], out[:2, 2] = down / ny, right / nx, first
        if self.is_slice:
            out[:2, 2] = np.round(first)
            out[:2, :2] = np.eye(2)
        return out

    @property
    def is_slice(self) -> bool:
        """True where the raw frame only needs cutting: integer pitch, no rotation, no distortion."""
        if self.lattice.distortion is not None:
            return False
        down, right = self.cell_steps_px
        ny, nx = self.cell_px
        # the whole lattice decides, not this block: a region must be cut like the full frame is
        rows, columns = self.lattice.rows, self.lattice.columns
        corners = np.array([[0, 0], [rows, 0], [0, columns], [rows, columns]])
        drift = corners @ np.stack([down - (ny, 0), right - (0, nx)])
        first = np.asarray(self.lattice.origin_px) - ((ny - 1) / 2 / ny * down + (nx - 1) / 2 / nx * right)
        return bool(np.abs(drift + (first - np.round(first))).max() <= SNAP_PX)

    @property
    def area_px(self) -> float:
        """Raw pixels that one rectified pixel covers."""
        return float(abs(np.linalg.det(self.affine_px[:2, :2])))

    def raw_positions(self) -> np.ndarray:
        """Return the raw position (y, x) of every rectified pixel, shape (rows*Ny, columns*Nx, 2)."""
        matrix = self.affine_px
        rows, cols = (np.arange(n, dtype=float) for n in self.shape)
        plain: np.ndarray = (
            rows[:, None, None] * matrix[:2, 0] + cols[None, :, None] * matrix[:2, 1] + matrix[:2, 2]
        )
        return plain if self.lattice.distortion is None else plain + self.lattice.distortion_px(plain)

    def rectified_positions(self, points: np.ndarray) -> np.ndarray:
        """Return the rectified (row, col) of raw positions (y, x), shape (..., 2); inverse of the above."""
        plain = np.asarray(points, float)
        if self.lattice.distortion is not None:
            plain = undistort(self.lattice, plain)
        inverse = np.linalg.inv(self.affine_px)
        return np.asarray(plain @ inverse[:2, :2].T + inverse[:2, 2])


def undistort(lattice: Lattice, points: np.ndarray) -> np.ndarray:
    """Return the positions that `lattice.distortion_px` moves onto `points` (fixed-point iteration)."""
    plain = points - lattice.distortion_px(points)
    for _ in range(8):  # displacements are a few px over a whole frame: a strong contraction
        plain = points - lattice.distortion_px(plain)
    return np.asarray(plain)


def cell_grid(
    lattice: Lattice, n_pixels: int, region_px: tuple[float, float, float, float] | None = None
) -> CellGrid:
    """Return the grid of whole cells of a lattice, or of those that touch a raw rectangle.

    Parameters
    ----------
    lattice : Lattice
        Calibrated lattice.
    n_pixels : int
        N, odd: pixels across a lenslet. Hexagonal cells get ``nearest_odd(sqrt(3) N)`` rows.
    region_px : tuple of float, optional
        ``(y0, x0, y1, x1)`` in raw pixels.

    Raises
    ------
    RequestError
        If N is not an odd number of at least 3, or the region touches no lenslet.
    """
    if n_pixels < 3 or n_pixels % 2 == 0:
        raise RequestError(
            f"{n_pixels} pixels per lenslet cannot be used.", "Give an odd number of at least 3, say 15."
        )
    hexagonal = lattice.kind == "hexagonal"
    cell_px = (nearest_odd(math.sqrt(3) * n_pixels) if hexagonal else n_pixels, n_pixels)
    cells = ((lattice.rows + 1) // 2 if hexagonal else lattice.rows, lattice.columns)
    whole = CellGrid(lattice, cell_px, cells)
    if region_px is None:
        return whole
    y0, x0, y1, x1 = region_px
    (y0, y1), (x0, x1) = sorted((y0, y1)), sorted((x0, x1))
    # cells whose rectangle meets the region's: walk the region's corners and edges in cell units
    edge = np.array([[y, x] for y in np.linspace(y0, y1, 9) for x in np.linspace(x0, x1, 9)])
    index = (whole.rectified_positions(edge) + 0.5) / cell_px
    low = np.maximum(np.floor(index.min(0) + 1e-9), 0).astype(int)
    high = np.minimum(np.ceil(index.max(0) - 1e-9), cells).astype(int)
    high = np.maximum(high, np.minimum(low + 1, cells))  # a region of no size still has its one lenslet
    if (high <= low).any() or (index.max(0) < 0).any():
        raise RequestError(
            "The region does not touch any lenslet.", "Draw it over the light-field image, or remove it."
        )
    return CellGrid(
        lattice,
        cell_px,
        (int(high[0] - low[0]), int(high[1] - low[1])),
        (int(low[0]), int(low[1])),
    )


@dataclass(frozen=True)
class Sampling:
    """How a grid samples raw frames.

    Attributes
    ----------
    operator : scipy.sparse.csr_array, shape (rows*Ny * columns*Nx, height * width), float32
        From a flat raw frame to the flat rectified image, scaled by the area ratio so that total
        counts are kept. Pixels outside the frame have weight 0.
    valid : numpy.ndarray of bool, shape (rows*Ny, columns*Nx)
        Pixels inside the frame.
    variance_factor : numpy.ndarray, float32, shape (rows*Ny, columns*Nx)
        Sum of squared weights.
    """

    operator: sparse.csr_array
    valid: np.ndarray
    variance_factor: np.ndarray


@lru_cache(maxsize=4)
def sampling_of(grid: CellGrid, interpolation: Interpolation = "linear") -> Sampling:
    """Return how `grid` samples raw frames; kept for the last few grids."""
    shape = grid.lattice.image_shape
    operator, valid, factor = interpolation_matrix(grid.raw_positions(), shape, interpolation)
    area = np.float32(grid.area_px)
    operator.data *= area
    return Sampling(operator, valid, factor * area**2)


@lru_cache(maxsize=2)
def placing_of(grid: CellGrid) -> tuple[sparse.csr_array, np.ndarray]:
    """Return the matrix from the flat rectified image to the flat raw frame, and which pixels it reaches."""
    height, width = grid.lattice.image_shape
    points = np.moveaxis(np.mgrid[0:height, 0:width], 0, -1).astype(float)
    operator, valid, _ = interpolation_matrix(grid.rectified_positions(points), grid.shape)
    operator.data /= np.float32(grid.area_px)
    return operator, valid


def interpolation_matrix(
    positions: np.ndarray, shape: tuple[int, int], interpolation: Interpolation = "cubic"
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Return the matrix that interpolates an image of `shape` at `positions` (..., 2).

    ``"cubic"`` is the Catmull-Rom kernel (Keys 1981, a = -1/2) on 4 x 4 pixels, ``"linear"`` uses
    2 x 2. Beyond the outermost pixel centres their values are repeated for half a pixel; further out
    the weights are 0 and the position is not valid.

    Returns
    -------
    matrix : scipy.sparse.csr_array, float32
    valid : numpy.ndarray of bool, shape (...)
    variance_factor : numpy.ndarray, float32, shape (...)
        Sum of squared weights.
    """
    y, x = positions[..., 0].ravel(), positions[..., 1].ravel()
    height, width = shape
    valid = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)
    rows, row_weights = _taps(np.clip(y, 0, height - 1), height, interpolation)
    cols, col_weights = _taps(np.clip(x, 0, width - 1), width, interpolation)
    row_weights[~valid] = 0
    taps = rows.shape[1] ** 2
    weights = (row_weights[:, :, None] * col_weights[:, None, :]).reshape(-1)
    columns = (rows[:, :, None] * np.int32(width) + cols[:, None, :]).reshape(-1)
    pointers = np.arange(0, taps * len(y) + 1, taps, dtype=np.int32)
    matrix = sparse.csr_array((weights, columns, pointers), shape=(len(y), height * width))
    factor = np.einsum("nk,nk->n", row_weights, row_weights)
    factor *= np.einsum("nk,nk->n", col_weights, col_weights)
    lead = positions.shape[:-1]
    return matrix, valid.reshape(lead), factor.reshape(lead)


def _taps(position: np.ndarray, size: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (n, taps) and weights that interpolate along one axis."""
    base = np.floor(position)
    f = (position - base).astype(np.float32)
    # positions on whole pixels (to rounding) must give exact values
    f[f < 1e-5] = 0.0
    f[f > 1 - 1e-5] = 1.0
    if interpolation == "linear":
        weights = np.stack([1 - f, f], axis=1)
        offsets = np.array([0, 1], np.int32)
    else:
        g = 1 - f
        weights = np.stack(
            [
                -0.5 * f * g * g,
                1 + f * f * (1.5 * f - 2.5),
                1 + g * g * (1.5 * g - 2.5),
                -0.5 * g * f * f,
            ],
            axis=1,
        )
        offsets = np.array([-1, 0, 1, 2], np.int32)
    pixels = np.clip(base.astype(np.int32)[:, None] + offsets, 0, size - 1)
    return pixels, weights
