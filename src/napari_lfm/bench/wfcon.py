"""``bench wfcon``: time, memory and seams of WFCON-Net on large stacks; registration of simulated pairs.

Its scores beside Richardson-Lucy are ``bench wfcon-quality``, which takes longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.bench._registration import registration_rows
from napari_lfm.bench._tissue_scenes import make_stacks
from napari_lfm.core.events import Result
from napari_lfm.core.labelled import labelled
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.networks.stack_fit import voxel_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

LARGE = (76, 2048, 2048)
SEAM_SIDE = 640
"""Pixels across of the stack that is run whole and in tiles."""
SEAM_TILE = 256
_OVERLAPS = (64, 96, 128, 160)


def run(
    progress: Callable[[str], None] | None = None, large: tuple[int, int, int] | None = LARGE
) -> dict[str, Any]:
    """Measure the bundled model.

    Parameters
    ----------
    progress : callable, optional
    large : tuple of int, optional
        Shape of the large stack, uint16; None leaves it out.

    Returns
    -------
    dict
        ``large``: seconds, peak GiB of the process, estimated GiB, tiles; ``seams``: largest and 99.9th
        percentile of the difference between tiles and whole, over the range, by overlap; ``registration``:
        rows of `napari_lfm.bench._registration`.
    """
    say = progress or (lambda _: None)
    say("a stack whole and in tiles")
    out: dict[str, Any] = {"seams": seams()}
    if large is not None:
        say(f"a stack of {large} voxels, in a process of its own")
        out["large"] = in_own_process(large)
    say("registering simulated pairs")
    out["registration"] = registration_rows()
    return out


def in_own_process(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Run one large stack in another process, so that its peak of memory is its own."""
    words = [sys.executable, "-m", "napari_lfm.bench.wfcon", *map(str, shape)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    return dict(json.loads(done.stdout))


def large_stack(shape: tuple[int, int, int]) -> xr.DataArray:
    """Return a stack of simulated tissue, repeated until it is large enough."""
    small = make_stacks("phantoms", "middle", 1)[0].widefield.values
    times = [-(-n // m) for n, m in zip(shape, small.shape, strict=True)]
    # mirrored at every other repetition: no edges that tissue has not
    for axis, count in enumerate(times):
        if count > 1:
            flipped = np.flip(small, axis)
            small = np.concatenate([small if k % 2 == 0 else flipped for k in range(count)], axis)
    cut = small[: shape[0], : shape[1], : shape[2]]
    return labelled(np.ascontiguousarray(cut), "zyx", dict(zip("zyx", _voxel(), strict=True)))


def measure(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return time and memory of one stack in this process."""
    import resource

    import torch

    image = large_stack(shape)
    request = _request(image)
    estimate = get_method("wfcon").estimate(request)
    started = time.perf_counter()
    _result(request)
    seconds = time.perf_counter() - started
    unit = 1024 if sys.platform != "darwin" else 1
    return {
        "shape": list(shape),
        "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2),
        "estimated_gib": round(estimate.peak_bytes / 2**30, 2),
        "threads": torch.get_num_threads(),
        "notes": list(estimate.notes),
    }


def seams() -> list[dict[str, float]]:
    """Return how far a stack in tiles is from the same stack at once, by overlap."""
    image = large_stack((76, SEAM_SIDE, SEAM_SIDE))
    # in float32: rounding to bfloat16 is no seam
    whole = _result(_request(image, precision="float32", tile_px=SEAM_SIDE))
    span = float(whole.max() - whole.min())
    out = []
    for overlap in _OVERLAPS:
        tiled = _result(_request(image, precision="float32", tile_px=SEAM_TILE, overlap_px=overlap))
        difference = np.abs(tiled - whole) / span
        out.append(
            {
                "overlap_px": float(overlap),
                "largest": float(difference.max()),
                "percentile_99.9": float(np.percentile(difference[:, ::2, ::2], 99.9)),
            }
        )
    return out


def _voxel() -> tuple[float, float, float]:
    return voxel_of(_entry().card)


def _entry() -> Any:
    from napari_lfm.networks.registry import list_models

    return next(e for e in list_models("wfcon") if e.source == "bundled" and not e.problem)


def _request(image: xr.DataArray, **wishes: Any) -> Request:
    parameters = make_parameters(get_method("wfcon"), wishes)
    return Request("wfcon", {"image": image}, parameters, model=_entry().card.id)


def _result(request: Request) -> np.ndarray:
    last = deque(get_method("wfcon").run(request), maxlen=1)[0]
    assert isinstance(last, Result)
    return np.asarray(last.outputs[last.primary].values)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(tuple(int(v) for v in sys.argv[1:4]))) + "\n")  # type: ignore[arg-type]
