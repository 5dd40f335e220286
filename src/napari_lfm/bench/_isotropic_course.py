"""PSNR against the minutes of a training, from random weights and from the bundled model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_lfm.bench._isotropic_scenes import REAL_NUCLEI_UM, Case, real_nuclei, recorded, simulated
from napari_lfm.bench._isotropic_ways import cubic, learnt, new_task, patches_of, restored, scores, wish_of
from napari_lfm.methods.isotropic.start import usual_model
from napari_lfm.networks.registry import open_network
from napari_lfm.networks.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.networks.registry import ModelEntry

    Say = Callable[[str], None]

MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
FINAL = 20.0
SPECIMEN, FACTOR = "real nuclei", 4


def course(
    say: Say = lambda _: None,
    minutes: Sequence[float] = MINUTES,
    final: float = FINAL,
    case: Case | None = None,
    starter: ModelEntry | None = None,
) -> dict[str, Any]:
    """Return what minutes of training give; every number of minutes is a training of its own.

    Parameters
    ----------
    say : callable
    minutes : sequence of float
    final : float
        Minutes of the training that stands for the end; shares of gains are of its gain.
    case : Case, optional
        Default the real nuclei at 4, or simulated ones where they are absent.
    starter : ModelEntry, optional
        Default the bundled model; from it the first and the last of `minutes` are trained.

    Returns
    -------
    dict
        ``specimen, factor, cubic_db``; ``rows``: ``start`` (random, starter), ``minutes``, ``steps``,
        ``psnr_db`` and, over cubic interpolation, ``gain_share`` of the final gain; ``starter`` (id, or
        None where there is none).
    """
    case = _case() if case is None else case
    starter = usual_model(float(case.factor)) if starter is None else starter
    base = scores(cubic(case), case, full=False)["psnr_db"] or 0.0
    rows: list[dict[str, Any]] = []
    for m in [*minutes, final]:
        say(f"{m:g} minutes from random weights")
        rows.append(_trained(case, m, None))
    if starter is not None:
        say("the starter as it is")
        found = scores(restored(open_network(starter).eval(), case), case, full=False)
        rows.append({"start": "starter", "minutes": 0.0, "steps": 0, **found})
        for m in dict.fromkeys([minutes[0], minutes[-1]]):
            say(f"{m:g} minutes from the starter")
            rows.append(_trained(case, m, starter))
    whole = next(r["psnr_db"] for r in rows if r["minutes"] == final) - base
    for row in rows:
        row["gain_share"] = (row["psnr_db"] - base) / whole
    return {
        "specimen": case.name,
        "factor": case.factor,
        "threads": torch.get_num_threads(),
        "cubic_db": base,
        "rows": rows,
        "starter": starter.card.id if starter else None,
    }


def _case() -> Case:
    volume = real_nuclei()
    if volume is not None:
        return recorded(SPECIMEN, volume, FACTOR, REAL_NUCLEI_UM[1])
    return recorded("nuclei", simulated("nuclei"), FACTOR)


def _trained(case: Case, minutes: float, starter: ModelEntry | None) -> dict[str, Any]:
    wish = wish_of(minutes=minutes, start=str(starter.folder) if starter else "none")
    weights = load_weights(starter.folder, starter.card) if starter else None
    done = learnt(new_task(patches_of(case, wish), wish, weights), wish)
    found = scores(restored(done.network, case), case, full=False)
    return {"start": "starter" if starter else "random", "minutes": minutes, "steps": done.steps, **found}
