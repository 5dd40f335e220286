"""Fourier space of an image in cycles per micrometre: windowed spectra, and shells cut into sectors.

What the measures of resolution share. A sector is a double cone about one axis. Its shells are ellipsoids
whose half axes are proportional to the cut-offs along the axes: with a point spread function that is longer
along z, a cone about x would else hold frequencies whose z part the microscope does not pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AXES = ("z", "y", "x")

MOST_VOXELS = 2**24
"""A larger image is cut to its middle: more voxels make a resolution no surer, and memory runs out."""

LEAST_SAMPLES = 8
"""Along every axis."""

HALF_ANGLE_DEG = 20.0
"""Of the double cone of a sector."""

_MOST_RATIO = 8.0
# an axis this short always gets Hann's window: leakage reaches over much of its few frequencies
_SHORT = 48


@dataclass(frozen=True)
class Spectrum:
    """Half of the Fourier transform of a windowed real image (the other half is its mirror image).

    Attributes
    ----------
    values : ndarray, shape (..., y, x // 2 + 1), complex64
        The transform; the last axis holds frequencies 0 to Nyquist.
    shape : tuple of int
        Of the image that was transformed: even numbers.
    voxel_um : tuple of float
        Of every axis, micrometres.
    axes : tuple of str
        ``z y x`` or ``y x``.
    """

    values: npt.NDArray[np.complexfloating]
    shape: tuple[int, ...]
    voxel_um: tuple[float, ...]
    axes: tuple[str, ...]

    @property
    def step_per_um(self) -> tuple[float, ...]:
        """Distance of neighbouring frequencies along every axis, cycles per micrometre."""
        return tuple(1 / (n * v) for n, v in zip(self.shape, self.voxel_um, strict=True))

    @property
    def nyquist_per_um(self) -> tuple[float, ...]:
        """Highest frequency along every axis, cycles per micrometre."""
        return tuple(0.5 / v for v in self.voxel_um)

    def frequencies(self) -> list[npt.NDArray[np.float64]]:
        """Return the absolute frequency of every index along every axis, cycles per micrometre."""
        last = len(self.shape) - 1
        return [
            np.abs(np.fft.rfftfreq(n, v) if k == last else np.fft.fftfreq(n, v))
            for k, (n, v) in enumerate(zip(self.shape, self.voxel_um, strict=True))
        ]


def checked(volume: npt.ArrayLike, voxel_um: Sequence[float], what: str = "The image") -> npt.NDArray[Any]:
    """Return a volume or plane as an array without single-sample axes, or say what is wrong with it.

    Parameters
    ----------
    volume : array, shape (z, y, x) or (y, x)
    voxel_um : sequence of float
        Of every axis of `volume`, micrometres.
    what : str
        Begins the sentences.

    Raises
    ------
    RequestError
        For other than two or three axes, fewer than `LEAST_SAMPLES` along one, sizes that are no sizes,
        values that are not finite, and a constant image.
    """
    data = np.asarray(volume)
    sizes = tuple(float(v) for v in voxel_um)
    if data.size == 0:
        raise RequestError(f"{what} is empty.")
    if data.ndim != len(sizes):
        raise RequestError(
            f"{what} has {data.ndim} axes, but {len(sizes)} voxel sizes were given.",
            "Give one for every axis, in micrometres.",
        )
    if not all(np.isfinite(v) and v > 0 for v in sizes):
        raise RequestError(
            f"{what} has no voxel size in micrometres that is above 0 along every axis.", "Give it."
        )
    if data.ndim == 3 and data.shape[0] == 1:
        data = data[0]
    if data.ndim not in (2, 3):
        raise RequestError(
            f"{what} has {data.ndim} axes.", "Resolution is measured in one volume (z, y, x) or plane (y, x)."
        )
    if min(data.shape) < LEAST_SAMPLES:
        raise RequestError(
            f"{what} has only {_sizes(data.shape)} samples.",
            f"Resolution needs at least {LEAST_SAMPLES} along every axis.",
        )
    if np.iscomplexobj(data) or data.dtype.kind not in "biuf":
        raise RequestError(f"{what} does not hold real numbers.")
    if not np.isfinite(data).all():
        raise RequestError(f"{what} contains NaN or infinite values.", "Replace them before measuring.")
    if not np.ptp(data):
        raise RequestError(f"{what} is constant: it has no structure whose resolution could be measured.")
    return data


def spectrum_of(
    volume: npt.ArrayLike, voxel_um: Sequence[float], what: str = "The image", taper: float = 1.0
) -> Spectrum:
    """Return the spectrum of the middle of an image, under a window along every axis.

    The window keeps the jump from one border to the other, which no sample has, out of the spectrum.

    Parameters
    ----------
    volume : array, shape (z, y, x) or (y, x)
    voxel_um : sequence of float
        Of every axis, micrometres.
    what : str
        Begins the sentences that say what is wrong.
    taper : float
        Share of an axis over which the window rises and falls (Tukey's): 1 is Hann's, which leaks least, but
        leaves of a volume's independent frequencies a seventh; 0.5 leaves two fifths.

    Raises
    ------
    RequestError
        As `checked` does.
    """
    from scipy import fft

    data = checked(volume, voxel_um, what)
    part = middle(data.shape)
    data = data[part].astype(np.float32)
    if not np.ptp(data):
        raise RequestError(f"{what} is constant in its middle: there is no resolution to measure.")
    data -= data.mean(dtype=np.float64)
    for axis, n in enumerate(data.shape):
        window = _window(n, taper if n > _SHORT else 1.0).astype(np.float32)
        data *= window.reshape([-1 if k == axis else 1 for k in range(data.ndim)])
    data -= data.mean(dtype=np.float64)
    sizes = tuple(float(v) for v in voxel_um)[-data.ndim :]
    return Spectrum(fft.rfftn(data), data.shape, sizes, AXES[-data.ndim :])


def _window(n: int, taper: float) -> npt.NDArray[np.float64]:
    # symmetric about the middle of the samples, and never zero
    at = (np.arange(n) + 0.5) / n
    return np.sin(np.pi * np.minimum(np.minimum(at, 1 - at) / taper, 0.5)) ** 2


def middle(shape: Sequence[int], most_voxels: int = MOST_VOXELS) -> tuple[slice, ...]:
    """Return the middle part of an array that has even, quickly transformed sizes and is not too large.

    Planes are cut, not their number, as there are few of them as a rule.
    """
    from scipy import fft

    total = float(np.prod([float(n) for n in shape]))
    shrink = min(1.0, np.sqrt(most_voxels / total))
    out = []
    for axis, n in enumerate(shape):
        lateral = axis >= len(shape) - 2
        size = max(LEAST_SAMPLES, int(n * shrink)) if lateral else int(n)
        size -= size % 2
        while size > LEAST_SAMPLES and fft.next_fast_len(size, real=True) != size:
            size -= 2
        start = (n - size) // 2
        out.append(slice(start, start + size))
    return tuple(out)


@dataclass(frozen=True)
class Shells:
    """Sums over the shells of one sector.

    Attributes
    ----------
    frequency_per_um : ndarray, shape (shells,)
        Along the sector's axis, from the first frequency above zero to Nyquist.
    count : ndarray, shape (shells,)
        Frequencies in each shell.
    sums : dict of str to ndarray, shape (shells,)
        Of every array that was given.
    """

    frequency_per_um: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    sums: dict[str, npt.NDArray[np.float64]]


def shell_sums(
    spectrum: Spectrum,
    axis: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    cutoffs_per_um: Sequence[float] | None = None,
    half_angle_deg: float = HALF_ANGLE_DEG,
) -> Shells:
    """Sum arrays that lie on a spectrum's frequencies over the shells of the double cone about one axis.

    Parameters
    ----------
    spectrum : Spectrum
        Says where the frequencies are.
    axis : int
    arrays : mapping of str to array
        Real, of the shape of ``spectrum.values``.
    cutoffs_per_um : sequence of float, optional
        Of every axis: the shells are ellipsoids with half axes proportional to them. Default spheres.
    half_angle_deg : float
        Of the cone, where frequencies are divided by the cut-offs.
    """
    n_axes = len(spectrum.shape)
    ratios = _ratios(cutoffs_per_um, axis, n_axes)
    slope = float(np.tan(np.deg2rad(half_angle_deg)))
    nyquist = spectrum.nyquist_per_um[axis]
    known = spectrum.frequencies()
    chosen, scaled = [], []
    for k, values in enumerate(known):
        reach = nyquist if k == axis else slope * nyquist * ratios[k]
        index = np.flatnonzero(values <= reach * (1 + 1e-9))
        chosen.append(index)
        shape = [-1 if j == k else 1 for j in range(n_axes)]
        scaled.append((values[index] / ratios[k]).reshape(shape))
    along = scaled[axis] ** 2
    across: Any = sum((scaled[k] ** 2 for k in range(n_axes) if k != axis), np.zeros((1,) * n_axes))
    radius = np.sqrt(along + across)
    step = spectrum.step_per_um[axis]
    shells = spectrum.shape[axis] // 2
    number = np.rint(radius / step).astype(np.intp)
    inside = (across <= (slope**2) * along) & (number >= 1) & (number <= shells)
    # the half that is not stored doubles all but the planes that mirror themselves
    weight = np.full(len(known[-1]), 2.0)
    weight[0] = weight[-1] = 1.0
    weight = np.broadcast_to(weight[chosen[-1]], radius.shape)[inside]
    which = number[inside]
    place = np.ix_(*chosen)

    def summed(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        sums = np.bincount(which, weights=np.asarray(values * weight, np.float64), minlength=shells + 1)
        return np.asarray(sums[1:], np.float64)

    count = summed(np.ones(len(which)))
    sums = {name: summed(values[place][inside]) for name, values in arrays.items()}
    return Shells(step * np.arange(1, shells + 1, dtype=np.float64), count, sums)


def _ratios(cutoffs: Sequence[float] | None, axis: int, n_axes: int) -> list[float]:
    if cutoffs is None:
        return [1.0] * n_axes
    return [float(np.clip(c / cutoffs[axis], 1 / _MOST_RATIO, _MOST_RATIO)) for c in cutoffs]


def power_of(values: npt.NDArray[np.complexfloating]) -> npt.NDArray[Any]:
    """Return the squared magnitude of a transform."""
    power: npt.NDArray[Any] = values.real**2 + values.imag**2
    return power


def corner_power(spectrum: Spectrum, power: npt.NDArray[Any]) -> float:
    """Return the mean power where all frequencies are above 3/4 of Nyquist: of noise, in a sampled image."""
    high = [
        np.flatnonzero(f >= 0.75 * n)
        for f, n in zip(spectrum.frequencies(), spectrum.nyquist_per_um, strict=True)
    ]
    return float(power[np.ix_(*high)].mean(dtype=np.float64))


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
