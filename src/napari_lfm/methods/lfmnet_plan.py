"""What a run of ``lfmnet`` will do: model, planes, tiles, memory and time, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.methods.chosen_model import (
    Planes,
    check_fit,
    choose_model,
    depth_scale,
    describe_model,
    planes_of_card,
    skeleton,
    with_microscope,
)
from napari_lfm.methods.lightfield_data import LightfieldData, check_input, expected_cells
from napari_lfm.methods.plan import RUNTIME_BYTES, Plan
from napari_lfm.methods.refine import refine_plan
from napari_lfm.methods.tiling import Cost, choose_tile, cost_of, smallest_tile, tiles_of
from napari_lfm.networks.conv4d import half_is_native
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.start import Start, StartSettings, make_start, start_cost, start_settings
from napari_lfm.optics.symmetry import IDENTITY, Operation, cell_group

if TYPE_CHECKING:
    import numpy as np
    import torch
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.lfmnet import LfmnetParameters
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.registry import ModelEntry

_FLOPS = {"cuda": 2e13, "mps": 2e12}
_FLOPS_PER_THREAD = 4e10
"""Operations per second, measured: convolutions of both profiles in float32 on a CPU."""

LONG_FLOP = 1e12
"""A frame that takes more is worth 16 bits on processors that multiply them; others keep their digits."""


@dataclass(frozen=True)
class NetworkPlan:
    """Everything a run needs to know beside the pixels.

    Attributes
    ----------
    model : dict
        What provenance keeps of the model.
    planes : Planes
    voxels : int
        Voxels per lenslet of the result; `network_voxels` are the network's own.
    cells : tuple of int
        Lenslets (rows, columns).
    tile : int
        Side of a tile in lenslets, overlap included.
    operations : tuple of Operation
        Flips and turns; the identity first, or alone.
    refine : tuple of (Request, Plan), or None
        The deconvolution that refines the volume.
    start : tuple of (CellOptics, InverseSettings or IterationSettings), or None
        What the network starts from, by the optics of its card.
    cost : Cost
        Of one tile.
    notes : tuple of str
        What is worth saying.
    """

    model: dict[str, Any]
    planes: Planes
    voxels: int
    network_voxels: int
    n_pixels: int
    cells: tuple[int, int]
    tile: int
    reach: int
    step: int
    tileable: bool
    operations: tuple[Operation, ...]
    frames: int
    precision: str
    refine: tuple[Request, Plan] | None
    start: tuple[CellOptics, StartSettings] | None
    cost: Cost
    peak_bytes: int
    notes: tuple[str, ...]

    @property
    def tile_count(self) -> int:
        """Tiles of one frame."""
        return len(tiles_of(self.cells, self.tile, self.reach, self.step))

    def with_smaller_tiles(self) -> NetworkPlan | None:
        """Return the same with tiles half as wide, None where there are no smaller ones."""
        least = smallest_tile(self.reach, self.step)
        if not self.tileable or min(self.tile, max(self.cells)) <= least:
            return None
        return replace(self, tile=max(least, min(self.tile, max(self.cells)) // 2))

    def make_start(self, device: torch.device) -> Start | None:
        """Return what the network starts from, not built yet; None where it starts from nothing."""
        return None if self.start is None else make_start(*self.start, self.cells, device)

    def label(self, data: LightfieldData, volume: np.ndarray, name: str = "volume") -> xr.DataArray:
        """Give volumes (frames, z, y, x) their place in the world."""
        return data.volume(volume, self.planes.z_um, (self.voxels, self.voxels), name)

    def estimate(self, request: Request) -> Estimate:
        """Return output, memory and time on the request's device."""
        import torch

        rows, columns = self.cells
        shape: tuple[int, ...] = (len(self.planes.z_um), rows * self.voxels, columns * self.voxels)
        dims: tuple[str, ...] = ("z", "y", "x")
        if self.frames > 1:
            shape, dims = (self.frames, *shape), ("t", *dims)
        device = pick_device(request.device).type
        rate = _FLOPS.get(device, _FLOPS_PER_THREAD * torch.get_num_threads())
        passes = self.tile_count * len(self.operations) * self.frames
        seconds = 0.5 + passes * self.cost.flop / rate
        if self.start is not None:
            start = start_cost(*self.start, self.cells)
            both = start.building_seconds + start.frame_seconds * self.frames
            seconds += both / max(1, torch.get_num_threads() / 2)
        if self.refine is not None:
            seconds += self.refine[1].estimate(self.refine[0]).seconds
        return Estimate(shape, dims, self.peak_bytes, seconds, self.notes)


