"""The search for a shift, and a turn: coarsely in the whole stacks, finely in a box of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import resample_onto
from napari_lfm.training.registration_grid import (
    LEAST_SHAPE,
    Stack,
    Turn,
    places,
    sample,
    shared_range,
    textured_box,
)
from napari_lfm.training.registration_result import TITLES, Estimate, Method, Registration, Vector
from napari_lfm.training.registration_turn import find_turn, projected
from napari_lfm.training.shift_estimates import (
    high_pass_correlation,
    high_passed,
    prepared,
    psf_by_primal_dual,
    read_peak,
    unwrapped,
    window,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from napari_lfm.training.shift_estimates import Peak

LEAST_CONFIDENCE = 0.1
"""An estimate with less is not believed."""
PSF_WEIGHT = 0.2
"""Of the estimate by the point spread function in the combined one: on simulated pairs with haze its errors
are about twice those of the correlation."""
AXES = ("z", "y", "x")
_SHOWN = (8, 12, 12)


@dataclass
class _Pair:
    """Both stacks, and how the moving one is turned."""

    still: Stack
    target: Stack
    small: list[xr.DataArray]
    box: Sequence[int]
    device: str
    turn: Turn = field(default_factory=Turn)

    def look(self, start: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
        """Return the textured box of both after a shift, on the fixed one's grid, and where that is."""
        part = _part(self.still, self.target, self.small[1], start, self.box)
        return self.moving(_um(start, self.target), part, self.turn), self.fixed(part), part

    def moving(self, shift_um: Sequence[float], part: Sequence[slice], turn: Turn | None) -> torch.Tensor:
        """Return the moving stack after a shift."""
        return _tensor(self.still, places(self.target, shift_um, part), turn, self.device)

    def fixed(self, part: Sequence[slice]) -> torch.Tensor:
        """Return a part of the fixed stack."""
        return _tensor(self.target, places(self.target, (0.0, 0.0, 0.0), part), None, self.device)


def search(
    still: Stack,
    target: Stack,
    small: list[xr.DataArray],
    notes: list[str],
    tolerance: float,
    turning: bool,
    limits: tuple[float, float],
    iterations: int,
    box: Sequence[int],
    device: str,
) -> Iterator[Progress | Registration]:
    """Give progress, and at last how `still` comes to lie upon `target`.

    Parameters
    ----------
    still, target : Stack
        Moving and fixed.
    small : list of xarray.DataArray
        Both seen coarsely.
    notes : list of str
        What was made to fit.
    tolerance, turning, limits, iterations, box, device
        As for `napari_lfm.training.registration.register_pair`.
    """
    pair = _Pair(still, target, small, box, device)
    steps = 2 * iterations + 20
    start = _start(pair)
    if turning:
        yield from _turn(pair, start, limits, steps)
    yield Progress(10, steps, "Correlating")
    matched, begun, part = _match(pair, start)
    spread, kernel, own = None, None, list(start)
    for number, event in enumerate(_spread(pair, start, iterations)):
        if isinstance(event, int):
            yield Progress(min(20 + number, steps), steps, f"Point spread function, step {event}")
        else:
            spread, kernel, own = event
    assert spread is not None and kernel is not None

    both = _estimate("psf", spread, own, target), _estimate("correlation", matched, begun, target)
    apart = [abs(a - b) for a, b in zip(both[0].shift_voxels, both[1].shift_voxels, strict=True)]
    agreed = all(a <= tolerance for a in apart)
    accepted, reason = _verdict(both, agreed, tolerance)
    if any(matched.at_end):
        axis = AXES[matched.at_end.index(True)]
        reason = (
            f"Along {axis} the best match lies at the end of what can be searched: the shift may be more "
            "than half of what the stacks share. Bring them nearer by hand first."
        )
        accepted = False
    weight = PSF_WEIGHT if agreed else 0.0
    z, y, x = (
        weight * a + (1 - weight) * b for a, b in zip(both[0].shift_voxels, both[1].shift_voxels, strict=True)
    )
    shift = _um((z, y, x), target)
    _refuse_no_overlap(still, target, shift)
    sharp = high_passed(pair.fixed(part))
    before = high_passed(pair.moving((0.0, 0.0, 0.0), part, None))
    after = high_passed(pair.moving(shift, part, pair.turn))
    yield Registration(
        shift_um=shift,
        shift_voxels=(z, y, x),
        rotation_deg=pair.turn.rotation_deg,
        magnification=pair.turn.magnification,
        centre_um=pair.turn.centre_um,
        estimates=both,
        agreed=agreed,
        accepted=accepted,
        reason=reason,
        notes=tuple(notes),
        psf=_shown(kernel, spread.shift, own, target),
        z_um=target.axis(0)[part[0]],
        correlation_before=_plane_by_plane(before, sharp, pair, part[0], 0.0),
        correlation_after=_plane_by_plane(after, sharp, pair, part[0], z),
    )


