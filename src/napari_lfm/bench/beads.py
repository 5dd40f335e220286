"""``bench beads``: a simulated bead at every depth, where it comes back and how wide.

One frame per bead, recorded by finer and slightly different optics than reconstruct it, with noise, and
calibrated from its white frame like any other. Depths below the microscope's depth of field are scored
apart: there every point is seen through one lenslet, and no method resolves below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.bench._bead_frames import BeadFrames, record_beads
from napari_lfm.bench._peaks import brightest_peak
from napari_lfm.core.events import Progress, Result
from napari_lfm.core.labelled import spacing_of
from napari_lfm.methods.base import Request
from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield, DeconvolveParameters
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

Array = npt.NDArray[np.float64]
Say = Callable[[str], None]
COLUMNS = ("z_um", "z_error_um", "y_error_um", "x_error_um", "fwhm_z_um", "fwhm_y_um", "fwhm_x_um")


@dataclass(frozen=True)
class Case:
    """One microscope and how its beads are reconstructed.

    Attributes
    ----------
    microscope : str
        Name of a preset.
    beads_per_plane : int
        Beads around every plane of the reconstruction, at random depths within half a step of it.
    parameters : mapping
        What differs from the defaults of `DeconvolveParameters`.
    variants : mapping of str to mapping
        Further runs on one bead per plane, with these parameters changed.
    lenslets : int
        Rows and columns of the array.
    """

    microscope: str
    beads_per_plane: int = 4
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lenslets: int = 21


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "no anti-aliasing": {"anti_aliasing": False},
    "60 iterations": {"iterations": 60},
    "white frame per pixel": {"vignetting": "white"},
}
CASES = (
    Case("mbl-60x1.2w", variants=VARIANTS),
    Case("wagner-22x0.5w", 3, {"z_min_um": -60.0, "z_max_um": 60.0, "z_step_um": 5.0}),
)


def run(progress: Say | None = None, seed: int = 0, cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """Simulate, reconstruct and measure beads.

    Parameters
    ----------
    progress : callable, optional
        Called with a sentence.
    seed : int
        Of bead places and noise.
    cases : sequence of Case

    Returns
    -------
    dict
        Per microscope: median lateral error in voxels and axial error in z steps (beyond the depth of
        field, and within it apart), the axial scale, FWHM and error by depth, every bead, the variants.
    """
    say = progress or (lambda _: None)
    out: dict[str, Any] = {}
    for case in cases:
        microscope = load_microscope(case.microscope)
        places = bead_places(case, microscope, seed)
        frames = record_beads(microscope, places, lenslets=case.lenslets, seed=seed, progress=say)
        out[case.microscope] = score_case(case, microscope, frames, say)
    return out


def bead_places(case: Case, microscope: Microscope, seed: int) -> Array:
    """Return bead places (z, y, x) around the field's centre: every plane, random phase in it."""
    parameters = DeconvolveParameters(**case.parameters)
    rng = np.random.default_rng(seed)
    z = np.repeat(parameters.z_um, case.beads_per_plane)
    z = z + rng.uniform(-0.5, 0.5, len(z)) * parameters.z_step_um
    z = np.clip(z, parameters.z_min_um, parameters.z_max_um)
    assert microscope.lenslet_um is not None
    return np.stack([z, *(rng.uniform(-1, 1, (2, len(z))) * microscope.lenslet_um)], 1)


