"""``napari-lfm evaluate``: a result against the truth, or by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, command, numbers

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.io.read import Kind


@command
def evaluate(
    result: Annotated[Path, typer.Argument(help="Volume, image or points CSV to score.")],
    truth: Annotated[
        Path | None,
        typer.Argument(help="The truth, of the same kind. Without one: resolution along z, y and x."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--input", help="Also score what the method started from, the same way.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of both files where they do not name them.")] = None,
    voxel_um: Annotated[
        str | None, typer.Option("--voxel-um", help="Voxel size Z,Y,X (or Y,X) of both files in um.")
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Move the result onto the truth first, to fractions of a voxel.")
    ] = False,
    resolution: Annotated[
        bool, typer.Option("--resolution", help="With a truth too: resolution along z, y and x.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Width (FWHM) along a line: two points of the result in voxels from 0, Z,Y,X:Z,Y,X."
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for charts (SVG) and their curves (CSV).")
    ] = None,
    offset: Annotated[bool, typer.Option(help="Fit an additive offset beside the brightness scale.")] = False,
    data_range: Annotated[
        float | None, typer.Option("--data-range", help="Fixed data range; default the truth's max - min.")
    ] = None,
    tolerance_um: Annotated[float, typer.Option("--tolerance-um", help="Largest distance of a match.")] = 5.0,
    as_json: Json = False,
) -> Answer:
    """Score a result: psnr_db, ssim, nrmse, pearson; resolution_um; for points rmse_um, precision, recall."""
    from napari_lfm.core.problems import RequestError

    tables = [_is_table(p) for p in (result, truth) if p is not None]
    if any(tables):
        if not all(tables) or truth is None:
            raise RequestError("Points can only be scored against points.", "Give two CSV files.")
        return _points(result, truth, tolerance_um)
    if truth is None:
        for name, given in (("--input", start), ("--data-range", data_range), ("--align", align or None)):
            if given is not None:
                raise RequestError(f"{name} needs a truth to compare with.", "Give RESULT and TRUTH.")
    if truth is None or align or resolution or profile or plots:
        return _measured(
            (result, truth, start),
            axes,
            voxel_um,
            align=align,
            resolution=resolution or truth is None or (plots is not None and profile is None),
            profile=profile,
            plots=plots,
            offset=offset,
            data_range=data_range,
        )
    from napari_lfm.core.metrics import score_volume

    images = [_read(path, axes, voxel_um) for path in (result, truth)]
    scores = score_volume(
        *images,
        reference_input=None if start is None else _read(start, axes, voxel_um),
        offset=offset,
        data_range=data_range,
    )
    return Answer(scores, _table(scores))


def _measured(
    paths: tuple[Path, Path | None, Path | None],
    axes: str | None,
    voxel_um: str | None,
    *,
    profile: str | None,
    plots: Path | None,
    align: bool,
    resolution: bool,
    offset: bool,
    data_range: float | None,
) -> Answer:
    """Answer what needs voxel sizes: resolution, alignment, a profile, charts."""
    from napari_lfm.cli._console import prepare_output
    from napari_lfm.core.evaluation import evaluate as measure
    from napari_lfm.core.evaluation_show import as_text, write_charts
    from napari_lfm.core.one_image import one_image

    if plots is not None:
        prepare_output(plots / "spectra.csv")
    result, truth, start = (
        None if path is None else _read(path, axes, voxel_um, kind="stack") for path in paths
    )
    assert result is not None
    line = None if profile is None else _line_um(profile, one_image(result, "The image"))
    found = measure(
        result,
        truth,
        reference_input=start,
        aligned=align,
        resolution=resolution,
        profile_um=line,
        offset=offset,
        data_range=data_range,
    )
    data, text = found.to_dict(), as_text(found)
    if found.scores is not None:
        text = f"{_table(found.scores)}\n{text}".rstrip()
    if plots is not None:
        files = write_charts(found, plots)
        data["plots"] = [str(f) for f in files]
        text += f"\n{len(files)} files are in {plots}."
    return Answer(data, text)


def _line_um(text: str, image: xr.DataArray) -> tuple[list[float], list[float]]:
    """Return the ends of a line given in voxels, as places in micrometres."""
    from napari_lfm.core.labelled import origin_of, spacing_of
    from napari_lfm.core.problems import RequestError

    dims = [str(d) for d in image.dims]
    example = ":".join([",".join(["8", "40", "20"][-len(dims) :]), ",".join(["8", "40", "60"][-len(dims) :])])
    ends = text.split(":")
    if len(ends) != 2:
        raise RequestError(f"'{text}' is not a line.", f"Give two points in voxels, such as {example}.")
    step, first = spacing_of(image), origin_of(image)
    out = []
    for end in ends:
        point = numbers(end, len(dims), f"point ({', '.join(dims)}) in voxels", example.split(":")[0])
        out.append([first.get(d, 0.0) + p * step.get(d, 1.0) for d, p in zip(dims, point, strict=True)])
    return out[0], out[1]


def _table(scores: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'psnr_db':>10}{'ssim':>10}{'nrmse':>10}{'pearson':>10}", _row("result", scores)]
    lines += [_row(name, scores[name]) for name in ("input", "constant") if name in scores]
    if scores["coverage"] < 0.999:
        lines.append(f"Compared over {100 * scores['coverage']:.0f} % of the truth.")
    return "\n".join(lines)


def _is_table(path: Path) -> bool:
    """Whether a file holds points; its content counts, as images are written under any name."""
    from napari_lfm.io.tiff import looks_like_tiff

    return path.suffix.lower() == ".csv" and not looks_like_tiff(path)


def _points(result: Path, truth: Path, tolerance_um: float) -> Answer:
    from napari_lfm.core.metrics import match_points, points_of
    from napari_lfm.io.points import read_points

    scores = match_points(points_of(read_points(result)), points_of(read_points(truth)), tolerance_um)
    data = scores.to_dict()
    rms = {a: "-" if v is None else f"{v:.3f}" for a, v in data["rmse_um"].items()}
    text = (
        f"rmse z {rms['z']}, y {rms['y']}, x {rms['x']} um over {scores.matched} matches\n"
        f"precision {scores.precision:.3f} ({scores.found} found), recall {scores.recall:.3f} "
        f"({scores.truth} true), within {tolerance_um:g} um"
    )
    return Answer(data, text)


def _read(path: Path, axes: str | None, voxel_um: str | None, kind: Kind | None = None) -> xr.DataArray:
    from napari_lfm.io.read import read_image

    sizes = None
    if voxel_um is not None:
        count = min(max(voxel_um.count(",") + 1, 2), 3)
        sizes = numbers(voxel_um, count, "voxel size (z, y, x) or (y, x)", "0.3,0.1,0.1")
    return read_image(path, kind=kind, axes=axes, voxel_um=sizes, flat=True)


def _row(name: str, scores: dict[str, Any]) -> str:
    cells = "".join(f"{scores[k]:>10.4f}" for k in ("psnr_db", "ssim", "nrmse", "pearson"))
    return f"{name:<12}{cells}"
