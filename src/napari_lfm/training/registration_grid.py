"""Two stacks on one grid: what can be registered, which part is looked at, and sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import box_average

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

Vector = tuple[float, float, float]
LEAST_SHAPE = (4, 24, 24)
"""Fewest planes, rows and columns that both stacks must share."""
OVERVIEW = 192
"""Rows and columns of the coarse look at large stacks, at most."""


@dataclass(frozen=True)
class Turn:
    """How the moving stack is turned and magnified against the fixed one, about a point (y, x) in um."""

    rotation_deg: float = 0.0
    magnification: float = 1.0
    centre_um: tuple[float, float] = (0.0, 0.0)

    @property
    def is_none(self) -> bool:
        """Whether nothing turns."""
        return self.rotation_deg == 0 and self.magnification == 1

    def matrix(self) -> np.ndarray:
        """Return the 2 x 2 matrix that takes places (y, x) of the fixed stack to those of the moving one."""
        angle = math.radians(self.rotation_deg)
        c, s = math.cos(angle), math.sin(angle)
        return self.magnification * np.array([[c, s], [-s, c]])


@dataclass(frozen=True)
class Stack:
    """A checked stack: values (z, y, x) of any type, voxel size and the place of its first voxel, in um."""

    data: object
    voxel: Vector
    origin: Vector
    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows, columns."""
        z, y, x = self.data.shape  # type: ignore[attr-defined]
        return int(z), int(y), int(x)

    def block(self, z: slice, y: slice, x: slice) -> np.ndarray:
        """Read a part as float32."""
        return np.asarray(self.data[z, y, x], np.float32)  # type: ignore[index]

    def axis(self, number: int) -> np.ndarray:
        """Return the coordinates along an axis."""
        return self.origin[number] + self.voxel[number] * np.arange(self.shape[number])


def checked_pair(moving: xr.DataArray, fixed: xr.DataArray) -> tuple[Stack, Stack, list[str]]:
    """Return both stacks, and sentences about what was made to fit.

    Raises
    ------
    RequestError
        If one of them is no stack, has too few planes or rows, or only one has voxel sizes and their shapes
        differ.
    """
    notes: list[str] = []
    names = [
        title if image.name is None else str(image.name)
        for image, title in ((moving, "moving stack"), (fixed, "fixed stack"))
    ]
    if names[0] == names[1]:
        names = [f"{names[0]} (moving)", f"{names[1]} (fixed)"]
    images = [_as_stack(image, name) for image, name in zip((moving, fixed), names, strict=True)]
    known = [all(d in spacing_of(image) for d in "zyx") for image in images]
    if not any(known):
        notes.append("Neither stack has voxel sizes: they are taken for 1 um, and shifts in um mean voxels.")
    elif not all(known):
        other, own = (0, 1) if known[0] else (1, 0)
        if images[0].shape != images[1].shape:
            raise RequestError(
                f"'{names[own]}' has no voxel sizes, and another shape than '{names[other]}'.",
                "Give its voxel sizes in micrometres.",
            )
        notes.append(f"'{names[own]}' has no voxel sizes: those of '{names[other]}' are taken.")
    out = []
    for k, image in enumerate(images):
        source = image if known[k] else images[1 - k] if known[1 - k] else None
        voxel = (1.0, 1.0, 1.0)
        origin = (0.0, 0.0, 0.0)
        if source is not None:
            step, start = spacing_of(source), origin_of(source)
            voxel = (step["z"], step["y"], step["x"])
            origin = (start.get("z", 0.0), start.get("y", 0.0), start.get("x", 0.0))
        if min(voxel) <= 0:
            raise RequestError(
                f"'{names[k]}' has a voxel size of {min(voxel):g} um.", "Give sizes above 0 um."
            )
        out.append(Stack(image.data, voxel, origin, names[k]))
    a, b = out
    if not np.allclose(a.voxel, b.voxel, rtol=1e-3):
        notes.append(
            f"The voxels differ ({_text(a.voxel)} and {_text(b.voxel)} um): '{a.name}' is resampled "
            f"to those of '{b.name}'."
        )
    return a, b, notes


