"""Which lattice, and which of its symmetric places, is that of the lenslets.

The spectrum tells the lattice up to two mistakes, which are mended here: it may be that of the
pattern's harmonics, finer than the lenslets' own; and its phase may point between the lenslets, where
a pattern of overlapping discs is symmetric too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_lfm.lightfield.cells import alternation, patches, typical_patch
from napari_lfm.lightfield.fit import Geometry

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice

MAX_ALTERNATION = 0.5
"""Lenslets that differ more than this, relative to a disc's contrast, are not all lenslets."""
FEW = 400
_CELL_POINTS = 36
# where a hexagonal pattern is symmetric without being at a lenslet: halfway to three neighbours, and
# amid three lenslets; in neighbour steps (a, b) 60 degrees apart
_OTHER_PLACES = [(1 / 2, 0), (0, 1 / 2), (1 / 2, 1 / 2), (1 / 3, 1 / 3), (2 / 3, 2 / 3)]
# coarser hexagonal lattices: one neighbour step of theirs, (a, b), and how many of ours share one of theirs
_COARSER = [((1, 1), 3), ((2, 0), 4), ((2, 1), 7), ((1, 2), 7), ((3, 0), 9)]


def some_lenslets(lattice: Lattice, most: int | None) -> np.ndarray:
    """Return the indices (n, 2) of all lenslets, or of `most` of them spread at random."""
    index = np.moveaxis(np.mgrid[: lattice.rows, : lattice.columns], 0, -1).reshape(-1, 2)
    if most is not None and len(index) > most:
        index = index[np.sort(np.random.default_rng(0).permutation(len(index))[:most])]
    return np.asarray(index)


def widened(light: np.ndarray, geometry: Geometry) -> Geometry:
    """Return the lattice itself, or that of every second, third or seventh place if only those are lenslets.

    With few lenslets in the frame the spectrum's lowest peaks drown in the specimen's, and the lattice
    of its harmonics, half as wide, is found.

    Parameters
    ----------
    light : numpy.ndarray
        Frame (y, x), as `log_light` returns it.
    geometry : Geometry
        A first guess.
    """
    lattice = geometry.whole_lenslets()
    if min(lattice.rows, lattice.columns) < 3:
        return geometry
    start = Geometry.from_lattice(lattice)
    index = some_lenslets(lattice, FEW)
    stack = patches(light, start.place(index), geometry.pitch)
    if geometry.kind == "hexagonal":
        return _widened_hexagonal(stack, index, start) or geometry
    for period in (2, 3):
        classes = index % period @ [period, 1]
        ratio, brightest = alternation(stack, classes)
        if ratio > MAX_ALTERNATION:
            return replace(
                start,
                origin=start.place(np.array(divmod(brightest, period))),
                row_step=period * start.row_step,
                column_step=period * start.column_step,
            )
    return geometry


def _widened_hexagonal(stack: np.ndarray, index: np.ndarray, start: Geometry) -> Geometry | None:
    j, i = index[:, 1] - index[:, 0] // 2, index[:, 0]  # in neighbour steps a, b
    ratios = []
    for (m, n), count in _COARSER:
        if n == 0:
            classes = j % m + m * (i % m)
        else:  # the linear form, modulo their number, that is 0 on the coarser lattice
            factor = next(k for k in range(count) if (m + k * n) % count == 0)
            classes = (j + factor * i) % count
        ratios.append(alternation(stack, classes)[0])
    if max(ratios) <= MAX_ALTERNATION:
        return None
    # the fewest classes that tell the lenslets apart nearly as well as any
    m, n = next(steps for (steps, _), r in zip(_COARSER, ratios, strict=True) if r > 0.7 * max(ratios))
    b = start.row_step + start.column_step / 2
    # of six neighbours, the one most along x is the column step
    around = [_turned(m * start.column_step + n * b, k * np.pi / 3) for k in range(6)]
    column = max(around, key=lambda s: max(s[1], s[0] * 0.999))
    return replace(start, row_step=_turned(column, np.pi / 2) * np.sqrt(3) / 2, column_step=column)


def at_six_fold(light: np.ndarray, geometry: Geometry) -> tuple[Geometry, float]:
    """Put the origin of a hexagonal lattice where the frame is alike when turned by 60 degrees.

    That is one place per lenslet: a bridge between two lenslets, which may be brighter than
    the lenslets where their discs overlap, is alike only when turned by 180 degrees, and the hole amid
    three only by 120.

    Parameters
    ----------
    light : numpy.ndarray
        Frame (y, x), as `log_light` returns it.
    geometry : Geometry
        A hexagonal lattice; its origin may be anywhere.

    Returns
    -------
    geometry : Geometry
        With the origin at the best place, to a small part of the pitch.
    margin : float
        Correlation of the typical cell with itself turned there, minus the same at the best of the
        bridges and holes: about 1 where it is clear, 0 where the place is undecided.
    """
    lattice = geometry.whole_lenslets()
    if min(lattice.rows, lattice.columns) < 3:
        return geometry, 1.0
    start = Geometry.from_lattice(lattice)
    a = start.column_step
    b = start.row_step + a / 2
    # in a cell sampled along a and b, a turn by 60 degrees only permutes the points
    n = _CELL_POINTS
    r, q = np.mgrid[:n, :n]
    offset = (q[..., None] * a + r[..., None] * b) / n
    points = start.place(some_lenslets(lattice, FEW))[:, None, None] + offset
    stack = ndimage.map_coordinates(light, np.moveaxis(points, -1, 0), order=1, mode="nearest")
    outside = (points < -0.5) | (points > np.array(light.shape) - 0.5)
    stack[outside.any(axis=-1)] = np.nan
    cell = typical_patch(stack)
    cell = cell / max(float(cell.std()), 1e-12)
    turned = cell[(q + r) % n, -r % n]  # a becomes b, b becomes b - a
    spectrum = np.conj(np.fft.fft2(cell)) * np.fft.fft2(turned)
    shifted = np.fft.ifft2(spectrum).real / n**2
    # to turn about s is to turn about the origin and to shift: one correlation gives all s
    alike = shifted[-(q + r) % n, r]
    best = np.array(np.unravel_index(alike.argmax(), alike.shape))  # (r, q)
    others = (best + np.round(n * np.array(_OTHER_PLACES)).astype(int)[:, ::-1]) % n
    margin = float(alike.max() - alike[tuple(others.T)].max())
    return replace(start, origin=start.origin + (best[1] * a + best[0] * b) / n), margin


def _turned(step: np.ndarray, angle: float) -> np.ndarray:
    """Return a step (y, x) turned from x towards y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * step[0] + sin * step[1], cos * step[1] - sin * step[0]])
