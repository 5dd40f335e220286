from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr

from napari_lfm.core.events import Result
from napari_lfm.core.labelled import affine_of, labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.io.provenance import read_provenance
from napari_lfm.io.read import read_image, read_lightfield
from napari_lfm.io.write import write_image, write_result

if TYPE_CHECKING:
    from pathlib import Path

PROVENANCE = {"method": "deconvolve-lightfield", "parameters": {"iterations": 8}, "note": "µ <&> \"'"}
RNG = np.random.default_rng(3)
DIMS = {"yx": "yx", "zyx": "zyx", "tyx": "tyx", "tczyx": "tczyx", "one plane": "zyx", "one frame": "tzyx"}
SHAPES = {
    "yx": (8, 9),
    "zyx": (4, 8, 9),
    "tyx": (5, 8, 9),
    "tczyx": (2, 3, 4, 8, 9),
    "one plane": (1, 8, 9),
    "one frame": (1, 4, 8, 9),
}
SPACING = {"t": 0.1, "z": 0.9, "y": 0.108333333333, "x": 0.11}
ORIGIN = {"t": 0.3, "z": -7.0, "y": 0.4, "x": -0.25}


def sample(case: str, dtype: str = "float32") -> xr.DataArray:
    data = (RNG.random(SHAPES[case]) * 200).astype(dtype)
    image = labelled(data, DIMS[case], SPACING, ORIGIN, name="vesicle <1> µ")
    return image.assign_coords(c=["red", "gr & n", "561"]) if "c" in image.dims else image


def assert_same(found: xr.DataArray, image: xr.DataArray) -> None:
    assert found.dims == image.dims
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)
    assert set(found.coords) == set(image.coords)
    for dim in image.coords:
        np.testing.assert_array_equal(found.coords[dim], image.coords[dim])
        assert found.coords[dim].attrs == image.coords[dim].attrs
    assert found.attrs["spacing"] == image.attrs["spacing"]
    assert found.name == image.name


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".dat", "", ".ome.zarr"])
@pytest.mark.parametrize("case", SHAPES)
def test_what_is_written_reads_back_equal(tmp_path: Path, case: str, suffix: str) -> None:
    image = sample(case)
    path = write_image(tmp_path / f"result{suffix}", image, PROVENANCE)
    assert path == tmp_path / f"result{suffix}"
    found = read_image(path, kind=None)
    assert_same(found, image)
    assert found.attrs["provenance"] == PROVENANCE
    assert read_provenance(path) == PROVENANCE
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("bool", "uint8"),
        ("int8", "int8"),
        ("uint16", "uint16"),
        (">u2", "uint16"),
        ("int32", "int32"),
        ("int64", "uint32"),
    ],
)
def test_data_types(tmp_path: Path, dtype: str, stored: str, suffix: str) -> None:
    image = sample("zyx", dtype) if dtype != "bool" else sample("zyx") > 100
    found = read_image(write_image(tmp_path / f"a{suffix}", image), None)
    assert found.dtype == np.dtype(stored)
    np.testing.assert_array_equal(found, image.astype(stored))


def test_64_bit_numbers_keep_their_sign_and_size(tmp_path: Path) -> None:
    for low, high, stored in ((-5, 9, "int32"), (0, 2**32 - 1, "uint32"), (-1, 2**40, "float64")):
        image = labelled(np.array([[low, high], [0, 1]], np.int64), "yx", {})
        found = read_image(write_image(tmp_path / "a.tif", image), "image")
        assert found.dtype == np.dtype(stored)
        np.testing.assert_array_equal(found, image)


def test_double_precision_on_request(tmp_path: Path) -> None:
    image = sample("zyx", "float64")
    np.testing.assert_array_equal(
        read_image(write_image(tmp_path / "a.tif", image, dtype="float64"), None), image
    )


def test_rotated_lattice_keeps_its_matrix(tmp_path: Path) -> None:
    angle = np.deg2rad(3)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = 0.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:3, 3] = (-7, 0.1, 0.2)
    image = sample("zyx").drop_vars(["z", "y", "x"])
    image.attrs["affine_um"] = matrix
    for name in ("a.tif", "a.ome.zarr"):
        found = read_image(write_image(tmp_path / name, image), None)
        np.testing.assert_array_equal(affine_of(found), matrix)