def settle(request: Request) -> tuple[Request, ModelEntry]:
    """Return the request with its microscope (else the model's), and the model it means.

    Raises
    ------
    RequestError
        If there is no model that can be used, or no microscope.
    """
    entry = choose_model(request, "lfmnet")
    return with_microscope(request, entry), entry


def check_request(request: Request) -> list[Problem]:
    """Return what is wrong with a request, in plain words; no heavy work."""
    try:
        request, entry = settle(request)
    except RequestError as error:
        # what is wrong with the image is worth saying all the same
        about_image = check_input(request) if request.microscope is not None else []
        return [*about_image, Problem(error.message, error.remedy, field="model")]
    problems = check_input(request)
    if any(p.severity == "error" for p in problems):
        return problems
    n_input, _ = expected_cells(request)
    problems += check_fit(entry.card, request, n_input)
    if any(p.severity == "error" for p in problems):
        return problems
    array = request.microscope.lenslets if request.microscope is not None else None
    if array is not None and array.lattice == "hexagonal":
        problems.append(
            Problem(
                "LFMNet takes square lenslet arrays only, and this one is hexagonal.",
                "Use deconvolve-lightfield.",
                field="microscope",
            )
        )
        return problems
    field = "z_min_um"
    try:
        _planes(entry, request)
        field = "memory_gib"
        plan = make_plan(request, entry)
    except RequestError as error:
        return [*problems, Problem(error.message, error.remedy, field=field)]
    problems += [Problem(note, severity="info", field="model") for note in plan.notes]
    if request.region_px is not None and not plan.tileable:
        problems.append(
            Problem(
                f"The result of '{entry.card.id}' depends on the image's size: a region gives another one.",
                "Use the whole field.",
                "warning",
                "region",
            )
        )
    return problems


