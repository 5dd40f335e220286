"""Curves over the frequencies along z, y and x, each with its cut-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.core.fourier import Shells, Spectrum, shell_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PASSES = 3


@dataclass(frozen=True)
class AxisCurve:
    """One curve over the frequencies along one axis, and where it ends.

    Attributes
    ----------
    axis : str
        ``z``, ``y`` or ``x``.
    frequency_per_um : ndarray, shape (n,)
        Cycles per micrometre.
    values : ndarray, shape (n,)
    cutoff_per_um : float or None
        Highest frequency that is resolved; None where none is.
    at_nyquist : bool
        The curve never ends within the sampled frequencies: the resolution is that of the voxels or better.
    """

    axis: str
    frequency_per_um: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    cutoff_per_um: float | None
    at_nyquist: bool = False

    @property
    def resolution_um(self) -> float | None:
        """Smallest period that is resolved, micrometres: one over the cut-off."""
        return None if self.cutoff_per_um is None else 1 / self.cutoff_per_um


def first_below(
    frequency: npt.NDArray[np.float64], values: npt.NDArray[np.float64], threshold: float
) -> float | None:
    """Return where a curve falls below a threshold and stays there for a second sample; None if never.

    0 where it begins below. Between samples the curve is taken to be straight.
    """
    low = values < threshold
    falls = low & np.r_[low[1:], True]
    if not falls.any():
        return None
    k = int(np.argmax(falls))
    if k == 0:
        return 0.0
    high, under = float(values[k - 1]), float(values[k])
    share = (high - threshold) / max(high - under, 1e-12)
    return float(frequency[k - 1] + np.clip(share, 0, 1) * (frequency[k] - frequency[k - 1]))


def curves_along_axes(
    spectrum: Spectrum,
    arrays: Mapping[str, npt.NDArray[Any]],
    values: Callable[[Shells], npt.NDArray[np.float64]],
    cut: Callable[[AxisCurve], AxisCurve],
    on_step: Callable[[float], None],
) -> tuple[AxisCurve, ...]:
    """Return a curve for every axis; the cut-offs of one pass shape the shells of the next.

    Parameters
    ----------
    spectrum : Spectrum
    arrays : mapping of str to array
        Summed over the shells.
    values : callable
        Makes a curve's values of the sums.
    cut : callable
        Returns a curve with its cut-off.
    on_step : callable
        Called with the share that is done.
    """
    count = len(spectrum.shape)
    cutoffs: list[float] | None = None
    curves: list[AxisCurve] = []
    for turn in range(_PASSES):
        curves = []
        for axis in range(count):
            on_step((turn * count + axis) / (_PASSES * count))
            shells = shell_sums(spectrum, axis, arrays, cutoffs)
            curves.append(cut(AxisCurve(spectrum.axes[axis], shells.frequency_per_um, values(shells), None)))
        found = [c.cutoff_per_um for c in curves]
        if any(f is None for f in found):
            break  # nothing to shape shells by
        cutoffs = [float(f) for f in found if f is not None]
    return tuple(curves)
