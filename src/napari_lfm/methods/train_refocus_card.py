"""The card of a model for refocusing that was trained here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus.card import RefocusDomain, domain_of, scalers_of
from napari_lfm.methods.run_card import card_of_run
from napari_lfm.methods.train_refocus_make import start_entry
from napari_lfm.methods.train_refocus_plan import aberration_range, microscope_of, spread_of
from napari_lfm.simulation.focal_scenes import TRAINING_FAMILIES
from napari_lfm.training.checkpoint import BEST, LAST, read_state

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.methods.train_refocus_wish import RefocusWish
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.training.refocus import RefocusTask


def refocus_card(
    wish: RefocusWish,
    task: RefocusTask,
    words: str,
    run: Path,
    id: str,
    recipe: str,
    entries: dict[str, Any],
    before: dict[str, Any] | None = None,
) -> ModelCard:
    """Return the card of the best weights of a run.

    Parameters
    ----------
    wish : RefocusWish
    task : RefocusTask
    words : str
        What it was trained on.
    run : Path
    id, recipe : str
    entries : dict
        Entries that are to be others.
    before : dict, optional
        State of an earlier run that this one went on from.
    """
    best = read_state(run / BEST)
    last = read_state(run / LAST) if (run / LAST).is_file() else best
    network: Any = task.modules["network"]
    microscope = microscope_of(wish)
    scores = []
    history = [h for h in last.get("history", []) if h["step"] == best["step"]]
    if history:
        names = "specimens of other seeds" if wish.is_simulated else "the last fifth of the columns"
        scores.append({"set": f"validation: {names}", **history[0]["values"]})
    losses = ["L1 of square roots"]
    losses += ["squares of the light"] if wish.tuning.squares > 0 else []
    losses += ["defocus consistency"] if wish.tuning.consistency > 0 else []
    losses += ["least-squares GAN"] if wish.adversarial else []
    start = _start_card(wish)
    has_confocal = wish.is_simulated or bool(task.source.describe()["confocal"])
    learned = has_confocal or (start is not None and domain_of(start).confocal)
    domain = RefocusDomain(wish.optics, wish.pixel_um, wish.range_um, wish.step_um, confocal=learned)
    origin = f"; fine-tuned from '{wish.start_from}'" if wish.start_from else ""
    seen = list(TRAINING_FAMILIES) if wish.is_simulated else ["the user's own"]
    if start is not None:
        seen = list(dict.fromkeys([*start.specimens, *seen]))
    values: dict[str, Any] = {
        "id": id,
        "title": wish.title or f"Virtual refocusing, {microscope.name}, +-{wish.range_um:g} um",
        "method": "refocus",
        "architecture": "refocus",
        "network": {
            "widths": list(network.widths),
            "bands": list(network.bands),
            "planes": network.planes,
            "sweep": network.sweep,
            "depth_widths": list(network.depth.widths) if network.sweep else [],
        },
        "microscope": microscope.model_dump(mode="json"),
        "n_pixels": None,
        "z_um": [],
        "voxels_per_lenslet": None,
        "scalers": scalers_of(domain),
        "specimens": seen,
        "data": f"{words}{origin}",
        "scores": scores,
        "recipe": recipe,
        "notes": _notes(wish, has_confocal),
    }
    training: dict[str, Any] = {"losses": losses, "z": "focus drive, um, + as planes rise"}
    training["spherical_aberration_rms_waves"] = _aberration(wish)
    if start is not None:
        training["started_from"] = {"id": start.id, "sha256": start.sha256}
    if before is not None:
        now = best["task"]
        training["earlier_run"] = {
            "steps": before["step"],
            "hours": round(float(before["seconds"]) / 3600, 4),
            "config": before["config"],
            "task": {k: v for k, v in before["task"].items() if now.get(k) != v},
        }
        values["hours"] = round(float(best["seconds"] + before["seconds"]) / 3600, 4)
    return card_of_run(run, wish, task.modules["network"], {**values, **entries}, **training)


def _start_card(wish: RefocusWish) -> ModelCard | None:
    """Return the card of the model that it began with, None where that is gone, or there was none."""
    if wish.start_from:
        with contextlib.suppress(RequestError):
            return start_entry(wish.start_from).card
    return None


def _aberration(wish: RefocusWish) -> dict[str, float]:
    out = {"stated": round(wish.optics.spherical_rms_waves, 4)}
    if wish.is_simulated:
        low, high = aberration_range(wish)
        out |= {"lowest": round(low, 4), "highest": round(high, 4)}
    return out


def _notes(wish: RefocusWish, has_confocal: bool) -> str:
    a = _aberration(wish)
    if wish.is_simulated:
        lowest, highest = spread_of(wish).depth_um
        return (
            "Trained on simulated specimens only. Without spherical aberration one image cannot tell +z from "
            f"-z. Simulated: {a['lowest']:+.3f} to {a['highest']:+.3f} waves rms (stated {a['stated']:+.3f}; "
            "+ as in a specimen of higher index than the immersion, - of lower), from specimens "
            f"{lowest:.3g} to {highest:.3g} um below the coverslip. With the other sign it takes +z for -z."
        )
    count = "one specimen" if len(wish.stacks or wish.layers) == 1 else "few specimens"
    way = "falls" if wish.reverse else "rises"
    text = (
        f"Learned from {count}: compare with a stack of another. z is of the focus drive, + as the planes' "
        f"index {way} in the stack. The stated optics have {a['stated']:+.3f} waves rms of spherical "
        "aberration; the stack's own was learned."
    )
    if not has_confocal:
        text += " The confocal head saw no confocal stack: only that its stack, blurred, gives the image."
    return text
