"""``lfmnet``: a volume from a raw light field in one pass of a trained network."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from napari_lfm.core.devices import is_out_of_memory, pick_device
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.base import InputKind, Parameters, Request

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import torch

    from napari_lfm.methods.lfmnet_plan import NetworkPlan
    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.networks.registry import ModelEntry
    from napari_lfm.optics.start import Start


class LfmnetParameters(Parameters):
    """Parameters of the network reconstruction; empty ones are the model's."""

    z_min_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Lowest plane, in micrometres from the native object plane, + towards the objective; empty: the
    model's. Depths that the model was not trained for are refused."""
    z_max_um: float | None = Field(default=None, ge=-5000, le=5000)
    """Highest plane; empty: the model's."""
    refine_iterations: int = Field(default=0, ge=0, le=100)
    """Richardson-Lucy iterations that start from the network's volume; they make it agree with the
    measurement. 0: the network alone."""
    confidence: Literal["none", "flips"] = "none"
    """flips: run the network on all flipped and turned copies of the light field; their mean is the volume,
    and where they differ the layer 'confidence' says so. Takes eight times as long."""
    residual: bool = False
    """Also project the volume back and report how well it explains the measurement (a movie's first
    frame); needs the point spread function, so the first time takes longer."""
    z_step_um: float | None = Field(default=None, gt=0, le=500, json_schema_extra={"advanced": True})
    """Distance between planes; empty: the model's own planes, else they are interpolated."""
    voxels_per_lenslet: int | None = Field(default=None, ge=1, le=65, json_schema_extra={"advanced": True})
    """Voxels across one lenslet; empty: the model's own, else its volume is resampled."""
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", json_schema_extra={"advanced": True}
    )
    """Numbers that the network computes with; auto takes bfloat16 on CUDA devices, and on processors that
    multiply it where a frame takes long; float32 elsewhere."""
    tile_lenslets: int = Field(default=0, ge=0, le=4096, json_schema_extra={"advanced": True})
    """Side of the tiles that the image is worked on in, overlap included, in lenslets; 0: the whole image
    where the memory allows it."""


@dataclass
class _Figures:
    """What a run found out, for the record."""

    scales: list[float]
    offset_counts: float
    values: dict[str, Any]


