"""``napari-lfm models``: what trained models there are; show, import, fetch, locate and delete them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, Microscope, command, say

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.registry import ModelEntry


@command
def models(
    show: Annotated[str | None, typer.Option("--show", metavar="ID", help="Show one model's card.")] = None,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PATH",
            help="Add a model folder, a ZIP of one, a model_<epoch> of LFMNet, a SavedModel of Deep-Z, or a "
            "CSBDeep folder.",
        ),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="With --import: give it this id.")] = None,
    down: Annotated[
        str | None,
        typer.Option("--down", help="Of a model_<epoch>: maxpool, or stride (before 11 October 2020)."),
    ] = None,
    microscope: Microscope = None,
    z_um: Annotated[
        tuple[float, float] | None,
        typer.Option("--z-um", metavar="FIRST LAST", help="Its outer depths, um, where it does not say."),
    ] = None,
    input_max: Annotated[
        float | None,
        typer.Option("--input-max", help="Of a model_<epoch>: largest pixel of its training set [255]."),
    ] = None,
    delete: Annotated[
        str | None, typer.Option("--delete", metavar="ID", help="Delete one of your own models.")
    ] = None,
    locate: Annotated[
        str | None, typer.Option("--locate", metavar="ID", help="Print the folder of a model.")
    ] = None,
    fetch: Annotated[
        str | None, typer.Option("--fetch", metavar="ID", help="Fetch a model that is not here yet.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """List the trained models, with their cards; or show, import, delete, locate, fetch one."""
    from napari_lfm.core.problems import RequestError

    wishes = {"--show": show, "--import": import_, "--delete": delete, "--locate": locate, "--fetch": fetch}
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} cannot be asked for at once.", "Give one of them.")
    if id is not None and import_ is None:
        raise RequestError("--id names a model that is imported.", "Give --import, too.")
    told = {"down": down, "microscope": microscope, "z_um": z_um, "input_max": input_max}
    if import_ is None and any(value is not None for value in told.values()):
        raise RequestError(
            "--down, --microscope, --z-um and --input-max belong to --import.", "Give it, too."
        )
    if show is not None:
        return _show(show)
    if import_ is not None:
        return _import(import_, id, told)
    if delete is not None:
        return _delete(delete)
    if locate is not None:
        from napari_lfm.networks.registry import locate_model

        folder = locate_model(locate)
        return Answer({"id": locate, "folder": str(folder)}, str(folder))
    if fetch is not None:
        return _fetch(fetch)
    return _list()


def _list() -> Answer:
    from napari_lfm.networks.registry import list_models, user_model_dir

    entries = list_models()
    for entry in entries:
        if entry.problem and entry.source != "remote":
            say(f"Note: the model '{entry.card.id}' cannot be used: {entry.problem}")
    if entries:
        text = _table([_HEAD, *(_row(e) for e in entries)])
    else:
        text = f"There are no trained models here. Yours go to {user_model_dir()}: see --import."
    return Answer({"models": [describe_model_entry(e) for e in entries]}, text)


def describe_model_entry(entry: ModelEntry) -> dict[str, Any]:
    """Return a model and its whole card, JSON-ready."""
    return {
        **entry.card.model_dump(mode="json"),
        "source": entry.source,
        "folder": str(entry.folder),
        "problem": entry.problem,
    }


def _show(id: str) -> Answer:
    from napari_lfm.networks.registry import find_model

    entry = find_model(id)
    card = entry.card
    lines = [f"{card.id} {card.version}  ({entry.source})", card.title]
    facts = {
        "method": f"{card.method}, network {card.architecture}, {card.parameters:,} parameters",
        "optics": optics_of(card, long=True),
        "depths": depths_of(card),
        "specimens": ", ".join(card.specimens),
        "data": card.data,
        "training": f"{card.hours:.3g} h on {card.trained_on}, {card.date}",
        "recipe": card.recipe,
        "licence": card.licence,
        "sha256": card.sha256,
        "folder": str(entry.folder),
        "notes": card.notes,
    }
    if entry.problem:
        facts = {"problem": entry.problem, **(facts if card.architecture else {"folder": str(entry.folder)})}
    lines += [f"  {name:<9}  {value}" for name, value in facts.items() if value]
    lines += [
        "  score      " + ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in score.items())
        for score in card.scores
    ]
    return Answer(describe_model_entry(entry), "\n".join(line for line in lines if line))


def _import(path: Path, id: str | None, told: dict[str, Any]) -> Answer:
    from napari_lfm.core.problems import RequestError
    from napari_lfm.networks.refocus_published import import_published, is_published
    from napari_lfm.networks.registry import import_model

    entry: ModelEntry | None = None
    if path.is_file():
        from napari_lfm.networks.lfmnet_checkpoint import import_checkpoint, is_checkpoint

        if is_checkpoint(path):
            entry = import_checkpoint(path, id, **_with_microscope(told))
    if is_published(path):
        entry = import_published(path, id, **_optics_of(told))
    from napari_lfm.networks.isotropic_published import import_care, is_care

    if entry is None and is_care(path):
        if any(value is not None for value in told.values()):
            raise RequestError(
                "--down, --microscope, --z-um and --input-max belong to other models.", "Leave them out."
            )
        entry = import_care(path, id)
    if entry is not None and entry.card.notes:
        say(f"Note: {entry.card.notes}")
    if entry is None:
        if any(value is not None for value in told.values()):
            raise RequestError(
                f"{path} is no checkpoint; its own card tells its network and optics.",
                "Leave out --down, --microscope, --z-um and --input-max.",
            )
        entry = import_model(path, id)
    return Answer(describe_model_entry(entry), f"Imported {entry.card.id} into {entry.folder}")


def _with_microscope(told: dict[str, Any]) -> dict[str, Any]:
    """Return what is told, the microscope by itself and not by its name."""
    if told["microscope"] is None:
        return told
    from napari_lfm.optics.presets import load_microscope

    return {**told, "microscope": load_microscope(told["microscope"])}


def _optics_of(told: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of a published model for refocusing."""
    from napari_lfm.core.problems import RequestError

    if told["down"] is not None or told["input_max"] is not None:
        raise RequestError("--down and --input-max belong to checkpoints of LFMNet.", "Leave them out.")
    known = _with_microscope(told)
    return {"microscope": known["microscope"], "z_um": known["z_um"]}


