"""Time and memory of refocusing: planes, stacks, a slider's region, a movie; each in a process of its own.

``python -m napari_lfm.bench._refocus_speed CASE MODEL`` prints one case as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._refocus_scenes import open_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.bench._refocus_scenes import Model

PLANE_PX, STACK_PX, VIEW_PX, REGION_PX = 512, 1024, 2048, 512
PLANES = 41
FRAMES, MOVIE_PX = 100, 256
_REPEATS = 7
_AGAIN = 3


def speed(say: Callable[[str], None] = lambda _: None, model: str | None = None) -> dict[str, Any]:
    """Return times and peak memory of every case, and of a GPU where there is one.

    Returns
    -------
    dict
        ``plane``, ``stack``, ``slider``, ``movie``: see `measure`; ``gpu``: ``planes_per_second``, or a
        sentence.
    """
    import torch

    out: dict[str, Any] = {}
    for case in ("plane", "stack", "slider", "movie"):
        say(f"time: {case}")
        out[case] = in_own_process(case, model)
    if torch.cuda.is_available():
        say("time: GPU")
        out["gpu"] = in_own_process("gpu", model)
    else:
        out["gpu"] = "This machine has no GPU that torch can use."
    return out


def in_own_process(case: str, model: str | None) -> dict[str, Any]:
    """Run one case in another process, so that its peak of memory is its own."""
    words = [sys.executable, "-m", "napari_lfm.bench._refocus_speed", case, *([model] if model else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    return dict(json.loads(done.stdout))


def measure(case: str, model: Model) -> dict[str, Any]:
    """Run one case in this process.

    Parameters
    ----------
    case : {"plane", "stack", "slider", "movie", "gpu"}
        *plane*: 512 x 512, ``first_s`` from the image on, ``next_s`` (median) for further planes,
        ``again_s`` (median) for the first plane of further images of that size;
        *stack*: 41 planes of 1024 x 1024, ``seconds``;
        *slider*: the same for a region of 512 in a view of 2048 x 2048;
        *movie*: see `movie`;
        *gpu*: ``planes_per_second`` of 1024 x 1024.
    model : Model
    """
    import torch

    found = _CASES[case](model)
    return {**found, "peak_gib": peak_gib(), "threads": torch.get_num_threads()}


def _plane(model: Model) -> dict[str, float]:
    return _first_and_next(model, PLANE_PX, None)


def _slider(model: Model) -> dict[str, float]:
    low = (VIEW_PX - REGION_PX) // 2
    return _first_and_next(model, VIEW_PX, (low, low, low + REGION_PX, low + REGION_PX))


def _first_and_next(model: Model, side: int, region: Any) -> dict[str, float]:
    image = specimen(side)
    heights = model.domain.range_um * np.linspace(-0.9, 0.9, _REPEATS)
    model.opened(image[:64, :64]).plane(float(heights[0]))  # what only the very first use pays
    started = time.perf_counter()
    refocuser = model.opened(image)
    refocuser.plane(0.35 * model.domain.range_um, region)
    first, times = time.perf_counter() - started, []
    for z in heights:
        started = time.perf_counter()
        refocuser.plane(float(z), region)
        times.append(time.perf_counter() - started)
    again = []
    for _ in range(_AGAIN):
        started = time.perf_counter()
        model.opened(image).plane(0.35 * model.domain.range_um, region)
        again.append(time.perf_counter() - started)
    return {
        "first_s": round(first, 4),
        "next_s": round(statistics.median(times), 4),
        "again_s": round(statistics.median(again), 4),
    }


def _stack(model: Model) -> dict[str, float]:
    image = specimen(STACK_PX)
    started = time.perf_counter()
    model.opened(image).stack(np.linspace(-1, 1, PLANES) * model.domain.range_um)  # type: ignore[arg-type]
    return {"seconds": round(time.perf_counter() - started, 2), "planes": float(PLANES)}


def _gpu(model: Model) -> dict[str, Any]:
    import torch

    model.network.to("cuda")
    refocuser = model.opened(specimen(STACK_PX))
    heights = np.linspace(-1, 1, PLANES) * model.domain.range_um
    refocuser.stack(heights[:3].tolist())
    torch.cuda.synchronize()
    started = time.perf_counter()
    refocuser.stack(heights.tolist())
    torch.cuda.synchronize()
    return {
        "planes_per_second": round(PLANES / (time.perf_counter() - started), 2),
        "name": torch.cuda.get_device_name(),
    }


def movie(model: Model, frames: int = FRAMES, side: int = MOVIE_PX) -> dict[str, Any]:
    """Refocus a movie, every frame to a surface of its own, and stop another one.

    Through the method, as the panel and the command line do it: a tilted surface that drifts.

    Returns
    -------
    dict
        ``seconds``, ``frames``, ``estimated_gib``; ``cancel_s``: the longest time between two events, which
        is how late a stop can come, and ``closed_s``: from closing the run half-way until it has ended.
    """
    from napari_lfm.core.events import Result
    from napari_lfm.core.labelled import labelled
    from napari_lfm.methods.base import Request, get_method, make_parameters

    method, domain = get_method("refocus"), model.domain
    still = specimen(side)
    values = np.stack([np.roll(still, k, 1) for k in range(frames)])
    image = labelled(values, "tyx", dict.fromkeys("yx", domain.pixel_um))
    drift = (0.5 * domain.range_um * np.sin(np.linspace(0, 2 * np.pi, frames))).tolist()
    wishes = {"surface": "tilt", "tilt_x_deg": 1.0, "drift_um": drift}
    entry = model.entry
    name = entry.card.id if entry.source == "bundled" else str(entry.folder)
    request = Request("refocus", {"image": image}, make_parameters(method, wishes), model=name, device="cpu")
    started = last = time.perf_counter()
    longest, result = 0.0, None
    for event in method.run(request):
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        result = event
    seconds = time.perf_counter() - started
    assert isinstance(result, Result)
    made = result.outputs[result.primary]
    assert made.sizes["t"] == frames
    run = method.run(request)
    for k, _ in enumerate(run):
        if k >= frames // 2:
            break
    started = time.perf_counter()
    run.close()  # type: ignore[attr-defined]
    return {
        "seconds": round(seconds, 2),
        "frames": frames,
        "side_px": side,
        "cancel_s": round(longest, 3),
        "closed_s": round(time.perf_counter() - started, 4),
        "estimated_gib": round(method.estimate(request).peak_bytes / 2**30, 2),
    }


def specimen(side: int) -> np.ndarray:
    """Return an image of blurred spots with noise: values do not change the time."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    spots = gaussian_filter((rng.random((side, side)) > 0.999).astype(np.float32), 3.0)
    return np.asarray(rng.poisson(100 + 500 * spots / spots.max()), np.float32)


def peak_gib() -> float:
    """Return the most memory that this process has held."""
    import resource

    unit = 1024 if sys.platform != "darwin" else 1
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


_CASES: dict[str, Callable[[Model], dict[str, Any]]] = {
    "plane": _plane,
    "stack": _stack,
    "slider": _slider,
    "movie": movie,
    "gpu": _gpu,
}


if __name__ == "__main__":
    opened = open_model(sys.argv[2] if len(sys.argv) > 2 else None)
    sys.stdout.write(json.dumps(measure(sys.argv[1], opened)) + "\n")
