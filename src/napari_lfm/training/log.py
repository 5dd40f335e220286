"""Logs of a run: CSV tables, and TensorBoard events where that package is installed."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import logging
import os
from typing import IO, TYPE_CHECKING, Any

from napari_lfm.core.problems import LfmError
from napari_lfm.io.atomic import replacing_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


class CsvLog:
    """A table that grows by one row per step; a run without it is as good, so a full disk only costs rows.

    Parameters
    ----------
    path : Path
    keep_to : int
        Rows of later steps are dropped: they were written after the checkpoint that is gone on from.
        0 starts a new table.
    """

    def __init__(self, path: Path, keep_to: int) -> None:
        self._path = path
        self._columns: list[str] = []
        self._file: IO[str] | None = None
        rows = [row for row in _read(path) if keep_to and _step(row) <= keep_to]
        if rows:
            self._columns = list(rows[0])
        try:
            self._rewrite(rows)
        except (LfmError, OSError) as error:
            self._give_up(error)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; its first entry is ``step``."""
        if self._file is None:
            return
        try:
            if new := [key for key in row if key not in self._columns]:
                self._file.close()
                rows = _read(self._path)
                self._columns += new
                self._rewrite(rows)
            self._writer.writerow(dict(row))
            self._file.flush()
        except (LfmError, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        with replacing_file(self._path) as file:
            text = [self._columns] if self._columns else []
            text += [[row.get(c, "") for c in self._columns] for row in rows]
            file.write("".join(",".join(map(str, line)) + "\n" for line in text).encode())
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, self._columns, lineterminator="\n")

    def _give_up(self, error: Exception) -> None:
        log.warning("%s is not written any more: %s", self._path, error)
        self.close()


class TensorBoardLog:
    """Scalars for TensorBoard in a ``tensorboard`` folder; does nothing where the package is missing.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    step : int
        Events after this step are hidden: they come from before a resume.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = _tensorboard_writer(folder / "tensorboard", step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one value per name."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            log.warning("TensorBoard events are not written any more: %s", error)
            self.close()

    def close(self) -> None:
        """Write what is waiting and close."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        self._writer = None


def _tensorboard_writer(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(os.fspath(folder), purge_step=step)
    except (ImportError, OSError) as error:
        log.warning("TensorBoard events are not written: %s", error)
        return None


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # a row cut short by a kill has empty entries at its end
            return [row for row in csv.DictReader(file) if row.get("step") and None not in row.values()]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _step(row: Mapping[str, Any]) -> float:
    try:
        return float(row["step"])
    except (TypeError, ValueError):
        return float("inf")
