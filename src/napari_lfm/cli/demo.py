"""``napari-lfm demo``: the whole way once, from a simulated camera frame to a scored volume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, ProgressLine, command, prepare_output, say

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from napari_lfm.core.metrics import PointScores
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.reproject import Reprojection
    from napari_lfm.simulation.recording import Recording

METHOD = "deconvolve-lightfield"
ITERATIONS = 20
TOLERANCE_UM = 1.5


@command
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures and files.")] = Path(
        "napari-lfm-demo"
    ),
    no_gui: Annotated[bool, typer.Option("--no-gui", help="Do not stay open in napari at the end.")] = False,
    as_json: Json = False,
) -> Answer:
    """Simulate a light field, find its lenslets blind, reconstruct, score; pictures and files."""
    from napari_lfm.api import build_request, execute
    from napari_lfm.cli._window import show_window
    from napari_lfm.core.metrics import match_points, points_of, score_volume
    from napari_lfm.core.problems import raise_for
    from napari_lfm.io.points import write_points
    from napari_lfm.io.write import write_result
    from napari_lfm.lightfield.calibrate import calibrate
    from napari_lfm.lightfield.files import save_lattice
    from napari_lfm.methods.reproject import reproject
    from napari_lfm.simulation import sample
    from napari_lfm.simulation.files import write_recording

    prepare_output(out / "volume.ome.tif")
    begun = time.monotonic()
    line = ProgressLine()
    optics = sample.sample_microscope()
    say(f"A light field of a giant vesicle and beads through {optics.name}, optics slightly off, with noise:")
    try:
        recording = sample.sample_recording(fresh=True, on_progress=line.show)
        line.end()
        files = write_recording(out / "measurement", recording, optics, {"simulated": "demo"})

        say("Finding the lenslets in the light field alone, without a white frame:")
        lattice = calibrate(recording["raw"].values, microscope=optics)
        files["grid"] = save_lattice(out / "grid.json", lattice)
        off = lattice_error_px(lattice, recording["lattice"])
        say(
            f"  pitch {lattice.pitch_px[0]:.3f} x {lattice.pitch_px[1]:.3f} px (true "
            f"{recording['lattice'].pitch_px[0]:.3f}), centres within {off:.2f} px of the true ones"
        )

        say("Reconstructing the volume:")
        depths = dict(zip(("z_min_um", "z_max_um", "z_step_um"), sample.Z_UM, strict=True))
        request, problems = build_request(
            METHOD,
            recording["raw"],
            white=recording["white"],
            dark=recording["dark"],
            microscope=optics,
            lattice=lattice,
            sources={"image": str(files["raw"]), **{n: str(files[n]) for n in ("white", "dark")}},
            parameters={**depths, "iterations": ITERATIONS},
        )
        raise_for(problems)
        result = execute(request, line)
    finally:
        line.end()
    volume = result.outputs[result.primary]
    files["volume"] = write_result(out / "volume.ome.tif", result)[0]

    say("Scoring it against the truth:")
    scores = score_volume(volume, recording["truth"])
    points = beads_in(volume)
    files["points"] = write_points(out / "beads.csv", points, {**result.provenance, "output": "beads"})
    found = match_points(points_of(points), points_of(recording["points"]), TOLERANCE_UM)
    residual = reproject(volume, _with_state(request, result.state))
    files |= draw(out, recording, lattice, volume, points, residual)
    seconds = time.monotonic() - begun
    text = report(scores, found, residual, lattice, off, seconds)
    say(text)

    screenshot = show_window(out, stay=not no_gui)
    if screenshot is not None:
        files["window"] = screenshot
    data = {
        "folder": str(out),
        "files": {name: str(path) for name, path in files.items()},
        "scores": scores,
        "beads": found.to_dict(),
        "calibration": {
            "pitch_px": lattice.pitch_px,
            "centre_error_px": off,
            "lenslets": [lattice.rows, lattice.columns],
        },
        "relative_residual": residual.relative_residual,
        "seconds": round(seconds, 1),
    }
    return Answer(data, "\n".join(str(path) for path in files.values()))


def _with_state(request: Request, state: Any) -> Request:
    from dataclasses import replace

    return replace(request, continue_from=state)


def lattice_error_px(found: Lattice, true: Lattice) -> float:
    """Return the rms distance between found lenslet centres and the nearest true ones, px."""
    import numpy as np
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(true.centres_px().reshape(-1, 2)).query(found.centres_px().reshape(-1, 2))
    near = distance < 0.5 * true.pitch_px[0]  # lenslets cut by the frame are in one list only
    return float(np.sqrt((distance[near] ** 2).mean()))


def beads_in(volume: xr.DataArray) -> pd.DataFrame:
    """Return the beads seen in the reconstructed volume."""
    from napari_lfm.cli._beads import find_spots

    return find_spots(volume)


def report(
    scores: dict[str, Any],
    found: PointScores,
    residual: Reprojection,
    lattice: Lattice,
    off: float,
    seconds: float,
) -> str:
    """Return the figures in words."""
    rows = [f"  {'':<26}{'psnr_db':>9}{'ssim':>9}{'nrmse':>9}{'pearson':>9}"]
    for name, row in (("volume", scores), ("an empty (constant) image", scores["constant"])):
        cells = "".join(f"{row[k]:>9.3f}" for k in ("psnr_db", "ssim", "nrmse", "pearson"))
        rows.append(f"  {name:<26}{cells}")
    rms = ", ".join(
        f"{axis} {'-' if v is None else f'{v:.2f}'}"
        for axis, v in (("z", found.rmse_z_um), ("y", found.rmse_y_um), ("x", found.rmse_x_um))
    )
    rows += [
        f"  beads: {found.matched} of {found.truth} found, {found.found - found.matched} false, "
        f"rms error {rms} um",
        f"  {residual.message}",
        f"  {seconds:.0f} s in all",
    ]
    return "\n".join(rows)


def draw(
    out: Path,
    recording: Recording,
    lattice: Lattice,
    volume: xr.DataArray,
    points: pd.DataFrame,
    residual: Reprojection,
) -> dict[str, Path]:
    """Draw the light field, the lattice over it, truth beside result, and the residual map."""
    import numpy as np

    from napari_lfm.cli._pictures import Panel, save, sheet, shown, signed
    from napari_lfm.core.resample import resample_onto

    raw = recording["raw"].values.astype(float)
    pixel = (float(recording["raw"].attrs["spacing"]["y"]),) * 2
    whole = sheet(
        [
            [
                Panel(shown(raw, gamma=0.6), "raw light field", pixel, 5),
                Panel(shown(recording["white"].values), "white frame", pixel, 5),
            ]
        ],
        "What the camera saw",
        13,
    )
    n = min(100, *raw.shape)
    y0, x0 = (raw.shape[0] - n) // 2, max(raw.shape[1] // 2 - 120, 0)
    crop = raw[y0 : y0 + n, x0 : x0 + n]
    centres = lattice.centres_px().reshape(-1, 2) - (y0, x0)
    near = centres[((centres > 1) & (centres < n - 2)).all(1)]
    marks = [(float(y), float(x)) for y, x in near]
    grid = sheet(
        [
            [
                Panel(shown(crop, gamma=0.5), f"{n} x {n} pixels of the raw frame", pixel, 2),
                Panel(shown(crop, gamma=0.5), "lenslet centres, found blind", pixel, 2, marks),
            ]
        ],
        f"Lenslets: pitch {np.mean(lattice.pitch_px):.3f} px, residual {lattice.residual_px:.3f} px rms",
        48,
    )
    result, truth = resample_onto(volume, recording["truth"])
    sections = [slices(truth, "truth"), slices(result, "result", points)]
    planes = sheet(sections, "Truth and result: sections and projections", 11)
    reach = float(np.percentile(np.abs(residual.residual.values), 99.5))
    high = float(np.percentile(residual.measured.values, 99.8))
    maps = sheet(
        [
            [
                Panel(shown(residual.measured.values, None, high, 0.6), "measured", pixel, 5),
                Panel(shown(residual.predicted.values, None, high, 0.6), "predicted", pixel, 5),
                Panel(signed(residual.residual.values, reach), f"difference, +-{reach:.0f} counts", pixel, 5),
            ]
        ],
        residual.message,
        10,
    )
    pictures = {"lightfield": whole, "lattice": grid, "volume": planes, "residual": maps}
    return {f"{name}_picture": save(picture, out / f"{name}.png") for name, picture in pictures.items()}


def slices(volume: xr.DataArray, name: str, points: pd.DataFrame | None = None) -> list[Any]:
    """Return panels of one volume: two planes, a section along z, and the projection along z."""
    import numpy as np

    from napari_lfm.cli._pictures import Panel, shown
    from napari_lfm.core.labelled import origin_of, spacing_of

    step, first = spacing_of(volume), origin_of(volume)
    data = np.asarray(volume.values, float)
    high = float(np.percentile(data, 99.8))
    lateral, axial = (step["y"], step["x"]), (step["z"], step["x"])
    marks: list[tuple[float, float]] = []
    if points is not None:
        marks = [
            ((p.y_um - first["y"]) / step["y"], (p.x_um - first["x"]) / step["x"])
            for p in points.itertuples()
        ]
    out = []
    for z in (-2.0, 2.0):
        plane = np.asarray(volume.sel(z=z, method="nearest").values, float)
        out.append(Panel(shown(plane, 0, high, 0.7), f"{name}, z = {z:+g} um", lateral, 5))
    out.append(Panel(shown(data.max(0), 0, high, 0.7), f"{name}, brightest along z", lateral, 5, marks))
    section = data[:, data.shape[1] // 2]
    out.append(Panel(shown(section, 0, high, 0.7), f"{name}, section x z", axial, 5))
    return out
