"""A scene: shapes in micrometres around the centre of the field, and its rendering on a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.shapes import Ball, Shape, Vector, paint

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Grid:
    """An axis-aligned voxel grid.

    Attributes
    ----------
    shape : tuple of int
        (z, y, x).
    voxel_um : tuple of float
        Voxel size (z, y, x).
    origin_um : tuple of float
        Centre of voxel (0, 0, 0).
    """

    shape: tuple[int, int, int]
    voxel_um: Vector
    origin_um: Vector

    @classmethod
    def centred(cls, shape: tuple[int, int, int], voxel_um: Vector) -> Grid:
        """Return the grid whose centre is the origin."""
        origin = tuple(-(n - 1) / 2 * h for n, h in zip(shape, voxel_um, strict=True))
        return cls(shape, voxel_um, (origin[0], origin[1], origin[2]))

    def axes(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Return the voxel centres along z, y and x."""
        parts = zip(self.shape, self.voxel_um, self.origin_um, strict=True)
        return tuple(o + h * np.arange(n, dtype=np.float64) for n, h, o in parts)


@dataclass(frozen=True)
class Box:
    """The part of space that a scene may fill: lowest and highest (z, y, x), micrometres."""

    low_um: Vector
    high_um: Vector

    @classmethod
    def centred(cls, size_um: Vector) -> Box:
        """Return the box of this size around the origin."""
        z, y, x = (s / 2 for s in size_um)
        return cls((-z, -y, -x), (z, y, x))

    @property
    def size_um(self) -> npt.NDArray[np.float64]:
        """Size (z, y, x)."""
        return np.subtract(self.high_um, self.low_um, dtype=np.float64)

    def sample(self, rng: np.random.Generator, n: int, margin_um: float = 0.0) -> npt.NDArray[np.float64]:
        """Return `n` uniform positions at least `margin_um` (at most a third of the box) from the faces."""
        margin = np.minimum(margin_um, self.size_um / 3)
        low, high = np.asarray(self.low_um) + margin, np.asarray(self.high_um) - margin
        out: npt.NDArray[np.float64] = rng.uniform(low, high, (n, 3))
        return out


@dataclass(frozen=True)
class Scene:
    """Shapes, the phantom families they come from, and points worth finding.

    Attributes
    ----------
    shapes : tuple of Shape
        Coordinates are micrometres around the centre of the field; z = 0 is the native plane.
    families : tuple of str
        Names out of `napari_lfm.simulation.phantoms.FAMILIES`: training and evaluation are split by them.
    points_um : tuple of (z, y, x)
        Bead centres or cell bodies: the truth for localisation.
    """

    shapes: tuple[Shape, ...]
    families: tuple[str, ...] = ()
    points_um: tuple[Vector, ...] = field(default=())

    def __add__(self, other: Scene) -> Scene:
        """Put two scenes into one."""
        families = tuple(dict.fromkeys(self.families + other.families))
        return Scene(self.shapes + other.shapes, families, self.points_um + other.points_um)

    def turned(self, angle_deg: float) -> Scene:
        """Return the scene rotated about the z axis, + from x towards y."""
        # a bead that carries the points only needs its centre turned
        carriers = [Ball(p, 1.0).turned(angle_deg).centre_um for p in self.points_um]
        return Scene(tuple(s.turned(angle_deg) for s in self.shapes), self.families, tuple(carriers))


def thinned(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """Return the scene with a random share of its bodies, at least one: sparse labelling.

    Points of bodies that went dark go too.
    """
    if not 0 < share <= 1:
        raise RequestError(
            f"The labelled share must be above 0 and at most 1, not {share:g}.", "Give, say, 0.2."
        )
    lit = tuple(s for s in scene.shapes if rng.random() < share) or scene.shapes[:1]
    boxes = [shape.bounds() for shape in lit]
    points = tuple(
        p for p in scene.points_um if any((low <= p).all() and (p <= high).all() for low, high in boxes)
    )
    return Scene(lit, scene.families, points)


def render(scene: Scene, grid: Grid, name: str = "phantom") -> xr.DataArray:
    """Return the mean fluorophore concentration in every voxel, float32, dims ``z y x``.

    Shapes add up where they overlap. Only the voxels that a shape can reach are visited. This is the
    reference; `napari_lfm.simulation.raster.rasterise` does the same faster.
    """
    axes = grid.axes()
    out = np.zeros(grid.shape, np.float32)
    for shape in scene.shapes:
        paint(out, shape, axes, grid.voxel_um)
    return as_volume(out, scene, grid, name)


def as_volume(data: npt.NDArray[np.float32], scene: Scene, grid: Grid, name: str = "phantom") -> xr.DataArray:
    """Return a scene's voxels with their coordinates, dims ``z y x``, and what the scene holds."""
    return labelled(
        data,
        "zyx",
        dict(zip("zyx", grid.voxel_um, strict=True)),
        dict(zip("zyx", grid.origin_um, strict=True)),
        name=name,
        attrs={"families": list(scene.families), "points_um": [list(p) for p in scene.points_um]},
    )
