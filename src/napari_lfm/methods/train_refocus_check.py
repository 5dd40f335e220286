"""Before refocusing is trained: what the stacks allow, what it takes, and what keeps it from starting."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.methods.refocus.card import domain_of
from napari_lfm.methods.refocus.own_stacks import (
    StackSize,
    checked_size,
    size_of,
    size_of_file,
)
from napari_lfm.methods.train_refocus_make import start_entry
from napari_lfm.methods.train_refocus_plan import aberration_range, least_pixels, network_of, simulation_of
from napari_lfm.methods.wfcon_check import FLOPS_GPU, FLOPS_PER_THREAD, RUNTIME_BYTES
from napari_lfm.networks.refocus import PLANES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lfm.methods.refocus.own_stacks import NamedStack
    from napari_lfm.methods.train_refocus_wish import RefocusWish

GUESS_SECONDS = 1.2e-7
"""Of the physical guesses, for a pixel of the image and a distance; measured."""
DRAWING_SECONDS = 1.5e-7
"""For a voxel of a simulated stack and its specimen; measured."""
_SIMULATED_BYTES = 60
"""For a voxel of the specimen that is being made; measured."""
_TABLES_BYTES = 200 * 2**20
_FAR = 0.15
"""Part by which aperture or pixels may differ from the start's before that is said."""


@dataclass(frozen=True)
class RefocusEstimate:
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


def check_refocus(wish: RefocusWish, layers: Sequence[NamedStack] = ()) -> list[Problem]:
    """Return what keeps a training from starting, and what should be known before.

    Parameters
    ----------
    wish : RefocusWish
    layers : sequence of NamedStack
        The stacks, where the wish names layers.
    """
    out: list[Problem] = []
    for name, size in _sizes(wish, layers):
        problem = size if isinstance(size, Problem) else _size_problem(name, size, wish)
        out += [] if problem is None else [problem]
    for name in wish.confocal:
        try:
            size_of_file(name)
        except RequestError as error:
            out.append(Problem(error.message, error.remedy, field="confocal"))
    if wish.start_from:
        out += _start_problems(wish)
    peak = _peak_bytes(wish, layers)
    if not out and peak > memory_budget("cpu"):
        out.append(
            Problem(
                f"The training would take {peak / 2**30:.1f} GiB of memory, and "
                f"{memory_budget('cpu') / 2**30:.1f} GiB are free.",
                "Crop the stack, or make the pool of simulated specimens smaller (tuning.pool).",
                field="stacks",
            )
        )
    return out


def estimate_refocus(wish: RefocusWish, layers: Sequence[NamedStack] = ()) -> RefocusEstimate:
    """Return what a training takes, as `check_refocus`.

    Raises
    ------
    RequestError
        If the network cannot be made.
    """
    step = _step_seconds(wish, layers)
    steps = float(wish.steps or math.inf)
    if wish.minutes is not None:
        steps = min(steps, 60 * wish.minutes / step)
    count, peak = max(1, int(steps)), _peak_bytes(wish, layers)
    sentences = [_simulated_words(wish)] if wish.is_simulated else _own_words(wish, layers)
    start = f"goes on from the model '{wish.start_from}'" if wish.start_from else "begins with random weights"
    how = "differences and a discriminator" if wish.adversarial else "differences alone"
    sentences.append(
        f"It {start} and learns distances up to +-{wish.range_um:g} um, of the focus drive, + as the planes' "
        f"index {'falls' if wish.reverse else 'rises'}; by {how}."
    )
    timed = wish.minutes is not None and count != wish.steps
    length = f" in {duration(60 * (wish.minutes or 0))}" if timed else ""
    each = duration(step) if step >= 1 else f"{step:.1g} s"
    digits = max(0, len(str(count)) - 2)
    sentences.append(
        f"About {round(count, -digits):,} step{'s' if count > 1 else ''}{length}, {each} each, with "
        f"{peak / 2**30:.1f} GiB of memory."
    )
    return RefocusEstimate(count, peak, tuple(sentences))


