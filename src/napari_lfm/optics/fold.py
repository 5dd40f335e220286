"""Index tables that fold the lenslet-frequency operator by the cell's symmetries.

Write ``A(f)`` for the (pixels x voxels) matrix of one lenslet frequency. A symmetry g of the cell
gives ``A(g f)[g v, g q] = A(f)[v, q]``, so one matrix serves a whole orbit of frequencies. Where the
half turn R is among the symmetries, ``conj A = R A R``, and in the parity basis (even channels, i
times odd channels) the matrix is real. Both facts are exact; nothing is approximated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.optics.symmetry import HALF_TURN, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class FrequencyFold:
    """Which half-plane frequency serves which (matrix, coset) slot, and back.

    Attributes
    ----------
    fundamental : ndarray of int, shape (F, 2)
        One frequency of each orbit.
    cosets : tuple of Operation
        Operations modulo the half turn (all of them when it is no symmetry).
    source : ndarray of int, shape (F, G)
        Flat half-plane index that fills slot (f, g).
    source_conj : ndarray of bool, shape (F, G)
        Whether that value must be conjugated.
    slot, slot_conj : ndarray, shape (Fh,)
        For each half-plane frequency, the flat slot ``f * G + g`` that holds it, and conjugation.
    """

    fundamental: np.ndarray
    cosets: tuple[Operation, ...]
    source: np.ndarray
    source_conj: np.ndarray
    slot: np.ndarray
    slot_conj: np.ndarray


def act_on_frequency(g: Operation, f: np.ndarray, period: tuple[int, int]) -> np.ndarray:
    """Return ``g f`` modulo the period; `f` has shape (..., 2)."""
    out = f[..., ::-1] if g.transpose else f
    signs = np.array([-1 if g.flip_y else 1, -1 if g.flip_x else 1])
    moved: np.ndarray = np.mod(out * signs, np.array(period))
    return moved


def half_plane_index(f: np.ndarray, period: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (flat rfft2 index, conjugate?) of full-plane frequencies `f`, shape (..., 2)."""
    width = period[1] // 2 + 1
    conj = f[..., 1] >= width
    mirrored = np.mod(-f, np.array(period))
    used = np.where(conj[..., None], mirrored, f)
    return used[..., 0] * width + used[..., 1], conj


def fold_frequencies(group: Sequence[Operation], period: tuple[int, int]) -> FrequencyFold:
    """Fold the half plane of an rfft2 of this period by `group`.

    Raises
    ------
    ValueError
        If the group transposes and the period is not square.
    """
    if any(g.transpose for g in group) and period[0] != period[1]:
        raise ValueError("a transposing symmetry needs a square period")
    width = period[1] // 2 + 1
    grid = np.stack(np.meshgrid(np.arange(period[0]), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    real = HALF_TURN in group
    cosets = _cosets(group) if real else tuple(group)
    flats = []
    for g in group:
        moved = act_on_frequency(g, grid, period)
        flats.append(moved[:, 0] * period[1] + moved[:, 1])
    if not real:  # the data are real all the same, but the matrix of -f is not that of f
        canonical = np.arange(len(grid))
        fundamental = grid
        member = canonical
    else:
        canonical = np.min(np.stack(flats), 0)
        unique, member = np.unique(canonical, return_inverse=True)
        fundamental = np.stack([unique // period[1], unique % period[1]], -1)
    slots = [act_on_frequency(g, fundamental, period) for g in cosets]
    source, conj = zip(*(half_plane_index(s, period) for s in slots), strict=True)
    slot = np.full(len(grid), -1)
    slot_conj = np.zeros(len(grid), bool)
    for k in range(len(cosets)):
        full = slots[k][member]
        same = np.all(full == grid, -1) & (slot < 0)
        slot[same] = member[same] * len(cosets) + k
        negative = np.all(np.mod(-full, np.array(period)) == grid, -1) & (slot < 0)
        slot[negative] = member[negative] * len(cosets) + k
        slot_conj[negative] = True
    assert (slot >= 0).all(), "every frequency must belong to an orbit"
    return FrequencyFold(
        fundamental, tuple(cosets), np.stack(source, -1), np.stack(conj, -1), slot, slot_conj
    )


def _cosets(group: Sequence[Operation]) -> tuple[Operation, ...]:
    """One operation of each pair {g, half turn after g}."""
    kept: list[Operation] = []
    for g in group:
        opposite = Operation(g.transpose, not g.flip_y, not g.flip_x)
        if opposite not in kept:
            kept.append(g)
    return tuple(kept)
