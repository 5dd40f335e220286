"""``bench lfmnet-quality``: trained LFMNets beside Richardson-Lucy, on specimens that they never saw.

Every recording is made by `napari_lfm.simulation.lightfield`: finer voxels and planes than the
reconstruction's, optics slightly off, a rotated and shifted lattice of another pitch, a camera with noise.
Both ways get the nominal microscope, the true lattice, a white and a dark frame, and the planes and
voxels of the model. The outermost two lenslets are not scored. Richardson-Lucy is scored after every
iteration; its best count is known from the truth, which no user has.

``python -m napari_lfm.bench.lfmnet_quality --help`` has options.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.bench._quality_rows import Judge, network, richardson_lucy
from napari_lfm.bench._quality_scenes import (
    Field,
    Recordings,
    Setup,
    draw_specimens,
    key_of,
    make_recordings,
    training_families,
)
from napari_lfm.bench._quality_summary import summarise, tables
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.networks.registry import find_model, list_models
from napari_lfm.optics.cache import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.bench._quality_scenes import Specimen
    from napari_lfm.networks.registry import ModelEntry

LARGE = 20_000
"""Pixels of a lenslet times planes above which the simulation is coarser: it would take an hour."""
COARSE = Setup(specimens=2, voxels=7, z_substeps=1, beyond=0.25)
MOST_VOXELS = 7
"""Voxels per lenslet that Richardson-Lucy can do; volumes of more are compared at five."""


def run(
    progress: Callable[[str], None] | None = None,
    models: Sequence[str] | None = None,
    setup: Setup | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score models.

    Parameters
    ----------
    progress : callable, optional
    models : sequence of str, optional
        Ids or folders; default the bundled ones of this method that know their microscope.
    setup : Setup, optional
        Default: see `setup_for`.
    folder : Path, optional
        Where recordings and rows are kept, so that an interrupted run goes on and another model of the same
        microscope is compared with what is there; default a folder in the cache.

    Returns
    -------
    dict
        ``models``: for each id what `napari_lfm.bench._quality_summary.summarise` returns, the ``setup``
        and the ``sha256`` of the weights.
    """
    say = progress or (lambda _: None)
    kept = folder if folder is not None else cache_dir() / "lfmnet-quality"
    kept.mkdir(parents=True, exist_ok=True)
    entries = [find_model(m, "lfmnet") for m in models] if models is not None else bundled()
    out = {e.card.id: score_model(e, setup or setup_for(e), kept, say) for e in entries}
    return {"models": out, "kept_in": str(kept)}


def bundled() -> list[ModelEntry]:
    """Return the models that ship with the package and can be scored."""
    entries = [e for e in list_models("lfmnet") if e.source == "bundled" and not e.problem]
    return [e for e in entries if e.card.microscope is not None and e.card.z_um]


def setup_for(entry: ModelEntry) -> Setup:
    """Return the fine setup, or a coarser one where that would take an hour."""
    n, planes = entry.card.n_pixels or 0, len(entry.card.z_um)
    return COARSE if n**2 * planes > LARGE else Setup()


