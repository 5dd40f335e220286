"""An evaluation as charts, as a table, and as files."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from napari_lfm.core.charts import Chart, Line, to_csv, to_svg
from napari_lfm.core.evaluation import MEASURES
from napari_lfm.core.metrics import SCORES
from napari_lfm.core.shell_correlation import AGAINST_TRUTH, ONE_SEVENTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_lfm.core.axis_curves import AxisCurve
    from napari_lfm.core.evaluation import Evaluation
    from napari_lfm.core.line_profile import LineProfile

COLOURS = {"z": "#e8871e", "y": "#3fa860", "x": "#3d9be0"}
"""Told apart on dark and light ground, and by most colour-blind eyes."""

PROFILE_COLOUR, TRUTH_COLOUR = "#3d9be0", "#e8871e"
MICROMETRES = "\N{GREEK SMALL LETTER MU}m"
LEAST_R2 = 0.8  # of a profile that is a Gaussian
AT_NYQUIST = "*"
"""Marks a resolution that the voxels limit."""

_FREQUENCY = f"spatial frequency (1/{MICROMETRES})"


def charts_of(found: Evaluation) -> list[Chart]:
    """Return the charts that an evaluation has curves for."""
    out = []
    if found.pair is not None:
        levels = ((AGAINST_TRUTH, "0.378"), (ONE_SEVENTH, "1/7"))
        out.append(
            _correlation("fsc-truth", "Fourier shell correlation with the truth", found.pair.curves, levels)
        )
    if found.own is not None:
        one = found.own
        out.append(
            _correlation(
                "fsc-single",
                "Fourier shell correlation of the image with itself",
                one.single.curves,
                ((one.single.threshold, "1/7"),),
            )
        )
        truth = None if found.truth_own is None else found.truth_own.spectra
        lines = _lines(one.spectra.curves)
        if truth is not None:
            lines += _lines(truth.curves, "truth, ", dashed=True)
        title = "Power spectra" + ("" if truth is None else " (dashed: truth)")
        out.append(
            Chart(
                "spectra",
                title,
                _FREQUENCY,
                "power (relative)",
                tuple(lines),
                ((one.spectra.floor, "noise"),),
                log_y=True,
            )
        )
        out.append(
            Chart(
                "decorrelation",
                "Decorrelation, at the farthest peak",
                _FREQUENCY,
                "correlation",
                tuple(_lines(one.decorrelation.curves)),
            )
        )
    if found.profile is not None:
        lines = _profile_lines(found.profile, "image", PROFILE_COLOUR)
        if found.truth_profile is not None:
            lines += _profile_lines(found.truth_profile, "truth", TRUTH_COLOUR)
        label = f"distance from the first point ({MICROMETRES})"
        out.append(Chart("profile", "Profile along the line", label, "intensity", tuple(lines)))
    return out


def write_charts(found: Evaluation, folder: Path) -> list[Path]:
    """Write every chart as SVG, and its curves as CSV; returns the files.

    Raises
    ------
    LfmError, OSError
        If they cannot be written; an older file is replaced only when its successor is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for chart in charts_of(found):
        for suffix, text in ((".svg", to_svg(chart)), (".csv", to_csv(chart))):
            path = folder / f"{chart.key}{suffix}"
            out.append(_write(path, text))
    out.append(_write(folder / "measures.csv", measures_csv(found)))
    return out


def measures_csv(found: Evaluation) -> str:
    """Return every figure as a table: measure, unit, and a column for each axis or one for all."""
    axes = list(found.voxel_um)
    table: list[list[object]] = [["image", "measure", "unit", *axes, "all axes"]]
    blank = [""] * len(axes)
    for key in SCORES if found.scores is not None else ():
        assert found.scores is not None
        table.append(["image", key, "dB" if key == "psnr_db" else "", *blank, f"{found.scores[key]:.6g}"])
    if found.shift_um is not None:
        table.append(
            ["image", "shift to the truth", "um", *(f"{s:.4g}" for s in found.shift_um.values()), ""]
        )
    for name, curves in (("image", found.curves()), ("truth", found.truth_curves())):
        for title, cells in resolution_rows(curves):
            table.append([name, f"resolution: {title}", "um", *(cells[a] for a in axes), ""])
    for name, one in (("image", found.profile), ("truth", found.truth_profile)):
        for title, width in (
            ("FWHM, Gaussian fit", one and one.fwhm_gauss_um),
            ("FWHM, half-maximum crossing", one and one.fwhm_crossing_um),
        ):
            if width is not None:
                table.append([name, title, "um", *blank, f"{width:.4g}"])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue()


