"""Figures as people say them, the same in the panel and on the command line."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time in words, as coarse as it is uncertain.

    Examples
    --------
    >>> duration(0.3), duration(12.4), duration(190), duration(8000)
    ('less than 1 s', '12 s', '3 min', '2.2 h')
    """
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
