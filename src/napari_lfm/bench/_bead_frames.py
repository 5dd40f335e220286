"""Recordings of single beads at chosen depths, by optics a little off those that reconstruct them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_lfm.core.labelled import labelled
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.lightfield import SLIGHTLY_OFF, Exposure, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

FINE_VOXELS = 9
BEAD_FINE_VOXELS = 2.0
"""Bead diameter in fine voxels: at 2 the rendered centroid is the true one wherever the bead lies."""
PITCH_ERROR, ROTATION_DEG, OFFSET_PX = 1.001, 0.15, (0.4, -0.7)
"""How the array lies on the simulated sensor; the calibration has to find it."""
_SILENT = Exposure(noise=False, background=0.0, falloff=0.0, hot_pixels=0.0)


@dataclass(frozen=True)
class BeadFrames:
    """One frame per bead, with the calibration frames that belong to them.

    Attributes
    ----------
    movie : xarray.DataArray
        Raw frames, dims ``t y x``.
    white, dark : xarray.DataArray
        Dims ``y x``.
    truth : pandas.DataFrame
        ``z_um, y_um, x_um`` of every frame's bead, in the world of the raw frame.
    bead_um : float
        Diameter of the beads.
    """

    movie: xr.DataArray
    white: xr.DataArray
    dark: xr.DataArray
    truth: pd.DataFrame
    bead_um: float


def bead_diameter_um(microscope: Microscope) -> float:
    """Return the diameter of the beads that `record_beads` simulates."""
    assert microscope.lenslet_um is not None
    return BEAD_FINE_VOXELS * microscope.lenslet_um / FINE_VOXELS


def record_beads(
    microscope: Microscope,
    places_um: np.ndarray,
    *,
    lenslets: int = 21,
    bead_electrons: float = 5e5,
    background_electrons: float = 5.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BeadFrames:
    """Simulate one noisy frame per bead.

    The bead is thinner than half a z step and lies at its own depth, not on a plane of the
    reconstruction; nine fine voxels go into one lenslet; NA, focal length, index and pupil are off
    by `SLIGHTLY_OFF`, the lattice by its pitch, rotation and offset.

    Parameters
    ----------
    microscope : Microscope
    places_um : ndarray, shape (beads, 3)
        (z, y, x) around the centre of the field.
    lenslets : int
        Rows and columns of the array on the frame.
    bead_electrons : float
        Photo-electrons that one bead leaves on the whole sensor, alike at every depth.
    background_electrons : float
        Even haze, photo-electrons per pixel at the middle of a lenslet.
    seed : int
        Of the noise.
    progress : callable, optional
        Called with a sentence.
    """
    rng = np.random.default_rng(seed)
    pitch = microscope.nominal_pitch_px
    assert pitch is not None
    camera, bead_um = microscope.camera, bead_diameter_um(microscope)
    frames, truths = [], []
    flat = np.zeros(0)
    for k, (z, y, x) in enumerate(np.asarray(places_um, float)):
        if progress is not None:
            progress(f"{microscope.name}: simulating bead {k + 1} of {len(places_um)}")
        place = (float(z), float(y), float(x))
        recording = simulate_lightfield(
            Scene((Ball(place, bead_um / 2),), points_um=(place,)),
            microscope,
            z_um=(place[0], place[0], bead_um),
            lenslets=(lenslets, lenslets),
            pitch_px=pitch * PITCH_ERROR,
            rotation_deg=ROTATION_DEG,
            offset_px=OFFSET_PX,
            exposure=_SILENT,
            error=SLIGHTLY_OFF,
            voxels_per_lenslet=FINE_VOXELS,
            z_substeps=1,
        )
        if not flat.size:
            white = recording["white"].values - camera.offset_counts
            flat = white / np.percentile(white, 99.9)
        light = recording["expected"].values
        electrons = light * (bead_electrons / light.sum()) + background_electrons * flat
        frames.append(record(electrons, camera, rng))
        truths.append(recording["points"])
    step = dict.fromkeys("yx", microscope.object_pixel_um)
    return BeadFrames(
        movie=labelled(np.stack(frames), "tyx", {"t": 1.0, **step}),
        white=labelled(record(20000 * flat, camera, rng), "yx", step),
        dark=labelled(record(np.zeros_like(flat), camera, rng), "yx", step),
        truth=pd.concat(truths, ignore_index=True),
        bead_um=bead_um,
    )
