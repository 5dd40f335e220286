"""All measures of one image, or of one against a truth, in one call: what panel and command line show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.align import align
from napari_lfm.core.decorrelation import Decorrelation, decorrelation
from napari_lfm.core.fourier import MOST_VOXELS
from napari_lfm.core.labelled import origin_of, spacing_of
from napari_lfm.core.line_profile import LineProfile, line_profile
from napari_lfm.core.metrics import score_volume
from napari_lfm.core.one_image import one_image, voxel_um_of
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import resample_onto
from napari_lfm.core.shell_correlation import (
    AGAINST_TRUTH,
    ONE_SEVENTH,
    ShellCorrelation,
    shell_correlation,
    single_shell_correlation,
)
from napari_lfm.core.spectra import PowerSpectra, power_spectra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from napari_lfm.core.axis_curves import AxisCurve

MEASURES = {
    "fsc_truth": "FSC with truth (0.378)",
    "fsc_pair": "FSC, two images (1/7)",
    "fsc_single": "FSC, image split (1/7)",
    "decorrelation": "Decorrelation",
    "noise_floor": "Noise floor",
}
"""Measures of resolution and what people read."""

_FEW = 16


@dataclass(frozen=True)
class OwnMeasures:
    """What one image says about its resolution without a truth."""

    spectra: PowerSpectra
    decorrelation: Decorrelation
    single: ShellCorrelation

    def curves(self) -> dict[str, tuple[AxisCurve, ...]]:
        """Return the curves of every measure."""
        return {
            "fsc_single": self.single.curves,
            "decorrelation": self.decorrelation.curves,
            "noise_floor": self.spectra.curves,
        }


@dataclass(frozen=True)
class Evaluation:
    """Every figure that was asked for.

    Attributes
    ----------
    voxel_um : dict of str to float
        Of the grid that was measured on.
    scores : dict, optional
        As `metrics.score_volume` returns; with a truth only.
    shift_um : dict of str to float, optional
        That the image was moved by to lie upon the truth.
    pair : ShellCorrelation, optional
        With the truth, cut at `AGAINST_TRUTH`.
    own, truth_own : OwnMeasures, optional
        Of the image and of the truth, each on its own grid, before any resampling.
    profile, truth_profile : LineProfile, optional
    notes : tuple of str
        How far to believe it, one sentence each.
    """

    voxel_um: dict[str, float]
    scores: dict[str, Any] | None = None
    shift_um: dict[str, float] | None = None
    pair: ShellCorrelation | None = None
    own: OwnMeasures | None = None
    truth_own: OwnMeasures | None = None
    profile: LineProfile | None = None
    truth_profile: LineProfile | None = None
    notes: tuple[str, ...] = field(default=())

    def curves(self) -> dict[str, tuple[AxisCurve, ...]]:
        """Return the curves of every measure of the image."""
        out: dict[str, tuple[AxisCurve, ...]] = {}
        if self.pair is not None:
            out |= {"fsc_truth": self.pair.curves, "fsc_pair": self.pair.at(ONE_SEVENTH).curves}
        return out | (self.own.curves() if self.own is not None else {})

    def truth_curves(self) -> dict[str, tuple[AxisCurve, ...]]:
        """Return the curves of every measure of the truth by itself."""
        return self.truth_own.curves() if self.truth_own is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the figures JSON-ready; the scores stand at the top, as they do without the rest."""
        out: dict[str, Any] = dict(self.scores or {})
        if self.shift_um is not None:
            out["shift_um"] = self.shift_um
        for name, curves in (("", self.curves()), ("truth_", self.truth_curves())):
            if curves:
                out[f"{name}resolution_um"] = {
                    m: {c.axis: c.resolution_um for c in found} for m, found in curves.items()
                }
                out[f"{name}at_nyquist"] = {
                    m: [c.axis for c in found if c.at_nyquist] for m, found in curves.items()
                }
        for name, one in (("profile", self.profile), ("truth_profile", self.truth_profile)):
            if one is not None:
                out[name] = {
                    "fwhm_gauss_um": one.fwhm_gauss_um,
                    "fwhm_crossing_um": one.fwhm_crossing_um,
                    "fit_r2": one.fit_r2,
                    "length_um": float(one.distance_um[-1]),
                }
        out["voxel_um"] = self.voxel_um
        out["notes"] = list(self.notes)
        return out


