"""Big files and movies are read when they are needed, and say so when they changed meanwhile."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io import planes
from napari_lfm.io.planes import LazyPlanes
from napari_lfm.io.read import read_image
from napari_lfm.io.tiff import describe

DATA = np.random.default_rng(0).integers(0, 60000, (4, 3, 20, 30)).astype(np.uint16)
WAYS: dict[str, dict[str, object]] = {
    "plain": {"photometric": "minisblack"},
    "big-endian": {"byteorder": ">", "photometric": "minisblack"},
    "compressed": {"compression": "zlib", "predictor": True, "photometric": "minisblack"},
    "imagej": {"imagej": True, "metadata": {"axes": "TZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "TZYX"}},
    "ome-compressed": {"ome": True, "compression": "zlib", "metadata": {"axes": "TZYX"}},
    "tiled": {"tile": (16, 16), "photometric": "minisblack"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_slice_of_a_lazy_movie(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, **WAYS[way])
    axes = None if "metadata" in WAYS[way] else "TZYX"
    image = read_image(path, None, axes=axes)
    assert image.chunks is not None
    assert image.dims == ("t", "z", "y", "x")
    np.testing.assert_array_equal(image, DATA)
    for key in (np.s_[2], np.s_[1:3, 2], np.s_[..., 5:9, ::2], np.s_[3, 0, 7], np.s_[::-2], np.s_[2:2]):
        np.testing.assert_array_equal(image[key], DATA[key])


@pytest.mark.parametrize("way", ["plain", "compressed"])
def test_only_the_planes_asked_for_are_read(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, **WAYS[way])
    image = read_image(path, None, axes="TZYX")
    read: list[int] = []
    plane = LazyPlanes._plane  # noqa: SLF001

    def watched(self: LazyPlanes, index: int) -> np.ndarray:
        read.append(index)
        return plane(self, index)

    monkeypatch.setattr(LazyPlanes, "_plane", watched)
    np.testing.assert_array_equal(image[2].values, DATA[2])
    assert sorted(read) == [6, 7, 8]


def test_small_stacks_are_in_memory_and_big_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA[0], photometric="minisblack")
    assert read_image(path, voxel_um=(1, 1, 1)).chunks is None
    monkeypatch.setattr("napari_lfm.io.read.LAZY_BYTES", 1000)
    image = read_image(path, voxel_um=(1, 1, 1))
    assert image.chunks is not None
    assert image.name == "a"
    np.testing.assert_array_equal(image, DATA[0])


def test_chunks_are_frames_of_a_movie_and_groups_of_planes_of_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, imagej=True, metadata={"axes": "TZYX"})
    assert read_image(path, None).chunks == ((1,) * 4, (3,), (20,), (30,))
    monkeypatch.setattr(planes, "_CHUNK_BYTES", 2 * 20 * 30 * 2)
    assert read_image(path, None).chunks == ((1,) * 4, (2, 1), (20,), (30,))
    monkeypatch.setattr("napari_lfm.io.read.LAZY_BYTES", 1000)
    tifffile.imwrite(path, DATA[0], photometric="minisblack")
    assert read_image(path, None).chunks == ((2, 1), (20,), (30,))
    # the same file as frames that nobody named: each is a chunk of its own
    assert read_image(path, "lightfield").chunks == ((1, 1, 1), (20,), (30,))
    assert read_image(path, None, axes="TYX").chunks == ((1, 1, 1), (20,), (30,))


@pytest.mark.parametrize("way", ["plain", "compressed"])
def test_a_file_that_changed_is_noticed(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, **WAYS[way])
    image = read_image(path, None, axes="TZYX")
    tifffile.imwrite(path, DATA + 1, **WAYS[way])
    os.utime(path, ns=(1, 1))
    with pytest.raises(LfmError, match=r"a.tif has changed since it was opened. Open it again."):
        image[0].compute()
    path.unlink()
    with pytest.raises(RequestError, match="cannot be read"):
        image[0].compute()


def test_lazy_planes_travel_to_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, **WAYS["compressed"])
    source = pickle.loads(pickle.dumps(LazyPlanes(describe(path)[0])))
    np.testing.assert_array_equal(source[1:3], DATA[1:3])


def test_no_handle_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, **WAYS["compressed"])
    image = read_image(path, None, axes="TZYX")
    image[0].compute()
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to list open files")
    assert str(path) not in {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
