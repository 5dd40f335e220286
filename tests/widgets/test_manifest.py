from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManifest

import napari_lfm
from napari_lfm._settings import Settings, from_record, load_settings

HERE = Path(napari_lfm.__file__).parent


@pytest.fixture
def manifest() -> PluginManifest:
    return PluginManifest.from_file(HERE / "napari.yaml")


def test_everything_named_exists(manifest: PluginManifest) -> None:
    manifest.validate_imports()
    titles = {w.display_name for w in manifest.contributions.widgets or []}
    assert titles >= {"Light field", "Reconstruct", "Restore isotropic", "Simulate"}


def test_settings_without_napari_are_defaults(monkeypatch: Any) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "napari", raising=False)
    assert load_settings() == Settings()


def test_settings_follow_the_preferences(manifest: PluginManifest, npe2pm: Any, plugin_settings: Any) -> None:
    from napari.settings import get_plugin_settings

    if "napari-lfm" not in npe2pm:
        npe2pm.register(manifest)
    assert load_settings() == Settings()
    stored = get_plugin_settings("napari-lfm")
    stored.reconstruction.memory_gib = 3.0
    stored.reconstruction.microscope = "mbl-60x1.2w"
    stored.files.cache_gib = 0.5
    assert load_settings() == Settings(memory_gib=3.0, microscope="mbl-60x1.2w", cache_gib=0.5)


def test_zero_memory_means_automatic() -> None:
    assert from_record({"memory_gib": 0.0}).memory_gib is None


def test_cache_limit_reaches_the_engine_but_not_over_the_shell(monkeypatch: Any) -> None:
    from napari_lfm import _settings
    from napari_lfm.optics.cache import limit_bytes

    monkeypatch.delenv("NAPARI_LFM_CACHE_GIB", raising=False)
    monkeypatch.setattr(_settings, "_set_here", None)
    for gib in (1.5, 0.25):
        _settings.apply_cache_limit(Settings(cache_gib=gib))
        assert limit_bytes() == int(gib * 2**30)
    monkeypatch.setenv("NAPARI_LFM_CACHE_GIB", "7")
    _settings.apply_cache_limit(Settings(cache_gib=3.0))
    assert limit_bytes() == 7 * 2**30
