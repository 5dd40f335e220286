"""How a run of refocusing goes: which model, on which pixels, onto which planes; what it needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.io.check import check_pixels
from napari_lfm.methods.refocus.card import domain_of
from napari_lfm.methods.refocus.engine import BEYOND
from napari_lfm.methods.refocus.opening import resampled_shape, resampling, seen_by
from napari_lfm.methods.refocus.wish import (
    Pixels,
    drift_of,
    heights_um,
    parameters_of,
    planes_um,
    refuse_far,
)
from napari_lfm.networks import registry
from napari_lfm.networks.refocus_fit import check_refocus_card, pixel_of

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.refocus.card import RefocusDomain
    from napari_lfm.networks.registry import ModelEntry

DIMS = ("t", "c", "y", "x")
RUNTIME_BYTES = 420 * 2**20
BYTES_PER_PIXEL, BYTES_PER_FAR_PIXEL = 750, 120
"""Of a part that the network sees at once, and of the whole image (measured up to 2048 x 2048)."""
NETWORK_PIXELS = 1216**2
NETWORK_PIXELS_PER_SECOND, PLANE_PIXELS_PER_SECOND = 0.16e6, 1.4e6
"""Of the network, once per image, and of a plane that is then rendered; on one core (measured)."""
START_SECONDS = 2.0
"""To open the model and to compute the optics' transfer functions."""
PUBLISHED_SECONDS, PUBLISHED_BYTES, PUBLISHED_FRAME_PX = 35.0, 2_300 * 2**20, 1024
"""Of the published network with six levels, per frame, on one core (measured)."""
CHECK_PLANES, TURNED_PLANES = 21, 22
_SQUARE = 0.02


@dataclass(frozen=True)
class RefocusPlan:
    """The way of images through the network.

    Attributes
    ----------
    entry : ModelEntry
    domain : RefocusDomain
        With the optics of the microscope that is used.
    pixels : Pixels
    frames, channels : int
    is_stack : bool
        Whether the result has planes.
    z_um : ndarray, shape (planes,)
        Of a stack or of extended focus; else empty.
    heights : ndarray, shape (y, x) or (1, 1)
        The surface, drift apart.
    drift_um : ndarray, shape (frames,)
    beyond_share : float
        Part of all pixels outside the trained range.
    widefield, confocal : bool
        Which outputs are made.
    device : str
    peak_bytes : int
    seconds : float
    notes : tuple of str
        What a user should be told.
    """

    entry: ModelEntry
    domain: RefocusDomain
    pixels: Pixels
    frames: int
    channels: int
    is_stack: bool
    z_um: np.ndarray = field(repr=False)
    heights: np.ndarray = field(repr=False)
    drift_um: np.ndarray = field(repr=False)
    beyond_share: float
    widefield: bool
    confocal: bool
    device: str
    peak_bytes: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def is_published(self) -> bool:
        """Whether it is the published network, which has a scale and frames of its own."""
        return self.entry.card.architecture == "refocus-paper"

    def estimate(self, image: xr.DataArray) -> Estimate:
        """Return output, memory and time."""
        dims = [d for d in ("t", "c") if d in image.dims] + (["z"] if self.is_stack else []) + ["y", "x"]
        rows, columns = self.pixels.result_shape
        sizes = {
            "t": self.frames, "c": self.channels, "z": len(self.z_um), "y": rows, "x": columns
        }  # fmt: skip
        return Estimate(tuple(sizes[d] for d in dims), tuple(dims), self.peak_bytes, self.seconds, self.notes)


def pixel_um_of(request: Request) -> float:
    """Return the pixels of the image, else those of the microscope, um.

    Raises
    ------
    RequestError
        If neither says, or they are not square.
    """
    spacing = spacing_of(request.inputs["image"])
    sizes = [abs(spacing[d]) for d in "yx" if d in spacing]
    if not sizes and request.microscope is not None:
        return float(request.microscope.object_pixel_um)
    if not sizes:
        raise RequestError(
            "The image does not say how large its pixels are.",
            "Give the pixel size (--voxel-um 1,Y,X on the command line, the layer's scale in napari), um.",
        )
    if not all(np.isfinite(v) and v > 0 for v in sizes):
        raise RequestError(f"A pixel of {sizes[-1]:g} um is none.", "Give sizes above 0.")
    if abs(sizes[0] / sizes[-1] - 1) > _SQUARE:
        raise RequestError(
            f"The pixels are {sizes[0]:g} x {sizes[-1]:g} um, which is not square.",
            "Resample the image to square pixels.",
        )
    return float(np.mean(sizes))


