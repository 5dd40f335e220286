"""Finding the lenslet lattice: from a white frame, or blind from the raw light field alone.

Both ways are the same: the spectrum gives pitch, rotation and a rough centre; the typical lenslet
(the median over all) gives the true centre by its symmetry; every lenslet is then compared with the
typical one, and two lattice vectors and an offset are fitted to where they were found, robustly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.cells import (
    Shifts,
    centre_of_symmetry,
    measure_shifts,
    patches,
    point_px,
    typical_patch,
)
from napari_lfm.lightfield.fit import Fit, Geometry, fit_geometry
from napari_lfm.lightfield.light import checked_frame, dark_gaps, log_light, saturated_fraction
from napari_lfm.lightfield.origin import FEW, at_six_fold, some_lenslets, widened
from napari_lfm.lightfield.pitch import check_pitch, pixels_per_lenslet
from napari_lfm.lightfield.refuse import refuse_crooked, refuse_few, refuse_small
from napari_lfm.lightfield.spectrum import Kind, SpectralGuess, find_lattice
from napari_lfm.lightfield.trust import (
    Evidence,
    error_inflation,
    judge,
    light_drift,
    offset_spread,
    smooth_part,
)
from napari_lfm.lightfield.white import check_white, refuse_white

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

__all__ = ["calibrate", "check_pitch", "pixels_per_lenslet", "residual_map"]

MIN_CONTRAST = 5.0
"""Lattice peaks below this times the spectrum around them may be chance."""
_ITERATIONS = 3
_MAX_MEASURED = 2500


@dataclass(frozen=True)
class _Measured:
    """One look at the whole lenslets of a geometry."""

    lattice: Lattice
    index: np.ndarray
    centres: np.ndarray
    stack: np.ndarray
    shifts: Shifts
    offset: np.ndarray
    symmetry: float


def calibrate(
    raw: Any = None,
    white: Any = None,
    dark: Any = None,
    microscope: Microscope | None = None,
    kind: Kind | None = None,
    distortion: bool = False,
) -> Lattice:
    """Find the lenslet lattice in a white frame, or else in the raw light field itself.

    Parameters
    ----------
    raw : array, shape (y, x) or (t, y, x), optional
        Raw light field; used alone where there is no white frame. A movie is averaged.
    white : array, shape (y, x), optional
        Frame of an even, bright field. Preferred.
    dark : array, shape (y, x), optional
        Frame without light, subtracted.
    microscope : Microscope, optional
        Says which lattice and pitch to expect; the search is not limited to them.
    kind : {"square", "hexagonal"}, optional
        Only look for this lattice. None: the microscope's, else whichever fits.
    distortion : bool
        Fit a smooth distortion too where the residuals are structured.

    Returns
    -------
    Lattice
        All whole lenslets inside the frame. ``residual_px`` is the rms over those that were used;
        ``confidence`` and ``warnings`` say how far to trust it.

    Raises
    ------
    RequestError
        If an image cannot be used, no lattice is found, or there are fewer than 5 x 5 lenslets.
    """
    if raw is None and white is None:
        raise RequestError("There is nothing to calibrate on.", "Give a raw light field or a white frame.")
    frame, source = _frame(raw, white, dark)
    nominal = None if microscope is None else microscope.nominal_pitch_px
    if kind is None and microscope is not None and microscope.lenslets is not None:
        kind = microscope.lenslets.lattice
    refuse_small(frame.shape, nominal)
    doubts = [] if white is None else check_white(raw, white, dark, nominal)
    refuse_white(doubts)

    light = log_light(frame)
    guess = _guess(light, kind, nominal, source)
    geometry = Geometry(guess.kind, guess.origin, guess.row_step, guess.column_step, frame.shape)
    if source == "raw":
        light = dark_gaps(light, geometry.pitch)
    geometry, margin = widened(light, geometry), 1.0
    if geometry.kind == "hexagonal":
        geometry, margin = at_six_fold(light, geometry)
    fit, seen = _refine(light, geometry)
    bent = fit_geometry(seen.index, seen.centres, fit.geometry, seen.shifts.error, distortion=True)
    gain, bend_px = smooth_part(fit, bent)
    # a specimen shifts neighbouring lenslets alike; only a distortion explains most of the residual
    structured = gain > (0.3 if source == "white" else 0.6) and bend_px > 0.25
    if distortion and structured:
        fit, seen = _refine(light, bent.geometry, 1, distortion=True)

    lattice = fit.geometry.whole_lenslets()
    refuse_few(lattice)
    refuse_crooked(lattice, source)
    pitch = fit.geometry.pitch
    evidence = Evidence(
        source=source,
        contrast=guess.contrast,
        symmetry=seen.symmetry,
        origin_margin=margin,
        used=float((fit.weight > 0).mean()),
        residual_px=fit.rms,
        pitch_px=pitch,
        centre_error_px=fit.centre_error * error_inflation(fit, seen.index),
        offset_spread_px=offset_spread(seen.stack, seen.index, fit.geometry.pitch)
        if source == "raw"
        else 0.0,
        bend_px=bend_px if structured else 0.0,
        bend_fitted=fit.geometry.distortion is not None,
        drift_px=light_drift(frame, seen.centres, pitch) if source == "white" else 0.0,
        saturated=0.0 if raw is None else saturated_fraction(raw),
        raw_shift_px=_raw_shift(raw, dark, lattice) if source == "white" and raw is not None else 0.0,
    )
    confidence, warnings = judge(evidence)
    return lattice.model_copy(
        update={
            "residual_px": round(fit.rms, 4),
            "confidence": round(confidence, 3),
            "source": source,
            "warnings": (*map(str, doubts), *warnings),
        }
    )


def residual_map(lattice: Lattice, image: Any, dark: Any = None) -> np.ndarray:
    """Return how far every lenslet of an image is from its place in the lattice.

    Parameters
    ----------
    lattice : Lattice
        From this or another recording, or corrected by hand.
    image : array, shape (y, x) or (t, y, x)
        White frame or raw light field.
    dark : array, shape (y, x), optional
        Subtracted first.

    Returns
    -------
    numpy.ndarray, shape (rows, columns, 2)
        Found minus fitted centre (y, x) in px; NaN where a lenslet has too little light to be found.
    """
    frame = _minus_dark(checked_frame(image, "image"), dark)
    if frame.shape != lattice.image_shape:
        raise RequestError(
            f"The image is {frame.shape[0]} x {frame.shape[1]} pixels but the lattice was found on "
            f"{lattice.image_shape[0]} x {lattice.image_shape[1]}.",
            "Calibrate on this recording.",
        )
    light = log_light(frame)
    if lattice.source != "white":
        light = dark_gaps(light, Geometry.from_lattice(lattice).pitch)
    seen = _measure(light, lattice)
    out = seen.shifts.found + seen.offset
    # nothing is known of a lenslet whose shift is less certain than a quarter of the pitch
    out[~(seen.shifts.error < 0.25 * lattice.pitch_px[1])] = np.nan
    return np.asarray(out.reshape(lattice.rows, lattice.columns, 2))


def _frame(raw: Any, white: Any, dark: Any) -> tuple[np.ndarray, str]:
    """Return the frame to calibrate on, dark subtracted, and which it is."""
    checked = None if raw is None else checked_frame(raw, "raw light field")
    if white is None:
        assert checked is not None
        return _minus_dark(checked, dark), "raw"
    bright = checked_frame(white, "white frame")
    if checked is not None and checked.shape != bright.shape:
        raise RequestError(
            f"The white frame is {bright.shape[0]} x {bright.shape[1]} pixels but the light field is "
            f"{checked.shape[0]} x {checked.shape[1]}.",
            "Record both with the same camera settings, or leave the white frame out.",
        )
    return _minus_dark(bright, dark), "white"


def _minus_dark(frame: np.ndarray, dark: Any) -> np.ndarray:
    if dark is None:
        return frame
    offset = checked_frame(dark, "dark frame", may_be_even=True)
    if offset.shape != frame.shape:
        raise RequestError(
            f"The dark frame is {offset.shape[0]} x {offset.shape[1]} pixels but the light field is "
            f"{frame.shape[0]} x {frame.shape[1]}.",
            "Record both with the same camera settings, or leave the dark frame out.",
        )
    return np.asarray(frame - offset)


def _guess(light: np.ndarray, kind: Kind | None, nominal: float | None, source: str) -> SpectralGuess:
    guess = find_lattice(light, kind, nominal)
    if guess is None or guess.contrast < MIN_CONTRAST:
        what = "white frame" if source == "white" else "raw light field"
        raise RequestError(
            f"No lenslet lattice was found in the {what}.",
            "Record a white frame (an even, bright field) through the lenslets."
            if source == "raw"
            else "Check that it was recorded through the lenslet array.",
        )
    return guess


def _measure(light: np.ndarray, lattice: Lattice, most: int | None = None) -> _Measured:
    """Compare the lenslets of a lattice (at most `most` of them, anywhere) with the typical one."""
    geometry = Geometry.from_lattice(lattice)
    index = some_lenslets(lattice, most)
    expected = geometry.place(index)
    stack = patches(light, expected, geometry.pitch)
    template = typical_patch(stack)
    offset, symmetry = centre_of_symmetry(template)
    offset = offset * point_px(geometry.pitch)
    shifts = measure_shifts(stack, template, geometry.pitch)
    return _Measured(lattice, index, expected + shifts.found + offset, stack, shifts, offset, symmetry)


def _refine(
    light: np.ndarray, geometry: Geometry, iterations: int = _ITERATIONS, *, distortion: bool = False
) -> tuple[Fit, _Measured]:
    """Measure and fit in turn, so that lenslets far from the middle come within reach."""
    for _ in range(iterations):
        lattice = geometry.whole_lenslets()
        refuse_few(lattice)
        seen = _measure(light, lattice, _MAX_MEASURED)
        start = Geometry.from_lattice(lattice)
        fit = fit_geometry(seen.index, seen.centres, start, seen.shifts.error, distortion=distortion)
        geometry = fit.geometry
    return fit, seen


def _raw_shift(raw: Any, dark: Any, lattice: Lattice) -> float:
    """Return how far the light field's lenslets stand from those of the white frame, px; 0 if unclear."""
    light = log_light(_minus_dark(checked_frame(raw, "raw light field"), dark))
    seen = _measure(dark_gaps(light, Geometry.from_lattice(lattice).pitch), lattice, FEW)
    good = seen.shifts.error < 0.1 * lattice.pitch_px[1]
    if good.mean() < 0.5:
        return 0.0
    return float(np.hypot(*(seen.offset + np.median(seen.shifts.found[good], axis=0))))
