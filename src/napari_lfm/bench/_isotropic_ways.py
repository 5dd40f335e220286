"""Ways to make a stack isotropic, and what they are scored by.

- *linear*, *cubic*: interpolation between planes.
- *Richardson-Lucy* along z, plain, on the new planes, with the true blur and the true sampling in its model.
- *network*: ours, by the training loop and the passes that the method itself runs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from napari_lfm.bench._isotropic_scenes import OFFSET
from napari_lfm.core.metrics import psnr_db, ssim
from napari_lfm.core.shell_correlation import AGAINST_TRUTH, shell_correlation
from napari_lfm.methods.isotropic.restore import Restored, restore_stack
from napari_lfm.methods.train_isotropic_wish import (
    IsotropicWish,
    config_of,
    make_isotropic_wish,
    patches_plan_of,
    plan_of,
)
from napari_lfm.training.checkpoint import BEST, load_module_weights
from napari_lfm.training.events import TrainResult
from napari_lfm.training.isotropic import IsotropicTask
from napari_lfm.training.isotropic_degradation import modern_degradation
from napari_lfm.training.isotropic_patches import LEVELS, LateralPatches
from napari_lfm.training.isotropic_resampling import fine_length, interpolate_planes
from napari_lfm.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from napari_lfm.bench._isotropic_scenes import Case
    from napari_lfm.core.events import Progress

ITERATIONS = (2, 5, 10, 20, 40)
_LEAST = 1e-3


def linear(case: Case) -> np.ndarray:
    """Return planes a pixel apart, interpolated linearly: what the networks start from."""
    coarse = torch.from_numpy(case.stack.astype(np.float32)).movedim(0, -1)
    return np.asarray(interpolate_planes(coarse, case.factor).movedim(-1, 0).numpy())


def cubic(case: Case) -> np.ndarray:
    """Return planes a pixel apart by cubic splines."""
    planes = len(case.stack)
    at = np.arange(fine_length(planes, case.factor)) / case.factor
    spline = CubicSpline(np.arange(planes), case.stack.astype(np.float32), axis=0)
    return np.asarray(spline(at), np.float32)


def richardson_lucy(case: Case, iterations: tuple[int, ...] = ITERATIONS) -> dict[int, np.ndarray]:
    """Return Richardson-Lucy's estimates after these numbers of iterations.

    Every column by itself: the stack is every `factor`-th plane of the new planes under the true blur, and
    the offset of the camera is known. For whole factors.
    """
    light = torch.from_numpy(case.stack.astype(np.float32) - OFFSET).clamp(min=0).movedim(0, -1)
    count = fine_length(len(case.stack), case.factor)
    blurred = gaussian_filter1d(np.eye(count), case.sigma_px, axis=0, mode="nearest")
    model = torch.from_numpy(blurred[:: int(case.factor)].astype(np.float32))
    seen = model.sum(0).clamp(min=_LEAST)
    estimate = interpolate_planes(light, case.factor).clamp(min=_LEAST)
    out = {}
    for k in range(1, max(iterations) + 1):
        ratio = light / (estimate @ model.T).clamp(min=_LEAST)
        estimate = estimate * (ratio @ model) / seen
        if k in iterations:
            out[k] = estimate.movedim(-1, 0).numpy() + np.float32(OFFSET)
    return out


def wish_of(
    steps: int | None = None,
    minutes: float | None = None,
    start: str = "none",
    precision: str = "auto",
    **tuning: Any,
) -> IsotropicWish:
    """Return how the method trains, for so many steps or minutes, from a model or from random weights."""
    # the stack is handed over by `patches_of`; the wish wants to know its name
    how = {"layers": ["bench"], "start_from": start, "precision": precision, "device": "cpu"}
    return make_isotropic_wish({**how, "steps": steps, "minutes": minutes, "tuning": tuning})


def patches_of(case: Case, wish: IsotropicWish, sigma_px: float | None = None) -> LateralPatches:
    """Return the stack's own slices to train on, degraded with the true blur unless another is given."""
    sigma = case.sigma_px if sigma_px is None else sigma_px
    degradation = modern_degradation(case.factor, sigma, channels=[case.stack])
    return LateralPatches(case.stack, degradation, patches_plan_of(wish))


@dataclass(frozen=True)
class Learnt:
    """A network after its training, with the seconds that it took (wall, and of processor)."""

    network: nn.Module
    steps: int
    wall_s: float
    busy_s: float


def learnt(task: IsotropicTask, wish: IsotropicWish) -> Learnt:
    """Train by the loop that the method uses, with its settings; the best weights."""
    wall, busy = time.perf_counter(), time.process_time()
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        for event in train(task, config_of(wish), folder):
            if isinstance(event, TrainResult):
                done = event.step
        weights = load_module_weights(Path(folder) / BEST, "network")
    network = task.modules["network"]
    network.load_state_dict(weights)
    spent = time.perf_counter() - wall, time.process_time() - busy
    return Learnt(network.eval(), done, *spent)


def new_task(
    source: LateralPatches, wish: IsotropicWish, start: Mapping[str, torch.Tensor] | None = None
) -> IsotropicTask:
    """Return the training of our network as the method sets it up."""
    return IsotropicTask(source, plan_of(wish), wish.seed, start)


def levels_of(stack: np.ndarray) -> tuple[float, float]:
    """Return the grey values that become 0 and 1."""
    low, high = (float(v) for v in np.percentile(stack, LEVELS))
    return low, high


def restored(
    network: nn.Module, case: Case, bfloat16: bool = False, on_event: Callable[[], None] | None = None
) -> np.ndarray:
    """Return a stack through a network, both passes."""
    for event in _events(network, case, bfloat16):
        if on_event is not None:
            on_event()
        if isinstance(event, Restored):
            out: np.ndarray = event.image[0]
            return out
    raise AssertionError("nothing was restored")


def _events(network: nn.Module, case: Case, bfloat16: bool) -> Iterator[Progress | Restored]:
    return restore_stack(
        network,
        case.stack[None],
        case.factor,
        [levels_of(case.stack)],
        bfloat16=bfloat16,
        uncertainty=False,
    )


def scores(result: np.ndarray, case: Case, full: bool = True) -> dict[str, float | None]:
    """Return PSNR (least-squares factor, range of the truth), SSIM, and resolution along z and x.

    The resolution is where the Fourier shell correlation with the truth, along the axis, falls below 0.378.
    """
    given, truth = result - OFFSET, case.truth - OFFSET
    out: dict[str, float | None] = {"psnr_db": psnr_db(given, truth)}
    if full:
        out["ssim"] = ssim(given, truth)
        found = shell_correlation(given, truth, (case.pixel_um,) * 3, threshold=AGAINST_TRUTH).resolution_um
        out |= {"resolution_z_um": found["z"], "resolution_x_um": found["x"]}
    return out
