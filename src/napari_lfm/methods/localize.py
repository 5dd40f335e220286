"""Neurons in 3-D from one light field: CISTA-net, convolutional sparse coding, phase space."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from napari_lfm.core.events import Event, Progress, Result
from napari_lfm.core.problems import Estimate, Problem, RequestError, raise_for
from napari_lfm.methods.base import InputKind, Parameters

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import pandas as pd

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.lightfield_data import LightfieldData
    from napari_lfm.methods.localization.engine import LocalizeEngine
    from napari_lfm.methods.localization.points import Found
    from napari_lfm.networks.registry import ModelEntry


def default_threshold(algorithm: str, fit: str) -> float:
    """Return the confidence below which there is no point, where nothing else is asked for: scales differ."""
    return 0.5 if algorithm == "csc" and fit == "none" else 0.15


class LocalizeParameters(Parameters):
    """Parameters of `Localize`."""

    algorithm: Literal["cista", "csc", "phase-space"] = "cista"
    """cista: a trained network; csc: convolutional sparse coding of epipolar images by the wave optics;
    phase-space: a sparse fit of the whole light field."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Least confidence of a point; empty: 0.15, and 0.5 for csc without the joint fit."""
    seed_threshold: float = Field(default=0.1, gt=0, le=1)
    """How bright a peak of the central view must be to be looked at, as a share of the brightest."""
    seeds: Literal["dense", "peaks"] = "dense"
    """Where depths are looked for: dense: wherever the central view is bright; peaks: at its peaks alone, as
    published: faster, and neurons that overlap there are missed."""
    z_min_um: float | None = Field(default=None, ge=-1000, le=1000)
    """Lowest depth; empty: the model's, or what the optics resolve."""
    z_max_um: float | None = Field(default=None, ge=-1000, le=1000)
    """Highest depth; empty: the model's, or what the optics resolve."""
    background: Literal["robust", "largest", "none"] = "robust"
    """What is taken off before: robust: the low-rank haze below the sources; largest: the largest singular
    component, as published; none."""
    movie: Literal["activity", "mean"] = "activity"
    """What points of a movie are looked for in: what changes, or the mean of its frames."""
    fit: Literal["joint", "none"] = "joint"
    """What comes after the depth curves of cista and csc: joint: balls at all points are fitted to the light
    field together, and neurons that those hid are looked for in what is left; none: nothing."""
    diameter_um: float | None = Field(default=None, gt=0.5, le=60, json_schema_extra={"advanced": True})
    """Diameter of a typical cell body, for csc's dictionary and the joint fit; empty: the model's, or 11."""
    merge_um: float | None = Field(default=None, ge=0, le=100, json_schema_extra={"advanced": True})
    """Points nearer to each other than this are one neuron; empty: 0.55 diameters."""