def score_case(case: Case, microscope: Microscope, frames: BeadFrames, say: Say) -> dict[str, Any]:
    """Reconstruct recorded beads, with the case's parameters and its variants, and score them."""
    parameters = DeconvolveParameters(**case.parameters)
    table, voxel_um = _measure(frames, microscope, parameters, say)
    out: dict[str, Any] = {
        **scores(table, voxel_um, parameters.z_step_um, microscope.depth_of_field_um),
        "iterations": parameters.iterations,
        "z_um": [parameters.z_min_um, parameters.z_max_um, parameters.z_step_um],
        "voxel_um": voxel_um,
        "depth_of_field_um": microscope.depth_of_field_um,
        "bead_um": frames.bead_um,
        "by_depth": by_depth(table, parameters.z_um),
        "columns": list(COLUMNS),
        "beads": np.round(table, 4).tolist(),
    }
    one_each = slice(0, None, case.beads_per_plane)
    chosen = BeadFrames(
        frames.movie[one_each],
        frames.white,
        frames.dark,
        frames.truth[one_each].reset_index(drop=True),
        frames.bead_um,
    )
    out["variants"] = {}
    variants: dict[str, Mapping[str, Any]] = {"default": {}, **case.variants} if case.variants else {}
    for name, changes in variants.items():
        changed = parameters.model_copy(update=dict(changes))
        table, voxel_um = _measure(chosen, microscope, changed, say)
        figures = scores(table, voxel_um, changed.z_step_um, microscope.depth_of_field_um)
        out["variants"][name] = {**figures, "by_depth": by_depth(table, parameters.z_um)}
    return out


def scores(table: Array, voxel_um: float, step_um: float, depth_of_field_um: float) -> dict[str, float]:
    """Return median errors, in voxels and z steps, and the axial scale.

    Parameters
    ----------
    table : ndarray, shape (beads, 7)
        Columns as in `COLUMNS`.
    voxel_um, step_um, depth_of_field_um : float

    Returns
    -------
    dict
        ``..._near`` for beads within the depth of field (left out where there is none).
        ``axial_scale`` is what the depths found beyond it must be multiplied by to be true: above 1, they
        come out too near to the native plane.
    """
    out: dict[str, float] = {}
    far = np.abs(table[:, 0]) >= depth_of_field_um
    for suffix, rows in (("", table[far]), ("_near", table[~far])):
        if not len(rows):
            continue
        lateral = np.hypot(rows[:, 2], rows[:, 3])
        out[f"median_lateral_voxels{suffix}"] = float(np.median(lateral) / voxel_um)
        out[f"median_axial_steps{suffix}"] = float(np.median(np.abs(rows[:, 1])) / step_um)
        out[f"largest_lateral_voxels{suffix}"] = float(lateral.max() / voxel_um)
        out[f"largest_axial_steps{suffix}"] = float(np.abs(rows[:, 1]).max() / step_um)
        out[f"beads{suffix}_count"] = len(rows)
    if far.sum() > 1:
        true, found = table[far, 0], table[far, 0] + table[far, 1]
        out["axial_scale"] = float((true**2).sum() / (true * found).sum())
    return out


def by_depth(table: Array, planes_um: Array) -> list[dict[str, float]]:
    """Return medians over the beads nearest to each plane."""
    nearest = np.abs(table[:, :1] - planes_um[None]).argmin(1)
    out = []
    for k, z in enumerate(planes_um):
        rows = table[nearest == k]
        if not len(rows):
            continue
        out.append(
            {
                "z_um": float(z),
                "axial_error_um": float(np.median(rows[:, 1])),
                "lateral_error_um": float(np.median(np.hypot(rows[:, 2], rows[:, 3]))),
                "fwhm_axial_um": float(np.median(rows[:, 4])),
                "fwhm_lateral_um": float(np.median(rows[:, 5:7])),
            }
        )
    return out


def _measure(
    frames: BeadFrames, microscope: Microscope, parameters: DeconvolveParameters, say: Say
) -> tuple[Array, float]:
    request = Request(
        method=DeconvolveLightfield.id,
        inputs={"image": frames.movie, "white": frames.white, "dark": frames.dark},
        parameters=parameters,
        microscope=microscope,
    )
    volume = None
    for event in DeconvolveLightfield().run(request):
        if isinstance(event, Progress):
            say(f"{microscope.name}: {event.message}")
        elif isinstance(event, Result):
            volume = event.outputs["volume"]
    assert volume is not None
    rows = []
    for one, true in zip(volume, frames.truth.to_numpy(float), strict=True):
        peak = brightest_peak(one)
        rows.append([true[0], *(np.asarray(peak.place_um) - true), *peak.fwhm_um])
    return np.asarray(rows), spacing_of(volume)["x"]
