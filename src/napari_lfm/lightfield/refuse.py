"""Lattices that cannot be used, each refused in one sentence (`RequestError`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.spectrum import MIN_LENSLETS, MIN_PITCH_PX

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice

_MAX_ANISOTROPY = 0.04
_MAX_SHEAR = 0.03


def refuse_small(shape: tuple[int, ...], nominal_pitch_px: float | None) -> None:
    """Refuse a frame in which 5 x 5 lenslets of the expected (or the least) pitch have no room."""
    nominal = nominal_pitch_px
    least = MIN_LENSLETS * (nominal or MIN_PITCH_PX)
    if min(shape) < least * 0.98:
        raise RequestError(
            f"The frame of {shape[0]} x {shape[1]} pixels is smaller than {MIN_LENSLETS} x {MIN_LENSLETS} "
            + "lenslets"
            + (f" of {nominal:.1f} px." if nominal else "."),
            "Give the whole camera frame.",
        )


def refuse_few(lattice: Lattice) -> None:
    """Refuse a lattice of fewer than 5 x 5 whole lenslets."""
    if min(lattice.rows, lattice.columns) < MIN_LENSLETS:
        raise RequestError(
            f"The frame holds only {lattice.rows} x {lattice.columns} whole lenslets (pitch "
            f"{lattice.pitch_px[1]:.1f} px); at least {MIN_LENSLETS} x {MIN_LENSLETS} are needed.",
            "Give the whole camera frame.",
        )


def refuse_crooked(lattice: Lattice, source: str) -> None:
    """Refuse a lattice that no lenslet array has: unequal pitches, or rows not square to columns.

    Bright points on black repeat with a period of their own, that of their spots behind the lenslets,
    which depends on their depth; a lattice through such spots is not regular. A white frame has none: there
    the pixels are not square, or it was not recorded through the lenslets.

    Parameters
    ----------
    lattice : Lattice
        What was found.
    source : {"white", "raw"}
        On which frame.
    """
    down, right = lattice.pitch_px
    row, column = np.array(lattice.row_step_px), np.array(lattice.column_step_px)
    shear = abs(row @ column) / (np.hypot(*row) * np.hypot(*column))
    if abs(down / right - 1) > _MAX_ANISOTROPY or shear > _MAX_SHEAR:
        if source == "white":
            raise RequestError(
                f"What repeats in the white frame is {down:.1f} x {right:.1f} px apart and not regular, as "
                "no lenslet array is.",
                "Check that it was recorded through the lenslets, with the same binning along both axes, "
                "and not resized since.",
            )
        raise RequestError(
            f"No lenslet lattice was found: what repeats most is {down:.1f} x {right:.1f} px apart "
            "and not regular.",
            "Record a white frame (an even, bright field) through the lenslets, with the same binning along "
            "both axes.",
        )
