"""What the user set in napari's Preferences, or the defaults where napari is not running."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger(__name__)

PLUGIN = "napari-lfm"
DEFAULT_CACHE_GIB = 2.0


@dataclass(frozen=True)
class Settings:
    """The plugin's preferences.

    Attributes
    ----------
    device : str
        Device that a new panel starts with: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory_gib : float or None
        Memory budget of a run; None for 80 % of what is free.
    microscope : str
        Preset or file that a new panel starts with; empty for none.
    cache_gib : float
        How large the folder of computed point spread functions may grow.
    autosave_folder : str
        Folder that every finished result is saved to by itself; empty for none.
    """

    device: str = "auto"
    memory_gib: float | None = None
    microscope: str = ""
    cache_gib: float = DEFAULT_CACHE_GIB
    autosave_folder: str = ""


def load_settings() -> Settings:
    """Return the preferences; defaults unless napari is running and knows this plugin."""
    # Asking napari would import all of it (and Qt): a shell or a script must not pay for that.
    if "napari" not in sys.modules:
        return Settings()
    from napari.settings import get_plugin_settings

    try:
        stored = get_plugin_settings(PLUGIN)
    except KeyError:  # run from a checkout that napari does not know as a plugin
        _log.debug("napari has no preferences for %s; defaults are used", PLUGIN)
        return Settings()
    return from_record(
        {name: getattr(getattr(stored, group), name) for group, names in _GROUPS.items() for name in names}
    )


# the same groups and names as `contributions.configurations` in napari.yaml
_GROUPS = {
    "reconstruction": ("device", "memory_gib", "microscope"),
    "files": ("cache_gib", "autosave_folder"),
}


def from_record(record: dict[str, Any]) -> Settings:
    """Return settings from the raw values of the Preferences page (memory 0 stands for automatic)."""
    memory = float(record.get("memory_gib") or 0.0)
    return Settings(
        device=str(record.get("device", "auto")),
        memory_gib=memory if memory > 0 else None,
        microscope=str(record.get("microscope", "")).strip(),
        cache_gib=float(record.get("cache_gib", DEFAULT_CACHE_GIB)),
        autosave_folder=str(record.get("autosave_folder", "")).strip(),
    )


_CACHE_VARIABLE = "NAPARI_LFM_CACHE_GIB"
_set_here: str | None = None


def apply_cache_limit(settings: Settings) -> None:
    """Hand the preference for the cache folder on to the engine; what the user's shell says goes first."""
    global _set_here
    present = os.environ.get(_CACHE_VARIABLE)
    if present is None or present == _set_here:
        _set_here = os.environ[_CACHE_VARIABLE] = f"{settings.cache_gib:g}"
