from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_lfm.core.problems import RequestError
from napari_lfm.io.read import read_image, read_lightfield

if TYPE_CHECKING:
    from pathlib import Path

STACK = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)
OPTICS = SimpleNamespace(object_pixel_um=6.5 / 60, lenslet_um=100 / 60)


def imagej(path: Path, **metadata: object) -> Path:
    resolution = metadata.pop("resolution", (4.0, 2.0))  # x, y in pixels per unit
    tifffile.imwrite(path, STACK, imagej=True, resolution=resolution, metadata={"axes": "ZYX", **metadata})
    return path


@pytest.mark.parametrize("unit", ["um", "\\u00B5m", "micron", "microns", "micrometer"])
def test_imagej_micrometres_in_every_spelling(tmp_path: Path, unit: str) -> None:
    image = read_image(imagej(tmp_path / "a.tif", unit=unit, spacing=1.5))
    assert image.dims == ("z", "y", "x")
    assert image.attrs["spacing"] == {"z": 1.5, "y": 0.5, "x": 0.25}
    np.testing.assert_allclose(image.coords["z"], [0, 1.5, 3.0])
    assert image.coords["x"].attrs["units"] == "um"
    np.testing.assert_array_equal(image, STACK)


@pytest.mark.parametrize("unit", [b"\xb5m", "\u00b5m".encode(), "\u03bcm".encode()])
def test_imagej_micro_sign_in_latin_1_and_utf_8(tmp_path: Path, unit: bytes) -> None:
    path = imagej(tmp_path / "a.tif", unit="Q" * len(unit), spacing=1.5)
    path.write_bytes(path.read_bytes().replace(b"unit=" + b"Q" * len(unit), b"unit=" + unit))
    assert read_image(path).attrs["spacing"] == {"z": 1.5, "y": 0.5, "x": 0.25}


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [("nm", 0.01, 0.1), ("mm", 2000.0, 0.5), ("cm", 1e5, 0.1), ("inch", 254000.0, 0.1)],
)
def test_imagej_other_lengths_become_micrometres(
    tmp_path: Path, unit: str, per_unit: float, expected: float
) -> None:
    path = imagej(tmp_path / "a.tif", unit=unit, spacing=1.0 / per_unit, resolution=(per_unit, per_unit))
    spacing = read_image(path).attrs["spacing"]
    assert spacing == pytest.approx({"z": expected, "y": expected, "x": expected}, rel=1e-6)


@pytest.mark.parametrize("unit", ["pixel", "", "furlong"])
def test_imagej_unit_that_is_no_length_gives_no_size(tmp_path: Path, unit: str) -> None:
    path = imagej(tmp_path / "a.tif", unit=unit, spacing=1.5)
    assert read_image(path, kind=None).attrs["spacing"] == {}
    with pytest.raises(RequestError, match=r"no size along z, y, x.*--voxel-um"):
        read_image(path, kind="stack")


def test_imagej_time_interval(tmp_path: Path) -> None:
    data = np.zeros((4, 2, 8, 9), np.uint16)
    path = tmp_path / "a.tif"
    metadata = {"axes": "TZYX", "unit": "um", "spacing": 2.0, "finterval": 250.0, "tunit": "ms"}
    tifffile.imwrite(path, data, imagej=True, resolution=(5, 5), metadata=metadata)
    image = read_image(path)
    assert image.dims == ("t", "z", "y", "x")
    assert image.attrs["spacing"] == pytest.approx({"t": 0.25, "z": 2.0, "y": 0.2, "x": 0.2})
    assert image.coords["t"].attrs["units"] == "s"


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [("CENTIMETER", 40000, 0.25), ("INCH", 101600, 0.25), ("INCH", 72, None), ("CENTIMETER", 118, None)],
)
def test_resolution_tags_but_not_print_resolutions(
    tmp_path: Path, unit: str, per_unit: int, expected: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], resolution=(per_unit, per_unit), resolutionunit=unit)
    expected_spacing = {} if expected is None else {"y": expected, "x": expected}
    assert read_image(path, "image").attrs["spacing"] == pytest.approx(expected_spacing)


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1e-3), ("µm", 1.0), ("mm", 1e3), (None, 1.0)])
def test_ome_sizes(tmp_path: Path, unit: str | None, factor: float) -> None:
    metadata: dict[str, object] = {"axes": "TCZYX", "TimeIncrement": 2.0, "TimeIncrementUnit": "min"}
    metadata |= {"Channel": {"Name": ["red", "green"]}}
    for dim, size in zip("XYZ", (0.2, 0.3, 0.9), strict=True):
        metadata[f"PhysicalSize{dim}"] = size
        if unit:
            metadata[f"PhysicalSize{dim}Unit"] = unit
    data = np.random.default_rng(0).integers(0, 99, (2, 2, 3, 8, 9)).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, ome=True, metadata=metadata)
    image = read_image(path)
    expected = {"t": 120.0, "z": 0.9 * factor, "y": 0.3 * factor, "x": 0.2 * factor}
    assert image.attrs["spacing"] == pytest.approx(expected)
    assert list(image.coords["c"].values) == ["red", "green"]
    assert image.name == "a"
    np.testing.assert_array_equal(image, data)


