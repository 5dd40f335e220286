from __future__ import annotations

import ast
import hashlib
import json
import shlex
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
from pydantic import BaseModel

from napari_lfm import __version__
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.provenance import (
    as_command,
    as_python,
    changed_inputs,
    fingerprint,
    make_provenance,
    read_provenance,
)
from napari_lfm.io.write import write_image

if TYPE_CHECKING:
    from pathlib import Path

RAW = labelled(np.arange(5 * 6, dtype=np.uint16).reshape(5, 6), "yx", {"y": 0.1, "x": 0.1})
MICROSCOPE = {
    "name": "my scope",
    "objective": {"magnification": 60.0, "na": 1.2, "immersion_index": 1.333},
    "lenslets": {"pitch_um": 100.0, "focal_length_um": 2500.0},
    "camera": {"pixel_um": 6.5},
    "wavelength_um": 0.593,
}
LATTICE = {
    "origin_px": (7.0, 7.0),
    "row_step_px": (15.4, 0.0),
    "column_step_px": (0.0, 15.4),
    "rows": 28,
    "columns": 28,
    "image_shape": (436, 436),
}


class Parameters(BaseModel):
    iterations: int = 8
    z_min_um: float = -10.0
    auto_stop: bool = False
    note: str = "it's a $HOME"
    tv: float | None = None


def record(**changes: object) -> dict[str, object]:
    options: dict[str, object] = {
        "method": "deconvolve-lightfield",
        "parameters": Parameters(z_min_um=-7.5),
        "inputs": {"image": RAW, "white": RAW + 1},
        "sources": {"image": "/data/my raw.tif", "white": "white.tif"},
        "microscope": MICROSCOPE,
        "lattice": LATTICE,
        "device": "cuda:0",
        "region_px": (0, 1, 20, np.int64(30)),
    }
    return make_provenance(**(options | changes))  # type: ignore[arg-type]


def test_record_is_complete_and_json_ready() -> None:
    found = record(model={"id": "lfmnet-guv", "sha256": "ab" * 32}, seed=np.int32(4))
    assert json.loads(json.dumps(found)) == found
    assert found["method"] == "deconvolve-lightfield"
    assert found["parameters"] == {
        "iterations": 8, "z_min_um": -7.5, "auto_stop": False, "note": "it's a $HOME", "tv": None,
    }  # fmt: skip
    assert found["inputs"]["image"]["fingerprint"] == fingerprint(RAW)
    assert found["inputs"]["image"]["shape"] == [5, 6]
    assert set(found["inputs"]) == {"image", "white"}
    assert found["sources"]["white"] == "white.tif"
    assert found["versions"]["napari-lfm"] == __version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["region_px"] == [0, 1, 20, 30]
    assert found["model"]["sha256"] == "ab" * 32
    assert found["device"] == "cuda:0"
    assert found["seed"] == 4
    assert found["lattice"]["origin_px"] == [7.0, 7.0]
    assert found["created"].endswith("+00:00")


