"""Before isotropic restoration is trained: what it takes, and what keeps it from starting."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.methods.isotropic.blur import check_blur
from napari_lfm.methods.isotropic.plan import factor_problem, stack_problems, understood
from napari_lfm.methods.isotropic.start import channels_of, named_model
from napari_lfm.methods.train_isotropic_data import IsotropicStack, read_isotropic_stack
from napari_lfm.methods.train_isotropic_wish import MANY_CHANNELS, network_of, pooled_of, simulated_plan_of
from napari_lfm.methods.wfcon_check import FLOPS_GPU, RUNTIME_BYTES
from napari_lfm.training.isotropic_patches import LEAST_PLANES, LEAST_SIDE_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.methods.train_isotropic_wish import IsotropicWish

FLOPS_PER_THREAD = {True: 2.4e11, False: 8e10}
"""Operations per second that a thread does in 2-D convolutions, in bfloat16 or not; measured."""
_STEP_SECONDS = 0.02
"""Of a step beside the network's operations: drawing, blurring and scaling of patches, for 16 of them."""

_SIDE_PX = 128


@dataclass(frozen=True)
class IsotropicEstimate:
    """What a training takes.

    Attributes
    ----------
    steps : int
        That the minutes hold, or those asked for.
    peak_bytes : int
        Main memory.
    sentences : tuple of str
        The same in words, what is trained on first.
    """

    steps: int
    peak_bytes: int
    sentences: tuple[str, ...]


def check_isotropic(wish: IsotropicWish, layers: Sequence[IsotropicStack] = ()) -> list[Problem]:
    """Return what keeps a training from starting, and what should be known before.

    Parameters
    ----------
    wish : IsotropicWish
    layers : sequence of IsotropicStack
        The stack, where the wish names a layer.
    """
    if wish.simulated:
        return _start_problems(wish, 1)
    try:
        stack, found = _opened(wish, layers)
    except LfmError as error:
        return [Problem(error.message, error.remedy, field="stacks")]
    out = stack_problems(stack.image)
    out += check_blur(wish, wish.microscope, stack.psf)
    if found.planes < LEAST_PLANES or min(found.info.shape[1:]) < LEAST_SIDE_PX:
        out.append(
            Problem(
                f"A stack of {' x '.join(map(str, found.info.shape))} voxels is too small to train on.",
                f"Give {LEAST_PLANES} planes of {LEAST_SIDE_PX} x {LEAST_SIDE_PX} pixels or more.",
                field="stacks",
            )
        )
    hardly = factor_problem(found)
    out += [] if hardly is None else [hardly]
    out += _start_problems(wish, _channels(wish, found))
    peak = training_bytes(wish, found)
    if not any(p.severity == "error" for p in out) and peak > memory_budget("cpu"):
        out.append(
            Problem(
                f"The training would take {peak / 2**30:.1f} GiB of memory, and "
                f"{memory_budget('cpu') / 2**30:.1f} GiB are free.",
                "Crop the stack: a part of it is enough to learn from.",
                field="stacks",
            )
        )
    return out


def estimate_isotropic(wish: IsotropicWish, layers: Sequence[IsotropicStack] = ()) -> IsotropicEstimate:
    """Return what a training takes, as `check_isotropic`.

    Raises
    ------
    RequestError
        If there is no such stack, or the network cannot be made.
    """
    found = None if wish.simulated else _opened(wish, layers)[1]
    step = step_seconds(wish, found)
    steps = float(wish.steps or math.inf)
    if wish.minutes is not None:
        steps = min(steps, 60 * wish.minutes / step)
    count, peak = max(1, int(steps)), training_bytes(wish, found)
    start = f"goes on from the model '{wish.start_from}'" if wish.starts else "begins with random weights"
    timed = wish.minutes is not None and count != wish.steps
    length = f" in {duration(60 * (wish.minutes or 0))}" if timed else ""
    each = duration(step) if step >= 1 else f"{step:.1g} s"
    digits = max(0, len(str(count)) - 2)
    return IsotropicEstimate(
        count,
        peak,
        (
            *_trained_on(found, start),
            f"About {round(count, -digits):,} step{'s' if count > 1 else ''}{length}, {each} each, with "
            f"{peak / 2**30:.1f} GiB of memory.",
        ),
    )


