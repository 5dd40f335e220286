"""``bench light-field-rl``: plain Richardson-Lucy on the GUV problem, one frame and sixteen.

The problem is that of the real vesicle: 28 x 28 lenslets of 15 x 15 pixels, -7..7 um in 1 um steps,
3 voxels per lenslet. Where the recording is absent, a simulated frame of the same size stands in; the
time does not depend on the values.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.labelled import labelled
from napari_lfm.methods.base import Request
from napari_lfm.methods.deconvolve_lightfield import (
    DeconvolutionState,
    DeconvolveLightfield,
    DeconvolveParameters,
)
from napari_lfm.optics import cache
from napari_lfm.optics.presets import load_microscope
from napari_lfm.optics.projector import LensletProjector

if TYPE_CHECKING:
    from collections.abc import Callable

GUV = Path(__file__).parents[4] / "shared/data/napari-lf/GUVExperim1"
FRAMES = 16


def guv_inputs(folder: Path = GUV) -> dict[str, Any] | None:
    """Return the recording's labelled frames, or None where it is absent."""
    names = {
        "image": "Lightfield_GUVExperim1.tif",
        "white": "Radiometry_GUVExperim1.tif",
        "dark": "DarkFrame_GUVExperim1.tif",
    }
    if not all((folder / name).is_file() for name in names.values()):
        return None
    from napari_lfm.io.read import read_lightfield

    microscope = load_microscope("mbl-60x1.2w")
    return {key: read_lightfield(folder / name, microscope) for key, name in names.items()}


def stand_in() -> dict[str, Any]:
    """Return a frame of the same size without the recording: even light, lattice given by 'lenslet:15'."""
    microscope = load_microscope("mbl-60x1.2w")
    step = microscope.object_pixel_um
    frame = np.random.default_rng(0).poisson(300, (420, 420)).astype(np.float32)
    return {"image": labelled(frame, ("y", "x"), {"y": step, "x": step})}


def run(progress: Callable[[str], None] | None = None, iterations: int = 30) -> dict[str, Any]:
    """Time the operator's making and the iterations.

    Returns
    -------
    dict
        ``seconds_per_iteration`` (median, one frame, plain Richardson-Lucy), its minimum, the same per
        frame with sixteen frames in one batch, cold and cached seconds of the point spread function and
        operator, bytes moved per second by the matrices and by a plain copy.
    """
    say = progress or (lambda _: None)
    inputs = guv_inputs()
    real = inputs is not None
    say("Calibrating and building the operator")
    request = Request(
        method=DeconvolveLightfield.id,
        inputs=inputs if inputs is not None else stand_in(),
        parameters=DeconvolveParameters(anti_aliasing=False, iterations=1),
        microscope=load_microscope("mbl-60x1.2w"),
        layout="raw" if real else "lenslet:15",
        device="cpu",
    )
    state = _first_state(request)
    solver = state.solver
    geometry = solver.projector.geometry
    say("Timing the point spread function and operator")
    cold, cached = _time_build(solver.projector)
    say("Timing one frame")
    single = _time_steps(solver, iterations)
    say(f"Timing {FRAMES} frames in one batch")
    batch = solver.for_measurement(_repeated(solver.measurement, FRAMES))
    many = [t / FRAMES for t in _time_steps(batch, max(4, iterations // 4))]
    matrix = solver.projector.matrix
    assert matrix is not None
    moved = 2 * matrix.numel() * matrix.element_size()  # read once forward, once back
    return {
        "problem": {
            "data": "GUV recording" if real else "simulated stand-in",
            "lenslets": list(geometry.cells),
            "pixels_per_lenslet": geometry.optics.cell_px[0],
            "planes": solver.n_fine,
            "guard_planes": len(geometry.planes) - solver.n_fine,
            "voxels_per_lenslet": geometry.planes[0].voxels[0],
            "fft_size": list(geometry.period),
            "operator_mb": round(geometry.matrix_bytes() / 1e6, 1),
        },
        "seconds_per_iteration": statistics.median(single),
        "seconds_per_iteration_minimum": min(single),
        "seconds_per_frame_and_iteration_16_frames": statistics.median(many),
        "seconds_per_frame_and_iteration_16_frames_minimum": min(many),
        "seconds_psf_and_operator_cold": cold,
        "seconds_psf_and_operator_cached": cached,
        "operator_gb_per_s": moved / min(single) / 1e9,
        "copy_gb_per_s": _copy_rate(matrix.numel() * 4),
        "torch_threads": torch.get_num_threads(),
    }


def _first_state(request: Request) -> DeconvolutionState:
    from napari_lfm.core.events import Preview

    for event in DeconvolveLightfield().run(request):
        if isinstance(event, Preview):
            assert isinstance(event.state, DeconvolutionState)
            return event.state
    raise AssertionError("a run gives a preview")


def _time_build(projector: LensletProjector) -> tuple[float, float]:
    """Return seconds for operator and PSF with an empty cache folder, and again with what that left."""
    home = cache.cache_dir
    with tempfile.TemporaryDirectory() as folder:
        try:
            cache.cache_dir = lambda: Path(folder)
            out = []
            for _ in range(2):
                begun = time.perf_counter()
                LensletProjector.build(projector.geometry)
                out.append(time.perf_counter() - begun)
        finally:
            cache.cache_dir = home
    return out[0], out[1]


def _time_steps(solver: Any, count: int) -> list[float]:
    state = solver.step(solver.start())
    out = []
    for _ in range(count):
        begun = time.perf_counter()
        state = solver.step(state)
        out.append(time.perf_counter() - begun)
    return out


def _repeated(measurement: Any, frames: int) -> Any:
    from dataclasses import replace

    return replace(measurement, data=measurement.data.expand(frames, -1, -1, -1).contiguous())


def _copy_rate(count_bytes: int) -> float:
    """Return read-plus-write bytes per second of a plain copy of this size, the best of ten."""
    source = torch.ones(count_bytes // 4)
    target = torch.empty_like(source)
    best = 1e9
    for _ in range(10):
        begun = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - begun)
    return 2 * count_bytes / best / 1e9
