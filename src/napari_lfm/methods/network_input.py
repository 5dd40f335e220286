"""From rectified frames to what a trained network was shown, and from its output back to grey values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.methods.chosen_model import Planes
    from napari_lfm.methods.lightfield_data import LightfieldData

GAIN_RANGE = (0.2, 5.0)
"""Limits of a lenslet's brightness in the white frame, relative to the mean: dust is no reason for noise."""


@dataclass(frozen=True)
class Scaled:
    """One frame as a network takes it.

    Attributes
    ----------
    image : ndarray, float32, shape (rows * N, columns * N)
    scale : float
        a, grey values: the network saw ``(image - offset) / a``.
    to_volume : float
        What the network's output is multiplied by.
    """

    image: np.ndarray
    scale: float
    to_volume: float


def lenslet_gain(data: LightfieldData) -> np.ndarray | None:
    """Return how bright each lenslet is in the white frame, over their mean, shape (rows, columns).

    The fall-off across a lenslet is not part of it: networks are trained with it, and a pixel at the rim
    that was divided by it would be noise.
    """
    if data.white is None:
        return None
    (rows, columns), (ny, nx) = data.rectified.cells, data.rectified.cell_px
    mean = data.white.reshape(rows, ny, columns, nx).mean((1, 3))
    level = float(mean.mean())
    if level <= 0:
        return None
    return np.asarray(np.clip(mean / level, *GAIN_RANGE), np.float32)


def scale_frame(
    data: LightfieldData, frame: int, scalers: Mapping[str, float], gain: np.ndarray | None
) -> Scaled:
    """Return a frame as the model's card says, with the percentile of the whole frame.

    Parameters
    ----------
    data : LightfieldData
        Rectified at the model's N; the camera's offset is off already.
    frame : int
    scalers : mapping of str to float
        The card's: ``input_percentile`` and ``output_scale``, or ``input_max`` of foreign checkpoints.
    gain : ndarray, optional
        From `lenslet_gain`.

    Raises
    ------
    RequestError
        If there is no light in the frame.
    """
    image = np.asarray(data.rectified.image[frame], np.float32)
    if gain is not None:
        (rows, columns), (ny, nx) = data.rectified.cells, data.rectified.cell_px
        cells = image.reshape(rows, ny, columns, nx) / gain[:, None, :, None]
        image = cells.reshape(image.shape)
    if "input_max" in scalers:
        a, back = float(scalers["input_max"]), float(scalers.get("output_scale", 1.0))
    else:
        a = float(np.percentile(image, scalers.get("input_percentile", 99.9)))
        back = a * float(scalers.get("output_scale", 1.0))
    if not a > 0:
        which = f"Frame {frame}" if data.is_movie else "The light field"
        raise RequestError(
            f"{which} is not brighter than its dark level.", "Check the dark frame, or leave the frame out."
        )
    return Scaled(image / np.float32(a), a, back)


def take_planes(volume: torch.Tensor, planes: Planes) -> torch.Tensor:
    """Return the depths that are wanted, mixed from a network's, shape (planes, y, x)."""
    lower = volume[torch.from_numpy(planes.lower).to(volume.device)]
    if not planes.resampled:
        return lower
    share = torch.from_numpy(planes.share).to(volume).reshape(-1, 1, 1)
    return torch.lerp(lower, volume[torch.from_numpy(planes.upper).to(volume.device)], share)


def resample_lateral(volume: torch.Tensor, cells: tuple[int, int], voxels: int) -> torch.Tensor:
    """Return a volume (z, y, x) with `voxels` per lenslet; averaged where that is coarser, else linear."""
    size = (cells[0] * voxels, cells[1] * voxels)
    if tuple(volume.shape[-2:]) == size:
        return volume
    return torch.nn.functional.interpolate(
        volume[None], size, mode="bilinear", align_corners=False, antialias=True
    )[0]
