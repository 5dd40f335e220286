"""Simulated light-field recordings: what a real camera would have seen of a known volume.

Nothing here shares a grid or an operator with the reconstruction (no inverse crime): the object is
rendered on finer voxels and half depth steps, the optics can be slightly off the nominal ones, and
the frame has its own pitch, rotation and offset, with noise, hot pixels, vignetting and a dark level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import Microscope, nearest_odd
from napari_lfm.simulation.camera import record
from napari_lfm.simulation.projection import margin_cells, project_plane
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.recording import SLIGHTLY_OFF, Exposure, OpticsError, Recording
from napari_lfm.simulation.scene import Grid, Scene
from napari_lfm.simulation.sensor import covering_grid, nominal_lattice, to_camera
from napari_lfm.simulation.voxels import sample_volume

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.lightfield.grid import CellGrid
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.psf import CellOptics

__all__ = [
    "SLIGHTLY_OFF",
    "Exposure",
    "OpticsError",
    "Recording",
    "simulate_lightfield",
    "simulate_lightfields",
]

OnProgress = Callable[[int, int, str], None]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Bench:
    """The optical bench, set up once: grids and optics of the fine simulation."""

    optics: CellOptics
    grid: CellGrid
    lattice: Lattice
    pixel_um: float
    voxels: tuple[int, int]
    device: str
    rotation_deg: float
    frame_centre_px: Array = field(repr=False)

    @property
    def cell_um(self) -> Array:
        """Cell size (y, x) in the object, as the lattice on the sensor has it."""
        return np.array([np.linalg.norm(s) for s in self.grid.cell_steps_px]) * self.pixel_um

    def voxel_grid(self, z_um: float, dz_um: float, margin: Sequence[int]) -> Grid:
        """Return one plane of fine voxels, in lattice-aligned coordinates around the frame's centre."""
        away = (np.asarray(self.grid.lattice.origin_px) - self.frame_centre_px) * self.pixel_um
        turn = np.radians(-self.rotation_deg)
        c, s = np.cos(turn), np.sin(turn)
        first = np.array([c * away[0] + s * away[1], c * away[1] - s * away[0]])
        step = self.cell_um / self.voxels
        start = first - np.asarray(margin) * self.cell_um - self.cell_um / 2 + step / 2
        counts = (np.asarray(self.grid.cells) + 2 * np.asarray(margin)) * self.voxels
        return Grid(
            (1, int(counts[0]), int(counts[1])),
            (dz_um, float(step[0]), float(step[1])),
            (z_um, float(start[0]), float(start[1])),
        )


