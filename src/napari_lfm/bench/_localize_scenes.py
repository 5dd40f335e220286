"""Simulated specimens of cell bodies that no training saw, recorded at three levels of noise and haze.

Balls and bodies with nuclei, imaged by finer optics that are off the nominal ones, through a lattice of its
own, onto a camera with white and dark frame. Haze is half light scattered on its way (the frame itself,
blurred over three lenslets, so that its angles are lost), half an even glow.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.io.atomic import replacing_file
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.lightfield import SLIGHTLY_OFF, Exposure, simulate_lightfields
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball
from napari_lfm.simulation.soft_shapes import Ellipsoid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

VERSION = 1
SEED = 5_520_919
PITCH, ROTATION_DEG, OFFSET_PX = 1.0013, 0.17, (0.35, -0.6)
APART_UM = 1.0
"""Least gap between cell bodies."""


@dataclass(frozen=True)
class LocalizeSetup:
    """What is simulated.

    Attributes
    ----------
    microscope : str
    lenslets : int
    z_um : tuple of float
        Depths that are asked for.
    depths : int
        Isolated neurons, evenly spread over the range; `per_field` of them in a field.
    per_field : int
    counts : tuple of int
        Neurons in the crowded fields.
    fields : int
        Fields of every count.
    diameter_um : tuple of float
    voxels, z_step_um
        Of the simulated object: voxels across a lenslet, distance of planes.
    levels : mapping of str to (electrons, haze)
    apart_lenslets : float
        Between isolated neurons, along rows and along columns.
    tolerance_um : float
        A point this near to a neuron is taken for it.
    """

    microscope: str = "imperial-25x1.0w"
    lenslets: int = 23
    z_um: tuple[float, float] = (-18.0, 36.0)
    depths: int = 55
    per_field: int = 4
    counts: tuple[int, ...] = (10, 30, 60)
    fields: int = 3
    diameter_um: tuple[float, float] = (8.0, 15.0)
    voxels: int = 7
    z_step_um: float = 1.0
    levels: tuple[tuple[str, float, float], ...] = (
        ("low", 3000.0, 0.3),
        ("middle", 500.0, 1.0),
        ("high", 100.0, 2.0),
    )
    apart_lenslets: float = 3.5
    tolerance_um: float = 5.0


SETUPS = {
    "imperial-25x1.0w": LocalizeSetup(),
    "mbl-60x1.2w": LocalizeSetup(
        microscope="mbl-60x1.2w",
        lenslets=31,
        z_um=(-12.0, 12.0),
        depths=25,
        per_field=2,
        counts=(10,),
        diameter_um=(3.0, 10.0),
        voxels=3,
        z_step_um=0.75,
        apart_lenslets=8.0,
        tolerance_um=2.5,
    ),
}
"""By the microscope's name."""


@dataclass(frozen=True)
class Specimen:
    """One field: what kind it is, its scene, its bodies (z, y, x) in um around the field's centre."""

    kind: str
    scene: Scene


def specimens(setup: LocalizeSetup, lenslet_um: float) -> list[Specimen]:
    """Return all fields: isolated neurons first, then those with more and more of them."""
    rng = np.random.default_rng(SEED)
    low, high = setup.z_um
    half = (setup.lenslets / 2 - 3) * lenslet_um
    out = []
    depths = rng.permutation(np.linspace(low, high, setup.depths))
    for first in range(0, setup.depths, setup.per_field):
        part = depths[first : first + setup.per_field]
        places: list[tuple[float, float, float]] = []
        while len(places) < len(part):
            y, x = rng.uniform(-half, half, 2)
            # far enough from each other that no epipolar image shows two
            if all(min(abs(y - p[1]), abs(x - p[2])) > setup.apart_lenslets * lenslet_um for p in places):
                places.append((float(part[len(places)]), float(y), float(x)))
            elif rng.random() < 0.01:
                places = []
        out.append(Specimen("isolated", _scene(places, setup, rng)))
    for count in setup.counts:
        for _ in range(setup.fields):
            bodies: list[tuple[float, float, float]] = []
            radii: list[float] = []
            while len(bodies) < count:
                radius = 0.5 * rng.uniform(*setup.diameter_um)
                place = (rng.uniform(low, high), *rng.uniform(-half, half, 2))
                if all(
                    np.linalg.norm(np.subtract(place, b)) > radius + r + APART_UM
                    for b, r in zip(bodies, radii, strict=True)
                ):
                    bodies.append(tuple(map(float, place)))  # type: ignore[arg-type]
                    radii.append(radius)
            out.append(Specimen(f"{count} neurons", _scene(bodies, setup, rng, radii)))
    return out


