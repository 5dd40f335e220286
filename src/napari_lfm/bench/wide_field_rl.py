"""``bench wide-field-rl``: deconvolution of stacks beside scikit-image's, at equal iterations.

Quality on `flowdec`'s bars, whose truth and point spread function are given; the border of a stack that is
cut through an object; time per iteration on 160^3; a measured bead beside models of it.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from scipy.signal import fftconvolve
from skimage.restoration import richardson_lucy

from napari_lfm.api import run as run_method
from napari_lfm.bench._widefield_bead import bead_figures
from napari_lfm.core.events import Event, Preview
from napari_lfm.core.metrics import fit_scale, nrmse, psnr_db
from napari_lfm.core.noise import Noise
from napari_lfm.methods.widefield.solver import Measurement, Options, RichardsonLucy, State
from napari_lfm.optics.stack_blur import StackBlur
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[4] / "shared/data"
ITERATIONS = (5, 10, 20, 50, 100)
VOXEL_UM = (0.3, 0.1, 0.1)
RIM = 8
SIDE = 160
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accelerated": {"accelerate": True},
    "total variation": {"total_variation": 0.002},
    "accelerated, total variation": {"accelerate": True, "total_variation": 0.002},
    "surroundings dark": {"masked_borders": False},
}


def run(progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return quality, border errors, times and the bead; a part whose data are absent is a sentence.

    Returns
    -------
    dict
        ``bars`` and ``border`` (rows of scores), ``speed``, ``bead``.
    """
    say = progress or (lambda _: None)
    say("Bars with truth")
    bars = bars_figures()
    say("A stack cut through an object")
    border = border_figures()
    say(f"Time per iteration on {SIDE}^3")
    speed = speed_figures()
    say("The measured bead")
    bead = bead_figures()
    absent = "not here: ../shared/data beside the checkout"
    return {"bars": bars or absent, "border": border or absent, "speed": speed, "bead": bead or absent}


def bars_figures(folder: Path = DATA / "flowdec/bars-25pct") -> list[dict[str, Any]] | None:
    """Return NRMSE and PSNR by iterations of every way, and of scikit-image; None without the data."""
    if not folder.is_dir():
        return None
    truth, data, psf = (
        tifffile.imread(folder / f"{name}.tif").astype(np.float32) for name in ("actual", "data", "kernel")
    )
    rows = [_row("input", 0, data, truth), _row("constant", 0, np.ones_like(truth), truth)]
    for count in ITERATIONS:
        rows.append(_row("scikit-image", count, theirs(data, psf, count), truth))
    for name, how in WAYS.items():
        for count, volume in ours(data, psf, ITERATIONS, background_counts=0.0, **how).items():
            rows.append(_row(name, count, volume, truth))
    return rows


