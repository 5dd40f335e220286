"""How far a calibration can be trusted: a figure from 0 to 1, and sentences."""

from __future__ import annotations

from dataclasses import dataclass


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


def judge(evidence: Evidence) -> tuple[float, list[str]]:
    """Return a confidence from 0 (do not trust) to 1, and what to know, in plain sentences.

    The confidence is the product of what each figure allows, each falling linearly from 1 (as good
    as a clean white frame) to 0 (useless).
    """
    e = evidence
    centre = (e.centre_error_px**2 + e.offset_spread_px**2) ** 0.5
    allowed = {
        "contrast": _ramp(e.contrast, 6, 20),
        "symmetry": _ramp(e.symmetry, 0.6, 0.9),
        "used": _ramp(e.used, 0.1, 0.5),
        "residual": _ramp(e.residual_px / e.pitch_px, 0.12, 0.05),
        # an offset of one tenth of a lenslet is one tenth of the whole range of angles
        "centre": _ramp(centre / e.pitch_px, 0.1, 0.03),
    }
    confidence = 1.0
    for value in allowed.values():
        confidence *= value
    mend = "record a white frame" if e.source == "raw" else "check the white frame"
    texts = {
        "contrast": f"The lenslet pattern is weak: {mend}, or check the grid over the image.",
        "symmetry": f"The lenslets do not look symmetric, so their centres are uncertain: {mend}.",
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
    if abs(e.drift_px) > 0.05 * e.pitch_px:
        warnings.append(
            f"The light in the discs shifts by {e.drift_px:.1f} px from the middle to the edge of the field: "
            "the relay is not telecentric, or it vignettes."
        )
    if e.saturated > 0.01:
        warnings.append(f"{100 * e.saturated:.0f} % of the raw pixels are saturated.")
    return confidence, warnings


def _ramp(value: float, zero: float, one: float) -> float:
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
