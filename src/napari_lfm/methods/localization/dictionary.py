"""Epipolar images of a ball at every depth, by wave optics: the dictionary of convolutional sparse coding."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.lightfield.epipolar import epipolar_windows
from napari_lfm.optics import cache
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Grid, Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_lfm.optics.microscope import Microscope

BALL_UM = 11.0
"""Diameter: between those of the cell bodies that are looked for, 8 to 15 um."""
PLACES = 2
VOXELS, Z_STEP_UM = 3, 1.5
VERSION = 1
_AT_ONCE = 8


def epipolar_dictionary(
    microscope: Microscope,
    n_pixels: int,
    z_um: Sequence[float],
    half: int,
    diameter_um: float = BALL_UM,
    places: int = PLACES,
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Compute the atoms, yielding (steps done, steps in all); the disk cache keeps them.

    Parameters
    ----------
    microscope : Microscope
    n_pixels : int
        Pixels per lenslet, N.
    z_um : sequence of float
        Depths of the ball's centre.
    half : int
        Lenslets on either side of the ball.
    diameter_um : float
    places : int
        Places across a lenslet.

    Returns
    -------
    ndarray, shape (depths, places, N, 2 * half + 1), float32
        Rows are views.
    """
    optics = CellOptics.of(microscope, n_pixels)
    cell = microscope.lenslet_um
    assert cell is not None
    values = [optics.key(), [round(float(z), 6) for z in z_um], half, diameter_um, places, VERSION]
    name = f"epipolar-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]}"
    shape = (len(z_um), places, n_pixels, 2 * half + 1)
    found = cache.load(name)
    if found is not None and found.shape == shape:
        yield 1, 1
        return np.array(found)
    low, high = min(z_um) - diameter_um / 2 - Z_STEP_UM, max(z_um) + diameter_um / 2 + Z_STEP_UM
    depths = [low + k * Z_STEP_UM for k in range(math.ceil((high - low) / Z_STEP_UM) + 1)]
    planes = [Plane(round(z, 6), (VOXELS, VOXELS)) for z in depths]
    cells = (2 * half + 1, 2 * half + 1)
    projector = LensletProjector(Geometry.plan(optics, planes, cells, margin=(0, 0)))
    blocks = -(-len(z_um) * places // _AT_ONCE)
    total = len(planes) + blocks
    for done, _ in projector.build_steps():
        yield done, total
    step = cell / VOXELS
    count = cells[0] * VOXELS
    start = -(count - 1) / 2 * step
    grid = Grid((len(planes), count, count), (Z_STEP_UM, step, step), (depths[0], start, start))
    out = np.empty((len(z_um) * places, n_pixels, 2 * half + 1), np.float32)
    wanted = [(float(z), ((p + 0.5) / places - 0.5) * cell) for z in z_um for p in range(places)]
    for block in range(blocks):
        part = wanted[block * _AT_ONCE : (block + 1) * _AT_ONCE]
        volumes = torch.stack(
            [rasterise(Scene((Ball((z, 0.0, x), diameter_um / 2),)), grid) for z, x in part]
        )
        with torch.no_grad():
            images = projector.forward(volumes).clamp(min=0)
        views = (
            images.reshape(len(part), cells[0], n_pixels, cells[1], n_pixels).permute(0, 2, 4, 1, 3).numpy()
        )
        middle = np.array([float(half)])
        for k, field in enumerate(views):
            out[block * _AT_ONCE + k] = epipolar_windows(field, middle, middle, half, "x")[0]
        yield len(planes) + block + 1, total
    atoms = out.reshape(shape)
    cache.store(name, atoms)
    return atoms
