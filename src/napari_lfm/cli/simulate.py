"""``napari-lfm simulate``: a measurement with its truth."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, ProgressLine, command, numbers, prepare_output, say, size
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.scene import Scene

KINDS = ("lightfield", "tissue")
_TISSUE_BYTES = 60
"""Of memory for a voxel of simulated tissue."""


@command
def simulate(
    kind: Annotated[str, typer.Argument(help=f"What to record: {', '.join(KINDS)}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the frames and the truth.")],
    phantom: Annotated[
        str,
        typer.Option(
            help="vesicles, beads, vessels, neurons, bars, filaments, nuclei, cells, tissue, mixtures; "
            "join several with '+'."
        ),
    ] = "vesicles+beads",
    volume: Annotated[Path | None, typer.Option(help="Use this volume and not a phantom.")] = None,
    morphology: Annotated[
        list[Path] | None, typer.Option(help="SWC or HDF5 neuron for the phantom 'neurons'; repeat it.")
    ] = None,
    microscope: Annotated[str, typer.Option(help="Preset, own microscope, or file.")] = "mbl-60x1.2w",
    lenslets: Annotated[str, typer.Option(help="ROWS,COLUMNS of lenslets.")] = "21,21",
    z_min_um: Annotated[float | None, typer.Option("--z-min-um", help="First plane of the truth.")] = None,
    z_max_um: Annotated[float | None, typer.Option("--z-max-um", help="Last plane of the truth.")] = None,
    z_step_um: Annotated[
        float | None, typer.Option("--z-step-um", help="Plane distance of the truth.")
    ] = None,
    pitch_px: Annotated[float | None, typer.Option("--pitch-px", help="Lenslet pitch on the camera.")] = None,
    rotation_deg: Annotated[float, typer.Option("--rotation-deg", help="Rotation of the array.")] = 0.3,
    peak_electrons: Annotated[
        float, typer.Option("--peak-electrons", help="Light at the brightest pixels.")
    ] = 3000.0,
    background: Annotated[float, typer.Option(help="Uniform haze as a share of the peak.")] = 0.05,
    exact: Annotated[
        bool, typer.Option("--exact", help="Optics exactly as stated, not slightly off.")
    ] = False,
    voxel_um: Annotated[str | None, typer.Option("--voxel-um", help="Voxel size Z,Y,X of --volume.")] = None,
    pairs: Annotated[int, typer.Option(help="tissue: pairs of wide-field and confocal stacks.")] = 1,
    stack_px: Annotated[
        str, typer.Option("--stack-px", help="tissue: PLANES,ROWS,COLUMNS of a stack.")
    ] = "80,256,256",
    scattering_um: Annotated[
        float, typer.Option("--scattering-um", help="tissue: mean free path; shorter is hazier.")
    ] = 100.0,
    shift_px: Annotated[
        str, typer.Option("--shift-px", help="tissue: Z,Y,X by which the confocal stacks are moved.")
    ] = "0,0,0",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same recording.")] = 0,
    as_json: Json = False,
) -> Answer:
    """Record a simulated light field with its truth, or wide-field and confocal stacks of thick tissue."""
    from napari_lfm.api import as_microscope
    from napari_lfm.core.devices import pick_device
    from napari_lfm.simulation.files import write_recording
    from napari_lfm.simulation.lightfield import SLIGHTLY_OFF, Exposure, OpticsError, simulate_lightfield

    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"There is: {', '.join(KINDS)}."
        raise RequestError(f"'{kind}' cannot be simulated.", hint)
    if kind == "tissue":
        return _tissue(output, pairs, stack_px, scattering_um, peak_electrons, shift_px, seed)
    optics = as_microscope(microscope)
    assert optics is not None
    if optics.lenslets is None or optics.lenslet_um is None:
        raise RequestError(f"'{optics.name}' has no lenslet array.", "Choose a light-field microscope.")
    rows, columns = (int(v) for v in numbers(lenslets, 2, "number of lenslets", "21,21"))
    z_um = _depths(optics, z_min_um, z_max_um, z_step_um)
    prepare_output(output / "raw.ome.tif")
    subject = _subject(
        phantom, volume, morphology or [], voxel_um, z_um, (rows, columns), optics.lenslet_um, seed
    )
    line = ProgressLine()
    try:
        recording = simulate_lightfield(
            subject,
            optics,
            z_um=z_um,
            lenslets=(rows, columns),
            pitch_px=pitch_px,
            rotation_deg=rotation_deg,
            exposure=Exposure(peak_electrons=peak_electrons, background=background),
            error=OpticsError() if exact else SLIGHTLY_OFF,
            seed=seed,
            device=str(pick_device(device)),
            on_progress=lambda k, n, text: line.show(k, n, text),
        )
    finally:
        line.end()
    settings = {
        "kind": kind,
        "phantom": None if volume else phantom,
        "volume": str(volume) if volume else None,
        "seed": seed,
        "exact": exact,
        "peak_electrons": peak_electrons,
        "background": background,
    }
    files = write_recording(output, recording, optics, {"simulated": settings})
    for path in files.values():
        say(f"Saved {path}")
    data = {"folder": str(output), "files": {k: str(p) for k, p in files.items()}}
    return Answer(data, str(output))


def _tissue(
    output: Path,
    pairs: int,
    stack_px: str,
    scattering_um: float,
    electrons: float,
    shift_px: str,
    seed: int,
) -> Answer:
    """Write pairs of stacks of thick tissue under 60x/1.4 oil."""
    from napari_lfm.core.devices import memory_budget
    from napari_lfm.simulation.tissue_files import write_tissue

    planes, rows, columns = _whole(stack_px, "stack", "80,256,256")
    z, y, x = _whole(shift_px, "shift", "2,-3,4")
    if min(planes, rows, columns) < 2:
        raise RequestError(
            f"A stack of {planes} x {rows} x {columns} voxels is none.", "Give two planes and pixels or more."
        )
    if seed < 0:
        raise RequestError(f"The seed {seed} is negative.", "Give 0 or more.")
    need, free = _TISSUE_BYTES * planes * rows * columns, memory_budget("cpu")
    if need > free:
        raise RequestError(
            f"A stack of {planes} x {rows} x {columns} voxels takes about {size(need)}, and {size(free)} of "
            "memory are free.",
            "Give fewer planes or pixels.",
        )
    prepare_output(output / "widefield" / "pair-001.ome.tif")
    line = ProgressLine()
    written: list[dict[str, str]] = []
    try:
        for done, total, files in write_tissue(
            output, pairs, (planes, rows, columns), scattering_um, electrons, (z, y, x), seed
        ):
            line.show(done, total, f"Pair {done} of {total}")
            written.append({k: str(p) for k, p in files.items()})
    finally:
        line.end()
    say(f"Saved {len(written)} pairs in {output}")
    return Answer({"folder": str(output), "pairs": written}, str(output))


def _whole(text: str, what: str, example: str) -> tuple[int, int, int]:
    values = numbers(text, 3, what, example)
    if any(v != int(v) for v in values):
        raise RequestError(f"'{text}' is not a {what}.", f"Give 3 whole numbers, such as {example}.")
    z, y, x = (int(v) for v in values)
    return z, y, x


def _depths(
    optics: Microscope, low: float | None, high: float | None, step: float | None
) -> tuple[float, float, float]:
    """Return (first, last, step): as given, else four lenslets on each side in 15 planes."""
    unit = optics.lenslet_um
    assert unit is not None
    reach = round(4 * unit, 1)
    first, last = -reach if low is None else low, reach if high is None else high
    if last < first:
        raise RequestError(f"The depth range {first:g} to {last:g} um is empty.", "Swap the two.")
    return first, last, max(round(reach / 7, 2), 0.1) if step is None else step


def _subject(
    phantom: str,
    volume: Path | None,
    morphologies: list[Path],
    voxel_um: str | None,
    z_um: tuple[float, float, float],
    lenslets: tuple[int, int],
    lenslet_um: float,
    seed: int,
) -> Scene | xr.DataArray:
    from napari_lfm.io.read import read_image
    from napari_lfm.simulation.phantoms import make_scene
    from napari_lfm.simulation.scene import Box

    if volume is not None:
        size = None if voxel_um is None else numbers(voxel_um, 3, "voxel size", "0.3,0.1,0.1")
        return read_image(volume, kind="stack", voxel_um=size)
    # a tenth of the field stays empty on each side: what lies there is seen by half its cone only
    lateral = [0.8 * n * lenslet_um for n in lenslets]
    half = z_um[2] / 2
    box = Box(
        (z_um[0] - half, -lateral[0] / 2, -lateral[1] / 2), (z_um[1] + half, lateral[0] / 2, lateral[1] / 2)
    )
    options: dict[str, dict[str, Any]] = {"mixtures": {"lenslet_um": lenslet_um}}
    if morphologies:
        options["neurons"] = {"morphologies": morphologies}
    return make_scene(phantom, box, seed, options=options)
