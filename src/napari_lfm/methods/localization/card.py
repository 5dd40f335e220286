"""From a training of CISTA-net to a model: scores on other fields, sigmas that fit, the card."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.methods.localization.finders import CistaFinder
from napari_lfm.methods.localization.joint import JointLocalizer
from napari_lfm.methods.localization.points import Localizer, PointOptions, typical_body_um
from napari_lfm.methods.localization.setup import WHAT_VIEWS_SHOW, told
from napari_lfm.methods.localization.templates import make_templates
from napari_lfm.methods.localization.trial import Trial, fit_joint_sigma, fit_sigma, try_out
from napari_lfm.methods.run_card import card_of_run
from napari_lfm.networks.weights import save_model
from napari_lfm.training.checkpoint import BEST, load_module_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_lfm.methods.train_localize_wish import LocalizeWish
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.training.cista import CistaTask

DATA = "cell bodies simulated from the optics alone; no recording was used"
SIGMA_FIELDS = SCORE_FIELDS = 60
JOINT_FIELDS = 24
"""Of either, so many are fitted jointly as well, which takes a second or two for each."""
TOLERANCE_DIAMETERS = 0.45
"""A point this near to a cell body is taken for it."""
LEVELS = ((100.0, 2.0), (500.0, 1.0), (3000.0, 0.3))
"""Photo-electrons at the 99.9th percentile, and haze as a share of the sources: low, middle, high."""


def install_model(
    wish: LocalizeWish, task: CistaTask, run: Path, folder: Path, recipe: str
) -> Iterator[Progress]:
    """Write the model of the best weights, with scores of other fields and sigmas that fit."""
    if not (run / BEST).is_file():
        return
    weights = load_module_weights(run / BEST, "network")
    network: Any = task.modules["network"]
    network.load_state_dict(weights)
    network.eval().to("cpu")
    fields = task.pairs.fields
    bins = np.asarray(wish.bins_um())
    slope = slope_at_depth(1.0, wish.microscope, None, fields.n_pixels)
    body = typical_body_um(wish.diameter_min_um, wish.diameter_max_um)
    options = PointOptions(diameter_um=body, merge_um=round(0.55 * body, 1))
    localizer = Localizer(CistaFinder(network, bins), slope, fields.lenslet_um, options)
    steps = make_templates(wish.microscope, fields.n_pixels, (bins[0], bins[-1]), body)
    joint = JointLocalizer(localizer, (yield from told(steps, WHAT_VIEWS_SHOW)))
    known = (fields.lenslet_um, (bins[0], bins[-1]), TOLERANCE_DIAMETERS * body)
    total = SIGMA_FIELDS + SCORE_FIELDS
    trials: list[Trial] = []
    joints: list[Trial] = []
    done = 0
    for seed, count in ((1, SIGMA_FIELDS), (2, SCORE_FIELDS)):
        source = fields.other(wish.seed + 104_729 * seed)
        found = []
        for k in range(count):
            electrons, haze = LEVELS[k % len(LEVELS)]
            found.append(
                source.recorded(source.clean(k), np.random.default_rng([wish.seed, seed, k]), electrons, haze)
            )
            done += 1
            yield Progress(done, total, "Finding the neurons of other fields")
        trials.append(try_out(localizer.find, found, *known))
        joints.append(try_out(joint.find, found[:JOINT_FIELDS], *known))
        if seed == 1:
            sigma, fitted = fit_sigma(trials[0]), fit_joint_sigma(joints[0])
            localizer = replace(localizer, sigma=sigma)
            joint = replace(joint, sigma=fitted)
    scalers = {
        **{"sigma_floor_um": sigma.floor_um, "sigma_share": sigma.share, "sigma_fade": sigma.fade},
        **{"joint_floor_um": fitted.floor_um, "joint_share": fitted.share, "joint_optics": fitted.optics},
    }
    scores = [
        _score(trials[1], f"depth curves alone, {SCORE_FIELDS}"),
        _score(joints[1], f"joint fit, {JOINT_FIELDS}"),
    ]
    card = _card(wish, task, run, folder.name, scores, {k: round(v, 5) for k, v in scalers.items()}, recipe)
    save_model(folder, card, weights)


def _score(trial: Trial, what: str) -> dict[str, Any]:
    z, y, x = trial.rmse_um
    za, ya, xa = trial.rmse_alone_um
    return {
        "set": f"{what} simulated fields of other seeds, "
        + ", ".join(f"{e:g} electrons with haze {h:g}" for e, h in LEVELS),
        "rmse_um": [round(v, 3) for v in (z, y, x)],
        "rmse_alone_um": [round(v, 3) for v in (za, ya, xa)],
        "precision": round(trial.precision, 3),
        "recall": round(trial.recall, 3),
        "inside_sigma": round(trial.inside_sigma, 3),
        "neurons": trial.truth,
    }


def _card(
    wish: LocalizeWish,
    task: CistaTask,
    run: Path,
    id: str,
    scores: list[dict[str, Any]],
    scalers: dict[str, float],
    recipe: str,
) -> ModelCard:
    bins = wish.bins_um()
    values = {
        "id": id,
        "title": wish.title
        or f"CISTA-net for {wish.microscope.name}: {bins[0]:g} to {bins[-1]:g} um, cell bodies of "
        f"{wish.diameter_min_um:g} to {wish.diameter_max_um:g} um",
        "method": "localize",
        "architecture": "cista",
        "network": task.arguments,
        "microscope": wish.microscope.model_dump(mode="json"),
        "n_pixels": task.pairs.fields.n_pixels,
        "z_um": bins,
        "voxels_per_lenslet": None,
        "scalers": scalers,
        "specimens": ["neurons"],
        "data": DATA,
        "scores": scores,
        "recipe": recipe,
        "notes": "",
    }
    return card_of_run(run, wish, task.modules["network"], values)
