"""Names that qtpy gives every Qt binding but does not export to type checkers."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QShortcut  # type: ignore[attr-defined]

__all__ = ["QShortcut", "Signal"]
