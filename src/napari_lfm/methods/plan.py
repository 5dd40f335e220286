"""How a light-field deconvolution fits into the memory: which planes, which path, how many frames."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.methods.lightfield_data import LightfieldData, expected_cells
from napari_lfm.methods.solver import Measurement, Options, RichardsonLucy
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane, Storage
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.vignetting import fit_pupil, pixel_response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.deconvolve_lightfield import DeconvolveParameters

log = logging.getLogger(__name__)

GUARD_REACH = 1.0
"""Guard planes reach this share of the volume's height beyond each end."""
GUARD_COUNT = 4
RUNTIME_BYTES = 450 * 2**20
"""What Python, torch and the libraries take by themselves on a CPU (measured: 0.35-0.4 GiB)."""
MAX_FRAMES_AT_ONCE = 32


@dataclass(frozen=True)
class Plan:
    """A geometry and the way through the memory.

    Attributes
    ----------
    geometry : Geometry
    n_fine : int
        Planes of the volume; guard planes follow.
    storage : str
        How the operator is stored.
    streamed : bool
        Whether the operator is rebuilt plane by plane for every product.
    frames_at_once : int
    peak_bytes : int
    frames : int
    """

    geometry: Geometry
    n_fine: int
    storage: Storage
    streamed: bool
    frames_at_once: int
    peak_bytes: int
    frames: int

    @property
    def path(self) -> str:
        """Name of the path taken: folded, half, complex or streamed."""
        if self.streamed:
            return "streamed"
        return "half" if self.storage != "float32" else "folded"

    @property
    def sentence(self) -> str:
        """What was chosen, in plain words."""
        size = f"{self.geometry.matrix_bytes(self.storage) / 2**20:.0f} MiB"
        text = {
            "folded": f"The operator is kept whole, folded by symmetry ({size})",
            "half": f"The operator is kept in half precision to fit the memory ({size})",
            "streamed": "The operator is rebuilt plane by plane to fit the memory; this is slow",
        }[self.path]
        together = f"; {self.frames_at_once} frames at once" if self.frames > 1 else ""
        return text + together

    def estimate(self, request: Request) -> Estimate:
        """Return output, memory and time on the request's device."""
        g = self.geometry
        parameters = request.parameters
        sy, sx = g.planes[0].voxels
        shape: tuple[int, ...] = (self.n_fine, g.cells[0] * sy, g.cells[1] * sx)
        dims: tuple[str, ...] = ("z", "y", "x")
        if self.frames > 1:
            shape, dims = (self.frames, *shape), ("t", *dims)
        device = pick_device(request.device)
        seconds = _seconds(self, device.type, getattr(parameters, "iterations", 15))
        return Estimate(shape, dims, self.peak_bytes, seconds, (self.sentence,))

    def same_for(
        self,
        solver: RichardsonLucy,
        data: LightfieldData,
        parameters: DeconvolveParameters,
        batch: slice,
    ) -> RichardsonLucy:
        """Return the solver for the next frames of a movie; the operator is shared."""
        old = solver.measurement
        new = _measurement(solver.projector, data, parameters, old.response, batch)
        return solver.for_measurement(new)


def planes_of(parameters: DeconvolveParameters, hexagonal: bool = False) -> tuple[tuple[Plane, ...], int]:
    """Return the planes to solve for (the volume first, then coarse guard planes) and their number."""
    s = parameters.voxels_per_lenslet
    # a hexagonal cell is sqrt(3) lenslets high: voxels stay as near to square as whole numbers allow
    voxels = (round(math.sqrt(3) * s), s) if hexagonal else (s, s)
    fine = tuple(Plane(float(z), voxels) for z in parameters.z_um)
    if not parameters.guard_planes:
        return fine, len(fine)
    low, high = parameters.z_um[0], parameters.z_um[-1]
    height = max(float(high - low), parameters.z_step_um)
    step = max(GUARD_REACH * height / 2 / GUARD_COUNT, parameters.z_step_um)
    guards = [low - step * (k + 1) for k in range(GUARD_COUNT)]
    guards += [high + step * (k + 1) for k in range(GUARD_COUNT)]
    return fine + tuple(Plane(float(z), (1, 1)) for z in guards), len(fine)


