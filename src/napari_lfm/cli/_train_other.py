"""``napari-lfm train localize``, ``wfcon``, ``refocus``, ``isotropic``: emitters, stacks, single images."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.cli._console import Answer, ProgressLine, say
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_lfm.core.problems import Problem
    from napari_lfm.training.events import Validated

_LENGTH = ("minutes", "steps")


@dataclass(frozen=True)
class Trainer:
    """What the command needs of a training.

    Attributes
    ----------
    method : str
    make_wish : callable
        Entries -> checked wish.
    recorded : callable
        Folder -> entries of the training in it.
    folder : callable
        (wish, folder or None) -> folder that is meant.
    run : callable
        (wish, folder, resume, model folder, recipe=...) -> events.
    shown : list of tuple
        Name, key and format of the scores to tell.
    foresee : callable
        Wish -> sentences to tell before the start; raises `RequestError` where it cannot start.
    """

    method: str
    make_wish: Callable[..., Any]
    recorded: Callable[..., dict[str, Any]]
    folder: Callable[..., Path]
    run: Callable[..., Iterator[Any]]
    shown: list[tuple[str, str, str]]
    foresee: Callable[[Any], list[str]] = lambda _: []


def trainer_of(method: str) -> Trainer:
    """Return the training of a method."""
    if method == "wfcon":
        from napari_lfm.methods import train_wfcon as w

        shown = [("RMSE", "rmse", "{:.4f}"), ("SSIM", "ssim", "{:.4f}"), ("PSNR", "psnr_db", "{:.2f} dB")]
        return Trainer(
            method,
            w.make_wfcon_wish,
            w.wish_on_record,
            w.wfcon_folder,
            w.run_wfcon_training,
            shown,
            _foresee_wfcon,
        )
    if method == "refocus":
        from napari_lfm.methods import train_refocus as r

        shown = [("refocused", "psnr_db", "{:.2f} dB"), ("as it was", "input_db", "{:.2f} dB")]
        shown.append(("confocal", "confocal_db", "{:.2f} dB"))
        return Trainer(
            method,
            r.make_refocus_wish,
            r.wish_on_record,
            r.refocus_folder,
            r.run_refocus_training,
            shown,
            _foresee_refocus,
        )
    if method == "isotropic":
        from napari_lfm.methods import train_isotropic as i

        shown = [("restored", "psnr_db", "{:.2f} dB"), ("interpolated", "input_psnr_db", "{:.2f} dB")]
        return Trainer(
            method,
            i.make_isotropic_wish,
            i.wish_on_record,
            i.isotropic_folder,
            i.run_isotropic_training,
            shown,
            _foresee_isotropic,
        )
    from napari_lfm.methods import train_localize as t

    shown = [("found", "hits", "{:.1%}"), ("depth", "rmse_z_um", "{:.2f} um rms")]
    return Trainer(
        method,
        t.make_localize_wish,
        t.wish_on_record,
        t.localize_folder,
        t.run_localize_training,
        shown,
    )


def _foresee_wfcon(wish: Any) -> list[str]:
    from napari_lfm.methods.wfcon_check import check_wfcon, estimate_wfcon
    from napari_lfm.methods.wfcon_survey import Survey, survey_folder

    survey = None
    if wish.pairs:
        survey = next(s for s in survey_folder(wish.pairs, wish.voxel_um) if isinstance(s, Survey))
    return [*_notes(check_wfcon(wish, survey)), *estimate_wfcon(wish, survey).sentences]


def _foresee_refocus(wish: Any) -> list[str]:
    from napari_lfm.methods.train_refocus_check import check_refocus, estimate_refocus

    return [*_notes(check_refocus(wish)), *estimate_refocus(wish).sentences]


def _foresee_isotropic(wish: Any) -> list[str]:
    from napari_lfm.methods.train_isotropic_check import check_isotropic, estimate_isotropic

    return [*_notes(check_isotropic(wish)), *estimate_isotropic(wish).sentences]


def _notes(problems: list[Problem]) -> list[str]:
    """Return what should be known before the start; raise where it cannot start."""
    from napari_lfm.core.problems import raise_for

    notes = [f"Note: {p}" for p in problems if p.severity != "error"]
    if any(p.severity == "error" for p in problems):
        for note in notes:
            say(note)
    raise_for(problems)
    return notes


def train_other(
    method: str,
    named: dict[str, Any],
    others: dict[str, Any],
    settings: list[str],
    recipe: Path | None,
    resume: bool,
    folder: Path | None,
    output: Path | None,
) -> Answer:
    """Train; Ctrl-C stops and keeps the best so far.

    Parameters
    ----------
    method : str
    named : dict
        Entries of the wish from the options.
    others : dict
        Options that mean nothing to this training, by their names.
    settings : list of str
        ``KEY=VALUE`` of the tuning.
    recipe, folder, output : Path, optional
    resume : bool
    """
    from napari_lfm.core.events import Progress
    from napari_lfm.methods.wfcon_pairs import PairLeftOut
    from napari_lfm.training.events import Validated

    trainer = trainer_of(method)
    strange = [name for name, value in others.items() if value is not None]
    if strange:
        raise RequestError(f"{', '.join(strange)} means nothing to '{method}'.", "Leave it out.")
    wish = _wish(trainer, named, settings, recipe, resume, folder)
    if not resume:
        for sentence in trainer.foresee(wish):
            say(sentence)
    words = shlex.join(["napari-lfm", *sys.argv[1:]])
    line = ProgressLine()
    before = None if resume else _mark(trainer.folder(wish, folder))
    last: Any = None
    best: Validated | None = None
    events = trainer.run(wish, folder, resume, output, recipe=words)
    stopped = False
    try:
        for event in events:
            if isinstance(event, Validated):
                best = event if event.best_step == event.step else best
                line.end()
                shown = [
                    f"{name} {form.format(event.values[key])}"
                    for name, key, form in trainer.shown
                    if key in event.values
                ]
                say(f"Step {event.step}: {', '.join(shown)}")
            elif isinstance(event, Progress):
                if isinstance(event, PairLeftOut):  # must not be overwritten by the next line
                    line.end()
                    say(event.message)
                    continue
                message = f"Step {event.step}" if event.message == "Training" else event.message
                line.show(event.step, event.total, message, event.seconds_left, {})
            else:
                last = event
    except KeyboardInterrupt:
        stopped = True
    finally:
        line.end()
        events.close()  # type: ignore[attr-defined]
    if stopped and before is not None and _mark(trainer.folder(wish, folder)) == before:
        say("Stopped before the first step: there was nothing to keep.")
        return Answer({"method": method, "model": None, "id": None, "reason": "stopped"}, "", 1)
    return _answer(trainer, wish, folder, last, best, stopped)


def _mark(folder: Path) -> tuple[str, int]:
    """Return what tells whether a training has been begun in a folder."""
    from napari_lfm.methods.train_jobs import RECORD

    try:
        return str(folder), (folder / RECORD).stat().st_mtime_ns
    except OSError:
        return str(folder), 0


def _wish(
    trainer: Trainer,
    named: dict[str, Any],
    settings: list[str],
    recipe: Path | None,
    resume: bool,
    folder: Path | None,
) -> Any:
    from napari_lfm.cli._wishes import parse_settings
    from napari_lfm.methods.train_jobs import training_folder
    from napari_lfm.methods.train_wish import load_recipe

    given = {name: value for name, value in named.items() if value is not None}
    values: dict[str, Any] = {} if recipe is None else load_recipe(recipe)
    if resume:
        if folder is None and not given.get("id"):
            folder = trainer.folder(trainer.make_wish({**values, **given}), None)
        values |= trainer.recorded(folder or training_folder(given["id"]))
    if any(name in given for name in _LENGTH):
        values = {name: value for name, value in values.items() if name not in _LENGTH}
        given = {"minutes": None, **given}
    values |= given
    tuning = parse_settings(settings)
    if tuning:
        values["tuning"] = {**(values.get("tuning") or {}), **tuning}
    return trainer.make_wish(values)


def _answer(
    trainer: Trainer,
    wish: Any,
    folder: Path | None,
    last: Any,
    best: Validated | None,
    stopped: bool,
) -> Answer:
    from napari_lfm.methods.train_jobs import read_record
    from napari_lfm.networks.card import CARD_FILE
    from napari_lfm.networks.catalogue import read_model

    entry = None if last is None else last.entry
    if stopped:
        place = Path(read_record(trainer.folder(wish, folder))["model_folder"])
        if (place / CARD_FILE).is_file():
            entry = read_model(place)
        say("Stopped. The same command with --resume goes on.")
    data: dict[str, Any] = {"method": trainer.method, "model": None, "id": None}
    if stopped:
        data["reason"] = "stopped"
    elif last is not None and last.result is not None:
        say(last.result.sentence)
        data |= {"reason": last.result.reason, "steps": last.result.step, "training": str(last.folder)}
    if best is not None:
        data |= {key: best.values[key] for _, key, _ in trainer.shown if key in best.values}
    if entry is None:
        say("No model was made: nothing was learned.")
        return Answer(data, "", 1)
    data |= {"id": entry.card.id, "model": str(entry.folder), "sha256": entry.card.sha256}
    say(f"Saved the model '{entry.card.id}': {entry.folder}")
    return Answer(data, str(entry.folder), 1 if stopped else 0)
