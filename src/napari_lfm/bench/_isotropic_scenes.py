"""Volumes that are equally sharp in all directions, and stacks of them as a microscope records them.

What is called truth is the specimen under the microscope's lateral blur in all three directions, without
noise. The stack has more blur along z, planes `factor` pixels apart, photon noise and read noise: the
synthetic sets of Weigert et al. (MICCAI 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from napari_lfm.optics.axial_estimate import estimate_axial_blur
from napari_lfm.simulation.phantoms import make_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene
from napari_lfm.simulation.soft_shapes import Ellipsoid

DATA = Path(__file__).parents[4] / "shared/data"
REAL_NUCLEI = DATA / "cells3d/nuclei.tif"
REAL_NUCLEI_UM = (0.29, 0.26, 0.26)
PIXEL_UM = 0.2
SHAPE = (97, 256, 256)
"""Of simulated volumes: 4, 6 and 8 go into 96."""
SIGMA_X_PX = 1.2
"""Lateral blur of simulated volumes."""
SIGMA_OF_STEP = 0.6
"""Width of the blur along z beyond the lateral one, in distances of planes: its FWHM spans 1.4 of them."""
ELECTRONS, READ_NOISE, OFFSET = 300.0, 2.0, 100.0
"""Of the truth's brightest thousandth; standard deviation; what grey values have beside electrons."""
SEED = 20261
_MARGIN = 12

SPECIMENS: dict[str, tuple[str, dict[str, Any]]] = {
    "membranes": (
        "cells",
        {"count": 60, "radius_um": 4.0, "membrane_um": 0.3, "organelles": 20, "organelle_brightness": 0.7},
    ),
    "nuclei": (
        "nuclei",
        {"count": 80, "radius_um": 3.2, "mitotic_share": 0.0, "brightness_spread": 0.15, "contrast": 0.25},
    ),
    "vessels": ("vessels", {"trees": 8, "radius_um": 1.6, "smallest_um": 0.4}),
    "filaments": ("filaments", {"count": 150, "radius_um": 0.15}),
    "vesicles": ("vesicles", {"count": 60, "radius_um": 2.5, "membrane_um": 0.3}),
}
"""Name -> phantom family and its options, for `SHAPE`; counts go with the volume. The starter model's
training draws none of these families."""


@dataclass(frozen=True, eq=False)
class Case:
    """A truth and the stack that was recorded of it.

    Attributes
    ----------
    name : str
    truth : ndarray, float32, shape (fine z, y, x)
        Grey values without noise; empty where nobody knows it.
    stack : ndarray, uint16, shape (z, y, x)
    factor : float
        Distance of planes, lateral pixels.
    sigma_px : float
        Imposed blur along z beyond the lateral one.
    pixel_um : float
    """

    name: str
    truth: np.ndarray
    stack: np.ndarray
    factor: float
    sigma_px: float
    pixel_um: float

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Voxel of the stack."""
        return self.factor * self.pixel_um, self.pixel_um, self.pixel_um


def recorded(
    name: str,
    volume: np.ndarray,
    factor: int,
    pixel_um: float = PIXEL_UM,
    seed: int = SEED,
    electrons: float = ELECTRONS,
    sigma_px: float | None = None,
) -> Case:
    """Record a volume (z, y, x), 0 at its background and 1 at its brightest thousandth."""
    planes = (len(volume) - 1) // factor + 1
    sigma = SIGMA_OF_STEP * factor if sigma_px is None else sigma_px
    rng = np.random.default_rng(seed)
    light = electrons * gaussian_filter1d(volume, sigma, 0, mode="nearest")[::factor][:planes].clip(min=0)
    grey = rng.poisson(light) + READ_NOISE * rng.standard_normal(light.shape) + OFFSET
    truth = electrons * volume[: (planes - 1) * factor + 1] + OFFSET
    return Case(
        name,
        truth.astype(np.float32),
        np.rint(grey).clip(0, 65535).astype(np.uint16),
        factor,
        sigma,
        pixel_um,
    )


def simulated(specimen: str, seed: int = SEED, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return a simulated volume, lateral blur in all directions, float32."""
    return drawn(scene_of(specimen, seed, shape), shape)