def _turn(pair: _Pair, start: Sequence[int], limits: tuple[float, float], steps: int) -> Iterator[Progress]:
    """Find how the moving stack is turned, in projections of the box."""
    wide, sharp, part = pair.look(start)
    pixel = pair.target.voxel[1], pair.target.voxel[2]
    for found in find_turn(projected(wide), projected(sharp), pixel, *limits):
        if isinstance(found, tuple):
            yield Progress(4, steps, f"Turning, {found[0]} of {found[1]}")
        else:
            y, x = (
                float(pair.target.axis(k)[part[k].start] + c)
                for k, c in zip((1, 2), found.centre_um, strict=True)
            )
            pair.turn = replace(found, centre_um=(y, x))


def _match(pair: _Pair, start: list[int]) -> tuple[Peak, list[int], list[slice]]:
    """Return the peak of the correlation, from which shift it counts, and the box; made twice."""
    for again in (True, False):
        wide, sharp, part = pair.look(start)
        reach = [n // 2 for n in wide.shape]
        peak = read_peak(high_pass_correlation(high_passed(wide), high_passed(sharp), reach))
        away = [round(s) for s in peak.shift]
        if not again or any(peak.at_end) or not any(away):
            break
        start = [a - b for a, b in zip(start, away, strict=True)]
    return peak, start, part


def _spread(
    pair: _Pair, start: list[int], iterations: int
) -> Iterator[int | tuple[Peak, torch.Tensor, list[int]]]:
    """Give the steps, and at last the peak of the point spread function, it, and from where it counts.

    The window that keeps the stacks from wrapping round favours small shifts: once there is an estimate, both
    are cut anew by that, and the estimate is made again.
    """
    done = 0
    for again in (True, False):
        wide, sharp, _ = pair.look(start)
        weight = window(wide.shape, wide.device)
        kernel = wide
        for kernel in psf_by_primal_dual(  # noqa: B007  (the last one is what is wanted)
            prepared(wide, weight), prepared(sharp, weight), iterations
        ):
            done += 1
            yield done
        kernel = unwrapped(kernel, [(n - 1) // 2 for n in wide.shape])
        peak = read_peak(kernel)
        away = [round(s) for s in peak.shift]
        far = any(abs(a) > n / 3 for a, n in zip(away, wide.shape, strict=True))
        if not again or far or not any(away):
            break
        start = [a - b for a, b in zip(start, away, strict=True)]
    yield peak, kernel, start


def _um(voxels: Sequence[float], target: Stack) -> Vector:
    z, y, x = (s * v for s, v in zip(voxels, target.voxel, strict=True))
    return float(z), float(y), float(x)


def _tensor(stack: Stack, axes: Sequence[np.ndarray], turn: Turn | None, device: str) -> torch.Tensor:
    """Return a stack on a grid; beyond its faces the outermost values go on."""
    values, _, _ = sample(stack, axes, turn, beyond="nearest")
    return torch.as_tensor(values, device=device)


def _start(pair: _Pair) -> list[int]:
    """Return a first shift in whole voxels of the fixed stack: by a coarse match of large stacks, else 0."""
    moving, fixed = resample_onto(*pair.small)  # refuses what does not overlap
    voxel = pair.target.voxel
    scale = [float(pair.small[1].attrs["spacing"][d]) / v for d, v in zip(AXES, voxel, strict=True)]
    for axis, size, block, least in zip(AXES, moving.shape, scale, LEAST_SHAPE, strict=True):
        if size * block < least:
            raise RequestError(
                f"Along {axis} the stacks share {size * block:.0f} {'planes' if axis == 'z' else 'pixels'}.",
                f"At least {least} are needed: bring them nearer by hand first.",
            )
    if all(n <= b for n, b in zip(pair.target.shape, pair.box, strict=True)):
        return [0, 0, 0]
    one, other = (
        high_passed(torch.as_tensor(image.values, device=pair.device), 1.0, 4.0) for image in (moving, fixed)
    )
    peak = read_peak(high_pass_correlation(one, other, [n // 2 for n in moving.shape]))
    if peak.confidence < LEAST_CONFIDENCE or any(peak.at_end):
        return [0, 0, 0]
    return [-round(s * k) for s, k in zip(peak.shift, scale, strict=True)]


def _part(
    still: Stack, target: Stack, small: xr.DataArray, start: Sequence[int], box: Sequence[int]
) -> list[slice]:
    """Return the part of the fixed stack to look at: textured, and covered by the moving one."""
    shared = [shared_range(still, target, k, start[k]) for k in range(3)]
    for axis, k, moved, least in zip(shared, range(3), start, LEAST_SHAPE, strict=True):
        if axis[1] - axis[0] < least:
            raise RequestError(
                f"After a shift by {abs(moved)} voxels along {AXES[k]} the stacks share next to nothing.",
                "The shift is larger than their overlap allows: bring them nearer by hand first.",
            )
    texture = high_passed(torch.as_tensor(small.values), 1.0, 4.0).square().numpy()
    scale = [float(small.attrs["spacing"][d]) / v for d, v in zip(AXES, target.voxel, strict=True)]
    return textured_box(texture, scale, shared, box)


def _refuse_no_overlap(still: Stack, target: Stack, shift: Vector) -> None:
    for k, axis in enumerate(AXES):
        low, high = shared_range(still, target, k, shift[k] / target.voxel[k])
        if high - low < LEAST_SHAPE[k]:
            raise RequestError(
                f"After a shift by {abs(shift[k]):.3g} um along {axis} the stacks share next to nothing.",
                "The shift is larger than their overlap allows: bring them nearer by hand first.",
            )


def _estimate(method: Method, peak: Peak, start: Sequence[int], target: Stack) -> Estimate:
    voxels = [a - s for a, s in zip(start, peak.shift, strict=True)]
    return Estimate(
        method,
        _um(voxels, target),
        (float(voxels[0]), float(voxels[1]), float(voxels[2])),
        peak.confidence,
        ((start[0] - peak.offsets) * target.voxel[0])[::-1].copy(),
        (peak.profile / max(float(peak.profile.max()), 1e-30))[::-1].copy(),
    )


def _verdict(both: tuple[Estimate, Estimate], agreed: bool, tolerance: float) -> tuple[bool, str]:
    """Return whether a pair is accepted, and why."""
    apart = [abs(a - b) for a, b in zip(both[0].shift_voxels, both[1].shift_voxels, strict=True)]
    if not agreed:
        k = int(np.argmax(apart))
        return False, (
            f"The two estimates differ by {apart[k]:.2f} voxels along {AXES[k]}, more than {tolerance:g}: "
            "that of the correlation is proposed, look at it before you use it."
        )
    unsure = [e for e in both if e.confidence < LEAST_CONFIDENCE]
    if unsure:
        name = TITLES[unsure[0].method]
        return False, (
            f"Both estimates agree, but the {name} shows another shift that is nearly as likely "
            f"(confidence {unsure[0].confidence:.2f}): look at it before you use it."
        )
    return True, f"Both estimates agree within {max(apart):.2f} voxels."


def _shown(kernel: torch.Tensor, peak: Vector, start: Sequence[int], target: Stack) -> xr.DataArray:
    """Return the point spread function around its peak."""
    middle = [n // 2 for n in kernel.shape]
    place = [m + round(p) for m, p in zip(middle, peak, strict=True)]
    cut = [
        slice(max(0, p - r), min(n, p + r + 1)) for p, r, n in zip(place, _SHOWN, kernel.shape, strict=True)
    ]
    origin = [(c.start - m - s) * v for c, m, s, v in zip(cut, middle, start, target.voxel, strict=True)]
    return labelled(
        kernel[tuple(cut)].cpu().numpy(),
        "zyx",
        dict(zip("zyx", target.voxel, strict=True)),
        dict(zip("zyx", origin, strict=True)),
        name="point spread function",
    )


def _plane_by_plane(
    moving: torch.Tensor, fixed: torch.Tensor, pair: _Pair, planes: slice, shift: float
) -> np.ndarray:
    """Return the correlation coefficient of each plane, NaN where the moving stack has none."""
    a = moving - moving.mean((1, 2), keepdim=True)
    b = fixed - fixed.mean((1, 2), keepdim=True)
    norm = (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt().clamp(min=1e-20)
    out = np.asarray(((a * b).sum((1, 2)) / norm).cpu().numpy(), float)
    low, high = shared_range(pair.still, pair.target, 0, shift)
    at = np.arange(planes.start, planes.stop)
    out[(at < low) | (at >= high)] = np.nan
    return out
