"""The npe2 reader and writers, alone and in a real viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr

from napari_lfm._reader import get_reader
from napari_lfm._writer import write_image, write_image_layers, write_points
from napari_lfm.core.labelled import labelled, origin_of
from napari_lfm.io.points import read_points
from napari_lfm.io.points import write_points as write_table
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image as write

DATA = np.random.default_rng(0).random((4, 20, 30)).astype(np.float32)
VOLUME = labelled(
    DATA, "zyx", {"z": 2.0, "y": 0.5, "x": 0.25}, {"z": -4.0, "y": 0.1, "x": 0.2}, name="vesicle"
)
VOLUME.attrs |= {"provenance": {"method": "deconvolve-lightfield"}, "microscope": {"name": "m"}}
TABLE = pd.DataFrame({"z_um": [1.0], "y_um": [2.0], "x_um": [3.0], "confidence": [0.5], "id": [7]})


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.ome.tif", "a.ome.zarr"])
def test_our_images_come_with_sizes_units_labels_and_provenance(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, VOLUME)
    reader = get_reader(str(path))
    assert reader is not None
    ((data, arguments, kind),) = reader(str(path))
    assert kind == "image"
    np.testing.assert_array_equal(data, DATA)
    assert arguments["name"] == "vesicle"
    assert arguments["scale"] == (2.0, 0.5, 0.25)
    assert arguments["translate"] == (-4.0, 0.1, 0.2)
    assert arguments["units"] == ("um",) * 3
    assert arguments["axis_labels"] == ("z", "y", "x")
    ours = arguments["metadata"]["napari_lfm"]
    assert ours["role"] == "volume"
    assert ours["provenance"] == {"method": "deconvolve-lightfield"}
    assert ours["source"] == str(path)


def test_every_image_of_a_file_is_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(DATA[0], metadata={"axes": "YX"})
        writer.write(DATA[:2, :9], metadata={"axes": "ZYX"})
    reader = get_reader(str(path))
    assert reader is not None
    assert [np.shape(data) for data, *_ in reader(str(path))] == [(20, 30), (2, 9, 30)]
    assert [arguments["name"] for _, arguments, _ in reader(str(path))] == ["two [0]", "two [1]"]


def test_points_and_light_fields(tmp_path: Path) -> None:
    path = write_table(tmp_path / "beads.csv", TABLE, {"method": "localize"})
    reader = get_reader(str(path))
    assert reader is not None
    ((data, arguments, kind),) = reader([str(path)])
    assert kind == "points"
    np.testing.assert_array_equal(data, [[1, 2, 3]])
    assert arguments["units"] == ("um",) * 3
    assert arguments["metadata"]["napari_lfm"]["provenance"] == {"method": "localize"}
    np.savez(tmp_path / "views.npz", vuts=np.zeros((3, 3, 5, 6)))
    reader = get_reader(str(tmp_path / "views.npz"))
    assert reader is not None
    ((_, arguments, _),) = reader(str(tmp_path / "views.npz"))
    assert arguments["axis_labels"] == ("v", "u", "t", "s")
    assert arguments["metadata"]["napari_lfm"]["role"] == "lightfield"


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "complex.tif", np.zeros((8, 9), np.complex64))
    tifffile.imwrite(tmp_path / "line.tif", np.zeros(9, np.uint8))
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((2, 2, 5, 6, 7), np.uint8))
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "axis-0,axis-1.csv").write_text("index,axis-0,axis-1\n0,1,2\n")
    np.savez(tmp_path / "random.npz", a=np.zeros((3, 3, 5, 6)))
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    for path in [*tmp_path.iterdir(), tmp_path / "gone.tif", tmp_path / "gone.csv", tmp_path / "gone.zarr"]:
        assert get_reader(str(path)) is None, path.name
    # several files at once: napari makes one stack of them
    paths = [str(write(tmp_path / f"{i}.tif", VOLUME)) for i in range(2)]
    assert get_reader(paths) is None
    assert get_reader(paths[:1]) is not None


def test_movies_are_lazy(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.tif", labelled(DATA, "tyx", {"t": 0.1, "y": 0.5, "x": 0.5}))
    reader = get_reader(str(path))
    assert reader is not None
    ((data, arguments, _),) = reader(str(path))
    assert hasattr(data, "dask")
    assert arguments["units"] == ("s", "um", "um")


def test_every_real_tiff_opens(shared_data: Path) -> None:
    paths = sorted(shared_data.rglob("*.tif"))
    assert len(paths) > 10
    for path in paths:
        reader = get_reader(str(path))
        assert reader is not None, path
        ((data, arguments, kind),) = reader(str(path))
        assert kind == "image"
        assert data.shape == tifffile.imread(path).shape
        assert len(arguments["units"]) == data.ndim == len(arguments["scale"])


def layer(image: xr.DataArray, **changes: object) -> tuple[object, dict[str, object], str]:
    from napari_lfm.io.layers import layer_data_from

    data, arguments, kind = layer_data_from(image, role="volume")
    return data, {**arguments, **changes}, kind


def test_layers_are_saved_beside_each_other(tmp_path: Path) -> None:
    from napari_lfm.io.point_layers import points_layer_data_from

    layers = [
        points_layer_data_from(TABLE, "beads"),
        layer(VOLUME, name="first"),
        layer(VOLUME, name="again & again"),
        layer(VOLUME, name="again & again"),
    ]
    written = write_image_layers(str(tmp_path / "out.tif"), layers)
    assert [Path(p).name for p in written] == [
        "out.beads.csv", "out.tif", "out.again-again.tif", "out.again-again-3.tif",
    ]  # fmt: skip
    xr.testing.assert_allclose(read_image(written[1]), VOLUME)
    assert read_points(written[0])["id"].tolist() == [7]


@pytest.mark.filterwarnings("ignore:.*Matplotlib.*:UserWarning")
def test_in_a_real_viewer(tmp_path: Path, make_napari_viewer_proxy) -> None:  # type: ignore[no-untyped-def]
    """Open, see it in micrometres, save, and read the same back."""
    viewer = make_napari_viewer_proxy()
    sources = [
        write(tmp_path / "a.tif", VOLUME),
        write(tmp_path / "movie.tif", labelled(DATA, "tyx", {"t": 0.1, "y": 0.5, "x": 0.5})),
        write_table(tmp_path / "beads.csv", TABLE),
    ]
    tifffile.imwrite(tmp_path / "nosize.tif", DATA, photometric="minisblack")
    for path in [*sources, tmp_path / "nosize.tif"]:
        reader = get_reader(str(path))
        assert reader is not None
        for data, arguments, kind in reader(str(path)):
            getattr(viewer, f"add_{kind}")(data, **arguments)
    volume, movie, beads, nosize = viewer.layers
    assert [str(u) for u in volume.units] == ["micrometer"] * 3
    assert [str(u) for u in movie.units] == ["second", "micrometer", "micrometer"]
    assert [str(u) for u in nosize.units] == ["pixel"] * 3
    assert volume.axis_labels == ("z", "y", "x")
    np.testing.assert_allclose(volume.extent.world[0], [-4.0, 0.1, 0.2])
    np.testing.assert_allclose(volume.extent.world[1], [2.0, 9.6, 7.45])
    assert viewer.screenshot(canvas_only=True, flash=False).any()

    # turned by hand: the matrix that is saved must be the layer's own
    volume.rotate = 30
    volume.shear = (0, 0, 0.1)
    data, meta, _ = volume.as_layer_data_tuple()
    (saved,) = write_image(str(tmp_path / "saved.tif"), data, meta)
    found = read_image(saved)
    from napari_lfm.core.labelled import affine_of

    corners = np.array([[0, 0, 0], [3, 19, 29], [1, 0, 7]])
    matrix = affine_of(found)
    np.testing.assert_allclose(
        corners @ matrix[:3, :3].T + matrix[:3, 3], [volume.data_to_world(c) for c in corners], atol=1e-9
    )
    assert found.attrs["provenance"] == {"method": "deconvolve-lightfield"}

    data, meta, _ = beads.as_layer_data_tuple()
    (saved,) = write_points(str(tmp_path / "saved.csv"), data, meta)
    pd.testing.assert_frame_equal(read_points(saved), TABLE, check_dtype=False)

    data, meta, _ = nosize.as_layer_data_tuple()
    (saved,) = write_image(str(tmp_path / "nosize-saved.tif"), data, meta)
    assert origin_of(read_image(saved, None)) == {}