class Lfmnet:
    """Volume from a raw light field by a trained LFMNet (Page et al. 2021), whole or in tiles."""

    id: ClassVar[str] = "lfmnet"
    title: ClassVar[str] = "LFMNet (trained network)"
    summary: ClassVar[str] = (
        "Turns a raw light field, or a movie of them, into a volume in one pass of a network that was "
        "trained for the microscope; Richardson-Lucy iterations can refine it."
    )
    input_kind: ClassVar[InputKind] = "lightfield"
    Parameters: ClassVar[type[LfmnetParameters]] = LfmnetParameters
    needs_model: ClassVar[bool] = True

    def complete(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return the request with the microscope and model that it leaves out, as far as they are known."""
        from napari_lfm.methods.chosen_model import complete

        return complete(request, self.id)

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.lfmnet_plan import check_request

        return check_request(request)

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak memory and time."""
        from napari_lfm.methods.lfmnet_plan import make_plan, settle

        request, entry = settle(request)
        return make_plan(request, entry).estimate(request)

    def run(self, request: Request) -> Iterator[Event]:
        """Rectify, run the network, refine; yields a Preview for every tile, flip, frame and iteration."""
        from napari_lfm.methods.chosen_model import sized
        from napari_lfm.methods.lfmnet_plan import make_plan, settle
        from napari_lfm.methods.lightfield_data import prepare
        from napari_lfm.networks.registry import open_network

        request, entry = settle(request)
        raise_for(self.check(request))
        started = time.perf_counter()
        data: LightfieldData | None = None
        for event in prepare(request, entry.card.n_pixels):
            if isinstance(event, Progress):
                yield event
            else:
                data = event
        assert data is not None
        # the recording's own lattice may differ from what the request promised
        raise_for(_fits(entry, request, data))
        plan = make_plan(request, entry, data)
        for note in plan.notes:
            yield Progress(0, 1, note)
        device = pick_device(request.device)
        yield Progress(0, 1, f"Opening the model '{entry.card.id}'")
        network = sized(open_network(entry, device), plan.n_pixels)
        yield Progress(1, 1, f"Opening the model '{entry.card.id}'")
        start = yield from _start(plan, device)
        while True:
            try:
                yield from self._frames(request, entry, data, plan, network, device, start, started)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            smaller = plan.with_smaller_tiles()
            if smaller is not None:
                plan = smaller
                yield Progress(0, 1, f"Out of memory; again with tiles of {plan.tile} lenslets")
            elif device.type != "cpu":
                yield Progress(0, 1, f"The {device.type} device is out of memory; going on on the CPU")
                device = pick_device("cpu")
                request = replace(request, device="cpu")
                plan = make_plan(request, entry, data)
                network = sized(open_network(entry, device), plan.n_pixels)
                start = yield from _start(plan, device)
            else:
                raise RequestError(
                    "The memory is not enough for this image.",
                    "Reconstruct a smaller region, or choose a smaller model.",
                )

    # -- the run ----------------------------------------------------------------------------

    def _frames(
        self,
        request: Request,
        entry: ModelEntry,
        data: LightfieldData,
        plan: NetworkPlan,
        network: Any,
        device: torch.device,
        start: Start | None,
        started: float,
    ) -> Iterator[Event]:
        from napari_lfm.methods.lfmnet_passes import Passes, Refiner
        from napari_lfm.methods.network_input import lenslet_gain

        parameters = _parameters(request)
        figures = _Figures([], data.offset_counts, {})
        count = len(data.rectified.image)
        gain = lenslet_gain(data)
        passes = Passes(data, plan, network, device, entry.card.scalers, gain, start)
        model = {"model": plan.model}
        done: np.ndarray | None = None
        sure: np.ndarray | None = None
        refiner: Refiner | None = None
        for frame in range(count):
            volume: np.ndarray | None = None
            for step in passes.run(frame):
                if isinstance(step, Progress):
                    yield step
                    continue
                progress, volume = step
                shown = _beside(done, volume, frame, count)
                yield Preview("volume", plan.label(data, shown), progress, provenance=model)
            assert volume is not None
            figures.scales.append(passes.scale)
            if parameters.refine_iterations:
                if refiner is None:
                    refiner = Refiner(request, data, plan, device)
                for event in refiner.run(frame, volume):
                    if isinstance(event, Progress):
                        yield event
                        continue
                    progress, volume = event
                    shown = _beside(done, volume, frame, count)
                    yield Preview("volume", plan.label(data, shown), progress, provenance=model)
                figures.values |= refiner.figures
            if done is None:
                done = np.empty((count, *volume.shape), np.float32)
            done[frame] = volume
            if passes.confidence is not None:
                if sure is None:
                    sure = np.empty((count, *passes.confidence.shape), np.float32)
                sure[frame] = passes.confidence
        assert done is not None
        outputs = {"volume": plan.label(data, done)}
        if sure is not None:
            outputs["confidence"] = plan.label(data, sure, "confidence")
        figures.values["seconds"] = time.perf_counter() - started
        if parameters.residual:
            for item in _residual(request, data, outputs["volume"]):
                if isinstance(item, Progress):
                    yield item
                else:
                    figures.values |= item
        yield self._result(request, data, plan, outputs, figures, device)

    def _result(
        self,
        request: Request,
        data: LightfieldData,
        plan: NetworkPlan,
        outputs: dict[str, Any],
        figures: _Figures,
        device: torch.device,
    ) -> Result:
        from napari_lfm.io.provenance import make_provenance

        provenance = make_provenance(
            method=self.id,
            parameters=request.parameters,
            inputs=request.inputs,
            sources=request.sources,
            microscope=data.microscope.model_dump(mode="json"),
            lattice=data.lattice.to_json(),
            model=plan.model,
            device=str(device),
            memory_gib=request.memory_gib,
            region_px=request.region_px,
            layout=request.layout,
            figures={
                "input_scale": figures.scales,
                "offset_counts": round(figures.offset_counts, 3),
                "precision": plan.precision,
                "tile_lenslets": plan.tile,
                **figures.values,
            },
        )
        for output in outputs.values():
            output.attrs["provenance"] = provenance
        return Result(outputs, "volume", provenance)


def _start(plan: NetworkPlan, device: torch.device) -> Generator[Progress, None, Start | None]:
    """Build what the network starts from, if it starts from anything; on the CPU where the device is full."""
    try:
        start = plan.make_start(device)
        if start is not None:
            for done, total in start.build_steps():
                yield Progress(done, total, "Computing the optics that the model starts from")
        return start
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    if device.type == "cpu":
        raise RequestError(
            "The memory is not enough for the optics that the model starts from.",
            "Reconstruct a smaller region.",
        )
    return (yield from _start(plan, pick_device("cpu")))


def _parameters(request: Request) -> LfmnetParameters:
    assert isinstance(request.parameters, LfmnetParameters)
    return request.parameters


def _fits(entry: ModelEntry, request: Request, data: LightfieldData) -> list[Problem]:
    from napari_lfm.methods.chosen_model import check_fit
    from napari_lfm.optics.microscope import nearest_odd

    return check_fit(entry.card, request, nearest_odd(data.lattice.pitch_px[1]))


def _beside(done: np.ndarray | None, volume: np.ndarray, frame: int, count: int) -> np.ndarray:
    """Return the frames so far and this one, (frames, z, y, x)."""
    if count == 1 or done is None:
        return volume[None]
    done[frame] = volume  # shown as a part of the whole movie: no copy of what is done already
    return done[: frame + 1]


def _residual(request: Request, data: LightfieldData, volume: Any) -> Iterator[Progress | dict[str, Any]]:
    """Yield how well a volume explains the measurement, as figures."""
    from napari_lfm.methods.reproject import reproject

    yield Progress(0, 1, "Projecting the volume back")
    found = reproject(volume, replace(request, lattice=data.lattice, continue_from=None))
    yield Progress(1, 1, found.message, values={"residual": found.relative_residual})
    yield {
        "relative_residual": found.relative_residual,
        "expected_noise": found.expected_noise,
        "message": found.message,
    }