def make_plan(request: Request, entry: ModelEntry, data: LightfieldData | None = None) -> NetworkPlan:
    """Choose planes, voxels and tiles so that the run stays within the memory budget.

    Parameters
    ----------
    request : Request
        With a microscope.
    entry : ModelEntry
    data : LightfieldData, optional
        The rectified frames where there are any yet.

    Raises
    ------
    RequestError
        If the depths are not the model's, or nothing fits the memory.
    """
    parameters: LfmnetParameters = request.parameters  # type: ignore[assignment]
    card = entry.card
    n_input, cells = expected_cells(request) if data is None else (data.n_pixels, data.rectified.cells)
    n = card.n_pixels or n_input
    network: Any = skeleton(card)
    planes = _planes(entry, request)
    own = int(network.voxels_per_lenslet or n)
    voxels = parameters.voxels_per_lenslet or own
    where = pick_device(request.device)
    budget = memory_budget(where, request.memory_gib)
    image = request.inputs["image"]
    frames = int(image.sizes["t"]) if image.dims == ("t", "y", "x") else 1
    notes = []
    refine = None
    if parameters.refine_iterations:
        refine = refine_plan(request, planes.z_um, voxels, parameters.refine_iterations, data)
        chosen = refine[0].parameters.voxels_per_lenslet  # type: ignore[attr-defined]
        if chosen != voxels:
            notes.append(
                f"Refining {voxels} voxels per lenslet takes too much memory: the volume has {chosen}"
            )
            voxels = chosen
    if planes.resampled:
        notes.append("The depths lie between the model's planes; they are interpolated")
    if voxels != own:
        notes.append(f"The model gives {own} voxels per lenslet; its volume is resampled to {voxels}")
    precision = parameters.precision
    if precision == "auto":
        long = cost_of(card, n, cells).flop > LONG_FLOP
        half = where.type == "cuda" or (where.type == "cpu" and long and half_is_native(where))
        precision = "bfloat16" if half else "float32"
    operations = cell_group(True) if parameters.confidence == "flips" else (IDENTITY,)
    held = _held_bytes(cells, n, len(planes.z_um), own, voxels, frames, len(operations))
    fixed = RUNTIME_BYTES + held if where.type == "cpu" else 0
    start = start_of(card, network)
    building, begun = 0, 0
    if start is not None:
        takes = start_cost(*start, cells)
        building, begun = takes.building_bytes, takes.held_bytes
    if start is not None and max(building, begun) > budget - fixed:
        needs, free = max(building, begun) / 2**30, max(0, budget - fixed) / 2**30
        raise RequestError(
            f"The optics that the model '{card.id}' starts from take {needs:.2g} GiB for "
            f"{cells[0]} x {cells[1]} lenslets, and {free:.2g} GiB of memory are free for them.",
            "Reconstruct a smaller region, or raise the budget.",
        )
    building, fixed = fixed + building, fixed + begun
    item = 2 if precision == "bfloat16" else 4
    if parameters.tile_lenslets and network.tileable:
        least = smallest_tile(int(network.reach_lenslets), int(network.tile_step_lenslets))
        tile = max(least, parameters.tile_lenslets)
        cost = cost_of(card, n, (min(tile, cells[0]), min(tile, cells[1])), item)
        if fixed + cost.peak_bytes > budget:
            tile, cost = choose_tile(card, n, cells, budget - fixed, item)
    else:
        tile, cost = choose_tile(card, n, cells, budget - fixed, item)
    peak = max(building, fixed + cost.peak_bytes)
    if refine is not None:
        peak = max(peak, refine[1].peak_bytes)
    plan = NetworkPlan(
        model=describe_model(entry),
        planes=planes,
        voxels=voxels,
        network_voxels=own,
        n_pixels=n,
        cells=cells,
        tile=min(tile, max(cells)),
        reach=int(network.reach_lenslets),
        step=int(network.tile_step_lenslets),
        tileable=bool(network.tileable),
        operations=tuple(operations),
        frames=frames,
        precision=precision,
        refine=refine,
        start=start,
        cost=cost,
        peak_bytes=int(peak),
        notes=(),
    )
    if plan.tile_count > 1:
        notes.append(f"The image is worked on in {plan.tile_count} tiles of {plan.tile} lenslets")
    return replace(plan, notes=tuple(f"{note}." for note in notes))


def start_of(card: ModelCard, network: Any) -> tuple[CellOptics, StartSettings] | None:
    """Return what a network starts from; None where it starts from nothing.

    It is made by the card's optics, as in the training: a microscope that fits only roughly is brought to
    them with the recording.

    Raises
    ------
    RequestError
        If the card does not say which optics.
    """
    voxels = int(getattr(network, "start_voxels", 0))
    if not voxels:
        return None
    if card.optics is None or card.n_pixels is None or len(card.z_um) != network.depths:
        raise RequestError(
            f"The model '{card.id}' starts from the optics, and its card does not say which, or where its "
            "planes lie.",
            "Get the model again.",
        )
    named = {k: getattr(network, k) for k in ("start_voxels", "start_noise", "start_iterations")}
    settings = start_settings(card.z_um, named)
    assert settings is not None
    return CellOptics.of(card.optics, card.n_pixels), settings


def _planes(entry: ModelEntry, request: Request) -> Planes:
    p: LfmnetParameters = request.parameters  # type: ignore[assignment]
    scale = depth_scale(entry.card, request.microscope)
    return planes_of_card(entry.card, p.z_min_um, p.z_max_um, p.z_step_um, scale)


def _held_bytes(
    cells: tuple[int, int], n: int, planes: int, own: int, voxels: int, frames: int, operations: int
) -> int:
    """Return what frames, answers and results take in main memory."""
    lenslets = cells[0] * cells[1]
    answer, result = planes * own**2, planes * voxels**2
    answers = 2 if operations == 1 else 5  # the scaled one; with flips also the sums and one in the making
    numbers = (frames + 3) * n * n + answers * answer + (frames + 1) * result
    return 4 * lenslets * numbers
