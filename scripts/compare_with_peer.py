"""Hold our GUV volume against another program's: correlation, and the two times.

    python scripts/compare_with_peer.py PEER.tif PEER_SECONDS_PER_ITERATION [OURS.tif]

``PEER.tif`` is a volume of 15 planes, -7..7 um in 1 um steps, 3 voxels per lenslet, made by napari-LF
0.1.7 from the same recording; both directions of its z axis are tried. Writes one JSON object to stdout.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time

import numpy as np
import tifffile

from napari_lfm.bench.light_field_rl import guv_inputs
from napari_lfm.core.events import Preview, Result
from napari_lfm.io.write import write_result
from napari_lfm.methods.base import Request
from napari_lfm.methods.deconvolve_lightfield import DeconvolveLightfield, DeconvolveParameters
from napari_lfm.optics.presets import load_microscope


def main() -> None:
    """Run ours once, read theirs, compare."""
    peer = tifffile.imread(sys.argv[1]).astype(float)
    peer_seconds = float(sys.argv[2])
    inputs = guv_inputs()
    if inputs is None:
        sys.exit("The GUV recording is not at ../shared/data.")
    out: dict[str, float | list[int]] = {"peer_shape": list(peer.shape)}
    for name, anti_aliasing in (("plain", False), ("default", True)):
        request = Request(
            method=DeconvolveLightfield.id,
            inputs=inputs,
            parameters=DeconvolveParameters(anti_aliasing=anti_aliasing),
            microscope=load_microscope("mbl-60x1.2w"),
            device="cpu",
        )
        marks: list[float] = []
        result: Result | None = None
        begun = time.perf_counter()
        for event in DeconvolveLightfield().run(request):
            if isinstance(event, Preview):
                marks.append(time.perf_counter())
            elif isinstance(event, Result):
                result = event
        assert result is not None
        seconds = statistics.median(b - a for a, b in itertools.pairwise(marks))
        ours = np.asarray(result.outputs["volume"], float)
        out[f"{name}_whole_run_seconds"] = round(time.perf_counter() - begun, 3)
        out[f"{name}_seconds_per_iteration_with_preview"] = round(seconds, 4)
        out[f"{name}_times_faster_per_iteration"] = round(peer_seconds / seconds, 1)
        for flipped in (False, True):
            theirs = peer[::-1] if flipped else peer
            key = f"{name}_correlation_{'mirrored' if flipped else 'as_is'}"
            out[key] = round(_correlation(ours, theirs), 4)
        if len(sys.argv) > 3 and name == "default":
            write_result(sys.argv[3], result)
    sys.stdout.write(json.dumps(out, indent=1) + "\n")


def _correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the best Pearson correlation over whole-voxel lateral shifts: the two crop differently."""
    ny, nx = (min(a, b) for a, b in zip(ours.shape[1:], theirs.shape[1:], strict=True))
    planes = min(len(ours), len(theirs))
    a = np.fft.rfftn(_normal(ours[:planes, :ny, :nx]), axes=(1, 2))
    b = np.fft.rfftn(_normal(theirs[:planes, :ny, :nx]), axes=(1, 2))
    return float(np.fft.irfftn((a * b.conj()).sum(0), s=(ny, nx), axes=(0, 1)).max())


def _normal(volume: np.ndarray) -> np.ndarray:
    centred: np.ndarray = volume - volume.mean()
    return centred / np.linalg.norm(centred)


if __name__ == "__main__":
    main()
