"""Tables of points: CSV with micrometres first, provenance in ``<file>.csv.json`` beside it."""

from __future__ import annotations

import io
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
    path = Path(path)
    missing = [c for c in COLUMNS if c not in points.columns]
    if missing:
        raise RequestError(
            f"The table of points has no column {', '.join(missing)}.", f"It needs {', '.join(COLUMNS)}."
        )
    ordered = points[[*COLUMNS, *(c for c in points.columns if c not in COLUMNS)]]
    table = ordered.to_csv(index=False, lineterminator="\n").encode()
    provenance = points.attrs.get("provenance") if provenance is None else provenance
    if not provenance:
        with replacing_file(path, len(table)) as file:
            file.write(table)
        sidecar(path).unlink(missing_ok=True)  # it would belong to the table that was here before
        return path
    record = {"napari_lfm": __version__, "points": len(points), "provenance": jsonable(dict(provenance))}
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
        text = path.read_text(encoding="utf-8-sig")
        # only empty cells are missing: a column may hold the word NA
        points = pd.read_csv(
            io.StringIO(text), float_precision="round_trip", keep_default_na=False, na_values=[""]
        )
        points[list(COLUMNS)] = points[list(COLUMNS)].astype(float)
    except OSError as error:
        raise not_readable(path, error) from None
    except (ValueError, TypeError) as error:
        raise RequestError(f"A row of {path.name} cannot be read ({error}).", "Mend or remove it.") from None
    provenance = read_sidecar(path)
    if provenance:
        points.attrs["provenance"] = provenance
    points.attrs["source"] = str(path)
    return points


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the provenance beside a table of points, an empty dict when there is none."""
    try:
        record = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = record.get("provenance") if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}
