"""A small disk cache for arrays that depend on the optics alone, oldest thrown out first."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 2 * 2**30


def cache_dir() -> Path:
    """Return the cache folder: ``$NAPARI_LFM_HOME/cache`` if set, else the user's cache folder."""
    home = os.environ.get("NAPARI_LFM_HOME")
    if home:
        return Path(home) / "cache"
    from platformdirs import user_cache_path

    return Path(user_cache_path("napari-lfm", appauthor=False))


def limit_bytes() -> int:
    """Return the largest total size: ``$NAPARI_LFM_CACHE_GIB``, else 2 GiB; 0 switches the cache off."""
    try:
        return int(float(os.environ["NAPARI_LFM_CACHE_GIB"]) * 2**30)
    except (KeyError, ValueError):
        return DEFAULT_LIMIT_BYTES


def load(key: str) -> np.ndarray | None:
    """Return the array stored under `key` (memory-mapped), or None."""
    path = cache_dir() / f"{key}.npy"
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    with contextlib.suppress(OSError):  # a shared, read-only cache is as good
        os.utime(path)
    return array


def store(key: str, array: np.ndarray) -> None:
    """Store an array; a full disk or a read-only folder only costs the speed-up."""
    limit = limit_bytes()
    if array.nbytes > limit // 4:
        return
    folder = cache_dir()
    handle = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as handle:
            np.save(handle, np.ascontiguousarray(array), allow_pickle=False)
        os.replace(handle.name, folder / f"{key}.npy")
    except OSError as error:
        log.info("The cache could not be written: %s", error)
        if handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(handle.name)
        return
    trim(limit)


def trim(limit: int) -> None:
    """Delete the least recently used arrays until the folder is within `limit` bytes."""
    entries = []
    for path in cache_dir().glob("*.npy"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            entries.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