def border_figures(
    path: Path = DATA / "sdeconv/pollen.tif", half_px: int = 56, count: int = 50
) -> list[dict[str, Any]] | None:
    """Return errors near the cut and away from it, of a pollen grain cut out of its middle.

    The recording by others serves as truth; it is blurred by a wide-field function, given Poisson noise and
    then cut, so that light from beyond the cut is in the data. One scale is fitted per volume.
    """
    if not path.is_file():
        return None
    truth = tifffile.imread(path).astype(np.float32)
    truth = np.clip(truth - np.percentile(truth, 5), 0, None)
    truth *= 200 / np.percentile(truth, 99)
    psf = widefield_psf(WidefieldOptics(1.2, 0.52, 1.333, 1.333), (15, 41, 41), VOXEL_UM)
    clean = np.maximum(fftconvolve(truth, psf, "same"), 0) + 10
    data = np.random.default_rng(0).poisson(clean).astype(np.float32)
    middle = tuple(slice(n // 2 - half_px, n // 2 + half_px) for n in truth.shape[1:])
    cut = (slice(None), *middle)
    truth, data = truth[cut], data[cut]
    rim = np.ones(truth.shape, bool)
    rim[:, RIM:-RIM, RIM:-RIM] = False
    rows = []
    volumes = {
        "unobserved surroundings": ours(data, psf, (count,), background_counts=10.0)[count],
        "surroundings dark": ours(data, psf, (count,), background_counts=10.0, masked_borders=False)[count],
        "scikit-image": theirs(np.maximum(data - 10, 0), psf, count),
    }
    for name, volume in volumes.items():
        scaled = fit_scale(volume[~rim], truth[~rim])[0] * volume
        errors = {
            where: float(np.linalg.norm((scaled - truth)[at]) / np.linalg.norm(truth[at]))
            for where, at in (("border", rim), ("inside", ~rim))
        }
        rows.append({"method": name, "iterations": count, **{f"nrmse_{k}": v for k, v in errors.items()}})
    return rows


def speed_figures(repeats: int = 5) -> dict[str, Any]:
    """Return seconds per iteration, the best of some repeats taken in turns; the peer has one thread only.

    On one thread each, processor seconds are the fair figure on a machine that does other things too.
    """
    rng = np.random.default_rng(0)
    data = rng.poisson(50, (SIDE,) * 3).astype(np.float32)
    psf = widefield_psf(WidefieldOptics(1.2, 0.52, 1.333, 1.333), (33, 33, 33), VOXEL_UM)
    threads = torch.get_num_threads()
    times: dict[str, list[tuple[float, float]]] = {}
    names = ("ours", "dark", "all threads", "dark, all threads")
    solvers = {name: _solver(data, psf, "dark" not in name) for name in names}
    states = {name: solver.start() for name, solver in solvers.items()}
    try:
        for _ in range(repeats):
            for name, solver in solvers.items():
                torch.set_num_threads(threads if "all threads" in name else 1)
                steps = partial(_step, solver, states[name])
                times.setdefault(name, []).append(_timed(steps))
            two = _timed(partial(theirs, data, psf, 2))
            times.setdefault("theirs", []).append((two[0] / 2, two[1] / 2))
    finally:
        torch.set_num_threads(threads)
    wall, cpu = ({name: min(t[k] for t in values) for name, values in times.items()} for k in (0, 1))
    return {
        "stack": [SIDE] * 3,
        "psf": list(psf.shape),
        "seconds_per_iteration": wall["ours"],
        "cpu_seconds_per_iteration": cpu["ours"],
        "cpu_seconds_per_iteration_surroundings_dark": cpu["dark"],
        "seconds_per_iteration_scikit_image": wall["theirs"],
        "cpu_seconds_per_iteration_scikit_image": cpu["theirs"],
        "times_faster": cpu["theirs"] / cpu["ours"],
        "times_faster_surroundings_dark": cpu["theirs"] / cpu["dark"],
        "threads": threads,
        "seconds_per_iteration_all_threads": wall["all threads"],
        "times_faster_all_threads": wall["theirs"] / wall["all threads"],
        "times_faster_surroundings_dark_all_threads": wall["theirs"] / wall["dark, all threads"],
    }


def _step(solver: RichardsonLucy, state: State) -> None:
    for _ in solver.steps(state):
        pass


def ours(data: np.ndarray, psf: np.ndarray, counts: tuple[int, ...], **how: Any) -> dict[int, np.ndarray]:
    """Return the estimates of our method after so many iterations."""
    kept: dict[int, np.ndarray] = {}

    def keep(event: Event) -> None:
        if isinstance(event, Preview) and event.progress.step in counts:
            kept[event.progress.step] = event.image.values.copy()

    run_method(
        "deconvolve-widefield",
        data,
        psf=psf,
        voxel_um=VOXEL_UM,
        device="cpu",
        iterations=max(counts),
        psf_kind="given",
        on_event=keep,
        **how,
    )
    return kept


def theirs(data: np.ndarray, psf: np.ndarray, count: int) -> np.ndarray:
    """Return scikit-image's estimate; it takes the middle for the point, so the point is put there."""
    point = np.unravel_index(int(psf.argmax()), psf.shape)
    half = [int(max(c, n - 1 - c)) for c, n in zip(point, psf.shape, strict=True)]
    pads = [(h - int(c), h - (n - 1 - int(c))) for h, c, n in zip(half, point, psf.shape, strict=True)]
    centred = np.pad(psf / psf.sum(), pads)
    scale = float(data.max())  # it starts from 0.5 everywhere
    found = richardson_lucy(data / scale, centred, num_iter=count, clip=False)  # type: ignore[no-untyped-call]
    return np.asarray(scale * found)


def _row(method: str, count: int, volume: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    scores = {"nrmse": nrmse(volume, truth), "psnr_db": psnr_db(volume, truth)}
    return {"method": method, "iterations": count, **scores}


def _solver(data: np.ndarray, psf: np.ndarray, masked: bool) -> RichardsonLucy:
    blur = StackBlur(psf, data.shape, margin=None if masked else (0, 0, 0))
    measurement = Measurement(torch.from_numpy(data.copy()), None, 10.0, Noise(0, 0, 0, False, "none"))
    return RichardsonLucy(blur, measurement, Options(masked_borders=masked), VOXEL_UM)


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu
