"""``bench scale``: time and memory of the deconvolution against lenslets, depths and N.

Each row runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_GIB = 4.0
ITERATIONS = 4


@dataclass(frozen=True)
class Case:
    """One size: a preset, lenslets across, pixels N, planes and their distance."""

    microscope: str
    lenslets: int
    n_pixels: int
    planes: int
    z_step_um: float


CASES = (
    Case("mbl-60x1.2w", 28, 15, 15, 1.0),
    Case("mbl-60x1.2w", 28, 15, 31, 0.5),
    Case("mbl-60x1.2w", 56, 15, 15, 1.0),
    Case("mbl-60x1.2w", 112, 15, 15, 1.0),
    Case("imperial-25x1.0w", 23, 19, 31, 1.0),
    Case("wagner-22x0.5w", 60, 19, 25, 5.0),
    Case("bern-40x0.9", 39, 33, 64, 0.9),
)


def run(progress: Callable[[str], None] | None = None, cases: tuple[Case, ...] = CASES) -> dict[str, Any]:
    """Run every case and return one row for each.

    Returns
    -------
    dict
        ``rows``: the case, ``path`` through the memory, ``operator_mib``, ``build_seconds`` (cold),
        ``seconds_per_iteration`` (median), ``peak_gib`` of the whole process and ``estimated_gib``.
    """
    say = progress or (lambda _: None)
    rows = []
    for case in cases:
        say(f"{case.microscope}: {case.lenslets} lenslets, N = {case.n_pixels}, {case.planes} planes")
        command = [sys.executable, "-m", "napari_lfm.bench.scale", json.dumps(asdict(case))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append({**asdict(case), "failed": done.stderr.strip().splitlines()[-1:]})
        else:
            rows.append({**asdict(case), **json.loads(done.stdout)})
    return {"memory_gib": MEMORY_GIB, "rows": rows}


def measure(case: Case) -> dict[str, Any]:
    """Run one case in this process; random light, since values do not change the time."""
    import os
    import statistics
    import tempfile

    import numpy as np

    from napari_lfm.core.events import Preview
    from napari_lfm.core.labelled import labelled
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield, DeconvolveParameters
    from napari_lfm.methods.plan import make_plan
    from napari_lfm.optics.presets import load_microscope

    microscope = load_microscope(case.microscope)
    size = case.lenslets * case.n_pixels
    frame = np.random.default_rng(0).poisson(200, (size, size)).astype(np.float32)
    step = microscope.object_pixel_um
    low = -case.z_step_um * (case.planes // 2)
    request = Request(
        method=DeconvolveLightfield.id,
        inputs={"image": labelled(frame, ("y", "x"), {"y": step, "x": step})},
        parameters=DeconvolveParameters(
            z_min_um=low,
            z_max_um=low + case.z_step_um * (case.planes - 1),
            z_step_um=case.z_step_um,
            iterations=ITERATIONS,
        ),
        microscope=microscope,
        layout=f"lenslet:{case.n_pixels}",
        memory_gib=MEMORY_GIB,
        device="cpu",
    )
    plan = make_plan(request)
    marks = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_LFM_HOME"] = home
        for event in DeconvolveLightfield().run(request):
            if isinstance(event, Preview):
                marks.append(time.perf_counter())
    steps = [b - a for a, b in itertools.pairwise(marks)]
    return {
        "path": plan.path,
        "operator_mib": round(plan.geometry.matrix_bytes(plan.storage) / 2**20),
        "build_seconds": round(marks[1] - marks[0] - statistics.median(steps), 2),
        "seconds_per_iteration": round(statistics.median(steps), 4),
        "peak_gib": round(_peak_bytes() / 2**30, 2),
        "estimated_gib": round(plan.peak_bytes / 2**30, 2),
    }


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
