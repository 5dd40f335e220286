"""Whatever fails while saving, the old file survives and nothing else is left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.points import write_points
from napari_lfm.io.read import read_image
from napari_lfm.io.write import check_output, write_image

if TYPE_CHECKING:
    import xarray as xr

OLD = labelled(np.ones((4, 5), np.float32), "yx", {"y": 1.0, "x": 1.0})
# noise: compression must not make it fit
NEW = labelled(np.random.default_rng(0).random((20, 64, 64)).astype(np.float32), "zyx", {})


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failed_save(path: Path, image: xr.DataArray = NEW) -> str:
    """Save over an old file, check that it survived, and return what the user is told."""
    write_image(path, OLD)
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tifffile.TiffWriter, "write", full)
        patch.setattr("napari_lfm.io.write.write_ome_zarr", full)
        with pytest.raises(LfmError) as caught:
            write_image(path, image)
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert sorted(p.name for p in path.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_disk_full(tmp_path: Path, name: str) -> None:
    text = failed_save(tmp_path / name)
    assert "was not saved because the disk is full" in text
    assert "needs up to 384.0 KiB" in text  # 20 x 64 x 64 x 4 bytes and the header
    assert "are free there" in text
    assert f"The old {name} is unchanged." in text
    assert "Free some space" in text
    assert "\n" not in text


def test_disk_full_without_an_old_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(LfmError) as caught:
        write_image(tmp_path / "a.tif", NEW)
    assert "unchanged" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_FSIZE")
def test_file_size_limit_in_the_middle_of_the_pixels(tmp_path: Path) -> None:
    import resource

    path = write_image(tmp_path / "a.tif", OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(LfmError, match="files of this size are not allowed") as caught:
            write_image(path, NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The old a.tif is unchanged." in str(caught.value)
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


_ON_A_SMALL_DISK = """
import sys
from pathlib import Path
import numpy as np
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import LfmError
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image

folder, name = Path(sys.argv[1]), sys.argv[2]
old = labelled(np.ones((4, 5), np.float32), "yx", {})
write_image(folder / name, old)
try:
    write_image(folder / name, labelled(np.random.default_rng(0).random((20, 64, 64)), "zyx", {}))
except LfmError as error:
    print(error)
np.testing.assert_array_equal(read_image(folder / name, "image"), old)
print(*sorted(p.name for p in folder.iterdir()))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux namespaces for a small disk")
@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_really_full_disk(tmp_path: Path, name: str) -> None:
    """A file system of 128 KiB, mounted for one process only."""
    script = tmp_path / "script.py"
    script.write_text(_ON_A_SMALL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=128k tmpfs '{disk}' || exit 77"
    command = f"{mount}; exec '{sys.executable}' '{script}' '{disk}' '{name}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, timeout=120
    )
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip("this user may not mount file systems")
    assert done.returncode == 0, done.stderr
    message, left = done.stdout.splitlines()
    assert "because the disk is full: it needs up to 384.0 KiB" in message
    assert f"The old {name} is unchanged." in message
    assert left == name


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = write_image(tmp_path / "a.tif", OLD)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(LfmError, match=r"you may not write in .*The old a.tif is unchanged"):
        write_image(path, NEW)
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LfmError, match="you may not write"):
            write_image(tmp_path / "a.tif", OLD)
    finally:
        tmp_path.chmod(0o700)


def test_interrupted_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.tif", OLD)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tifffile.TiffWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(path, NEW)
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_pixels_that_fail_while_they_are_computed(tmp_path: Path) -> None:
    import dask.array as da

    def fail(block: np.ndarray) -> np.ndarray:
        if block.size and block.max() > 2:
            raise LfmError("frame 3 is broken")
        return block

    data = da.from_array(np.arange(5.0)[:, None, None] * np.ones((5, 4, 4)), chunks=(1, 4, 4)).map_blocks(
        fail, dtype=float
    )
    path = write_image(tmp_path / "a.tif", OLD)
    with pytest.raises(LfmError, match="frame 3 is broken"):
        write_image(path, labelled(data, "tyx", {}))
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_zarr_comes_back_when_the_second_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.ome.zarr", OLD)
    rename, calls = os.rename, []

    def second_fails(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(LfmError, match=r"Input/output error.*The old a.ome.zarr is unchanged"):
        write_image(path, NEW)
    np.testing.assert_array_equal(read_image(path, "image"), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_points_and_their_provenance_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({c: [1.0] for c in ("z_um", "y_um", "x_um", "confidence")})
    path = write_points(tmp_path / "p.csv", table, {"method": "old"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LfmError, match="disk is full"):
        write_points(path, table + 1, {"method": "new"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"folder .*nowhere does not exist"):
        write_image(tmp_path / "nowhere" / "a.tif", OLD)
    with pytest.raises(RequestError, match="is a folder"):
        write_image(tmp_path, OLD)
    precious = tmp_path / "data.zarr"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(RequestError, match="exists and is no Zarr image"):
        write_image(precious, OLD)
    assert (precious / "thesis.txt").exists()


def test_check_output_asks_before_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_output(tmp_path / "a.tif") == []
    assert check_output(tmp_path / "a.ome.zarr") == []
    (problem,) = check_output(tmp_path / "nowhere" / "a.tif")
    assert "does not exist" in problem.message
    assert not list(tmp_path.iterdir())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    (problem,) = check_output(tmp_path / "a.tif")
    assert problem.severity == "error"
    assert "you may not write" in problem.message


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = write_image(tmp_path / "a.tif", OLD)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o664)
    (tmp_path / "link.tif").symlink_to(path)
    write_image(tmp_path / "link.tif", NEW)
    assert (tmp_path / "link.tif").is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    assert read_image(path, None).shape == NEW.shape
