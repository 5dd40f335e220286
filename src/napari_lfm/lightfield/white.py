"""Is the white frame one? What is wrong with it on its own, and beside the light field."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.lightfield.light import checked_frame, saturated_fraction

_SATURATED_FRACTION = 0.01
_BLOCK_PX = 16.0
_BACKGROUND_PX = 32
_LIKENESS = 0.15
"""Pixels of light behind lenslets are alike by 0.5 to 1, those of noise by 0 or, summed up in rows or
columns of a camera, along one axis only."""
_UNEVEN = 0.05
_DOUBTFUL, _SWAPPED = 2.0, 3.0
"""A white frame that varies this many times more than the light field, and by 5 % at least, is none.
Drawn, simulated and recorded ones varied 0.006 to 1 times as much, 1.8 with 10 photons per pixel."""


def check_white(raw: Any, white: Any, dark: Any = None, pitch_px: float | None = None) -> list[Problem]:
    """Return what is wrong with a white frame: saturated, dark, or swapped with the light field.

    Parameters
    ----------
    raw : array, shape (y, x) or (t, y, x), or None
        The light field that it is for.
    white : array, shape (y, x) or (t, y, x)
        The white frame.
    dark : array, shape (y, x) or (t, y, x), optional
        Frame without light. Frames of unlike shapes are not compared.
    pitch_px : float, optional
        About how far the lenslets are apart.

    Returns
    -------
    list of Problem
        Empty for a frame of an even, bright field through the lenslets.

    Raises
    ------
    RequestError
        If one of the images is none, see `checked_frame`.
    """
    frame = checked_frame(white, "white frame")
    fraction = saturated_fraction(white)
    if fraction > _SATURATED_FRACTION:
        return [
            _error(
                f"The white frame is saturated ({100 * fraction:.0f} % of its pixels are at the camera's "
                "limit): the shape of its discs is lost.",
                "Record it with less light or a shorter exposure, or calibrate from the raw frame alone.",
            )
        ]
    offset = None if dark is None else checked_frame(dark, "dark frame", may_be_even=True)
    if offset is not None and offset.shape != frame.shape:
        offset = None
    if _likeness(frame) < _LIKENESS or (offset is not None and _no_brighter(frame, offset)):
        return [
            _error(
                "The white frame looks like a dark frame: nothing in it stands out from the noise.",
                "Give the frame of an even, bright field, recorded through the lenslets.",
            )
        ]
    if raw is None:
        return []
    field = checked_frame(raw, "raw light field")
    if field.shape != frame.shape:
        return []
    block = max(5, round(pitch_px or _BLOCK_PX))
    own, other = _unevenness(frame, offset, block), _unevenness(field, offset, block)
    if own < max(_UNEVEN, _DOUBTFUL * other):
        return []
    figures = (
        f"from lenslet to lenslet the white frame varies by {100 * own:.0f} %, the light field by only "
        f"{100 * other:.1f} %"
    )
    remedy = (
        "Give the frame of an even, bright field as the white one, that of the specimen as the light field."
    )
    if own > _SWAPPED * other:
        return [_error(f"The white frame and the light field look swapped: {figures}.", remedy)]
    return [Problem(f"The white frame is not even: {figures}.", remedy, "warning", "white")]


def refuse_white(problems: list[Problem]) -> None:
    """Raise the first error among `problems` as a `RequestError` that keeps its remedy."""
    for problem in problems:
        if problem.severity == "error":
            raise RequestError(problem.message, problem.remedy)


def _error(message: str, remedy: str) -> Problem:
    return Problem(message, remedy, field="white")


def _likeness(frame: np.ndarray) -> float:
    """Return the correlation of pixels with their neighbours, at one or two steps, along the worse axis."""
    clipped = np.clip(frame, *np.percentile(frame, [0.5, 99.5]))  # hot pixels stand alone
    flat = clipped - ndimage.uniform_filter(clipped, _BACKGROUND_PX, mode="mirror")
    flat = flat - flat.mean()
    power = max(float((flat * flat).mean()), 1e-30)
    along = []
    for axis in (0, 1):
        turned = np.moveaxis(flat, axis, 0)
        # at a pitch of 4 pixels neighbours are not alike, but those two apart are opposite
        along.append(max(abs(float((turned[k:] * turned[:-k]).mean())) for k in (1, 2)) / power)
    return min(along)


def _no_brighter(frame: np.ndarray, dark: np.ndarray) -> bool:
    """Tell whether even the brighter parts of a frame are within the dark frame's noise."""
    noise = 1.4826 * float(np.median(np.abs(dark - np.median(dark))))
    return float(np.percentile(frame - dark, 90)) < 2 * noise


def _unevenness(frame: np.ndarray, dark: np.ndarray | None, block: int) -> float:
    """Return by what part (rms) the light of neighbouring blocks, a lenslet each, differs.

    Neighbours, not all of the field: vignetting is no specimen.
    """
    light = frame - np.percentile(frame, 1) if dark is None else frame - dark
    light = np.clip(light, *np.percentile(light, [0.1, 99.9]))  # a hot pixel outshines its block
    # a triangular weight: how a block cuts the lenslets matters less
    once = ndimage.uniform_filter(light, block, mode="mirror")
    mean = ndimage.uniform_filter(once, block, mode="mirror")[block // 2 :: block, block // 2 :: block]
    log = np.log(np.maximum(mean, max(0.02 * float(np.quantile(mean, 0.99)), 1e-12)))
    steps = np.concatenate([np.diff(log, axis=0).ravel(), np.diff(log, axis=1).ravel()])
    return float(np.sqrt((steps**2).mean())) if steps.size else 0.0
