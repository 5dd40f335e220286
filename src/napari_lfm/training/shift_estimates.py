"""Two independent estimates of the shift between a wide-field and a confocal stack of one object.

`psf_by_primal_dual` is the published one: the point spread function that turns the confocal stack into the
wide-field one is computed, and its brightest entry tells the shift (the WFCON-Net paper, equations 2 and 3;
solver of Chambolle and Pock, J. Math. Imaging Vis. 40, 120 (2011)). `high_pass_correlation` is normalised
cross-correlation of stacks without their haze, over the overlap alone (Padfield, IEEE Trans. Image Process.
21, 2706 (2012)). Both give a map over shifts; `read_peak` reads shift and confidence from either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.fft import next_fast_len

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Vector = tuple[float, float, float]

LAMBDA, MU = 1.0, 10.0
"""Weights of total variation and energy, as published."""
TV_SCALE = 0.03
"""Total variation of one counts as much as this share of the correlation's height."""
_TAPER = 0.15
# primal step, for data whose spectrum has a mean power of 1: frequencies that are weaker than 1 / (2 tau) of
# that come in with the iterations, so that few of them leave the noise out
_TAU = 5.0
_GRADIENT_NORM2 = 12.0  # of 3-D forward differences


@dataclass(frozen=True)
class Peak:
    """The highest place of a map over shifts.

    Attributes
    ----------
    shift : (z, y, x)
        Voxels, with fractions.
    height : float
    rival : float
        The highest value away from the peak, over the map's median.
    confidence : float
        ``1 - rival / height``, both over the median: 0 where another place is as high.
    profile : ndarray, shape (n,)
        Along z through the peak.
    offsets : ndarray, shape (n,)
        Shifts along z that belong to `profile`, voxels.
    at_end : tuple of bool
        For each axis, whether the peak lies at the end of what was searched.
    """

    shift: Vector
    height: float
    rival: float
    confidence: float
    profile: np.ndarray
    offsets: np.ndarray
    at_end: tuple[bool, bool, bool]


def window(shape: Sequence[int], device: torch.device | str = "cpu", share: float = _TAPER) -> torch.Tensor:
    """Return a window that falls to nearly 0 at the faces over `share` of each axis (Tukey's)."""
    out = torch.ones(tuple(shape), device=device)
    for axis, n in enumerate(shape):
        ramp = max(1, round(share * n))
        edge = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
        line = 0.5 - 0.5 * np.cos(np.pi * np.clip(edge / ramp, 0, 1))
        sides = [1] * len(shape)
        sides[axis] = n
        out *= torch.as_tensor(line, dtype=torch.float32, device=device).reshape(sides)
    return out


def blurred(stack: torch.Tensor, sigma: Sequence[float]) -> torch.Tensor:
    """Return a stack blurred by a Gaussian, axis by axis; its end values go on beyond the faces."""
    out = stack
    for axis, s in enumerate(sigma):
        if s <= 0:
            continue
        reach = min(max(1, round(3 * s)), 4 * stack.shape[axis])
        at = torch.arange(-reach, reach + 1, device=stack.device)
        kernel = torch.exp(-0.5 * (at / s) ** 2)
        line = out.movedim(axis, -1)
        flat = line.reshape(-1, 1, line.shape[-1])
        flat = torch.nn.functional.pad(flat, (reach, reach), mode="replicate")
        flat = torch.nn.functional.conv1d(flat, (kernel / kernel.sum()).reshape(1, 1, -1))
        out = flat.reshape(line.shape).movedim(-1, axis)
    return out


def high_passed(
    stack: torch.Tensor, fine: float = 2.0, coarse: float = 6.0, fine_z: float = 0.5
) -> torch.Tensor:
    """Return what is between two scales, across: without haze, and without the finest noise.

    Across only: light from other planes is spread across, so that it goes with the haze.
    """
    smooth = blurred(stack, (fine_z, fine, fine))
    return torch.as_tensor(smooth - blurred(smooth, (0, coarse, coarse)))