def _sizes(wish: RefocusWish, layers: Sequence[NamedStack]) -> list[tuple[str, StackSize | Problem]]:
    """Return name and size of every stack, or why it is none."""
    out: list[tuple[str, StackSize | Problem]] = []
    for path in wish.stacks:
        try:
            out.append((Path(path).name, size_of_file(path)))
        except LfmError as error:
            out.append((Path(path).name, Problem(error.message, error.remedy, field="stacks")))
    for stack in layers if wish.layers else ():
        try:
            out.append((stack.name, size_of(stack.name, stack.widefield)))
        except LfmError as error:
            out.append((stack.name, Problem(error.message, error.remedy, field="stacks")))
    return out


def _size_problem(name: str, size: StackSize, wish: RefocusWish) -> Problem | None:
    try:
        checked_size(name, size, wish.pixel_um, wish.step_um, least_pixels(wish))
    except RequestError as error:
        return Problem(error.message, error.remedy, field="stacks")
    travel = (size.shape[0] - 1) * wish.step_um
    if travel < 2 * wish.range_um * 0.999:
        reach = min(travel, wish.range_um)
        return Problem(
            f"'{name}' covers {travel:.3g} um: from its middle it shows distances up to {travel / 2:.3g} um, "
            f"from its ends up to {reach:.3g} um, of the {wish.range_um:g} um that are to be learned.",
            f"A stack of {2 * wish.range_um:g} um shows them all.",
            severity="warning",
            field="stacks",
        )
    return None


def _start_problems(wish: RefocusWish) -> list[Problem]:
    try:
        domain = domain_of(start_entry(wish.start_from).card)
    except RequestError as error:
        return [Problem(error.message, error.remedy or "Start from nothing.", field="start_from")]
    other = [
        f"{what} {own:g} here, {theirs:g} there"
        for what, own, theirs in (
            ("aperture", wish.na, domain.optics.na),
            ("pixels (um)", wish.pixel_um, domain.pixel_um),
            ("range (um)", wish.range_um, domain.range_um),
        )
        if abs(own / theirs - 1) > _FAR
    ]
    if not other:
        return []
    return [
        Problem(
            f"'{wish.start_from}' was made for another microscope: {'; '.join(other)}.",
            "The network is told both, so that it may still be the best start; train longer.",
            severity="info",
            field="start_from",
        )
    ]


def _simulated_words(wish: RefocusWish) -> str:
    source = simulation_of(wish)
    shape, t = source.settings.shape, wish.tuning
    voxels = source.settings.object_planes * shape[1] * shape[2]
    first = DRAWING_SECONDS * voxels * (t.pool + t.validation_stacks)
    low, high = aberration_range(wish)
    return (
        f"Simulated specimens for NA {wish.na:g}, pixels of {wish.pixel_um:g} um: {t.pool} stacks of "
        f"{' x '.join(map(str, shape))} voxels at a time, {wish.step_um:g} um apart, made anew as it goes "
        f"on; drawing the first takes about {duration(max(1.0, first))}. Their spherical aberration, which "
        f"tells +z from -z, is {low:+.2f} to {high:+.2f} waves rms."
    )


def _own_words(wish: RefocusWish, layers: Sequence[NamedStack]) -> list[str]:
    sizes = [s for _, s in _sizes(wish, layers) if isinstance(s, StackSize)]
    if not sizes:
        return ["No stack can be used."]
    shape, count = sizes[0].shape, len(sizes)
    seen = f"{shape[0]} planes of {shape[1]} x {shape[2]} pixels"
    if any(s.shape != shape for s in sizes):
        seen = f"{seen} and others"
    confocal = bool(wish.confocal) or any(s.confocal is not None for s in layers)
    head = "1 focal stack" if count == 1 else f"{count} focal stacks"
    extra = "with registered confocal stacks" if confocal else "without a confocal stack"
    return [
        f"{head} of your own, {seen}, {wish.step_um:g} um apart, pixels of {wish.pixel_um:g} um, {extra}; "
        "the last fifth of the columns is only validated on."
    ]