def _delete(id: str) -> Answer:
    from napari_lfm.networks.registry import delete_model

    delete_model(id)
    return Answer({"deleted": id}, f"Deleted {id}")


def _fetch(id: str) -> Answer:
    from napari_lfm.networks.registry import fetch_model

    say(f"Fetching {id}")
    entry = fetch_model(id)
    return Answer(describe_model_entry(entry), f"Fetched {entry.card.id} into {entry.folder}")


_HEAD = ("id", "method", "optics", "depths", "score", "source")


def _row(entry: ModelEntry) -> tuple[str, ...]:
    card = entry.card
    source = f"{entry.source} (broken)" if entry.problem and entry.source != "remote" else entry.source
    score = "" if card.score_db is None else f"{card.score_db:.1f} dB"
    return card.id, card.method, optics_of(card), depths_of(card), score, source


def optics_of(card: ModelCard, long: bool = False) -> str:
    """Return the optics that a model is for, in a few words."""
    microscope = card.optics
    pixels = "" if card.n_pixels is None else f"N {card.n_pixels}"
    if card.method == "isotropic":  # what counts is how far the planes are apart
        factor = float(card.scalers.get("factor", 0.0))
        return f"planes {factor:.3g} px apart" if factor > 0 else "any stack"
    if microscope is None:
        return pixels or "not known"
    objective = microscope.objective
    parts = [f"{objective.magnification:g}x/{objective.na:g}"]
    if microscope.lenslets is not None:
        parts.append(f"{microscope.lenslets.pitch_um:g} um f/{microscope.lenslets.f_number:.3g}")
    parts.append(pixels)
    if long:
        parts += [
            f"{microscope.wavelength_um * 1e3:.0f} nm",
            f"index {microscope.sample_index:g}",
            f"({microscope.name})",
        ]
    return ", ".join(p for p in parts if p)


def depths_of(card: ModelCard) -> str:
    """Return the depths that a model gives, in a few words."""
    if not card.z_um:
        return ""
    planes = len(card.z_um)
    return f"{min(card.z_um):g} to {max(card.z_um):g} um, {planes} plane{'s' if planes > 1 else ''}"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )
