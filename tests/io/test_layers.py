from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr

from napari_lfm.core.labelled import affine_of, labelled, origin_of
from napari_lfm.core.problems import RequestError
from napari_lfm.io.layers import contrast_of, image_from_layer_info, layer_data_from
from napari_lfm.io.point_layers import points_from_layer_info, points_layer_data_from
from napari_lfm.io.write import write_image

if TYPE_CHECKING:
    from pathlib import Path

DATA = np.random.default_rng(0).random((3, 8, 9)).astype(np.float32)
SPACING = {"t": 0.5, "z": 2.0, "y": 0.1, "x": 0.2}
# what a napari layer has when nobody said anything
PLAIN = {"scale": (1, 1, 1), "translate": (0, 0, 0), "affine": np.eye(4), "units": ("pixel",) * 3}
PLAIN |= {"axis_labels": ("-3", "-2", "-1"), "metadata": {}}


def back(arguments: dict[str, object], data: object, **more: object) -> xr.DataArray:
    keys = ("scale", "translate", "affine", "units", "axis_labels", "metadata", "name")
    return image_from_layer_info(data, **{k: arguments.get(k) for k in keys}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", ["zyx", "tyx"])
def test_there_and_back(dims: str) -> None:
    image = labelled(DATA, dims, SPACING, {"z": -2.0, "y": 0.3, "x": -1.0}, name="cell")
    image.attrs |= {"microscope": {"name": "m"}, "lattice": {"rows": 3}, "provenance": {"method": "x"}}
    data, arguments, kind = layer_data_from(image, role="volume")
    assert kind == "image"
    assert data is image.data
    assert arguments["axis_labels"] == tuple(dims)
    assert arguments["units"] == (("um" if dims[0] == "z" else "s"), "um", "um")
    assert arguments["metadata"]["napari_lfm"] == {
        "role": "volume", "microscope": {"name": "m"}, "lattice": {"rows": 3}, "provenance": {"method": "x"},
    }  # fmt: skip
    found = back(arguments, data)
    xr.testing.assert_allclose(found, image)
    assert found.name == "cell"
    assert found.attrs == image.attrs


def test_no_size_means_pixels_not_micrometres() -> None:
    data, arguments, _ = layer_data_from(labelled(DATA, "zyx", {"y": 0.1, "x": 0.1}))
    assert arguments["units"] == ("pixel", "um", "um")
    assert arguments["scale"] == (1.0, 0.1, 0.1)
    assert set(back(arguments, data).coords) == {"y", "x"}


def test_rotated_lattice_keeps_matrix_and_a_readable_scale() -> None:
    angle = np.deg2rad(10)
    matrix = np.diag([2.0, 0.5, 0.5, 1.0])
    matrix[1:3, 1:3] = 0.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:3, 3] = (-7, 1, 2)
    image = xr.DataArray(DATA, dims=tuple("zyx"), attrs={"spacing": {"z": 2, "y": 0.5, "x": 0.5}})
    image.attrs["affine_um"] = matrix.tolist()
    data, arguments, _ = layer_data_from(image)
    assert arguments["scale"] == pytest.approx((2.0, 0.5, 0.5))
    assert arguments["units"] == ("um",) * 3
    np.testing.assert_allclose(arguments["affine"] @ np.diag([*arguments["scale"], 1]), matrix)
    np.testing.assert_allclose(affine_of(back(arguments, data)), matrix)


def test_light_field_views_are_in_pixels() -> None:
    image = xr.DataArray(np.zeros((3, 3, 4, 5)), dims=tuple("vuts"), attrs={"spacing": {}, "lenslet_um": 1.6})
    data, arguments, _ = layer_data_from(image, role="lightfield")
    assert arguments["units"] == ("pixel",) * 4
    found = back(arguments, data)
    assert found.dims == ("v", "u", "t", "s")
    assert found.attrs["lenslet_um"] == 1.6


def test_contrast_ignores_outliers_and_nan_and_reads_one_frame_of_a_movie() -> None:
    frame = np.linspace(0, 1, 10000).reshape(100, 100)
    frame[0, 0], frame[0, 1] = 1e9, np.nan
    low, high = contrast_of(labelled(frame, "yx", {})) or (0, 0)
    assert 0 <= low < 0.01
    assert 0.99 < high < 1.01
    assert contrast_of(labelled(np.ones((4, 4)), "yx", {})) is None
    assert contrast_of(labelled(np.full((4, 4), np.nan), "yx", {})) is None
    computed: list[int] = []
    movie = da.stack([frame] * 9).rechunk((1, 100, 100)).map_blocks(
        lambda b: computed.append(len(b)) or b, dtype=float, meta=np.empty((0, 0, 0))
    )  # fmt: skip
    assert contrast_of(labelled(movie, "tyx", {})) is not None
    assert computed == [1]


@pytest.mark.parametrize(("kind", "first"), [("stack", "z"), ("image", "t"), ("lightfield", "t")])
def test_layer_of_which_nothing_is_known(kind: str, first: str) -> None:
    image = image_from_layer_info(DATA, **PLAIN, kind=kind)  # type: ignore[arg-type]
    assert image.dims == (first, "y", "x")
    assert not image.coords
    assert image.attrs == {"spacing": {}}


def test_layer_from_napari_own_reader_gets_its_sizes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, DATA, imagej=True, resolution=(5, 10), metadata={"axes": "ZYX", "unit": "um", "spacing": 2.0}
    )
    image = image_from_layer_info(tifffile.imread(path), **PLAIN, source_path=path, name="a", kind="stack")  # type: ignore[arg-type]
    assert image.dims == ("z", "y", "x")
    assert image.attrs["spacing"] == pytest.approx({"z": 2.0, "y": 0.1, "x": 0.2})
    assert image.attrs["source"] == str(path)
    assert image.name == "a"
    # what the user set in the layer wins over the file
    scaled = {**PLAIN, "scale": (3, 1, 1)}
    assert image_from_layer_info(DATA, **scaled, source_path=path).attrs["spacing"]["z"] == 3.0  # type: ignore[arg-type]


def test_layer_of_our_own_file_gets_everything_back(tmp_path: Path) -> None:
    image = labelled(
        DATA, "zyx", SPACING, {"z": -2.0, "y": 0.1, "x": 0.1}, attrs={"provenance": {"method": "x"}}
    )
    for name in ("a.tif", "a.ome.zarr"):
        path = write_image(tmp_path / name, image)
        found = image_from_layer_info(DATA, **PLAIN, source_path=path)  # type: ignore[arg-type]
        assert origin_of(found) == {"z": -2.0, "y": 0.1, "x": 0.1}
        assert found.attrs["provenance"] == {"method": "x"}


@pytest.mark.parametrize("content", [b"", b"no tiff"])
def test_file_that_says_nothing_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    for path in (tmp_path / "a.tif", tmp_path / "gone.tif", tmp_path / "a.png"):
        image = image_from_layer_info(DATA, **PLAIN, source_path=path, kind="stack")  # type: ignore[arg-type]
        assert image.dims == ("z", "y", "x")
    tifffile.imwrite(tmp_path / "other.tif", DATA[:, :4], photometric="minisblack")
    image = image_from_layer_info(DATA, **PLAIN, source_path=tmp_path / "other.tif", kind="image")  # type: ignore[arg-type]
    assert image.dims == ("t", "y", "x")


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (("nanometer",) * 3, {"z": 2e-3, "y": 1e-4, "x": 1e-4}),
        (("mm",) * 3, {"z": 2e3, "y": 1e2, "x": 1e2}),
        (("micrometer",) * 3, {"z": 2.0, "y": 0.1, "x": 0.1}),
        # readers that set a scale and no units mean micrometres
        (("pixel",) * 3, {"z": 2.0, "y": 0.1, "x": 0.1}),
        (("pixel", "um", "um"), {"y": 0.1, "x": 0.1}),
    ],
)
def test_units_of_other_readers(units: tuple[str, ...], expected: dict[str, float]) -> None:
    image = image_from_layer_info(DATA, scale=(2.0, 0.1, 0.1), units=units, axis_labels=("z", "y", "x"))
    assert image.attrs["spacing"] == pytest.approx(expected)
    assert {str(c) for c in image.coords} == set(expected)


def test_axes_in_another_order_and_slices_that_are_frames() -> None:
    image = image_from_layer_info(DATA, scale=(2.0, 1.0, 3.0), units=("um",) * 3, axis_labels=("X", "Z", "Y"))
    assert image.dims == ("z", "y", "x")
    assert image.attrs["spacing"] == {"x": 2.0, "z": 1.0, "y": 3.0}
    frames = image_from_layer_info(
        DATA, scale=(2.0, 1.0, 1.0), units=("um",) * 3, axis_labels=("z", "y", "x"), kind="lightfield"
    )
    assert frames.dims == ("t", "y", "x")
    assert "t" not in frames.coords


def test_multiscale_takes_the_finest_level() -> None:
    image = image_from_layer_info([DATA, DATA[:, ::2, ::2]], kind="stack")
    assert image.shape == DATA.shape
    levels = SimpleNamespace(shapes=[DATA.shape], __getitem__=None)
    assert hasattr(levels, "shapes")


def test_colour_and_one_dimensional_layers_are_refused() -> None:
    with pytest.raises(RequestError, match=r"holiday is a colour picture with 3 channels.*Split RGB"):
        image_from_layer_info(np.zeros((8, 9, 3)), name="holiday", rgb=True)
    with pytest.raises(RequestError, match="one-dimensional"):
        image_from_layer_info(np.zeros(5))
    with pytest.raises(RequestError, match="not clear"):
        image_from_layer_info(np.zeros((2, 2, 2, 2, 2, 2)))


TABLE = pd.DataFrame(
    {"z_um": [1.0, -2.0], "y_um": [3.0, 4.0], "x_um": [50.0, 6.0], "confidence": [0.9, 0.1], "id": ["a", "b"]}
)


def test_points_there_and_back() -> None:
    table = TABLE.copy()
    table.attrs["provenance"] = {"method": "localize"}
    data, arguments, kind = points_layer_data_from(table, "beads")
    assert kind == "points"
    np.testing.assert_array_equal(data, [[1, 3, 50], [-2, 4, 6]])
    assert arguments["units"] == ("um",) * 3
    assert list(arguments["features"]) == ["confidence", "id"]
    assert arguments["metadata"]["napari_lfm"] == {"role": "points", "provenance": {"method": "localize"}}
    found = points_from_layer_info(
        data,
        units=arguments["units"],
        axis_labels=arguments["axis_labels"],
        features=arguments["features"],
        metadata=arguments["metadata"],
    )
    pd.testing.assert_frame_equal(found, TABLE)
    assert found.attrs["provenance"] == {"method": "localize"}
    assert points_layer_data_from(TABLE.iloc[:0])[0].shape == (0, 3)


def test_points_drawn_by_hand_become_micrometres() -> None:
    found = points_from_layer_info(
        [[10.0, 20.0]], scale=(0.1, 0.2), translate=(1.0, 0.0), units=("mm", "um"), axis_labels=("-2", "-1")
    )
    assert found[["z_um", "y_um", "x_um"]].to_numpy() == pytest.approx(np.array([[0.0, 2000.0, 4.0]]))
    assert found["confidence"].isna().all()
    movie = points_from_layer_info([[3.0, 1.0, 2.0, 4.0]], scale=(1, 2, 1, 1))
    assert movie.iloc[0][["t", "z_um", "y_um", "x_um"]].tolist() == [3.0, 2.0, 2.0, 4.0]


def test_points_without_a_plane_are_refused() -> None:
    with pytest.raises(RequestError, match="fewer than two axes"):
        points_from_layer_info([[1.0]])
    with pytest.raises(RequestError, match="5 axes without names"):
        points_from_layer_info([[1.0] * 5])
