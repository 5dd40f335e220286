"""``bench sphere``: the axial scale of a simulated true sphere, beside that of the real vesicle.

A hollow sphere of the real vesicle's size and height is recorded with its light, pupil, noise and white
frame, and reconstructed with the very parameters of the real run. What the fit says of the true sphere
is the method's own bias; the variants tell what else could make a sphere look flat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_lfm.bench._shell import shell_figures
from napari_lfm.bench._vesicle import CLEAR_PUPIL, record_vesicle
from napari_lfm.bench.light_field_rl import guv_inputs
from napari_lfm.core.events import Progress, Result
from napari_lfm.methods.base import Request
from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield, DeconvolveParameters
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.lightfield import SLIGHTLY_OFF

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.optics.microscope import Microscope

Say = Callable[[str], None]
MICROSCOPE = "mbl-60x1.2w"
GUV_RUN: Mapping[str, Any] = {
    "z_min_um": -7.0,
    "z_max_um": 7.0,
    "z_step_um": 1.0,
    "voxels_per_lenslet": 3,
    "iterations": 15,
}
INDEX_STEP = 0.02


@dataclass(frozen=True)
class Run:
    """One reconstruction: parameters changed from `GUV_RUN`, and the sample index it is told."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    index_change: float = 0.0


@dataclass(frozen=True)
class Subject:
    """One simulated vesicle (arguments of `record_vesicle`) and how it is reconstructed."""

    recording: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)


VIGNETTING = {f"vignetting {v}": Run({"vignetting": v}) for v in ("pupil", "white", "none")}
ALL_RUNS = {
    **VIGNETTING,
    f"told index + {INDEX_STEP}": Run(index_change=INDEX_STEP),
    f"told index - {INDEX_STEP}": Run(index_change=-INDEX_STEP),
    "50 iterations": Run({"iterations": 50}),
    "no anti-aliasing": Run({"anti_aliasing": False}),
}
SUBJECTS: Mapping[str, Subject] = {
    "sphere": Subject(runs=ALL_RUNS),
    "sphere, clear pupil": Subject({"pupil": CLEAR_PUPIL}, VIGNETTING),
    "sphere cut at the volume's ends": Subject({"reach_um": (-7.0, 7.0)}, VIGNETTING),
    "sphere, optics slightly off": Subject({"error": SLIGHTLY_OFF}, VIGNETTING),
    "spheroid, axial radius 0.9": Subject({"stretch": 0.9}, VIGNETTING),
}


def run(
    progress: Say | None = None, seed: int = 0, subjects: Mapping[str, Subject] = SUBJECTS
) -> dict[str, Any]:
    """Simulate vesicles, reconstruct them and the real one, and fit the shells.

    Parameters
    ----------
    progress : callable, optional
        Called with a sentence.
    seed : int
        Of the noise.
    subjects : mapping of str to Subject

    Returns
    -------
    dict
        ``axial_scale_sphere`` and ``axial_scale_real`` with default parameters (the latter only where
        the recording is there); per subject, and for ``real vesicle``, per run the figures of
        `shell_figures` and the relative residual.
    """
    say = progress or (lambda _: None)
    microscope = load_microscope(MICROSCOPE)
    table: dict[str, Any] = {}
    for name, subject in subjects.items():
        recording = record_vesicle(microscope, **subject.recording, seed=seed, progress=say)
        inputs = {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]}
        table[name] = {"truth": shell_figures(recording["truth"])}
        table[name] |= reconstruct_all(inputs, microscope, subject.runs, say)
    real = guv_inputs()
    if real is not None:
        table["real vesicle"] = reconstruct_all(real, microscope, ALL_RUNS, say)
    default = "vignetting pupil"
    found = {
        key: table[name][default]["axial_scale"]
        for key, name in (("axial_scale_sphere", "sphere"), ("axial_scale_real", "real vesicle"))
        if default in table.get(name, {})
    }
    return {**found, "subjects": table}


def reconstruct_all(
    inputs: Mapping[str, xr.DataArray],
    microscope: Microscope,
    runs: Mapping[str, Run],
    say: Say,
    parameters: Mapping[str, Any] = GUV_RUN,
) -> dict[str, dict[str, float]]:
    """Reconstruct one recording in every way asked for, and fit the shell."""
    out = {}
    for name, one in runs.items():
        told = microscope.model_copy(update={"sample_index": microscope.sample_index + one.index_change})
        request = Request(
            method=DeconvolveLightfield.id,
            inputs=inputs,
            parameters=DeconvolveParameters(**{**parameters, **one.parameters}),
            microscope=told,
        )
        for event in DeconvolveLightfield().run(request):
            if isinstance(event, Progress):
                say(f"{name}: {event.message}")
            elif isinstance(event, Result):
                figures = shell_figures(event.outputs["volume"])
                residual = float(event.provenance["figures"]["relative_residual"])
                out[name] = {**figures, "relative_residual": residual}
    return out
