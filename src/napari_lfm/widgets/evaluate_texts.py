"""What the *Evaluate* panel says about an evaluation, as rich text. No Qt."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from napari_lfm.core.evaluation_show import AT_NYQUIST, resolution_rows
from napari_lfm.widgets.fields import MICROMETRES

if TYPE_CHECKING:
    from napari_lfm.core.evaluation import Evaluation

_SCORES = (
    ("psnr_db", "PSNR", " dB"),
    ("ssim", "SSIM", ""),
    ("nrmse", "NRMSE", ""),
    ("pearson", "Pearson", ""),
)


EXPLAINED = (
    "<b>FSC with truth</b>: finest period that image and truth share (Fourier shell correlation 0.378)."
    "<br><b>FSC, two images</b>: the same at 1/7, right where the truth is a second, equally noisy image."
    "<br><b>FSC, image split</b>: what two images like this one would agree in; for raw data only."
    "<br><b>Decorrelation</b>: finest period above the noise (Descloux et al. 2019); needs no truth."
    "<br><b>Noise floor</b>: period where the power spectrum sinks to twice the noise."
)
"""Tool tip of the table."""


def table_html(found: Evaluation) -> str:
    """Return scores, shift and resolutions as tables."""
    parts = []
    if found.scores is not None:
        head = "".join(f"<th align=right>&nbsp;{title}</th>" for _, title, _ in _SCORES)
        cells = "".join(f"<td align=right>&nbsp;{found.scores[k]:.4g}{unit}</td>" for k, _, unit in _SCORES)
        parts.append(f"<table cellspacing=3><tr>{head}</tr><tr>{cells}</tr></table>")
    if found.shift_um is not None:
        shift = ", ".join(f"{d} {s:+.3f}" for d, s in found.shift_um.items())
        parts.append(f"Aligned: the image was moved by {shift} {MICROMETRES}.<br>")
    axes = list(found.voxel_um)
    tables = (("Image", found.curves()), ("Truth", found.truth_curves()))
    rows = []
    for title, curves in tables:
        if not curves:
            continue
        head = "".join(f"<th align=right>&nbsp;&nbsp;{a}</th>" for a in axes)
        rows.append(f"<tr><th align=left>{title}</th>{head}</tr>")
        for name, cells_of in resolution_rows(curves):
            cells = "".join(f"<td align=right>&nbsp;&nbsp;{cells_of[a]}</td>" for a in axes)
            rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    if rows:
        parts.append(f"<b>Resolution ({MICROMETRES})</b><table cellspacing=3>{''.join(rows)}</table>")
        if AT_NYQUIST in "".join(rows):
            parts.append(f"{AT_NYQUIST} two voxels: it may be finer, the sampling does not tell.")
    return "".join(parts)


def notes_html(found: Evaluation) -> str:
    """Return how far to believe it."""
    return "<br>".join(map(html.escape, found.notes))
