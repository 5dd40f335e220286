"""``napari-lfm evaluate``: a result against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, command

if TYPE_CHECKING:
    import xarray as xr


@command
def evaluate(
    result: Annotated[Path, typer.Argument(help="Volume, image or points CSV to score.")],
    truth: Annotated[Path, typer.Argument(help="The truth, of the same kind.")],
    start: Annotated[
        Path | None, typer.Option("--input", help="Also score what the method started from, the same way.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of both files where they do not name them.")] = None,
    offset: Annotated[bool, typer.Option(help="Fit an additive offset beside the brightness scale.")] = False,
    data_range: Annotated[
        float | None, typer.Option("--data-range", help="Fixed data range; default the truth's max - min.")
    ] = None,
    tolerance_um: Annotated[float, typer.Option("--tolerance-um", help="Largest distance of a match.")] = 5.0,
    as_json: Json = False,
) -> Answer:
    """Score a result: psnr_db, ssim, nrmse, pearson; for points rmse_um, precision, recall."""
    from napari_lfm.core.problems import RequestError

    tables = [_is_table(p) for p in (result, truth)]
    if any(tables):
        if not all(tables):
            raise RequestError("Points can only be scored against points.", "Give two CSV files.")
        return _points(result, truth, tolerance_um)
    from napari_lfm.core.metrics import score_volume

    images = [_read(path, axes) for path in (result, truth)]
    scores = score_volume(
        *images,
        reference_input=None if start is None else _read(start, axes),
        offset=offset,
        data_range=data_range,
    )
    lines = [f"{'':<12}{'psnr_db':>10}{'ssim':>10}{'nrmse':>10}{'pearson':>10}", _row("result", scores)]
    lines += [_row(name, scores[name]) for name in ("input", "constant") if name in scores]
    if scores["coverage"] < 0.999:
        lines.append(f"Compared over {100 * scores['coverage']:.0f} % of the truth.")
    return Answer(scores, "\n".join(lines))


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


def _read(path: Path, axes: str | None) -> xr.DataArray:
    from napari_lfm.io.read import read_image

    return read_image(path, kind=None, axes=axes)


def _row(name: str, scores: dict[str, Any]) -> str:
    cells = "".join(f"{scores[k]:>10.4f}" for k in ("psnr_db", "ssim", "nrmse", "pearson"))
    return f"{name:<12}{cells}"
