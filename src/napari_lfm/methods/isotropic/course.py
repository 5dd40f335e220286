"""What one run of isotropic restoration makes: outputs, filled frame by frame, their figures and record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Result
from napari_lfm.methods.isotropic.parameters import IsotropicParameters
from napari_lfm.methods.isotropic.plan import labelled_like
from napari_lfm.methods.isotropic.start import METHOD
from napari_lfm.networks.isotropic_fit import resampling_of

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.isotropic.blur import ChosenBlur
    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.networks.registry import ModelEntry

PRIMARY, RESIDUAL = "isotropic", "residual"


@dataclass
class Course:
    """What one run has made so far.

    Attributes
    ----------
    request : Request
    found : Understood
    entry : ModelEntry
        The model that restores.
    blur : ChosenBlur or None
        None where nothing needs it.
    started : float
        By the clock of `time.perf_counter`.
    device : torch.device
    chunk_pixels : int
        Most pixels that the network sees at a time.
    out : dict
        Outputs by name, (t, channels, z, y, x).
    shares, noise_shares : list
        For every frame and channel, see `Explained`.
    levels : list
        For every frame and channel the grey values that become 0 and 1.
    notes : list of str
    """

    request: Request
    found: Understood
    entry: ModelEntry
    blur: ChosenBlur | None
    started: float
    device: torch.device
    chunk_pixels: int
    out: dict[str, np.ndarray] = field(default_factory=dict)
    shares: list[list[float]] = field(default_factory=list)
    noise_shares: list[list[float]] = field(default_factory=list)
    levels: list[list[tuple[float, float]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> IsotropicParameters:
        """Those of the request."""
        return parameters_of(self.request)

    @property
    def image(self) -> xr.DataArray:
        """The recording."""
        return self.request.inputs["image"]

    def keep(self, name: str, t: int, values: np.ndarray) -> None:
        """Take up a frame (channels, z, y, x) of an output."""
        frames = self.found.info.frames
        if frames == 1:
            self.out[name] = values[None]
            return
        if name not in self.out:
            self.out[name] = np.zeros((frames, *values.shape), np.float32)
        self.out[name][t] = values

    def labelled(self, name: str, frames: int | None = None) -> xr.DataArray:
        """Return the first frames of an output."""
        return labelled_like(self.out[name][:frames], self.image, self.found, name, fine=name != RESIDUAL)


def parameters_of(request: Request) -> IsotropicParameters:
    """Return the request's parameters."""
    assert isinstance(request.parameters, IsotropicParameters)
    return request.parameters


def name_of(request: Request) -> str:
    """Return what the stack is called: its file without suffixes, or its layer."""
    source = request.sources.get("image")
    if source:
        return Path(source).name.split(".")[0]
    name = request.inputs["image"].name
    return "stack" if name is None else str(name) or "stack"


def result_of(course: Course, trained: dict[str, Any]) -> Result:
    """Return what a run has made, with its record.

    Parameters
    ----------
    course : Course
    trained : dict
        Minutes, steps and start of a training that came first.
    """
    from napari_lfm.io.provenance import make_provenance
    from napari_lfm.methods.chosen_model import describe_model

    request, p, found = course.request, course.parameters, course.found
    # what was trained is the model now: the same again needs no training
    record = {**p.model_dump(), "train_minutes": 0.0, "train_steps": None}
    figures: dict[str, Any] = {
        "factor": found.factor,
        **({} if course.blur is None else course.blur.record()),
        "consistency_share": course.shares,
        "noise_share": course.noise_shares,
        "levels": course.levels,
        "resampling": resampling_of(course.entry.card),
        "trained": trained,
        "notes": course.notes,
        "seconds": time.perf_counter() - course.started,
    }
    outputs = {name: course.labelled(name) for name in course.out}
    provenance = make_provenance(
        method=METHOD,
        parameters=record,
        inputs=request.inputs,
        sources=request.sources,
        microscope=None if request.microscope is None else request.microscope.model_dump(mode="json"),
        model=describe_model(course.entry),
        device=str(course.device),
        memory_gib=request.memory_gib,
        layout=request.layout,
        input_kind="stack",
        figures=figures,
    )
    outputs[PRIMARY].attrs["provenance"] = provenance
    return Result(outputs, PRIMARY, provenance)
