"""From a plan and a frame to a solver: blur, background, noise, pixels that are not observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.noise import Noise, estimate_noise
from napari_lfm.methods.widefield.frames import camera_noise, estimate_background
from napari_lfm.methods.widefield.psf import choose_psf
from napari_lfm.methods.widefield.solver import Measurement, Options, RichardsonLucy
from napari_lfm.optics.stack_blur import StackBlur

if TYPE_CHECKING:
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.widefield.parameters import WidefieldParameters
    from napari_lfm.methods.widefield.plan import Plan


@dataclass(frozen=True)
class Prepared:
    """A frame that is ready to iterate on.

    Attributes
    ----------
    solver : RichardsonLucy or None
        None where the frame holds no light.
    sentence : str
        Background, noise and whatever is odd about the frame.
    figures : dict
        The same for the record.
    """

    solver: RichardsonLucy | None
    sentence: str
    figures: dict[str, Any]


def make_blur(request: Request, plan: Plan, channel: int) -> tuple[StackBlur, tuple[str, ...]]:
    """Return the blur of a channel, and what is to say about its point spread function."""
    chosen = choose_psf(request, plan.info, channel)
    # channels of different colours reach differently far; the plan has room for the farthest
    return StackBlur(chosen.values, plan.info.shape, plan.device, plan.margin, plan.block), chosen.notes


def options_of(parameters: WidefieldParameters) -> Options:
    """Return the part of the parameters that steers the iteration."""
    return Options(parameters.accelerate, parameters.total_variation, parameters.masked_borders)


def prepare_frame(
    request: Request, plan: Plan, blur: StackBlur, frame: np.ndarray[Any, Any], last: RichardsonLucy | None
) -> Prepared:
    """Return the solver of a frame; `last`, of the same blur, lends it the normaliser.

    Parameters
    ----------
    frame : ndarray, shape (z, y, x)
        Grey values; what is no number counts as not observed.
    """
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    finite = np.isfinite(frame) if frame.dtype.kind == "f" else None
    if finite is not None and finite.all():
        finite = None
    estimated = p.background_counts is None
    background = estimate_background(frame) if p.background_counts is None else p.background_counts
    if request.microscope is not None:
        noise = camera_noise(request.microscope, background)
    else:
        noise = estimate_noise(frame)
    said = [f"Background {background:.4g} grey values{' (estimated)' if estimated else ''}"]
    if p.auto_stop:
        said.append(_noise_words(noise))
    data = torch.from_numpy(np.array(frame, np.float32))
    mask = None
    if finite is not None:
        mask = torch.from_numpy(finite)
        data[~mask] = 0.0
        lost = int(frame.size - np.count_nonzero(finite))
        said.append(f"{lost} pixels are no numbers and are taken as not observed")
        mask = mask.to(plan.home)
    measurement = Measurement(data.to(plan.home), mask, float(background), noise)
    figures = {
        "background_counts": float(background),
        "noise": {"slope": noise.slope, "intercept": noise.intercept, "from": noise.source},
    }
    if last is not None:
        solver = last.for_measurement(measurement)
    else:
        solver = RichardsonLucy(blur, measurement, options_of(p), plan.info.voxel_um)
    if solver.light <= 0:
        said.append("nothing is brighter than the background: the frame is left dark")
        return Prepared(None, "; ".join(said), figures)
    return Prepared(solver, "; ".join(said), figures)


def _noise_words(noise: Noise) -> str:
    if not noise.known:
        return "no noise could be told from the data: auto stop looks at progress only"
    return f"noise from {noise.source}: variance {noise.slope:.3g} per grey value {noise.intercept:+.3g}"
