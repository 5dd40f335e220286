"""``napari-lfm doctor``: what is here, how fast it is, and what to do about problems."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from napari_lfm import __version__
from napari_lfm.cli._console import Answer, Json, command, log_dir, say, size

Status = Literal["ok", "note", "problem"]
_MARK = {"ok": "ok  ", "note": "note", "problem": "FAIL"}
_LOW_MEMORY = 3 * 2**30
_LOW_DISK = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    status : {"ok", "note", "problem"}
        ``problem`` keeps the program from working; ``note`` is worth knowing.
    detail : str
        What was found.
    remedy : str
        What to do about it.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


@command
def doctor(as_json: Json = False) -> Answer:
    """Look at devices, versions and folders, time a self-check, say what to do about problems."""
    from napari_lfm.cli._machine import machine

    say("Looking around; the self-check takes a few seconds.")
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check()
        except Exception as error:  # a broken library is exactly what a doctor must survive
            name = check.__name__.removeprefix("check_").replace("_", " ")
            found.append(
                Finding(name, "problem", f"{type(error).__name__}: {error}", "Reinstall napari-lfm.")
            )
    figures: dict[str, Any] = {}
    try:
        figures = self_check()
        found.append(judge(figures))
    except Exception as error:
        found.append(
            Finding("self-check", "problem", f"{type(error).__name__}: {error}", "Please report this.")
        )
    failed = any(f.status == "problem" for f in found)
    lines = [
        f"{_MARK[f.status]}  {f.name}: {f.detail}" + (f"\n      -> {f.remedy}" if f.remedy else "")
        for f in found
    ]
    lines.append("Something needs mending, see above." if failed else "Ready to run.")
    try:
        here = machine()
    except (ImportError, OSError):
        here = {}
    data = {
        "healthy": not failed,
        "findings": [asdict(f) for f in found],
        "self_check": figures,
        "machine": here,
    }
    return Answer(data, "\n".join(lines), exit_status=1 if failed else 0)


def check_versions() -> Iterator[Finding]:
    """Look at the versions of what matters."""
    parts = [f"napari-lfm {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{n} {metadata.version(n)}" for n in ("torch", "numpy", "scipy", "xarray", "tifffile")]
    yield Finding("versions", "ok", ", ".join(parts))
    if metadata.entry_points(group="napari.manifest").select(name="napari-lfm"):
        yield Finding("plugin", "ok", "announced to napari")
    else:
        yield Finding(
            "plugin",
            "note",
            "not installed as a package, so napari does not see it",
            "pip install napari-lfm",
        )


def check_devices() -> Iterator[Finding]:
    """Look at processors and accelerators."""
    import torch

    from napari_lfm.cli._machine import cpu_name, usable_cores

    cores, threads = usable_cores(), torch.get_num_threads()
    few = threads < min(cores, 2)
    limit = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        "CPU",
        "note" if few else "ok",
        f"{cpu_name()}, {cores} cores, torch uses {threads} threads",
        f"OMP_NUM_THREADS={limit} holds torch back; unset it." if few and limit else "",
    )
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(k)
            name = torch.cuda.get_device_name(k)
            yield Finding("CUDA", "ok", f"{name}, {size(free)} of {size(total)} free")
    elif torch.version.cuda is None:
        yield Finding(
            "CUDA",
            "ok" if not _has_nvidia() else "note",
            "none; this torch is built for the CPU",
            "An NVIDIA card is here: install the CUDA build of torch (pytorch.org, 'Get started')."
            if _has_nvidia()
            else "",
        )
    else:
        yield Finding(
            "CUDA",
            "note",
            f"torch is built for CUDA {torch.version.cuda} but finds no usable card",
            "Update the NVIDIA driver, or go on with the CPU: everything works there.",
        )
    if torch.backends.mps.is_available():
        yield Finding("MPS", "ok", "Apple GPU usable")


def _has_nvidia() -> bool:
    return (
        Path("/proc/driver/nvidia/version").exists() or Path(r"C:\Windows\System32\nvidia-smi.exe").exists()
    )


def check_memory() -> Iterator[Finding]:
    """Look at free memory and disk."""
    import shutil

    from napari_lfm.core.devices import available_bytes
    from napari_lfm.optics.cache import cache_dir

    free = available_bytes("cpu")
    low = free < _LOW_MEMORY
    yield Finding(
        "memory",
        "note" if low else "ok",
        f"{size(free)} free",
        "Close other programs, reconstruct a region, or set --memory-gib." if low else "",
    )
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    left = shutil.disk_usage(folder).free
    yield Finding(
        "disk",
        "note" if left < _LOW_DISK else "ok",
        f"{size(left)} free where caches go",
        "Free some space." if left < _LOW_DISK else "",
    )


def check_folders() -> Iterator[Finding]:
    """Look whether the folders for caches, microscopes and logs can be written."""
    from napari_lfm.optics.cache import cache_dir
    from napari_lfm.optics.presets import user_microscope_dir

    for name, folder in (("cache", cache_dir()), ("microscopes", user_microscope_dir()), ("log", log_dir())):
        trial = folder / f".doctor-{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            yield Finding(
                f"{name} folder",
                "note",
                f"{folder} cannot be written ({error.strerror})",
                "Set NAPARI_LFM_HOME to a folder of yours; without it nothing is kept between runs.",
            )
        else:
            used = sum(p.stat().st_size for p in folder.glob("*") if p.is_file())
            yield Finding(f"{name} folder", "ok", f"{folder} ({size(used)})")


def check_window() -> Iterator[Finding]:
    """Look at napari, the Qt binding and the screen."""
    if util.find_spec("napari") is None:
        yield Finding(
            "napari",
            "note",
            "not installed; the command line works without it",
            "pip install 'napari-lfm[all]'",
        )
        return
    yield Finding("napari", "ok", metadata.version("napari"))
    # the spec is looked for, nothing imported: Qt before torch is what breaks on Windows
    bindings = [name for name in ("PyQt6", "PySide6", "PyQt5", "PySide2") if util.find_spec(name)]
    if not bindings:
        yield Finding("Qt", "problem", "napari has no Qt binding", "pip install 'napari[pyqt6]'")
    else:
        more = len(bindings) > 1
        yield Finding(
            "Qt",
            "note" if more and not os.environ.get("QT_API") else "ok",
            ", ".join(f"{b} {metadata.version(b)}" for b in bindings),
            "Several bindings may clash: set QT_API (e.g. pyqt6)."
            if more and not os.environ.get("QT_API")
            else "",
        )
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        yield Finding(
            "screen",
            "note",
            "no display here",
            "For the window use a desktop session, or 'xvfb-run -a napari'.",
        )
    if sys.platform == "win32":
        yield Finding(
            "Windows",
            "note",
            "torch fails to load there when Qt was loaded first (a known torch fault, 'WinError 1114')",
            'Start napari with: python -c "import torch; from napari.__main__ import main; main()"',
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_versions,
    check_devices,
    check_memory,
    check_folders,
    check_window,
)


def self_check() -> dict[str, Any]:
    """Run a small projector forward and back, and time it beside a plain memory copy.

    Returns
    -------
    dict
        ``device``, ``build_seconds``, ``forward_ms``, ``adjoint_ms`` (the best of five), ``adjoint_error``
        (relative difference of ``<A x, y>`` and ``<x, A^T y>``), ``operator_gb_per_s``, ``copy_gb_per_s``.
    """
    import torch

    from napari_lfm.core.devices import pick_device
    from napari_lfm.optics.presets import load_microscope
    from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
    from napari_lfm.optics.psf import CellOptics

    device = pick_device("auto")
    optics = CellOptics.of(load_microscope("mbl-60x1.2w"))
    planes = [Plane(float(z), (3, 3)) for z in range(-2, 3)]
    geometry = Geometry.plan(optics, planes, (16, 16))
    start = time.perf_counter()
    projector = LensletProjector.build(geometry, device, use_cache=False)
    built = time.perf_counter() - start
    random = torch.Generator().manual_seed(0)
    shape = [3 * n for n in geometry.volume_cells]
    x = torch.rand((1, len(planes), *shape), generator=random).to(device)
    y = projector.forward(x)
    other = torch.rand(y.shape, generator=random).to(device)
    back = projector.adjoint(other)
    left, right = float((y * other).sum()), float((x * back).sum())

    forward = best_of(5, device, lambda: projector.forward(x))
    adjoint = best_of(5, device, lambda: projector.adjoint(other))
    block = torch.zeros(2**25, device=device)  # 128 MiB: larger than any cache
    target = torch.empty_like(block)
    copy = best_of(5, device, lambda: target.copy_(block))
    moved = geometry.matrix_bytes()
    return {
        "device": str(device),
        "build_seconds": round(built, 3),
        "forward_ms": round(1e3 * forward, 3),
        "adjoint_ms": round(1e3 * adjoint, 3),
        "adjoint_error": abs(left - right) / abs(left),
        "operator_gb_per_s": round(moved / min(forward, adjoint) / 1e9, 2),
        "copy_gb_per_s": round(2 * block.numel() * 4 / copy / 1e9, 2),
    }


def best_of(repeats: int, device: Any, function: Callable[[], Any]) -> float:
    """Return the shortest time of several calls, seconds: a busy machine only ever adds to it."""
    import torch

    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def judge(figures: dict[str, Any]) -> Finding:
    """Turn the self-check's figures into a finding."""
    text = (
        f"projector forward {figures['forward_ms']:.1f} ms, back {figures['adjoint_ms']:.1f} ms on "
        f"{figures['device']}; memory copies {figures['copy_gb_per_s']:.1f} GB/s"
    )
    if figures["adjoint_error"] > 1e-4:
        return Finding(
            "self-check",
            "problem",
            f"forward and back projection disagree by {figures['adjoint_error']:.1e}",
            "Results on this device would be wrong: use --device cpu, and report this.",
        )
    slow = figures["forward_ms"] > 100
    return Finding(
        "self-check",
        "note" if slow else "ok",
        text,
        "This is slow: is another program using the machine?" if slow else "",
    )
