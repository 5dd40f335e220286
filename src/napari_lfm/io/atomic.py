"""Replacing a file or folder only when its successor is complete and on the disk.

The new content goes to a temporary name in the same folder, is flushed to the disk and then renamed
over the old one. Whatever fails, the old file stays as it was and the temporary one is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from napari_lfm.core.problems import LfmError, Problem, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_output(path: str | Path) -> list[Problem]:
    """Return what would keep `path` from being written; nothing is left behind.

    Ask before a long run, not after it.
    """
    target = Path(path)
    try:
        _refuse_bad_target(target, folder=_is_zarr_name(target))
        trial = _beside(target)
        try:
            trial.touch()
        finally:
            trial.unlink(missing_ok=True)
    except LfmError as error:
        return [error.problem()]
    except OSError as error:
        return [_explain(error, target, 0, existed=False).problem()]
    return []


@contextlib.contextmanager
def replacing_file(path: Path, needed_bytes: int = 0) -> Iterator[IO[bytes]]:
    """Give a binary file to write; on a clean exit it replaces `path`, else nothing changes.

    Parameters
    ----------
    path : Path
        The file to make or replace. A symbolic link is followed.
    needed_bytes : int
        Expected size, for the message when the disk is full.

    Raises
    ------
    LfmError
        If the disk is full or the place is not writable; the old file is unchanged.
    """
    target = Path(os.path.realpath(path))
    _refuse_bad_target(target, folder=False)
    existed, temporary = target.exists(), _beside(target)
    try:
        # not tempfile: its files are private, a result must have the permissions of any new file
        with temporary.open("xb+") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if existed:
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _explain(error, target, needed_bytes, existed) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Give a folder name to fill; on a clean exit it replaces `path`, else nothing changes.

    A folder cannot be renamed over another one, so the old one is moved aside first and comes back
    when the second rename fails. Raises as `replacing_file`.
    """
    target = Path(os.path.realpath(path))
    _refuse_bad_target(target, folder=True)
    existed, temporary, aside = target.exists(), _beside(target), _beside(target, "old")
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), "r+b") as file:  # Windows flushes no others
                    os.fsync(file.fileno())
        if existed:
            os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            if existed:
                os.rename(aside, target)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise _explain(error, target, needed_bytes, existed) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink(missing_ok=True)


def _beside(target: Path, word: str = "part") -> Path:
    # hidden, and never with a suffix that a reader would pick up
    return target.with_name(f".{target.name[:80]}.{uuid4().hex[:8]}.{word}")


def _is_zarr_name(path: Path) -> bool:
    return path.name.lower().endswith(".zarr")


def _refuse_bad_target(target: Path, folder: bool) -> None:
    if not target.parent.is_dir():
        raise RequestError(
            f"The folder {target.parent} does not exist.", "Create it, or choose another place."
        )
    if not folder and target.is_dir():
        raise RequestError(f"{target} is a folder.", "Give a file name in it.")
    if folder and target.is_dir() and any(target.iterdir()):
        # replacing removes everything in it; only ever do that to a Zarr store
        if not any((target / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
            raise RequestError(f"The folder {target} exists and is no Zarr image.", "Choose another name.")


def _explain(error: OSError, target: Path, needed: int, existed: bool) -> LfmError:
    kept = f" The old {target.name} is unchanged." if existed else ""
    if error.errno in _FULL:
        try:
            free = f", {_size(shutil.disk_usage(target.parent).free)} are free there"
        except OSError:
            free = ""
        need = f": it needs up to {_size(needed)}" if needed else ""
        if error.errno == errno.EFBIG:
            return LfmError(
                f"{target} was not saved: files of this size are not allowed there{need}{free}.{kept}",
                "Save to another drive.",
            )
        return LfmError(
            f"{target} was not saved because the disk is full{need}{free}.{kept}",
            "Free some space, or save to another drive.",
        )
    if error.errno in _FORBIDDEN:
        return LfmError(
            f"{target} was not saved: you may not write in {target.parent}.{kept}",
            "Choose another folder, or close the program that has the file open.",
        )
    reason = error.strerror or str(error)
    return LfmError(f"{target} was not saved: {reason}.{kept}", "Choose another place.")


def _size(n_bytes: int) -> str:
    value = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _sync_folder(folder: Path) -> None:
    # makes the rename itself durable; Windows has no such call
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
