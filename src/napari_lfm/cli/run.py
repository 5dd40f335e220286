"""``napari-lfm run``: any method, from files to files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import (
    Answer,
    Json,
    Microscope,
    ProgressLine,
    about,
    command,
    prepare_output,
    say,
    size,
)
from napari_lfm.cli._wishes import Wish, from_options, from_result

if TYPE_CHECKING:
    from napari_lfm.core.events import Event, Preview
    from napari_lfm.methods.base import Request

_SUFFIXES = (".tif", ".tiff", ".npz", ".zarr")


@command
def run(
    method: Annotated[str | None, typer.Argument(help="Method id; see 'napari-lfm methods'.")] = None,
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="INPUT...", help="Images; several, or a folder of them.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write, .ome.zarr for OME-Zarr; a folder for several inputs."
        ),
    ] = None,
    again: Annotated[
        Path | None, typer.Option("--from", help="Run again what made this result.", metavar="RESULT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Trained model: id or folder; the best fitting one unless given.")
    ] = None,
    microscope: Microscope = None,
    grid: Annotated[Path | None, typer.Option(help="Lenslet grid from 'napari-lfm calibrate'.")] = None,
    white: Annotated[Path | None, typer.Option(help="White frame.")] = None,
    dark: Annotated[Path | None, typer.Option(help="Dark frame.")] = None,
    psf: Annotated[
        Path | None,
        typer.Option(help="Point spread function of a stack: a recorded bead, or a finished one."),
    ] = None,
    psf_voxel_um: Annotated[
        str | None, typer.Option("--psf-voxel-um", help="Its voxel size Z,Y,X in um.")
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, raw, lenslet:N or vuts.")] = "auto",
    axes: Annotated[
        str | None, typer.Option(help="Axes of the file where it does not name them, e.g. ZYX.")
    ] = None,
    voxel_um: Annotated[str | None, typer.Option("--voxel-um", help="Voxel size Z,Y,X in um.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the method; repeat it."),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region-px", "--region", help="Only y0,x0,y1,x1 of the raw frame, pixels.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    memory_gib: Annotated[float | None, typer.Option("--memory-gib", help="Memory budget, GiB.")] = None,
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When stopped with Ctrl-C or kill, save the last preview.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """Run a method on one or more images and save the result."""
    from napari_lfm.core.problems import LfmError, RequestError

    if output is None:
        raise RequestError("There is nowhere to put the result.", "Give a file with -o OUT.")
    given = {
        "model": model,
        "microscope": microscope,
        "lattice": grid,
        "white": white,
        "dark": dark,
        "psf": psf,
        "psf_voxel_um": psf_voxel_um,
        "layout": layout,
        "axes": axes,
        "voxel_um": voxel_um,
        "region_px": region,
        "device": device,
        "memory_gib": memory_gib,
    }
    if again is not None:
        if method is not None:
            raise RequestError(
                "With --from, method and input come from the result.", "Leave them out, or leave --from out."
            )
        return _one(from_result(again, settings or [], given), output, keep_partial)
    if method is None or not inputs:
        raise RequestError(
            "A method and an input are needed.",
            "For example: napari-lfm run deconvolve-lightfield raw.tif -o volume.tif",
        )
    files, searched = _expand(inputs)
    if len(files) == 1 and not searched:
        return _one(from_options(method, files[0], settings or [], given), output, keep_partial)

    if output.suffix and not output.is_dir():
        raise RequestError(
            f"{len(files)} inputs cannot go into the one file {output}.", "Give a folder with -o."
        )
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    for place, file in _places(files, output, method):
        say(f"{file.name}:")
        try:
            wish = from_options(method, file, settings or [], given)
            answer = _one(wish, place, keep_partial)
            done.append({"input": str(file), **answer.data})
            if answer.exit_status:  # stopped: the rest is not wanted either
                return Answer({"results": done, "left_out": failed}, answer.text, answer.exit_status)
        except LfmError as error:
            say(f"Left out: {error}")
            failed.append(str(file))
    text = "\n".join(str(d["output"]) for d in done)
    # a stray file in a folder is no error of the request; a named file that fails is
    status = 2 if not done or (failed and not searched) else 0
    return Answer({"results": done, "left_out": failed}, text, status)


def _one(wish: Wish, output: Path, keep_partial: bool) -> Answer:
    from napari_lfm.api import execute
    from napari_lfm.core.events import Preview, Progress
    from napari_lfm.core.problems import raise_for
    from napari_lfm.io.write import write_result

    prepare_output(output)
    _spare_inputs(wish, output)
    request, problems = wish.request()
    notes = [str(p) for p in problems if p.severity != "error"]
    for note in notes:
        say(f"Note: {note}")
    raise_for(problems)
    notes += _announce(request, notes)
    line, start = ProgressLine(), time.monotonic()
    last: Preview | None = None
    values: dict[str, float] = {}

    def follow(event: Event) -> None:
        nonlocal last
        if not (isinstance(event, Progress) and _said(event.message, notes)):
            line(event)
        if isinstance(event, Preview):
            last = event
        if isinstance(event, Preview | Progress):
            progress = event.progress if isinstance(event, Preview) else event
            values.update(progress.values)

    try:
        result = execute(request, follow)
    except KeyboardInterrupt:
        line.end()
        if not keep_partial:
            raise
        return _partial(last, request, output)
    finally:
        line.end()
    written = write_result(output, result)
    seconds = time.monotonic() - start
    for path in written:
        say(f"Saved {path}")
    data = {
        "method": request.method,
        "output": str(written[0]),
        "files": [str(p) for p in written],
        "primary": result.primary,
        "seconds": round(seconds, 3),
        "device": result.provenance.get("device", request.device),
        **{k: v for k, v in values.items() if k not in ("method", "output")},
    }
    return Answer(data, str(written[0]))


def _spare_inputs(wish: Wish, output: Path) -> None:
    """Refuse to write a result over the recording that it is made from."""
    from napari_lfm.core.problems import RequestError

    given = [wish.image, *(wish.keywords.get(name) for name in ("white", "dark", "psf"))]
    given += [value for name, value in wish.parameters.items() if name.endswith("_file")]
    if output.exists() and any(p is not None and Path(p).exists() and output.samefile(p) for p in given):
        raise RequestError(
            f"The result would overwrite {output}, which it is made from.", "Give another output with -o."
        )


def _announce(request: Request, said: list[str]) -> list[str]:
    """Say what will be made, and return the notes that were said with it."""
    from napari_lfm.methods.base import get_method

    estimate = get_method(request.method).estimate(request)
    shape = " x ".join(map(str, estimate.output_shape))
    # how many points there are is not known before
    made = "a table" if "column" in estimate.output_dims else f"{shape} ({' '.join(estimate.output_dims)})"
    say(f"Making {made}: about {size(estimate.peak_bytes)} of memory, {about(estimate.seconds)}.")
    notes = [note for note in estimate.notes if not _said(note, said)]
    for note in notes:
        say(f"Note: {note}")
    return notes


def _said(text: str, notes: list[str]) -> bool:
    return any(text and text in note for note in notes)


def _partial(last: Preview | None, request: Request, output: Path) -> Answer:
    """Save the last preview of a run that was stopped, if it came so far."""
    data: dict[str, Any] = {"method": request.method, "output": None, "stopped_after": 0}
    if last is None:
        say("Stopped before the first preview: there was nothing to save. Nothing was overwritten.")
        return Answer(data, "", 1)
    path = _keep(last, request, output)
    say(f"Stopped. Saved the last preview: {path}")
    data |= {
        "output": str(path),
        "stopped_after": last.progress.step,
        "stopped_of": last.progress.total,
        **{k: v for k, v in last.progress.values.items() if k not in data},
    }
    return Answer(data, str(path), 1)


def _keep(preview: Preview, request: Request, output: Path) -> Path:
    """Save a preview with the record of how far it came."""
    from napari_lfm.io.provenance import make_provenance
    from napari_lfm.io.write import write_image

    provenance = make_provenance(
        method=request.method,
        parameters=request.parameters,
        inputs=request.inputs,
        sources=request.sources,
        microscope=request.microscope,
        lattice=request.lattice,
        device=request.device,
        memory_gib=request.memory_gib,
        region_px=request.region_px,
        layout=request.layout,
        model=preview.provenance.get("model"),
        stopped_after=preview.progress.step,
        stopped_of=preview.progress.total,
    )
    return write_image(output, preview.image, provenance)


def _expand(inputs: list[Path]) -> tuple[list[Path], bool]:
    """Return the files, and whether a folder was searched for them."""
    from napari_lfm.core.problems import RequestError

    files: list[Path] = []
    searched = False
    for path in inputs:
        if path.is_dir() and path.suffix.lower() != ".zarr":
            searched = True
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.name[0] != ".")
        else:
            files.append(path)
    if not files:
        raise RequestError(f"There is no image in {inputs[0]}.", "Give TIFF, OME-Zarr or npz files.")
    return files, searched


def _places(files: list[Path], folder: Path, method: str) -> list[tuple[Path, Path]]:
    """Return where each result goes; inputs of one name get numbers."""
    names: dict[str, int] = {}
    out = []
    for file in files:
        stem = file.name.split(".")[0]
        names[stem] = names.get(stem, 0) + 1
        number = "" if names[stem] == 1 else f"-{names[stem]}"
        out.append((folder / f"{stem}{number}.{method}.ome.tif", file))
    return out
