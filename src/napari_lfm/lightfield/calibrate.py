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
    PATCH_POINTS,
    PATCH_SPAN,
    Shifts,
    centre_of_symmetry,
    measure_shifts,
    patches,
    typical_patch,
)
from napari_lfm.lightfield.fit import Fit, Geometry, fit_geometry
from napari_lfm.lightfield.light import check_white, checked_frame, dark_gaps, log_light, saturated_fraction
from napari_lfm.lightfield.pitch import check_pitch, pixels_per_lenslet
from napari_lfm.lightfield.spectrum import MIN_LENSLETS, Kind, SpectralGuess, find_lattice
from napari_lfm.lightfield.trust import Evidence, judge

if TYPE_CHECKING:
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

__all__ = ["calibrate", "check_pitch", "pixels_per_lenslet", "residual_map"]

MIN_CONTRAST = 6.0
"""Lattice peaks below this times the spectrum around them may be chance."""
_ITERATIONS = 3


@dataclass(frozen=True)
class _Measured:
    """One look at all whole lenslets of a geometry."""

    lattice: Lattice
    index: np.ndarray
    stack: np.ndarray
    shifts: Shifts
    offset: np.ndarray
    symmetry: float

    @property
    def centres(self) -> np.ndarray:
        """Centres found, shape (n, 2)."""
        placed: np.ndarray = self.lattice.centres_px().reshape(-1, 2)
        return np.asarray(placed + self.shifts.found + self.offset)


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
    _refuse_small(frame.shape, nominal)

    light = log_light(frame)
    guess = _guess(light, kind, nominal, source)
    geometry = Geometry(guess.kind, guess.origin, guess.row_step, guess.column_step, frame.shape)
    if source == "raw":
        light = dark_gaps(light, geometry.pitch)
    fit, seen = _refine(light, geometry)
    bent = fit_geometry(seen.index, seen.centres, fit.geometry, seen.shifts.error, distortion=True)
    gain, bend_px = _structure(fit, bent)
    structured = gain > 0.3 and bend_px > 0.25
    if distortion and structured:
        fit, seen = _refine(light, bent.geometry, 1, distortion=True)

    lattice = fit.geometry.whole_lenslets()
    _refuse_few(lattice)
    evidence = Evidence(
        source=source,
        contrast=guess.contrast,
        symmetry=seen.symmetry,
        used=float((fit.weight > 0).mean()),
        residual_px=fit.rms,
        pitch_px=fit.geometry.pitch,
        centre_error_px=fit.centre_error,
        offset_spread_px=_offset_spread(seen) if source == "raw" else 0.0,
        bend_px=bend_px if structured else 0.0,
        bend_fitted=fit.geometry.distortion is not None,
        drift_px=_centroid_drift(frame, seen) if source == "white" else 0.0,
        saturated=saturated_fraction(raw) if source == "raw" else 0.0,
    )
    confidence, warnings = judge(evidence)
    return lattice.model_copy(
        update={
            "residual_px": round(fit.rms, 4),
            "confidence": round(confidence, 3),
            "source": source,
            "warnings": tuple(warnings),
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
    check_white(white)
    return _minus_dark(bright, dark), "white"


def _minus_dark(frame: np.ndarray, dark: Any) -> np.ndarray:
    if dark is None:
        return frame
    offset = checked_frame(dark, "dark frame")
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


def _measure(light: np.ndarray, lattice: Lattice, template: np.ndarray | None = None) -> _Measured:
    geometry = Geometry.from_lattice(lattice)
    index = np.moveaxis(np.mgrid[: lattice.rows, : lattice.columns], 0, -1).reshape(-1, 2)
    stack = patches(light, geometry.place(index), geometry.pitch)
    template = typical_patch(stack) if template is None else template
    offset, symmetry = centre_of_symmetry(template)
    shifts = measure_shifts(stack, template, geometry.pitch)
    return _Measured(lattice, index, stack, shifts, offset * _point_px(geometry.pitch), symmetry)


def _refine(
    light: np.ndarray, geometry: Geometry, iterations: int = _ITERATIONS, *, distortion: bool = False
) -> tuple[Fit, _Measured]:
    """Measure and fit in turn, so that lenslets far from the middle come within reach."""
    for _ in range(iterations):
        lattice = geometry.whole_lenslets()
        _refuse_few(lattice)
        seen = _measure(light, lattice)
        start = Geometry.from_lattice(lattice)
        fit = fit_geometry(seen.index, seen.centres, start, seen.shifts.error, distortion=distortion)
        geometry = fit.geometry
    return fit, seen


def _structure(plain: Fit, bent: Fit) -> tuple[float, float]:
    """Return the part of the residual variance that a smooth distortion explains, and its rms in px."""
    both = (plain.weight > 0) & (bent.weight > 0)
    if both.sum() < 30 or bent.geometry.distortion is None:
        return 0.0, 0.0
    before, after = (float((f.residual[both] ** 2).sum()) for f in (plain, bent))
    free = 1 - 7 / both.sum()
    moved = plain.residual[both] - bent.residual[both]
    return 1 - after / (before * free + 1e-12), float(np.sqrt((moved**2).sum(axis=1).mean()))


def _offset_spread(seen: _Measured) -> float:
    """Return how far the centres that the four quarters of the field give by themselves lie apart, px."""
    middle = (np.array([seen.lattice.rows, seen.lattice.columns]) - 1) / 2
    down, right = (seen.index > middle).T
    found = [
        centre_of_symmetry(typical_patch(seen.stack[part]))[0]
        for part in (down & right, down & ~right, ~down & right, ~down & ~right)
    ]
    return float(np.sqrt(np.var(found, axis=0).sum()) * _point_px(Geometry.from_lattice(seen.lattice).pitch))


def _centroid_drift(frame: np.ndarray, seen: _Measured) -> float:
    """Return how far the light inside the discs moves outwards from the middle to the edge, px.

    The discs' borders are fitted already; where the light inside leans outwards with field position,
    the relay is not telecentric, or it vignettes.
    """
    pitch = Geometry.from_lattice(seen.lattice).pitch
    centres = seen.centres
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


def _point_px(pitch: float) -> float:
    return PATCH_SPAN * pitch / (PATCH_POINTS - 1)


def _refuse_small(shape: tuple[int, ...], nominal: float | None) -> None:
    least = MIN_LENSLETS * (nominal or 4.0)
    if min(shape) < least * 0.98:
        raise RequestError(
            f"The frame of {shape[0]} x {shape[1]} pixels is smaller than {MIN_LENSLETS} x {MIN_LENSLETS} "
            + "lenslets"
            + (f" of {nominal:.1f} px." if nominal else "."),
            "Give the whole camera frame.",
        )


def _refuse_few(lattice: Lattice) -> None:
    if min(lattice.rows, lattice.columns) < MIN_LENSLETS:
        raise RequestError(
            f"The frame holds only {lattice.rows} x {lattice.columns} whole lenslets (pitch "
            f"{lattice.pitch_px[1]:.1f} px); at least {MIN_LENSLETS} x {MIN_LENSLETS} are needed.",
            "Give the whole camera frame.",
        )
