"""Time: steps of the training beside CSBDeep's, and a large stack restored, with its memory.

``python -m napari_lfm.bench._isotropic_speed PLANES SIDE FACTOR`` restores one stack and prints JSON.
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
import torch

from napari_lfm.bench._isotropic_csbdeep import CsbDeep
from napari_lfm.bench._isotropic_scenes import Case, recorded, simulated
from napari_lfm.bench._isotropic_ways import new_task, patches_of, wish_of
from napari_lfm.methods.train_isotropic_wish import config_of
from napari_lfm.training.config import uses_bfloat16
from napari_lfm.training.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str], None]

ROUNDS, STEPS, PATCH_PX, BATCH = 5, 4, 128, 16
LARGE = (100, 1024, 4)
"""Planes, side and factor of the stack that is restored."""


def training_speed(
    say: Say = lambda _: None,
    csbdeep: str | None = None,
    case: Case | None = None,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    patch_px: int = PATCH_PX,
) -> dict[str, Any]:
    """Return steps per second of ours and of CSBDeep's, taking turns, with one thread each.

    A step: 16 patches, forward, backward and Adam; ours also draws and degrades its patches, CSBDeep's are
    there already. Seconds of processor, so that other work on the machine does not count.

    Returns
    -------
    dict
        ``ours`` (as it comes: half precision where the processor multiplies it), ``ours_float32`` and
        ``csbdeep``: median steps per second; ``drawing_share`` of ours; ``patch_px``, ``batch``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        case = recorded("membranes", simulated("membranes"), 4) if case is None else case
        ours = {
            "ours": _Ours(case, patch_px, "auto"),
            "ours_float32": _Ours(case, patch_px, "float32"),
        }
        spent: dict[str, list[float]] = {}
        peer = CsbDeep(csbdeep) if csbdeep else None
        try:
            if peer is not None:
                peer.ask("fresh", seed=0, steps=1, epochs=1, batch=BATCH)
                peer.ask("steps", count=2, batch=BATCH, side=patch_px)
            for k in range(rounds):
                say(f"steps per second, round {k + 1} of {rounds}")
                for name, one in ours.items():
                    spent.setdefault(name, []).append(one.steps(steps) / steps)
                if peer is not None:
                    took = peer.ask("steps", count=steps, batch=BATCH, side=patch_px)["busy_s"]
                    spent.setdefault("csbdeep", []).append(took / steps)
        finally:
            if peer is not None:
                peer.close()
    finally:
        torch.set_num_threads(threads)
    out: dict[str, Any] = {name: 1 / statistics.median(seconds) for name, seconds in spent.items()}
    share = ours["ours"].drawing_s / max(ours["ours"].all_s, 1e-9)
    return {**out, "drawing_share": share, "patch_px": patch_px, "batch": BATCH}


class _Ours:
    """The training loop's engine, a step at a time."""

    def __init__(self, case: Case, patch_px: int, precision: str) -> None:
        wish = wish_of(steps=1000, precision=precision, patch_px=patch_px, batch_size=BATCH)
        self.task = new_task(patches_of(case, wish), wish)
        self.engine = Engine(self.task, config_of(wish))
        self.done, self.drawing_s, self.all_s = 0, 0.0, 0.0
        self.steps(2)
        self.drawing_s = self.all_s = 0.0

    def steps(self, count: int) -> float:
        """Return the seconds of processor that so many steps take."""
        begun = time.process_time()
        for _ in range(count):
            self.engine.step(self.done, 1.0, self._batch)
            self.done += 1
        spent = time.process_time() - begun
        self.all_s += spent
        return spent

    def _batch(self) -> dict[str, torch.Tensor]:
        begun = time.process_time()
        batch = self.task.batch(self.done)
        self.drawing_s += time.process_time() - begun
        return batch


def large_stack(
    say: Say = lambda _: None, planes: int = LARGE[0], side: int = LARGE[1], factor: int = LARGE[2]
) -> dict[str, Any]:
    """Return what restoring a stack takes, in a process of its own, with all threads of this machine.

    Returns
    -------
    dict
        ``seconds``, ``peak_gib`` of the process, ``result_gib`` (image and disagreement), ``longest_s``
        between two moments at which it can be stopped, ``shape`` of the result, ``bfloat16``, ``threads``.
    """
    say(f"restoring {planes} x {side} x {side}, factor {factor}")
    words = [sys.executable, "-m", "napari_lfm.bench._isotropic_speed", str(planes), str(side), str(factor)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    return dict(json.loads(done.stdout))


def restore_once(planes: int, side: int, factor: int) -> dict[str, Any]:
    """Restore a stack of blurred noise with a network of random weights."""
    from scipy.ndimage import gaussian_filter

    from napari_lfm.bench._refocus_speed import peak_gib
    from napari_lfm.methods.isotropic.restore import Restored, restore_stack
    from napari_lfm.networks.isotropic import make_network

    rng = np.random.default_rng(0)
    stack = np.empty((1, planes, side, side), np.uint16)
    for k in range(planes):
        stack[0, k] = 1000 + 3000 * gaussian_filter(rng.random((side, side), np.float32), 3)
    bfloat16 = uses_bfloat16("auto", torch.device("cpu"))
    torch.manual_seed(0)
    network = make_network().eval()
    longest, begun = 0.0, time.perf_counter()
    last = begun
    shape: list[int] = []
    result_gib = 0.0
    for event in restore_stack(network, stack, factor, [(1000.0, 3000.0)], bfloat16=bfloat16):
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if isinstance(event, Restored):
            shape = list(event.image.shape[1:])
            held = [event.image, event.disagreement]
            result_gib = sum(part.nbytes for part in held if part is not None) / 2**30
    seconds = last - begun
    return {
        "seconds": seconds,
        "peak_gib": peak_gib(),
        "result_gib": result_gib,
        "longest_s": longest,
        "shape": shape,
        "bfloat16": bfloat16,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(restore_once(*(int(word) for word in sys.argv[1:4]))))
