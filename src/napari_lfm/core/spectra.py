"""Power spectra along z, y and x of one image: how far axial detail falls short of lateral detail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.core.axis_curves import AxisCurve, curves_along_axes, first_below
from napari_lfm.core.fourier import Shells, corner_power, power_of, spectrum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ABOVE_FLOOR = 2.0
"""A spectrum meets the noise floor where it falls below this multiple of it: signal as strong as noise."""

# rounding of float32 and the window's side lobes, relative to the strongest frequency
_LEAST_FLOOR = 1e-10


@dataclass(frozen=True)
class PowerSpectra:
    """Power along every axis, relative to the strongest frequency.

    Attributes
    ----------
    curves : tuple of AxisCurve
        Along ``z, y, x`` (of planes ``y, x``). Cut where they meet the floor.
    floor : float
        Power of noise, relative likewise.
    """

    curves: tuple[AxisCurve, ...]
    floor: float

    @property
    def resolution_um(self) -> dict[str, float | None]:
        """Period along every axis where structure sinks into noise, micrometres."""
        return {c.axis: c.resolution_um for c in self.curves}


def power_spectra(
    image: npt.ArrayLike, voxel_um: Sequence[float], *, on_step: Callable[[float], None] | None = None
) -> PowerSpectra:
    """Return the mean power in the double cone about each axis, and where it meets the noise floor.

    The floor is the mean power in the corner of the spectrum, where every axis is above 3/4 of Nyquist: a
    sampled image has nothing but noise there. Of images without noise, or whose noise was smoothed away, the
    floor is so low that the crossing tells of smoothing and not of optics.

    Parameters
    ----------
    image : array, shape (z, y, x) or (y, x)
    voxel_um : sequence of float
        Of every axis, micrometres.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        If the image cannot be measured (see `fourier.checked`).
    """
    tell = on_step or (lambda share: None)
    tell(0.0)
    spectrum = spectrum_of(image, voxel_um)
    tell(0.4)
    power = power_of(spectrum.values)
    floor = max(corner_power(spectrum, power), _LEAST_FLOOR * float(power.max()))

    def mean(shells: Shells) -> npt.NDArray[np.float64]:
        return shells.sums["power"] / np.maximum(shells.count, 1)

    def cut(curve: AxisCurve) -> AxisCurve:
        where = first_below(curve.frequency_per_um, curve.values, ABOVE_FLOOR * floor)
        if where is None:
            return replace(curve, cutoff_per_um=float(curve.frequency_per_um[-1]), at_nyquist=True)
        return replace(curve, cutoff_per_um=where or None)

    found = curves_along_axes(spectrum, {"power": power}, mean, cut, lambda s: tell(0.4 + 0.6 * s))
    top = max(float(c.values.max()) for c in found)
    return PowerSpectra(tuple(replace(c, values=c.values / top) for c in found), floor / top)