def simulate_lightfield(
    subject: Scene | xr.DataArray,
    microscope: Microscope,
    *,
    z_um: tuple[float, float, float],
    lenslets: tuple[int, int] = (21, 21),
    pitch_px: float | tuple[float, float] | None = None,
    rotation_deg: float = 0.0,
    offset_px: tuple[float, float] = (0.0, 0.0),
    exposure: Exposure | None = None,
    error: OpticsError | None = None,
    voxels_per_lenslet: int = 9,
    z_substeps: int = 2,
    truth_voxels_per_lenslet: int = 3,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> Recording:
    """Record a light field of a known subject.

    Parameters
    ----------
    subject : Scene or xarray.DataArray
        A scene (micrometres around the centre of the field), or a volume ``z y x`` with voxel sizes, whose
        lateral centre is put at the centre of the field and whose z coordinates are kept.
    microscope : Microscope
        The nominal one, with lenslets.
    z_um : tuple of float
        First plane, last plane and step of the truth; light comes from the slabs around these planes.
    lenslets : tuple of int
        (rows, columns) of whole lenslets on the frame.
    pitch_px : float or tuple of float, optional
        Lenslet pitch in camera pixels, any real number; default the microscope's nominal one.
    rotation_deg, offset_px
        How the array lies on the sensor.
    exposure : Exposure, optional
        Light and noise.
    error : OpticsError, optional
        How far the true optics are off; default not at all.
    voxels_per_lenslet, z_substeps : int
        Fineness of the object: voxels per lenslet along one side, planes per step.
    truth_voxels_per_lenslet : int
        Sampling of the returned truth.
    seed : int
        Same seed, same noise.
    device : str
        ``cpu``, ``cuda`` or ``mps``.
    on_progress : callable, optional
        Called with (step, steps, what is being done).

    Returns
    -------
    Recording

    Raises
    ------
    RequestError
        If the microscope has no lenslets or the z range is empty.
    """
    return simulate_lightfields(
        [subject],
        microscope,
        z_um=z_um,
        lenslets=lenslets,
        pitch_px=pitch_px,
        rotation_deg=rotation_deg,
        offset_px=offset_px,
        exposure=exposure,
        error=error,
        voxels_per_lenslet=voxels_per_lenslet,
        z_substeps=z_substeps,
        truth_voxels_per_lenslet=truth_voxels_per_lenslet,
        seed=seed,
        device=device,
        on_progress=on_progress,
    )[0]


def simulate_lightfields(
    subjects: Sequence[Scene | xr.DataArray],
    microscope: Microscope,
    *,
    z_um: tuple[float, float, float],
    lenslets: tuple[int, int] = (21, 21),
    pitch_px: float | tuple[float, float] | None = None,
    rotation_deg: float = 0.0,
    offset_px: tuple[float, float] = (0.0, 0.0),
    exposure: Exposure | None = None,
    error: OpticsError | None = None,
    voxels_per_lenslet: int = 9,
    z_substeps: int = 2,
    truth_voxels_per_lenslet: int = 3,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> list[Recording]:
    """Record several subjects with one microscope: much faster than one by one.

    Parameters and errors are those of `simulate_lightfield`; the first recording's noise is drawn from
    `seed`, the next one's from the number after it.
    """
    exposure = exposure or Exposure()
    error = error or OpticsError()
    planes = _plane_centres(z_um)
    bench = _set_up(
        microscope, lenslets, pitch_px, rotation_deg, offset_px, error, voxels_per_lenslet, device
    )
    sub = (np.arange(z_substeps) + 0.5) / z_substeps - 0.5
    depths = [float(z + d) for z in planes for d in sub * z_um[2]]
    lenslet_images = np.zeros((len(subjects), *bench.grid.shape))
    aligned = [s.turned(-rotation_deg) if isinstance(s, Scene) else s for s in subjects]
    for k, z in enumerate(depths):
        if on_progress is not None:
            on_progress(k, len(depths), "Simulating the light field")
        _add_planes(lenslet_images, bench, aligned, z, z_um[2] / z_substeps)
    white = to_camera(np.tile(_white_cell(bench), bench.grid.cells), bench.grid)
    out = []
    for k, (subject, image) in enumerate(zip(subjects, lenslet_images, strict=True)):
        frames = _frames(image, white, bench, microscope, exposure, seed + k)
        truth = _truth(subject, bench, planes, z_um[2], truth_voxels_per_lenslet)
        truth.attrs["seed"] = seed + k
        out.append(
            Recording(
                raw=frames["raw"],
                white=frames["white"],
                dark=frames["dark"],
                truth=truth,
                expected=frames["expected"],
                points=_points(subject, bench),
                lattice=bench.lattice,
            )
        )
    return out


def _frames(
    lenslet_image: Array, white: Array, bench: _Bench, microscope: Microscope, exposure: Exposure, seed: int
) -> dict[str, xr.DataArray]:
    """Return the camera's frames of one subject, and the electrons expected."""
    rng = np.random.default_rng(seed)
    signal = to_camera(lenslet_image, bench.grid)
    lit = float(np.percentile(signal, 99.9))
    if lit <= 0:
        raise RequestError(
            "Nothing of the subject is inside the field and depth range.", "Widen them, or move the subject."
        )
    flat = white / np.percentile(white, 99.9)
    light = _illumination(flat.shape, exposure.falloff)
    expected = exposure.peak_electrons * light * (signal / lit + exposure.background * flat)
    hot = _hot_electrons(flat.shape, exposure.hot_pixels, microscope, rng)
    frames = {
        name: _exposed(electrons + hot, microscope, exposure.noise, rng)
        for name, electrons in {
            "raw": expected,
            "white": exposure.white_electrons * light * flat,
            "dark": np.zeros_like(flat),
        }.items()
    }
    attrs: dict[str, Any] = {"microscope": microscope.model_dump(mode="json")}
    step = dict.fromkeys("yx", microscope.object_pixel_um)
    images = {n: labelled(f, "yx", step, name=n, attrs=attrs) for n, f in frames.items()}
    return {**images, "expected": labelled(expected, "yx", step, name="expected electrons")}


def _plane_centres(z_um: tuple[float, float, float]) -> Array:
    first, last, step = z_um
    if not step > 0 or last < first:
        raise RequestError(
            f"The depth range {first:g} to {last:g} um in steps of {step:g} um is empty.",
            "Give the lowest z, the highest z and a step above 0.",
        )
    return np.asarray(first + step * np.arange(round((last - first) / step) + 1), np.float64)


def _set_up(
    microscope: Microscope,
    lenslets: tuple[int, int],
    pitch_px: float | tuple[float, float] | None,
    rotation_deg: float,
    offset_px: tuple[float, float],
    error: OpticsError,
    voxels_per_lenslet: int,
    device: str,
) -> _Bench:
    from napari_lfm.optics.psf import CellOptics

    if microscope.lenslets is None or microscope.nominal_pitch_px is None:
        raise RequestError(
            f"The microscope '{microscope.name}' has no lenslet array.", "Choose a light-field microscope."
        )
    pitch = pitch_px if pitch_px is not None else microscope.nominal_pitch_px
    both = (float(pitch[0]), float(pitch[1])) if isinstance(pitch, tuple) else (float(pitch),) * 2
    lattice = nominal_lattice(lenslets, both, rotation_deg, offset_px, microscope.lenslets.lattice)
    true = error.applied(microscope, sum(both) / 2 * microscope.camera.effective_pixel_um)
    # lenslet pixels finer than the camera's, so that moving the light between the grids hardly blurs it
    grid = covering_grid(lattice, nearest_odd(1.6 * max(both)))
    optics = CellOptics.of(true, grid.cell_px[1], error.pupil)
    aspect = optics.cell_um[0] / optics.cell_um[1]
    along_y = nearest_odd(aspect * voxels_per_lenslet) if aspect > 1 else voxels_per_lenslet
    return _Bench(
        optics=replace(optics, cell_px=grid.cell_px),
        grid=grid,
        lattice=lattice,
        pixel_um=microscope.object_pixel_um,
        voxels=(along_y, voxels_per_lenslet),
        device=device,
        rotation_deg=rotation_deg,
        frame_centre_px=(np.asarray(lattice.image_shape, float) - 1) / 2,
    )


def _add_planes(
    images: Array, bench: _Bench, subjects: Sequence[Scene | xr.DataArray], z: float, dz: float
) -> None:
    """Add one fine plane of every subject to its lenslet image. Scenes come turned already."""
    grid = bench.voxel_grid(z, dz, margin_cells(bench.optics, z))
    planes = [
        rasterise(s, grid, bench.device).cpu().numpy()[0]
        if isinstance(s, Scene)
        else sample_volume(s, grid, bench.rotation_deg)[0]
        for s in subjects
    ]
    lit = [k for k, plane in enumerate(planes) if plane.any()]
    if lit:
        light = np.stack([planes[k] for k in lit])
        images[lit] += project_plane(light, z, bench.optics, bench.voxels, device=bench.device)


def _white_cell(bench: _Bench) -> Array:
    """Return one cell of the image of a uniform field.

    A uniform incoherent plane looks the same from every depth, so one plane is enough.
    """
    margin = margin_cells(bench.optics, 0.0)
    shape = [(1 + 2 * m) * s for m, s in zip(margin, bench.voxels, strict=True)]
    return project_plane(np.ones(shape), 0.0, bench.optics, bench.voxels, device=bench.device)


def _illumination(shape: tuple[int, ...], falloff: float) -> Array:
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.asarray(1 - falloff * (y[:, None] ** 2 + x**2) / 2)


def _hot_electrons(
    shape: tuple[int, ...], share: float, microscope: Microscope, rng: np.random.Generator
) -> Array:
    brightness = 0.3 * 2**microscope.camera.bit_depth * microscope.camera.gain_e_per_count
    return np.where(rng.random(shape) < share, rng.uniform(0.2, 1, shape) * brightness, 0.0)


def _exposed(
    electrons: Array, microscope: Microscope, noise: bool, rng: np.random.Generator
) -> npt.NDArray[Any]:
    if noise:
        return record(electrons, microscope.camera, rng)
    camera = microscope.camera
    return np.asarray(electrons / camera.gain_e_per_count + camera.offset_counts, np.float32)


def _truth(
    subject: Scene | xr.DataArray, bench: _Bench, planes: Array, dz: float, per_lenslet: int
) -> xr.DataArray:
    """Return the subject on the grid of camera coordinates, the size of the lattice."""
    size = np.asarray(bench.lattice.image_shape)
    step = bench.cell_um / per_lenslet * np.array([1 / max(round(bench.cell_um[0] / bench.cell_um[1]), 1), 1])
    counts = np.maximum(np.floor(size * bench.pixel_um / step).astype(int), 1)
    start = bench.frame_centre_px * bench.pixel_um - (counts - 1) / 2 * step
    around = start - bench.frame_centre_px * bench.pixel_um
    shape = (len(planes), int(counts[0]), int(counts[1]))
    voxel = (dz, float(step[0]), float(step[1]))
    grid = Grid(shape, voxel, (float(planes[0]), float(around[0]), float(around[1])))
    if isinstance(subject, Scene):
        data = rasterise(subject, grid, bench.device).cpu().numpy()
    else:
        data = sample_volume(subject, grid)
    attrs = {"families": list(subject.families) if isinstance(subject, Scene) else ["volume"]}
    origin = {"z": float(planes[0]), "y": float(start[0]), "x": float(start[1])}
    return labelled(data, "zyx", dict(zip("zyx", voxel, strict=True)), origin, name="truth", attrs=attrs)


def _points(subject: Scene | xr.DataArray, bench: _Bench) -> pd.DataFrame:
    points = np.asarray(subject.points_um if isinstance(subject, Scene) else [], float).reshape(-1, 3)
    world = points + np.array([0.0, *(bench.frame_centre_px * bench.pixel_um)])
    return pd.DataFrame(world, columns=["z_um", "y_um", "x_um"])
