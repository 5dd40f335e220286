"""``deconvolve-widefield``: Richardson-Lucy deconvolution of stacks, right at the borders."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from napari_lfm.core.devices import is_out_of_memory
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.widefield.frames import (
    DIMS,
    check_stack_pixels,
    frame_of,
    place_of,
    stack_info,
)
from napari_lfm.methods.widefield.parameters import WidefieldParameters
from napari_lfm.methods.widefield.plan import Plan, make_plan
from napari_lfm.methods.widefield.psf import check_psf

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from napari_lfm.core.noise import Noise
    from napari_lfm.methods.base import InputKind, Request
    from napari_lfm.methods.widefield.solver import RichardsonLucy, State
    from napari_lfm.optics.stack_blur import StackBlur

_STEERING = ("iterations", "auto_stop", "accelerate", "total_variation")
"""Parameters that may change when a run goes on."""
PLATEAU = 0.003
"""Relative gain per iteration below which what is left over counts as flat."""


@dataclass(frozen=True)
class WidefieldState:
    """What a run can go on from; opaque to others."""

    solver: RichardsonLucy
    state: State
    parameters: WidefieldParameters
    plan: Plan
    figures: dict[str, Any]
    seconds: float


@dataclass
class _Course:
    """What one run has made so far."""

    request: Request
    parameters: WidefieldParameters
    plan: Plan
    out: np.ndarray[Any, Any] | None  # of movies and channels; grows frame by frame
    started: float
    figures: dict[str, Any] = field(default_factory=dict)
    last: np.ndarray[Any, Any] | None = None


class DeconvolveWidefield:
    """Stack from a blurred stack, by Richardson-Lucy with the microscope's point spread function."""

    id: ClassVar[str] = "deconvolve-widefield"
    title: ClassVar[str] = "Wide-field deconvolution (Richardson-Lucy)"
    summary: ClassVar[str] = (
        "Takes the blur off a wide-field or confocal stack, an image, or a movie of them: Richardson-Lucy "
        "iterations with the optics' or a measured point spread function. Needs no training."
    )
    input_kind: ClassVar[InputKind] = "stack"
    takes_flat_images: ClassVar[bool] = True
    Parameters: ClassVar[type[WidefieldParameters]] = WidefieldParameters

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        image = request.inputs.get("image")
        if image is None:
            return [Problem("There is no stack.", "Choose an image.", field="image")]
        out: list[Problem] = []
        if request.model:
            out.append(
                Problem(f"{self.id} takes no model ('{request.model}').", "Leave it out.", field="model")
            )
        if request.region_px is not None:
            out.append(Problem("A stack is taken whole.", "Crop it before.", field="region"))
        try:
            info = stack_info(image)
        except RequestError as error:
            return [*out, Problem(error.message, error.remedy, field="image")]
        if min(info.shape[1:]) < 4:
            return [*out, Problem("The image is smaller than 4 x 4 pixels.", "Give more.", field="image")]
        out += check_stack_pixels(image)
        out += check_psf(request, info)
        if not any(p.severity == "error" for p in out):
            try:
                plan = make_plan(request)
            except RequestError as error:
                out.append(Problem(error.message, error.remedy, field="memory_gib"))
            else:
                if plan.blocks > 1:
                    out.append(Problem(f"{plan.sentence}.", severity="info", field="memory_gib"))
        return out

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        plan = make_plan(request)
        image = request.inputs["image"]
        return Estimate(
            tuple(int(n) for n in image.shape),
            tuple(map(str, image.dims)),
            plan.peak_bytes,
            plan.seconds(_parameters(request).iterations),
            (plan.sentence,),
        )

    def run(self, request: Request) -> Iterator[Event]:
        """Choose the point spread function, then iterate frame by frame; yields a Preview per iteration."""
        parameters = _parameters(request)
        if isinstance(request.continue_from, WidefieldState):
            yield from self._go_on(request, request.continue_from, parameters)
            return
        raise_for(self.check(request))
        started = time.perf_counter()
        plan = make_plan(request)
        halvings = 0
        while True:
            yield Progress(0, 1, plan.sentence)
            try:
                yield from self._all_frames(request, parameters, plan, started)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            halvings += 1
            plan = self._smaller(request, plan, halvings)

    def _smaller(self, request: Request, plan: Plan, halvings: int) -> Plan:
        """Return a plan that takes less memory than one that was not enough."""
        try:
            return make_plan(request, plan.half, plan.device, halvings)
        except RequestError:
            if plan.device != "cpu":
                return make_plan(request, plan.half, "cpu")
            raise RequestError(
                "The memory is not enough for this stack.",
                "Crop it, or switch acceleration and total variation off.",
            ) from None

    # -- the run ----------------------------------------------------------------------------

    def _all_frames(
        self, request: Request, parameters: WidefieldParameters, plan: Plan, started: float
    ) -> Iterator[Event]:
        from napari_lfm.methods.widefield.setup import make_blur, prepare_frame

        info, image = plan.info, request.inputs["image"]
        count = info.frames * info.channels
        out = np.zeros((info.frames, info.channels, *info.shape), np.float32) if count > 1 else None
        course = _Course(request, parameters, plan, out, started)
        own_colours = parameters.channel_wavelengths_um is not None and info.channels > 1
        blurs: dict[int, StackBlur] = {}
        solvers: dict[int, RichardsonLucy] = {}
        kept: WidefieldState | None = None
        for number in range(count):
            t, c = divmod(number, info.channels)
            key = c if own_colours else 0
            if key not in blurs:
                yield Progress(0, 1, "Computing the point spread function")
                blurs[key], notes = make_blur(request, plan, c)
                course.figures["psf"] = [*course.figures.get("psf", []), *notes]
                for note in notes:
                    yield Progress(1, 1, note)
            frame = frame_of(image, t, c)
            prepared = prepare_frame(request, plan, blurs[key], frame, solvers.get(key))
            course.figures.setdefault("frames", []).append(prepared.figures)
            yield Progress(1, 1, prepared.sentence)
            if prepared.solver is None:
                continue
            solvers[key] = prepared.solver
            state = prepared.solver.start()
            for event in self._steps(course, prepared.solver, state, (t, c), later=count - 1 - number):
                if isinstance(event, Preview):
                    kept = event.state
                yield event
        yield self._result(course, kept)

    def _go_on(
        self, request: Request, kept: WidefieldState, parameters: WidefieldParameters
    ) -> Iterator[Event]:
        from napari_lfm.methods.widefield.setup import options_of

        info = kept.plan.info
        if info.frames * info.channels > 1:
            raise RequestError(
                "A movie or several channels are worked on one by one and cannot be continued.",
                "Start again with more iterations.",
            )
        new, old = parameters.model_dump(), kept.parameters.model_dump()
        changed = [n for n in new if n not in _STEERING and new[n] != old[n]]
        if changed:
            raise RequestError(
                f"A run cannot go on with another {' and '.join(changed)}.", "Set it back, or start again."
            )
        solver = kept.solver.with_options(options_of(parameters))
        course = _Course(request, parameters, kept.plan, None, time.perf_counter() - kept.seconds)
        course.figures = dict(kept.figures)
        last = kept
        for event in self._steps(course, solver, kept.state.copy(), (0, 0), later=0):
            if isinstance(event, Preview):
                last = event.state
            yield event
        yield self._result(course, last)

    def _steps(
        self, course: _Course, solver: RichardsonLucy, state: State, at: tuple[int, int], later: int
    ) -> Iterator[Progress | Preview]:
        p, info = course.parameters, course.plan.info
        first, total = state.iteration, state.iteration + p.iterations
        where = place_of(at, info)
        begun = time.perf_counter()
        for done in range(1, p.iterations + 1):
            for part, parts in solver.steps(state):
                if part < parts and course.plan.blocks > 1:
                    yield Progress(
                        first + done - 1, total, f"Iteration {first + done}{where}, part {part} of {parts}"
                    )
            each = (time.perf_counter() - begun) / done
            reason = _stop_reason(state, solver.measurement.noise) if p.auto_stop else ""
            rest = 0 if reason else p.iterations - done
            values = {"residual": state.residuals[-1], "iteration": float(state.iteration)}
            if solver.measurement.noise.known:
                values["misfit"] = state.misfits[-1]
            progress = Progress(
                first + done,
                total,
                f"Iteration {state.iteration}{where}" + (f": {reason}" if reason else ""),
                seconds_left=each * (rest + later * p.iterations),
                values=values,
            )
            yield self._preview(course, solver, state, at, progress)
            if reason:
                return

    def _preview(
        self, course: _Course, solver: RichardsonLucy, state: State, at: tuple[int, int], progress: Progress
    ) -> Preview:
        seen = solver.volume(state)
        if course.out is None:
            shown = seen.cpu().numpy()[None, None]
            if course.plan.blocks == 1 and seen.device.type == "cpu":
                shown = shown.copy()  # a stack too large for one block has no room for it: it shares
        else:
            course.out[at] = seen.cpu().numpy()
            # a movie's frames so far; of a single frame the channels so far
            shown = course.out[: at[0] + 1] if len(course.out) > 1 else course.out[:, : at[1] + 1]
        seconds = time.perf_counter() - course.started
        kept = WidefieldState(solver, state, course.parameters, course.plan, course.figures, seconds)
        course.last = shown
        return Preview("deconvolved", _labelled(shown, course.request.inputs["image"]), progress, state=kept)

    def _result(self, course: _Course, kept: WidefieldState | None) -> Result:
        from napari_lfm.io.provenance import make_provenance

        request = course.request
        values = course.out if course.out is not None else course.last
        if values is None:  # a single frame without light
            values = np.zeros((1, 1, *course.plan.info.shape), np.float32)
        record = course.parameters.model_dump()
        figures = {**course.figures, "seconds": time.perf_counter() - course.started}
        if kept is not None:
            if course.out is None:
                record["iterations"] = kept.state.iteration
            figures |= {"relative_residual": kept.state.residuals[-1], "misfit": kept.state.misfits[-1]}
            if course.out is None:  # what stopped by itself is repeated with as many iterations
                record["auto_stop"] = False
        image = _labelled(values, request.inputs["image"])
        provenance = make_provenance(
            method=self.id,
            parameters=record,
            inputs=request.inputs,
            sources=request.sources,
            microscope=None if request.microscope is None else request.microscope.model_dump(mode="json"),
            device=course.plan.device,
            memory_gib=request.memory_gib,
            layout=request.layout,
            input_kind="stack",
            figures=figures,
        )
        image.attrs["provenance"] = provenance
        return Result({"deconvolved": image}, "deconvolved", provenance, state=kept)


