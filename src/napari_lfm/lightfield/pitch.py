"""The measured lenslet pitch against what the microscope should give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import Problem
from napari_lfm.optics.microscope import nearest_odd

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

ACCEPTED_DEVIATION = 0.05


def pixels_per_lenslet(lattice: Lattice) -> int:
    """Return N, the odd integer nearest to the measured pitch."""
    return nearest_odd(float(np.mean(lattice.pitch_px)))


def check_pitch(lattice: Lattice, microscope: Microscope) -> list[Problem]:
    """Compare the pitch that was measured with what the microscope should give.

    Returns
    -------
    list of Problem
        Empty for a match within 0.5 %; an ``info`` within 5 %; an ``error`` beyond, or where the
        lattice is of the other kind.
    """
    nominal = microscope.nominal_pitch_px
    if nominal is None or microscope.lenslets is None:
        return [
            Problem(
                f"The microscope '{microscope.name}' has no lenslet array.",
                "Choose a light-field microscope.",
                field="microscope",
            )
        ]
    down, right = lattice.pitch_px
    seen = f"{(down + right) / 2:.2f} px"
    if lattice.kind != microscope.lenslets.lattice:
        return [
            Problem(
                f"The lenslets stand in a {lattice.kind} lattice (pitch {seen}), but those of "
                f"'{microscope.name}' in a {microscope.lenslets.lattice} one.",
                "Choose the microscope that took this recording.",
                field="microscope",
            )
        ]
    deviation = max((p / nominal - 1 for p in (down, right)), key=abs)
    sign = "more" if deviation > 0 else "less"
    if abs(deviation) > ACCEPTED_DEVIATION:
        return [
            Problem(
                f"The lenslets are {seen} apart, but with '{microscope.name}' they would be "
                f"{nominal:.2f} px: {100 * abs(deviation):.0f} % {sign}.",
                "Check pixel size, relay magnification and lenslet pitch, or choose another microscope.",
                field="microscope",
            )
        ]
    if abs(deviation) < 0.005:
        return []
    drift = abs(deviation) * nominal * max(lattice.rows, lattice.columns) / 2
    return [
        Problem(
            f"The lenslets are {seen} apart, {100 * abs(deviation):.1f} % {sign} than "
            f"the {nominal:.2f} px of '{microscope.name}'; the measured pitch is used.",
            "Either the relay's magnification is a little off, or the relay is not telecentric and the discs "
            f"shift against their lenslets by up to {drift:.1f} px at the edge of the field.",
            severity="info",
            field="microscope",
        )
    ]
