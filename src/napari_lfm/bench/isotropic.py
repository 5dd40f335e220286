"""``bench isotropic``: what isotropic restoration is worth beside interpolation, deconvolution and CSBDeep.

Parts, each callable by itself (``python -m napari_lfm.bench.isotropic --part quality --csbdeep PYTHON``):

- *quality*: real and simulated specimens at several anisotropies, CSBDeep on the same patches;
- *speed*: steps per second beside CSBDeep's, taking turns;
- *course*: PSNR against minutes of training, from random weights and from the bundled model;
- *blur*: the blur along z as estimated from stacks, against the imposed one;
- *segmentation*: nuclei found by a watershed, against given labels;
- *real*: recorded stacks: resolution before and after, and what the result leaves unexplained;
- *large*: time and memory of restoring 100 planes of 1024 x 1024 at factor 4.

CSBDeep (``csbdeep==0.8.2 tensorflow-cpu tf_keras``) is run by the interpreter that ``--csbdeep`` names;
without one its figures are left out. One part takes minutes to half an hour on one core, all about an hour.
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

    Say = Callable[[str], None]

PARTS = ("quality", "speed", "course", "blur", "segmentation", "real", "large")


def run(
    progress: Say | None = None,
    parts: Sequence[str] = PARTS,
    csbdeep: str | None = None,
    pictures: Path | None = None,
    **sizes: Any,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    progress : callable, optional
    parts : sequence of str
    csbdeep : str, optional
        Interpreter with CSBDeep.
    pictures : Path, optional
        Folder for pictures of recorded stacks.
    **sizes
        ``steps`` of the trainings in *quality*.

    Returns
    -------
    dict
        One entry for each part.
    """
    say = progress or (lambda _: None)
    out: dict[str, Any] = {}
    for part in parts:
        say(part)
        out[part] = _part(part, say, csbdeep, pictures, sizes)
    return out


def _part(part: str, say: Say, csbdeep: str | None, pictures: Path | None, sizes: dict[str, Any]) -> Any:
    if part == "quality":
        from napari_lfm.bench._isotropic_quality import quality

        return quality(say, csbdeep, **sizes)
    if part == "speed":
        from napari_lfm.bench._isotropic_speed import training_speed

        return training_speed(say, csbdeep)
    if part == "course":
        from napari_lfm.bench._isotropic_course import course

        return course(say)
    if part == "blur":
        from napari_lfm.bench._isotropic_blur import blur_estimates

        return blur_estimates(say)
    if part == "segmentation":
        from napari_lfm.bench._isotropic_cells import segmentation

        return segmentation(say)
    if part == "real":
        from napari_lfm.bench._isotropic_real import real_stacks

        return real_stacks(say, pictures=pictures)
    from napari_lfm.bench._isotropic_speed import large_stack

    return large_stack(say)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with options; the figures go to the standard output as JSON, or into a file."""
    parser = argparse.ArgumentParser(prog="python -m napari_lfm.bench.isotropic")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    parser.add_argument("--csbdeep", metavar="PYTHON", help="interpreter that has CSBDeep")
    parser.add_argument("--steps", type=int, help="of the trainings in quality")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of recorded stacks")
    parser.add_argument("--save", type=Path, help="JSON file; what other parts it holds is kept")
    given = parser.parse_args(arguments)
    sizes = {} if given.steps is None else {"steps": given.steps}
    found = run(_say, given.part or PARTS, given.csbdeep, given.pictures, **sizes)
    if given.save is None:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    from napari_lfm.cli._machine import machine

    kept = json.loads(given.save.read_text("utf-8")) if given.save.is_file() else {}
    text = json.dumps({**kept, **found, "machine": machine()}, indent=1) + "\n"
    with replacing_file(given.save) as file:
        file.write(text.encode())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