def test_torch_is_named_only_where_it_was_loaded() -> None:
    code = (
        "import sys, numpy as np, xarray as xr; from napari_lfm.io.provenance import make_provenance;"
        "r = make_provenance(method='m', parameters={}, inputs={'image': xr.DataArray(np.zeros((2, 2)))});"
        "assert 'torch' not in sys.modules and 'napari' not in sys.modules; print('torch' in r['versions'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


def test_fingerprint_is_what_it_says() -> None:
    data = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    expected = hashlib.sha256(b"<f4 (2, 3, 4) " + data.tobytes()).hexdigest()
    assert fingerprint(xr.DataArray(data)) == f"sha256:{expected}"


def test_fingerprint_does_not_depend_on_storage() -> None:
    data = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    expected = fingerprint(xr.DataArray(data))
    for same in (
        data.astype(">f4"),
        np.asfortranarray(data),
        da.from_array(data, chunks=(1, 7, 8)),
        da.from_array(data, chunks=(4, 3, 2)),
    ):
        assert fingerprint(xr.DataArray(same)) == expected
    changed = data.copy()
    changed[5, 6, 7] += 1e-3
    for other in (changed, data.reshape(7, 6, 8), data.view(np.int32)):
        assert fingerprint(xr.DataArray(other)) != expected


def test_changed_inputs_are_noticed() -> None:
    provenance = record()
    assert changed_inputs(provenance, {"image": RAW, "white": RAW + 1}) == []
    problems = changed_inputs(provenance, {"image": RAW + 5})
    assert [p.field for p in problems] == ["image", "white"]
    assert "pixels differ" in problems[0].message
    assert "not given now" in problems[1].message


def test_no_provenance_is_one_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    write_image(tmp_path / "b.tif", RAW)
    write_image(tmp_path / "c.ome.zarr", RAW)
    (tmp_path / "d.json").write_text("{")
    expected = {
        "a.tif": "does not say",
        "b.tif": "does not say",
        "c.ome.zarr": "does not say",
        "d.json": "not a readable JSON",
        "e.tif": "There is no file",
    }
    for name, what in expected.items():
        with pytest.raises(RequestError, match=what):
            read_provenance(tmp_path / name)


def words(command: str) -> list[str]:
    return shlex.split(command.splitlines()[-1])


def test_command_has_every_word_of_the_contract() -> None:
    found = words(
        as_command(record(layout="raw", memory_gib=4.0), presets=["my scope"], output="out dir/v.tif")
    )
    assert found[:6] == [
        "napari-lfm",
        "run",
        "deconvolve-lightfield",
        "/data/my raw.tif",
        "-o",
        "out dir/v.tif",
    ]
    options = " ".join(found[6:])
    assert "--microscope my scope --grid grid.json --white white.tif --layout raw" in options
    assert "--region-px 0,1,20,30" in options
    assert "--device cuda --memory-gib 4" in options
    assert "--set iterations=8 --set z_min_um=-7.5 --set auto_stop=false --set note=it's a $HOME" in options
    assert "tv=" not in options
    assert "--dark" not in options


def test_command_leaves_defaults_out_when_it_knows_them() -> None:
    found = words(as_command(record(), defaults=Parameters().model_dump()))
    assert [w for w in found if "=" in w] == ["z_min_um=-7.5"]


def test_microscope_changed_under_a_known_name_is_written_out() -> None:
    changed = {**MICROSCOPE, "wavelength_um": 0.6}
    assert "--microscope 'my scope'" in as_command(record(), presets={"my scope": MICROSCOPE})
    assert "--microscope microscope.json" in as_command(record(), presets={"my scope": changed})


def test_command_of_a_stack_says_how_to_read_it() -> None:
    stack = labelled(np.zeros((3, 4, 5), np.uint8), "zyx", {})
    stack.attrs |= {"source": "s.tif", "read": {"axes": "ZYX", "voxel_um": [0.3, 0.1, 0.1]}}
    provenance = make_provenance(
        method="isotropic", parameters={}, inputs={"image": stack}, model={"id": "iso"}
    )
    assert words(as_command(provenance)) == [
        "napari-lfm", "run", "isotropic", "s.tif", "-o", "result.tif", "--model", "iso",
        "--axes", "ZYX", "--voxel-um", "0.3,0.1,0.1", "--device", "cpu",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_command_runs_in_a_shell_and_brings_its_files(tmp_path: Path) -> None:
    """The shell must hand over exactly these words, and write the optics and the grid."""
    program = tmp_path / "napari-lfm"
    program.write_text(f"#!{sys.executable}\nimport sys, json; print(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    command = as_command(record())
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True
    )
    given = json.loads(done.stdout)
    assert given == words(command)[1:]
    assert "note=it's a $HOME" in given
    assert given[given.index("--microscope") + 1] == "microscope.json"
    assert json.loads((tmp_path / "microscope.json").read_text()) == MICROSCOPE
    assert json.loads((tmp_path / "grid.json").read_text())["rows"] == 28


def run_script(script: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Execute a script against a stand-in for the engine, and return what it asked for."""
    asked: dict[str, object] = {}

    def run(method: str, image: object, **options: object) -> str:
        asked.update(options, method=method, image=image)
        return "the result"

    def reader(name: str):  # type: ignore[no-untyped-def]
        return lambda *args, **kwargs: (name, args, kwargs)

    def write_result(path: str, result: object) -> list[str]:
        asked["written"] = (path, result)
        return []

    monkeypatch.setitem(sys.modules, "napari_lfm.api", SimpleNamespace(run=run))
    monkeypatch.setattr("napari_lfm.io.read.read_lightfield", reader("lightfield"))
    monkeypatch.setattr("napari_lfm.io.read.read_image", reader("image"))
    monkeypatch.setattr("napari_lfm.io.write.write_result", write_result)
    exec(compile(ast.parse(script), "script", "exec"), {})
    return asked


def test_script_repeats_the_run_through_the_public_api(monkeypatch: pytest.MonkeyPatch) -> None:
    script = as_python(record(layout="raw"), output="v.tif")
    assert all(len(line) < 200 for line in script.splitlines())
    asked = run_script(script, monkeypatch)
    assert asked["method"] == "deconvolve-lightfield"
    kind, args, options = asked["image"]  # type: ignore[misc]
    assert (kind, args[0], options) == ("lightfield", "/data/my raw.tif", {"layout": "raw"})
    assert args[1] is asked["microscope"]
    assert asked["microscope"].object_pixel_um == pytest.approx(6.5 / 60)  # type: ignore[attr-defined]
    assert asked["lattice"].rows == 28  # type: ignore[attr-defined]
    assert asked["white"][1][0] == "white.tif"  # type: ignore[index]
    assert (asked["layout"], asked["device"], asked["region_px"]) == ("raw", "cuda", (0, 1, 20, 30))
    assert (asked["iterations"], asked["z_min_um"], asked["tv"]) == (8, -7.5, None)
    assert asked["written"] == ("v.tif", "the result")


def test_script_of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = labelled(np.zeros((3, 4, 5), np.uint8), "zyx", {})
    stack.attrs |= {"source": "s.tif", "read": {"voxel_um": [0.3, 0.1, 0.1]}}
    provenance = make_provenance(
        method="isotropic",
        parameters={},
        inputs={"image": stack},
        model={"id": "iso"},
        microscope={**MICROSCOPE, "lenslets": None},
    )
    asked = run_script(as_python(provenance), monkeypatch)
    assert asked["image"] == ("image", ("s.tif",), {"kind": "stack", "voxel_um": [0.3, 0.1, 0.1]})
    assert asked["model"] == "iso"


def test_things_without_a_json_form_are_named() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        record(something=object())
    assert record(something=[float("nan"), -np.inf])["something"] == ["nan", "-inf"]
