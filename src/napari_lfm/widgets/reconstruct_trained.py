"""What the *Reconstruct* panel does otherwise for methods that run a trained network. No Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Request
    from napari_lfm.widgets.runner import Outcome

LABELS: Mapping[str, Mapping[str, str]] = {
    "lfmnet": {
        "refine_iterations": "refining iterations",
        "confidence": "confidence layer",
        "residual": "re-project at the end",
    },
    "deconvolve-widefield": {"background_counts": "background (counts)"},
}
"""Labels of parameters by method, where their names are too short to be understood."""

MODEL_FIELDS: Mapping[str, str] = dict.fromkeys(
    ("z_min_um", "z_max_um", "z_step_um", "voxels_per_lenslet"), "the model's"
)
"""Parameters that a model's card has values for, and what they show while empty."""

OPTICS_FIELDS: Mapping[str, str] = dict.fromkeys(
    ("na", "wavelength_um", "immersion_index", "sample_index"), "microscope's"
)
"""Parameters of stack methods that the microscope has values for, and what they show while empty."""

_PITCH_TOLERANCE = 0.1


def needs_model(method: Any) -> bool:
    """Return whether a method runs a trained model."""
    return bool(getattr(method, "needs_model", False))


def guess_microscope(method: Any, request: Request) -> tuple[Request, list[Problem]]:
    """Return the request with the microscope of the model that fits the lenslets' pitch (worker thread).

    Without one it comes back as it was: the method then says what is missing. A single model is not
    taken just because it is the only one.
    """
    complete = getattr(method, "complete", None)
    if complete is None:
        return request, []
    image, lattice = request.inputs["image"], request.lattice
    if lattice is None and image.dims[-2:] == ("y", "x") and not request.layout.startswith("lenslet:"):
        from napari_lfm.lightfield.calibrate import calibrate

        frame = image.isel(t=0) if image.dims[0] == "t" else image
        lattice = calibrate(
            raw=frame, white=request.inputs.get("white"), dark=request.inputs.get("dark"), microscope=None
        )
    found: Request
    found, notes = complete(replace(request, lattice=lattice))
    microscope = found.microscope
    if microscope is None:
        return request, []
    nominal = microscope.nominal_pitch_px
    if lattice is not None and nominal:
        off = abs(float(np.mean(lattice.pitch_px)) / nominal - 1)
        if off > _PITCH_TOLERANCE:
            return request, []
    return found, notes


def passed_words(outcome: Outcome) -> str:
    """Return what a run without a state to go on from leaves behind."""
    if outcome.status != "stopped":
        return ""
    if outcome.preview is None:
        return "There was no volume yet."
    shape = outcome.preview.preview.image.sizes
    frames = shape.get("t", 0)
    if frames:
        return f"{frames} frame{'s' if frames > 1 else ''} of the movie are kept; the last may be unfinished."
    return "What was there is kept."
