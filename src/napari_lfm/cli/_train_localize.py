"""``napari-lfm train localize``: CISTA-net for your own microscope."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from napari_lfm.cli._console import Answer, ProgressLine, say
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.training.events import Validated

_LENGTH = ("minutes", "steps")
_SHOWN = (("found", "hits", "{:.1%}"), ("depth", "rmse_z_um", "{:.2f} um rms"))


def train_localize(
    named: dict[str, Any],
    others: dict[str, Any],
    settings: list[str],
    recipe: Path | None,
    resume: bool,
    folder: Path | None,
    output: Path | None,
) -> Answer:
    """Train; Ctrl-C stops and keeps the best so far."""
    from napari_lfm.core.events import Progress
    from napari_lfm.methods.train_lfmnet import TrainedModel
    from napari_lfm.methods.train_localize import run_localize_training
    from napari_lfm.training.events import Validated

    strange = [name for name, value in others.items() if value is not None]
    if strange:
        raise RequestError(f"{', '.join(strange)} means nothing to 'localize'.", "Leave it out.")
    wish = _wish(named, settings, recipe, resume, folder)
    words = shlex.join(["napari-lfm", *sys.argv[1:]])
    line = ProgressLine()
    last: TrainedModel | None = None
    best: Validated | None = None
    events = run_localize_training(wish, folder, resume, output, recipe=words)
    stopped = False
    try:
        for event in events:
            if isinstance(event, Validated):
                best = event if event.best_step == event.step else best
                line.end()
                shown = [f"{name} {form.format(event.values[key])}" for name, key, form in _SHOWN]
                say(f"Step {event.step}: {', '.join(shown)}")
            elif isinstance(event, Progress):
                message = f"Step {event.step}" if event.message == "Training" else event.message
                line.show(event.step, event.total, message, event.seconds_left, {})
            else:
                last = event
    except KeyboardInterrupt:
        stopped = True
    finally:
        line.end()
        events.close()  # type: ignore[attr-defined]
    return _answer(wish, folder, output, last, best, stopped)


def _wish(
    named: dict[str, Any], settings: list[str], recipe: Path | None, resume: bool, folder: Path | None
) -> Any:
    from napari_lfm.cli._wishes import parse_settings
    from napari_lfm.methods.train_jobs import training_folder
    from napari_lfm.methods.train_localize import (
        localize_folder,
        make_localize_wish,
        recorded_localize_wish,
    )
    from napari_lfm.methods.train_wish import load_recipe

    given = {name: value for name, value in named.items() if value is not None}
    values: dict[str, Any] = {} if recipe is None else load_recipe(recipe)
    if resume:
        if folder is None and not given.get("id"):
            folder = localize_folder(make_localize_wish({**values, **given}), None)
        values |= recorded_localize_wish(folder or training_folder(given["id"]))
    if any(name in given for name in _LENGTH):
        values = {name: value for name, value in values.items() if name not in _LENGTH}
        given = {"minutes": None, **given}
    values |= given
    tuning = parse_settings(settings)
    if tuning:
        values["tuning"] = {**(values.get("tuning") or {}), **tuning}
    return make_localize_wish(values)


def _answer(
    wish: Any, folder: Path | None, output: Path | None, last: Any, best: Validated | None, stopped: bool
) -> Answer:
    from napari_lfm.methods.train_localize import localize_folder
    from napari_lfm.networks.card import CARD_FILE
    from napari_lfm.networks.catalogue import read_model, user_model_dir

    entry = None if last is None else last.entry
    if stopped:
        place = output or user_model_dir() / localize_folder(wish, folder).name
        if (place / CARD_FILE).is_file():
            entry = read_model(place)
        say("Stopped. The same command with --resume goes on.")
    data: dict[str, Any] = {"method": "localize", "model": None, "id": None}
    if stopped:
        data["reason"] = "stopped"
    elif last is not None and last.result is not None:
        say(last.result.sentence)
        data |= {"reason": last.result.reason, "steps": last.result.step, "training": str(last.folder)}
    if best is not None:
        data |= {key: best.values[key] for _, key, _ in _SHOWN}
    if entry is None:
        say("No model was made: nothing was learned.")
        return Answer(data, "", 1)
    data |= {"id": entry.card.id, "model": str(entry.folder), "sha256": entry.card.sha256}
    say(f"Saved the model '{entry.card.id}': {entry.folder}")
    return Answer(data, str(entry.folder), 1 if stopped else 0)
