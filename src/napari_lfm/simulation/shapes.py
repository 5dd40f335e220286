"""Analytic shapes that can be rendered on any voxel grid with partial-voxel coverage.

A shape knows where it is in micrometres, not in voxels. So the fine grid that makes the measurement
and the coarse grid that holds the truth are two renderings of one object, and neither
is a resampled copy of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]
Vector = tuple[float, float, float]


class Shape(Protocol):
    """Something that fills part of space with a fluorophore concentration of `brightness`."""

    @property
    def brightness(self) -> float:
        """Concentration inside the shape."""
        ...

    def bounds(self) -> tuple[Array, Array]:
        """Return the lowest and highest (z, y, x) that the shape reaches, micrometres."""
        ...

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Return the share (0 to 1) of each voxel that is inside; shape (len(z), len(y), len(x))."""
        ...

    def turned(self, angle_deg: float) -> Self:
        """Return the shape rotated about the z axis through the origin, + from x towards y."""
        ...


@dataclass(frozen=True)
class Ball:
    """A solid ball, or a spherical shell where `inner_um` is above 0."""

    centre_um: Vector
    radius_um: float
    inner_um: float = 0.0
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box."""
        centre = np.asarray(self.centre_um)
        return centre - self.radius_um, centre + self.radius_um

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Chord overlap: exact along z, midpoint rule across y and x (step below a quarter wall)."""
        wall = self.radius_um - self.inner_um
        counts = [int(np.clip(math.ceil(4 * h / wall), 4, 16)) for h in voxel_um[1:]]
        out = np.zeros((len(z), len(y), len(x)))
        low = z - voxel_um[0] / 2 - self.centre_um[0]
        for dy in _midpoints(counts[0], voxel_um[1]):
            for dx in _midpoints(counts[1], voxel_um[2]):
                rho2 = ((y + dy - self.centre_um[1]) ** 2)[:, None] + (x + dx - self.centre_um[2]) ** 2
                out += _chord(low, voxel_um[0], self.radius_um, rho2)
                if self.inner_um > 0:
                    out -= _chord(low, voxel_um[0], self.inner_um, rho2)
        return np.clip(out / (counts[0] * counts[1] * voxel_um[0]), 0, 1)

    def turned(self, angle_deg: float) -> Self:
        """Return the ball rotated about the z axis."""
        return replace(self, centre_um=turned_point(self.centre_um, angle_deg))


@dataclass(frozen=True)
class Tube:
    """A chain of tapered capsules: a vessel, a dendrite; hollow where `wall_um` is given."""

    points_um: tuple[Vector, ...]
    radii_um: tuple[float, ...]
    wall_um: float | None = None
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box."""
        points, radii = np.asarray(self.points_um), np.asarray(self.radii_um)[:, None]
        return (points - radii).min(0), (points + radii).max(0)

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Signed distance turned into coverage, averaged over sub-voxel samples for thin tubes."""
        # a tube thinner than a voxel is not a plane across it: sample finer than its radius
        fine = 2 * min(self.radii_um) if self.wall_um is None else min(self.wall_um, 2 * min(self.radii_um))
        counts = [int(np.clip(math.ceil(2 * h / fine), 1, 5)) for h in voxel_um]
        sub = tuple(h / n for h, n in zip(voxel_um, counts, strict=True))
        fine_axes = [_refined(a, h, n) for a, h, n in zip((z, y, x), voxel_um, counts, strict=True)]
        out = np.zeros(tuple(len(a) for a in fine_axes), np.float32)
        lumen = np.zeros_like(out) if self.wall_um is not None else None
        for k in range(len(self.points_um) - 1):
            self._draw(out, lumen, fine_axes, sub, k)
        if lumen is not None:
            # the lumen runs on through the joints: all of the outside first, then all of the inside
            out -= lumen
        shape = [v for a, n in zip((z, y, x), counts, strict=True) for v in (len(a), n)]
        return np.asarray(out.reshape(shape).mean((1, 3, 5), dtype=np.float64))

    def _draw(
        self,
        out: npt.NDArray[np.float32],
        lumen: npt.NDArray[np.float32] | None,
        axes: list[Array],
        sub: tuple[float, ...],
        k: int,
    ) -> None:
        a, b = np.asarray(self.points_um[k]), np.asarray(self.points_um[k + 1])
        ra, rb = self.radii_um[k], self.radii_um[k + 1]
        reach = max(ra, rb) + np.asarray(sub)
        box = [
            slice(*np.searchsorted(axis, (lo, hi)))
            for axis, lo, hi in zip(axes, np.minimum(a, b) - reach, np.maximum(a, b) + reach, strict=True)
        ]
        gz, gy, gx = (axis[s] for axis, s in zip(axes, box, strict=True))
        if not (len(gz) and len(gy) and len(gx)):
            return
        pz, py, px = gz[:, None, None] - a[0], gy[None, :, None] - a[1], gx[None, None, :] - a[2]
        d = b - a
        t = np.clip((pz * d[0] + py * d[1] + px * d[2]) / max(float(d @ d), 1e-12), 0, 1)
        qz, qy, qx = pz - t * d[0], py - t * d[1], px - t * d[2]
        distance = np.sqrt(qz**2 + qy**2 + qx**2)
        # the ramp as wide as the voxel's projection on the outward normal, in the sense of its variance
        width = np.sqrt((qz * sub[0]) ** 2 + (qy * sub[1]) ** 2 + (qx * sub[2]) ** 2)
        width = width / np.maximum(distance, 1e-9)
        width = np.maximum(width, min(sub))
        radius = ra + (rb - ra) * t
        # maximum, not sum: the capsules of one tube overlap at their joints
        part = out[tuple(box)]
        np.maximum(part, _ramp(distance, radius, width), out=part, casting="same_kind")
        if lumen is not None and self.wall_um is not None:
            part = lumen[tuple(box)]
            inside = _ramp(distance, np.maximum(radius - self.wall_um, 0), width)
            np.maximum(part, inside, out=part, casting="same_kind")

    def turned(self, angle_deg: float) -> Self:
        """Return the tube rotated about the z axis."""
        return replace(self, points_um=tuple(turned_point(p, angle_deg) for p in self.points_um))


