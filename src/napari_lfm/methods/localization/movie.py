"""What the neurons of a movie did: their footprints, read in every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.lightfield.purify import Way, split_background
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.methods.localization.look import mean_of, views_of
from napari_lfm.methods.localization.traces import footprints, unmix
from napari_lfm.methods.network_input import lenslet_gain

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_lfm.methods.lightfield_data import LightfieldData


def read_traces(
    data: LightfieldData, z_um: np.ndarray, t: np.ndarray, s: np.ndarray, body_um: float, background: Way
) -> Generator[Progress, None, np.ndarray]:
    """Read the light of neurons in every frame of a movie, yielding how far it is.

    Parameters
    ----------
    data : LightfieldData
    z_um, t, s : ndarray, shape (n,)
        Depths, and places in lenslets.
    body_um : float
        Diameter of a cell body.
    background : str
        See `split_background`.

    Returns
    -------
    ndarray, shape (frames, n)
    """
    gain = lenslet_gain(data)
    mean = mean_of(data, gain)
    behind, _ = split_background(mean, background)
    slope = slope_at_depth(1.0, data.microscope, None, data.n_pixels) * z_um
    cell = data.microscope.lenslet_um
    assert cell is not None
    shading = mean.mean((2, 3)).clip(0)
    marks = footprints(mean.shape, t, s, slope, max(0.6, body_um / 2 / cell), shading)
    rows = []
    count = len(data.rectified.image)
    frames = (views_of(data, k, gain) for k in range(count))
    for k, (light, _) in enumerate(unmix(frames, marks, behind), 1):
        rows.append(light)
        yield Progress(k, count, "Reading the traces")
    return np.array(rows)
