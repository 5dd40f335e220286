"""A calibrated lattice as a JSON file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.lightfield.lattice import Lattice

if TYPE_CHECKING:
    from os import PathLike


def lattice_record(lattice: Lattice) -> dict[str, Any]:
    """Return what ``napari-lfm calibrate --json`` prints and a grid file holds.

    ``pitch_px`` ([y, x], raw camera pixels), ``rotation_deg``, ``residual_px`` (rms), ``lenslets``
    ([rows, columns]), ``lattice`` (``"square"`` or ``"hexagonal"``), ``confidence``, ``warnings``, and
    the fields of `Lattice`, from which it is read back.
    """
    record = lattice.to_json()
    first = ("pitch_px", "rotation_deg", "residual_px", "lenslets", "lattice", "confidence", "warnings")
    record["lattice"] = lattice.kind
    return {key: record[key] for key in (*first, *(k for k in record if k not in first))}


def save_lattice(path: str | PathLike[str], lattice: Lattice) -> Path:
    """Write a lattice as JSON, replacing an existing file only when the new one is complete.

    Raises
    ------
    LfmError
        If the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(lattice_record(lattice), indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LfmError(
            f"The grid could not be saved to '{path}' ({error.strerror or error}).", "Choose another folder."
        ) from None
    return path


def load_lattice(path: str | PathLike[str]) -> Lattice:
    """Read a lattice that `save_lattice` or ``napari-lfm calibrate`` wrote.

    Raises
    ------
    RequestError
        If there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
    except FileNotFoundError:
        raise RequestError(f"There is no grid file '{path}'.", "Calibrate first.") from None
    except OSError as error:
        raise RequestError(f"The grid file '{path}' cannot be read ({error.strerror or error}).") from None
    except ValueError:  # not UTF-8, or not JSON
        if _describes_microscope(text):
            raise _is_a_microscope(path) from None
        raise RequestError(f"The grid file '{path}' is damaged or no JSON.", "Calibrate again.") from None
    if isinstance(record, dict) and {"objective", "camera"} <= record.keys():
        raise _is_a_microscope(path)
    if not isinstance(record, dict) or "origin_px" not in record:
        raise RequestError(f"'{path}' is not a lenslet grid.", "Give a file that calibrate wrote.")
    try:
        return Lattice.from_json(record)
    except ValidationError as error:
        names = ", ".join(sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]}))
        raise RequestError(
            f"The grid file '{path}' is damaged ({names or 'its values'}).", "Calibrate again."
        ) from None


def _describes_microscope(text: str) -> bool:
    """Whether YAML text has a microscope's two sections."""
    return all(re.search(rf"^{name}:", text, re.MULTILINE) for name in ("objective", "camera"))


def _is_a_microscope(path: Path) -> RequestError:
    return RequestError(f"'{path}' is a microscope, not a grid.", "Give it with --microscope.")
