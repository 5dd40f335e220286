"""How much coarser a stack is along z than along x and y, from the stack itself.

Idea: structures are alike in all directions on average, so that without the microscope the power of a
frequency would depend on its length alone. The point spread function lowers it by the square of its response,
which for Gaussians depends on the direction only through

    P(k) = S(|k|) exp(-(2 pi k_z)^2 s^2) + N,    s^2 = sigma_z^2 - sigma_x^2,

with k in cycles per micrometre, S including the lateral blur, and N the noise. Planes are samples at
distances d, so that S also appears around every multiple of 1 / d along k_z. The power is averaged over
rings and planes of the spectrum; S, s and N follow by the largest likelihood of exponentially distributed
power (Whittle, J. R. Stat. Soc. B 15, 125 (1953)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft
from scipy.signal.windows import hann

from napari_lfm.core.problems import RequestError

LEAST_PLANES, LEAST_SIDE_PX = 5, 24
_TILE_PX, _MOST_TILES, _GROUPS = 256, 36, 6
_WIDTHS = (0.15, 6.0)
"""Widths that are tried, in distances of planes."""
_COARSE, _FINE = 15, 7
_KNOTS, _ITERATIONS = 25, 25
_BAND = (0.4, 1.0)
"""Part of the frequencies above the noise that is used: of long structures there are few in a stack, so that
they are not alike in all directions, and they say little about the blur (by simulated specimens: 97 % of the
estimates within 10 % instead of 88 % with all frequencies)."""
_SYSTEMATIC = 0.03
"""Share of the width that specimens are off by although their parts agree (the same simulations)."""
_MOST_SHARE_OF_ERROR = 0.25


@dataclass(frozen=True)
class AxialBlur:
    """Anisotropic blur of a stack.

    Attributes
    ----------
    sigma_um : float
        ``sqrt(sigma_z^2 - sigma_x^2)``; NaN where it cannot be told.
    uncertainty_um : float
        One standard deviation, from parts of the stack and of the spectrum that were looked at alone.
    quality : float
        0 to 1: how much of what the spectrum varies by the model explains.
    note : str
        Why it cannot be told, or should be taken with care; empty where all is well.
    """

    sigma_um: float
    uncertainty_um: float
    quality: float
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a figure."""
        return bool(np.isfinite(self.sigma_um))


@dataclass(frozen=True)
class _Spectrum:
    """Mean power by ring and plane of frequencies."""

    power: np.ndarray  # (planes, rings)
    count: np.ndarray  # independent values in each
    k_z: np.ndarray  # (planes,) cycles per um
    k_xy: np.ndarray  # (rings,)
    spacing_um: float  # of planes


def estimate_axial_blur(stack: np.ndarray, voxel_um: tuple[float, float, float]) -> AxialBlur:
    """Return by how much a stack is blurred along z beyond its lateral blur.

    Parameters
    ----------
    stack : ndarray, shape (z, y, x)
        As recorded, linear in light, not interpolated along z.
    voxel_um : tuple of float
        (z, y, x).

    Returns
    -------
    AxialBlur
        With a sentence instead of a figure where the stack does not tell.

    Raises
    ------
    RequestError
        If it is no stack, voxel sizes make no sense, or values are no numbers.
    """
    stack = np.asarray(stack)
    if stack.ndim != 3:
        raise RequestError(
            f"The blur along z is estimated from a stack (z, y, x), not from {stack.ndim} axes.",
            "Choose one channel of one frame.",
        )
    if not (np.isfinite(voxel_um).all() and min(voxel_um) > 0):
        raise RequestError(f"Voxel sizes {tuple(voxel_um)} um make no sense.", "Give three above 0.")
    if len(stack) < LEAST_PLANES or min(stack.shape[1:]) < LEAST_SIDE_PX:
        return _unknown(
            f"{' x '.join(map(str, stack.shape))} voxels are too few to compare directions: "
            f"{LEAST_PLANES} planes of {LEAST_SIDE_PX} x {LEAST_SIDE_PX} pixels are the least"
        )
    tiles = _tiles(stack, voxel_um)
    if not all(np.isfinite(t).all() for t in tiles):
        raise RequestError("The stack holds values that are no numbers.", "Replace or crop them.")
    if max(float(t.std()) for t in tiles) <= 0:
        return _unknown("the stack is empty")
    spectra = [_spectrum(t, voxel_um) for t in tiles]
    sigma, quality, edge, gain = _fit(_joined(spectra))
    if gain < 3 or edge < 0:
        return _unknown("along z it is hardly more blurred than along x and y, or too noisy to tell", quality)
    if edge > 0:
        return _unknown("along z nothing but noise is left beyond the lowest frequencies", quality)
    spread = float(np.hypot(_spread(_parts(tiles, voxel_um)), _SYSTEMATIC * sigma))
    note = ""
    if spread > _MOST_SHARE_OF_ERROR * sigma:
        note = (
            f"The blur along z is uncertain by {100 * spread / sigma:.0f} %: parts of the stack differ, "
            "because there is little in it or it is not alike in all directions."
        )
    elif float(voxel_um[0]) > 2.5 * sigma:
        note = "Planes lie farther apart than the blur along z is wide: its figure is rather an upper bound."
    return AxialBlur(sigma, spread, quality, note)


