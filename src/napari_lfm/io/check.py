"""What can be wrong with the pixels themselves, before anything is computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import xarray as xr

_MAX_FRAMES = 16
# a lone hot pixel at the ceiling is no saturation
_SATURATED_PIXELS = 3


def check_pixels(
    image: xr.DataArray, saturation_level: float | None = None, field: str = "image"
) -> list[Problem]:
    """Return what is wrong with the pixels of `image`, in plain words.

    Parameters
    ----------
    image : xarray.DataArray
        Any labelled image. Of one with more than 16 frames along its first axis that is not in
        memory, 16 evenly spaced ones are looked at.
    saturation_level : float, optional
        Grey value at which the camera saturates (``2**bit_depth - 1``). Without it the ceiling of the
        integer type counts, and those of 10, 12 and 14-bit cameras in 16-bit files.
    field : str
        Name of the input, for `Problem.field`.

    Returns
    -------
    list of Problem
        Errors: NaN or infinite, all zero, constant, more than half negative. Warnings: saturated (with the
        fraction), some negative.
    """
    if image.size == 0:
        return [Problem("The image has no pixels.", "Choose another one.", field=field)]
    total = not_finite = negative = 0
    low, high = np.inf, -np.inf
    at_top = 0
    for block in _blocks(image):
        finite = np.isfinite(block) if block.dtype.kind == "f" else None
        n_bad = 0 if finite is None else int(block.size - np.count_nonzero(finite))
        good = block if not n_bad else block[finite]
        total, not_finite = total + block.size, not_finite + n_bad
        if not good.size:
            continue
        if good.dtype.kind != "u":
            negative += int(np.count_nonzero(good < 0))
        top = float(good.max())
        n_top = int(np.count_nonzero(good >= top))
        low = min(low, float(good.min()))
        at_top = n_top + (at_top if top == high else 0) if top >= high else at_top
        high = max(high, top)
    if not_finite == total:
        return [
            Problem("No pixel holds a number (all NaN or infinite).", "Export the image again.", field=field)
        ]
    out: list[Problem] = []
    if not_finite:
        out.append(
            Problem(
                f"{not_finite} of {total} pixels ({_percent(not_finite, total)}) are NaN or infinite.",
                "Replace them, e.g. by the median of their neighbours, or export the image again.",
                field=field,
            )
        )
    if low == high:
        what = "zero" if high == 0 else f"the same value ({high:g})"
        ceiling = saturation_level if saturation_level is not None else _ceiling(image.dtype, high)
        full = high != 0 and ceiling is not None and high >= ceiling
        remedy = (
            "It is saturated: expose it shorter."
            if full
            else "Check that the shutter was open and the right file chosen."
        )
        out.append(Problem(f"All pixels are {what}.", remedy, field=field))
        return out
    ceiling = saturation_level if saturation_level is not None else _ceiling(image.dtype, high)
    if ceiling is not None and high >= ceiling and at_top >= _SATURATED_PIXELS:
        out.append(
            Problem(
                f"{at_top} of {total} pixels ({_percent(at_top, total)}) are saturated (at {high:g}).",
                "What is computed there cannot be trusted; expose shorter next time.",
                "warning",
                field,
            )
        )
    if negative:
        out.append(
            Problem(
                f"{negative} of {total} pixels ({_percent(negative, total)}) are negative.",
                "If a background was subtracted, give the original frame and its dark frame instead.",
                "error" if negative > total / 2 else "warning",
                field,
            )
        )
    return out


def _blocks(image: xr.DataArray) -> Iterable[np.ndarray[Any, Any]]:
    """Whole arrays in memory, else frames along the first axis, one at a time."""
    if image.chunks is None:
        return [np.asarray(image.data)]
    return _frames(image)


def _frames(image: xr.DataArray) -> Iterator[np.ndarray[Any, Any]]:
    n = image.shape[0]
    for i in np.unique(np.linspace(0, n - 1, min(n, _MAX_FRAMES)).round().astype(int)):
        yield np.asarray(image[int(i)].data)


def _ceiling(dtype: np.dtype[Any], high: float) -> float | None:
    """Return the grey value at which an integer camera image saturates, as far as the type tells."""
    if dtype.kind not in "ui":
        return None
    if dtype.itemsize == 2 and high in (1023, 4095, 16383):
        return high
    return float(np.iinfo(dtype).max)


def _percent(part: int, whole: int) -> str:
    value = 100 * part / whole
    if 99 < value < 100:
        return "over 99 %"
    if value >= 10:
        return f"{value:.0f} %"
    return f"{value:.2g} %" if value >= 0.01 else "below 0.01 %"
