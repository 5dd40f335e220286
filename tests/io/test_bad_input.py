"""Every bad file is one clear sentence with a remedy, never a traceback."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_lfm.core.problems import RequestError
from napari_lfm.io.read import read_image, read_lightfield

if TYPE_CHECKING:
    from pathlib import Path

STACK = np.random.default_rng(0).integers(0, 1000, (6, 64, 64)).astype(np.uint16)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(RequestError) as caught:
        read_image(path, **options).compute()  # type: ignore[arg-type]
    error = caught.value
    assert error.exit_status == 2
    assert error.message and error.remedy
    assert "Traceback" not in str(error) and "\n" not in str(error)
    return str(error)


def test_missing(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "nowhere.tif")
    assert "There is no file" in refusal(tmp_path / "nowhere.ome.zarr")


def test_folder_names_a_tiff_in_it(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "b.tif").write_bytes(b"x")
    assert "b.tif" in refusal(tmp_path)


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("head", [b"II*\0\0\0\0\0", b"MM\0*\0\0\0\0"])
def test_zero_pages(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(head)
    text = refusal(tmp_path / "a.tif")
    assert "zero pages" in text or "cut short" in text


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "a PNG picture"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 50, "an HDF5 file"),
        (b"PK\x03\x04" + b"x" * 50, "a ZIP archive"),
        (b"just some words, no picture at all", "not a TIFF"),
        (b"\0" * 100, "not a TIFF"),
    ],
)
def test_not_a_tiff(tmp_path: Path, content: bytes, guess: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    text = refusal(tmp_path / "a.tif")
    assert "is not a TIFF file" in text
    assert guess in text


WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "compressed": {"compression": "zlib"},
    "imagej": {"imagej": True},
    "ome": {"ome": True},
    "ome-compressed": {"ome": True, "compression": "zlib"},
    "anonymous": {"metadata": None},
    "anonymous-compressed": {"metadata": None, "compression": "zlib"},
    "bigtiff": {"bigtiff": True},
    "tiled": {"tile": (32, 32)},
}


@pytest.mark.parametrize("way", WAYS)
def test_truncated_anywhere_is_refused_or_complete(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, **WAYS[way])
    whole = path.read_bytes()
    n_refused = 0
    for cut in [8, 9, 20, 100, 300, 1000, *(int(len(whole) * f) for f in np.linspace(0.02, 0.99, 12))]:
        path.write_bytes(whole[:cut])
        try:
            pixels = read_image(path, kind="image").values
        except RequestError as error:
            assert error.remedy
            n_refused += 1
        else:  # only what follows the last pixel was lost
            np.testing.assert_array_equal(pixels, STACK)
    assert n_refused >= 16
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut short" in refusal(path, kind=None)


def test_broken_compression_is_refused_lazily_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 400] = b"\xff" * 400
    path.write_bytes(content)
    assert "cannot be decoded" in refusal(path, kind=None)
    assert "cannot be decoded" in refusal(path, kind="image")  # a movie is read when it is used


def test_one_dimensional(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(50, dtype=np.uint16))
    assert "one-dimensional (50)" in refusal(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.arange(50, dtype=np.uint16)[None])
    assert "one-dimensional (1 x 50)" in refusal(tmp_path / "b.tif")


@pytest.mark.parametrize(("shape", "n"), [((32, 32, 3), 3), ((32, 32, 4), 4), ((5, 32, 32, 3), 3)])
def test_rgb_says_how_many_channels_and_what_to_do(tmp_path: Path, shape: tuple[int, ...], n: int) -> None:
    path = tmp_path / "a.tif"
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(path, data, photometric="rgb")
    text = refusal(path)
    assert f"{n} channels (RGB)" in text
    assert "Image > Type > 16-bit" in text
    # the second remedy that it offers works
    axes = text.split("--axes ")[1].rstrip(".")
    image = read_image(path, kind=None, axes=axes)
    assert image.sizes["c"] == n
    np.testing.assert_array_equal(image.isel(c=1).values, data[..., 1])
    with pytest.raises(RequestError, match="RGB"):
        read_lightfield(path)


def test_planar_rgb(tmp_path: Path) -> None:
    data = np.zeros((3, 32, 32), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig="separate")
    assert "3 channels (RGB)" in refusal(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", None, axes="CYX").dims == ("c", "y", "x")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("planar", "axes"), [("separate", "TYX"), ("contig", "YXT")])
def test_three_frames_tagged_as_rgb_are_read_as_advised(
    tmp_path: Path, planar: str, axes: str, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    frames = np.random.default_rng(0).integers(0, 999, (3, 32, 40)).astype(np.uint16)
    data = frames if planar == "separate" else np.ascontiguousarray(np.moveaxis(frames, 0, -1))
    tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar, compression=compression)
    with pytest.raises(RequestError, match=f"as frames with --axes {axes}"):
        read_lightfield(path)
    movie = read_lightfield(path, axes=axes)
    assert movie.dims == ("t", "y", "x")
    np.testing.assert_array_equal(movie.values, frames)
    wrong = {"TYX": "YXT", "YXT": "TYX"}[axes]
    with pytest.raises(RequestError, match=f"colours are no rows or columns.*--axes {axes}"):
        read_lightfield(path, axes=wrong)
    with pytest.raises(RequestError, match=r"c axis.*Export one channel"):
        read_lightfield(path, axes=axes.replace("T", "C"))


def test_complex_numbers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.complex64))
    assert "complex64 numbers" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("axes", "what"),
    [
        ("ZY", "does not name axes"),
        ("ZZX", "does not name axes"),
        ("QYX", "does not name axes"),
        ("TZYX", "do not fit"),
    ],
)
def test_wrong_axes(tmp_path: Path, axes: str, what: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    assert what in refusal(tmp_path / "a.tif", axes=axes)


def test_axes_that_nobody_can_guess(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 2, 5, 8, 9), np.uint8))
    assert "not clear: its shape is 2 x 2 x 5 x 8 x 9" in refusal(tmp_path / "a.tif")


def test_stack_wanted_but_single_image_or_movie(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0])
    assert "is a single image" in refusal(tmp_path / "a.tif", kind="stack")
    tifffile.imwrite(tmp_path / "b.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    assert "--axes ZYX" in refusal(tmp_path / "b.tif", kind="stack")


def test_npz_is_no_stack(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", STACK)
    assert "'vuts'" in refusal(tmp_path / "a.npz")


def test_unreadable_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    assert "cannot be read: Permission denied" in refusal(tmp_path / "a.tif")


def test_unknown_compression_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], compression="zlib")
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags["Compression"].valueoffset
    path.write_bytes(content[:at] + (5).to_bytes(2, "little") + content[at + 2 :])  # 5 is LZW
    monkeypatch.setattr(
        tifffile.TiffPageSeries, "asarray", _needs_imagecodecs
    )  # so that the test does not depend on whether imagecodecs is installed
    assert "pip install imagecodecs" in refusal(path, kind="image")


def _needs_imagecodecs(*_: object, **__: object) -> None:
    raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