def _unknown(why: str, quality: float = 0.0) -> AxialBlur:
    return AxialBlur(
        float("nan"),
        float("nan"),
        quality,
        f"The blur along z cannot be told from the stack: {why}. Give it, or take the microscope's.",
    )


def _tiles(stack: np.ndarray, voxel_um: tuple[float, float, float]) -> list[np.ndarray]:
    """Return cubes of a stack (as long along z as across), evenly spread.

    Windows smear the spectrum by the inverse of their length: by the same amount in all directions if the
    part is a cube, so that no direction loses more of it than another.
    """
    deep_um = len(stack) * voxel_um[0]
    size = [
        int(np.clip(round(deep_um / h), LEAST_SIDE_PX, min(n, _TILE_PX)))
        for n, h in zip(stack.shape[1:], voxel_um[1:], strict=True)
    ]
    wide_um = max(m * h for m, h in zip(size, voxel_um[1:], strict=True))
    planes = int(np.clip(round(wide_um / voxel_um[0]), LEAST_PLANES, len(stack)))
    starts = [
        np.unique(np.linspace(0, n - m, _starts(n, m)).astype(int))
        for n, m in zip(stack.shape, (planes, *size), strict=True)
    ]
    corners = [(z, y, x) for z in starts[0] for y in starts[1] for x in starts[2]]
    if len(corners) > _MOST_TILES:
        chosen = np.random.default_rng(0).permutation(len(corners))[:_MOST_TILES]
        corners = [corners[k] for k in sorted(chosen)]
    return [
        np.asarray(stack[z : z + planes, y : y + size[0], x : x + size[1]], np.float32) for z, y, x in corners
    ]


def _starts(count: int, size: int) -> int:
    """Return how many parts, half of each over the next, fill an axis."""
    return max(1, round(2 * (count / size - 1)) + 1)


