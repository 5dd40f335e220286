"""One button makes a network for this microscope: LFMNet trained on light fields simulated from its optics.

Events come out of a generator, as from every method; closing it stops. The model folder is written after
every validation that is the best so far, so nothing that was learned is ever lost.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from napari_lfm.core.devices import is_out_of_memory, memory_budget, pick_device
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import LfmError, Problem, RequestError, raise_for
from napari_lfm.methods.train_baseline import Baseline
from napari_lfm.methods.train_jobs import (
    RECORD,
    Job,
    discard,
    is_taken,
    model_folder_of,
    new_job,
    place_of,
    recorded_wish,
    refuse_finished,
    resumed_job,
    training_folder,
)
from napari_lfm.methods.train_plan import TrainingEstimate, estimate
from napari_lfm.methods.train_wish import TrainTuning, TrainWish, load_recipe, make_wish
from napari_lfm.networks.card import CARD_FILE
from napari_lfm.networks.catalogue import read_model
from napari_lfm.training.checkpoint import BEST, LAST, read_state, refuse_other_run
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.lfmnet import LfmnetTask
from napari_lfm.training.lfmnet_card import finish_model
from napari_lfm.training.lfmnet_paper import PaperTask
from napari_lfm.training.loop import train
from napari_lfm.training.outcome import read_result

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_lfm.networks.registry import ModelEntry

__all__ = [
    "TrainTuning",
    "TrainWish",
    "TrainedModel",
    "TrainingEstimate",
    "check_training",
    "estimate_training",
    "load_recipe",
    "make_wish",
    "outcome_of_training",
    "recorded_wish",
    "run_training",
    "training_folder",
]

LEAST_STEPS, FEW_STEPS = 20, 500


@dataclass(frozen=True)
class TrainedModel:
    """The end of a training.

    Attributes
    ----------
    entry : ModelEntry or None
        The installed model; None where nothing was learned before the end.
    result : TrainResult or None
        How the run ended.
    folder : Path
        Folder of the training, to go on in.
    """

    entry: ModelEntry | None
    result: TrainResult | None
    folder: Path


def check_training(wish: TrainWish, model_folder: str | Path | None = None) -> list[Problem]:
    """Return what is wrong with a wish, or worth knowing, in plain words; nothing is computed.

    Parameters
    ----------
    wish : TrainWish
    model_folder : path, optional
        As for `run_training`: a model elsewhere may have an id that is taken among the user's.
    """
    microscope, out = wish.microscope, []
    if microscope.lenslets is None:
        return [
            Problem(
                f"The microscope '{microscope.name}' has no lenslet array.",
                "Choose a light-field microscope.",
                field="microscope",
            )
        ]
    if microscope.lenslets.lattice != "square":
        return [
            Problem(
                f"Networks are trained for square lenslet arrays; that of '{microscope.name}' is hexagonal.",
                "Deconvolve its light fields with 'deconvolve-lightfield' instead.",
                field="microscope",
            )
        ]
    try:
        z = wish.depths_um()
        device = pick_device(wish.device)
    except RequestError as error:
        return [error.problem()]
    if len(z) < 2:
        out.append(Problem("One plane is no volume.", "Give a depth range of two or more.", field="z_max_um"))
    if (wish.n_pixels or 1) % 2 == 0:
        out.append(Problem("N, the pixels per lenslet, must be odd.", "Leave it out.", field="n_pixels"))
    if any(p.severity == "error" for p in out):
        return out
    if model_folder is None and wish.id and is_taken(wish.id):
        if not (training_folder(wish.id) / RECORD).is_file():  # else its folder has more to say
            out.append(Problem(f"There is a model '{wish.id}' already.", "Give another id.", field="id"))
    return out + _check_amounts(wish, max(map(abs, z)), memory_budget("cpu"), device.type)


def _check_amounts(wish: TrainWish, reach_um: float, budget: int, device: str) -> list[Problem]:
    """Return whether time and memory are enough, and what is odd about the depths."""
    out, microscope = [], wish.microscope
    try:
        needs = estimate(wish)
    except RequestError as error:
        return [error.problem()]
    if needs.peak_bytes > budget:
        out.append(
            Problem(
                f"This training needs about {needs.peak_bytes / 2**30:.1f} GiB of memory, and "
                f"{budget / 2**30:.1f} GiB can be had.",
                "Take fewer planes, fewer voxels per lenslet, or a smaller network.",
                field="size",
            )
        )
    if wish.minutes is not None and needs.steps < FEW_STEPS and needs.steps != wish.steps:
        nothing = needs.steps < LEAST_STEPS
        out.append(
            Problem(
                f"{wish.minutes:g} minutes hold about {needs.steps} steps on this machine: "
                f"{'nothing can be learned in them' if nothing else 'little can be learned in them'}.",
                "Give it more minutes, fewer planes or a smaller network.",
                "error" if nothing else "warning",
                "minutes",
            )
        )
    if reach_um > 4 * microscope.depth_range_um:
        out.append(
            Problem(
                f"This microscope resolves little beyond {2 * microscope.depth_range_um:.3g} um from the "
                f"native plane, and the volume reaches to {reach_um:g} um.",
                "Expect blur there.",
                "warning",
                "z_max_um",
            )
        )
    if wish.size == "large" and device == "cpu":
        out.append(Problem("The large network wants a GPU.", "Take small or medium.", "warning", "size"))
    return out


def estimate_training(wish: TrainWish) -> TrainingEstimate:
    """Return what a training will take: numbers, steps, memory, time; nothing is computed.

    Raises
    ------
    RequestError
        If the wish cannot be planned.
    """
    return estimate(wish)


def run_training(
    wish: TrainWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    Parameters
    ----------
    wish : TrainWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Folder of the training; default in the user's folder, by the model's id.
    resume : bool
        Go on where the training in `folder` stopped; with neither folder nor id, the microscope's latest.
    model_folder : path, optional
        Where the model goes; default the user's models, so that it is in the list at once.
    recipe : str
        File or command that asked for it, for the card.

    Yields
    ------
    Progress, Validated or TrainedModel
        Stages of the preparation, every step (`napari_lfm.training.loop.train`), every validation (with
        ``psnr_db``, ``baseline_psnr_db`` and ``rl5_psnr_db``: Richardson-Lucy, 15 and 5 iterations), the end.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, or the training in the folder is another one.
    """
    if not resume:
        raise_for(check_training(wish, model_folder))
    job = resumed_job(wish, folder) if resume else new_job(wish, folder, model_folder)
    task, baseline = _task_of(job)
    if resume and (job.folder / LAST).is_file():
        # before minutes of preparation, not after
        state = read_state(job.folder / LAST)
        refuse_other_run(job.folder / LAST, state, job.config.dump(), task.describe())
        refuse_finished(job, state)
    few = None
    try:
        if baseline is not None:
            for done, total in baseline.prepare():
                yield Progress(done, total, "Computing the optics to compare with")
        for done, total, what in task.prepare():
            yield Progress(done, total, what)
        if baseline is not None:
            few = baseline.few_psnr_db(task.validation_pairs)
            baseline.release()
    except BaseException as error:
        if not resume:
            discard(job)  # it never began
        if is_out_of_memory(error):
            raise RequestError(
                "Memory ran out before the training began.",
                "Take fewer planes, fewer voxels per lenslet, or a smaller network.",
            ) from error
        raise
    yield from _followed(job, task, few, resume, recipe)


