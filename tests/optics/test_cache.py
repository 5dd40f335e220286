"""The disk cache: what goes in comes out, and nothing in it can stop a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.optics import cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.complex64])
def test_round_trip(dtype: type, lfm_home: Path) -> None:
    array = np.random.default_rng(0).random((3, 4, 5)).astype(dtype)
    assert cache.load("operator-1") is None
    cache.store("operator-1", array.transpose(2, 0, 1))  # not contiguous
    found = cache.load("operator-1")
    assert found is not None
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array.transpose(2, 0, 1))
    assert [p.name for p in (lfm_home / "cache").iterdir()] == ["operator-1.npy"]


@pytest.mark.parametrize("content", [b"", b"no numpy", b"\x93NUMPY\x01\x00", None])
def test_a_broken_file_is_as_good_as_none(content: bytes | None) -> None:
    cache.store("k", np.zeros(1000))
    path = cache.cache_dir() / "k.npy"
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert cache.load("k") is None
    cache.store("k", np.ones(3))
    found = cache.load("k")
    assert found is not None
    assert found.sum() == 3


def test_pickles_are_not_opened() -> None:
    cache.cache_dir().mkdir(parents=True)
    np.save(cache.cache_dir() / "k.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert cache.load("k") is None


def test_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros(1000, np.uint8)
    for age, key in enumerate("abc"):
        cache.store(key, array)
        os.utime(cache.cache_dir() / f"{key}.npy", (age + 1, age + 1))
    assert cache.load("a") is not None  # used just now: the youngest
    cache.trim(2500)
    assert cache.load("b") is None
    assert cache.load("a") is not None
    assert cache.load("c") is not None


def test_arrays_too_large_for_the_limit_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_LFM_CACHE_GIB", "0.000001")  # 1 kB
    cache.store("k", np.zeros(100))
    assert cache.load("k") is None
    monkeypatch.setenv("NAPARI_LFM_CACHE_GIB", "0")
    assert cache.limit_bytes() == 0
    cache.store("k", np.zeros(1))
    assert cache.load("k") is None
    monkeypatch.setenv("NAPARI_LFM_CACHE_GIB", "much")
    assert cache.limit_bytes() == cache.DEFAULT_LIMIT_BYTES


def test_a_folder_that_cannot_be_written_costs_only_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path / "file"))
    cache.store("k", np.zeros(3))
    assert cache.load("k") is None


def test_a_full_disk_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.store("k", np.zeros(3))
    assert list(cache.cache_dir().iterdir()) == []


def test_a_read_only_cache_still_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store("k", np.ones(3))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    assert cache.load("k") is not None
