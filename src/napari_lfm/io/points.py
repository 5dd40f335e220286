"""Tables of points: CSV with micrometres first, provenance in ``<file>.csv.json`` beside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_lfm import __version__
from napari_lfm.core.problems import RequestError
from napari_lfm.io.atomic import replacing_file
from napari_lfm.io.record import jsonable
from napari_lfm.io.tiff import check_file, not_readable

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("z_um", "y_um", "x_um", "confidence")
"""The first columns of every table of points, in this order."""


def sidecar(path: Path) -> Path:
    """Return where the provenance of a CSV is: the same name with ``.json`` after it."""
    return path.with_name(path.name + ".json")


def write_points(path: str | Path, points: pd.DataFrame, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write points as CSV (UTF-8, comma, decimal point) and their provenance beside it.

    Parameters
    ----------
    path : path
        The table; provenance goes to the same name with ``.json`` after it.
    points : pandas.DataFrame
        Columns ``z_um, y_um, x_um, confidence`` and any others; those four are written first.
    provenance : mapping, optional
        Default ``points.attrs["provenance"]``.

    Returns
    -------
    Path

    Raises
    ------
    RequestError
        If a column is missing.
    LfmError
        If the files cannot be written; old ones are unchanged.
    """
    missing = [c for c in COLUMNS if c not in points.columns]
    if missing:
        raise RequestError(
            f"The table of points has no column {', '.join(missing)}.", f"It needs {', '.join(COLUMNS)}."
        )
    ordered = points[[*COLUMNS, *(c for c in points.columns if c not in COLUMNS)]]
    return write_table(path, ordered, points.attrs.get("provenance") if provenance is None else provenance)


def write_table(path: str | Path, rows: pd.DataFrame, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write any table, e.g. traces, as `write_points` writes points.

    Raises
    ------
    LfmError
        If the files cannot be written; old ones are unchanged.
    """
    path = Path(path)
    table = rows.to_csv(index=False, lineterminator="\n").encode()
    provenance = rows.attrs.get("provenance") if provenance is None else provenance
    if not provenance:
        with replacing_file(path, len(table)) as file:
            file.write(table)
        sidecar(path).unlink(missing_ok=True)  # it would belong to the table that was here before
        return path
    what = "points" if set(COLUMNS) <= set(rows.columns) else "rows"
    record = {"napari_lfm": __version__, what: len(rows), "provenance": jsonable(dict(provenance))}
    text = json.dumps(record, indent=1, allow_nan=False).encode()
    with replacing_file(path, len(table)) as file, replacing_file(sidecar(path), len(text)) as beside:
        file.write(table)
        beside.write(text)
    return path


def is_points_file(path: Path) -> bool:
    """Return whether `path` is a CSV that begins with our columns."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline(4096).strip().split(",")[: len(COLUMNS)] == list(COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def read_points(path: str | Path) -> pd.DataFrame:
    """Read a table of points; ``attrs["provenance"]`` and ``attrs["source"]`` are set where known.

    Raises
    ------
    RequestError
        If the file is missing or has other columns.
    """
    path = Path(path)
    check_file(path)
    if not is_points_file(path):
        raise RequestError(
            f"{path.name} is not a table of points.",
            f"Its first columns must be {', '.join(COLUMNS)} (CSV with commas).",
        )
    try:
        # not pandas' reader: it shortens rows silently, and rounds the last digit in some versions
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row]
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(f"row {number} has {len(row)} cells, not {len(header)}")
        columns = zip(*rows, strict=True) if rows else [()] * len(header)
        points = pd.DataFrame(
            {
                name: _converted(pd.Series(cells, dtype=str))
                for name, cells in zip(header, columns, strict=True)
            }
        )
        points[list(COLUMNS)] = points[list(COLUMNS)].astype(float)
    except OSError as error:
        raise not_readable(path, error) from None
    except (ValueError, TypeError, csv.Error) as error:
        raise RequestError(f"A row of {path.name} cannot be read ({error}).", "Mend or remove it.") from None
    provenance = read_sidecar(path)
    if provenance:
        points.attrs["provenance"] = provenance
    points.attrs["source"] = str(path)
    return points


def _converted(cells: pd.Series) -> pd.Series:
    """Return a column of text as whole numbers, numbers (empty cells are NaN), truths, or as it is."""
    for kind in ("int64", "float64"):
        try:
            return cells.replace("", "nan").astype(kind) if kind == "float64" else cells.astype(kind)
        except (ValueError, OverflowError):
            continue
    if len(cells) and cells.isin(["True", "False"]).all():
        return cells == "True"
    return cells


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the provenance beside a table of points, an empty dict when there is none."""
    try:
        record = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = record.get("provenance") if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}