def make_plan(request: Request, data: LightfieldData | None = None, device: str | None = None) -> Plan:
    """Choose planes, margin, storage and batch so that the run stays within the memory budget.

    Raises
    ------
    RequestError
        If not even one plane fits.
    """
    parameters, microscope = request.parameters, request.microscope
    assert microscope is not None
    n, cells = (data.n_pixels, data.rectified.cells) if data is not None else expected_cells(request)
    optics = CellOptics.of(microscope, n)
    planes, n_fine = planes_of(parameters, optics.lattice == "hexagonal")  # type: ignore[arg-type]
    widths = [optics.half_width(p.z_um) for p in planes[:n_fine]]
    half = tuple(max(w[i] for w in widths) for i in (0, 1))
    where = pick_device(device or request.device)
    budget = memory_budget(where, request.memory_gib)
    frames = _frame_count(request)
    fixed = RUNTIME_BYTES if where.type == "cpu" else 0
    best: Plan | None = None
    precision = getattr(parameters, "precision", "auto")
    for margin in (half, tuple(math_half(h) for h in half), (1, 1)):
        geometry = Geometry.plan(optics, planes, cells, margin=margin, max_half_width=half)  # type: ignore[arg-type]
        for storage, streamed in _paths(precision):
            held = _psf_bytes(geometry) if streamed else geometry.matrix_bytes(storage)
            peak = fixed + held + geometry.plane_bytes() + geometry.vector_bytes(1)
            plan = Plan(geometry, n_fine, storage, streamed, 1, peak, frames)
            if best is None or peak < best.peak_bytes:
                best = plan
            if peak <= budget:
                return _with_frames(plan, budget)
    assert best is not None
    raise RequestError(
        f"This volume needs at least {_memory(best.peak_bytes)}, but the memory budget is {_memory(budget)}.",
        "Raise the budget, reconstruct a smaller region, or use fewer voxels per lenslet.",
    )


def _memory(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 0.1 * 2**30 else f"{n_bytes / 2**20:.3g} MiB"


def math_half(value: int) -> int:
    """Return half of `value`, rounded up."""
    return (value + 1) // 2


def check_plan(request: Request) -> list[Problem]:
    """Return whether the memory is enough, and what is odd about the depth range."""
    out: list[Problem] = []
    try:
        plan = make_plan(request)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="memory_gib")]
    microscope, parameters = request.microscope, request.parameters
    assert microscope is not None
    z = parameters.z_um  # type: ignore[attr-defined]
    reach = float(np.abs(z).max())
    if reach > 4 * microscope.depth_range_um:
        out.append(
            Problem(
                f"This microscope resolves little beyond {2 * microscope.depth_range_um:.3g} um from the "
                f"native plane, and the volume reaches to {reach:g} um.",
                "Expect blur there.",
                severity="warning",
                field="z_max_um",
            )
        )
    out += _uneven_planes(parameters)  # type: ignore[arg-type]
    if "white" not in request.inputs and parameters.vignetting != "none":  # type: ignore[attr-defined]
        out.append(
            Problem(
                "There is no white frame: vignetting is not modelled.",
                "A white frame makes the residual about half as large.",
                severity="info",
                field="white",
            )
        )
    if plan.streamed:
        out.append(Problem(plan.sentence + ".", "More memory makes it fast.", severity="warning"))
    return out


def _uneven_planes(parameters: DeconvolveParameters) -> list[Problem]:
    """Return a note where the planes do not end at z_max, which a range and a step easily hide."""
    z, step = parameters.z_um, parameters.z_step_um
    if parameters.z_max_um - z[-1] <= 0.01 * step and (len(z) > 1 or parameters.z_max_um == z[0]):
        return []
    made = f"the only plane is {z[0]:g} um" if len(z) == 1 else f"{len(z)} planes, {z[0]:g} to {z[-1]:g} um"
    return [
        Problem(
            f"Steps of {step:g} um from {z[0]:g} um do not reach {parameters.z_max_um:g} um: {made}.",
            severity="info",
            field="z_step_um",
        )
    ]


def build_solver(
    request: Request,
    parameters: DeconvolveParameters,
    data: LightfieldData,
    plan: Plan,
    device: torch.device,
    batch: slice,
) -> Iterator[Progress | RichardsonLucy]:
    """Fit the pupil, build the operator step by step, and yield the solver last."""
    optics = plan.geometry.optics
    white = data.white
    response = np.ones(data.rectified.image.shape[1:], np.float32)
    if white is not None and parameters.vignetting == "pupil":
        yield Progress(0, 1, "Fitting the pupil to the white frame")
        (rows, columns), (ny, nx) = data.rectified.cells, data.rectified.cell_px
        cell = white.reshape(rows, ny, columns, nx).mean((0, 2))
        pupil, misfit = fit_pupil(cell, optics)
        if misfit < 0.3:
            optics = replace(optics, pupil=tuple(round(v, 4) for v in pupil))
        yield Progress(1, 1, "Fitting the pupil to the white frame", values={"misfit": misfit})
        response = pixel_response(white, optics)
    elif white is not None and parameters.vignetting == "white":
        response = np.clip(white / white.mean(), 0, None).astype(np.float32)
    response = np.where(data.rectified.mask, response, 0).astype(np.float32)
    geometry = replace(plan.geometry, optics=optics)
    projector = LensletProjector(geometry, device, plan.storage, plan.streamed)
    for done, total in projector.build_steps():
        yield Progress(done, total, "Computing the point spread function")
    seen = projector.image_to_channels(torch.from_numpy(response)[None].to(device))
    measurement = _measurement(projector, data, parameters, seen, batch)
    voxels = geometry.planes[0].voxels
    down, right = (c / optics.magnification / n for c, n in zip(optics.cell_um, voxels, strict=True))
    yield RichardsonLucy(
        projector, measurement, options_of(parameters), plan.n_fine, (parameters.z_step_um, down, right)
    )