def evaluate(
    image: xr.DataArray,
    truth: xr.DataArray | None = None,
    *,
    reference_input: xr.DataArray | None = None,
    aligned: bool = False,
    resolution: bool = True,
    profile_um: tuple[Sequence[float], Sequence[float]] | None = None,
    offset: bool = False,
    data_range: float | None = None,
    on_step: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure an image, and hold it against a truth if there is one.

    Parameters
    ----------
    image, truth : xarray.DataArray
        One volume (z, y, x) or plane (y, x), in micrometres; the image is brought onto the truth's grid.
    reference_input : xarray.DataArray, optional
        What a method started from: scored too.
    aligned : bool
        Move the image (and the input) onto the truth first, to fractions of a voxel.
    resolution : bool
        Measure resolution along every axis.
    profile_um : two sequences of float, optional
        Ends of a line, micrometres in the image's coordinates, along its axes in the order z, y, x.
    offset, data_range
        As `metrics.score_volume` takes them.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        With the reason, if something cannot be measured.
    """
    tell = on_step or (lambda share: None)
    tell(0.0)
    image = one_image(image, "The image")
    # resampling relates the noise of neighbours: by itself an image is measured as it is
    raw, raw_truth = image, None
    notes: list[str] = []
    reference: xr.DataArray | None = None
    inputs = reference_input
    scores = shift = None
    scored: xr.DataArray | None = None
    if truth is not None:
        whole = raw_truth = one_image(truth, "The truth")
        span = data_range if data_range is not None else float(np.ptp(np.asarray(whole.values)))
        image, reference = resample_onto(image, whole)
        if aligned:
            image, reference, shift = _moved(image, reference, lambda share: tell(0.15 * share))
            if inputs is not None:
                inputs = _moved(*resample_onto(one_image(inputs, "The input"), whole))[0]
        scored = reference
        scores = score_volume(image, scored, reference_input=inputs, offset=offset, data_range=span)
        scores["coverage"] = float(scored.size / whole.size) * scores["coverage"]
    elif aligned:
        raise RequestError("There is no truth to align the image to.", "Give one, or leave it as it is.")
    voxel = voxel_um_of(image)
    tell(0.2)
    pair = own = truth_own = None
    if resolution:
        parts = 2 if reference is None else 3
        own = own_measures(raw.values, list(voxel_um_of(raw).values()), _part(tell, 0, parts))
        if reference is not None and raw_truth is not None:
            pair = shell_correlation(
                image.values,
                reference.values,
                list(voxel.values()),
                threshold=AGAINST_TRUTH,
                on_step=_part(tell, 1, parts),
            )
            sizes = list(voxel_um_of(raw_truth).values())
            truth_own = own_measures(raw_truth.values, sizes, _part(tell, 2, parts))
        notes += _notes(raw, own)
    profiles: list[LineProfile | None] = [None, None]
    if profile_um is not None:
        if shift is not None:  # the line was drawn where the image was
            moves = list(shift.values())
            profile_um = tuple([p + m for p, m in zip(end, moves, strict=False)] for end in profile_um)  # type: ignore[assignment]
        profiles = [None if i is None else profile_between(i, *profile_um) for i in (image, reference)]
    tell(1.0)
    return Evaluation(voxel, scores, shift, pair, own, truth_own, profiles[0], profiles[1], tuple(notes))


def own_measures(
    data: Any, voxel_um: Sequence[float], on_step: Callable[[float], None] | None = None
) -> OwnMeasures:
    """Return every measure of resolution that needs no truth."""
    tell = on_step or (lambda share: None)
    return OwnMeasures(
        power_spectra(data, voxel_um, on_step=lambda s: tell(s / 3)),
        decorrelation(data, voxel_um, on_step=lambda s: tell((1 + s) / 3)),
        single_shell_correlation(data, voxel_um, on_step=lambda s: tell((2 + s) / 3)),
    )


def profile_between(image: xr.DataArray, start: Sequence[float], end: Sequence[float]) -> LineProfile:
    """Return the profile between two places in micrometres.

    Parameters
    ----------
    image : xarray.DataArray
    start, end : sequence of float
        Along z, y, x (of planes y, x), micrometres.
    """
    if not len(start) == len(end) == image.ndim:
        raise RequestError(
            f"The profile's points need {image.ndim} numbers each, for {', '.join(map(str, image.dims))}."
        )
    step, first = spacing_of(image), origin_of(image)
    ends = [
        [(p - first.get(d, 0.0)) / step.get(d, 1.0) for p, d in zip(point, map(str, image.dims), strict=True)]
        for point in (start, end)
    ]
    return line_profile(np.asarray(image.values), ends[0], ends[1], list(voxel_um_of(image).values()))


def _moved(
    image: xr.DataArray, reference: xr.DataArray, on_step: Callable[[float], None] | None = None
) -> tuple[xr.DataArray, xr.DataArray, dict[str, float]]:
    voxel = voxel_um_of(reference)
    found = align(image.values, reference.values, list(voxel.values()), on_step=on_step)
    part = reference[found.part]
    shift = dict(zip(voxel, found.shift_um, strict=True))
    return part.copy(data=found.image), part.copy(data=found.reference), shift


def _part(tell: Callable[[float], None], number: int, of: int) -> Callable[[float], None]:
    return lambda share: tell(0.2 + 0.75 * (number + share) / of)


def _notes(image: xr.DataArray, own: OwnMeasures) -> list[str]:
    notes = []
    if not own.single.white:
        notes.append(
            "The noise of neighbouring voxels is related, or there is hardly any (interpolated, deconvolved, "
            "denoised or undersampled): what one split image and the crossing with the noise say is too good."
        )
    if image.size > MOST_VOXELS:
        notes.append("The image is large: resolution was measured in its middle.")
    if min(image.shape) < _FEW:
        notes.append(f"Along an axis with fewer than {_FEW} samples the resolution is rough.")
    return notes