def test_ome_size_in_pixels_is_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel"}
    tifffile.imwrite(path, STACK[0], ome=True, metadata=metadata)
    assert read_image(path, "image").attrs["spacing"] == {}


@pytest.mark.parametrize(
    ("kind", "first"), [("stack", "z"), ("image", "t"), ("lightfield", "t"), (None, "z")]
)
def test_unnamed_leading_axis(tmp_path: Path, kind: str | None, first: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    voxel = (1.0, 0.5, 0.5) if kind == "stack" else None
    image = read_image(path, kind, voxel_um=voxel)  # type: ignore[arg-type]
    assert image.dims == (first, "y", "x")
    np.testing.assert_array_equal(image, STACK)


def test_slices_of_a_light_field_are_frames(tmp_path: Path) -> None:
    image = read_lightfield(imagej(tmp_path / "a.tif", unit="um", spacing=1.0))
    assert image.dims == ("t", "y", "x")


def test_axes_override_transposes_to_our_order(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    image = read_image(path, "stack", axes="xzy", voxel_um=(1, 2, 3))
    assert image.dims == ("z", "y", "x")
    assert image.shape == (8, 9, 3)
    np.testing.assert_array_equal(image, STACK.transpose(1, 2, 0))
    assert image.attrs["spacing"] == {"z": 1.0, "y": 2.0, "x": 3.0}
    assert image.attrs["read"] == {"axes": "XZY", "voxel_um": [1.0, 2.0, 3.0]}


def test_voxel_size_given_overrides_the_file(tmp_path: Path) -> None:
    path = imagej(tmp_path / "a.tif", unit="um", spacing=1.5)
    assert read_image(path, voxel_um=(3, 0.1, 0.2)).attrs["spacing"] == {"z": 3.0, "y": 0.1, "x": 0.2}
    with pytest.raises(RequestError, match="two numbers"):
        read_image(path, voxel_um=(0.1, 0.2))
    with pytest.raises(RequestError, match=r"not valid.*above 0"):
        read_image(path, voxel_um=(0, 0.1, 0.2))


def test_big_endian_and_bits_become_plain_numbers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "big.tif", STACK, byteorder=">", photometric="minisblack")
    image = read_image(tmp_path / "big.tif", None)
    assert image.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(image, STACK)
    tifffile.imwrite(tmp_path / "mask.tif", STACK[0] > 10)
    assert read_image(tmp_path / "mask.tif", "image").dtype == np.uint8


def test_raw_light_field_takes_its_scale_from_the_microscope(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    tifffile.imwrite(
        path, np.zeros((30, 45), np.uint16), resolution=(1538, 1538), resolutionunit="CENTIMETER"
    )
    assert read_lightfield(path).attrs["spacing"] == pytest.approx({"y": 6.5, "x": 6.5}, rel=1e-3)
    image = read_lightfield(path, OPTICS)
    assert image.attrs["spacing"] == {"y": 6.5 / 60, "x": 6.5 / 60}
    assert image.attrs["layout"] == "raw"
    np.testing.assert_allclose(image.coords["x"], np.arange(45) * 6.5 / 60)


def test_raw_light_field_without_any_size_has_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", np.zeros((30, 45), np.uint16))
    image = read_lightfield(tmp_path / "raw.tif")
    assert image.attrs["spacing"] == {}
    assert not image.coords


def test_lenslet_layout(tmp_path: Path) -> None:
    path = tmp_path / "rectified.tif"
    tifffile.imwrite(path, np.zeros((30, 45), np.uint16))
    image = read_lightfield(path, OPTICS, "lenslet:15")
    assert image.attrs["layout"] == "lenslet:15"
    # rectified pixels are a lenslet's N-th part, whatever the camera's were
    assert image.attrs["spacing"] == pytest.approx({"y": 100 / 60 / 15, "x": 100 / 60 / 15})
    with pytest.raises(RequestError, match="not a whole number of lenslets of 13 pixels"):
        read_lightfield(path, layout="lenslet:13")
    for wrong in ("lenslet:x", "lenslet", "views", "lenslet:1"):
        with pytest.raises(RequestError, match="no layout"):
            read_lightfield(path, layout=wrong)


@pytest.mark.parametrize("layout", ["auto", "vuts"])
@pytest.mark.parametrize("suffix", [".tif", ".npz"])
def test_four_dimensional_light_fields(tmp_path: Path, layout: str, suffix: str) -> None:
    data = np.random.default_rng(1).integers(0, 99, (5, 5, 7, 8)).astype(np.uint16)
    path = tmp_path / f"views{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, data)
    else:
        np.savez(path, depth_um=np.zeros(2), lightfield=data)
    image = read_lightfield(path, OPTICS, layout)
    assert image.dims == ("v", "u", "t", "s")
    assert image.attrs["layout"] == "vuts"
    assert image.attrs["lenslet_um"] == pytest.approx(100 / 60)
    np.testing.assert_array_equal(image, data)


def test_npz_without_a_light_field_says_what_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", views=np.zeros((2, 3)))
    with pytest.raises(RequestError, match=r"no single 4-D light field.*views 2 x 3"):
        read_lightfield(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(RequestError, match="not a readable npz"):
        read_lightfield(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", a=np.array([{}], dtype=object))
    with pytest.raises(RequestError, match="not a readable npz"):
        read_lightfield(tmp_path / "c.npz")


def test_layout_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", STACK[0])
    with pytest.raises(RequestError, match="not layout 'vuts'"):
        read_lightfield(tmp_path / "raw.tif", layout="vuts")
    tifffile.imwrite(
        tmp_path / "four.tif", np.zeros((5, 4, 8, 9), np.uint8), imagej=True, metadata={"axes": "TCYX"}
    )
    with pytest.raises(RequestError, match="has a c axis"):
        read_lightfield(tmp_path / "four.tif")


def test_one_of_several_images(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK[0], metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0})
        writer.write(STACK[:2, :4], metadata={"axes": "ZYX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0})
    second = read_image(path, None, series=1)
    assert second.shape == (2, 4, 9)
    assert second.attrs["spacing"] == {"y": 3.0, "x": 2.0}
    with pytest.raises(RequestError, match="has 2 images, not 3"):
        read_image(path, None, series=2)


REAL = {
    "alpha-lfm/mito.tif": (("y", "x"), {}),
    "cells3d/nuclei.tif": (("z", "y", "x"), {}),
    "napari-lf/GUVExperim1/Lightfield_GUVExperim1.tif": (("y", "x"), {}),
    "neubias/xyz_8bit_sphere_calibrated.tif": (("z", "y", "x"), {"z": 8.0, "y": 4.0, "x": 4.0}),
    "neubias/xyz_calibrated_16bit__golgi_bfa.tif": (
        ("z", "y", "x"),
        {"z": 0.3876, "y": 0.3514353, "x": 0.3514353},
    ),
    "neubias/xyz_nuclear_envelope_drosophila.tif": (("z", "y", "x"), {"y": 0.24165, "x": 0.24165}),
    "pyotf/psf_wl520nm_z300nm_x130nm_na0.85_n1.0.tif": (("z", "y", "x"), {}),
    "sdeconv/pollen.tif": (("z", "y", "x"), {}),  # 72 dpi is no pixel size
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, name: str) -> None:
    dims, spacing = REAL[name]
    image = read_image(shared_data / name, kind=None)
    assert image.dims == dims
    assert image.attrs["spacing"] == pytest.approx(spacing, rel=1e-5)
    np.testing.assert_array_equal(image, tifffile.imread(shared_data / name))