def _step_seconds(wish: RefocusWish, layers: Sequence[NamedStack]) -> float:
    import torch

    from napari_lfm.training.config import uses_bfloat16

    t, device = wish.tuning, pick_device(wish.device)
    patch, image = _pixels(wish, layers)
    flop = 3.0 * t.images * _flop(json.dumps(network_of(wish)), patch)
    narrow = uses_bfloat16(t.precision, device)
    rate = FLOPS_PER_THREAD[narrow] * torch.get_num_threads() if device.type == "cpu" else FLOPS_GPU
    # a transform of every plane of the stack, and of every plane that is rendered from it
    guesses = GUESS_SECONDS * image * (PLANES + 4 * t.planes) * t.images
    # the discriminator sees the same planes, twice
    return (flop / rate + guesses) * (2.0 if wish.adversarial else 1.0) + 0.01


def _pixels(wish: RefocusWish, layers: Sequence[NamedStack]) -> tuple[int, int]:
    """Return the side of a patch, and the pixels of the image that the guesses are made from."""
    side = wish.tuning.patch_px
    if wish.is_simulated:
        _, rows, columns = simulation_of(wish).settings.shape
        return min(side, rows, columns), rows * columns
    blur = float(wish.optics.blur_radius_um(wish.range_um)) / wish.pixel_um
    sizes = [s.shape for _, s in _sizes(wish, layers) if isinstance(s, StackSize)] or [(1, side, side)]
    side = min(side, *(n for s in sizes for n in (s[1], int(0.8 * s[2]))))
    return max(side, least_pixels(wish)), int((side + 4 * blur + 64) ** 2)


def _peak_bytes(wish: RefocusWish, layers: Sequence[NamedStack]) -> int:
    t, (patch, image) = wish.tuning, _pixels(wish, layers)
    if wish.is_simulated:
        s = simulation_of(wish).settings
        voxels = s.object_planes * s.shape[1] * s.shape[2]
        data = 4 * math.prod(s.shape) * (t.pool + t.validation_stacks) + _SIMULATED_BYTES * voxels
        if t.consistency > 0:  # transfer functions of every microscope
            distances = 4 * round(wish.range_um / wish.step_um) + 1
            data += _TABLES_BYTES + wish.spread.variants * distances * PLANES * image
    else:
        sizes = [s.shape for _, s in _sizes(wish, layers) if isinstance(s, StackSize)]
        stacks = 2 if wish.confocal or any(x.confocal is not None for x in layers) else 1
        # as they are read, and in single precision
        data = sum(6 * stacks * math.prod(shape) for shape in sizes)
    layer = 4 * patch * patch * max(t.widths or (32,)) // 4
    activations = t.images * (40 * layer + 40 * PLANES * patch * patch)
    return int(RUNTIME_BYTES + data + activations + 20 * image * PLANES * (2 + t.planes))


@lru_cache(maxsize=16)
def _flop(network: str, patch: int) -> int:
    """Return the operations of a forward pass for one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_lfm.networks.refocus import CONDITIONS, RefocusNet, Sweep

    with torch.random.fork_rng(devices=[]):
        net = RefocusNet(**json.loads(network)).to("meta")
    side = max(1, patch // net.multiple) * net.multiple
    given: dict[str, Any] = {"device": "meta"}
    whole = torch.zeros(net.planes, side, side, **given)
    sweep = Sweep(whole, whole, torch.zeros(net.planes, side // 2, side // 2, **given))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(
            torch.zeros(side, side, **given),
            torch.zeros(net.planes, CONDITIONS, **given),
            sweep if net.sweep else None,
        )
    return int(counter.get_total_flops())
