"""Coarse sampling along one axis and back: what steps of the stage do, and CSBDeep's way.

All of it acts on the last axis of tensors (..., n), n fine samples one lateral pixel apart.

A stage that steps by d records points of what the microscope has blurred already, it does not average over d:
so sampling takes points, and blur is the point spread function's alone. Points that fall between pixels are
interpolated linearly.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch.nn import functional

from napari_lfm.core.problems import RequestError

LEAST_FACTOR, MOST_FACTOR = 1.0, 64.0


def check_factor(factor: float) -> float:
    """Return a factor that is one.

    Raises
    ------
    RequestError
        If it is below 1, above 64, or no number.
    """
    if not (math.isfinite(factor) and LEAST_FACTOR <= factor <= MOST_FACTOR):
        raise RequestError(
            f"Planes {factor:g} pixels apart cannot be restored.",
            f"The distance of planes over the lateral pixel has to be {LEAST_FACTOR:g} to {MOST_FACTOR:g}.",
        )
    return float(factor)


def fine_length(planes: int, factor: float) -> int:
    """Return how many fine samples lie from the first plane to the last, both included."""
    return math.floor((planes - 1) * factor + 1e-6) + 1


def interpolate_planes(coarse: torch.Tensor, factor: float) -> torch.Tensor:
    """Return planes brought to lateral pixels, linearly; the first stays where it is.

    Parameters
    ----------
    coarse : Tensor, shape (..., planes)
    factor : float
        Distance of planes, lateral pixels; any number from 1.

    Returns
    -------
    Tensor, shape (..., fine_length(planes, factor))
    """
    count = fine_length(coarse.shape[-1], check_factor(factor))
    return _at(coarse, torch.arange(count, dtype=torch.float64) / factor)


def sample_and_interpolate(
    fine: torch.Tensor, factor: float, phase: float = 0.0, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points `factor` pixels apart, and those interpolated back to the pixels.

    Parameters
    ----------
    fine : Tensor, shape (..., n)
    factor : float
    phase : float
        Pixel of the first point, 0 to `factor`.
    length : int, optional
        Pixels to interpolate, from 0; default n. Before the first and after the last point its value is held.

    Returns
    -------
    points : Tensor, shape (..., planes)
    back : Tensor, shape (..., length)
    """
    check_factor(factor)
    n = fine.shape[-1]
    count = math.floor((n - 1 - phase) / factor + 1e-9) + 1
    points = _at(fine, phase + torch.arange(max(count, 1), dtype=torch.float64) * factor)
    return points, back_to_pixels(points, factor, phase, n if length is None else length)


def back_to_pixels(points: torch.Tensor, factor: float, phase: float, length: int) -> torch.Tensor:
    """Return points at ``phase + k factor`` interpolated linearly at pixels 0 to `length` - 1."""
    return _at(points, (torch.arange(length, dtype=torch.float64) - phase) / factor)


def _at(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return values at fractional indices of the last axis, linearly; held beyond the ends."""
    last = values.shape[-1] - 1
    place = place.clamp(0, last)
    low = place.floor().long().clamp(max=max(last - 1, 0))
    share = (place - low).to(values)
    low = low.to(values.device)
    if last == 0:
        return values.expand(*values.shape[:-1], len(place)).clone()
    return torch.lerp(values.index_select(-1, low), values.index_select(-1, low + 1), share)


def csbdeep_factor(length: int, factor: float, crop_threshold: float = 0.2) -> tuple[float, int]:
    """Return the factor as CSBDeep rounds it, and to how many samples it crops.

    It needs a length that the factor divides evenly: decimals are rounded off until no more than
    `crop_threshold` of the axis is lost.

    Parameters
    ----------
    length : int
    factor : float
    crop_threshold : float

    Raises
    ------
    RequestError
        If not even the nearest whole number does.
    """
    check_factor(factor)
    text = repr(float(factor))
    digits = len(text.split(".")[1]) if "." in text and "e" not in text else 6
    while True:
        rounded = Fraction(str(round(factor, digits)))
        whole = int(rounded * rounded.denominator)  # samples that a whole number of planes spans
        size = length // whole * whole if whole else 0
        if size and (length - size) / length <= crop_threshold:
            return float(rounded), size
        if digits == 0:
            raise RequestError(
                f"{length} pixels are too few to sample them every {factor:g}.",
                "Take a larger stack, or the modern profile.",
            )
        digits -= 1


def csbdeep_down_up(fine: torch.Tensor, factor: float) -> torch.Tensor:
    """Return what two calls of scipy's ``zoom`` give: nearest samples at 1 / factor, then linear ones.

    Both let the ends fall on one another, so that the points are not `factor` apart but
    ``(n - 1) / (n / factor - 1)``, and a half of a pixel is lost: kept as published.

    Parameters
    ----------
    fine : Tensor, shape (..., n)
        The factor divides n, see `csbdeep_factor`.
    factor : float
    """
    n = fine.shape[-1]
    count = round(n / factor)
    if count < 2:
        raise RequestError(f"{n} pixels are too few to sample them every {factor:g}.", "Take a larger stack.")
    place = torch.arange(count, dtype=torch.float64) * (n - 1) / (count - 1)
    points = fine.index_select(-1, (place + 0.5).floor().long().clamp(max=n - 1).to(fine.device))
    return csbdeep_up(points, factor)


def csbdeep_up(coarse: torch.Tensor, factor: float) -> torch.Tensor:
    """Return planes brought to ``round(planes factor)`` samples with the ends on one another."""
    flat = coarse.reshape(1, -1, coarse.shape[-1])
    size = round(coarse.shape[-1] * factor)
    out = functional.interpolate(flat, size=size, mode="linear", align_corners=True)
    return out.reshape(*coarse.shape[:-1], size)
