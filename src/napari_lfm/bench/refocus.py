"""``bench refocus``: what virtual refocusing is worth, on specimens it never saw, and what it costs.

Parts, each callable by itself (``python -m napari_lfm.bench.refocus --part beads``):

- *quality*: planes of unseen specimens beside deconvolution with the known defocus;
- *beads*: how far from focus beads become sharp again; *sides*: whether the side is told correctly;
- *surfaces*: tilted and curved ones beside uniform planes;
- *real*: a measured bead and real nuclei;
- *speed*: planes, stacks, a slider, a movie.

What the published network has is counted in *networks*; its wiring and the reader of its weights are held
against references in ``tests/networks/test_refocus_paper.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.io.atomic import replacing_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lfm.bench._refocus_scenes import Model

    Say = Callable[[str], None]

PUBLISHED = {"depth_of_field_fold": 20.0, "seconds_512": 0.2, "seconds_1536": 1.0}
"""What the authors report for their network, their objective and their GPU."""
PARTS = ("networks", "quality", "beads", "sides", "surfaces", "real", "speed")


def run(
    progress: Say | None = None,
    model: str | None = None,
    parts: Sequence[str] = PARTS,
    count: int = 2,
) -> dict[str, Any]:
    """Measure a model.

    Parameters
    ----------
    progress : callable, optional
    model : str, optional
        Id or folder; default the bundled one of the lowest aperture.
    parts : sequence of str
    count : int
        Specimens of each family in *quality*.

    Returns
    -------
    dict
        One entry for each part, ``model`` (id, fingerprint, range) and ``published``. Real data that are
        absent are None.
    """
    from napari_lfm.bench._refocus_scenes import open_model

    say = progress or (lambda _: None)
    opened = open_model(model)
    out: dict[str, Any] = {
        "model": {
            "id": opened.entry.card.id,
            "sha256": opened.entry.card.sha256,
            "range_um": opened.domain.range_um,
            "pixel_um": opened.domain.pixel_um,
            "na": opened.domain.optics.na,
            "spherical_rms_waves": round(opened.domain.optics.spherical_rms_waves, 4),
        },
        "published": PUBLISHED,
    }
    for part in parts:
        say(part)
        out[part] = _part(part, opened, say, model, count)
    return out


def _part(part: str, opened: Model, say: Say, name: str | None, count: int) -> dict[str, Any]:
    if part == "networks":
        return networks(opened)
    if part == "quality":
        from napari_lfm.bench._refocus_quality import quality

        return quality(opened, say, count)
    if part == "beads":
        from napari_lfm.bench._refocus_beads import depth_of_field

        return depth_of_field(opened)
    if part == "sides":
        from napari_lfm.bench._refocus_beads import signs

        return signs(opened, say)
    if part == "surfaces":
        from napari_lfm.bench._refocus_surfaces import surface_errors

        return surface_errors(opened, say)
    if part == "real":
        from napari_lfm.bench._refocus_real import real_bead, real_nuclei

        return {"bead": real_bead(opened), "nuclei": real_nuclei(opened)}
    from napari_lfm.bench._refocus_speed import speed

    return speed(say, name)


def networks(opened: Model) -> dict[str, Any]:
    """Return how many numbers the networks have: as published, with 5 and 6 levels, and the model's."""
    import torch

    from napari_lfm.networks.refocus_paper import RefocusPaperNet

    with torch.device("meta"):  # counted, not filled
        five, six = RefocusPaperNet(levels=5), RefocusPaperNet(levels=6)
    return {
        "paper_5_levels": sum(p.numel() for p in five.parameters()),
        "paper_6_levels": sum(p.numel() for p in six.parameters()),
        "modern": sum(p.numel() for p in opened.network.parameters()),
        "tests": "tests/networks/test_refocus_paper.py",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with options; the figures go to the standard output as JSON, or into a file."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench.refocus")
    parser.add_argument("model", nargs="?", help="id or folder; none: the bundled one of the lowest aperture")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    parser.add_argument("--count", type=int, default=2, help="specimens of each family in quality")
    parser.add_argument("--save", type=Path, help="JSON file; what other parts it holds is kept")
    given = parser.parse_args(arguments)
    found = run(lambda text: _say(str(text)), given.model, given.part or PARTS, given.count)
    if given.save is None:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    kept = json.loads(given.save.read_text("utf-8")) if given.save.is_file() else {}
    if kept.get("model", found["model"]) != found["model"]:
        kept = {}  # figures of other weights say nothing about these
    from napari_lfm.cli._machine import machine

    text = json.dumps({**kept, **found, "machine": machine()}, indent=1) + "\n"
    with replacing_file(given.save) as file:
        file.write(text.encode())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