def options_of(parameters: DeconvolveParameters) -> Options:
    """Return the part of the parameters that steers the iteration."""
    return Options(
        fit_offset=parameters.fit_offset,
        accelerate=parameters.accelerate,
        total_variation=parameters.total_variation,
        anti_aliasing=parameters.anti_aliasing,
    )


def _measurement(
    projector: LensletProjector,
    data: LightfieldData,
    parameters: DeconvolveParameters,
    response: torch.Tensor,
    batch: slice,
) -> Measurement:
    camera, rectified = data.microscope.camera, data.rectified
    frames = torch.from_numpy(np.ascontiguousarray(rectified.image[batch])).to(projector.device)
    channels = projector.image_to_channels(frames)
    read = camera.read_noise_e**2 / camera.gain_e_per_count  # grey values: variance over gain
    # a few pixels in a hundred may stay below zero and are clipped; a larger shift would slow the rest
    some = channels.flatten(1)[:, :: max(1, channels[0].numel() // 200_000)]
    shift = (-torch.quantile(some, 0.01, dim=1)).clamp(min=read).reshape(-1, 1, 1, 1)
    variance = (
        frames.clamp(min=0) / camera.gain_e_per_count + read / camera.gain_e_per_count
    ) * torch.from_numpy(rectified.variance_factor).to(frames)
    noise = float(torch.sqrt(variance.sum() / (frames**2).sum().clamp(min=1e-12)))
    area = rectified.grid.area_px
    return Measurement(channels, response, parameters.background_counts * area, shift, noise)


def _paths(precision: str) -> list[tuple[Storage, bool]]:
    if precision == "float32":
        return [("float32", False), ("float32", True)]
    if precision == "float16":
        return [("float16", False), ("float32", True)]
    return [("float32", False), ("float16", False), ("float32", True)]


def _psf_bytes(geometry: Geometry) -> int:
    (ny, nx), total = geometry.optics.cell_px, 0
    for plane in geometry.planes:
        hy, hx = (
            min(a, b)
            for a, b in zip(geometry.optics.half_width(plane.z_um), geometry.half_width, strict=True)
        )
        representatives = plane.channels if len(geometry.group) < 8 else (plane.channels + 7) // 4
        total += representatives * (2 * hy + 1) * ny * (2 * hx + 1) * nx * 4
    return total


def _with_frames(plan: Plan, budget: int) -> Plan:
    each = plan.geometry.vector_bytes(1)
    room = max(0, budget - plan.peak_bytes)
    frames = int(min(plan.frames, 1 + room // max(1, each), MAX_FRAMES_AT_ONCE))
    return replace(plan, frames_at_once=frames, peak_bytes=plan.peak_bytes + (frames - 1) * each)


def _frame_count(request: Request) -> int:
    image = request.inputs["image"]
    return int(image.sizes["t"]) if image.dims == ("t", "y", "x") else 1


def _seconds(plan: Plan, device: str, iterations: int) -> float:
    """Estimate the duration from operation counts; rates measured on a two-core CPU and typical GPUs."""
    g = plan.geometry
    fast = {"cuda": 60.0, "mps": 15.0}.get(device, max(1.0, torch.get_num_threads() / 2))
    py, px = g.period
    matrix = g.frequencies * g.pixel_channels * g.voxel_channels
    per_product = matrix * 8 * plan.frames / 2.5e10 + matrix * 4 / 1.5e10
    per_grid = plan.frames * (g.pixel_channels + g.voxel_channels) * py * px * 1.2e-8
    step = 2 * per_product + 2 * per_grid
    if plan.streamed:
        step += 2 * g.matrix_seconds()
    return float((g.build_seconds() + iterations * step) / fast + 0.3)