@dataclass(frozen=True)
class Bar:
    """A cuboid whose long side may point anywhere in the focal plane."""

    centre_um: Vector
    size_um: Vector
    angle_deg: float = 0.0
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box."""
        half = np.asarray(self.size_um) / 2
        c, s = abs(math.cos(math.radians(self.angle_deg))), abs(math.sin(math.radians(self.angle_deg)))
        reach = np.array([half[0], c * half[1] + s * half[2], s * half[1] + c * half[2]])
        return np.asarray(self.centre_um) - reach, np.asarray(self.centre_um) + reach

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Overlap of intervals: exact for bars along the axes, sampled 4 x 4 across y, x for turned ones."""
        in_z = _overlap(z - self.centre_um[0], voxel_um[0], self.size_um[0])
        c, s = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        n = 1 if min(abs(c), abs(s)) < 1e-9 else 4
        across = (
            (abs(c) * voxel_um[1] + abs(s) * voxel_um[2]) / n,
            (abs(s) * voxel_um[1] + abs(c) * voxel_um[2]) / n,
        )
        plane = np.zeros((len(y), len(x)))
        for dy in _midpoints(n, voxel_um[1]):
            for dx in _midpoints(n, voxel_um[2]):
                py, px = (y + dy - self.centre_um[1])[:, None], (x + dx - self.centre_um[2])[None, :]
                plane += _overlap(c * py - s * px, across[0], self.size_um[1]) * _overlap(
                    s * py + c * px, across[1], self.size_um[2]
                )
        return np.asarray(in_z[:, None, None] * (plane / n**2))

    def turned(self, angle_deg: float) -> Self:
        """Return the bar rotated about the z axis."""
        return replace(
            self, centre_um=turned_point(self.centre_um, angle_deg), angle_deg=self.angle_deg + angle_deg
        )


@dataclass(frozen=True)
class Union:
    """Several shapes as one body: where they overlap, the brightest counts once (a neuron, a vessel tree)."""

    parts: tuple[Shape, ...]
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box."""
        low, high = zip(*(p.bounds() for p in self.parts), strict=True)
        return np.min(low, 0), np.max(high, 0)

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Voxelwise maximum over the parts, each weighted by its own brightness."""
        out = np.zeros((len(z), len(y), len(x)))
        for part in self.parts:
            paint(out, part, (z, y, x), voxel_um, np.maximum)
        return out

    def turned(self, angle_deg: float) -> Self:
        """Return the body rotated about the z axis."""
        return replace(self, parts=tuple(p.turned(angle_deg) for p in self.parts))


def paint(
    out: npt.NDArray[Any], shape: Shape, axes: Sequence[Array], voxel_um: Vector, combine: np.ufunc = np.add
) -> None:
    """Combine `shape` into `out` in place, visiting only the voxels that it can reach."""
    low, high = shape.bounds()
    box = tuple(
        slice(*np.searchsorted(axis, (lo - h, hi + h)))
        for axis, lo, hi, h in zip(axes, low, high, voxel_um, strict=True)
    )
    if any(s.start >= s.stop for s in box):
        return
    z, y, x = (axis[s] for axis, s in zip(axes, box, strict=True))
    part = out[box]
    light = shape.brightness * shape.coverage(z, y, x, voxel_um)
    combine(part, light.astype(out.dtype), out=part)


def _midpoints(n: int, width: float) -> Array:
    return np.asarray(((np.arange(n) + 0.5) / n - 0.5) * width)


def _refined(axis: Array, width: float, n: int) -> Array:
    return np.asarray((axis[:, None] + _midpoints(n, width)).ravel())


def _chord(low: Array, height: float, radius: float, rho2: Array) -> Array:
    """Length of the ball's chord inside each voxel column element."""
    half = np.sqrt(np.maximum(radius**2 - rho2, 0))
    top = np.minimum(low[:, None, None] + height, half)
    return np.asarray(np.maximum(top - np.maximum(low[:, None, None], -half), 0))


def _overlap(position: Array, width: float, size: float) -> Array:
    """Share of an interval of `width` at `position` that lies within +-size/2."""
    top = np.minimum(position + width / 2, size / 2)
    return np.asarray(np.maximum(top - np.maximum(position - width / 2, -size / 2), 0) / width)


def _ramp(distance: Array, radius: Array, width: Array) -> Array:
    """Share of a voxel of this width inside a cylinder, linear across the edge.

    The radius of the ramp is set so that the cross-section keeps its area, ``pi radius^2``: a ramp
    around the true radius would add ``pi width^2 / 12``, and double the light of thin dendrites.
    """
    wide = 3 * radius**2 >= width**2
    edge = np.where(
        wide,
        np.sqrt(np.maximum(radius**2 - width**2 / 12, 0)),
        np.cbrt(3 * width * radius**2) - width / 2,
    )
    return np.asarray(np.clip(0.5 - (distance - edge) / width, 0, 1))


def turned_point(point: Vector, angle_deg: float) -> Vector:
    """Return a position (z, y, x) or direction rotated about the z axis, + from x towards y."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    z, y, x = point
    return z, c * y + s * x, c * x - s * y