# ------------------------------------------------------------------- correlation
def high_pass_correlation(
    moving: torch.Tensor, fixed: torch.Tensor, reach: Sequence[int], least_overlap: float = 0.25
) -> torch.Tensor:
    """Return the normalised cross-correlation of two stacks over shifts.

    Parameters
    ----------
    moving, fixed : Tensor, shape (z, y, x)
        Without haze (`high_passed`).
    reach : sequence of int
        Largest shift on each axis.
    least_overlap : float
        Shifts that leave less of the windowed stacks are not considered (0 there).

    Returns
    -------
    Tensor, shape (2 reach + 1, ...)
        Entry ``reach + d``: correlation of ``moving[r + d]`` with ``fixed[r]``.
    """
    shape = tuple(fixed.shape)
    size = tuple(next_fast_len(n + r, real=True) for n, r in zip(shape, reach, strict=True))
    weight = window(shape, fixed.device)

    def spectrum(values: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(torch.fft.rfftn(values, s=size))

    def correlate(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        full = torch.fft.irfftn(one * two.conj(), s=size)
        full = torch.roll(full, tuple(reach), (0, 1, 2))
        return full[tuple(slice(0, 2 * r + 1) for r in reach)]

    mask = spectrum(weight)
    a, b = spectrum(moving * weight), spectrum(fixed * weight)
    top = correlate(a, b)
    del a, b
    # energies over the overlap alone: elsewhere the other stack is not known
    energy = correlate(spectrum(moving**2 * weight), mask).clamp(min=0)
    energy *= correlate(mask, spectrum(fixed**2 * weight)).clamp(min=0)
    share = correlate(mask, mask) / float((weight**2).sum())
    low = 1e-6 * float(energy.max())
    out = torch.where(share >= least_overlap, top / torch.sqrt(energy.clamp(min=max(low, 1e-30))), 0.0)
    return torch.as_tensor(out)


# ------------------------------------------------------------------------- PSF
def prepared(stack: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return a stack with its background off and a mean of 1, then without the mean, windowed.

    The mean goes before the window comes: a windowed pedestal is the same in both stacks, and would speak
    for no shift at all.
    """
    flat = stack.reshape(-1)
    low = float(torch.quantile(flat[:: max(1, flat.numel() // 100_000)], 0.02))
    light = stack - low
    mean = (light * weight).sum() / weight.sum()
    return torch.as_tensor((light / mean.clamp(min=1e-12) - 1) * weight)


def psf_by_primal_dual(
    moving: torch.Tensor,
    fixed: torch.Tensor,
    iterations: int = 60,
    lam: float = LAMBDA,
    mu: float = MU,
) -> Iterator[torch.Tensor]:
    """Give, iteration by iteration, the point spread function that turns `fixed` into `moving`.

    Minimises ``|f (*) x - y|^2 + lam s1 |grad f|_1 + mu s2 (sum f - 1)^2`` (equation 2), by equation 3 with
    the gradient as K, theta 1 and sigma tau |K|^2 = 1. The proximal step of data and energy is exact in the
    frequency domain, that of the total variation limits every gradient's length.

    The published weights only mean something beside an intensity: the stacks have a mean of 1 (`prepared`),
    everything is divided by the energy of x, so that the mean power of its spectrum is 1, and ``s1`` is
    `TV_SCALE` times the correlation's height ``max |x* y| / |x|^2``, which scales as f does; ``s2`` is 1.

    Parameters
    ----------
    moving, fixed : Tensor, shape (z, y, x)
        y and x, `prepared`.
    iterations : int
    lam, mu : float

    Yields
    ------
    Tensor, shape (z, y, x)
        f, its zero shift at index 0; shifts wrap round at half the size.
    """
    shape = tuple(fixed.shape)
    count = fixed.numel()
    energy = float((fixed**2).sum())
    x = torch.fft.rfftn(fixed) / np.sqrt(energy)
    y = torch.fft.rfftn(moving) / np.sqrt(energy)
    cross = x.conj() * y
    power = x.abs() ** 2
    del x, y
    bound = lam * TV_SCALE * float(torch.fft.irfftn(cross, s=shape).abs().max())
    sigma = 1.0 / (_GRADIENT_NORM2 * _TAU)
    below = 2 * power + 1 / _TAU
    below[0, 0, 0] += 2 * mu * count
    f = torch.zeros(shape, device=fixed.device)
    leading = f.clone()
    dual = torch.zeros((3, *shape), device=fixed.device)
    for _ in range(iterations):
        for axis in range(3):
            dual[axis].add_(torch.roll(leading, -1, axis) - leading, alpha=sigma)
        dual /= (dual.square().sum(0).sqrt() / max(bound, 1e-30)).clamp(min=1.0)
        # the gradient's adjoint is minus the divergence
        back = torch.zeros_like(f)
        for axis in range(3):
            back += torch.roll(dual[axis], 1, axis) - dual[axis]
        top = torch.fft.rfftn(f - _TAU * back) / _TAU + 2 * cross
        top[0, 0, 0] += 2 * mu * count
        new = torch.fft.irfftn(top / below, s=shape)
        leading = 2 * new - f
        f = new
        yield f


def unwrapped(map_: torch.Tensor, reach: Sequence[int]) -> torch.Tensor:
    """Return the part of a map whose zero shift is at index 0, with the zero shift in its middle."""
    rolled = torch.roll(map_, tuple(reach), (0, 1, 2))
    return rolled[tuple(slice(0, 2 * r + 1) for r in reach)]


# ------------------------------------------------------------------------ peaks
def read_peak(map_: torch.Tensor, away: Sequence[int] = (3, 6, 6)) -> Peak:
    """Read the highest place of a map whose zero shift is in its middle.

    Parameters
    ----------
    map_ : Tensor, shape (2 n + 1, ...)
    away : sequence of int
        Half size of the box around the peak in which no rival is looked for, at least; broad peaks have a
        larger one.
    """
    values = map_.detach().cpu().numpy().astype(np.float64)
    reach = [n // 2 for n in values.shape]
    top = np.unravel_index(int(values.argmax()), values.shape)
    place = [int(k) for k in top]
    at_end = tuple(n > 1 and k in (0, n - 1) for k, n in zip(place, values.shape, strict=True))
    shift = [
        k - r + _vertex(values, place, axis) for axis, (k, r) in enumerate(zip(place, reach, strict=True))
    ]
    height = float(values[tuple(place)])
    floor = float(np.median(values[:, ::4, ::4]))
    # a broad peak's own flanks are no rivals
    wide = [max(a, 2 * _half_width(values, place, axis, floor)) for axis, a in enumerate(away)]
    around = tuple(slice(max(0, k - w), k + w + 1) for k, w in zip(place, wide, strict=True))
    kept = values[around].copy()
    values[around] = -np.inf
    rival = float(values.max())
    values[around] = kept
    rival = floor if not np.isfinite(rival) else rival
    over = height - floor
    confidence = float(np.clip(1 - (rival - floor) / over, 0, 1)) if over > 0 else 0.0
    return Peak(
        (shift[0], shift[1], shift[2]),
        height,
        rival,
        confidence,
        values[:, place[1], place[2]].copy(),
        np.arange(values.shape[0], dtype=float) - reach[0],
        (at_end[0], at_end[1], at_end[2]),
    )


def _half_width(values: np.ndarray, place: Sequence[int], axis: int, floor: float) -> int:
    """Return how far from the peak, along an axis, a map has fallen to half of its height over the floor."""
    line = values[tuple(slice(None) if a == axis else k for a, k in enumerate(place))]
    half = 0.5 * (line[place[axis]] + floor)
    below = np.flatnonzero(line < half)
    return int(np.abs(below - place[axis]).min()) if len(below) else len(line)


def _vertex(values: np.ndarray, place: Sequence[int], axis: int) -> float:
    """Return where between its neighbours a parabola through three values has its top, -0.5 to 0.5."""
    k = place[axis]
    if not 0 < k < values.shape[axis] - 1:
        return 0.0
    at = list(place)
    three = []
    for step in (-1, 0, 1):
        at[axis] = k + step
        three.append(float(values[tuple(at)]))
    bend = three[0] - 2 * three[1] + three[2]
    return float(np.clip(0.5 * (three[0] - three[2]) / bend, -0.5, 0.5)) if bend < 0 else 0.0