def _write(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def resolution_rows(curves: Mapping[str, Sequence[AxisCurve]]) -> list[tuple[str, dict[str, str]]]:
    """Return for every measure its title and the resolution along every axis, as people read it.

    ``*`` marks what the voxels limit, ``-`` what is not resolved.
    """
    return [
        # of a plane it is rings that are correlated
        (
            MEASURES[key].replace("FSC", "FSC" if len(found) > 2 else "FRC"),
            {c.axis: resolution_text(c) for c in found},
        )
        for key, found in curves.items()
    ]


def resolution_text(curve: AxisCurve) -> str:
    """Return a resolution in micrometres, three digits."""
    if curve.resolution_um is None:
        return "-"
    return f"{curve.resolution_um:.3g}{AT_NYQUIST if curve.at_nyquist else ''}"


def as_text(found: Evaluation) -> str:
    """Return the table of resolutions, the widths of the profile and the notes as plain text."""
    lines: list[str] = []
    if found.shift_um is not None:
        shift = ", ".join(f"{d} {s:+.3f}" for d, s in found.shift_um.items())
        lines.append(f"Aligned: moved by {shift} um.")
    axes = list(found.voxel_um)
    marked = False
    for title, curves in (("resolution_um", found.curves()), ("resolution_um, truth", found.truth_curves())):
        if not curves:
            continue
        lines.append(f"{title:<40}" + "".join(f"{a:>10}" for a in axes))
        for name, cells in resolution_rows(curves):
            lines.append(f"{name:<40}" + "".join(f"{cells[a]:>10}" for a in axes))
            marked = marked or any(c.endswith(AT_NYQUIST) for c in cells.values())
    for name, profile in (("profile", found.profile), ("profile, truth", found.truth_profile)):
        if profile is not None:
            lines.append(f"{name:<16}{width_text(profile, 'um')}")
    if marked:
        lines.append(f"{AT_NYQUIST} two voxels: it may be finer, the sampling does not tell.")
    return "\n".join([*lines, *(f"Note: {n}" for n in found.notes)])


def width_text(profile: LineProfile, unit: str = MICROMETRES) -> str:
    """Return the widths of a profile in words."""
    parts = []
    if profile.fwhm_gauss_um is not None and profile.fit_r2 is not None:
        doubt = "" if profile.fit_r2 >= LEAST_R2 else ": no Gaussian, do not trust it"
        parts.append(
            f"FWHM {profile.fwhm_gauss_um:.3g} {unit} (Gaussian fit, r2 {profile.fit_r2:.2f}{doubt})"
        )
    if profile.fwhm_crossing_um is not None:
        parts.append(f"{profile.fwhm_crossing_um:.3g} {unit} (half-maximum crossing)")
    return ", ".join(parts) or "no peak that falls to half of its height on both sides"


def _correlation(
    key: str, title: str, curves: Sequence[AxisCurve], levels: tuple[tuple[float, str], ...]
) -> Chart:
    return Chart(
        key,
        title if len(curves) > 2 else title.replace("shell", "ring"),
        _FREQUENCY,
        "correlation",
        tuple(_lines(curves)),
        levels,
        y_range=(-0.2, 1.05),
    )


def _lines(curves: Sequence[AxisCurve], prefix: str = "", dashed: bool = False) -> list[Line]:
    out = []
    for c in curves:
        text = resolution_text(c)
        name = f"{prefix}{c.axis}: " + ("not resolved" if text == "-" else f"{text} {MICROMETRES}")
        mark = None if dashed or c.at_nyquist else c.cutoff_per_um
        out.append(Line(name, c.frequency_per_um, c.values, COLOURS[c.axis], dashed, mark))
    return out


def _profile_lines(profile: LineProfile, name: str, colour: str) -> list[Line]:
    lines = [Line(name, profile.distance_um, profile.values, colour)]
    good = profile.fit_r2 is not None and profile.fit_r2 >= LEAST_R2
    if good and profile.fit is not None and profile.fwhm_gauss_um is not None:
        text = f"{name}, fit: FWHM {profile.fwhm_gauss_um:.3g} {MICROMETRES}"
        lines.append(Line(text, profile.distance_um, profile.fit, colour, dashed=True))
    return lines
