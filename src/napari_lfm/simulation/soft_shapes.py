"""Shapes with a texture: ellipsoids (nuclei, cells, somata) and the haze of out-of-focus tissue.

A texture is a sum of a few plane waves in space, so that every grid sees the same object, and its mean
over a voxel is known exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from napari_lfm.simulation.shapes import Array, Vector, turned_point

if TYPE_CHECKING:
    from collections.abc import Sequence

Rotation = tuple[Vector, Vector, Vector]
UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Waves:
    """A smooth random field of mean 0 and variance 1: ``sum_j a_j cos(k_j . p + phase_j)``.

    Attributes
    ----------
    vectors : tuple of (z, y, x)
        Wave vectors ``k_j``, radians per micrometre.
    phases : tuple of float
    weights : tuple of float
    """

    vectors: tuple[Vector, ...]
    phases: tuple[float, ...]
    weights: tuple[float, ...]

    @classmethod
    def random(cls, rng: np.random.Generator, scale_um: float, count: int = 12) -> Waves:
        """Return waves in random directions, their lengths within a factor of two around `scale_um`."""
        ways = rng.normal(size=(count, 3))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        lengths = scale_um * np.exp(rng.uniform(-math.log(2), math.log(2), count))
        weights = rng.uniform(0.5, 1, count)
        weights *= math.sqrt(2) / np.linalg.norm(weights)
        vectors = 2 * np.pi * ways / lengths[:, None]
        return cls(
            tuple((float(z), float(y), float(x)) for z, y, x in vectors),
            tuple(map(float, rng.uniform(0, 2 * np.pi, count))),
            tuple(map(float, weights)),
        )

    def factors(self, axes: Sequence[Array], voxel_um: Sequence[float]) -> tuple[Array, Array]:
        """Return (z * y, 2 j) and (2 j, x): their product is the field, averaged over each voxel.

        A wave is a product of its three axes in complex numbers, so a whole grid costs one matrix product.
        """
        k = np.asarray(self.vectors)
        # the mean of a cosine over a box is the cosine at its centre times a sinc per axis
        weights = np.asarray(self.weights) * np.sinc(k * np.asarray(voxel_um) / (2 * np.pi)).prod(1)
        z, y, x = (np.exp(1j * np.outer(axis, k[:, d])) for d, axis in enumerate(axes))
        left = (z * (weights * np.exp(1j * np.asarray(self.phases))))[:, None, :] * y[None, :, :]
        flat = left.reshape(-1, len(k))
        return np.concatenate([flat.real, -flat.imag], 1), np.concatenate([x.real.T, x.imag.T], 0)

    def on_grid(self, axes: Sequence[Array], voxel_um: Sequence[float]) -> Array:
        """Return the field, shape (len(z), len(y), len(x))."""
        left, right = self.factors(axes, voxel_um)
        return np.asarray((left @ right).reshape([len(a) for a in axes]))

    def turned(self, angle_deg: float) -> Waves:
        """Return the field rotated about the z axis through the origin."""
        return replace(self, vectors=tuple(turned_point(k, angle_deg) for k in self.vectors))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: solid, hollow with a wall, or with a core of another brightness; bumpy; textured.

    Attributes
    ----------
    centre_um : (z, y, x)
    radii_um : tuple of float
        The three half axes.
    rotation : 3 x 3
        Columns are the directions (z, y, x) of the half axes.
    wall_um : float, optional
        Hollow with a wall this thick (a plasma membrane).
    core_share, core_level : float
        A core of this share of the size that is `core_level` times as bright as the rest (a nucleus).
    bumps : Waves, optional
        Field over directions (``p`` is the unit vector in the ellipsoid's frame).
    bumpiness : float
        Standard deviation of the radius in shares of it.
    texture : Waves, optional
    contrast : float
        Standard deviation of the texture; the concentration is cut off at 0.
    brightness : float
    """

    centre_um: Vector
    radii_um: Vector
    rotation: Rotation = UPRIGHT
    wall_um: float | None = None
    core_share: float = 0.0
    core_level: float = 1.0
    bumps: Waves | None = None
    bumpiness: float = 0.0
    texture: Waves | None = None
    contrast: float = 0.0
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounding box; bumps may reach three standard deviations."""
        half = np.linalg.norm(np.asarray(self.rotation) * np.asarray(self.radii_um), axis=1)
        half = half * (1 + (3 * self.bumpiness if self.bumps is not None else 0))
        return np.asarray(self.centre_um) - half, np.asarray(self.centre_um) + half

    def unit_map(self) -> Array:
        """Return the 3 x 3 matrix that takes positions around the centre to the unit ball."""
        return np.asarray(np.asarray(self.rotation).T / np.asarray(self.radii_um)[:, None], np.float64)

    def refinement(self, voxel_um: Sequence[float], per_radius: float = 1.5) -> tuple[int, int, int]:
        """Return how many samples per voxel (z, y, x) resolve the shape."""
        fine = min(self.radii_um) / per_radius
        z, y, x = (int(np.clip(math.ceil(h / fine), 1, 5)) for h in voxel_um)
        return z, y, x

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Signed distance turned into coverage on finer samples, times the texture."""
        counts = [max(2, n) for n in self.refinement(voxel_um, 3.0)]
        out = np.zeros((len(z), len(y), len(x)))
        sub = [h / n for h, n in zip(voxel_um, counts, strict=True)]
        for shift in np.ndindex(*counts):
            moved = [
                axis + ((k + 0.5) / n - 0.5) * h
                for axis, k, n, h in zip((z, y, x), shift, counts, voxel_um, strict=True)
            ]
            out += self._share(moved, sub)
        out /= math.prod(counts)
        if self.texture is not None:
            out *= np.maximum(1 + self.contrast * self.texture.on_grid((z, y, x), voxel_um), 0)
        return out

    def _share(self, axes: list[Array], sub: list[float]) -> Array:
        around = [axis - c for axis, c in zip(axes, self.centre_um, strict=True)]
        p = np.stack(np.meshgrid(*around, indexing="ij"), -1)
        unit = self.unit_map()
        q = p @ unit.T
        rho = np.maximum(np.linalg.norm(q, axis=-1), 1e-9)
        slope = q @ unit / rho[..., None]  # gradient of rho
        width = np.maximum(np.linalg.norm(slope * sub, axis=-1), 1e-9)
        edge = np.ones_like(rho)
        if self.bumps is not None:
            way = q / rho[..., None]
            phase = np.tensordot(way, np.asarray(self.bumps.vectors), (-1, 1)) + np.asarray(self.bumps.phases)
            edge = np.clip(1 + self.bumpiness * (np.cos(phase) @ np.asarray(self.bumps.weights)), 0.3, 2)
        out = _fill(rho, edge, width)
        if self.wall_um is not None:
            out -= _fill(rho, edge - self.wall_um * np.linalg.norm(slope, axis=-1), width)
        elif self.core_share > 0:
            out += (self.core_level - 1) * _fill(rho, edge * self.core_share, width)
        return out

    def turned(self, angle_deg: float) -> Self:
        """Return the ellipsoid rotated about the z axis."""
        columns = [turned_point(c, angle_deg) for c in zip(*self.rotation, strict=True)]
        a, b, c = zip(*columns, strict=True)
        texture = None if self.texture is None else self.texture.turned(angle_deg)
        centre = turned_point(self.centre_um, angle_deg)
        return replace(self, centre_um=centre, rotation=(a, b, c), texture=texture)


