"""The outcome of a run, read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.training.checkpoint import BEST, LAST, read_state
from napari_lfm.training.events import TrainResult

if TYPE_CHECKING:
    from napari_lfm.training.events import Reason


def read_result(folder: str | Path) -> TrainResult:
    """Return the outcome of the run in `folder` so far, also of one that was stopped or killed.

    Raises
    ------
    RequestError
        If there is no readable checkpoint.
    """
    folder = Path(folder)
    state = read_state(folder / LAST)
    reason: Reason = state["ended"] or "stopped"
    return TrainResult(
        reason=reason,
        sentence=_sentence(reason, state),
        step=state["step"],
        seconds=state["seconds"],
        best_score=state["best_score"],
        best_step=state["best_step"],
        best_path=folder / BEST,
        last_path=folder / LAST,
        history=tuple(state["history"]),
        config=state["config"],
        task=state["task"],
        skipped=state["skipped"],
    )


def _sentence(reason: Reason, state: dict[str, Any]) -> str:
    step, config = state["step"], state["config"]
    if reason == "steps":
        return f"All {config['steps']} steps are done."
    if reason == "minutes":
        return f"The {config['minutes']:g} minutes are over, after {step} steps."
    if reason == "patience":
        count, best = config["patience"], state["best_step"]
        return (
            f"Stopped at step {step}: {count} validations in a row were not better than that of step {best}."
        )
    if reason == "unstable":
        count = state["bad_in_row"]
        return (
            f"Stopped at step {step}: the loss or its gradient was not finite {count} times in a row, and "
            "the weights are those from before; train again with a lower learning rate."
        )
    if reason == "collapsed":
        return (
            f"Stopped at step {step}: the adversarial training has collapsed. The best weights, of step "
            f"{state['best_step']}, are kept; train again with a smaller weight of the discriminator."
        )
    return f"Stopped at step {step}."