def choose_refocus_model(request: Request, method: str) -> ModelEntry:
    """Return the model that a request names, or else the one whose optics and pixels are nearest.

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
    pixel_um = pixel_um_of(request)
    ranked = []
    for entry in registry.list_models(method):
        if entry.problem or entry.source == "remote" or "pixel_um" not in entry.card.scalers:
            continue
        fit = check_refocus_card(entry.card, pixel_um, request.microscope)
        if fit.verdict != "refused":
            off = abs(float(np.log(pixel_um / pixel_of(entry.card))))
            if request.microscope is not None:
                off += abs(float(np.log(request.microscope.objective.na / entry.card.scalers.get("na", 1))))
            ranked.append(((fit.verdict == "matches", round(-off, 1), entry.preference), entry))
    if not ranked:
        raise RequestError(
            f"There is no {method} model for pixels of {pixel_um:.3g} um and these optics.",
            f"Check the pixel size, or train one with 'napari-lfm train {method}'; 'napari-lfm models' lists "
            "those that there are.",
        )
    return max(ranked, key=lambda r: r[0])[1]


def check_request(request: Request, method: str) -> list[Problem]:
    """Return what is wrong with a request, in plain words."""
    image = request.inputs.get("image")
    if image is None:
        return [Problem("There is no image.", "Choose one.", field="image")]
    if request.region_px is not None:
        return [Problem("An image is taken whole.", "Crop it before.", field="region")]
    refused = _no_image(image)
    if refused is not None:
        return [refused]
    out = [_mended(p) for p in check_pixels(image)]
    if any(p.severity == "error" for p in out):
        return out
    try:
        entry = choose_refocus_model(request, method)
        pixel_um = pixel_um_of(request)
        fit = check_refocus_card(entry.card, pixel_um, request.microscope)
    except RequestError as error:
        return [*out, Problem(error.message, error.remedy, field="model")]
    reasons = " ".join(fit.reasons)
    if fit.verdict == "refused":
        remedy = "Choose another model, correct the pixel size, or train a model on this microscope."
        return [*out, Problem(f"The model '{entry.card.id}' does not fit. {reasons}", remedy, field="model")]
    try:
        plan = make_plan(request, method)
    except RequestError as error:
        return [*out, Problem(error.message, error.remedy)]
    if reasons:
        remedy = "Expect more errors than its card says."
        if plan.pixels.factor != 1:
            remedy = "The image is resampled for it, and the result has the model's pixels."
        out.append(
            Problem(f"The model '{entry.card.id}' fits roughly. {reasons}", remedy, "warning", "model")
        )
    if plan.beyond_share > 0:
        out.append(
            Problem(
                beyond_sentence(plan),
                "They are marked in the mask 'beyond': do not rely on them.",
                "warning",
                "surface",
            )
        )
    return out


def beyond_sentence(plan: RefocusPlan) -> str:
    """Return how much of a result is outside the trained range, in a sentence."""
    share, r = 100 * plan.beyond_share, plan.domain.range_um
    said = "Less than 0.1" if share < 0.1 else f"{share:.1f}" if share < 99.95 else "100"
    return f"{said} % of the pixels lie outside the trained range of {-r:g} to {r:g} um."


def _no_image(image: xr.DataArray) -> Problem | None:
    dims = [str(d) for d in image.dims]
    if image.sizes.get("z", 1) > 1:
        return Problem(
            f"This is a stack of {image.sizes['z']} planes; refocusing starts from one.",
            "Choose one plane of it, or name the axis as time to refocus every plane.",
            field="image",
        )
    if [d for d in dims if d not in (*DIMS, "z")] or not {"y", "x"} <= set(dims):
        return Problem(
            f"The image has the axes {' '.join(dims)}; it needs y and x, and may have t and c.",
            "Choose a grey image, or name its axes.",
            field="image",
        )
    if image.sizes.get("t", 1) == 0:
        return Problem("The movie has no frames.", "Check the file.", field="image")
    rows, columns = image.sizes["y"], image.sizes["x"]
    if min(rows, columns) < 2:
        return Problem(
            f"An image of {rows} x {columns} pixels cannot be refocused.",
            "Give several pixels.",
            field="image",
        )
    return None


def _mended(problem: Problem) -> Problem:
    """Return what refocusing says of pixels that others refuse."""
    if "are negative" in problem.message:
        return Problem(problem.message, "They are taken as they are.", "warning", problem.field)
    return problem


def make_plan(request: Request, method: str) -> RefocusPlan:
    """Choose model, pixels and planes.

    Raises
    ------
    RequestError
        If no model fits, the surface is none, or it does not fit the memory.
    """
    p = parameters_of(request)
    image = request.inputs["image"]
    entry = choose_refocus_model(request, method)
    domain = seen_by(domain_of(entry.card), request.microscope)
    if p.output == "confocal" and not domain.confocal:
        raise RequestError(
            f"The model '{entry.card.id}' makes no confocal-like image.", "Choose output = widefield."
        )
    if p.check_consistency and not domain.confocal:
        raise RequestError(
            f"The model '{entry.card.id}' makes no confocal-like image, which check_consistency needs.",
            "Leave check_consistency out, or choose another model.",
        )
    pixel_um = pixel_um_of(request)
    factor, notes = resampling(pixel_um, domain.pixel_um)
    shape = (int(image.sizes["y"]), int(image.sizes["x"]))
    place = Pixels(shape, pixel_um, factor, resampled_shape(shape, factor))
    frames, channels = int(image.sizes.get("t", 1)), int(image.sizes.get("c", 1))
    drift = drift_of(request, frames)
    z_um, heights = np.zeros(0), np.zeros((0, 0), np.float32)
    if p.surface in ("stack", "extended-focus"):
        z_um = planes_um(p, domain.range_um, domain.step_um)
        if p.surface == "extended-focus" and len(z_um) < 2:
            raise RequestError("Extended focus needs two planes or more.", "Give a wider range.")
    else:
        if p.surface == "plane":
            refuse_far(p.z_um, domain.range_um)
        heights = heights_um(request, place)
    share = _beyond(z_um if heights.size == 0 else heights, drift, domain.range_um)
    nearest = float(np.abs((z_um if heights.size == 0 else heights)[..., None] + drift).min())
    if nearest > BEYOND * domain.range_um:
        raise RequestError(
            f"The whole surface is {nearest:.3g} um or more from the image's plane, and the model was "
            f"trained for {-domain.range_um:g} to {domain.range_um:g} um.",
            "Check the unit and the sign of the heights; they count from the image's plane.",
        )
    device = pick_device(request.device)
    made = RefocusPlan(
        entry, domain, place, frames, channels, p.surface == "stack", z_um, heights, drift, share,
        p.output != "confocal", p.output != "widefield" and domain.confocal,
        device.type, 0, 0.0, notes,
    )  # fmt: skip
    return _with_costs(made, request, memory_budget(device, request.memory_gib))


def _beyond(z_um: np.ndarray, drift_um: np.ndarray, range_um: float) -> float:
    part = z_um[:: max(1, len(z_um) // 512), :: max(1, z_um.shape[1] // 512)] if z_um.ndim == 2 else z_um
    counts = [np.mean(np.abs(part + d) > range_um * (1 + 1e-6)) for d in drift_um]
    return float(np.mean(counts))


def _with_costs(plan: RefocusPlan, request: Request, budget: int) -> RefocusPlan:
    """Return the plan with memory and time, or refuse what does not fit."""
    p, image = parameters_of(request), request.inputs["image"]
    pixels = float(np.prod(plan.pixels.result_shape))
    planes = max(1, len(plan.z_um)) if plan.is_stack else 1
    many = plan.frames * plan.channels
    outputs = plan.widefield + plan.confocal + (p.compare != "none")
    if p.surface == "extended-focus":
        outputs = 3 + (p.compare != "none")
    maps = 3 if p.check_consistency else 0
    kept = many * pixels * (4 * (outputs * planes + maps) + (planes if plan.beyond_share else 0))
    held = RUNTIME_BYTES + kept
    at_once = min(pixels, NETWORK_PIXELS) * (2 if p.check_consistency else 1)
    held += PUBLISHED_BYTES if plan.is_published else BYTES_PER_PIXEL * at_once
    held += BYTES_PER_FAR_PIXEL * pixels + ((4 * CHECK_PLANES + 16) * pixels if p.check_consistency else 0)
    if image.chunks is None:
        held += image.size * image.dtype.itemsize
    if held > budget:
        shape = " x ".join(map(str, plan.pixels.result_shape))
        times = "" if many == 1 else f"{many} times "
        what = f"{planes} {'planes' if planes > 1 else 'plane'} of {shape} pixels"
        raise RequestError(
            f"A result of {times}{what} in {outputs} {'outputs' if outputs > 1 else 'output'} needs "
            f"{held / 2**30:.1f} GiB, and the memory budget is {budget / 2**30:.1f} GiB.",
            "Make one output only, fewer planes (z_step_um), fewer frames at a time, or raise the budget.",
        )
    import torch

    if plan.is_published:
        each = PUBLISHED_SECONDS * max(1.0, pixels / PUBLISHED_FRAME_PX**2)
    else:
        each = pixels / PLANE_PIXELS_PER_SECOND
    seconds = max(1, len(plan.z_um)) * each + (0 if plan.is_published else pixels / NETWORK_PIXELS_PER_SECOND)
    if plan.heights.size > 1 and not plan.is_published:
        step = plan.domain.range_um / 20
        seconds += (float(np.ptp(plan.heights)) / step + 2) * each
    if p.check_consistency:
        seconds += (CHECK_PLANES + TURNED_PLANES) * each + 2 * pixels / NETWORK_PIXELS_PER_SECOND
    seconds *= many
    seconds /= torch.get_num_threads() if plan.device == "cpu" else 50
    return replace(plan, peak_bytes=int(held), seconds=START_SECONDS + seconds)
