"""Before a stack is restored: what is wrong with the request, and what the run takes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.methods.isotropic.blur import check_blur
from napari_lfm.methods.isotropic.course import parameters_of
from napari_lfm.methods.isotropic.job import wish_of
from napari_lfm.methods.isotropic.plan import factor_problem, stack_problems, understood
from napari_lfm.methods.isotropic.start import chosen_model, model_problems, model_resampling
from napari_lfm.methods.train_isotropic_check import (
    FLOPS_PER_THREAD,
    check_isotropic,
    flop_per_pixel,
    step_seconds,
    training_bytes,
)
from napari_lfm.methods.wfcon_check import FLOPS_GPU, RUNTIME_BYTES

if TYPE_CHECKING:
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.networks.catalogue import ModelEntry

_CHUNK_BYTES = 350 * 2**20
"""What the network takes for the slices that it sees at a time; measured."""
_PASSES = 2
_BLUR_SECONDS = 3.0
"""Most that looking for the blur takes."""


def check_request(request: Request) -> list[Problem]:
    """Return what is wrong with a request, in plain words."""
    image, p = request.inputs.get("image"), parameters_of(request)
    if image is None:
        return [Problem("There is no stack.", "Choose an image.", field="image")]
    if request.region_px is not None:
        return [Problem("A stack is taken whole.", "Crop it before.", field="region")]
    try:
        found = understood(image, p)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="image")]
    if p.trains:
        out = _training_problems(request)
    else:
        out = stack_problems(image)
        hardly = factor_problem(found)
        out += [] if hardly is None else [hardly]
        psf = request.inputs.get("psf")
        if p.consistency:
            out += check_blur(p, request.microscope, psf)
        elif psf is not None:
            said = "Without training and consistency no point spread function is needed: it is left out."
            out.append(Problem(said, severity="info", field="psf"))
        out += _model_problems(request, found)
    if not any(q.severity == "error" for q in out):
        out += _memory_problems(request, found)
    return out


def _training_problems(request: Request) -> list[Problem]:
    try:
        wish, stack = wish_of(request)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="model" if request.model else "train_minutes")]
    renamed = {"stacks": "image", "start_from": "model"}
    return [
        Problem(q.message, q.remedy, q.severity, renamed.get(q.field, q.field))
        for q in check_isotropic(wish, [stack])
    ]


def _model_problems(request: Request, found: Understood) -> list[Problem]:
    try:
        entry = chosen_model(request.model, found.factor, imports=False)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="model" if request.model else "train_minutes")]
    return [] if entry is None else model_problems(entry, found.factor, found.info.channels)


def _memory_problems(request: Request, found: Understood) -> list[Problem]:
    peak, budget = _peak_bytes(request, found), memory_budget("cpu", request.memory_gib)
    if peak <= budget:
        return []
    return [
        Problem(
            f"This stack needs {peak / 2**30:.1f} GiB, and the memory budget is {budget / 2**30:.1f} GiB.",
            "Raise the budget, crop the stack, or switch uncertainty and consistency off.",
            field="memory_gib",
        )
    ]


def estimate_request(request: Request) -> Estimate:
    """Return output shape, peak memory and time.

    Raises
    ------
    RequestError
        If the stack cannot be restored.
    """
    image, p = request.inputs["image"], parameters_of(request)
    found = understood(image, p, None if p.trains else model_resampling(request.model, 0.0))
    sizes = {str(d): int(n) for d, n in image.sizes.items()} | {"z": found.fine_planes}
    dims = tuple(map(str, image.dims))
    seconds = _restoring_seconds(request, found) + (_BLUR_SECONDS if p.trains or p.consistency else 0.0)
    if p.trains:
        seconds += _training_seconds(request, found)
    return Estimate(
        tuple(sizes[d] for d in dims), dims, _peak_bytes(request, found), seconds, (found.sentence,)
    )


def _entry(request: Request, found: Understood) -> ModelEntry | None:
    try:
        return chosen_model(request.model, found.factor, imports=False)
    except RequestError:
        return None


def _states_widths(request: Request, found: Understood) -> bool:
    """Return whether the network will state how far it may be off."""
    p, entry = parameters_of(request), _entry(request, found)
    return (p.trains and p.probabilistic) or (
        entry is not None and bool(entry.card.network.get("probabilistic", False))
    )


def _restoring_seconds(request: Request, found: Understood) -> float:
    import torch

    from napari_lfm.training.config import uses_bfloat16

    p, device = parameters_of(request), pick_device(request.device)
    entry = _entry(request, found)
    architecture: str = p.architecture or "isotropic"
    arguments: dict[str, Any] = {}
    if entry is not None and not p.architecture:
        architecture, arguments = entry.card.architecture, entry.card.network
    flop = flop_per_pixel(architecture, json.dumps(dict(arguments), sort_keys=True))
    voxels = float(math.prod(found.fine_shape)) * found.info.frames * found.info.channels
    narrow = uses_bfloat16(p.precision, device)
    rate = FLOPS_PER_THREAD[narrow] * torch.get_num_threads() if device.type == "cpu" else FLOPS_GPU
    return 1.0 + _PASSES * voxels * flop / rate


def _training_seconds(request: Request, found: Understood) -> float:
    p = parameters_of(request)
    limits = [60 * p.train_minutes] if p.train_minutes else []
    if p.train_steps is not None:
        limits.append(p.train_steps * step_seconds(wish_of(request)[0], found))
    return min(limits)


def _peak_bytes(request: Request, found: Understood) -> int:
    p, info = parameters_of(request), found.info
    fine = info.channels * math.prod(found.fine_shape)
    coarse = info.channels * math.prod(info.shape)
    item = int(request.inputs["image"].dtype.itemsize)
    kept: dict[str, Any] = {"isotropic": 4 * fine}
    if p.uncertainty:
        kept["disagreement"] = 4 * fine
    states = _states_widths(request, found)
    if states:
        kept["stated-error"] = 4 * fine
    if p.consistency:
        kept["residual"] = 4 * coarse
    # of a movie all frames are kept, and one is in hand
    held = sum(kept.values()) * (info.frames if info.frames > 1 else 1)
    work = 2 * fine * (p.uncertainty + states) + coarse * (item + 8)
    work += 4 * fine if info.frames > 1 else 0
    restoring = RUNTIME_BYTES + held + work + _CHUNK_BYTES + coarse * info.frames * item
    training = training_bytes(wish_of(request)[0], found) if p.trains else 0
    return int(max(restoring, training))
