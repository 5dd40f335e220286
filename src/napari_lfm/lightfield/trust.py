"""How far a calibration can be trusted: a figure from 0 to 1, and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.lightfield.cells import (
    PATCH_POINTS,
    PATCH_SPAN,
    centre_of_symmetry,
    patches,
    point_px,
    typical_patch,
)

if TYPE_CHECKING:
    from napari_lfm.lightfield.fit import Fit


@dataclass(frozen=True)
class Evidence:
    """What a calibration showed about itself.

    Attributes
    ----------
    source : str
        ``"white"`` or ``"raw"``.
    contrast : float
        Lattice peaks over the spectrum around them.
    symmetry : float
        Likeness of the typical lenslet and itself turned about its centre, at most 1.
    used : float
        Fraction of lenslets that the fit used.
    residual_px, pitch_px : float
        rms residual of those, and the pitch.
    centre_error_px : float
        Standard error of a fitted centre at the corners of the field.
    offset_spread_px : float
        Disagreement of the quarters of the field about the centre (blind only).
    bend_px : float
        rms of the smooth part of the residuals; 0 where they have no structure.
    bend_fitted : bool
        True if that part is in the lattice as distortion.
    drift_px : float
        Outward lean of the light in the discs at the edge of the field (white only).
    saturated : float
        Fraction of saturated pixels of the raw frame.
    origin_margin : float
        How much more alike the typical lenslet is, turned, than a bridge or hole between lenslets.
    raw_shift_px : float
        Shift of the raw frame's lenslets against the white frame's (where both are given).
    """

    source: str
    contrast: float
    symmetry: float
    used: float
    residual_px: float
    pitch_px: float
    centre_error_px: float
    offset_spread_px: float
    bend_px: float
    bend_fitted: bool
    drift_px: float
    saturated: float
    raw_shift_px: float = 0.0
    origin_margin: float = 1.0


def judge(evidence: Evidence) -> tuple[float, list[str]]:
    """Return a confidence from 0 (do not trust) to 1, and what to know, in plain sentences.

    The confidence is the product of what each figure allows, each falling linearly from 1 (as good
    as a clean white frame) to 0 (useless).
    """
    e = evidence
    unfitted = 0.0 if e.bend_fitted else e.bend_px
    centre = (e.centre_error_px**2 + e.offset_spread_px**2 + unfitted**2) ** 0.5
    allowed = {
        "contrast": _ramp(e.contrast, 6, 20),
        "symmetry": _ramp(e.symmetry, 0.6, 0.9),
        "origin": _ramp(e.origin_margin, 0.05, 0.25),
        "used": _ramp(e.used, 0.1, 0.5),
        "residual": _ramp(e.residual_px / e.pitch_px, 0.12, 0.05),
        # an offset of one tenth of a lenslet is one tenth of the whole range of angles
        "centre": _ramp(centre / e.pitch_px, 0.1, 0.01),
    }
    confidence = 1.0
    for value in allowed.values():
        confidence *= value
    mend = "record a white frame" if e.source == "raw" else "check the white frame"
    texts = {
        "contrast": f"The lenslet pattern is weak: {mend}, or check the grid over the image.",
        "symmetry": f"The lenslets do not look symmetric, so their centres are uncertain: {mend}.",
        "origin": "The lenslets can hardly be told from the places between them, so the centres may be "
        f"off by half a pitch: {mend}, and check the grid over the image.",
        "used": f"Only {100 * e.used:.0f} % of the lenslets could be used: {mend}.",
        "residual": f"The lenslets are {e.residual_px:.1f} px rms from the fitted grid: {mend}.",
        "centre": f"The lenslet centres are uncertain by about {centre:.1f} px: {mend}, or adjust by hand.",
    }
    warnings = [texts[name] for name, value in allowed.items() if value < 0.7]
    if e.bend_px and e.bend_fitted:
        warnings.append(f"The lattice is smoothly distorted by {e.bend_px:.1f} px rms; this is in the fit.")
    elif e.bend_px:
        warnings.append(
            f"The residuals are structured ({e.bend_px:.1f} px rms): switch on the distortion term."
        )
    if abs(e.drift_px) > 0.025 * e.pitch_px:
        warnings.append(
            f"The light in the discs shifts by {e.drift_px:.1f} px from the middle to the edge of the field: "
            "the relay is not telecentric, or it vignettes."
        )
    if e.raw_shift_px > 0.5:
        warnings.append(
            f"The light field's lenslets are shifted by {e.raw_shift_px:.1f} px against the white frame's: "
            "something moved in between; calibrating on the raw frame alone may fit better."
        )
    if e.saturated > 0.01:
        warnings.append(f"{100 * e.saturated:.0f} % of the raw pixels are saturated.")
    return confidence, warnings


def smooth_part(plain: Fit, bent: Fit) -> tuple[float, float]:
    """Return the part of the residual variance that a smooth distortion explains, and its rms in px."""
    both = (plain.weight > 0) & (bent.weight > 0)
    if both.sum() < 30 or bent.geometry.distortion is None:
        return 0.0, 0.0
    before, after = (float((f.residual[both] ** 2).sum()) for f in (plain, bent))
    free = 1 - 7 / both.sum()
    moved = plain.residual[both] - bent.residual[both]
    return 1 - after / (before * free + 1e-12), float(np.sqrt((moved**2).sum(axis=1).mean()))


def error_inflation(fit: Fit, index: np.ndarray) -> float:
    """Return by how much the fit's standard errors grow because neighbouring residuals are alike.

    A specimen shifts whole groups of lenslets the same way; then n of them are not n measurements.
    Compares means over blocks of 4 x 4 lenslets with what independent residuals would give.
    """
    used = fit.weight > 0
    if used.sum() < 64:
        return 1.0
    residual, weight = fit.residual[used], fit.weight[used]
    block = (index[used] // 4) @ [10_000, 1]
    _, member = np.unique(block, return_inverse=True)
    total = np.bincount(member, weight)
    means = np.stack([np.bincount(member, weight * r) for r in residual.T], axis=1) / total[:, None]
    effective = total**2 / np.bincount(member, weight**2)
    single = (weight[:, None] * residual**2).sum() / weight.sum()
    ratio = float((effective[:, None] * means**2).sum() / len(total) / max(float(single), 1e-12))
    return float(np.sqrt(max(1.0, ratio)))


def offset_spread(stack: np.ndarray, index: np.ndarray, pitch: float) -> float:
    """Return how far the centres that the four quarters of the field give by themselves lie apart, px."""
    down, right = (index > index.max(axis=0) / 2).T
    found = [
        centre_of_symmetry(typical_patch(stack[part]))[0]
        for part in (down & right, down & ~right, ~down & right, ~down & ~right)
    ]
    return float(np.sqrt(np.var(found, axis=0).sum()) * point_px(pitch))


def light_drift(frame: np.ndarray, centres: np.ndarray, pitch: float) -> float:
    """Return how far the light inside the discs moves outwards from the middle to the edge, px.

    The discs' borders are fitted already; where the light inside leans outwards with field position,
    the relay is not telecentric, or it vignettes.
    """
    stack = np.nan_to_num(patches(frame - np.percentile(frame, 1), centres, pitch))
    grid = np.linspace(-PATCH_SPAN / 2, PATCH_SPAN / 2, PATCH_POINTS) * pitch
    disc = np.hypot(*np.meshgrid(grid, grid, indexing="ij")) <= 0.5 * pitch
    total = np.maximum((stack * disc).sum(axis=(1, 2)), 1e-12)
    lean = (
        np.stack([(stack * disc).sum(axis=2) @ grid, (stack * disc).sum(axis=1) @ grid], 1) / total[:, None]
    )
    field = centres - centres.mean(axis=0)
    slope = float(((lean - np.median(lean, axis=0)) * field).sum() / max((field**2).sum(), 1e-12))
    return slope * float(np.abs(field).max())


def _ramp(value: float, zero: float, one: float) -> float:
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