def _scene(
    places: list[tuple[float, float, float]],
    setup: LocalizeSetup,
    rng: np.random.Generator,
    radii: list[float] | None = None,
) -> Scene:
    shapes: list[Any] = []
    for k, place in enumerate(places):
        radius = 0.5 * rng.uniform(*setup.diameter_um) if radii is None else radii[k]
        level = float(3.0 ** rng.uniform(-1, 0)) / radius**2
        if k % 2:
            core = float(rng.uniform(0.4, 0.65))
            shapes.append(
                Ellipsoid(place, (radius, radius, radius), core_share=core, core_level=0.3, brightness=level)
            )
        else:
            shapes.append(Ball(place, radius, brightness=level))
    return Scene(tuple(shapes), ("neurons",), tuple(places))


@dataclass(frozen=True)
class Frames:
    """What a microscope records of all specimens.

    Attributes
    ----------
    expected : ndarray, shape (specimens, y, x)
        Photo-electrons without haze, brightest 0.1 % about 1.
    white, dark : ndarray, shape (y, x)
    points : list of ndarray, shape (n, 3)
        The bodies in the frames' world, (z, y, x) um.
    """

    expected: np.ndarray
    white: np.ndarray
    dark: np.ndarray
    points: list[np.ndarray]

    def inputs(
        self, microscope: Microscope, specimen: int, electrons: float, haze: float
    ) -> dict[str, xr.DataArray]:
        """Return raw, white and dark frame of a specimen at a level."""
        rng = np.random.default_rng([SEED, specimen, round(electrons)])
        clean = self.expected[specimen].astype(float)
        clean /= max(float(np.percentile(clean, 99.9)), 1e-12)
        pitch = microscope.nominal_pitch_px
        assert pitch is not None
        scattered = gaussian_filter(clean, 3 * pitch, mode="nearest")
        even = (self.white - self.dark).astype(float)
        glow = 0.5 * scattered / max(float(scattered.max()), 1e-12) + 0.5 * even / float(
            np.percentile(even, 99)
        )
        light = clean + haze * glow
        light *= electrons / float(np.percentile(light, 99.9))
        raw = record(light, microscope.camera, rng)
        step = dict.fromkeys("yx", microscope.object_pixel_um)
        frames = {"image": raw, "white": self.white, "dark": self.dark}
        return {name: labelled(frame, "yx", step) for name, frame in frames.items()}


def frames_of(
    setup: LocalizeSetup, microscope: Microscope, folder: Path, say: Callable[[str], None]
) -> tuple[list[Specimen], Frames]:
    """Record all specimens; what was recorded before is read from `folder`."""
    cell = microscope.lenslet_um
    assert cell is not None and microscope.nominal_pitch_px is not None
    every = specimens(setup, cell)
    told = {k: v for k, v in asdict(setup).items() if k not in ("levels", "tolerance_um")}
    name = hashlib.sha256(
        json.dumps([VERSION, told, microscope.model_dump(mode="json")]).encode()
    ).hexdigest()
    path = folder / f"neurons-{name[:16]}.npz"
    if path.is_file():
        with np.load(path) as kept:
            points = [kept[f"points{k}"] for k in range(len(every))]
            return every, Frames(kept["expected"], kept["white"], kept["dark"], points)
    reach = setup.diameter_um[1] / 2 + setup.z_step_um
    recorded = simulate_lightfields(
        [s.scene for s in every],
        microscope,
        z_um=(setup.z_um[0] - reach, setup.z_um[1] + reach, setup.z_step_um),
        lenslets=(setup.lenslets, setup.lenslets),
        pitch_px=microscope.nominal_pitch_px * PITCH,
        rotation_deg=ROTATION_DEG,
        offset_px=OFFSET_PX,
        exposure=Exposure(peak_electrons=1.0, background=0.0, hot_pixels=0),
        error=SLIGHTLY_OFF,
        voxels_per_lenslet=setup.voxels,
        z_substeps=1,
        truth_voxels_per_lenslet=1,
        seed=SEED,
        on_progress=lambda k, n, _: say(f"Recording {len(every)} specimens: plane {k + 1} of {n}"),
    )
    points = [r["points"][["z_um", "y_um", "x_um"]].to_numpy() for r in recorded]
    out = Frames(
        np.stack([r["expected"].values for r in recorded]).astype(np.float32),
        recorded[0]["white"].values,
        recorded[0]["dark"].values,
        points,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as file:
        named: dict[str, Any] = {f"points{k}": p for k, p in enumerate(points)}
        np.savez(file, expected=out.expected, white=out.white, dark=out.dark, **named)
    return every, out
