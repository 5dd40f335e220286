"""Before WFCON-Net is trained: what the pairs allow, what it takes, and what keeps it from starting."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.methods.train_wfcon_wish import WfconWish, network_of
from napari_lfm.methods.wfcon_gather import MEMORY_SHARE
from napari_lfm.methods.wfcon_survey import Survey, survey_words
from napari_lfm.training.stack_pairs import count_held

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

RUNTIME_BYTES = 450 * 2**20
FLOPS_PER_THREAD = {True: 1.3e11, False: 4e10}
"""Operations per second that a thread does in training, in bfloat16 or not; measured."""
FLOPS_GPU = 1.2e13
VGG_FLOP_PER_PIXEL = 1.0e6
"""Of the features of a slice and its target, with the way back; fitted to a measured step."""
IN_HAND_BYTES = 30
"""For a voxel of the pair that is being read, registered and scaled; measured."""
REGISTERING_SECONDS = 8e-6
"""For a voxel of the box that is matched finely, on one thread; measured."""
MOST_NAMED = 6
DRAWING_SECONDS = 4.0
"""For a simulated specimen of 80 x 384 x 384 voxels."""


@dataclass(frozen=True)
class WfconEstimate:
    """What a training takes.

    Attributes
    ----------
    steps : int
        That the minutes hold, or those asked for.
    trained, validated : int
        Pairs; 0 for simulated tissue.
    peak_bytes, disk_bytes : int
        Main memory, and what of the pairs waits on the disk.
    sentences : tuple of str
        The same in words.
    """

    steps: int
    trained: int
    validated: int
    peak_bytes: int
    disk_bytes: int
    sentences: tuple[str, ...]


def check_wfcon(wish: WfconWish, survey: Survey | None) -> list[Problem]:
    """Return what keeps a training from starting, and what should be known before.

    Parameters
    ----------
    wish : WfconWish
    survey : Survey or None
        Of the pairs; None for simulated tissue.
    """
    out: list[Problem] = []
    if survey is not None:
        bad = [p.problem for p in survey.pairs if p.problem is not None]
        if not survey.usable:
            out.append(Problem("No pair can be used.", "Mend what is said of them.", field="pairs"))
        out += bad[:MOST_NAMED]
        if len(bad) > MOST_NAMED:
            more = f"{len(bad) - MOST_NAMED} more pairs cannot be used either."
            out.append(Problem(more, severity="warning", field="pairs"))
        if survey.alone:
            names = ", ".join(f"'{n}'" for n in survey.alone[:MOST_NAMED])
            names += " and more" if len(survey.alone) > MOST_NAMED else ""
            said = (
                f"{len(survey.alone)} file{'s' if len(survey.alone) > 1 else ''} without a partner: {names}."
            )
            remedy = "Pairs have equal names in both folders."
            out.append(Problem(said, remedy, severity="warning", field="pairs"))
        if len(survey.usable) == 1:
            out.append(
                Problem(
                    "There is one pair only: a fifth of it, along x, is kept to validate on.",
                    "More specimens make a network that can be trusted on others.",
                    severity="warning",
                    field="pairs",
                )
            )
    if wish.start_from:
        out += _start_problems(wish, survey)
    if wish.vgg_file and wish.adversarial:
        try:
            _readable_vgg(wish.vgg_file, _stamp(wish.vgg_file))
        except LfmError as error:
            out.append(Problem(error.message, error.remedy, field="vgg_file"))
    return out


def vgg_words(wish: WfconWish) -> str:
    """Return whether features of VGG16 will be compared, in a sentence; empty without a discriminator."""
    if not wish.adversarial or wish.tuning.vgg <= 0:
        return ""
    if wish.vgg_file:
        return f"Features of VGG16 are compared, with the weights in {Path(wish.vgg_file).name}."
    if find_spec("torchvision") is not None:
        return "Features of VGG16 are compared, with torchvision's weights (fetched when they are not there)."
    return (
        "Without weights of VGG16 its features are not compared, and the model's card will say so; the other "
        "losses do most of the work."
    )


def estimate_wfcon(wish: WfconWish, survey: Survey | None) -> WfconEstimate:
    """Return what a training takes, as `check_wfcon`.

    Raises
    ------
    RequestError
        If the network cannot be made.
    """
    import torch

    from napari_lfm.training.config import uses_bfloat16

    t, device = wish.tuning, pick_device(wish.device)
    heads = [] if survey is None else survey.heads
    shapes = [w.shape for w, _ in heads] or [t.shape]
    z, y, x = (min(n, max(s[k] for s in shapes)) for k, n in enumerate(t.patch))
    generator, judge, outputs, weights = _costs(json.dumps(network_of(wish)), (t.batch_size, z, y, x))
    flop = 3.0 * generator
    if wish.adversarial:
        flop += generator + 9.0 * judge
        uses_vgg = t.vgg > 0 and (bool(wish.vgg_file) or find_spec("torchvision") is not None)
        slices = min(t.vgg_slices or z, z)
        flop += VGG_FLOP_PER_PIXEL * t.batch_size * slices * y * x * uses_vgg
    narrow = uses_bfloat16("auto", device)
    rate = FLOPS_PER_THREAD[narrow] * torch.get_num_threads() if device.type == "cpu" else FLOPS_GPU
    step = flop / rate + 0.01
    steps = float(wish.steps or math.inf)
    if wish.minutes is not None:
        steps = min(steps, 60 * wish.minutes / step)
    count = max(1, int(steps))
    held = 0
    sentences: list[str] = []
    if survey is None:
        pairs = t.pool * 4 * math.prod(t.shape)
        work = 60 * math.prod(t.shape)
        first = DRAWING_SECONDS * math.prod(t.shape) / 1.18e7 * (t.pool + 4)
        sentences.append(
            f"Simulated thick tissue: {t.pool} specimens of {' x '.join(map(str, t.shape))} voxels at a "
            f"time, made anew as it goes on; drawing the first takes about {duration(first)}."
        )
    else:
        pairs = sum(4 * w.voxels for w, _ in heads)
        # of the pair in hand: both stacks as they were, on one grid, and scaled
        work = max((IN_HAND_BYTES * w.voxels + 4 * c.voxels for w, c in heads), default=0)
        held = count_held(len(heads), wish.validation_share) if len(heads) > 1 else 0
        sentences.append(f"{survey_words(survey)} {_split_words(len(heads), held)}".strip())
        if wish.register_pairs and heads:
            sentences.append(f"Registering them takes about {duration(_registering_seconds(survey))}.")
    room = int(MEMORY_SHARE * memory_budget("cpu"))
    disk = max(0, pairs - room) if survey is not None else 0
    peak = RUNTIME_BYTES + pairs - disk + max(work, 4 * outputs + 24 * weights)
    timed = wish.minutes is not None and count != wish.steps
    length = f" in {duration(60 * (wish.minutes or 0))}" if timed else ""
    each = duration(step) if step >= 1 else f"{step:.1g} s"
    sentences.append(
        f"About {_round(count)} step{'s' if count > 1 else ''}{length}, {each} each, with "
        f"{peak / 2**30:.1f} GiB of memory."
    )
    if disk:
        sentences.append(f"{disk / 1e9:.0f} GB of the pairs wait on the disk during the training.")
    if vgg := vgg_words(wish):
        sentences.append(vgg)
    return WfconEstimate(count, len(heads) - held, held, peak, disk, tuple(sentences))


def _registering_seconds(survey: Survey) -> float:
    from napari_lfm.training.registration import BOX

    boxes = [math.prod(min(n, m) for n, m in zip(w.shape, BOX, strict=True)) for w, _ in survey.heads]
    return max(1.0, REGISTERING_SECONDS * sum(boxes))


def _split_words(pairs: int, held: int) -> str:
    if pairs < 2:
        return ""
    train = pairs - held
    return f"{train} {'is' if train == 1 else 'are'} trained on, {held} validated on."


def best_start(voxel_um: tuple[float, float, float], microscope: Microscope | None = None) -> str:
    """Return the id of the bundled model that was trained on such stacks, empty where there is none."""
    from napari_lfm.networks.catalogue import list_models
    from napari_lfm.networks.stack_fit import check_stack_card

    fitting = [
        entry
        for entry in list_models("wfcon")
        if entry.source == "bundled"
        and not entry.problem
        and check_stack_card(entry.card, voxel_um, microscope).verdict == "matches"
    ]
    return max(fitting, key=lambda e: e.preference).card.id if fitting else ""


def _start_problems(wish: WfconWish, survey: Survey | None) -> list[Problem]:
    from napari_lfm.networks.catalogue import find_model
    from napari_lfm.networks.stack_fit import check_stack_card

    try:
        entry = find_model(wish.start_from, "wfcon")
        if entry.problem:
            raise RequestError(f"The model '{wish.start_from}' cannot be used: {entry.problem}")
        heads = [] if survey is None else survey.heads
        fit = check_stack_card(entry.card, heads[0][0].voxel_um, wish.microscope) if heads else None
    except RequestError as error:
        return [Problem(error.message, error.remedy or "Start from nothing.", field="start_from")]
    if fit is None or fit.verdict == "matches":
        return []
    return [
        Problem(
            f"'{wish.start_from}' comes from other data: {' '.join(fit.reasons)}",
            "It may still be a better start than none.",
            severity="info",
            field="start_from",
        )
    ]


@lru_cache(maxsize=16)
def _costs(network: str, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return operations of generator and discriminator, numbers in the outputs, and parameters of both."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_lfm.networks.wfcon import Discriminator, WfconNet

    outputs = weights = 0

    def count(_: Any, __: Any, output: Any) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, torch.Tensor) else 0

    found = []
    with torch.random.fork_rng(devices=[]):
        made = WfconNet(**json.loads(network)).to("meta")
        nets = (made, Discriminator(flat=made.flat).to("meta"))
    given = torch.zeros(shape[0], 1, *shape[1:], device="meta")
    for net in nets:
        weights += sum(p.numel() for p in net.parameters())
        for layer in net.modules():
            if not list(layer.children()):
                layer.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(given)
        found.append(int(counter.get_total_flops()))
    return found[0], found[1], outputs, weights


@lru_cache(maxsize=4)
def _readable_vgg(path: str, stamp: tuple[int, int]) -> bool:
    from napari_lfm.networks.vgg import load_vgg

    return load_vgg(path) is not None


def _stamp(path: str) -> tuple[int, int]:
    try:
        stat = Path(path).expanduser().stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _round(count: int) -> str:
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"
