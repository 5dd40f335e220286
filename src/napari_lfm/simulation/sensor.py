"""The lattice as it lies on a simulated sensor, and light moved from lenslet pixels to camera pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.grid import CellGrid, cell_grid
from napari_lfm.lightfield.lattice import Lattice

_SUBSAMPLES = 3


def nominal_lattice(
    lenslets: tuple[int, int],
    pitch_px: tuple[float, float],
    rotation_deg: float = 0.0,
    offset_px: tuple[float, float] = (0.0, 0.0),
    kind: str = "square",
) -> Lattice:
    """Return a lattice centred on a frame that just holds it.

    Parameters
    ----------
    lenslets : tuple of int
        (rows, columns).
    pitch_px : tuple of float
        Neighbour distance (y, x) in raw pixels; any real number.
    rotation_deg : float
        + from x towards y.
    offset_px : tuple of float
        Shift (y, x) of the lattice's centre from the frame's centre.
    kind : str
        ``square`` or ``hexagonal``.

    Returns
    -------
    Lattice
        ``source`` is ``"nominal"``; `image_shape` leaves a margin of about half a lenslet, so that
        the outermost lenslets are whole.
    """
    rows, columns = lenslets
    if min(rows, columns) < 1 or min(pitch_px) < 3:
        raise RequestError(
            f"{rows} x {columns} lenslets of {min(pitch_px):g} px cannot be simulated.",
            "Give at least 1 x 1 lenslets of at least 3 px.",
        )
    hexagonal = kind == "hexagonal"
    down, right = pitch_px[0] * (math.sqrt(3) / 2 if hexagonal else 1.0), pitch_px[1]
    cos, sin = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    row_step, column_step = np.array([cos, -sin]) * down, np.array([sin, cos]) * right
    lean = abs(sin) * max(rows * down, columns * right)
    size = [
        math.ceil((n + 0.5 * hexagonal) * p + lean + 2 * abs(o))
        for n, p, o in zip(lenslets, (down, right), offset_px, strict=True)
    ]
    middle = (np.array(size) - 1) / 2 + np.asarray(offset_px)
    last_shift = 0.25 * column_step if hexagonal else 0.0  # odd rows are half a column further
    origin = middle - (rows - 1) / 2 * row_step - (columns - 1) / 2 * column_step - last_shift
    return Lattice(
        kind="hexagonal" if hexagonal else "square",
        origin_px=(float(origin[0]), float(origin[1])),
        row_step_px=(float(row_step[0]), float(row_step[1])),
        column_step_px=(float(column_step[0]), float(column_step[1])),
        rows=rows,
        columns=columns,
        image_shape=(size[0], size[1]),
        source="nominal",
    )


def covering_grid(lattice: Lattice, n_pixels: int) -> CellGrid:
    """Return the cells, continued beyond the lattice, that cover the whole frame.

    A real array does not end where the lenslets that we keep end: the frame's borders are lit too.
    """
    step = np.stack([lattice.row_step_px, lattice.column_step_px], 1)
    h, w = lattice.image_shape
    corners = np.array([[0, 0], [h, 0], [0, w], [h, w]], float) - np.asarray(lattice.origin_px)
    index = corners @ np.linalg.inv(step).T
    low = np.floor(index.min(0) - 1).astype(int)
    low[0] -= low[0] % 2  # hexagonal: rows of both kinds keep their parity
    high = np.ceil(index.max(0) + 1).astype(int)
    rows, columns = (high - low + 1).tolist()
    origin = np.asarray(lattice.origin_px) + step @ low
    return cell_grid(
        lattice.model_copy(
            update={
                "origin_px": (float(origin[0]), float(origin[1])),
                "rows": int(rows),
                "columns": int(columns),
            }
        ),
        n_pixels,
    )


def to_camera(lenslet_image: npt.NDArray[np.floating], grid: CellGrid) -> npt.NDArray[np.float64]:
    """Integrate a lenslet image over the camera's pixels, keeping the flux.

    Parameters
    ----------
    lenslet_image : array, shape (rows * Ny, columns * Nx)
        Light per lenslet pixel, on `grid`; its pixels should be finer than the camera's.
    grid : CellGrid
        Where the lenslet pixels lie on the frame.

    Returns
    -------
    array, shape ``grid.lattice.image_shape``
        Light per camera pixel: the mean density at 3 x 3 positions inside each.
    """
    from scipy.ndimage import map_coordinates

    density = np.asarray(lenslet_image, np.float64) / grid.area_px
    h, w = grid.lattice.image_shape
    points = np.moveaxis(np.mgrid[0:h, 0:w], 0, -1).astype(float)
    inner = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    out = np.zeros((h, w))
    for dy in inner:
        for dx in inner:
            where = grid.rectified_positions(points + np.array([dy, dx]))
            out += map_coordinates(density, np.moveaxis(where, -1, 0), order=1, mode="constant")
    return out / _SUBSAMPLES**2
