"""``napari-lfm calibrate``: find the lenslets, save the grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_lfm.cli._console import Answer, Json, Microscope, command, prepare_output, say


@command
def calibrate(
    lightfield: Annotated[Path, typer.Argument(help="Raw light field.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Grid file (JSON) to write.")],
    white: Annotated[
        Path | None, typer.Option(help="White frame; without it the grid is found blind.")
    ] = None,
    dark: Annotated[Path | None, typer.Option(help="Dark frame.")] = None,
    microscope: Microscope = None,
    axes: Annotated[
        str | None, typer.Option(help="Axes of the file where it does not name them, e.g. TYX.")
    ] = None,
    distortion: Annotated[bool, typer.Option(help="Fit a smooth distortion where there is one.")] = False,
    as_json: Json = False,
) -> Answer:
    """Find the lenslet grid of a light field: pitch, rotation, residual, confidence."""
    from napari_lfm.api import as_microscope
    from napari_lfm.core.problems import raise_for
    from napari_lfm.io.read import axes_that_fit, read_lightfield
    from napari_lfm.lightfield.calibrate import calibrate as find
    from napari_lfm.lightfield.calibrate import check_pitch
    from napari_lfm.lightfield.files import lattice_record, save_lattice

    prepare_output(output)
    optics = as_microscope(microscope)
    frames = {
        name: None
        if path is None
        else read_lightfield(path, optics, "raw", axes if name == "raw" else axes_that_fit(path, axes))
        for name, path in (("raw", lightfield), ("white", white), ("dark", dark))
    }
    lattice = find(frames["raw"], frames["white"], frames["dark"], microscope=optics, distortion=distortion)
    notes = list(lattice.warnings)
    if optics is not None:
        problems = check_pitch(lattice, optics)
        raise_for(problems)
        notes += [str(p) for p in problems]
    for note in notes:
        say(f"Note: {note}")
    save_lattice(output, lattice)
    record = {**lattice_record(lattice), "grid": str(output)}
    py, px = lattice.pitch_px
    text = (
        f"Pitch {py:.3f} x {px:.3f} px (y, x), rotation {lattice.rotation_deg:.3f} degrees, "
        f"{lattice.rows} x {lattice.columns} lenslets ({lattice.kind})\n"
        f"Residual {lattice.residual_px:.3f} px rms, confidence {lattice.confidence:.2f}, "
        f"found in the {'white frame' if lattice.source == 'white' else 'light field itself'}\n"
        f"Saved {output}"
    )
    return Answer(record, text)