@dataclass(frozen=True)
class Haze:
    """A smooth random fluorescence that fills a box: background from scattering tissue.

    The concentration is ``max(1 + contrast * field, 0)``, and it fades out over `fade_um` at the faces
    across (y, x) the box; `turned` turns the field and keeps the box, which the field of view lies in.
    """

    low_um: Vector
    high_um: Vector
    field: Waves
    contrast: float = 0.5
    brightness: float = 1.0

    def bounds(self) -> tuple[Array, Array]:
        """Return the box."""
        return np.asarray(self.low_um, float), np.asarray(self.high_um, float)

    def coverage(self, z: Array, y: Array, x: Array, voxel_um: Vector) -> Array:
        """Return the mean concentration of each voxel."""
        out = np.maximum(1 + self.contrast * self.field.on_grid((z, y, x), voxel_um), 0)
        a, b, c = self.shares((z, y, x), voxel_um)
        return np.asarray(out * a[:, None, None] * b[None, :, None] * c)

    def shares(self, axes: Sequence[Array], voxel_um: Sequence[float]) -> list[Array]:
        """Return, for each axis, the share of every voxel that is inside the box."""
        out = []
        for axis, h, low, high in zip(axes, voxel_um, self.low_um, self.high_um, strict=True):
            inside = np.minimum(axis + h / 2, high) - np.maximum(axis - h / 2, low)
            out.append(np.clip(inside / h, 0, 1))
        return out

    def turned(self, angle_deg: float) -> Self:
        """Return the haze with its field rotated about the z axis."""
        return replace(self, field=self.field.turned(angle_deg))


def rotation_of(matrix: npt.NDArray[np.float64]) -> Rotation:
    """Return a rotation matrix as nested tuples."""
    a, b, c = ((float(r[0]), float(r[1]), float(r[2])) for r in matrix)
    return a, b, c


def _fill(rho: Array, edge: Array, width: Array) -> Array:
    # a ramp across a sphere's surface adds width^2 / 4 to its volume: the edge moves in to keep it
    edge = edge - width**2 / (12 * np.maximum(edge, width))
    return np.asarray(np.clip(0.5 - (rho - edge) / width, 0, 1))
