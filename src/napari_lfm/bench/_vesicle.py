"""A simulated giant vesicle, recorded like the real one: same field, light, pupil and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from napari_lfm.simulation.lightfield import Exposure, OpticsError, Recording, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball, Vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.microscope import Microscope

Array = npt.NDArray[np.float64]

RADIUS_UM, HEIGHT_UM, WALL_UM = 13.4, 1.0, 0.4
"""Radius and height of the real vesicle; the wall is thinner than a voxel."""
REAL_PUPIL = (0.76, 1.0, 0.82, 0.80, 0.30, 0.21)
"""Radial pupil intensity that the real white frame shows (fitted by 'deconvolve-lightfield')."""
CLEAR_PUPIL: tuple[float, ...] = ()
LIKE_THE_REAL = Exposure(peak_electrons=900.0, white_electrons=18700.0)
"""Light of the real frames at 0.5 electrons per grey value."""


@dataclass(frozen=True)
class Spheroid:
    """A hollow ball stretched along z by `stretch` about its centre."""

    ball: Ball
    stretch: float = 1.0

    @property
    def brightness(self) -> float:
        """Concentration inside the wall."""
        return self.ball.brightness

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box."""
        low, high = self.ball.bounds()
        middle = self.ball.centre_um[0]
        low[0], high[0] = (middle + self.stretch * (v - middle) for v in (low[0], high[0]))
        return low, high

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Return the ball's coverage of the voxels with the stretch taken out."""
        middle = self.ball.centre_um[0]
        squeezed = (voxel_um[0] / self.stretch, voxel_um[1], voxel_um[2])
        return self.ball.coverage(middle + (z - middle) / self.stretch, y, x, squeezed)

    def turned(self, angle_deg: float) -> Self:
        """Return the spheroid rotated about the z axis."""
        return type(self)(self.ball.turned(angle_deg), self.stretch)


def record_vesicle(
    microscope: Microscope,
    *,
    stretch: float = 1.0,
    pupil: tuple[float, ...] = REAL_PUPIL,
    error: OpticsError | None = None,
    reach_um: tuple[float, float] | None = None,
    radius_um: float = RADIUS_UM,
    lenslets: int = 28,
    voxels_per_lenslet: int = 9,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Recording:
    """Simulate the light field of a hollow sphere, or a spheroid.

    Parameters
    ----------
    microscope : Microscope
        The nominal one.
    stretch : float
        Axial over lateral radius; 1 for a sphere.
    pupil : tuple of float
        Radial pupil intensity, axis to edge.
    error : OpticsError, optional
        How far NA, focal length and index are off the nominal; its pupil is not used.
    reach_um : tuple of float, optional
        Lowest and highest z that give light; default all of the vesicle.
    radius_um : float
        Outer radius less half the wall.
    lenslets, voxels_per_lenslet, seed
        As in `simulate_lightfield`; planes are half a micrometre apart.
    progress : callable, optional
        Called with a sentence.
    """
    ball = Ball((HEIGHT_UM, 0.35, -0.6), radius_um + WALL_UM / 2, radius_um - WALL_UM / 2)
    body = Spheroid(ball, stretch)
    low, high = body.bounds()
    ends = reach_um or (float(np.floor(low[0])), float(np.ceil(high[0])))
    off = error or OpticsError()
    return simulate_lightfield(
        Scene((body,)),
        microscope,
        z_um=(*ends, 1.0),
        lenslets=(lenslets, lenslets),
        pitch_px=15.40 / 15.3846 * (microscope.nominal_pitch_px or 0.0),
        rotation_deg=0.1,
        offset_px=(0.3, -0.4),
        exposure=LIKE_THE_REAL,
        error=OpticsError(off.na, off.focal_length, off.sample_index, pupil),
        voxels_per_lenslet=voxels_per_lenslet,
        z_substeps=2,
        seed=seed,
        on_progress=None
        if progress is None
        else lambda k, n, what: progress(f"{what} of a vesicle: plane {k + 1} of {n}"),
    )
