"""Re-projection: what light field a volume would have given, beside the one that was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from napari_lfm.core.devices import pick_device
from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import affine_of, labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import box_average
from napari_lfm.lightfield.rectify import unrectify
from napari_lfm.methods.deconvolve_lightfield import DeconvolutionState, DeconvolveParameters
from napari_lfm.methods.lightfield_data import LightfieldData, prepare
from napari_lfm.methods.plan import Plan, build_solver, make_plan
from napari_lfm.methods.refine import explain
from napari_lfm.methods.solver import State

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.solver import RichardsonLucy

MOST_VOXELS = 5
"""Voxels per lenslet of the projector at most: volumes that are finer are averaged."""


@dataclass(frozen=True)
class Reprojection:
    """A prediction held against the measurement.

    Attributes
    ----------
    measured, predicted, residual : xarray.DataArray
        Dims ``y x`` on the raw frame's grid and world, grey values; residual is measured - predicted.
    relative_residual : float
        ``||measured - predicted|| / ||measured - offset||`` over the lenslets.
    expected_noise : float
        The same ratio that noise alone would leave.
    message : str
        The number in words.
    """

    measured: xr.DataArray
    predicted: xr.DataArray
    residual: xr.DataArray
    relative_residual: float
    expected_noise: float
    message: str


def reproject(volume: xr.DataArray, request: Request, frame: int = 0) -> Reprojection:
    """Project a volume, from whatever method, back onto the sensor.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x`` (or ``t z y x``), in the world frame. Its brightness may be arbitrary. Its scale,
        an even haze, light from above and below it, and the camera's offset are fitted: a deconvolution
        fits them too, and a volume is not to blame for what lies outside it.
    request : Request
        The light field, its white and dark frame, lattice and microscope. With the state of a
        deconvolution in ``continue_from`` the light outside the volume (guard planes, margin) is
        known too and is part of the prediction.
    frame : int
        Frame of a movie.

    Raises
    ------
    RequestError
        If the volume does not overlap the light field, or is no volume.
    """
    kept = request.continue_from
    if isinstance(kept, DeconvolutionState) and frame < len(kept.state.x):
        solver, data = kept.solver, kept.data
        predicted = solver.predict(kept.state)[frame : frame + 1]
        offset = float(kept.state.offset[frame])
    else:
        data = _prepared(request)
        z_um = _depths(volume)
        solver = _solver(request, data, z_um, _voxels(volume, data), frame)
        predicted, offset = _explained(_sampled(volume, data, solver, frame), solver)
    measured = (
        solver.measurement.data[frame : frame + 1]
        if len(solver.measurement.data) > 1
        else (solver.measurement.data)
    )
    seen = solver.measurement.response > 0
    difference = (measured - predicted) * seen
    relative = float(difference.norm() / ((measured - offset) * seen).norm().clamp(min=1e-12))
    noise = solver.measurement.noise
    message = (
        f"The volume explains the light field to within {relative:.1%} "
        f"(noise alone would leave about {noise:.1%})."
    )
    images = [_raw_frame(solver, data, part) for part in (measured, predicted, difference)]
    seen_raw, expected, left = (
        _labelled(image, data, name)
        for image, name in zip(images, ("measured", "predicted", "residual"), strict=True)
    )
    return Reprojection(seen_raw, expected, left, relative, noise, message)


def _prepared(request: Request) -> LightfieldData:
    for event in prepare(request):
        if not isinstance(event, Progress):
            return event
    raise AssertionError("prepare always ends with data")


def _depths(volume: xr.DataArray) -> np.ndarray:
    if not {"z", "y", "x"} <= set(map(str, volume.dims)):
        raise RequestError(
            f"A volume has dims z, y and x, not ({', '.join(map(str, volume.dims))}).",
            "Choose a volume layer.",
        )
    affine = affine_of(volume)
    axis = volume.dims.index("z")
    depths: np.ndarray = affine[axis, -1] + affine[axis, axis] * np.arange(volume.sizes["z"])
    return depths


def _voxels(volume: xr.DataArray, data: LightfieldData) -> int:
    """Return the voxels per lenslet of a volume, cut to what a projector is made for."""
    lenslet = data.microscope.lenslet_um
    assert lenslet is not None
    step = float(np.linalg.norm(affine_of(volume)[:-1, volume.dims.index("x")]))
    return int(np.clip(round(lenslet / max(step, 1e-9)), 1, MOST_VOXELS))


def _solver(
    request: Request, data: LightfieldData, z_um: np.ndarray, voxels: int, frame: int
) -> RichardsonLucy:
    """Build the projector for the volume's planes and guard planes around them; nothing is solved."""
    step = float(z_um[1] - z_um[0]) if len(z_um) > 1 else 1.0
    given = request.parameters if isinstance(request.parameters, DeconvolveParameters) else None
    parameters = DeconvolveParameters(
        z_min_um=float(min(z_um[0], z_um[-1])),
        z_max_um=float(max(z_um[0], z_um[-1])),
        z_step_um=abs(step),
        voxels_per_lenslet=given.voxels_per_lenslet if given else voxels,
        vignetting=given.vignetting if given else "pupil",
        anti_aliasing=False,
    )
    wanted = replace(request, parameters=parameters, continue_from=None)
    plan: Plan = make_plan(wanted, data)
    batch = slice(frame, frame + 1)
    for item in build_solver(wanted, parameters, data, plan, pick_device(request.device), batch):
        if not isinstance(item, Progress):
            return item
    raise AssertionError("build_solver always ends with a solver")


