"""``deconvolve-lightfield``: wave-optics Richardson-Lucy deconvolution of raw light fields."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from napari_lfm.core.devices import is_out_of_memory, pick_device
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.base import InputKind, Parameters, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.methods.plan import Plan
    from napari_lfm.methods.solver import RichardsonLucy, State
    from napari_lfm.optics.microscope import Microscope

_FIXED = (
    "z_min_um",
    "z_max_um",
    "z_step_um",
    "voxels_per_lenslet",
    "vignetting",
    "background_counts",
    "guard_planes",
)
"""Parameters that a run cannot change when it goes on; what only steers the iteration may change."""
PLATEAU = 0.003  # relative gain per iteration below which the residual counts as flat


class DeconvolveParameters(Parameters):
    """Parameters of the light-field deconvolution."""

    z_min_um: float = Field(default=-7.0, ge=-5000, le=5000)
    """Lowest plane, in micrometres from the native object plane; + points towards the objective."""
    z_max_um: float = Field(default=7.0, ge=-5000, le=5000)
    """Highest plane."""
    z_step_um: float = Field(default=1.0, gt=0, le=500)
    """Distance between planes."""
    voxels_per_lenslet: int = Field(default=3, ge=1, le=15)
    """Voxels across one lenslet, along y and along x."""
    iterations: int = Field(default=15, ge=1, le=10000)
    """Richardson-Lucy iterations; exactly that many unless auto stop is on. More are sharper and noisier."""
    auto_stop: bool = False
    """Stop by itself when the residual reaches the noise, or no longer falls."""
    accelerate: bool = False
    """Extrapolate along the last steps (Biggs & Andrews): about the same result in half the iterations."""
    total_variation: float = Field(default=0.0, ge=0, le=0.1, json_schema_extra={"advanced": True})
    """Weight of the total-variation prior, 0 for none; 0.002 calms noise and keeps edges."""
    anti_aliasing: bool = Field(default=True, json_schema_extra={"advanced": True})
    """Smooth each plane by what the lenslets cannot sample there: no lenslet blocks near z = 0."""
    vignetting: Literal["pupil", "white", "none"] = Field(
        default="pupil", json_schema_extra={"advanced": True}
    )
    """How the white frame enters the model: its radial fall-off fitted into the pupil and the rest per
    pixel; all of it per pixel on top of the ideal optics; or not at all."""
    fit_offset: bool = Field(default=True, json_schema_extra={"advanced": True})
    """Fit the camera's offset too: a dark frame is rarely right to a few grey values."""
    background_counts: float = Field(default=0.0, ge=0, le=1e6, json_schema_extra={"advanced": True})
    """Known even background inside the optics, in grey values of the raw frame."""
    guard_planes: bool = Field(default=True, json_schema_extra={"advanced": True})
    """Let coarse planes above and below take up the light from outside the volume."""
    precision: Literal["auto", "float32", "float16"] = Field(
        default="auto", json_schema_extra={"advanced": True}
    )
    """How the operator is stored; auto takes float32 where the memory allows it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.z_max_um < self.z_min_um:
            raise ValueError(
                f"z_max_um = {self.z_max_um:g} lies below z_min_um = {self.z_min_um:g}; swap them"
            )
        if self.planes > 2000:
            raise ValueError(f"{self.planes} planes are more than 2000; raise z_step_um")
        return self

    @property
    def planes(self) -> int:
        """Planes from z_min to z_max."""
        return math.floor((self.z_max_um - self.z_min_um) / self.z_step_um + 1e-6) + 1

    @property
    def z_um(self) -> np.ndarray:
        """Depth of every plane."""
        return self.z_min_um + self.z_step_um * np.arange(self.planes)


@dataclass(frozen=True)
class DeconvolutionState:
    """What a run can go on from; opaque to others."""

    solver: RichardsonLucy
    state: State
    data: LightfieldData
    parameters: DeconvolveParameters
    seconds: float


class DeconvolveLightfield:
    """Volume from a raw light field, by Richardson-Lucy with a wave-optics model (Broxton et al. 2013)."""

    id: ClassVar[str] = "deconvolve-lightfield"
    title: ClassVar[str] = "Light-field deconvolution (wave optics)"
    summary: ClassVar[str] = (
        "Turns a raw light field, or a movie of them, into a volume: Richardson-Lucy iterations with the "
        "microscope's own wave-optics model. Needs no training."
    )
    input_kind: ClassVar[InputKind] = "lightfield"
    Parameters: ClassVar[type[DeconvolveParameters]] = DeconvolveParameters

    def suggest(self, microscope: Microscope) -> dict[str, Any]:
        """Return parameter values that suit a microscope: its useful depth range in round steps."""
        half = 1.5 * microscope.depth_range_um
        step = _round_step(half / 7)
        count = max(1, round(half / step))
        return {"z_min_um": -count * step, "z_max_um": count * step, "z_step_um": step}

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.lightfield_data import check_input
        from napari_lfm.methods.plan import check_plan

        problems = check_input(request)
        if request.model:
            problems.append(
                Problem(f"{self.id} takes no model ('{request.model}').", "Leave it out.", field="model")
            )
        if not any(p.severity == "error" for p in problems):
            problems += check_plan(request)
        return problems

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        from napari_lfm.methods.plan import make_plan

        return make_plan(request).estimate(request)

    def run(self, request: Request) -> Iterator[Event]:
        """Calibrate, rectify, build the operator, iterate; yields a Preview for every iteration."""
        parameters = _parameters(request)
        if isinstance(request.continue_from, DeconvolutionState):
            yield from self._go_on(request, request.continue_from, parameters)
            return
        raise_for(self.check(request))
        yield from self._from_start(request, parameters)

    # -- the run ----------------------------------------------------------------------------

    def _from_start(self, request: Request, parameters: DeconvolveParameters) -> Iterator[Event]:
        import torch

        from napari_lfm.methods.lightfield_data import prepare
        from napari_lfm.methods.plan import make_plan

        started = time.perf_counter()
        data: LightfieldData | None = None
        for event in prepare(request):
            if isinstance(event, Progress):
                yield event
            else:
                data = event
        assert data is not None
        plan = make_plan(request, data)
        yield Progress(0, 1, plan.sentence)
        device = pick_device(request.device)
        while True:
            try:
                yield from self._iterate_all(request, parameters, data, plan, device, started)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            if plan.frames_at_once > 1:
                plan = replace(plan, frames_at_once=plan.frames_at_once // 2)
                yield Progress(0, 1, f"Out of memory; again with {plan.frames_at_once} frames at once")
            elif device.type != "cpu":
                yield Progress(0, 1, f"The {device.type} device is out of memory; going on on the CPU")
                device = torch.device("cpu")
                plan = make_plan(request, data, device="cpu")
            else:
                raise RequestError(
                    "The memory is not enough for this volume.",
                    "Use fewer planes, fewer voxels per lenslet, or a smaller region.",
                )

    def _iterate_all(
        self,
        request: Request,
        parameters: DeconvolveParameters,
        data: LightfieldData,
        plan: Plan,
        device: torch.device,
        started: float,
    ) -> Iterator[Event]:
        from napari_lfm.methods.plan import build_solver

        frames = len(data.rectified.image)
        done: np.ndarray | None = None  # a movie's volumes so far; grows within one array
        solver: RichardsonLucy | None = None
        final: State | None = None
        for first in range(0, frames, plan.frames_at_once):
            batch = slice(first, min(first + plan.frames_at_once, frames))
            if solver is None:
                for item in build_solver(request, parameters, data, plan, device, batch):
                    if isinstance(item, Progress):
                        yield item
                    else:
                        solver = item
                assert solver is not None
            else:
                solver = plan.same_for(solver, data, parameters, batch)
            state = solver.start()
            for progress, new in self._steps(solver, state, parameters, batch, frames):
                final, shown = new, _to_numpy(solver, new)
                if batch.stop - batch.start < frames:
                    if done is None:
                        done = np.empty((frames, *shown.shape[1:]), np.float32)
                    done[batch] = shown
                    shown = done[: batch.stop]
                yield self._preview(parameters, data, solver, new, shown, progress, started)
        assert solver is not None
        assert final is not None
        volume = _to_numpy(solver, final) if done is None else done
        yield self._result(request, parameters, data, solver, final, volume, started)

    def _go_on(
        self, request: Request, kept: DeconvolutionState, parameters: DeconvolveParameters
    ) -> Iterator[Event]:
        from napari_lfm.methods.plan import options_of

        if kept.data.is_movie and len(kept.data.rectified.image) > len(kept.state.x):
            raise RequestError(
                "A movie that was worked on in several parts cannot be continued.",
                "Start it again with more iterations.",
            )
        changed = [n for n in _FIXED if getattr(parameters, n) != getattr(kept.parameters, n)]
        if changed:
            raise RequestError(
                f"A run cannot go on with another {' and '.join(changed)}.",
                "Set it back, or start again.",
            )
        solver = kept.solver.with_options(options_of(parameters))
        started = time.perf_counter() - kept.seconds
        batch = slice(0, len(kept.state.x))
        final = kept.state
        for progress, new in self._steps(solver, kept.state, parameters, batch, batch.stop):
            final = new
            shown = _to_numpy(solver, new)
            yield self._preview(parameters, kept.data, solver, new, shown, progress, started)
        volume = _to_numpy(solver, final)
        yield self._result(request, parameters, kept.data, solver, final, volume, started)

    def _steps(
        self,
        solver: RichardsonLucy,
        state: State,
        parameters: DeconvolveParameters,
        batch: slice,
        frames: int,
    ) -> Iterator[tuple[Progress, State]]:
        first, total = state.iteration, state.iteration + parameters.iterations
        begun = time.perf_counter()
        for done in range(1, parameters.iterations + 1):
            state = solver.step(state)
            each = (time.perf_counter() - begun) / done
            rest = parameters.iterations - done
            later = math.ceil(max(0, frames - batch.stop) / max(1, batch.stop - batch.start))
            residual = state.residuals[-1]
            which = f", frames {batch.start + 1}-{batch.stop} of {frames}" if frames > 1 else ""
            values = {"residual": residual, "iteration": float(state.iteration)}
            reason = _stop_reason(state, solver.measurement.noise) if parameters.auto_stop else ""
            yield (
                Progress(
                    first + done,
                    total,
                    f"Iteration {state.iteration}{which}" + (f": {reason}" if reason else ""),
                    seconds_left=0.0 if reason else each * (rest + later * parameters.iterations),
                    values=values,
                ),
                state,
            )
            if reason:
                return

    def _preview(
        self,
        parameters: DeconvolveParameters,
        data: LightfieldData,
        solver: RichardsonLucy,
        state: State,
        shown: np.ndarray,
        progress: Progress,
        started: float,
    ) -> Preview:
        image = data.volume(shown, parameters.z_um, solver.projector.geometry.planes[0].voxels, "volume")
        kept = DeconvolutionState(solver, state, data, parameters, time.perf_counter() - started)
        return Preview("volume", image, progress, state=kept)

    def _result(
        self,
        request: Request,
        parameters: DeconvolveParameters,
        data: LightfieldData,
        solver: RichardsonLucy,
        state: State,
        volume: np.ndarray,
        started: float,
    ) -> Result:
        from napari_lfm.io.provenance import make_provenance

        residual = solver.residual(state)
        voxels = solver.projector.geometry.planes[0].voxels
        image = data.volume(volume, parameters.z_um, voxels, "volume")
        seconds = time.perf_counter() - started
        record = parameters.model_dump()
        record["iterations"] = state.iteration
        provenance = make_provenance(
            method=self.id,
            parameters=record,
            inputs=request.inputs,
            sources=request.sources,
            microscope=data.microscope.model_dump(mode="json"),
            lattice=data.lattice.to_json(),
            device=str(solver.projector.device),
            memory_gib=request.memory_gib,
            region_px=request.region_px,
            layout=request.layout,
            figures={
                "relative_residual": residual,
                "expected_noise": solver.measurement.noise,
                "offset_counts": [round(float(v), 3) for v in state.offset.flatten()],
                "pupil": list(solver.projector.geometry.optics.pupil),
                "seconds": seconds,
            },
        )
        image.attrs["provenance"] = provenance
        kept = DeconvolutionState(solver, state, data, parameters, seconds)
        return Result({"volume": image}, "volume", provenance, state=kept)


def _parameters(request: Request) -> DeconvolveParameters:
    assert isinstance(request.parameters, DeconvolveParameters)
    return request.parameters


def _to_numpy(solver: RichardsonLucy, state: State) -> np.ndarray:
    volume = solver.volume(state)
    out: np.ndarray = volume.float().cpu().contiguous().numpy()
    return out


def _stop_reason(state: State, noise: float) -> str:
    history = state.residuals
    if history[-1] <= noise:
        return f"the residual has reached the noise ({noise:.3f})"
    if len(history) > 4 and history[-4] - history[-1] < 3 * PLATEAU * history[-1]:
        return "the residual no longer falls"
    return ""


def _round_step(value: float) -> float:
    """Return a step of 1, 2 or 5 times a power of ten near `value`."""
    power = 10 ** math.floor(math.log10(value))
    return float(min((1, 2, 5, 10), key=lambda m: abs(m * power - value)) * power)
