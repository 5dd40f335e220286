"""What the *Localize* panel does off the GUI thread: make a light field ready, and find its points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.events import Progress, Result
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.localization.engine import LocalizeEngine
    from napari_lfm.widgets.localize_traces import MovieTraces


class Stopped(Exception):
    """The user gave the run up."""


@dataclass(frozen=True)
class Answer:
    """What a run or a click has found; the engine where the algorithm has one."""

    points: pd.DataFrame
    engine: LocalizeEngine | None
    provenance: dict[str, Any]
    traces: MovieTraces | None = None


def find(
    request: Request, engine: LocalizeEngine | None, report: Callable[[Progress], None], *, everything: bool
) -> Answer:
    """Make the engine ready if it is not, and find all points if wanted (worker thread)."""
    import_torch_gently()
    leave_a_core()
    from napari_lfm.methods.localize import Localize

    method = Localize()
    parameters: Any = request.parameters
    if parameters.algorithm == "phase-space":
        last: Any = None
        for step in method.run(request):
            if isinstance(step, Progress):
                report(step)
            last = step
        assert isinstance(last, Result)
        points: Any = last.outputs["points"]
        return Answer(points, None, last.provenance, _traces_in(last))
    if engine is None:
        for event in method.engine(request):
            if isinstance(event, Progress):
                report(event)
            else:
                engine = event
        assert engine is not None
    if everything:
        for event in engine.detect_steps():
            report(event)
    result = method.answer(request, engine, everything=everything)
    table: Any = result.outputs["points"]
    return Answer(table, engine, result.provenance)


def _traces_in(result: Result) -> MovieTraces | None:
    """Return the traces that a run has read itself."""
    from napari_lfm.widgets.localize_traces import MovieTraces

    points: Any = result.outputs["points"]
    table: Any = result.outputs.get("traces")
    if table is None:
        return None
    light = table.pivot(index="frame", columns="neuron", values="light")[points["neuron"].tolist()]
    time = table["t_s"].unique()
    spacing = float(time[1] - time[0]) if len(time) > 1 else None
    return MovieTraces(points[["z_um", "y_um", "x_um"]].to_numpy(float), light.to_numpy(float), spacing)


def traces_of(engine: LocalizeEngine, places: np.ndarray, report: Callable[[Progress], None]) -> MovieTraces:
    """Read the light of neurons at places (n, 3) in every frame (worker thread)."""
    from napari_lfm.widgets.localize_traces import MovieTraces

    steps = engine.traces_at(places)
    while True:
        try:
            report(next(steps))
        except StopIteration as end:
            return MovieTraces(np.array(places), end.value, engine.data.frame_spacing_s)
