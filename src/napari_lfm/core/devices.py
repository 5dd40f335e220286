"""Choosing where to compute, and how much memory may be used there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICE_NAMES: tuple[str, ...] = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str = "auto") -> torch.device:
    """Return the torch device for `name`; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    RequestError
        If the device is unknown or not present on this machine.
    """
    import torch

    if name not in DEVICE_NAMES:
        raise RequestError(f"Unknown device '{name}'.", f"Use one of {', '.join(DEVICE_NAMES)}.")
    have_cuda, have_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if have_cuda else "mps" if have_mps else "cpu"
    if (name == "cuda" and not have_cuda) or (name == "mps" and not have_mps):
        raise RequestError(
            f"This machine has no usable '{name}' device.",
            "Choose 'auto' or 'cpu'; 'napari-lfm doctor' shows what was found.",
        )
    return torch.device(name)


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Return the memory that a run may take on `device` at this moment, in bytes."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:  # psutil comes with napari, not with the bare engine
        pages = os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 1 << 19
        return int(pages * (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096))


def memory_budget(device: torch.device | str, gib: float | None = None) -> int:
    """Return the memory budget in bytes: `gib` where given, else 80 % of what is free."""
    if gib is not None:
        if not gib > 0:
            raise RequestError("The memory budget must be above 0 GiB.", "Give, say, 4.")
        return int(gib * 2**30)
    return int(0.8 * available_bytes(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; torch on the CPU raises a plain RuntimeError."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