def score_model(entry: ModelEntry, setup: Setup, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Record, reconstruct and score everything for one model.

    Raises
    ------
    RequestError
        If the card does not tell the microscope, the planes or the training families.
    """
    card = entry.card
    if card.optics is None or not card.z_um:
        raise RequestError(
            f"The card of '{card.id}' does not say what microscope it is for.", "Score another model."
        )
    field = Field(card.optics, tuple(card.z_um), setup)
    families = training_families(card)
    say(f"{card.id}: drawing specimens")
    specimens = draw_specimens(field, families)
    recordings = make_recordings(field, specimens, folder, lambda text: say(f"{card.id}: {text}"))
    own = card.voxels_per_lenslet or card.n_pixels or MOST_VOXELS
    voxels = own if own <= MOST_VOXELS else 5
    rows = _rows(entry, field, specimens, recordings, voxels, folder, say)
    found = summarise(rows)
    return {
        "sha256": card.sha256,
        "families_trained": list(families),
        "voxels_per_lenslet": voxels,
        "planes": len(card.z_um),
        "setup": {**_plain(setup), "simulated_z_um": list(field.simulated_z_um)},
        **found,
    }


def _rows(
    entry: ModelEntry,
    field: Field,
    specimens: list[Specimen],
    recordings: Recordings,
    voxels: int,
    folder: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return a row for each recording; each part is written as soon as it is there, and read if it is."""
    setup = field.setup
    scene_key = key_of(field, specimens)
    same = f"{scene_key}-{voxels}-{setup.iterations}-{setup.edge_lenslets}"
    plain, ours = f"{same}-plain", f"{same}-{entry.card.sha256[:16]}-{setup.refine}"
    path = folder / f"{entry.card.id}.jsonl"
    # what Richardson-Lucy does is the same for every model of these recordings
    known = _read(folder, {same, plain, ours})
    out = []
    total = len(specimens) * len(setup.electrons)
    for level, electrons in enumerate(setup.electrons):
        for number, specimen in enumerate(specimens):
            inputs = recordings.inputs(field.microscope, number, electrons, level)
            judge = Judge(field, lambda s, scene=specimen.scene: field.truth(scene, s))  # type: ignore[misc]
            place = f"{number}-{electrons:g}"
            row: dict[str, Any] = {
                "group": specimen.group,
                "kind": specimen.kind,
                "specimen": number,
                "electrons": electrons,
            }
            for key in (same, plain, ours):
                part = known.get((key, place))
                if part is None:
                    if key == ours:
                        part = network(field, inputs, entry, voxels, judge)
                    else:
                        part = richardson_lucy(field, inputs, voxels, judge, key == same)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"key": key, "place": place, **row, "part": part}) + "\n")
                row |= {"plain": part["iterations"]} if key == plain else part
            out.append(row)
            best = max(s["psnr_db"] for s in row["iterations"])
            say(
                f"{entry.card.id}: {len(out)} of {total}: {specimen.kind}, {electrons:g} electrons: network "
                f"{row['network']['psnr_db']:.2f} dB, best Richardson-Lucy {best:.2f} dB"
            )
    return out


def _read(folder: Path, keys: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
    out = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                kept = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed
            if kept.get("key") in keys:
                out[kept["key"], kept["place"]] = kept["part"]
    return out


def _plain(setup: Setup) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(setup))))


def fill_page(page: Path, figures: dict[str, Any]) -> None:
    """Put the tables of every model between ``<!-- ID -->`` and ``<!-- end -->`` of a Markdown page.

    Raises
    ------
    RequestError
        If the page has no place for a model.
    """
    text = page.read_text(encoding="utf-8")
    for name, found in figures["models"].items():
        start, end = f"<!-- {name} -->", "<!-- end -->"
        head, mark, tail = text.partition(start)
        if not mark or end not in tail:
            raise RequestError(f"{page} has no place for '{name}'.", f"Write {start} and {end} into it.")
        text = f"{head}{start}\n\n{tables(found)}\n{end}{tail.partition(end)[2]}"
    with replacing_file(page) as file:
        file.write(text.encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with options; the figures go to the standard output as JSON, or into a file."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench.lfmnet_quality")
    parser.add_argument("models", nargs="*", help="ids or folders; none: the bundled ones")
    parser.add_argument("--specimens", type=int, help="in each group")
    parser.add_argument("--lenslets", type=int, help="rows and columns of the recordings")
    parser.add_argument("--voxels", type=int, help="fine voxels per lenslet of the simulated object")
    parser.add_argument("--z-substeps", type=int, help="planes of the object per plane of the volume")
    parser.add_argument("--beyond", type=float, help="height of the object beyond the volume, in shares")
    parser.add_argument("--iterations", type=int, help="of Richardson-Lucy")
    parser.add_argument("--memory-gib", type=float, help="budget of a reconstruction")
    parser.add_argument("--folder", type=Path, help="where recordings and rows are kept")
    parser.add_argument("--save", type=Path, help="JSON file to write")
    parser.add_argument("--fill", type=Path, help="only put the figures of --save into this page")
    given = vars(parser.parse_args(arguments))
    if given["fill"] is not None:
        fill_page(given["fill"], json.loads(given["save"].read_text(encoding="utf-8")))
        return
    names = ("specimens", "lenslets", "voxels", "z_substeps", "beyond", "iterations", "memory_gib")
    wanted = {n: given[n] for n in names if given[n] is not None}
    entries = [find_model(m, "lfmnet") for m in given["models"]] or bundled()
    figures: dict[str, Any] = {"models": {}}
    for entry in entries:
        setup = replace(setup_for(entry), **wanted)
        found = run(lambda text: _say(str(text)), [str(entry.folder)], setup, given["folder"])
        figures["models"] |= found["models"]
        text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
        if given["save"] is not None:
            with replacing_file(given["save"]) as file:
                file.write(text.encode())
    if given["save"] is None:
        sys.stdout.write(text if entries else "{}\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