def _spectrum(tile: np.ndarray, voxel_um: tuple[float, float, float]) -> _Spectrum:
    """Return the power of a part by frequency along z and laterally."""
    planes = len(tile)
    windows = [hann(n + 1)[1:] for n in tile.shape]
    weight = windows[0][:, None, None] * windows[1][:, None] * windows[2]
    weight = weight.astype(np.float32)
    mean = float((tile * weight).sum() / weight.sum())
    power = np.abs(fft.rfftn((tile - mean) * weight)) ** 2 / float((weight**2).sum())
    power = power[: planes // 2 + 1] + power[(-np.arange(planes // 2 + 1)) % planes]
    ky = np.fft.fftfreq(tile.shape[1], voxel_um[1])
    kx = np.fft.rfftfreq(tile.shape[2], voxel_um[2])
    length = np.hypot(ky[:, None], kx)
    step = max(1 / (n * h) for n, h in zip(tile.shape[1:], voxel_um[1:], strict=True))
    ring = np.rint(length / step).astype(int)
    most = int(min(np.abs(ky).max(), kx.max()) / step)
    inside = (ring <= most) & (ring > 0)
    count = np.bincount(ring[inside], minlength=most + 1)[1:].astype(float)
    place = ring[inside]
    mean_power = np.stack(
        [np.bincount(place, p[inside].astype(np.float64), most + 1)[1:] / count for p in power]
    )
    k_xy = np.bincount(place, length[inside], most + 1)[1:] / count
    # windows make neighbouring frequencies alike: fewer are independent
    free = float(np.prod([(w**2).mean() ** 2 / (w**4).mean() for w in windows]))
    both = np.full((len(mean_power), 1), 2.0)
    both[0] = 1  # its other half is the same
    return _Spectrum(
        mean_power / 2,
        count * free * both,
        np.arange(planes // 2 + 1) / (planes * voxel_um[0]),
        k_xy,
        float(voxel_um[0]),
    )


def _joined(spectra: list[_Spectrum]) -> _Spectrum:
    power = np.mean([s.power for s in spectra], axis=0)
    count = np.sum([s.count for s in spectra], axis=0)
    return replace(spectra[0], power=power, count=count)


def _fit(s: _Spectrum, band: tuple[float, float] = _BAND) -> tuple[float, float, int, float]:
    """Return width, quality, -1 or 1 where the width is below or above what was tried, and the gain.

    Parameters
    ----------
    s : _Spectrum
    band : tuple of float
        Part of the lengths of frequencies that is used; other parts tell the uncertainty.
    """
    d_k = s.k_z[1] - s.k_z[0]
    spacing = s.spacing_um
    # length of frequencies, of the copies that sampling makes too
    copies = np.array([0, -1, 1])
    k_z = s.k_z[None, :] + copies[:, None] / spacing  # (copies, planes)
    length = np.sqrt(k_z[..., None] ** 2 + s.k_xy**2)
    # lowest frequencies hold windows and haze
    least = 2.0 * max(d_k, s.k_xy[0])
    floor, reach = _noise(s, length[0])
    if reach <= 1.5 * least:
        return float("nan"), 0.0, -1, 0.0
    low, high = least + np.asarray(band) * (reach - least)
    use = (length[0] >= low) & (length[0] <= high) & (s.k_z[:, None] <= s.k_z[-1] + 1e-9)
    if np.count_nonzero(use) < 12:
        return float("nan"), 0.0, -1, 0.0
    # between knots S is a power of the length
    place = np.log(length / (0.5 * least)) / np.log(1.05 * reach / (0.5 * least)) * (_KNOTS - 1)
    place = np.clip(place, 0, _KNOTS - 1 - 1e-6)
    index = place.astype(int)
    share = place - index

    def costs(widths: np.ndarray) -> np.ndarray:
        return np.array([_cost(s, floor, use, k_z, index, share, v)[0] for v in widths])

    trials = np.concatenate([[0.0], np.geomspace(*_WIDTHS, _COARSE) * spacing])
    cost = costs(trials)
    best = int(np.argmin(cost))
    gain = float(cost[0] - cost[best])
    if best <= 1:
        return float("nan"), 0.0, -1, gain
    if best == len(trials) - 1:
        return float("nan"), 0.0, 1, gain
    trials = np.geomspace(trials[best - 1], trials[best + 1], _FINE)
    cost = costs(trials)
    best = int(np.clip(np.argmin(cost), 1, _FINE - 2))
    left, middle, right = cost[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    sigma = float(trials[best] * (trials[1] / trials[0]) ** float(np.clip(shift, -1, 1)))
    _, model = _cost(s, floor, use, k_z, index, share, sigma)
    seen, said = np.log(s.power[use]), np.log(model[use])
    weight = np.minimum(s.count[use], 50.0)
    centre = np.average(seen, weights=weight)
    total = np.average((seen - centre) ** 2, weights=weight)
    rest = np.average((seen - said) ** 2, weights=weight)
    quality = float(np.clip(1 - rest / max(total, 1e-12), 0, 1))
    return sigma, quality, 0, gain


def _cost(
    s: _Spectrum,
    floor: float,
    use: np.ndarray,
    k_z: np.ndarray,
    index: np.ndarray,
    share: np.ndarray,
    sigma: float,
) -> tuple[float, np.ndarray]:
    """Return the least negative log likelihood at a width, and the spectrum that belongs to it."""
    knots = _KNOTS
    response = np.exp(-((2 * np.pi * k_z * sigma) ** 2))[..., None]  # (copies, planes, 1)
    own = response[0] * np.ones_like(s.power)
    # the first guess of S from frequencies that the blur leaves over
    weight = np.where(use, s.count * own**2, 0.0)
    level = np.full(knots, np.nan)
    near = np.rint(index[0] + share[0]).astype(int)
    excess = np.maximum(s.power - floor, 0.02 * floor)
    top = np.bincount(near.ravel(), (weight * excess / np.maximum(own, 1e-12)).ravel(), knots)
    bottom = np.bincount(near.ravel(), weight.ravel(), knots)
    known = bottom > 0
    level[known] = np.log(top[known] / bottom[known])
    level = np.interp(np.arange(knots), np.flatnonzero(known), level[known])
    model = np.empty_like(s.power)
    counts = np.where(use, np.minimum(s.count, 1e4), 0.0)
    for _ in range(_ITERATIONS):
        spectrum = np.exp(level[index] * (1 - share) + level[np.minimum(index + 1, knots - 1)] * share)
        parts = spectrum * response
        model = parts.sum(0) + floor
        # Fisher's scoring, one knot at a time is not needed: the overlap of neighbours is small
        slope = counts * (s.power - model) / model**2
        bend = counts / model**2
        gradient, hessian = np.zeros(knots), np.full(knots, 1e-9)
        for c in range(len(k_z)):
            for part, where in ((1 - share[c], index[c]), (share[c], np.minimum(index[c] + 1, knots - 1))):
                d = parts[c] * part
                gradient += np.bincount(where.ravel(), (slope * d).ravel(), knots)
                # all of the frequency's weight, not the knot's share: steps that neighbours take too
                hessian += np.bincount(where.ravel(), (bend * d * parts.sum(0)).ravel(), knots)
        # smooth where nothing is known
        curve = np.zeros(knots)
        curve[1:-1] = level[:-2] - 2 * level[1:-1] + level[2:]
        step = np.clip((gradient + 0.3 * curve) / (hessian + 0.6), -1.0, 1.0)
        level = level + step
        if np.abs(step).max() < 1e-3:
            break
    value = float((counts * (np.log(model) + s.power / model)).sum())
    return value, model


def _noise(s: _Spectrum, length: np.ndarray) -> tuple[float, float]:
    """Return the level of noise, and the length of frequencies up to which there is something else."""
    # first where there is least structure: long lateral frequencies with large k_z
    far = np.zeros(s.power.shape, bool)
    far[-max(1, len(s.k_z) // 3) :, -max(2, len(s.k_xy) // 6) :] = True
    reach = 0.0
    for _ in range(3):
        floor = max(float(np.average(s.power[far], weights=s.count[far])), 1e-9 * float(s.power.max()))
        above = np.flatnonzero(s.power[0] - floor > 0.15 * floor)
        if not len(above):
            return floor, 0.0
        # the first gap ends it: beyond are single rings that are high by chance
        gaps = np.flatnonzero(np.diff(above) > 2)
        reach = float(s.k_xy[above[gaps[0]] if len(gaps) else above[-1]])
        beyond = length > 1.3 * reach
        if np.count_nonzero(beyond) < 20:
            break
        far = beyond
    return floor, reach


def _parts(tiles: list[np.ndarray], voxel_um: tuple[float, float, float]) -> list[_Spectrum]:
    """Return spectra of parts: of the cubes, or of their quarters where there are few cubes."""
    if len(tiles) < 4:
        half = [max(n // 2, 2) for n in tiles[0].shape[1:]]
        tiles = [
            tile[:, y : y + half[0], x : x + half[1]]
            for tile in tiles
            for y in (0, tile.shape[1] - half[0])
            for x in (0, tile.shape[2] - half[1])
        ]
    return [_spectrum(t, voxel_um) for t in tiles]


def _spread(spectra: list[_Spectrum]) -> float:
    """Return the standard deviation of the width over parts of the stack and of the spectrum.

    Of parts: the jackknife over groups of cubes (Efron and Stein, Ann. Stat. 9, 586 (1981)).
    """
    groups = min(_GROUPS, len(spectra))
    parts = 0.0
    if groups > 1:
        place = np.arange(len(spectra)) * groups // len(spectra)
        left_out = [
            _joined([s for s, p in zip(spectra, place, strict=True) if p != k]) for k in range(groups)
        ]
        found = np.array([_fit(s)[0] for s in left_out])
        found = found[np.isfinite(found)]
        if len(found) < 2:
            return float("inf")
        parts = float(np.sqrt((len(found) - 1) * found.var()))
    whole = _joined(spectra)
    bands = np.array([_fit(whole, band)[0] for band in ((0.25, 0.8), (0.55, 1.0))])
    bands = bands[np.isfinite(bands)]
    if groups == 1 and len(bands) < 2:
        return float("inf")
    return float(np.hypot(parts, 0.5 * np.ptp(bands) if len(bands) == 2 else 0.0))