def _sampled(volume: xr.DataArray, data: LightfieldData, solver: RichardsonLucy, frame: int) -> torch.Tensor:
    """Sample a volume on the projector's voxels of the observed field, zero outside it."""
    g = solver.projector.geometry
    (sy, sx), (rows, columns), nz = g.planes[0].voxels, g.cells, solver.n_fine
    # the whole shape decides whether a small rotation is written, so ask with the whole shape
    empty = np.broadcast_to(np.float32(0), (1, nz, rows * sy, columns * sx))
    grid = data.volume(empty, _plane_depths(solver), (sy, sx), "grid")
    if "t" in volume.dims:
        volume = volume.isel(t=min(frame, volume.sizes["t"] - 1))
    volume = volume.transpose("z", "y", "x")
    to_world = _grid_affine(grid)
    matrix = np.linalg.inv(affine_of(volume)) @ to_world
    fine = np.asarray(volume, np.float32)
    for axis in (1, 2):  # what is finer than the projector's voxels is averaged first
        ratio = float(np.linalg.norm(matrix[axis, 1:3]))
        if ratio > 1.2:
            fine = box_average(fine, axis, ratio)
    values = ndimage.affine_transform(
        fine,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=(nz, rows * sy, columns * sx),
        order=1,
        mode="constant",
        cval=0.0,
    )
    if not np.any(values):
        raise RequestError(
            "The volume does not overlap the light field, or is all zero.",
            "Check that both come from the same recording.",
        )
    return torch.from_numpy(np.maximum(values, 0))[None].to(solver.projector.device)


def _plane_depths(solver: RichardsonLucy) -> np.ndarray:
    return np.array([p.z_um for p in solver.projector.geometry.planes[: solver.n_fine]])


def _grid_affine(grid: xr.DataArray) -> np.ndarray:
    full = affine_of(grid)
    return full if grid.ndim == 3 else np.delete(np.delete(full, 0, 0), 0, 1)


def _explained(volume: torch.Tensor, solver: RichardsonLucy) -> tuple[torch.Tensor, float]:
    """Return the prediction that comes nearest to the data, and its offset."""
    found = explain(solver, volume)
    channels = torch.zeros_like(found.parts[0])
    for level, part in zip(found.levels, found.parts, strict=True):
        channels += float(level) * part
    nothing = channels.new_zeros(1, 1, 1, 1)
    return solver.predict(State(channels, nothing + found.offset)), found.offset


def _raw_frame(solver: RichardsonLucy, data: LightfieldData, channels: torch.Tensor) -> np.ndarray:
    image = solver.projector.channels_to_image(channels)[0].float().cpu().numpy()
    return unrectify(image, data.rectified, fill=np.nan)


def _labelled(image: np.ndarray, data: LightfieldData, name: str) -> xr.DataArray:
    step = data.pixel_um
    filled = np.nan_to_num(image, nan=0.0)
    return labelled(filled, ("y", "x"), {"y": step, "x": step}, name=name)