def _trained_on(found: Understood | None, start: str) -> tuple[str, ...]:
    if found is None:
        return (
            f"The network sees simulated slices of all kinds, made coarse in all ways, and {start}: for "
            "other trainings to start from.",
        )
    return (
        found.sentence,
        f"The network sees the stack's own planes, made as coarse as its z, and {start}; a tenth of the "
        "planes is only validated on.",
    )


def step_seconds(wish: IsotropicWish, found: Understood | None) -> float:
    """Return how long a step takes, about."""
    import torch

    from napari_lfm.training.config import uses_bfloat16

    t, device = wish.tuning, pick_device(wish.device)
    side = t.patch_px if found is None else min(t.patch_px, *found.info.shape[1:])
    network = {**network_of(wish), **_channels_argument(wish, _channels(wish, found))}
    each = flop_per_pixel(wish.architecture or "isotropic", json.dumps(network, sort_keys=True))
    flop = 3.0 * t.batch_size * side**2 * each
    narrow = uses_bfloat16(wish.precision, device)
    rate = FLOPS_PER_THREAD[narrow] * torch.get_num_threads() if device.type == "cpu" else FLOPS_GPU
    return flop / rate + _STEP_SECONDS * t.batch_size / 16


def training_bytes(wish: IsotropicWish, found: Understood | None) -> int:
    """Return the main memory of a training."""
    t = wish.tuning
    if found is None:
        plan = simulated_plan_of(wish)
        specimens = 4 * plan.pool * plan.planes * plan.side_px**2
        return int(RUNTIME_BYTES + specimens + 32 * max(t.widths or (48,)) * t.batch_size * t.patch_px**2)
    channels = _channels(wish, found)
    voxels = channels * math.prod(found.info.shape)
    # in single precision, and as it was read; the published way also keeps it degraded
    data = voxels * (12 if wish.profile == "csbdeep" else 8)
    side = min(t.patch_px, *found.info.shape[1:])
    widest = max(t.widths or (t.base or 48,))
    return int(RUNTIME_BYTES + data + 4 * 8 * widest * t.batch_size * side**2)


def _opened(wish: IsotropicWish, layers: Sequence[IsotropicStack]) -> tuple[IsotropicStack, Understood]:
    stack = read_isotropic_stack(wish, layers)
    return stack, understood(stack.image, wish)


def _channels(wish: IsotropicWish, found: Understood | None) -> int:
    return 1 if wish.channel is not None or found is None else found.info.channels


def _channels_argument(wish: IsotropicWish, channels: int) -> dict[str, Any]:
    if wish.architecture not in ("", *MANY_CHANNELS):
        return {}
    return {"channels": 1 if pooled_of(wish) else channels}


def _start_problems(wish: IsotropicWish, channels: int) -> list[Problem]:
    if not wish.starts:
        return []
    try:
        entry = named_model(wish.start_from, imports=False)
    except RequestError as error:
        return [Problem(error.message, error.remedy or "Start from nothing.", field="start_from")]
    wanted = 1 if pooled_of(wish) else channels
    if entry is not None and channels_of(entry) != wanted:
        return [
            Problem(
                f"'{entry.card.id}' sees {channels_of(entry)} channels together, and {wanted} will be "
                "trained on.",
                "Start from another model, or from nothing.",
                field="start_from",
            )
        ]
    return []


@lru_cache(maxsize=16)
def flop_per_pixel(architecture: str, network: str) -> float:
    """Return the operations of a forward pass for a pixel of a slice.

    Parameters
    ----------
    architecture : str
    network : str
        Its arguments as JSON.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_lfm.networks.isotropic import make_network

    arguments = json.loads(network)
    with torch.random.fork_rng(devices=[]):
        made = make_network(architecture, arguments).to("meta")
    given = torch.zeros(1, arguments.get("channels", 1), _SIDE_PX, _SIDE_PX, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(given)
    return float(counter.get_total_flops()) / _SIDE_PX**2
