from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled, origin_of
from napari_lfm.core.problems import RequestError
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image

if TYPE_CHECKING:
    from pathlib import Path

zarr = pytest.importorskip("zarr")
DATA = np.random.default_rng(0).integers(0, 99, (2, 3, 8, 9)).astype(np.uint16)


def store(path: Path, version: str, **changes: object) -> Path:
    """Write an image as another program would."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for level, data in enumerate((DATA, DATA[..., ::2, ::2])):
        group.create_array(str(level), shape=data.shape, dtype=data.dtype, chunks=(1, 2, 4, 4))[...] = data
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space"},
    ]
    first = [
        {"type": "scale", "scale": [1, 2.0, 100.0, 1.0]},
        {"type": "translation", "translation": [0, -1.0, 50.0, 0.0]},
    ]
    second = [{"type": "scale", "scale": [1, 2.0, 200.0, 2.0]}]
    multiscale: dict[str, object] = {
        "axes": axes,
        "datasets": [
            {"path": "0", "coordinateTransformations": first},
            {"path": "1", "coordinateTransformations": second},
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 3.0, 1.0, 1.0]}],
        **changes,
    }
    attributes = {"multiscales": [multiscale]}
    group.attrs.update(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_other_programs(tmp_path: Path, version: str) -> None:
    image = read_image(store(tmp_path / "a.ome.zarr", version), None)
    assert image.dims == ("c", "z", "y", "x")
    np.testing.assert_array_equal(image, DATA)
    # the scale of all levels applies after the level's own scale and translation
    assert image.attrs["spacing"] == pytest.approx({"z": 6.0, "y": 0.1})
    assert origin_of(image) == pytest.approx({"z": -3.0, "y": 0.05})
    assert "x" not in image.coords  # no unit, no size


def test_what_bioformats2raw_writes(tmp_path: Path) -> None:
    outer = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    outer.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    store(tmp_path / "a.zarr" / "0", "0.5")
    np.testing.assert_array_equal(read_image(tmp_path / "a.zarr", None), DATA)


def test_a_zarr_folder_of_any_name(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(store(tmp_path / "exported", "0.5"), None), DATA)


def test_stack_needs_sizes_here_too(tmp_path: Path) -> None:
    path = store(tmp_path / "a.ome.zarr", "0.5")
    with pytest.raises(RequestError, match="no size along x"):
        read_image(path, "stack")
    assert read_image(path, "stack", voxel_um=(1, 2, 3)).attrs["spacing"] == {"z": 1.0, "y": 2.0, "x": 3.0}
    assert read_image(path, None, axes="TZYX").dims == ("t", "z", "y", "x")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"datasets": []}, "description .* is not valid"),
        ({"datasets": [{"path": "7"}]}, "description .* is not valid"),
        ({"axes": [{"name": n} for n in "pzyx"]}, r"axes of a.ome.zarr \(p z y x\) are not"),
        ({"axes": [{"name": n} for n in "yx"]}, r"axes of a.ome.zarr \(y x\) are not"),
    ],
)
def test_bad_descriptions(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        read_image(store(tmp_path / "a.ome.zarr", "0.5", **changes), None)


def test_folders_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(RequestError, match="is not a Zarr group"):
        read_image(tmp_path / "empty.zarr", None)
    zarr.open_group(str(tmp_path / "plain.zarr"), mode="w")
    with pytest.raises(RequestError, match="without an OME-Zarr image"):
        read_image(tmp_path / "plain.zarr", None)
    (tmp_path / "torn.zarr").mkdir()
    (tmp_path / "torn.zarr" / "zarr.json").write_text("{")
    with pytest.raises(RequestError, match="is not a Zarr group"):
        read_image(tmp_path / "torn.zarr", None)


def test_broken_chunk(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.ome.zarr", labelled(DATA[0], "zyx", {}))
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"rubbish")
    with pytest.raises(RequestError, match=r"pixels of a.ome.zarr cannot be read"):
        read_image(path, None)


def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.ome.zarr", labelled(DATA[0], "zyx", {}))
    before = json.loads((path / "zarr.json").read_text())
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(RequestError, match=r"pip install 'napari-lfm\[zarr\]'"):
        read_image(path, None)
    with pytest.raises(RequestError, match=r"pip install 'napari-lfm\[zarr\]'"):
        write_image(path, labelled(DATA[0], "zyx", {}))
    assert json.loads((path / "zarr.json").read_text()) == before


def test_movies_stay_lazy(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.ome.zarr", labelled(DATA, "tzyx", {"t": 0.5}))
    image = read_image(path, None)
    assert image.chunks is not None
    np.testing.assert_array_equal(image[1, 2], DATA[1, 2])
