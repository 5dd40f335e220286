"""Guard planes: coarse planes above and below a volume that explain the light from there.

Without them light from beyond would be explained inside the volume, mostly in its outermost planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.optics.geometry import Plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.optics.psf import CellOptics

GUARDS = 3
"""Planes above and below the volume."""


def guarded_planes(z_um: Sequence[float], voxels: int) -> list[Plane]:
    """Return a volume's planes, then the guard planes with one voxel per lenslet."""
    step = guard_step_um(z_um)
    fine = [Plane(float(v), (voxels, voxels)) for v in z_um]
    below = [Plane(round(min(z_um) - (k + 1) * step, 6), (1, 1)) for k in range(GUARDS)]
    above = [Plane(round(max(z_um) + (k + 1) * step, 6), (1, 1)) for k in range(GUARDS)]
    return [*fine, *below, *above]


def widest(optics: CellOptics, z_um: Sequence[float]) -> tuple[int, int]:
    """Return the largest half width (y, x) of the volume's planes, in cells; guards are cut to it."""
    widths = np.array([optics.half_width(float(z)) for z in z_um]).max(0)
    return int(widths[0]), int(widths[1])


def guard_step_um(z_um: Sequence[float]) -> float:
    """Return the distance of guard planes."""
    return max(step_um(z_um), abs(z_um[-1] - z_um[0]) / 6)


def guard_thickness(z_um: Sequence[float], voxels: int) -> float:
    """Return how many voxels of the volume one voxel of a guard plane stands for."""
    return guard_step_um(z_um) / step_um(z_um) * voxels**2


def step_um(z_um: Sequence[float]) -> float:
    """Return the distance of the planes; 1 where there is one."""
    return abs(z_um[-1] - z_um[0]) / (len(z_um) - 1) if len(z_um) > 1 else 1.0