def _parameters(request: Request) -> WidefieldParameters:
    assert isinstance(request.parameters, WidefieldParameters)
    return request.parameters


def _labelled(values: np.ndarray[Any, Any], image: xr.DataArray) -> xr.DataArray:
    """Return values (t, c, z, y, x) as an image like the one they were made from."""
    import xarray as xr

    squeezed = values.reshape([n for d, n in zip(DIMS, values.shape, strict=True) if d in image.dims])
    dims = [d for d in DIMS if d in image.dims]
    sizes = dict(zip(dims, squeezed.shape, strict=True))
    coords = {d: image.coords[d][: sizes[d]] for d in dims if d in image.coords}
    kept = {k: image.attrs[k] for k in ("spacing", "affine_um") if k in image.attrs}
    out = xr.DataArray(squeezed, dims=dims, coords=coords, name="deconvolved", attrs=kept)
    return out.transpose(*image.dims)


def _stop_reason(state: State, noise: Noise) -> str:
    misfits = state.misfits if noise.known else [r**2 for r in state.residuals]
    if noise.known and misfits[-1] <= 1:
        return f"what is left over is what noise explains (misfit {misfits[-1]:.3f})"
    if len(misfits) > 4 and misfits[-4] - misfits[-1] < 3 * PLATEAU * misfits[-1]:
        return "what is left over no longer falls"
    return ""
