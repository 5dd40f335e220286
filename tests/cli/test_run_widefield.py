"""``napari-lfm run deconvolve-widefield``: stacks, a point spread function, the same run again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled
from napari_lfm.io.provenance import as_command, as_python, read_provenance
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

VOXEL = {"z": 0.3, "y": 0.1, "x": 0.1}
OPTICS = ("--set", "na=1.4", "--set", "wavelength_um=0.52", "--set", "immersion_index=1.515")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A stack that does not say its sizes."""
    data = np.random.default_rng(0).poisson(20, (8, 24, 26)).astype(np.uint16)
    data[4, 10:14, 8:20] += 300
    return write_image(tmp_path / "stack.tif", labelled(data, "zyx", {}))


@pytest.fixture
def bead(tmp_path: Path) -> Path:
    psf = widefield_psf(WidefieldOptics(1.4, 0.52, 1.515, 1.515), (7, 15, 15), (0.3, 0.1, 0.1))
    return write_image(tmp_path / "bead.tif", labelled(psf, "zyx", {}))


def test_a_stack_by_its_optics(shell: Shell, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    wrong = shell("run", "deconvolve-widefield", plain, "-o", out, *OPTICS)
    assert wrong.status == 2 and "--voxel-um" in wrong.err
    wrong = shell("run", "deconvolve-widefield", plain, "--voxel-um", "0.3,0.1,0.1", "-o", out)
    assert wrong.status == 2 and "na, wavelength_um, immersion_index are missing" in wrong.err
    words = ("--voxel-um", "0.3,0.1,0.1", "--set", "iterations=2", "--json")
    done = shell("run", "deconvolve-widefield", plain, "-o", out, *OPTICS, *words)
    assert done.status == 0, done.err
    assert {"residual", "iteration"} <= set(done.json)
    assert "sample's index is not given" in done.err
    result = read_image(out)
    assert result.shape == (8, 24, 26) and result.attrs["spacing"] == VOXEL


def test_with_a_point_spread_function_and_again(
    shell: Shell, plain: Path, bead: Path, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / f"{n}.tif" for n in ("first", "second", "third"))
    words = ("--voxel-um", "0.3,0.1,0.1", "--psf", bead, "--psf-voxel-um", "0.3,0.12,0.12")
    done = shell("run", "deconvolve-widefield", plain, "-o", first, *words, "--set", "iterations=2")
    assert done.status == 0, done.err
    assert "resampled" in done.err
    again = shell("run", "--from", first, "-o", second)
    assert again.status == 0, again.err
    np.testing.assert_array_equal(read_image(first).values, read_image(second).values)
    record = read_provenance(second)
    command = as_command(record, output=str(third))
    assert f"--psf {bead} --psf-voxel-um 0.3,0.12,0.12" in command
    assert shell(*shlex.split(command)[1:]).status == 0
    np.testing.assert_array_equal(read_image(first).values, read_image(third).values)
    script = as_python(record, output=str(third))
    third.unlink()
    exec(compile(script, "again", "exec"), {})
    np.testing.assert_array_equal(read_image(first).values, read_image(third).values)


def test_a_single_image_needs_no_z(shell: Shell, tmp_path: Path) -> None:
    data = np.random.default_rng(0).poisson(50, (30, 30)).astype(np.uint16)
    flat = write_image(tmp_path / "flat.tif", labelled(data, "yx", {"y": 0.1, "x": 0.1}))
    out = tmp_path / "out.tif"
    done = shell("run", "deconvolve-widefield", flat, "-o", out, *OPTICS, "--set", "iterations=1")
    assert done.status == 0, done.err
    assert read_image(out, kind="image").shape == (30, 30)


def test_other_methods_take_no_point_spread_function(shell: Shell, image: Path, bead: Path) -> None:
    done = shell("run", "stretch", image, "-o", image.with_name("out.tif"), "--psf", bead)
    assert done.status == 2
    assert "takes no point spread function" in done.err


def test_a_recording_is_not_overwritten_by_its_result(shell: Shell, plain: Path, bead: Path) -> None:
    voxel = ("--voxel-um", "0.3,0.1,0.1", "--set", "iterations=1")
    for place, more in ((plain, OPTICS), (bead, ("--psf", bead))):
        before = place.read_bytes()
        done = shell("run", "deconvolve-widefield", plain, "-o", place, *voxel, *more)
        assert (done.status, "would overwrite" in done.err) == (2, True), done.err
        assert place.read_bytes() == before