def test_microscope_lattice_and_layout_travel(tmp_path: Path) -> None:
    image = sample("yx")
    image.attrs |= {
        "microscope": {"name": "x"},
        "lattice": {"pitch": np.array([15.4, 15.3])},
        "layout": "raw",
    }
    image.attrs["unwritable"] = object()
    found = read_lightfield(write_image(tmp_path / "a.tif", image))
    assert found.attrs["microscope"] == {"name": "x"}
    assert found.attrs["lattice"] == {"pitch": [15.4, 15.3]}
    assert "unwritable" not in found.attrs


def test_light_field_dims_come_back(tmp_path: Path) -> None:
    data = RNG.random((3, 5, 7, 8)).astype(np.float32)
    image = xr.DataArray(data, dims=("v", "u", "t", "s"), attrs={"spacing": {}, "lenslet_um": 1.6})
    found = read_lightfield(write_image(tmp_path / "a.tif", image))
    assert found.dims == ("v", "u", "t", "s")
    assert found.attrs["lenslet_um"] == 1.6
    np.testing.assert_array_equal(found, image)
    with pytest.raises(RequestError, match=r"Save it as .tif"):
        write_image(tmp_path / "a.ome.zarr", image)
    assert not (tmp_path / "a.ome.zarr").exists()


def test_uneven_times_come_back(tmp_path: Path) -> None:
    image = sample("tyx").assign_coords(t=("t", [0.0, 0.1, 0.5, 2.0, 2.1], {"units": "s"}))
    found = read_image(write_image(tmp_path / "a.tif", image), None)
    np.testing.assert_array_equal(found.coords["t"], image.coords["t"])
    assert found.coords["t"].attrs == {"units": "s"}


def test_other_programs_see_sizes_and_names(tmp_path: Path) -> None:
    """Read by tifffile alone: OME attributes, channel names, positions, resolution tags, compression."""
    path = write_image(tmp_path / "a.tif", sample("tczyx"), PROVENANCE)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "TCZYX"
        assert tif.series[0].shape == SHAPES["tczyx"]
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        x, y = tif.pages[0].resolution
        assert tif.pages[0].resolutionunit == tifffile.RESUNIT.CENTIMETER
        known = tifffile.xml2dict(tif.ome_metadata)["OME"]
    assert (1e4 / x, 1e4 / y) == pytest.approx((0.11, 0.108333), rel=1e-5)
    pixels = known["Image"]["Pixels"]
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeZUnit"], pixels["TimeIncrement"]) == (0.9, "µm", 0.1)
    assert [c["Name"] for c in pixels["Channel"]] == ["red", "gr & n", 561]
    plane = pixels["Plane"][5]
    assert (plane["TheT"], plane["TheC"], plane["TheZ"]) == (0, 1, 1)
    assert (plane["PositionX"], plane["PositionZ"]) == pytest.approx((-0.25, -6.1))
    annotation = known["StructuredAnnotations"]["CommentAnnotation"]
    assert annotation["Namespace"] == "napari-lfm/1"
    assert json.loads(annotation["Value"])["provenance"] == PROVENANCE


