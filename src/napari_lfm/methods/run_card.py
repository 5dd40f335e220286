"""What the card of a model says of the run that made it, the same for every training."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_lfm.core.problems import RequestError, explain_validation
from napari_lfm.networks.card import ModelCard
from napari_lfm.training.checkpoint import BEST, LAST, read_state
from napari_lfm.training.outcome import read_result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import BaseModel
    from torch import nn


def card_of_run(
    run: Path, wish: BaseModel, network: nn.Module, values: Mapping[str, Any], **training: Any
) -> ModelCard:
    """Return the card of the best weights of a run.

    Parameters
    ----------
    run : Path
        Folder of the training; it holds the best weights.
    wish : BaseModel
        What was asked for.
    network : nn.Module
    values : mapping
        The other entries of the card.
    **training
        Further entries of its ``training``.

    Raises
    ------
    RequestError
        If an entry is wrong.
    """
    best = read_state(run / BEST)
    ended = (run / LAST).is_file()
    last = read_state(run / LAST) if ended else best
    machine = best["machine"]
    facts = {
        "version": "1.0",
        "licence": "user's own",
        "training": {
            "wish": wish.model_dump(mode="json"),
            **training,
            "config": best["config"],
            "task": best["task"],
            "steps": best["step"],
            "steps_in_all": last["step"],
            "ended": read_result(run).reason if ended else "",
            "machine": machine,
        },
        "hours": round(float(best["seconds"]) / 3600, 4),
        "trained_on": f"{machine['device']}, {machine['threads']} threads, {machine['system']}",
        "date": date.today().isoformat(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "sha256": "",
        "versions": dict(best["versions"]),
    }
    try:
        return ModelCard.model_validate({**facts, **values})
    except ValidationError as error:
        raise RequestError(f"The card of the model cannot be written: {explain_validation(error)}") from None
