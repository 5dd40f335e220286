"""First guess of the lattice from the Fourier spectrum of a frame: kind, pitch, rotation, phase.

A lenslet image is specimen times a periodic pattern of discs, so its spectrum has peaks on the
reciprocal lattice, whatever the specimen. All that follows only refines what is found here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft, ndimage

Kind = Literal["square", "hexagonal"]

MIN_PITCH_PX = 4.0
MIN_LENSLETS = 5
_MAX_CANDIDATES = 80
_MAX_REFINED = 1024
_HARMONICS = {
    "square": [(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2)],
    "hexagonal": [(1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (1, -1)],
}
# fundamentals: the shortest vectors of the reciprocal lattice; with f2 at +90 or +120 degrees from f1
_FUNDAMENTALS = {"square": [(1, 0), (0, 1)], "hexagonal": [(1, 0), (0, 1), (1, 1)]}
# points where a lattice 2, sqrt(2), 3 or sqrt(3) times as wide would have its fundamentals
_BETWEEN = [
    [(0.5, 0), (0, 0.5)],
    [(0.5, 0.5), (0.5, -0.5)],
    [(1 / 3, 0), (0, 1 / 3)],
    [(1 / 3, 2 / 3), (2 / 3, 1 / 3), (1 / 3, -1 / 3)],
]
# the same for sqrt(5) (square) and sqrt(7) (hexagonal), of either handedness
_BETWEEN_TURNED = {
    "square": [[(2 / 5, 1 / 5), (-1 / 5, 2 / 5)], [(1 / 5, 2 / 5), (-2 / 5, 1 / 5)]],
    "hexagonal": [
        [(3 / 7, 1 / 7), (2 / 7, 3 / 7), (-1 / 7, 2 / 7)],
        [(1 / 7, 3 / 7), (3 / 7, 2 / 7), (2 / 7, -1 / 7)],
    ],
}
_CHANCE = 3.0
"""What the largest of a few bins of noise reaches over the mean."""
_NEAR_NOMINAL = 0.2
_NOMINAL_GAIN = 5.0
"""A lattice near the nominal pitch is taken unless another explains the spectrum this much better."""
_ANGLE = {"square": np.pi / 2, "hexagonal": 2 * np.pi / 3}


@dataclass(frozen=True)
class SpectralGuess:
    """Lattice read off the spectrum.

    Attributes
    ----------
    kind : str
        ``"square"`` or ``"hexagonal"``.
    row_step, column_step : numpy.ndarray
        Lattice steps (y, x) in px; rows run down (or leftwards), columns to the right (or down).
    origin : numpy.ndarray
        (y, x) of one lenslet centre near the middle of the frame.
    contrast : float
        How far the weakest fundamental stands above the spectrum around it (amplitude ratio).
    """

    kind: Kind
    row_step: np.ndarray
    column_step: np.ndarray
    origin: np.ndarray
    contrast: float


def find_lattice(
    image: np.ndarray, kind: Kind | None = None, nominal_pitch_px: float | None = None
) -> SpectralGuess | None:
    """Find the lenslet lattice in an image by its spectrum.

    Parameters
    ----------
    image : numpy.ndarray
        Frame (y, x), light or its logarithm.
    kind : str, optional
        Only look for this lattice; None tries both.
    nominal_pitch_px : float, optional
        Expected pitch: lattices within 20 % of it are taken unless the peaks clearly speak against it.

    Returns
    -------
    SpectralGuess or None
        None where no set of peaks fits a lattice.
    """
    height, width = image.shape
    amplitude, fy, fx = _whitened_amplitude(_windowed(image))
    # pitches too wide for 5 lenslets are found too, to be refused by name
    max_pitch = min(height, width) / (MIN_LENSLETS - 2)
    candidates = _local_maxima(amplitude, fy, fx, 1 / max_pitch, 1 / MIN_PITCH_PX)
    kinds: tuple[Kind, ...] = ("square", "hexagonal") if kind is None else (kind,)
    scored = [(_score(amplitude, fy, fx, f1, which), which, f1) for which in kinds for f1 in candidates]
    if not scored:
        return None
    best = max(scored, key=lambda c: c[0])
    if nominal_pitch_px is not None:
        near = [c for c in scored if abs(_pitch(c[2], c[1]) / nominal_pitch_px - 1) <= _NEAR_NOMINAL]
        likely = max(near, key=lambda c: c[0], default=best)
        # harmonics of another pitch score far lower: those between them are peaks too
        if likely[0] > best[0] / _NOMINAL_GAIN:
            best = likely
    _, which, f1 = best
    flat = _windowed(_middle(image))
    vectors = _refine(flat, f1, which)
    contrast = min(_peak(amplitude, fy, fx, m * vectors[0] + n * vectors[1]) for m, n in _FUNDAMENTALS[which])
    middle = (np.array(image.shape) - 1) / 2
    return _real_space(flat, middle, which, vectors, contrast)


def _whitened_amplitude(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the amplitude spectrum over its mean at the same spatial frequency, and its axes."""
    shape = [fft.next_fast_len(n, real=True) for n in flat.shape]
    amplitude = np.abs(fft.rfft2(flat.astype(np.float32), s=shape))
    fy, fx = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    radius = np.hypot(fy[:, None], fx[None, :])
    # specimens have strong low frequencies: compare each peak with its own ring, in the log mean
    ring = np.minimum((radius * max(shape) / 3).astype(np.int32), max(shape) // 6)
    log = np.log(amplitude + 1e-6 * amplitude.max() + 1e-30)
    count = np.maximum(np.bincount(ring.ravel()), 1)
    level = np.bincount(ring.ravel(), log.ravel()) / count
    for _ in range(3):  # peaks must not raise the level of their own ring: small rings have few bins
        level = np.bincount(ring.ravel(), np.minimum(log, level[ring] + 1).ravel()) / count
    return np.exp(log - level[ring]), fy, fx


def _local_maxima(
    amplitude: np.ndarray, fy: np.ndarray, fx: np.ndarray, low: float, high: float
) -> list[np.ndarray]:
    """Return the strongest peaks (fy, fx) of the half plane with ``low <= |f| <= high``."""
    radius = np.hypot(fy[:, None], fx[None, :])
    peak = (amplitude == ndimage.maximum_filter(amplitude, 5)) & (radius >= low) & (radius <= high)
    rows, cols = np.nonzero(peak)
    order = np.argsort(amplitude[rows, cols])[::-1][:_MAX_CANDIDATES]
    return [np.array([fy[r], fx[c]]) for r, c in zip(rows[order], cols[order], strict=True)]


def _peak(amplitude: np.ndarray, fy: np.ndarray, fx: np.ndarray, f: np.ndarray) -> float:
    """Return the largest amplitude within two bins (or 2 %) of frequency f."""
    if f[1] < 0:
        f = -f
    step_y, step_x = abs(fy[1]), fx[1]
    if abs(f[0]) > 0.5 or f[1] > 0.5:
        return 1.0
    reach = 0.02 * np.hypot(*f)
    dy, dx = int(np.ceil(max(1.5, reach / step_y))), int(np.ceil(max(1.5, reach / step_x)))
    row, col = round(f[0] / step_y), round(f[1] / step_x)
    rows = np.arange(row - dy, row + dy + 1) % len(fy)
    cols = np.abs(np.arange(col - dx, col + dx + 1))
    cols = cols[cols < len(fx)]
    return float(amplitude[np.ix_(rows, cols)].max())


def _turned(f: np.ndarray, angle: float) -> np.ndarray:
    """Return (y, x) vector f turned by `angle` from x towards y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * f[0] + sin * f[1], -sin * f[0] + cos * f[1]])


def _score(amplitude: np.ndarray, fy: np.ndarray, fx: np.ndarray, f1: np.ndarray, kind: Kind) -> float:
    """Return how well the reciprocal lattice with shortest vector f1 explains the spectrum."""
    f2 = _turned(f1, _ANGLE[kind])

    def at(m: float, n: float) -> float:
        return max(_peak(amplitude, fy, fx, m * f1 + n * f2), 1.0)

    fundamentals = [at(*mn) for mn in _FUNDAMENTALS[kind]]
    # every fundamental must be there: the geometric mean, and the weakest counts twice
    score = np.exp(np.mean(np.log([*fundamentals, min(fundamentals)])))
    others = [at(*mn) for mn in _HARMONICS[kind] if mn not in _FUNDAMENTALS[kind]]
    # peaks in between belong to the true lattice, of which this one has every second or third
    penalty = 1.0
    for orders in _BETWEEN + _BETWEEN_TURNED[kind]:
        penalty = max(penalty, np.exp(np.mean(np.log([at(*mn) for mn in orders]))) / _CHANCE)
    return float(score * np.exp(np.mean(np.log(others))) ** 0.25 / penalty**2)


def _pitch(f1: np.ndarray, kind: Kind) -> float:
    """Return the lenslet pitch that belongs to a shortest reciprocal vector."""
    return float((2 / np.sqrt(3) if kind == "hexagonal" else 1.0) / np.hypot(*f1))


def _windowed(image: np.ndarray) -> np.ndarray:
    """Return the image without its mean, faded out towards its border."""
    height, width = image.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    return np.asarray((image - np.average(image, weights=window)) * window)


def _middle(image: np.ndarray) -> np.ndarray:
    """Return at most `_MAX_REFINED` rows and columns about the same middle: precise enough, and fast."""
    cut = [max(0, (n - _MAX_REFINED) // 2) for n in image.shape]
    return image[cut[0] : image.shape[0] - cut[0], cut[1] : image.shape[1] - cut[1]]


def _transform(flat: np.ndarray, fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
    """Return the Fourier transform at all pairs of `fy` and `fx`, phase referred to the middle."""
    height, width = flat.shape
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    along_x = 2 * np.pi * x[:, None] * np.asarray(fx)
    # a plain loop: BLAS would start threads for each of many small products
    real = np.einsum("yx,xk->yk", flat, np.concatenate([np.cos(along_x), -np.sin(along_x)], axis=1))
    rows = real[:, : len(fx)] + 1j * real[:, len(fx) :]
    return np.asarray(np.einsum("yj,yk->jk", np.exp(-2j * np.pi * y[:, None] * np.asarray(fy)), rows))


def _climb(flat: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the maximum of the transform's magnitude near f, to a small part of a bin."""
    step = 0.5 / np.array(flat.shape)
    for _ in range(3):
        near = f[:, None] + step[:, None] * np.array([-1, 0, 1])
        log = np.log(np.abs(_transform(flat, near[0], near[1])) + 1e-30)
        move = np.zeros(2)
        for axis, (down, here, up) in enumerate((log[:, 1], log[1])):
            curvature = up - 2 * here + down
            # a parabola through three log magnitudes is exact for a Gaussian-like window
            move[axis] = (
                np.clip(0.5 * (down - up) / curvature, -2, 2) if curvature < 0 else np.sign(up - down)
            )
        f = f + move * step
        step = step / 2
    return f, float(np.abs(_transform(flat, f[:1], f[1:]))[0, 0])


def _refine(flat: np.ndarray, f1: np.ndarray, kind: Kind) -> np.ndarray:
    """Return both reciprocal vectors (2, 2), fitted to the sub-bin positions of all harmonics."""
    vectors = np.array([f1, _turned(f1, _ANGLE[kind])])
    for orders in (_FUNDAMENTALS[kind], _HARMONICS[kind]):
        found, weight = [], []
        for order in orders:
            guess = np.asarray(order) @ vectors
            if np.abs(guess).max() > 0.45:
                continue
            peak, strength = _climb(flat, guess)
            near = np.abs((peak - guess) * flat.shape).max() < 3  # bins; further off is another peak
            found.append((order, peak))
            weight.append(strength if near else 0.0)
        if np.count_nonzero(weight) < 2:
            continue
        root = np.sqrt(np.array(weight))[:, None]
        design = np.array([order for order, _ in found], float)
        solution, _, rank, _ = np.linalg.lstsq(design * root, np.array([p for _, p in found]) * root)
        if rank == 2:
            vectors = solution
    return vectors


def _real_space(
    flat: np.ndarray, middle: np.ndarray, kind: Kind, vectors: np.ndarray, contrast: float
) -> SpectralGuess:
    """Turn reciprocal vectors into lattice steps aligned with the frame, and find a centre."""
    steps = np.linalg.inv(vectors).T  # steps[i] . vectors[j] = delta_ij
    # bright discs have a positive fundamental: its phase is -2 pi f.c
    phases = np.array([-np.angle(_transform(flat, f[:1], f[1:])[0, 0]) / (2 * np.pi) for f in vectors])
    origin = middle + phases @ steps
    if kind == "hexagonal":
        a, b = steps
        # reciprocal vectors 120 degrees apart give steps 60 degrees apart: six neighbours
        neighbours = [a, b, b - a, -a, -b, a - b]
        column = max(neighbours, key=lambda s: max(s[1], s[0] * 0.999) / np.hypot(*s))
        row = max((s for s in neighbours), key=lambda s: _across(column, s) - abs(s @ column) * 1e-3)
        row = row - (row @ column) / (column @ column) * column  # half a column is added back per odd row
    else:
        options = [steps[0], steps[1], -steps[0], -steps[1]]
        column = max(options, key=lambda s: s[1] / np.hypot(*s))
        row = max(options, key=lambda s: _across(column, s))
    return SpectralGuess(kind, row, column, origin, contrast)


def _across(column: np.ndarray, step: np.ndarray) -> float:
    """Return the component of `step` a quarter turn from `column` (from x towards y)."""
    return float((step[0] * column[1] - step[1] * column[0]) / np.hypot(*column))