def scene_of(specimen: str, seed: int = SEED, shape: tuple[int, int, int] = SHAPE) -> Scene:
    """Return the shapes of a specimen, as densely as in `SHAPE`."""
    family, options = SPECIMENS[specimen]
    share = float(np.prod([n + 2 * _MARGIN for n in shape]) / np.prod([n + 2 * _MARGIN for n in SHAPE]))
    counted = {
        key: max(2, round(value * share)) if key in ("count", "trees") else value
        for key, value in options.items()
    }
    z, y, x = ((n + 2 * _MARGIN) * PIXEL_UM for n in shape)
    return make_scene(family, Box.centred((z, y, x)), seed, options={family: counted})


def drawn(scene: Scene, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return a scene as an isotropic microscope sees it, 1 at its brightest thousandth."""
    z, y, x = (n + 2 * _MARGIN for n in shape)
    whole = rasterise(scene, Grid.centred((z, y, x), (PIXEL_UM,) * 3)).numpy()
    inner = (slice(_MARGIN, -_MARGIN),) * 3
    seen = gaussian_filter(whole, SIGMA_X_PX)[inner]
    return np.asarray(seen / max(float(np.percentile(seen, 99.9)), 1e-6), np.float32)


def labels_of(scene: Scene, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return which body each voxel is in (0: none), int32: what a perfect segmentation gives."""
    out = np.zeros(shape, np.int32)
    most = np.full(shape, 0.5, np.float32)  # less than half a voxel of a body is none of it
    grid = Grid.centred(shape, (PIXEL_UM,) * 3)
    origin = np.asarray(grid.origin_um)
    for k, body in enumerate(scene.shapes, 1):
        low, high = (np.asarray(v) for v in body.bounds())
        first = np.clip(np.floor((low - origin) / PIXEL_UM).astype(int), 0, shape)
        last = np.clip(np.ceil((high - origin) / PIXEL_UM).astype(int) + 1, 0, shape)
        if (last <= first).any() or not isinstance(body, Ellipsoid):
            continue
        # solid and even, whatever it is filled with
        solid = replace(body, core_share=0.0, core_level=1.0, texture=None, contrast=0.0, brightness=1.0)
        place = origin + first * PIXEL_UM
        size = last - first
        part = Grid(
            (int(size[0]), int(size[1]), int(size[2])),
            (PIXEL_UM,) * 3,
            (float(place[0]), float(place[1]), float(place[2])),
        )
        filled = rasterise(Scene((solid,)), part).numpy()
        box = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        inside = filled > most[box]
        out[box][inside] = k
        most[box][inside] = filled[inside]
    return out


def real_nuclei(path: Path = REAL_NUCLEI) -> np.ndarray | None:
    """Return recorded nuclei made isotropic, 1 at their brightest thousandth; None where they are absent.

    The recording is itself blurred along z beyond its lateral blur, by how much its spectrum tells. The
    same blur along y and x makes all directions alike, and planes are brought to lateral pixels.
    """
    if not path.is_file():
        return None
    stack = tifffile.imread(path).astype(np.float32)
    blur = estimate_axial_blur(stack, REAL_NUCLEI_UM).sigma_um / REAL_NUCLEI_UM[1]
    alike = gaussian_filter(stack, (0, blur, blur))
    ratio = REAL_NUCLEI_UM[1] / REAL_NUCLEI_UM[0]
    at = np.arange(int((len(stack) - 1) / ratio) + 1) * ratio
    fine = np.stack(
        [map_coordinates(column, np.meshgrid(at, np.arange(column.shape[1]), indexing="ij"), order=3)
         for column in alike.transpose(1, 0, 2)], 1
    )  # fmt: skip
    fine -= float(fine.min())
    return np.asarray(fine / np.percentile(fine, 99.9), np.float32)
