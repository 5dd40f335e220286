"""How a stack goes through WFCON-Net: which model, on which grid, in which tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.methods.stack_tiles import StackTiling, bytes_per_voxel, plan_tiling
from napari_lfm.methods.widefield.frames import DIMS, StackInfo, check_stack_pixels, stack_info
from napari_lfm.networks import registry
from napari_lfm.networks.stack_fit import SAME_ACROSS, SAME_ALONG, check_stack_card, voxel_of
from napari_lfm.networks.stack_scale import HIGH_PERCENTILE, LOW_PERCENTILE, StackLevels, stack_levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.wfcon import WfconParameters
    from napari_lfm.networks.registry import ModelEntry

LEAST_PLANES = 4
"""Fewer are padded: the network looks for light of other planes."""
HALO_Z = 16
MOST_ACROSS = 512
STATISTICS_TILES = 16
RUNTIME_BYTES = 450 * 2**20
VOXELS_PER_SECOND = 0.85e6
"""Of the bundled model on one core that multiplies bfloat16, in tiles of 704 pixels (measured)."""


@dataclass(frozen=True)
class WfconPlan:
    """The way of a stack through the network.

    Attributes
    ----------
    entry : ModelEntry
    info : StackInfo
        Of the input.
    model_shape : tuple of int
        Of one frame on the model's grid, (z, y, x).
    out_shape : tuple of int
        Of one frame of the result.
    out_z_um : float
        Distance of its planes.
    tiling : StackTiling
    device : str
    bfloat16 : bool
    peak_bytes : int
    notes : tuple of str
        What a user should be told.
    """

    entry: ModelEntry
    info: StackInfo
    model_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    out_z_um: float
    tiling: StackTiling
    device: str
    bfloat16: bool
    peak_bytes: int
    notes: tuple[str, ...]

    @property
    def scalers(self) -> Mapping[str, float]:
        """Return the card's."""
        return self.entry.card.scalers

    @property
    def resampled(self) -> bool:
        """Whether the stack goes to another grid and back."""
        return self.model_shape != self.info.shape or self.out_shape != self.info.shape

    def estimate(self, request: Request) -> Estimate:
        """Return output, memory and time."""
        image = request.inputs["image"]
        sizes = {**{str(d): int(n) for d, n in image.sizes.items()}}
        sizes |= dict(zip("zyx", self.out_shape, strict=True))
        dims = tuple(str(d) for d in image.dims)
        voxels = float(np.prod(self.tiling.largest)) * self.tiling.count
        seconds = voxels * self.info.frames * self.info.channels / VOXELS_PER_SECOND
        seconds /= torch.get_num_threads() if self.device == "cpu" else 50
        return Estimate(tuple(sizes[d] for d in dims), dims, self.peak_bytes, seconds, self.notes)

    def with_smaller_tiles(self) -> WfconPlan | None:
        """Return the plan with tiles of half the side, None where they are small already."""
        z, y, x = self.tiling.core
        if min(y, x) < 64:
            return None
        return replace(self, tiling=replace(self.tiling, core=(z, y // 2 // 32 * 32, x // 2 // 32 * 32)))

    def label(self, values: np.ndarray[Any, Any], image: xr.DataArray) -> xr.DataArray:
        """Return values (t, c, z, y, x) as an image that lies where the input does."""
        import xarray as xr

        dims = [d for d in DIMS if d in image.dims]
        sizes = dict(zip(DIMS, values.shape, strict=True))
        squeezed = values.reshape([sizes[d] for d in dims])
        coords: dict[str, Any] = {}
        for d in dims:
            if d == "z" and values.shape[2] != image.sizes["z"]:
                first = float(image.coords["z"].values[0]) if "z" in image.coords else 0.0
                down = "z" in image.coords and float(image.coords["z"].values[-1]) < first
                step = -self.out_z_um if down else self.out_z_um
                coords["z"] = ("z", first + step * np.arange(values.shape[2]), {"units": "um"})
            elif d in image.coords:
                coords[d] = image.coords[d][: sizes[d]]
        kept = {k: image.attrs[k] for k in ("spacing", "affine_um") if k in image.attrs}
        if "spacing" in kept and values.shape[2] != image.sizes.get("z"):
            kept["spacing"] = {**kept["spacing"], "z": self.out_z_um}
        out = xr.DataArray(squeezed, dims=dims, coords=coords, name="confocal-like", attrs=kept)
        return out.transpose(*image.dims)


def choose_stack_model(request: Request, method: str) -> ModelEntry:
    """Return the model that a request names, or else the one whose voxels and optics are nearest.

    Raises
    ------
    RequestError
        If there is none, or it is broken.
    """
    if request.model:
        entry = registry.find_model(request.model, method)
        if entry.problem:
            raise RequestError(f"The model '{request.model}' cannot be used: {entry.problem}")
        return entry
    voxel = stack_info(request.inputs["image"]).voxel_um
    ranked = []
    for entry in registry.list_models(method):
        if entry.problem or entry.source == "remote":
            continue
        fit = check_stack_card(entry.card, voxel, request.microscope)
        off = sum(abs(np.log(a / b)) for a, b in zip(voxel, voxel_of(entry.card), strict=True))
        if fit.verdict != "refused":
            ranked.append(((fit.verdict == "matches", round(-off, 1), entry.preference), entry))
    if not ranked:
        raise RequestError(
            f"There is no {method} model for voxels of {' x '.join(f'{v:.3g}' for v in voxel)} um and these "
            "optics.",
            f"Train one with 'napari-lfm train {method}'; 'napari-lfm models' lists those that there are.",
        )
    return max(ranked, key=lambda r: r[0])[1]


def check_request(request: Request, method: str) -> list[Problem]:
    """Return what is wrong with a request, in plain words."""
    image = request.inputs.get("image")
    if image is None:
        return [Problem("There is no stack.", "Choose an image.", field="image")]
    if request.region_px is not None:
        return [Problem("A stack is taken whole.", "Crop it before.", field="region")]
    try:
        info = stack_info(image)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="image")]
    if min(info.shape[1:]) < 16:
        return [Problem("The image is smaller than 16 x 16 pixels.", "Give more.", field="image")]
    if info.flat:
        return [
            Problem(
                "This is one plane; the network needs those above and below to tell haze from light.",
                "Give a z-stack.",
                field="image",
            )
        ]
    out = [_mended(p) for p in check_stack_pixels(image)]
    if "psf" in request.inputs:  # the panel keeps it for the deconvolution
        said = "The network takes no point spread function: the one given is left out."
        out.append(Problem(said, severity="info", field="psf"))
    try:
        entry = choose_stack_model(request, method)
        fit = check_stack_card(entry.card, info.voxel_um, request.microscope)
    except RequestError as error:
        return [*out, Problem(error.message, error.remedy, field="model")]
    reasons = " ".join(fit.reasons)
    if fit.verdict == "refused":
        remedy = "Choose another model, or train one on pairs from this microscope."
        out.append(Problem(f"The model '{entry.card.id}' does not fit. {reasons}", remedy, field="model"))
        return out
    if reasons:
        remedy = "The stack is resampled for the network, and the result lies where the input does."
        out.append(
            Problem(f"The model '{entry.card.id}' fits roughly. {reasons}", remedy, "warning", "model")
        )
    if info.shape[0] < LEAST_PLANES:
        out.append(
            Problem(
                f"{info.shape[0]} planes are fewer than the {LEAST_PLANES} that the network works on.",
                "They are mirrored to fill up; expect haze to stay.",
                "warning",
                "image",
            )
        )
    if not any(p.severity == "error" for p in out):
        try:
            make_plan(request, method)
        except RequestError as error:
            out.append(Problem(error.message, error.remedy, field="memory_gib"))
    return out


def _mended(problem: Problem) -> Problem:
    """Return what a network does about pixels that a deconvolution treats otherwise."""
    if "are NaN or infinite" in problem.message:
        return replace(problem, remedy="They are taken to be as bright as the stack's median.")
    if "are negative" in problem.message:
        return replace(problem, remedy="They are taken as they are.", severity="warning")
    return problem


def make_plan(request: Request, method: str) -> WfconPlan:
    """Choose model, grid and tiles.

    Raises
    ------
    RequestError
        If no model fits, or not even a small tile fits the memory.
    """
    from napari_lfm.training.config import uses_bfloat16

    parameters: WfconParameters = request.parameters  # type: ignore[assignment]
    info = stack_info(request.inputs["image"])
    entry = choose_stack_model(request, method)
    model_um = voxel_of(entry.card)
    shape = _model_shape(info, model_um)
    out_shape, out_z = info.shape, info.voxel_um[0]
    if parameters.planes == "model" and shape[0] > info.shape[0]:
        out_shape = (shape[0], *info.shape[1:])
        out_z = info.voxel_um[0] * (info.shape[0] - 1) / max(1, shape[0] - 1)
    device = pick_device(request.device)
    bfloat16 = uses_bfloat16(parameters.precision, device)
    skeleton: Any = _skeleton(entry)
    per_voxel = bytes_per_voxel(entry.card, 2 if bfloat16 else 4)
    per_voxel += 12  # the tile itself, scaled, and what is made of it
    item = int(request.inputs["image"].dtype.itemsize)
    voxels, made = float(np.prod(info.shape)), float(np.prod(shape))
    frames = info.frames * info.channels
    # input; what the network makes, in grey values, and the preview before; a movie's frames; the tile
    held = RUNTIME_BYTES + voxels * frames * item + 12 * made + (4 * voxels * frames if frames > 1 else 0)
    if shape != info.shape or out_shape != info.shape:
        held += 12 * max(made, voxels)
    budget = memory_budget(device, request.memory_gib)
    room = int(budget - held) if device.type == "cpu" else budget
    halo = (HALO_Z, parameters.overlap_px, parameters.overlap_px)
    tiling = plan_tiling(
        shape, halo, skeleton.multiple, per_voxel, room, MOST_ACROSS, min(parameters.tile_px, max(shape[1:]))
    )
    if tiling is None:
        raise RequestError(
            f"This stack needs at least {(held + 64 * 2**20) / 2**30:.1f} GiB, and the memory budget is "
            f"{budget / 2**30:.1f} GiB.",
            "Raise the budget, or crop the stack.",
        )
    peak = int(held + np.prod(tiling.largest, dtype=float) * per_voxel)
    notes = []
    if shape != info.shape:
        notes.append(
            "The stack is resampled to the model's voxels of "
            f"{' x '.join(f'{v:g}' for v in model_um)} um for the network"
        )
    if tiling.count > 1:
        notes.append(
            f"{tiling.count} tiles of {tiling.core[1]} x {tiling.core[2]} pixels, with blended seams"
        )
    return WfconPlan(entry, info, shape, out_shape, out_z, tiling, device.type, bfloat16, peak, tuple(notes))


def _skeleton(entry: ModelEntry) -> Any:
    from napari_lfm.methods.chosen_model import skeleton

    return skeleton(entry.card)


def _model_shape(info: StackInfo, model_um: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the shape of a frame on the model's grid; the outermost voxels stay where they are."""
    out = []
    for axis, (n, own, model) in enumerate(zip(info.shape, info.voxel_um, model_um, strict=True)):
        ratio = own / model
        same = abs(ratio - 1) <= (SAME_ALONG if axis == 0 else SAME_ACROSS)
        out.append(n if same or n < 2 else max(2, round((n - 1) * ratio) + 1))
    return out[0], out[1], out[2]


def to_model_grid(frame: np.ndarray[Any, Any], plan: WfconPlan) -> np.ndarray[Any, Any]:
    """Return a frame on the model's grid, free of what is no number, mirrored where it is thin."""
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        good = np.isfinite(frame)
        frame = np.where(good, frame, np.median(frame[good]) if good.any() else 0)
    if plan.model_shape == plan.info.shape:
        return frame
    # planes closer together than the model's: none of their light is thrown away
    return _resized(np.asarray(frame, np.float32), plan.model_shape, mean_along=True)


def to_output_grid(made: np.ndarray[Any, Any], plan: WfconPlan) -> np.ndarray[Any, Any]:
    """Return what the network made on the grid of the result."""
    return made if made.shape == plan.out_shape else _resized(made, plan.out_shape)


def _resized(
    stack: np.ndarray[Any, Any], shape: tuple[int, int, int], mean_along: bool = False
) -> np.ndarray[Any, Any]:
    """Return a stack with other numbers of voxels between the same outermost ones.

    Fewer pixels are means of the old ones, and so are fewer planes with `mean_along`, else they are picked.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(stack, np.float32))
    if stack.shape[1:] != shape[1:]:
        # plane by plane: averaged where the new pixels are larger, else cubic
        down, right = (_mean_weights(n, m) for n, m in zip(stack.shape[1:], shape[1:], strict=True))
        out = torch.empty((len(tensor), *shape[1:]))
        for k, plane in enumerate(tensor):
            part = plane if down is None else down @ plane
            part = part if right is None else part @ right.T
            if part.shape != out.shape[1:]:
                part = functional.interpolate(
                    part[None, None], shape[1:], mode="bicubic", align_corners=True
                )[0, 0]
            out[k] = part
        tensor = out
    along = _mean_weights(tensor.shape[0], shape[0]) if mean_along else None
    if along is not None:
        tensor = torch.tensordot(along, tensor, 1)
    elif tensor.shape[0] != shape[0]:
        at = torch.linspace(0, tensor.shape[0] - 1, shape[0])
        low = at.floor().long().clamp(max=tensor.shape[0] - 1)
        high = (low + 1).clamp(max=tensor.shape[0] - 1)
        out = torch.empty((shape[0], *tensor.shape[1:]))
        for k in range(shape[0]):  # plane by plane: no second copy of the stack
            torch.lerp(tensor[low[k]], tensor[high[k]], float(at[k] - low[k]), out=out[k])
        tensor = out
    return np.asarray(tensor.numpy())


def _mean_weights(old: int, new: int) -> torch.Tensor | None:
    """Return the weights (new, old) of triangles as wide as the new voxels; None where those are not larger.

    The outermost voxels stay where they are.
    """
    if not 1 < new < old:
        return None
    pitch = (old - 1) / (new - 1)
    away = (
        torch.arange(old, dtype=torch.float64)[None] - pitch * torch.arange(new, dtype=torch.float64)[:, None]
    )
    weights = (1 - away.abs() / pitch).clamp(min=0)
    # at the borders half a triangle would lean inwards: only what lies on both sides counts
    reach = torch.minimum(pitch * torch.arange(new), old - 1 - pitch * torch.arange(new)).clamp(min=0)
    weights = torch.where(away.abs() <= reach[:, None] + 1e-6, weights, 0)
    return (weights / weights.sum(1, keepdim=True)).float()


def lit_levels(frame: np.ndarray[Any, Any], scalers: Mapping[str, float]) -> tuple[StackLevels | None, str]:
    """Return the levels of a frame, or None and what is to be said where it is dark."""
    finite = frame
    if frame.dtype.kind == "f" and not np.isfinite(frame).all():
        finite = frame[np.isfinite(frame)]
        if finite.size == 0:
            return None, "A stack holds nothing but NaN; it stays dark."
    try:
        low = float(scalers.get("low_percentile", LOW_PERCENTILE))
        return stack_levels(finite, low, float(scalers.get("high_percentile", HIGH_PERCENTILE))), ""
    except RequestError:
        return None, "A stack is all of one brightness; it stays dark."


def hold_statistics(
    network: Any,
    stack: np.ndarray[Any, Any],
    plan: WfconPlan,
    levels: StackLevels,
    device: torch.device,
) -> None:
    """Let a network with norms measure its statistics on tiles from all over the stack, and keep them."""
    z, y, x = (min(n, m) for n, m in zip(plan.model_shape, plan.tiling.largest, strict=True))
    z, y, x = min(z, 32), min(y, 128), min(x, 128)
    rng = np.random.default_rng(0)
    corners = [
        [int(rng.integers(n - m + 1)) for n, m in zip(plan.model_shape, (z, y, x), strict=True)]
        for _ in range(STATISTICS_TILES)
    ]
    tiles = np.stack([levels.scaled(stack[a : a + z, b : b + y, c : c + x]) for a, b, c in corners])
    network.hold_statistics(torch.from_numpy(tiles)[:, None].to(device))
