"""Fourier shell (2-D: ring) correlation of two images, or of one with itself, along z, y and x.

Sectioned as by Koho et al. (Nature Communications 10, 3103, 2019): every axis has its own double cone. The
curves tell which share of a frequency both images have in common. Blur alone lowers no correlation, noise
does:
resolution is where structure sinks into noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_lfm.core.axis_curves import AxisCurve, curves_along_axes, first_below
from napari_lfm.core.fourier import (
    Shells,
    Spectrum,
    corner_power,
    power_of,
    shell_sums,
    spectrum_of,
)
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ONE_SEVENTH = 1 / 7
"""Of two equally noisy images (Nieuwenhuizen et al., Nature Methods 10, 557, 2013); also written 0.143."""

AGAINST_TRUTH = ONE_SEVENTH**0.5
"""Of an image against a truth without noise, 0.378: the square root of the correlation of two such images."""

# frequencies that make a correlation sure enough; a split image needs more, as powers are subtracted
_ENOUGH_PAIR, _ENOUGH_SINGLE = 200, 500
_WIDEST_PART = 16
# many frequencies matter more here than little leakage, which a ratio hardly feels
_TAPER = 0.5
# corner of the spectrum over the highest frequencies of the axes: 1 for white noise
_WHITE = 0.5


@dataclass(frozen=True)
class ShellCorrelation:
    """Fourier shell correlation along every axis.

    Attributes
    ----------
    curves : tuple of AxisCurve
        Along ``z, y, x`` (of planes ``y, x``); correlation from -1 to 1.
    threshold : float
        Where the curves were cut.
    kind : {"pair", "single"}
        Of two images, or of one that was split.
    white : bool
        Of a single image: whether its noise is independent from voxel to voxel, as the split needs.
        False for interpolated, deconvolved or denoised images (and undersampled ones), whose figures are too
        good.
    """

    curves: tuple[AxisCurve, ...]
    threshold: float
    kind: Literal["pair", "single"]
    white: bool = True

    def at(self, threshold: float) -> ShellCorrelation:
        """Return the same curves cut at another threshold.

        Raises
        ------
        RequestError
            If it does not lie between 0 and 1.
        """
        _check(threshold)
        return replace(self, curves=tuple(_cut(c, threshold) for c in self.curves), threshold=threshold)

    @property
    def resolution_um(self) -> dict[str, float | None]:
        """Resolution along every axis, micrometres; None where nothing is resolved."""
        return {c.axis: c.resolution_um for c in self.curves}


def shell_correlation(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    voxel_um: Sequence[float],
    *,
    threshold: float = ONE_SEVENTH,
    on_step: Callable[[float], None] | None = None,
) -> ShellCorrelation:
    """Return the Fourier shell correlation of two images of one sample.

    ``sum Re(A conj(B)) / sqrt(sum |A|^2 sum |B|^2)`` over the shells of the cone about each axis; shells of
    few frequencies together with their neighbours (Saxton and Baumeister 1982; van Heel 1987).

    Parameters
    ----------
    first, second : array, shape (z, y, x) or (y, x)
        On one grid, with independent noise. An offset, a factor or a blur of one does no harm, a shift does.
    voxel_um : sequence of float
        Of every axis, micrometres.
    threshold : float
        `ONE_SEVENTH` (0.143) for two equally noisy images, `AGAINST_TRUTH` for an image against a truth.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        If the shapes differ, or an image cannot be measured (see `fourier.checked`).
    """
    _check(threshold)
    tell = on_step or (lambda share: None)
    if np.shape(first) != np.shape(second):
        raise RequestError(
            f"The two images have shapes {np.shape(first)} and {np.shape(second)}.",
            "Bring them onto one grid first.",
        )
    tell(0.0)
    a = spectrum_of(first, voxel_um, "The first image", _TAPER)
    tell(0.25)
    b = spectrum_of(second, voxel_um, "The second image", _TAPER)
    tell(0.5)
    arrays = {
        "cross": (a.values * b.values.conj()).real,
        "a": power_of(a.values),
        "b": power_of(b.values),
    }

    def values(shells: Shells) -> npt.NDArray[np.float64]:
        cross, first, second = (_steady(shells, k, _ENOUGH_PAIR) for k in ("cross", "a", "b"))
        return cross / np.sqrt(np.maximum(first * second, 1e-300))

    curves = curves_along_axes(
        a, arrays, values, lambda c: _cut(c, threshold), lambda share: tell(0.5 + share / 2)
    )
    return ShellCorrelation(curves, threshold, "pair")


def single_shell_correlation(
    image: npt.ArrayLike,
    voxel_um: Sequence[float],
    *,
    threshold: float = ONE_SEVENTH,
    on_step: Callable[[float], None] | None = None,
) -> ShellCorrelation:
    """Return the Fourier shell correlation that two images like this one would have, by splitting it.

    The voxels are split like a checkerboard (Koho et al. 2019), into those with an even and with an odd sum
    of indices. Both halves stay on the full grid, with zeros between: neither is shifted against the other,
    and their transforms are ``(F(k) + F(k - q)) / 2`` and ``(F(k) - F(k - q)) / 2`` with `q` the corner of
    the spectrum. Their correlation is ``f = (P(k) - P(k - q)) / (P(k) + P(k - q))`` with the power `P`; half
    of the voxels bear half of the light, which ``2 f / (1 + f)`` makes good (the calibration of half data
    sets to full ones, Rosenthal and Henderson, J. Mol. Biol. 333, 721, 2003). The sub-images of Koho et al.
    are shifted against each other, hence their calibration by an empirical curve, which is not needed here.

    Parameters
    ----------
    image : array, shape (z, y, x) or (y, x)
        As the camera gave it: its noise must be independent from voxel to voxel.
    voxel_um : sequence of float
        Of every axis, micrometres.
    threshold : float
        `ONE_SEVENTH` as between two images.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        If the image cannot be measured (see `fourier.checked`).
    """
    _check(threshold)
    tell = on_step or (lambda share: None)
    tell(0.0)
    spectrum = spectrum_of(image, voxel_um, taper=_TAPER)
    tell(0.4)
    power = power_of(spectrum.values)
    arrays = {"power": power, "mirror": corner_mirror(power, spectrum.shape)}

    def values(shells: Shells) -> npt.NDArray[np.float64]:
        p, m = (_steady(shells, k, _ENOUGH_SINGLE) for k in ("power", "mirror"))
        half = (p - m) / np.maximum(p + m, 1e-300)
        # far below zero (the mirrored frequencies have all the light) the calibration has a pole
        half = np.maximum(half, -1 / 3)
        full: npt.NDArray[np.float64] = 2 * half / (1 + half)
        return full

    curves = curves_along_axes(
        spectrum, arrays, values, lambda c: _cut(c, threshold), lambda share: tell(0.4 + 0.6 * share)
    )
    return ShellCorrelation(curves, threshold, "single", is_white(spectrum, power))


def corner_mirror(power: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return the power at ``k - q`` for every frequency `k` of a half spectrum, `q` being its corner.

    Parameters
    ----------
    power : array, shape (..., y, x // 2 + 1)
    shape : sequence of int
        Of the image, even numbers.
    """
    out = power[..., ::-1]
    for axis, n in enumerate(shape[:-1]):
        out = np.take(out, (n // 2 - np.arange(n)) % n, axis=axis)
    return out


def is_white(spectrum: Spectrum, power: npt.NDArray[Any]) -> bool:
    """Return whether the corner of a spectrum has about the power of the ends of its axes.

    Noise that is independent from voxel to voxel has the same power everywhere, what was smoothed has not.
    """
    ends = []
    for axis in range(len(spectrum.shape)):
        shells = shell_sums(spectrum, axis, {"power": power})
        last = slice(-max(1, len(shells.count) // 8), None)
        ends.append(shells.sums["power"][last].sum() / max(shells.count[last].sum(), 1))
    return bool(corner_power(spectrum, power) > _WHITE * min(ends))


def _cut(curve: AxisCurve, threshold: float) -> AxisCurve:
    where = first_below(curve.frequency_per_um, curve.values, threshold)
    if where is None:
        return replace(curve, cutoff_per_um=float(curve.frequency_per_um[-1]), at_nyquist=True)
    return replace(curve, cutoff_per_um=where or None, at_nyquist=False)


def _steady(shells: Shells, name: str, enough: int) -> npt.NDArray[np.float64]:
    """Return the sums of shells together with as many neighbours as make `enough` frequencies."""
    sums, counts = (np.concatenate([[0.0], np.cumsum(v)]) for v in (shells.sums[name], shells.count))
    n = len(shells.count)
    at = np.arange(n)
    out = np.empty(n)
    todo = np.ones(n, bool)
    widest = max(1, n // _WIDEST_PART)
    for half in range(widest + 1):
        low, high = np.maximum(at - half, 0), np.minimum(at + half, n - 1) + 1
        take = todo & ((counts[high] - counts[low] >= enough) | (half == widest))
        out[take] = (sums[high] - sums[low])[take]
        todo &= ~take
    return out


def _check(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise RequestError(
            f"The threshold {threshold:g} does not lie between 0 and 1.", "Usual are 1/7 (0.143) and 0.5."
        )
