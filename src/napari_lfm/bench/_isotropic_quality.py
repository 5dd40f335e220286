"""What each way of making a stack isotropic is worth, with the truth at hand; CSBDeep on the same patches."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._isotropic_csbdeep import CsbDeep
from napari_lfm.bench._isotropic_scenes import (
    PIXEL_UM,
    REAL_NUCLEI_UM,
    Case,
    real_nuclei,
    recorded,
    simulated,
)
from napari_lfm.bench._isotropic_ways import (
    cubic,
    learnt,
    levels_of,
    linear,
    new_task,
    patches_of,
    restored,
    richardson_lucy,
    scores,
    wish_of,
)
from napari_lfm.methods.isotropic.start import usual_model
from napari_lfm.networks.registry import open_network
from napari_lfm.networks.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_lfm.networks.registry import ModelEntry
    from napari_lfm.training.isotropic import IsotropicTask

    Say = Callable[[str], None]

FACTORS = {"real nuclei": (4, 6), "membranes": (4, 6, 8)}
STEPS, PATCH_PX, BATCH = 400, 64, 16
"""Of the trainings that are compared; small patches, so that CSBDeep's take minutes and not hours."""
HELD_BATCHES = 4
_FAR = 1_000_000  # batches that no training comes to


def cases(factors: dict[str, tuple[int, ...]] = FACTORS) -> Iterator[Case]:
    """Yield every specimen at every anisotropy; specimens whose data are absent are left out."""
    for name, chosen in factors.items():
        real = name == "real nuclei"
        volume = real_nuclei() if real else simulated(name)
        if volume is None:
            continue
        for factor in chosen:
            yield recorded(name, volume, factor, REAL_NUCLEI_UM[1] if real else PIXEL_UM)


def quality(
    say: Say = lambda _: None,
    csbdeep: str | None = None,
    steps: int = STEPS,
    patch_px: int = PATCH_PX,
    chosen: Iterator[Case] | None = None,
) -> dict[str, Any]:
    """Return scores of every way, specimen and anisotropy.

    Parameters
    ----------
    say : callable
    csbdeep : str, optional
        Interpreter with CSBDeep; none: it is left out.
    steps, patch_px : int
        Of both trainings, 16 patches a step.
    chosen : iterator of Case, optional

    Returns
    -------
    dict
        ``rows``: ``specimen, factor, way`` and `scores`; for networks ``seconds`` (of processor) of the
        training. ``steps``, ``patch_px``, ``batch``.
    """
    rows: list[dict[str, Any]] = []
    with ExitStack() as kept:
        peer = kept.enter_context(CsbDeep(csbdeep)) if csbdeep else None
        for case in cases() if chosen is None else chosen:
            say(f"{case.name}, every {case.factor}th plane: interpolation, Richardson-Lucy")
            about = {"specimen": case.name, "factor": case.factor}
            rows.append({**about, "way": "linear", **scores(linear(case), case)})
            rows.append({**about, "way": "cubic", **scores(cubic(case), case)})
            iterations, best = best_richardson_lucy(case)
            found = scores(best, case)
            rows.append({**about, "way": "richardson-lucy", **found, "iterations": iterations})
            every = max(1, steps // 20)
            wish = wish_of(steps=steps, patch_px=patch_px, batch_size=BATCH, validate_every_steps=every)
            task = new_task(patches_of(case, wish), wish)
            say(f"{case.name}, every {case.factor}th plane: our network, {steps} steps")
            done = learnt(task, wish)
            found = scores(restored(done.network, case), case)
            rows.append({**about, "way": "network", **found, "seconds": done.busy_s})
            starter = usual_model(float(case.factor))
            if starter is not None:
                rows += _from_starter(say, case, starter, about, steps, patch_px)
            if peer is not None:
                say(f"{case.name}, every {case.factor}th plane: CSBDeep, {steps} steps")
                rows.append({**about, "way": "csbdeep", **_csbdeep(peer, case, task, steps)})
    return {"rows": rows, "steps": steps, "patch_px": patch_px, "batch": BATCH}


def _from_starter(
    say: Say, case: Case, starter: ModelEntry, about: dict[str, Any], steps: int, patch_px: int
) -> list[dict[str, Any]]:
    """Return the scores of the bundled model as it is, and trained for as many steps."""
    say(f"{case.name}, every {case.factor}th plane: from the starter, {steps} steps")
    found = scores(restored(open_network(starter).eval(), case), case)
    rows = [{**about, "way": "starter", **found, "seconds": 0.0}]
    every = max(1, steps // 20)
    wish = wish_of(
        steps=steps,
        start=str(starter.folder),
        patch_px=patch_px,
        batch_size=BATCH,
        validate_every_steps=every,
    )
    weights = load_weights(starter.folder, starter.card)
    done = learnt(new_task(patches_of(case, wish), wish, weights), wish)
    found = scores(restored(done.network, case), case)
    return [*rows, {**about, "way": "started", **found, "seconds": done.busy_s}]


def best_richardson_lucy(case: Case) -> tuple[int, np.ndarray]:
    """Return the best number of iterations, picked with the truth at hand, and what they give."""
    found = richardson_lucy(case)
    psnr = {k: scores(volume, case, full=False)["psnr_db"] or 0.0 for k, volume in found.items()}
    best = max(psnr, key=lambda k: psnr[k])
    return best, found[best]


def batches_of(task: IsotropicTask, first: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches as the training loop draws them, of one channel: (given, wanted), (batch, rows, z)."""
    out = []
    for k in range(first, first + count):
        batch = task.batch(k)
        out.append((batch["given"][:, 0].numpy(), batch["wanted"][:, 0].numpy()))
    return out


def _csbdeep(peer: CsbDeep, case: Case, task: IsotropicTask, steps: int) -> dict[str, Any]:
    held = [np.concatenate(part) for part in zip(*batches_of(task, _FAR, HELD_BATCHES), strict=True)]
    spent = peer.trained(batches_of(task, 0, steps), held)
    low, high = levels_of(case.stack)
    made = peer.restored((linear(case) - low) / (high - low)) * (high - low) + low
    return {**scores(made, case), "seconds": spent["busy_s"]}