class Localize:
    """Points from a raw light field, or from a movie of them, with traces."""

    id: ClassVar[str] = "localize"
    title: ClassVar[str] = "Localise neurons"
    summary: ClassVar[str] = (
        "Finds cell bodies in 3-D in one light field: by CISTA-net, convolutional sparse coding or a "
        "phase-space fit; with confidence, uncertainty and, from movies, traces."
    )
    input_kind: ClassVar[InputKind] = "lightfield"
    makes: ClassVar[str] = "points"
    Parameters: ClassVar[type[LocalizeParameters]] = LocalizeParameters

    def complete(self, request: Request) -> tuple[Request, list[Problem]]:
        """Return the request with the microscope and model that it leaves out, as far as they are known."""
        from napari_lfm.methods.chosen_model import complete

        if _parameters(request).algorithm != "cista":
            return request, []
        return complete(request, self.id)

    def check(self, request: Request) -> list[Problem]:
        """Return what is wrong with a request, in plain words; no heavy work."""
        from napari_lfm.methods.lightfield_data import check_input, expected_cells

        try:
            request, entry = self._settled(request)
        except RequestError as error:
            about_image = check_input(request) if request.microscope is not None else []
            return [*about_image, Problem(error.message, error.remedy, field="model")]
        problems = check_input(request)
        if any(p.severity == "error" for p in problems):
            return problems
        assert request.microscope is not None
        array = request.microscope.lenslets
        if array is not None and array.lattice == "hexagonal":
            return [
                *problems,
                Problem(
                    "Neurons are localised in light fields of square lenslet arrays only, and this one is "
                    "hexagonal.",
                    "Use deconvolve-lightfield.",
                    field="microscope",
                ),
            ]
        if entry is not None:
            from napari_lfm.methods.chosen_model import check_fit

            problems += check_fit(entry.card, request, expected_cells(request)[0])
        try:
            from napari_lfm.methods.localization.setup import depth_bins

            depth_bins(request, entry)
        except RequestError as error:
            problems.append(Problem(error.message, error.remedy, field="z_min_um"))
        return problems

    def estimate(self, request: Request) -> Estimate:
        """Return peak memory and time; how many points there are is not known before."""
        from napari_lfm.methods.lightfield_data import expected_cells
        from napari_lfm.methods.localization.setup import depth_bins
        from napari_lfm.methods.plan import RUNTIME_BYTES

        request, entry = self._settled(request)
        n, cells = expected_cells(request)
        pixels = n * n * cells[0] * cells[1]
        frames = _frames(request)
        seconds = 0.5 + 3e-7 * pixels + 1e-8 * pixels * frames
        # frames, and for a movie two sums in double precision and the footprints of some sixty neurons
        peak = RUNTIME_BYTES + 4 * pixels * (8 + (frames + 70 if frames > 1 else 0))
        algorithm = _parameters(request).algorithm
        if algorithm != "phase-space" and _parameters(request).fit == "joint":
            from napari_lfm.methods.localization.setup import body_um
            from napari_lfm.methods.localization.templates import cost

            bins, body = depth_bins(request, entry), body_um(_parameters(request), entry)
            assert request.microscope is not None
            first, memory = cost(request.microscope, n, (bins[0], bins[-1]), body)
            seconds, peak = seconds + 1e-5 * pixels + first, peak + memory
        if algorithm == "csc":
            seconds += 30.0
        elif algorithm == "phase-space":
            from napari_lfm.methods.localization.phase_space import ITERATIONS, PhaseSpace

            assert request.microscope is not None
            fit = PhaseSpace(request.microscope, n, cells, depth_bins(request, None).tolist())
            g = fit.geometry
            peak += g.matrix_bytes() + max(g.plane_bytes(), 5 * g.vector_bytes())
            seconds += g.build_seconds() + 2 * ITERATIONS * g.product_seconds()
        return Estimate((0, 4), ("point", "column"), int(peak), seconds)

    def run(self, request: Request) -> Iterator[Event]:
        """Rectify, take the background off, find points; traces for a movie."""
        started = time.perf_counter()
        request, entry, data = yield from self._prepared(request)
        if _parameters(request).algorithm == "phase-space":
            found = yield from self._by_phase_space(request, data)
        else:
            found = yield from self._by_epipolar_images(request, data, entry)
        from napari_lfm.methods.localization.movie import read_traces
        from napari_lfm.methods.localization.setup import body_um
        from napari_lfm.methods.localization.table import points_table, traces_table

        points = points_table(found, data, _parameters(request).algorithm)
        outputs: dict[str, Any] = {"points": points}
        if len(data.rectified.image) > 1 and len(found):
            body = body_um(_parameters(request), entry)
            way = _parameters(request).background
            traces = yield from read_traces(data, found.z_um, found.t, found.s, body, way)
            outputs["traces"] = traces_table(traces, data.frame_spacing_s)
        yield self._result(request, entry, data, outputs, time.perf_counter() - started)

    # -- for questions, one after the other ---------------------------------------------------

    def engine(self, request: Request) -> Iterator[Progress | LocalizeEngine]:
        """Make a light field ready for clicks; the engine comes last.

        Raises
        ------
        RequestError
            If the request is wrong, or the algorithm fits the whole light field.
        """
        from napari_lfm.methods.localization.engine import LocalizeEngine

        if _parameters(request).algorithm == "phase-space":
            raise RequestError("Phase space fits the whole light field.", "Choose another algorithm.")
        request, entry, data = yield from self._prepared(request)
        yield (yield from LocalizeEngine.prepare(request, data, entry, _parameters(request).movie))

    def answer(self, request: Request, engine: LocalizeEngine, *, everything: bool = True) -> Result:
        """Return all points that an engine detected last, or an empty table, with the record of the run."""
        from napari_lfm.methods.localization.table import points_table

        started = time.perf_counter()
        request, entry = self._settled(request)
        found = engine.found() if everything else engine.none()
        table = points_table(found, engine.data, _parameters(request).algorithm)
        return self._result(request, entry, engine.data, {"points": table}, time.perf_counter() - started)

    def _prepared(
        self, request: Request
    ) -> Generator[Progress, None, tuple[Request, ModelEntry | None, LightfieldData]]:
        from napari_lfm.methods.lightfield_data import prepare

        request, entry = self._settled(request)
        raise_for(self.check(request))
        data: LightfieldData | None = None
        for event in prepare(request, None if entry is None else entry.card.n_pixels):
            if isinstance(event, Progress):
                yield event
            else:
                data = event
        assert data is not None
        return request, entry, data

    # -- algorithms -------------------------------------------------------------------------

    def _by_epipolar_images(
        self, request: Request, data: LightfieldData, entry: ModelEntry | None
    ) -> Generator[Progress, None, Found]:
        from napari_lfm.methods.localization.engine import LocalizeEngine

        engine = yield from LocalizeEngine.prepare(request, data, entry, _parameters(request).movie)
        yield from engine.detect_steps()
        found = engine.found()
        yield Progress(1, 1, f"{len(found)} points", values={"points": float(len(found))})
        return found

    def _by_phase_space(self, request: Request, data: LightfieldData) -> Generator[Progress, None, Found]:
        from napari_lfm.lightfield.purify import split_background
        from napari_lfm.methods.localization.look import look_at
        from napari_lfm.methods.localization.phase_space import ITERATIONS
        from napari_lfm.methods.localization.setup import make_phase_space, options_of

        look = look_at(data, _parameters(request).movie)
        yield Progress(0, 1, f"Looking for neurons in {look.kind}")
        options = options_of(_parameters(request), None)
        fit = yield from make_phase_space(request, data.microscope, data.n_pixels, data.rectified.cells)
        foreground = split_background(look.views, options.purify)[1]
        sources = np.zeros(0)
        for number, after in enumerate(fit.steps(foreground), 1):
            sources = after
            yield Progress(number, ITERATIONS, f"Iteration {number} of {ITERATIONS}")
        return fit.found(sources, foreground, options.confidence)

    # -- what belongs to a request ----------------------------------------------------------

    def _settled(self, request: Request) -> tuple[Request, ModelEntry | None]:
        """Return the request with its microscope, and the model, for the algorithm that has one."""
        from napari_lfm.methods.chosen_model import choose_model, with_microscope

        if _parameters(request).algorithm != "cista":
            return request, None
        try:
            entry = choose_model(request, self.id)
        except RequestError as error:
            if request.microscope is None or request.model:
                raise
            remedy = f"{error.remedy or ''} The algorithms 'csc' and 'phase-space' need no model.".strip()
            raise RequestError(error.message, remedy) from None
        return with_microscope(request, entry), entry

    def _result(
        self,
        request: Request,
        entry: ModelEntry | None,
        data: LightfieldData,
        outputs: dict[str, pd.DataFrame],
        seconds: float,
    ) -> Result:
        from napari_lfm.core.devices import pick_device
        from napari_lfm.io.provenance import make_provenance
        from napari_lfm.methods.chosen_model import describe_model

        provenance = make_provenance(
            method=self.id,
            parameters=request.parameters,
            inputs=request.inputs,
            sources=request.sources,
            microscope=data.microscope.model_dump(mode="json"),
            lattice=data.lattice.to_json(),
            model=None if entry is None else describe_model(entry),
            device=str(pick_device(request.device)),
            memory_gib=request.memory_gib,
            region_px=request.region_px,
            layout=request.layout,
            figures={"points": len(outputs["points"]), "seconds": round(seconds, 3)},
        )
        for output in outputs.values():
            output.attrs["provenance"] = provenance
        return Result(outputs, "points", provenance)


def _frames(request: Request) -> int:
    image = request.inputs["image"]
    return int(image.sizes["t"]) if image.dims == ("t", "y", "x") else 1


def _parameters(request: Request) -> LocalizeParameters:
    parameters = request.parameters
    assert isinstance(parameters, LocalizeParameters)
    return parameters
