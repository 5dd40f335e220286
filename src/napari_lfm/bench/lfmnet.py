"""``bench lfmnet``: the 4-D convolution against a loop, and how long a light field takes to become a volume.

Three sizes: the paper's frame of 1287 x 1287 pixels (39 x 39 lenslets of 33 x 33) to 64 slices with the
published network and with the modern one, and the vesicle's (28 x 28 lenslets of 15 x 15) to 15 planes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_lfm.bench._conv4d_loop import looped_image
from napari_lfm.bench._network_speed import Case, has_modern, once, timed
from napari_lfm.networks.conv4d import Conv4d, half_is_native

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = {
    "paper_1287": Case("paper", "bern-40x0.9", "", 39, 33, 64, 33, 0.9, repeats=2),
    "modern_1287": Case("modern", "bern-40x0.9", "lfmnet-bern-40x0.9", 39, 33, 64, 3, 0.9, repeats=3),
    "modern_guv": Case("modern", "mbl-60x1.2w", "lfmnet-mbl-60x1.2w", 28, 15, 15, 3, 1.0, repeats=10),
}
PAPER_FRAME = (33, 39, 64)


def run(
    progress: Callable[[str], None] | None = None,
    cases: dict[str, Case] | None = None,
    frame: tuple[int, int, int] = PAPER_FRAME,
    repeats: int = 3,
) -> dict[str, Any]:
    """Run every part.

    Parameters
    ----------
    progress : callable, optional
    cases : dict of str to Case, optional
        Networks to time; default `CASES`.
    frame : tuple of int
        Pixels per lenslet, lenslets across and depths for the 4-D convolution.
    repeats : int
        Of each convolution, the two ways in turn.

    Returns
    -------
    dict
        ``conv4d``: a row for each precision with the seconds of both ways and their ``ratio``; and rows for
        each case, see `napari_lfm.bench._network_speed.measure`. A GPU is used where there is one, in
        addition to the processor.
    """
    say = progress or (lambda _: None)
    cuda = torch.cuda.is_available()
    rows = []
    for device in ("cpu", "cuda") if cuda else ("cpu",):
        for dtype in (torch.float32, torch.bfloat16):
            say(f"Timing the 4-D convolution in {str(dtype).removeprefix('torch.')} on {device}")
            # emulated 16 bits take the loop a minute a time
            count = repeats if dtype == torch.float32 or half_is_native(device) else 1
            rows.append(compare_conv4d(dtype, torch.device(device), frame, count))
    out: dict[str, Any] = {"torch_threads": torch.get_num_threads(), "conv4d": rows}
    for name, case in (CASES if cases is None else cases).items():
        if case.profile == "modern" and not has_modern():
            continue
        out[name] = []
        for kind in _kinds(case, cuda):
            say(f"Timing {name} in {kind.precision} on {kind.device}")
            out[name].append(_in_a_process(kind))
    return out


def compare_conv4d(
    dtype: torch.dtype, device: torch.device, frame: tuple[int, int, int], repeats: int
) -> dict[str, Any]:
    """Time LFMNet's first layer both ways, in turn, from the light field to the lenslet image.

    Returns
    -------
    dict
        ``loop_seconds`` and ``one_convolution_seconds`` (medians), ``ratio`` (median over the pairs) and
        ``largest_difference`` of the two in float32, relative to the largest value.
    """
    n, lenslets, depths = frame
    torch.manual_seed(0)
    layer = Conv4d(1, depths).to(device)
    light_field = torch.rand(1, 1, n, n, lenslets + 8, lenslets + 8, device=device)
    with torch.no_grad():
        one, loop = layer.to_image(light_field), looped_image(layer, light_field)
        difference = float((one - loop).abs().max() / loop.abs().max())
        del one, loop
        layer, light_field = layer.to(dtype), light_field.to(dtype)
        ways = (lambda: looped_image(layer, light_field), lambda: layer.to_image(light_field))
        if device.type == "cuda":
            for way in ways:
                timed(way, 0, device)
        pairs = [[once(way, device) for way in ways] for _ in range(repeats)]
    return {
        "device": device.type,
        "precision": str(dtype).removeprefix("torch."),
        "native": dtype == torch.float32 or half_is_native(device),
        "loop_seconds": statistics.median(a for a, _ in pairs),
        "one_convolution_seconds": statistics.median(b for _, b in pairs),
        "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        "largest_difference": difference,
    }


def _kinds(case: Case, cuda: bool) -> list[Case]:
    """Return the case in every precision and on every device that it makes sense on."""
    out = [case]
    if half_is_native("cpu"):
        out.append(replace(case, precision="bfloat16"))
    if cuda:
        more = replace(case, device="cuda", repeats=max(case.repeats, 20))
        out += [more, replace(more, precision="bfloat16"), replace(more, precision="float16")]
    return out


def _in_a_process(case: Case) -> dict[str, Any]:
    """Measure a case in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "napari_lfm.bench._network_speed", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = {"device": case.device, "precision": case.precision}
    if done.returncode:
        return {**told, "failed": done.stderr.strip().splitlines()[-1:]}
    return {**told, **json.loads(done.stdout)}
