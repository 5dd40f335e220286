"""Resolution from one image alone, by decorrelation analysis, along z, y and x.

Descloux, Grussmayer and Radenovic, Nature Methods 16, 918 (2019): an image is correlated with itself after
all its frequencies were made equally strong and those beyond a radius were taken away. The correlation is
highest at the radius beyond which there is more noise than structure. The image is filtered by ever stronger
high passes, and the farthest of these peaks is the resolution. The paper works on planes; here sums run over
cones about the axes of a volume, one for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.core.axis_curves import AxisCurve, curves_along_axes
from napari_lfm.core.fourier import Shells, power_of, spectrum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HIGH_PASSES = 20
_FINEST_SIGMA = 0.15  # voxels, the paper's
_DROP = 0.0005  # a peak stands at least this high above what follows it, the paper's too
_LEAST_PEAK = 0.05


@dataclass(frozen=True)
class Decorrelation:
    """Result of a decorrelation analysis.

    Attributes
    ----------
    curves : tuple of AxisCurve
        Along ``z, y, x`` (of planes ``y, x``): correlation under the high pass whose peak lies farthest. Cut
        at that peak; None where no peak stands out: no structure above the noise, or none that ends before
        Nyquist.
    """

    curves: tuple[AxisCurve, ...]

    @property
    def resolution_um(self) -> dict[str, float | None]:
        """Resolution along every axis, micrometres; None where there is no peak."""
        return {c.axis: c.resolution_um for c in self.curves}


def decorrelation(
    image: npt.ArrayLike, voxel_um: Sequence[float], *, on_step: Callable[[float], None] | None = None
) -> Decorrelation:
    """Return the resolution of an image along every axis, without a truth or a second image.

    With ``S = |F|`` summed over the shells below a radius `r`, and `N` frequencies in them, the correlation
    is ``d(r) = S(r) / sqrt(N(r) * sum |F|^2)``: equation 1 of the paper for a circular mask.

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
    arrays = {"power": power, "amplitude": np.sqrt(power)}
    best: dict[int, float | None] = {}

    def values(shells: Shells) -> npt.NDArray[np.float64]:
        found, curve = farthest_peak(shells)
        best[len(best)] = found
        return curve

    def cut(curve: AxisCurve) -> AxisCurve:
        return replace(curve, cutoff_per_um=best[len(best) - 1])

    return Decorrelation(
        curves_along_axes(spectrum, arrays, values, cut, lambda share: tell(0.4 + 0.6 * share))
    )


def farthest_peak(shells: Shells) -> tuple[float | None, npt.NDArray[np.float64]]:
    """Return the farthest peak of all high passes, cycles per micrometre, and the curve that it is of.

    Without any peak: None, and the curve of the image as it is.
    """
    k = shells.frequency_per_um
    plain = _curve(shells, np.ones_like(k))
    first = _peak(k, plain)
    nyquist = float(k[-1])
    voxel = 0.5 / nyquist
    # the weakest high pass takes away what is coarser than the plain image's own peak
    weakest = max(2 / (first[0] / nyquist) if first else len(k) / 4, 2.0) * voxel
    farthest, curve = (first[0] if first else None), plain
    for sigma in np.geomspace(weakest, _FINEST_SIGMA * voxel, HIGH_PASSES):
        passed = _curve(shells, 1 - np.exp(-2 * (np.pi * sigma * k) ** 2))
        peak = _peak(k, passed)
        if peak is not None and peak[1] >= _LEAST_PEAK and (farthest is None or peak[0] > farthest):
            farthest, curve = peak[0], passed
    return farthest, curve


def _curve(shells: Shells, passed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    amplitude = np.cumsum(shells.sums["amplitude"] * passed)
    total = float((shells.sums["power"] * passed**2).sum())
    out: npt.NDArray[np.float64] = amplitude / np.sqrt(
        np.maximum(np.cumsum(shells.count), 1) * max(total, 1e-300)
    )
    return out


def _peak(k: npt.NDArray[np.float64], curve: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the highest point that the curve falls from, of as much of the curve as has one."""
    for end in range(len(curve), 2, -1):
        at = int(np.argmax(curve[:end]))
        if 0 < at < end - 1 and curve[at] - curve[at:end].min() >= _DROP:
            low, mid, high = curve[at - 1 : at + 2]
            bend = low - 2 * mid + high
            shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
            return float(k[at] + np.clip(shift, -0.5, 0.5) * (k[1] - k[0])), float(mid)
    return None
