"""Length and time units as files and layers write them, and which sizes to believe."""

from __future__ import annotations

import math
import re

# to micrometres
_LENGTHS = {
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "micrometre": 1.0,
    "micrometres": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
    "inches": 25400.0,
}
# to seconds
_TIMES = {
    "us": 1e-6,
    "microsecond": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "millisecond": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
}

PRINT_RESOLUTION_UM = 40.0
"""Pixels at least this large come from print defaults (600 dpi is 42 um), not from a microscope."""


def _plain(unit: str) -> str:
    # ImageJ writes a micro sign as the six characters \u00B5; there are two micro signs in Unicode
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m.group(1), 16)), unit)
    unit = unit.replace("\u00b5", "u").replace("\u03bc", "u").replace("\u212b", "å").replace("Å", "å")
    # UTF-8 read as Latin-1, seen in ImageJ files written by scripts
    return unit.replace("\u00c2", "").strip().strip("\x00").lower()


def length_in_um(unit: object) -> float | None:
    """Return one `unit` of length in micrometres, None when it is no length (``pixel``, empty)."""
    return _LENGTHS.get(_plain(str(unit or "")))


def time_in_s(unit: object) -> float | None:
    """Return one `unit` of time in seconds, None when it is no time."""
    return _TIMES.get(_plain(str(unit or "")))


def believable(size: float | None) -> float | None:
    """Return `size` when it is a positive finite number, else None."""
    if size is None or not math.isfinite(size) or size <= 0:
        return None
    return float(size)
