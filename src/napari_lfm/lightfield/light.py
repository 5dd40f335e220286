"""Frames made ready for calibration: checked, and turned into an image in which lenslets look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from napari_lfm.core.problems import RequestError
from napari_lfm.io.check import check_pixels

_MAX_FRAMES = 32
_SATURATED_FRACTION = 0.01
_GAP = -0.4
"""Darker than this (local standard deviations from the local mean) is gap. Drawn specimens: the mean
of the worst centre error per frame was 0.30 px at +0.5, 0.27 at 0, 0.25 at -0.4; lower, noise counts."""


def checked_frame(image: Any, what: str, *, may_be_even: bool = False) -> np.ndarray:
    """Return one frame (y, x) as float32, or say in a sentence why it cannot be one.

    A movie (t, y, x) is averaged: the specimen moves, the lenslets do not.

    Parameters
    ----------
    image : array
        numpy, xarray or dask.
    what : str
        Its name in messages, e.g. ``"white frame"``.
    may_be_even : bool
        Accept a frame that is the same everywhere: a dark frame may be.

    Raises
    ------
    RequestError
        For 1-D, RGB, empty, not finite, all-zero or constant images.
    """
    data = image.data if hasattr(image, "dims") else image
    shape = tuple(np.shape(data))
    if len(shape) == 3 and shape[-1] in (3, 4) and shape[0] > 4:
        raise RequestError(
            f"The {what} is a colour (RGB) image.", "Save the camera's grey values, or one channel, instead."
        )
    if len(shape) not in (2, 3) or 0 in shape:
        raise RequestError(
            f"The {what} must be one frame (y, x) or a movie (t, y, x), not an array of shape {shape}.",
            "Give one camera image.",
        )
    if len(shape) == 3:
        picks = np.unique(np.linspace(0, shape[0] - 1, _MAX_FRAMES).astype(int))
        frame = np.mean([np.asarray(data[int(k)], np.float32) for k in picks], axis=0)
    else:
        frame = np.asarray(data)
        if np.iscomplexobj(frame) or frame.dtype.kind not in "fiub":
            raise RequestError(f"The {what} does not hold plain numbers.", "Save it as a grey-value TIFF.")
        frame = frame.astype(np.float32)
    if not np.isfinite(frame).all():
        raise RequestError(
            f"The {what} holds values that are not finite (NaN or infinite).",
            "Replace them, or export the recording again.",
        )
    if may_be_even:
        return np.asarray(frame, np.float32)
    if not frame.any():
        raise RequestError(f"The {what} is all zero.", "Check the recording: there is no light in it.")
    if frame.min() == frame.max():  # is it saturated? the type of the pixels tells
        for problem in check_pixels(xr.DataArray(np.asarray(data[:1]))):
            if problem.severity == "error":
                raise RequestError(f"{problem.message.rstrip('.')} in the {what}.", problem.remedy)
    return np.asarray(frame, np.float32)


def saturated_fraction(image: Any) -> float:
    """Return the part of an integer image's pixels that stand at its ceiling, 0 for other images."""
    data = np.asarray(image.data if hasattr(image, "dims") else image)
    if data.dtype.kind not in "iu" or data.size == 0:
        return 0.0
    top = int(data.max())
    ceilings = {2**bits - 1 for bits in (8, 10, 12, 14, 16)} | {np.iinfo(data.dtype).max}
    fraction = float((data == top).mean())
    # cameras also saturate at other values: then the plateau is large
    return fraction if top in ceilings or fraction > 5 * _SATURATED_FRACTION else 0.0


def log_light(frame: np.ndarray) -> np.ndarray:
    """Return the logarithm of the light above the frame's floor.

    Vignetting multiplies the specimen's light; in the logarithm it is added, the same in every
    lenslet, and bright structures lose their weight. Values near the noise are compressed.
    """
    light = np.maximum(frame - np.percentile(frame, 1), 0)
    # darkest pixels: noise there, without the structure of the bright ones
    dark = frame <= np.percentile(frame, 20)
    rough = np.abs(frame - ndimage.uniform_filter(frame, 3, mode="mirror"))[dark]
    floor = max(0.1 * float(np.median(light)), 2 * float(np.median(rough)) / 0.67, 1e-6 * float(light.max()))
    return np.asarray(np.log(light + max(floor, 1e-30)), np.float32)


def dark_gaps(log_image: np.ndarray, pitch: float) -> np.ndarray:
    """Return an image of the dark surrounds of the lenslets, all that is brighter cut off.

    The gaps between discs are the same behind every lenslet; what is inside the discs is specimen.
    """
    level = ndimage.gaussian_filter(log_image, 0.75 * pitch, mode="mirror", truncate=3)
    relative = log_image - level
    spread = np.sqrt(ndimage.gaussian_filter(relative * relative, pitch, mode="mirror", truncate=3))
    return np.asarray(np.minimum(relative / (spread + 0.1 * np.median(spread) + 1e-12), _GAP), np.float32)
