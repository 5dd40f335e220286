"""Correcting a lattice by hand: nudge, turn, scale, drag a centre, fit to clicked centres.

Every function returns a new `Lattice` with ``source="manual"`` whose lenslets are again all the whole
ones inside the frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.fit import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.lightfield.lattice import Lattice

_NOTE = "The grid was corrected by hand."


def nudge(lattice: Lattice, dy_px: float, dx_px: float) -> Lattice:
    """Shift the whole lattice by (dy, dx) raw pixels."""
    geometry = Geometry.from_lattice(lattice)
    return _finished(lattice, replace(geometry, origin=geometry.origin + np.array([dy_px, dx_px])))


def rotate(lattice: Lattice, degrees: float, about_yx: tuple[float, float] | None = None) -> Lattice:
    """Turn the lattice, + from x towards y, about a raw position (the middle of the frame)."""
    angle = np.radians(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return _about(lattice, np.array([[cos, sin], [-sin, cos]]), about_yx)


def scale_pitch(lattice: Lattice, factor: float, about_yx: tuple[float, float] | None = None) -> Lattice:
    """Scale the pitch about a raw position (the middle of the frame).

    Raises
    ------
    RequestError
        If the factor is not between 0.5 and 2.
    """
    if not 0.5 <= factor <= 2:
        raise RequestError(f"The pitch cannot be scaled by {factor:g}.", "Use a factor between 0.5 and 2.")
    return _about(lattice, factor * np.eye(2), about_yx)


def move_centre(
    lattice: Lattice, index: tuple[int, int], to_yx: tuple[float, float], keep: tuple[int, int] | None = None
) -> Lattice:
    """Drag one lenslet centre to a raw position.

    Parameters
    ----------
    lattice : Lattice
        To correct.
    index : tuple of int
        Lenslet (row, column) that is dragged.
    to_yx : tuple of float
        Where its centre should be.
    keep : tuple of int, optional
        A lenslet that stays in place: the lattice turns and scales about it. Without one it is shifted.
    """
    pairs = [(index, to_yx)]
    if keep is not None and tuple(keep) != tuple(index):
        held = lattice.centres_px()[keep]
        pairs.append((keep, (float(held[0]), float(held[1]))))
    indices, places = zip(*pairs, strict=True)
    return _fit(lattice, np.array(indices), np.array(places, float))


def fit_to_points(lattice: Lattice, points_yx: Sequence[Sequence[float]]) -> Lattice:
    """Fit the lattice to centres that the user clicked, each taken for the lenslet nearest to it.

    One point shifts the lattice; two also turn and scale it; three or more that do not lie on a line
    fit both lattice vectors freely.

    Parameters
    ----------
    lattice : Lattice
        Roughly right already, by less than half a pitch at the points.
    points_yx : sequence of (y, x)
        Raw positions of lenslet centres.

    Raises
    ------
    RequestError
        Without points, or if two of them belong to the same lenslet.
    """
    points = np.asarray(points_yx, float)
    if points.ndim != 2 or points.shape[1:] != (2,) or not np.isfinite(points).all():
        raise RequestError(
            "There are no lenslet centres to fit to.", "Click on at least one lenslet's centre."
        )
    index = nearest_lenslets(lattice, points)
    if len(np.unique(index, axis=0)) < len(index):
        raise RequestError(
            "Two of the points belong to the same lenslet.", "Click on the centres of different lenslets."
        )
    return _fit(lattice, index, points)


def nearest_lenslets(lattice: Lattice, points_yx: np.ndarray) -> np.ndarray:
    """Return the index (row, column) of the lenslet nearest to every raw position (n, 2)."""
    centres = lattice.centres_px()
    distance = ((centres[None] - np.asarray(points_yx)[:, None, None]) ** 2).sum(axis=-1)
    flat = distance.reshape(len(distance), -1).argmin(axis=1)
    return np.stack(np.unravel_index(flat, centres.shape[:2]), axis=-1)


def _fit(lattice: Lattice, index: np.ndarray, places: np.ndarray) -> Lattice:
    geometry = Geometry.from_lattice(lattice)
    now = geometry.place(index)
    # the correction is a map of the frame onto itself: shift, similarity or affine, as the points allow
    middle, target = now.mean(axis=0), places.mean(axis=0)
    matrix = np.eye(2)
    spread = now - middle
    if np.linalg.matrix_rank(spread, tol=0.5 * geometry.pitch) == 2:
        matrix = np.linalg.lstsq(spread, places - target)[0].T
    elif len(index) > 1:
        a, b = (p[:, 0] + 1j * p[:, 1] for p in (spread, places - target))
        turn = (np.conj(a) @ b) / (np.conj(a) @ a)
        matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    if not 0.25 < abs(np.linalg.det(matrix)) < 4:
        raise RequestError(
            "These points do not fit the lattice.", "Check that each is on a lenslet's centre."
        )
    return _finished(lattice, _mapped(geometry, matrix, middle, target))


def _about(lattice: Lattice, matrix: np.ndarray, about_yx: tuple[float, float] | None) -> Lattice:
    centre = (np.array(lattice.image_shape) - 1) / 2 if about_yx is None else np.asarray(about_yx)
    return _finished(lattice, _mapped(Geometry.from_lattice(lattice), matrix, centre, centre))


def _mapped(geometry: Geometry, matrix: np.ndarray, source: np.ndarray, target: np.ndarray) -> Geometry:
    return replace(
        geometry,
        origin=matrix @ (geometry.origin - source) + target,
        row_step=matrix @ geometry.row_step,
        column_step=matrix @ geometry.column_step,
    )


def _finished(before: Lattice, geometry: Geometry) -> Lattice:
    after = geometry.whole_lenslets()
    if after.rows < 1 or after.columns < 1:
        raise RequestError("No whole lenslet would be left inside the frame.", "Undo the last correction.")
    warnings = (*(w for w in before.warnings if w != _NOTE), _NOTE)
    return after.model_copy(
        update={
            "source": "manual",
            "residual_px": before.residual_px,
            "confidence": before.confidence,
            "warnings": warnings,
        }
    )
