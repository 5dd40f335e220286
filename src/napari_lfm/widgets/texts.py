"""Sentences and numbers for the window: pure functions from plain data to words."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.words import duration
from napari_lfm.widgets.fields import MICROMETRES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr

    from napari_lfm.core.problems import Estimate, Problem
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.methods.base import Request
    from napari_lfm.optics.microscope import Microscope

# readable on napari's dark and light themes
_COLOURS = {"error": "#e05a4e", "warning": "#d09000", "info": "#3d9be0", "good": "#3fa860"}
_SIGNS = {"error": "\N{BALLOT X}", "warning": "\N{WARNING SIGN}", "info": "\N{INFORMATION SOURCE}"}
_DEVICES = {"cpu": "the processor", "cuda": "the NVIDIA graphics card", "mps": "Apple graphics"}
_TIMES = "\N{MULTIPLICATION SIGN}"


def coloured(text: str, kind: str) -> str:
    """Return rich text in the colour of ``error``, ``warning``, ``info`` or ``good``."""
    return f'<span style="color:{_COLOURS[kind]}">{text}</span>'


def problems_html(problems: Iterable[Problem]) -> str:
    """Return problems as rich text, the worst first."""
    order = {"error": 0, "warning": 1, "info": 2}
    lines = []
    for p in sorted(problems, key=lambda p: order[p.severity]):
        sign = coloured(_SIGNS[p.severity], p.severity)
        message = html.escape(p.message)
        if p.severity == "error":
            message = f"<b>{message}</b>"
        lines.append(f"{sign} {message} {html.escape(p.remedy)}".strip())
    return "<br>".join(lines)


def size(n_bytes: float) -> str:
    """Return an amount of memory in MB or GB.

    Examples
    --------
    >>> size(25e6), size(3.2e9)
    ('25 MB', '3.2 GB')
    """
    if n_bytes < 1e9:
        return f"{max(1.0, n_bytes / 1e6):.0f} MB"
    return f"{n_bytes / 1e9:.1f} GB"


def microscope_line(m: Microscope) -> str:
    """Return the optics in one or two lines."""
    parts = [f"{m.objective.magnification:g}{_TIMES}/{m.objective.na:g}"]
    if m.lenslets is not None:
        parts.append(
            f"lenslets {m.lenslets.pitch_um:g} {MICROMETRES}, f {m.lenslets.focal_length_um:g} {MICROMETRES}"
        )
    parts.append(f"camera pixel {m.camera.effective_pixel_um:g} {MICROMETRES}")
    parts.append(f"{1000 * m.wavelength_um:.0f} nm")
    parts.append(f"sample index {m.sample_index:g}")
    line = ", ".join(parts) + "."
    if m.nominal_pitch_px is not None and m.lenslet_um is not None:
        line += (
            f" Expect {m.nominal_pitch_px:.2f} pixels per lenslet; one lenslet covers "
            f"{m.lenslet_um:.2f} {MICROMETRES} of the sample."
        )
    return line


def lattice_html(lattice: Lattice) -> str:
    """Return what calibration found, as rich text."""
    py, px = lattice.pitch_px
    if lattice.confidence >= 0.8:
        trust = coloured("trustworthy", "good")
    elif lattice.confidence >= 0.5:
        trust = coloured("doubtful, look at the overlay", "warning")
    else:
        trust = coloured("do not trust it", "error")
    shape = "" if lattice.kind == "square" else " (hexagonal)"
    where = {"white": "the white frame", "raw": "the light field itself"}.get(lattice.source, "hand")
    return (
        f"<b>{lattice.rows} {_TIMES} {lattice.columns} lenslets</b>{shape}, found from {where}<br>"
        f"pitch {py:.2f} {_TIMES} {px:.2f} px, rotation {lattice.rotation_deg:+.2f}\N{DEGREE SIGN}<br>"
        f"residual {lattice.residual_px:.2f} px rms<br>"
        f"confidence {lattice.confidence:.0%}: {trust}"
    )


def shape_text(image: xr.DataArray) -> str:
    """Return dims, sizes and spacing of a labelled image in words."""
    sizes = f" {_TIMES} ".join(f"{n}" for n in image.shape)
    spacing = spacing_of(image)
    dims = ", ".join(map(str, image.dims))
    units = {d: spacing[d] for d in ("z", "y", "x") if d in spacing}
    steps = f" {_TIMES} ".join(f"{v:.3g}" for v in units.values())
    return f"{sizes} ({dims})" + (f", {steps} {MICROMETRES}" if units else "")


def understood_html(request: Request) -> str:
    """Return in plain words what will be reconstructed from what."""
    image = request.inputs["image"]
    if image.dims[-1] == "x":
        h, w = int(image.shape[-2]), int(image.shape[-1])
        what = f"one frame, {h} {_TIMES} {w} pixels"
        if "t" in image.dims:
            what = f"a movie of {image.sizes['t']} frames, {h} {_TIMES} {w} pixels each"
    else:
        what = f"views and lenslets (v, u, t, s) = {f' {_TIMES} '.join(map(str, image.shape))}"
    lines = [f"<b>Light field:</b> {html.escape(str(image.name))}, {what}"]
    frames = [
        (
            f"{title} <i>{html.escape(str(request.inputs[role].name))}</i>"
            if role in request.inputs
            else f"no {title}"
        )
        for role, title in (("white", "white frame"), ("dark", "dark frame"))
    ]
    lines.append(f"<b>Corrected with:</b> {', '.join(frames)}")
    if request.microscope is not None:
        lines.append(f"<b>Microscope:</b> {html.escape(request.microscope.name)}")
    if request.lattice is not None:
        py, px = request.lattice.pitch_px
        lines.append(
            f"<b>Lenslets:</b> {request.lattice.rows} {_TIMES} {request.lattice.columns}, "
            f"{(py + px) / 2:.2f} px apart"
        )
    else:
        how = "from the white frame" if "white" in request.inputs else "from the image itself"
        lines.append(f"<b>Lenslets:</b> will be found {how}")
    if request.region_px is not None:
        y0, x0, y1, x1 = request.region_px
        lines.append(f"<b>Region:</b> {y1 - y0} {_TIMES} {x1 - x0} pixels, from row {y0}, column {x0}")
    return "<br>".join(lines)


def about(seconds: float) -> str:
    """Return an estimated time in words.

    Examples
    --------
    >>> about(0.2), about(7)
    ('less than 1 s', 'about 7 s')
    """
    text = duration(seconds)
    return text if text.startswith("less") else f"about {text}"


def estimate_html(estimate: Estimate, device: str) -> str:
    """Return output size, memory and time in plain words."""
    shape = f" {_TIMES} ".join(map(str, estimate.output_shape))
    lines = [
        f"<b>You get:</b> {shape} voxels ({', '.join(estimate.output_dims)})",
        f"<b>It takes:</b> {about(estimate.seconds)} and {size(estimate.peak_bytes)} of memory"
        f" on {_DEVICES.get(device.partition(':')[0], html.escape(device))}",
    ]
    lines += [html.escape(note) for note in estimate.notes]
    return "<br>".join(lines)


def residual_words(value: float) -> str:
    """Return how far the prediction is from the measurement, as one sentence."""
    share = f"{100 * value:.1f} %"
    if not math.isfinite(value):
        return "The prediction could not be compared with the measurement."
    if value < 0.1:
        verdict = "the volume explains the measurement about as well as the camera's noise allows"
    elif value < 0.2:
        verdict = "the volume explains the measurement well"
    elif value < 0.4:
        verdict = "the volume explains the measurement in part; look where the residual layer is bright"
    else:
        verdict = "do not trust the volume: check microscope, lenslets and depth range"
    return f"Relative residual {share}: {verdict}."


def outcome_words(status: str, steps: int) -> str:
    """Return what a run leaves behind."""
    if status == "stopped":
        return (
            f"The volume after {steps} iterations is kept; Continue goes on from it."
            if steps
            else "There was no volume yet."
        )
    return f"{steps} iterations." if steps else ""


def figures_html(seconds: float, steps: int, residuals: Sequence[float]) -> str:
    """Return what was measured during a run."""
    lines = [f"Whole run: {seconds:.2f} s"]
    if steps:
        lines.append(f"Iterations: {steps}, on average {1000 * seconds / steps:.0f} ms each with preparation")
    if residuals:
        lines.append(f"Residual: {residuals[0]:.4f} at first, {residuals[-1]:.4f} at the end")
    return "<br>".join(lines)
