"""Train on the very stack, then restore it: one job, that the method runs and the panel follows."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.devices import is_out_of_memory, pick_device
from napari_lfm.core.events import Preview, Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.isotropic.blur import LOOKING_AT_BLUR, choose_blur
from napari_lfm.methods.isotropic.course import PRIMARY, RESIDUAL, Course, name_of, parameters_of, result_of
from napari_lfm.methods.isotropic.plan import frame_of, understood
from napari_lfm.methods.isotropic.start import chosen_model
from napari_lfm.methods.waiting import waited_for
from napari_lfm.methods.widefield.frames import place_of
from napari_lfm.networks.isotropic_fit import HIGH_PERCENTILE, LOW_PERCENTILE, resampling_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_lfm.core.events import Result
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.methods.isotropic.restore import Restored
    from napari_lfm.methods.train_isotropic import IsotropicStack, IsotropicWish
    from napari_lfm.methods.train_lfmnet import TrainedModel
    from napari_lfm.networks.registry import ModelEntry
    from napari_lfm.training.events import Validated

_LEAST_CHUNK = 1 << 15
_NOTHING = 5e-4
"""Share that reads 0.0 %."""


def wish_of(request: Request) -> tuple[IsotropicWish, IsotropicStack]:
    """Return the training that a request asks for, and its stack.

    Raises
    ------
    RequestError
        If the parameters make no training.
    """
    from napari_lfm.methods.train_isotropic import IsotropicStack, make_isotropic_wish

    p, name = parameters_of(request), name_of(request)
    wish = make_isotropic_wish(
        {
            "layers": [name],
            "factor": p.factor,
            "blur": p.blur,
            "blur_um": p.blur_um,
            "psf_rule": p.psf_rule,
            "microscope": request.microscope,
            "profile": p.profile,
            "architecture": p.architecture,
            "probabilistic": p.probabilistic,
            "start_from": request.model or "",
            "minutes": p.train_minutes or None,
            "steps": p.train_steps,
            "precision": p.precision,
            "seed": p.seed,
            "device": request.device,
        }
    )
    return wish, IsotropicStack(name, request.inputs["image"], request.inputs.get("psf"))


def restore_after_training(
    request: Request, resume: bool = False
) -> Iterator[Progress | Validated | TrainedModel | Preview | Result]:
    """Train where the parameters ask for it, then restore every frame and channel.

    Closed while it trains, it keeps the best model so far among the user's; closed later, it stops within a
    second.

    Parameters
    ----------
    request : Request
        Checked.
    resume : bool
        Go on with the latest training of this stack, with more minutes or steps in all.

    Yields
    ------
    Progress, Validated, TrainedModel, Preview, Result
        Those of the training first; a Preview for every restored frame.

    Raises
    ------
    RequestError
        If the request cannot be fulfilled.
    """
    from napari_lfm.training.config import uses_bfloat16

    started = time.perf_counter()
    p = parameters_of(request)
    image, psf = request.inputs["image"], request.inputs.get("psf")
    found = understood(image, p)
    blur: ChosenBlur | None = None
    if p.trains or p.consistency:
        middle = frame_of(image, found.info.frames // 2)
        blur = yield from waited_for(
            lambda: choose_blur(middle, found, p, request.microscope, psf), LOOKING_AT_BLUR
        )
        yield Progress(0, 0, blur.sentence)
    trained: dict[str, Any] = {}
    if p.trains:
        entry = yield from _trained(request, blur, resume)
        trained = {k: entry.card.training[k] for k in ("minutes", "steps")}
        trained["started_from"] = entry.card.training["wish"]["start_from"]
    else:
        chosen = chosen_model(request.model, found.factor)
        assert chosen is not None
        entry = chosen
    found = understood(image, p, resampling_of(entry.card))
    device = pick_device(request.device)
    from napari_lfm.methods.isotropic.restore import CHUNK_PIXELS

    course = Course(request, found, entry, blur, started, device, CHUNK_PIXELS)
    yield from _frames(course, uses_bfloat16(p.precision, device))
    yield result_of(course, trained)


def _trained(
    request: Request, blur: ChosenBlur | None, resume: bool
) -> Generator[Progress | Validated | TrainedModel, None, ModelEntry]:
    from napari_lfm.methods.train_isotropic import TrainedModel, run_isotropic_training

    wish, stack = wish_of(request)
    stack = replace(stack, blur=blur)
    entry: ModelEntry | None = None
    for event in run_isotropic_training(wish, resume=resume, layers=[stack]):
        if isinstance(event, TrainedModel):
            entry = event.entry
        yield event
    if entry is None:
        raise RequestError("The training made no model: nothing was learned.", "Train longer.")
    return entry


def _frames(course: Course, bfloat16: bool) -> Iterator[Progress | Preview]:
    """Restore frame after frame, and hold each against the recording."""
    from napari_lfm.methods.chosen_model import describe_model
    from napari_lfm.networks.registry import open_network

    yield Progress(0, 1, f"Opening the model '{course.entry.card.id}'")
    network: Any = open_network(course.entry, course.device)
    info = course.found.info
    record = {"model": describe_model(course.entry)}
    for t in range(info.frames):
        stack = frame_of(course.image, t)
        where = place_of((t, 0), replace(info, channels=1))
        look = partial(_levels, stack)
        course.levels.append((yield from waited_for(look, f"Looking at the grey values{where}")))
        restored = yield from _one(course, network, stack, t, bfloat16, where)
        course.keep(PRIMARY, t, restored.image)
        spans = np.array([high - low for low, high in course.levels[t]], np.float32)[:, None, None, None]
        for name, values in (
            ("disagreement", restored.disagreement),
            ("stated-error", restored.stated_width),
        ):
            if values is not None:
                grey = values.astype(np.float32)
                grey *= spans  # in place: these stacks are large
                course.keep(name, t, grey)
        done = Progress(t + 1, info.frames, f"Restored{where}" if where else "Restored")
        yield Preview(PRIMARY, course.labelled(PRIMARY, t + 1), done, provenance=record)
        if course.parameters.consistency:
            yield from _held_against(course, restored, stack, t, where)


def _levels(stack: np.ndarray) -> list[tuple[float, float]]:
    """Return the grey values of every channel (z, y, x) that become 0 and 1."""
    import torch

    from napari_lfm.training.isotropic_patches import stack_levels_of

    out = []
    for channel in stack:
        tensor = torch.from_numpy(np.ascontiguousarray(channel, np.float32))
        low, span = stack_levels_of(tensor).at(LOW_PERCENTILE, HIGH_PERCENTILE)
        out.append((low, low + span))
    return out


def _one(
    course: Course, network: Any, stack: np.ndarray, t: int, bfloat16: bool, where: str
) -> Generator[Progress, None, Restored]:
    """Restore one frame; where memory runs out, in smaller parts, and at last on the CPU."""
    from napari_lfm.methods.isotropic.restore import Restored, restore_stack

    p, frames = course.parameters, course.found.info.frames
    while True:
        events = restore_stack(
            network,
            stack,
            course.found.factor,
            course.levels[t],
            mean=p.mean,
            resampling=resampling_of(course.entry.card),
            device=course.device,
            bfloat16=bfloat16,
            uncertainty=p.uncertainty,
            chunk_pixels=course.chunk_pixels,
        )
        try:
            for event in events:
                if isinstance(event, Restored):
                    return event
                left = event.seconds_left
                if left is not None and event.step:
                    per_frame = left * event.total / max(event.total - event.step, 1)
                    left += per_frame * (frames - 1 - t)
                done = t * event.total + event.step
                yield Progress(done, frames * event.total, event.message + where, left)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if course.chunk_pixels > _LEAST_CHUNK:
            course.chunk_pixels //= 4
            note = "Out of memory; again with fewer slices at a time"
        elif course.device.type != "cpu":
            note = f"The {course.device.type} device is out of memory; going on on the CPU"
            course.device = pick_device("cpu")
            network.to(course.device)
        else:
            raise RequestError("The memory is not enough for this stack.", "Crop it.")
        course.notes.append(note)
        yield Progress(0, 1, note)


def _held_against(
    course: Course, restored: Restored, stack: np.ndarray, t: int, where: str
) -> Iterator[Progress]:
    """Blur and sample what was restored, and keep what the recording has beyond that."""
    from napari_lfm.methods.isotropic.explained import Explained, explained

    assert course.blur is not None
    rest = np.empty(stack.shape, np.float32)
    course.shares.append([])
    course.noise_shares.append([])
    for c, channel in enumerate(stack):
        made: Explained | None = None
        for event in explained(
            restored.image[c], channel, course.blur.kernel, course.found.factor, restored.step_px
        ):
            made = event
            yield Progress(c, len(stack), f"Holding the result against the recording{where}")
        assert made is not None
        rest[c] = made.residual
        course.shares[-1].append(made.share)
        course.noise_shares[-1].append(made.noise_share)
    course.keep(RESIDUAL, t, rest)
    mean = float(np.mean(course.shares[-1]))
    rest_words = f"but for {mean:.1%}" if mean >= _NOTHING else "to within its noise"
    said = f"The recording is explained {rest_words}{where}"
    yield Progress(len(stack), len(stack), said, values={"unexplained": mean})
