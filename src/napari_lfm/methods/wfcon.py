"""``wfcon``: a confocal-like stack from a wide-field one by a trained network."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from napari_lfm.core.devices import is_out_of_memory, pick_device
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.base import InputKind, Parameters, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    import xarray as xr

    from napari_lfm.methods.wfcon_plan import WfconPlan
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.fit import Fit
    from napari_lfm.optics.microscope import Microscope


class WfconParameters(Parameters):
    """Parameters of the confocal-like reconstruction."""

    planes: Literal["input", "model"] = "input"
    """Planes of the result: where the input has them, or as close together as the model's, which fills in
    between planes that were recorded far apart."""
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", json_schema_extra={"advanced": True}
    )
    """Numbers that the network computes with; auto takes bfloat16 where the hardware multiplies it."""
    tile_px: int = Field(default=0, ge=0, le=8192, json_schema_extra={"advanced": True})
    """Side of the tiles without their overlap, in pixels of the model; 0: as large as the memory allows, 512
    at most."""
    overlap_px: int = Field(default=160, ge=0, le=1024, json_schema_extra={"advanced": True})
    """What a tile sees of its neighbours on every side, in pixels of the model."""


@dataclass
class _Course:
    """What one run has made so far."""

    plan: WfconPlan
    out: np.ndarray[Any, Any] | None
    started: float
    levels: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: np.ndarray[Any, Any] | None = None


class Wfcon:
    """Confocal-like stack from a wide-field one, by WFCON-Net."""

    id: ClassVar[str] = "wfcon"
    title: ClassVar[str] = "WFCON-Net (wide field to confocal)"
    summary: ClassVar[str] = (
        "Turns a hazy wide-field stack, or a movie of them, into a confocal-like one with a network that was "
        "trained on pairs of both. Compare it with a deconvolution to see how far they agree."
    )
    input_kind: ClassVar[InputKind] = "stack"
    takes_flat_images: ClassVar[bool] = False
    Parameters: ClassVar[type[WfconParameters]] = WfconParameters
    needs_model: ClassVar[bool] = True

    def complete(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return the request with the model that it leaves out, as far as one fits."""
        from napari_lfm.methods.wfcon_plan import choose_stack_model

        if request.model:
            return request, []
        try:
            entry = choose_stack_model(request, self.id)
        except RequestError:
            return request, []
        return replace(request, model=entry.card.id), []

    def fit_card(
        self, card: ModelCard, microscope: Microscope | None, voxel_um: float | tuple[float, ...] | None
    ) -> Fit:
        """Return how a model suits a recording; a single voxel size is that of its pixels."""
        from napari_lfm.networks.stack_fit import check_stack_card, voxel_of

        own = voxel_of(card)
        if voxel_um is None:
            voxel = own
        elif isinstance(voxel_um, int | float):
            voxel = (own[0], float(voxel_um), float(voxel_um))
        else:
            voxel = (float(voxel_um[0]), float(voxel_um[1]), float(voxel_um[2]))
        return check_stack_card(card, voxel, microscope)

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.wfcon_plan import check_request

        return check_request(request, self.id)

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        from napari_lfm.methods.wfcon_plan import make_plan

        return make_plan(request, self.id).estimate(request)

    def run(self, request: Request) -> Iterator[Event]:
        """Run the network tile by tile; yields a Preview for every tile."""
        from napari_lfm.methods.wfcon_plan import make_plan

        raise_for(self.check(request))
        started = time.perf_counter()
        plan = make_plan(request, self.id)
        for note in plan.notes:
            yield Progress(0, 1, note)
        while True:
            try:
                yield from self._frames(request, plan, started)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            smaller = plan.with_smaller_tiles()
            if smaller is not None:
                plan = smaller
                yield Progress(0, 1, f"Out of memory; again with tiles of {plan.tiling.core[1]} pixels")
            elif plan.device != "cpu":
                yield Progress(0, 1, f"The {plan.device} device is out of memory; going on on the CPU")
                plan = make_plan(replace(request, device="cpu"), self.id)
            else:
                raise RequestError("The memory is not enough for this stack.", "Crop it.")

    # -- the run ----------------------------------------------------------------------------

    def _frames(self, request: Request, plan: WfconPlan, started: float) -> Iterator[Event]:
        from napari_lfm.methods.widefield.frames import frame_of
        from napari_lfm.networks.registry import open_network

        device = pick_device(plan.device)
        yield Progress(0, 1, f"Opening the model '{plan.entry.card.id}'")
        network: Any = open_network(plan.entry, device)
        info = plan.info
        count = info.frames * info.channels
        out = np.zeros((info.frames, info.channels, *plan.out_shape), np.float32) if count > 1 else None
        course = _Course(plan, out, started)
        for number in range(count):
            t, c = divmod(number, info.channels)
            frame = frame_of(request.inputs["image"], t, c)
            yield from self._one(request, course, network, device, frame, number, count)
        yield self._result(request, course)

    def _one(
        self,
        request: Request,
        course: _Course,
        network: Any,
        device: torch.device,
        frame: np.ndarray[Any, Any],
        number: int,
        count: int,
    ) -> Iterator[Event]:
        from napari_lfm.methods.stack_tiles import run_stack_tiles
        from napari_lfm.methods.wfcon_plan import hold_statistics, lit_levels, to_model_grid, to_output_grid
        from napari_lfm.methods.widefield.frames import place_of

        plan = course.plan
        where = place_of(divmod(number, plan.info.channels), plan.info)
        levels, note = lit_levels(frame, plan.scalers)
        if note:
            note = f"{where[2:].capitalize()}: {note}" if where else note
            course.notes.append(note)
            yield Progress(0, 1, note)
        if levels is None:
            self._keep(course, np.zeros(plan.out_shape, np.float32), number)
            return
        course.levels.append({"low": levels.low, "high": levels.high})
        stack = to_model_grid(frame, plan)
        begun, tiles = time.perf_counter(), plan.tiling.count
        if network.has_statistics:
            yield Progress(0, tiles, "Measuring the stack's statistics")
            hold_statistics(network, stack, plan, levels, device)
        made: np.ndarray[Any, Any] | None = None
        shown_at = 0.0
        for done, made in run_stack_tiles(network, stack, plan.tiling, levels.scaled, device, plan.bfloat16):
            now = time.perf_counter()
            left = (now - begun) / done * (tiles - done + tiles * (count - 1 - number))
            which = f"Tile {done} of {tiles}" if tiles > 1 else "The network has seen the stack"
            progress = Progress(number * tiles + done, count * tiles, which + where, seconds_left=left)
            # a preview of a large stack takes time of its own: not more often than every other second
            if done < tiles and now - shown_at > 2 and not plan.resampled:
                shown_at = now
                shown = levels.grey(made)
                part = self._part(request, course, shown, number)
                yield Preview("confocal-like", part, progress, provenance=_model_record(plan))
            else:
                yield progress
        assert made is not None
        self._keep(course, levels.grey(to_output_grid(made, plan)), number)
        if number + 1 < count:
            said = f"{where[2:].capitalize()} is done"
            progress = Progress((number + 1) * tiles, count * tiles, said)
            part = self._part(request, course, None, number)
            yield Preview("confocal-like", part, progress, provenance=_model_record(plan))

    def _keep(self, course: _Course, stack: np.ndarray[Any, Any], number: int) -> None:
        if course.out is None:
            course.last = stack[None, None]
        else:
            course.out[divmod(number, course.plan.info.channels)] = stack

    def _part(
        self, request: Request, course: _Course, stack: np.ndarray[Any, Any] | None, number: int
    ) -> xr.DataArray:
        """Return what is there so far, as an image."""
        if course.out is None:
            assert stack is not None
            return course.plan.label(stack[None, None], request.inputs["image"])
        t, c = divmod(number, course.plan.info.channels)
        if stack is not None:
            course.out[t, c] = stack
        shown = course.out[: t + 1] if len(course.out) > 1 else course.out[:, : c + 1]
        return course.plan.label(shown, request.inputs["image"])

    def _result(self, request: Request, course: _Course) -> Result:
        from napari_lfm.io.provenance import make_provenance

        plan = course.plan
        values = course.out if course.out is not None else course.last
        assert values is not None
        image = plan.label(values, request.inputs["image"])
        provenance = make_provenance(
            method=self.id,
            parameters=request.parameters,
            inputs=request.inputs,
            sources=request.sources,
            microscope=None if request.microscope is None else request.microscope.model_dump(mode="json"),
            **_model_record(plan),
            device=plan.device,
            memory_gib=request.memory_gib,
            layout=request.layout,
            input_kind="stack",
            figures={
                "levels": course.levels,
                "tiles": plan.tiling.count,
                "precision": "bfloat16" if plan.bfloat16 else "float32",
                "notes": [*plan.notes, *course.notes],
                "seconds": time.perf_counter() - course.started,
            },
        )
        image.attrs["provenance"] = provenance
        return Result({"confocal-like": image}, "confocal-like", provenance)


def _model_record(plan: WfconPlan) -> dict[str, Any]:
    """Return what the record of a result, or of a preview that is kept, says of the model."""
    from napari_lfm.methods.chosen_model import describe_model

    return {"model": describe_model(plan.entry)}