def outcome_of_training(wish: TrainWish, folder: str | Path | None = None) -> TrainedModel:
    """Return what a training left that was stopped or killed; arguments as for `run_training`.

    Raises
    ------
    RequestError
        If there is none, or it never came to its first step.
    """
    place = place_of(wish, folder)
    model, result = model_folder_of(place), read_result(place)
    return TrainedModel(read_model(model) if (model / CARD_FILE).is_file() else None, result, place)


def _followed(
    job: Job, task: LfmnetTask, few: float | None, resume: bool, recipe: str
) -> Iterator[Progress | Validated | TrainedModel]:
    """Run the loop and install the best model whenever there is a better one."""
    installed = -1

    def install() -> None:
        nonlocal installed
        result = read_result(job.folder) if (job.folder / LAST).is_file() else None
        if not (job.folder / BEST).is_file() or (result is not None and result.step <= result.skipped):
            return  # nothing was learned
        step = int(read_state(job.folder / BEST)["step"])
        ended = result is not None and result.reason != "stopped"
        if step > installed or ended:
            _install(job, task.output_scale, few, recipe)
            installed = step

    events = cast(
        "Generator[Progress | Validated | TrainResult]", train(task, job.config, job.folder, resume=resume)
    )
    result: TrainResult | None = None
    begun = False
    try:
        for event in events:
            begun = True
            if isinstance(event, TrainResult):
                result = event
                continue
            if isinstance(event, Validated):
                if few is not None:
                    event = replace(event, values={**event.values, "rl5_psnr_db": few})
                if event.best_step == event.step:
                    try:
                        install()
                    except LfmError as error:  # e.g. a full disk: the training goes on, and tries again
                        yield replace(
                            event.progress, message=f"Training goes on, but {_lower(error.message)}"
                        )
            yield event
    except (GeneratorExit, KeyboardInterrupt):  # Stop: what was learned so far becomes the model
        events.close()
        install()
        raise
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            events.close()
            if begun:  # else what is in the folder is not this run's
                install()
        raise
    install()
    entry = read_model(job.model_folder) if installed >= 0 else None
    yield TrainedModel(entry, result, job.folder)


def _install(job: Job, output_scale: float, few: float | None, recipe: str) -> None:
    extras: dict[str, Any] = {"id": job.model_folder.name, "recipe": recipe}
    if job.wish.title:
        extras["title"] = job.wish.title
    measured = {} if few is None else {"rl5_psnr_db": few}
    finish_model(job.folder, job.plan, output_scale, job.model_folder, measured, **extras)


def _task_of(job: Job) -> tuple[LfmnetTask, Baseline | None]:
    baseline = Baseline(job.plan) if job.wish.compare else None
    kind = PaperTask if job.plan.size == "paper" else LfmnetTask
    return kind(job.plan, job.config.batch_size, baseline, job.config.device), baseline


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
