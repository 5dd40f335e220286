"""WFCON-Net for a microscope: from pairs of wide-field and confocal stacks, or from simulated tissue.

Events come out of a generator, as from every training; closing it stops and keeps the best so far as a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.methods.run_card import card_of_run
from napari_lfm.methods.train_jobs import (
    RECORD,
    id_for,
    installed_as_it_improves,
    latest_folder,
    new_record,
    refuse_taken,
    resumed_record,
    training_folder,
    wish_on_record,
)
from napari_lfm.methods.train_lfmnet import TrainedModel
from napari_lfm.methods.train_wfcon_wish import (
    WfconTuning,
    WfconWish,
    config_of,
    make_wfcon_wish,
    network_of,
    plan_of,
)
from napari_lfm.methods.wfcon_gather import gather
from napari_lfm.methods.wfcon_pairs import NamedPair, PairLeftOut, PairReady
from napari_lfm.networks.card import CARD_FILE, ModelCard
from napari_lfm.networks.catalogue import find_model, read_model
from napari_lfm.networks.stack_scale import HIGH_PERCENTILE, LOW_PERCENTILE
from napari_lfm.networks.weights import load_weights, save_model
from napari_lfm.optics.microscope import Camera, Microscope, Objective
from napari_lfm.simulation.thick_tissue import TissueSettings
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, read_state
from napari_lfm.training.loop import train
from napari_lfm.training.stack_pairs import RecordedPairs, TissuePairs
from napari_lfm.training.wfcon import WfconTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_lfm.training.events import Validated
    from napari_lfm.training.stack_pairs import PairSource

__all__ = [
    "RECORD",
    "NamedPair",
    "PairLeftOut",
    "PairReady",
    "TrainedModel",
    "WfconTuning",
    "WfconWish",
    "make_wfcon_wish",
    "run_wfcon_training",
    "training_folder",
    "wfcon_folder",
    "wish_on_record",
]

REGISTERED = "registered.json"
"""File of a training with what registration has found: going on does not look for it again."""
LEFTOVERS = frozenset({RECORD, REGISTERED})
"""Files of a training that never came to a checkpoint."""
SIMULATED = (
    "simulated thick tissue (cell bodies, neurites, microglia, puncta; scattering, haze, noise); "
    "no recording was used"
)


@dataclass(frozen=True)
class _Data:
    source: PairSource
    voxel_um: tuple[float, float, float]
    words: str
    shifts: dict[str, Any] = field(default_factory=dict)


def run_wfcon_training(
    wish: WfconWish,
    folder: str | Path | None = None,
    resume: bool = False,
    model_folder: str | Path | None = None,
    recipe: str = "",
    layers: Sequence[NamedPair] = (),
) -> Iterator[Progress | Validated | TrainedModel]:
    """Train; close the generator to stop, which keeps the best so far as an installed model.

    Parameters
    ----------
    wish : WfconWish
        To go on, the same with more minutes or steps.
    folder : path, optional
        Of the training; default in the user's folder, by the model's id.
    resume : bool
    model_folder : path, optional
        Default among the user's models.
    recipe : str
        For the card.
    layers : sequence of NamedPair
        The pairs, where the wish names layers.

    Raises
    ------
    RequestError
        If the wish cannot be fulfilled, no pair can be used, or the training in the folder is another one.
    """
    # a training that has a checkpoint does not need the model any more that it began with
    begun = resume and (wfcon_folder(wish, folder) / LAST).is_file()
    start = None if begun else _start_weights(wish)
    if not resume:
        refuse_taken(wish.id, folder, model_folder)  # not only when all pairs have been registered
    # what cannot be read must not leave a folder behind
    data: _Data | None = None
    known = _read_shifts(wfcon_folder(wish, folder)) if resume else {}
    for step in _data(wish, layers, known):
        if isinstance(step, Progress):
            yield step
        else:
            data = step
    assert data is not None
    given = data
    if resume:
        place, model = resumed_record(wish, wfcon_folder(wish, folder))
    else:
        place, model = new_record(wish, usual_id(wish), folder, model_folder)
    if data.shifts:
        with replacing_file(place / REGISTERED) as file:
            file.write(json.dumps(data.shifts, indent=1).encode())
    task = WfconTask(data.source, plan_of(wish), wish.seed, start)
    task.started = bool(wish.start_from)
    for done, total, what in task.prepare():
        yield Progress(done, total, what)
    result = yield from installed_as_it_improves(
        train(task, config_of(wish), place, resume=resume),
        lambda: _install(wish, task, given, place, model, recipe),
    )
    entry = read_model(model) if (model / CARD_FILE).is_file() else None
    yield TrainedModel(entry, result, place)


def usual_id(wish: WfconWish) -> str:
    """Return the id of a model that is given none."""
    if wish.pairs:
        return id_for("wfcon", Path(wish.pairs).expanduser().resolve().name)
    return id_for("wfcon", "layers" if wish.layers else "tissue")


def wfcon_folder(wish: WfconWish, folder: str | Path | None) -> Path:
    """Return the folder of the training that is meant; the latest of these pairs where nothing says it."""
    if folder is not None:
        return Path(folder).expanduser()
    return training_folder(wish.id) if wish.id else latest_folder(usual_id(wish))


def tissue_microscope(settings: TissueSettings | None = None) -> Microscope:
    """Return the microscope of the simulated tissue: 60x/1.4 oil, pixels of 108.3 nm."""
    s = settings or TissueSettings()
    return Microscope(
        name="wf-60x1.4o",
        objective=Objective(magnification=60, na=s.na, immersion_index=s.immersion_index),
        camera=Camera(pixel_um=round(60 * s.voxel_um[1], 3)),
        wavelength_um=s.emission_um,
        sample_index=s.sample_index,
        notes="Optics of the WFCON-Net paper (2021), section 2.",
    )


def _read_shifts(place: Path) -> dict[str, Any]:
    """Return what registration has found before; nothing where that cannot be read."""
    try:
        found = json.loads((place / REGISTERED).read_text("utf-8"))
        return {str(k): {"shift_um": v["shift_um"], "stacks": v["stacks"]} for k, v in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _data(wish: WfconWish, layers: Sequence[NamedPair], known: dict[str, Any]) -> Iterator[Progress | _Data]:
    """Read, register and split the pairs, or set up the simulation."""
    t = wish.tuning
    if wish.is_simulated:
        settings = TissueSettings(shape=t.shape)
        yield _Data(TissuePairs(settings, wish.seed, t.pool, t.fresh_every), settings.voxel_um, SIMULATED)
        return
    for step in gather(wish, layers, known):
        if isinstance(step, Progress):
            yield step
            continue
        source = RecordedPairs(step.pairs, wish.seed, wish.validation_share)
        yield _Data(source, step.voxel_um, step.words, step.shifts)


def _start_weights(wish: WfconWish) -> dict[str, torch.Tensor] | None:
    """Return the weights to go on from.

    Raises
    ------
    RequestError
        If there is no such model, or its network is another one.
    """
    if not wish.start_from:
        return None
    entry = find_model(wish.start_from, "wfcon")
    if entry.problem:
        raise RequestError(f"The model '{wish.start_from}' cannot be used: {entry.problem}")
    from napari_lfm.networks.wfcon import WfconNet

    mine = WfconNet(**network_of(wish)).state_dict()
    weights = load_weights(entry.folder, entry.card)
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in weights.items()}:
        raise RequestError(
            f"The network of '{wish.start_from}' is another one than the one to be trained.",
            "Leave start_from out, or take its profile and widths.",
        )
    return weights


def _install(wish: WfconWish, task: WfconTask, data: _Data, run: Path, folder: Path, recipe: str) -> None:
    """Write the model of the best weights."""
    if not (run / BEST).is_file():
        return
    weights = load_module_weights(run / BEST, "network")
    save_model(folder, _card(wish, task, data, run, folder.name, recipe), weights)


def _card(wish: WfconWish, task: WfconTask, data: _Data, run: Path, id: str, recipe: str) -> ModelCard:
    best = read_state(run / BEST)
    last = read_state(run / LAST) if (run / LAST).is_file() else best
    microscope = wish.microscope or (tissue_microscope() if wish.is_simulated else None)
    scores = []
    history = [h for h in last.get("history", []) if h["step"] == best["step"]]
    if history:
        names = "simulated stacks of other seeds" if wish.is_simulated else "pairs that were set aside"
        scores.append({"set": f"validation: {names}", **history[0]["values"]})
    terms = ["L1", *(["L1 of square roots"] if wish.tuning.compressed > 0 else [])]
    if wish.adversarial:
        terms += ["least-squares GAN", *(["VGG16 relu4_3"] if task.uses_vgg else [])]
    notes = "" if not wish.is_simulated else "Trained on simulated tissue only: compare with a deconvolution."
    if wish.adversarial and wish.tuning.vgg > 0 and not task.uses_vgg:
        notes = f"{notes} Without the loss on VGG features: there were no VGG16 weights.".strip()
    if task.collapsed:
        notes = f"{notes} {task.collapsed}; these are the weights from before.".strip()
    values = {
        "id": id,
        "title": wish.title or f"WFCON-Net from {data.words.split(' (')[0]}",
        "method": "wfcon",
        "architecture": "wfcon",
        "network": network_of(wish),
        "microscope": None if microscope is None else microscope.model_dump(mode="json"),
        "n_pixels": None,
        "z_um": [],
        "voxels_per_lenslet": None,
        "scalers": {
            "low_percentile": LOW_PERCENTILE,
            "high_percentile": HIGH_PERCENTILE,
            **{f"voxel_{a}_um": round(v, 6) for a, v in zip("zyx", data.voxel_um, strict=True)},
        },
        "specimens": ["thick tissue"] if wish.is_simulated else [],
        "data": data.words,
        "scores": scores,
        "recipe": recipe,
        "notes": notes,
    }
    return card_of_run(run, wish, task.modules["network"], values, losses=terms)
