"""From the folder of a training run to a model folder: the best weights, and a card that can repeat them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.registry import build_network
from napari_lfm.networks.weights import save_model
from napari_lfm.training.checkpoint import BEST, LAST, load_module_weights, read_state
from napari_lfm.training.lfmnet import VALIDATION_ELECTRONS, VALIDATION_SCENES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from napari_lfm.training.lfmnet_plan import LfmnetPlan

INPUT_PERCENTILE = 99.9
USERS_OWN = "user's own"
DATA = "simulated from optics alone; no recording was used"


def finish_model(
    run_folder: str | Path,
    plan: LfmnetPlan,
    output_scale: float,
    folder: str | Path,
    measured: Mapping[str, float] | None = None,
    **card_extras: Any,
) -> ModelCard:
    """Write the best weights of a run as a model.

    Parameters
    ----------
    run_folder : path
        With ``best.safetensors`` and ``last.safetensors``, as the training loop leaves them.
    plan : LfmnetPlan
        What was trained.
    output_scale : float
        `LfmnetTask.output_scale` after `prepare`.
    folder : path
        Model folder to write; its name is the model's id unless `card_extras` says otherwise. An older
        model in it stays whole until the new one is on the disk.
    measured : mapping of str to float, optional
        Further figures of the validation frames, e.g. ``rl5_psnr_db``.
    **card_extras
        Entries of the card to set otherwise, e.g. ``id``, ``title``, ``licence``, ``recipe``; ``scores``
        that are given are put behind the validation's.

    Returns
    -------
    ModelCard
        As it was written.

    Raises
    ------
    RequestError
        If there are no weights yet, or an entry of the card is wrong.
    LfmError
        If the weights are not finite, or the disk is full.
    """
    run, folder = Path(run_folder), Path(folder)
    if not (run / BEST).is_file():
        raise RequestError(
            f"There are no weights in {run} yet.", "A training saves them at its first validation."
        )
    weights = load_module_weights(run / BEST, "network")
    best, last = read_state(run / BEST), _state_of_run(run)
    values = _entries(plan, best, last)
    values |= {
        "id": folder.name,
        "scalers": {"input_percentile": INPUT_PERCENTILE, "output_scale": float(output_scale)},
        "parameters": _parameters(weights),
    }
    if measured and values["scores"]:
        values["scores"][0] |= {name: round(float(v), 4) for name, v in measured.items()}
    scores = [*values["scores"], *card_extras.pop("scores", [])]
    values |= {**card_extras, "scores": scores}
    try:
        card = ModelCard.model_validate(values)
    except ValidationError as error:
        raise RequestError(f"The card of the model cannot be written: {explain_validation(error)}") from None
    _refuse_other_network(run, card, weights)
    return save_model(folder, card, weights)


def _refuse_other_network(run: Path, card: ModelCard, weights: Mapping[str, torch.Tensor]) -> None:
    """Keep weights of one version from getting the card of another's network."""
    wanted = {name: tuple(value.shape) for name, value in build_network(card).state_dict().items()}
    if wanted != {name: tuple(value.shape) for name, value in weights.items()}:
        raise RequestError(
            f"The weights in {run} belong to another network than this version trains.",
            "Train into another folder.",
        )


def _state_of_run(run: Path) -> Mapping[str, Any]:
    # a run that was killed before its first checkpoint has a best state alone
    return read_state(run / LAST) if (run / LAST).is_file() else read_state(run / BEST)


def _entries(plan: LfmnetPlan, best: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    z, microscope = plan.z_um, plan.microscope
    machine = best["machine"]
    kind = "LFMNet as published" if plan.size == "paper" else "LFMNet"
    step = f" in steps of {z[1] - z[0]:.3g} um" if len(z) > 1 else ""
    seen = "all kinds of specimens" if plan.specimen == "any" else plan.specimen
    return {
        "title": f"{kind} for {microscope.name}: {z[0]:g} to {z[-1]:g} um{step}, {seen}",
        "version": "1.0",
        "method": "lfmnet",
        "architecture": plan.architecture,
        "network": plan.network,
        "microscope": microscope.model_dump(mode="json"),
        "n_pixels": plan.n_pixels,
        "z_um": list(z),
        "voxels_per_lenslet": plan.truth_voxels,
        "specimens": list(plan.settings.families),
        "licence": USERS_OWN,
        "data": DATA,
        "training": {
            "plan": plan.record(),
            "config": best["config"],
            "task": best["task"],
            "steps": best["step"],
            "steps_in_all": last["step"],
            "skipped_steps": last.get("skipped", 0),
            "seeds": {"task": plan.seed, "loop": best["config"].get("seed")},
            "ended": last.get("ended") or "",
            "machine": machine,
        },
        "scores": _scores(plan, best, last),
        "hours": round(float(best["seconds"]) / 3600, 4),
        "trained_on": f"{machine['device']}, {machine['threads']} threads, {machine['system']}",
        "date": date.today().isoformat(),
        "sha256": "",
        "versions": dict(best["versions"]),
        "notes": "",
    }


def _scores(plan: LfmnetPlan, best: Mapping[str, Any], last: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [h for h in last.get("history", []) if h["step"] == best["step"]]
    if not found:
        return []
    values = {k: round(v, 4) for k, v in found[-1]["values"].items() if v is not None}
    electrons = ", ".join(f"{e:g}" for e in VALIDATION_ELECTRONS)
    what = f"validation: {VALIDATION_SCENES} simulated specimens of other seeds, {electrons} electrons"
    return [{"set": what, "families": list(plan.settings.families), "step": best["step"], **values}]


def _parameters(weights: Mapping[str, torch.Tensor]) -> int:
    # running statistics of a normalisation and the scale of the start are not trained
    running = ("running_mean", "running_var", "num_batches_tracked", "start_scale")
    return sum(w.numel() for name, w in weights.items() if not name.endswith(running))