def _text(voxel: Vector) -> str:
    return " x ".join(f"{v:.4g}" for v in voxel)


def _as_stack(image: xr.DataArray, name: str) -> xr.DataArray:
    single = [d for d in image.dims if d not in ("z", "y", "x") and image.sizes[d] == 1]
    image = image.isel(dict.fromkeys(single, 0), drop=True)
    if set(image.dims) != {"z", "y", "x"}:
        raise RequestError(
            f"'{name}' has the axes {', '.join(map(str, image.dims))}, not one stack z, y, x.",
            "Give one channel and one time point of a stack.",
        )
    if "affine_um" in image.attrs:
        raise RequestError(f"'{name}' is turned in space.", "Reset its rotation, shear and affine matrix.")
    image = image.transpose("z", "y", "x")
    if any(n < least for n, least in zip(image.shape, LEAST_SHAPE, strict=True)):
        raise RequestError(
            f"'{name}' has {image.sizes['z']} planes of {image.sizes['y']} x {image.sizes['x']} pixels.",
            f"At least {LEAST_SHAPE[0]} planes of {LEAST_SHAPE[1]} x {LEAST_SHAPE[2]} are needed.",
        )
    return image


def overview(stack: Stack) -> Iterator[tuple[int, int] | xr.DataArray]:
    """Look at every plane: give (planes done, planes) now and then, and at last the stack made small.

    Raises
    ------
    RequestError
        If values are no numbers, or all of them are equal.
    """
    planes, *sides = stack.shape
    block = math.ceil(max(sides) / OVERVIEW)
    small = np.empty((planes, *(n // block for n in sides)), np.float32)
    low, high = math.inf, -math.inf
    for k in range(planes):
        plane = stack.block(slice(k, k + 1), slice(None), slice(None))[0]
        least, most = float(plane.min()), float(plane.max())
        if not math.isfinite(least) or not math.isfinite(most):
            raise RequestError(
                f"'{stack.name}' holds values that are not numbers (NaN or infinite), in plane {k}.",
                "Replace them, say by 0.",
            )
        low, high = min(low, least), max(high, most)
        rows, columns = small.shape[1] * block, small.shape[2] * block
        part = plane[:rows, :columns].reshape(small.shape[1], block, small.shape[2], block)
        small[k] = part.mean((1, 3))
        if k % 8 == 7:
            yield k + 1, planes
    if high <= low:
        what = "all dark" if high == 0 else f"the same everywhere ({low:g})"
        raise RequestError(f"'{stack.name}' is {what}.", "Choose a stack that shows something.")
    voxel = (stack.voxel[0], stack.voxel[1] * block, stack.voxel[2] * block)
    shifted = [o + (v - w) / 2 for o, v, w in zip(stack.origin, voxel, stack.voxel, strict=True)]
    yield labelled(
        small, "zyx", dict(zip("zyx", voxel, strict=True)), dict(zip("zyx", shifted, strict=True)), stack.name
    )


def places(fixed: Stack, shift_um: Sequence[float], part: Sequence[slice] | None = None) -> list[np.ndarray]:
    """Return the coordinates of the fixed stack's voxels, or of a part's, before the shift."""
    cut = part or [slice(None)] * 3
    return [fixed.axis(k)[c] - shift_um[k] for k, c in enumerate(cut)]


def shared_range(moving: Stack, fixed: Stack, axis: int, shift: float) -> tuple[int, int]:
    """Return the first voxel of the fixed stack that the shifted moving one covers, and one past the last."""
    ratio = moving.voxel[axis] / fixed.voxel[axis]
    low = (moving.origin[axis] - fixed.origin[axis]) / fixed.voxel[axis] + shift
    high = low + (moving.shape[axis] - 1) * ratio
    return max(0, math.ceil(low - 1e-6)), min(fixed.shape[axis], math.floor(high + 1e-6) + 1)


def textured_box(
    texture: np.ndarray, scale: Sequence[float], shared: Sequence[tuple[int, int]], box: Sequence[int]
) -> list[slice]:
    """Return the box, of a size at most, that holds most texture, with a liking for the middle.

    Parameters
    ----------
    texture : ndarray
        On a coarse grid.
    scale : sequence of float
        Voxels per entry of it.
    shared : sequence of (int, int)
        Voxels in which the box must lie, on each axis.
    box : sequence of int
        Its size at most.
    """
    total = texture.astype(np.float64)
    starts = []
    for axis, ((low, high), most, k) in enumerate(zip(shared, box, scale, strict=True)):
        size = min(high - low, most)
        # candidates half an entry apart at least, each in voxels and in entries
        at = np.unique(np.r_[np.arange(low, high - size + 1, max(1, round(k))), high - size])
        entries = total.shape[axis]
        first = np.clip(np.floor(at / k).astype(int), 0, entries - 1)
        last = np.clip(np.ceil((at + size) / k).astype(int), first + 1, entries)
        summed = np.cumsum(total, axis)
        summed = np.concatenate([np.zeros_like(np.take(summed, [0], axis)), summed], axis)
        middle = 1 - 0.3 * np.abs(np.linspace(-1, 1, len(at))) if len(at) > 1 else np.ones(1)
        total = np.take(summed, last, axis) - np.take(summed, first, axis)
        total *= middle.reshape([-1 if a == axis else 1 for a in range(3)])
        starts.append((at, size))
    best = np.unravel_index(int(total.argmax()), total.shape)
    corners = [(int(at[k]), size) for (at, size), k in zip(starts, best, strict=True)]
    return [slice(corner, corner + size) for corner, size in corners]


def sample(
    stack: Stack,
    axes: Sequence[np.ndarray],
    turn: Turn | None = None,
    order: int = 1,
    beyond: Literal["zero", "nearest"] = "zero",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a stack's values at the points of a grid, plane by plane.

    Only the part that is needed is read, and one plane of it is converted at a time. Along z interpolation is
    linear (`order` 1) or by Keys' cubic; across by splines of `order`. Where the stack is sampled more finely
    than the grid it is averaged over the grid's voxel first.

    Parameters
    ----------
    stack : Stack
    axes : sequence of ndarray
        Coordinates z, y, x of the grid, um, evenly spaced.
    turn : Turn, optional
        Applied to (y, x): the grid's places are taken to the stack's.
    order : {1, 3}
    beyond : {"zero", "nearest"}
        What there is outside the stack.

    Returns
    -------
    values : ndarray, float32
    covered_z : ndarray of bool
        For each plane of the grid, whether the stack covers it.
    covered_yx : ndarray of bool
        For each point across.
    """
    turn = turn or Turn()
    z, y, x = axes
    index_z = (z - stack.origin[0]) / stack.voxel[0]
    planes, rows, columns = stack.shape
    covered_z = (index_z > -0.5 - 1e-6) & (index_z < planes - 0.5 + 1e-6)
    # index across = matrix @ (row, column) of the grid + offset
    voxel, origin = np.array(stack.voxel[1:]), np.array(stack.origin[1:])
    step = np.array([_step(y, stack.voxel[1]), _step(x, stack.voxel[2])])
    centre = np.array(turn.centre_um)
    matrix = turn.matrix() * step / voxel[:, None]
    offset = (centre + turn.matrix() @ (np.array([y[0], x[0]]) - centre) - origin) / voxel
    shape = (len(y), len(x))
    at = [
        matrix[k, 0] * np.arange(shape[0])[:, None] + matrix[k, 1] * np.arange(shape[1]) + offset[k]
        for k in range(2)
    ]
    covered = np.ones(shape, bool)
    for where, n in zip(at, (rows, columns), strict=True):
        covered &= (where > -0.5 - 1e-6) & (where < n - 0.5 + 1e-6)
    out = np.zeros((len(z), *shape), np.float32)
    if not covered.any():
        return out, covered_z, covered
    low = [max(0, int(w[covered].min()) - 8) for w in at]
    high = [min(n, int(w[covered].max()) + 9) for w, n in zip(at, (rows, columns), strict=True)]
    ratio_z = abs(_step(z, stack.voxel[0])) / stack.voxel[0]
    ratios = np.abs(np.diag(matrix))
    known: dict[int, np.ndarray] = {}

    def across(k: int) -> np.ndarray:
        if k not in known:
            plane = stack.block(slice(k, k + 1), slice(low[0], high[0]), slice(low[1], high[1]))[0]
            for axis in range(2):
                if ratios[axis] > 1.2:
                    plane = box_average(plane, axis, float(ratios[axis]))
            known[k] = _across(plane, matrix, offset - low, shape, order)
        return known[k]

    for number, depth in enumerate(index_z):
        if not covered_z[number] and beyond == "zero":
            continue
        weights = _weights(float(np.clip(depth, 0, planes - 1)), planes, order, ratio_z)
        for old in [k for k in known if k < min(weights)]:
            del known[old]
        for k, weight in weights.items():
            out[number] += weight * across(k)
    if beyond == "zero":
        out *= covered
    return out, covered_z, covered


def _step(axis: np.ndarray, default: float) -> float:
    return float((axis[-1] - axis[0]) / (len(axis) - 1)) if len(axis) > 1 else default


def _across(
    plane: np.ndarray, matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, int], order: int
) -> np.ndarray:
    from scipy.ndimage import affine_transform

    whole = np.rint(offset).astype(int)
    if np.allclose(matrix, np.eye(2), atol=1e-6) and np.allclose(offset, whole, atol=1e-3):
        rows, columns = (
            np.clip(np.arange(n) + w, 0, m - 1) for n, w, m in zip(shape, whole, plane.shape, strict=True)
        )
        return np.asarray(plane[np.ix_(rows, columns)])
    return np.asarray(affine_transform(plane, matrix, offset, shape, order=order, mode="nearest"))


def _weights(depth: float, planes: int, order: int, ratio: float) -> dict[int, float]:
    """Return the planes that make the value at a depth, and their weights."""
    if ratio > 1.2:  # the mean over one of the grid's planes
        at = np.arange(max(0, math.floor(depth - ratio / 2)), min(planes, math.ceil(depth + ratio / 2) + 1))
        share = np.clip(ratio / 2 + 0.5 - np.abs(at - depth), 0, 1)
        return {int(k): float(w) for k, w in zip(at, share / share.sum(), strict=True) if w > 0}
    low = math.floor(depth + 1e-6)
    t = depth - low
    if abs(t) < 1e-3:
        return {min(low, planes - 1): 1.0}
    if order == 1:
        taps = {low: 1 - t, low + 1: t}
    else:
        taps = {
            low - 1: -0.5 * t + t**2 - 0.5 * t**3,
            low: 1 - 2.5 * t**2 + 1.5 * t**3,
            low + 1: 0.5 * t + 2 * t**2 - 1.5 * t**3,
            low + 2: -0.5 * t**2 + 0.5 * t**3,
        }
    out: dict[int, float] = {}
    for k, w in taps.items():
        k = min(max(k, 0), planes - 1)
        out[k] = out.get(k, 0.0) + w
    return out


def whole_box(covered: np.ndarray) -> tuple[slice, slice]:
    """Return a box of an area (y, x) without a point that is not covered: the emptiest side goes first."""
    top, bottom, left, right = 0, covered.shape[0], 0, covered.shape[1]
    while top < bottom and left < right and not covered[top:bottom, left:right].all():
        part = covered[top:bottom, left:right]
        filled = [part[0].mean(), part[-1].mean(), part[:, 0].mean(), part[:, -1].mean()]
        side = int(np.argmin(filled))
        top, bottom = top + (side == 0), bottom - (side == 1)
        left, right = left + (side == 2), right - (side == 3)
    return slice(top, bottom), slice(left, right)