def test_zarr_is_valid_ome_zarr_0_5(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    path = write_image(tmp_path / "a.ome.zarr", sample("tczyx"), PROVENANCE)
    yaozarrs.validate_zarr_store(str(path))
    group = json.loads((path / "zarr.json").read_text())
    ome = group["attributes"]["ome"]
    assert (group["zarr_format"], ome["version"]) == (3, "0.5")
    (scale, shift) = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [0.1, 1.0, 0.9, 0.108333333333, 0.11]
    assert shift["translation"] == [0.3, 0.0, -7.0, 0.4, -0.25]
    assert [a.get("unit") for a in ome["multiscales"][0]["axes"]] == ["second", None, *["micrometer"] * 3]
    assert json.loads((path / "0" / "zarr.json").read_text())["dimension_names"] == list("tczyx")


def test_movie_is_streamed_frame_by_frame(tmp_path: Path) -> None:
    """Each frame is computed once, in order."""
    made: list[int] = []

    def frame(block_info: dict[int, dict[str, list[tuple[int, int]]]]) -> np.ndarray:
        index = block_info[0]["array-location"][0][0]
        made.append(index)
        return np.full((1, 4, 8, 9), index, np.float32)

    empty = da.zeros((12, 4, 8, 9), chunks=(1, 4, 8, 9), dtype=np.float32)
    movie = da.map_blocks(
        lambda _, block_info=None: frame(block_info), empty, dtype=np.float32, meta=np.empty(0, "f4")
    )
    image = labelled(movie, "tzyx", SPACING)
    for name in ("a.tif", "a.ome.zarr"):
        made.clear()
        path = write_image(tmp_path / name, image)
        assert made == list(range(12))
        found = read_image(path, None)
        assert found.chunks is not None
        np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(12))


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_memory_stays_bounded_while_a_movie_is_written(tmp_path: Path, name: str) -> None:
    movie = da.random.default_rng(0).integers(0, 4, (80, 256, 512), np.uint16, chunks=(1, 256, 512))
    image = labelled(movie, "tyx", {})
    write_image(tmp_path / name, image[:2])  # what is imported on the way is not counted
    tracemalloc.start()
    try:
        write_image(tmp_path / name, image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < movie.nbytes / 2  # 21 MB in all; about 5 MB are needed


def test_chunks_that_hold_several_frames(tmp_path: Path) -> None:
    data = RNG.random((7, 3, 6, 5)).astype(np.float32)
    for chunks in ((3, 2, 6, 5), (1, 1, 3, 5), (7, 3, 6, 2)):
        image = labelled(da.from_array(data, chunks=chunks), "tzyx", SPACING)
        np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.tif", image), None), data)


def test_a_movie_can_be_written_over_itself(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.tif", sample("tyx"))
    movie = read_image(path, None)
    assert movie.chunks is not None
    expected = movie.values + 1
    write_image(path, movie + 1)
    np.testing.assert_array_equal(read_image(path, None), expected)


def test_big_files_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_lfm.io.write._CLASSIC_LIMIT", 100)
    path = write_image(tmp_path / "a.tif", sample("zyx"))
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
    assert read_image(path).shape == SHAPES["zyx"]


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (xr.DataArray(np.zeros(5), dims="x"), "axes x cannot be saved"),
        (xr.DataArray(np.zeros((5, 5)), dims=("q", "x")), "axes q x cannot be saved"),
        (xr.DataArray(np.zeros((0, 5)), dims=("y", "x")), "without pixels"),
        (xr.DataArray(np.zeros((5, 5), complex), dims=("y", "x")), "magnitude"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path: Path, image: xr.DataArray, what: str) -> None:
    with pytest.raises(RequestError, match=what):
        write_image(tmp_path / "a.tif", image)
    assert not list(tmp_path.iterdir())


def test_result_with_several_outputs(tmp_path: Path) -> None:
    points = pd.DataFrame({"z_um": [1.0], "y_um": [2.0], "x_um": [3.0], "confidence": [0.5]})
    outputs = {"residual map": sample("yx"), "volume": sample("zyx"), "beads": points}
    result = Result(outputs, "volume", {"method": "m", "parameters": {}})
    written = write_result(tmp_path / "out.ome.tif", result)
    assert [p.name for p in written] == ["out.ome.tif", "out.residual-map.tif", "out.beads.csv"]
    assert read_image(written[0]).dims == ("z", "y", "x")
    for path, name in zip(written, ("volume", "residual map", "beads"), strict=True):
        assert read_provenance(path) == {"method": "m", "parameters": {}, "output": name}


def test_points_as_primary_result_are_csv_whatever_the_suffix(tmp_path: Path) -> None:
    points = pd.DataFrame({"z_um": [1.0], "y_um": [2.0], "x_um": [3.0], "confidence": [0.5]})
    (path,) = write_result(tmp_path / "beads", Result({"points": points}, "points", {"method": "m"}))
    assert path.read_text().startswith("z_um,y_um,x_um,confidence\n1.0,2.0,3.0,0.5")
    assert read_provenance(path)["method"] == "m"
