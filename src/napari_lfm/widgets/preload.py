"""Torch in a worker thread, without freezing the window."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
from pathlib import Path

_log = logging.getLogger(__name__)


def import_torch_gently() -> None:
    """Import torch; the window keeps answering meanwhile.

    A plain import in a thread holds Python's lock while the system maps some 400 MB of
    libraries, which froze the window for 0.75 s (measured). Mapping them first through a foreign
    call, which releases that lock, leaves 0.07 s. Windows searches libraries by other rules and
    keeps the plain import.
    """
    if "torch" in sys.modules:
        return
    spec = importlib.util.find_spec("torch")
    if os.name == "posix" and spec is not None and spec.origin is not None:
        suffix = "dylib" if sys.platform == "darwin" else "so"
        library = Path(spec.origin).parent / "lib" / f"libtorch_python.{suffix}"
        if library.exists():
            dlopen = ctypes.CDLL(None).dlopen
            dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
            if not dlopen(os.fsencode(library), os.RTLD_LAZY):
                _log.debug("torch's libraries could not be mapped ahead; the plain import follows")
    import torch  # noqa: F401


def leave_a_core() -> None:
    """Let torch, called from this thread, use all cores but one: the window needs that one.

    With every core taken, torch's threads wait for each other while the window draws: on two cores
    an iteration then took 0.54 s instead of 0.09 s (measured on a busy machine).
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
