"""What is in a TIFF file: series, axes, sizes, our own record; and its planes, now or later."""

from __future__ import annotations

import logging
import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_lfm.core.problems import RequestError
from napari_lfm.io.ome import record_from_xml, sizes_from_xml
from napari_lfm.io.units import PRINT_RESOLUTION_UM, believable, length_in_um, time_in_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a ZIP archive (or a numpy .npz file)",
    b"\x93NUMPY": "a numpy .npy file",
    b"ZISRAW": "a Zeiss CZI file",
    b"\xda\xce\xbe\n": "a Nikon ND2 file",
    b"p\x00\x00\x00": "a Leica LIF file",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
}
_RESAVE = "Open it in the program that made it (or in Fiji) and save it as TIFF."
# the errors that tifffile logs, and does not raise, when the end of a file is missing
_BROKEN = re.compile(r"invalid (page|value) offset|corrupted|failed to reshape|invalid or corrupted")


@dataclass(frozen=True)
class TiffSeries:
    """One image in a TIFF file.

    Attributes
    ----------
    path : Path
        The file.
    index : int
        Number of the series.
    axes : str
        One letter per axis in tifffile's words.
    shape, dtype
        Of the whole series.
    spacing : dict
        What the file says of sizes: micrometres for z, y, x; seconds for t.
    channels : tuple of str
        Channel names.
    record : dict
        Our own record, empty in files made by others.
    planes : tuple of (path, offset)
        Where each page's directory starts; empty when the planes cannot be read one by one.
    page_shape : tuple of int
        Shape of one page.
    offset : int or None
        Where the pixels start when they lie in one piece, uncompressed.
    byte_order : str
        ``<`` or ``>``.
    stamp : tuple of int
        Modification time and size, to notice when the file changes.
    """

    path: Path
    index: int
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: dict[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    planes: tuple[tuple[str, int], ...] = ()
    page_shape: tuple[int, ...] = ()
    offset: int | None = None
    byte_order: str = "<"
    stamp: tuple[int, int] = (0, 0)

    @property
    def colour_channels(self) -> int:
        """Samples per pixel (3 for RGB), 0 for grey images."""
        return self.shape[self.axes.index("S")] if "S" in self.axes else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole series, uncompressed."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def looks_like_tiff(path: Path) -> bool:
    """Return whether a file begins as TIFF and BigTIFF files do."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:
        return False


def check_file(path: Path) -> None:
    """Refuse what cannot be a file with an image in it.

    Raises
    ------
    RequestError
        If `path` is missing, a folder, or empty.
    """
    if not path.exists():
        raise RequestError(f"There is no file {path}.", "Check the name and the folder.")
    if path.is_dir():
        found = sorted(p.name for p in path.iterdir() if p.suffix.lower() in (".tif", ".tiff"))
        hint = f"Give a file in it, e.g. {path / found[0]}." if found else "Give a TIFF file."
        raise RequestError(f"{path} is a folder, not an image.", hint)
    if path.stat().st_size == 0:
        raise RequestError(f"{path.name} is empty (0 bytes).", "Copy or export it again.")


def not_readable(path: Path, error: OSError) -> RequestError:
    """Return one sentence for a file that the system does not let us read."""
    reason = error.strerror or str(error)
    return RequestError(
        f"{path} cannot be read: {reason}.", "Check that the drive is there and you may read it."
    )


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile logs as errors instead of raising it."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, log = Collector(logging.ERROR), logging.getLogger("tifffile")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def describe(path: Path) -> list[TiffSeries]:
    """Return every series of a TIFF file, without reading pixels.

    Raises
    ------
    RequestError
        If it is no TIFF, is truncated, or has no image in it.
    """
    check_file(path)
    stat = path.stat()
    # opening a movie asks several times, and ten thousand pages take a second to walk through
    return list(_describe_file(path, stat.st_mtime_ns, stat.st_size, stat.st_ino))


@lru_cache(maxsize=8)
def _describe_file(path: Path, *_stamp: int) -> list[TiffSeries]:
    with _complaints() as said:
        try:
            with tifffile.TiffFile(path) as tif:
                found = [_describe(tif, i, path) for i in range(len(tif.series))]
                complete = all(_is_complete(series) for series in tif.series) and _chain_ends(tif)
        except OSError as error:
            raise not_readable(path, error) from None
        except Exception as error:  # a damaged header can break the parser anywhere
            with path.open("rb") as file:
                start = file.read(8)
            if start[:2] in (b"II", b"MM"):
                raise _truncated(path) from None
            guess = next(
                (f" (it looks like {what})" for sign, what in _SIGNATURES.items() if start.startswith(sign)),
                "",
            )
            logging.getLogger(__name__).debug("%s: %s", path, error)
            raise RequestError(f"{path.name} is not a TIFF file{guess}.", _RESAVE) from None
    if any(_BROKEN.search(text) for text in said) or not complete:
        raise _truncated(path)
    found = [s for s in found if all(s.shape)]
    if not found:
        raise RequestError(f"{path.name} holds no image (zero pages).", "Copy or export it again.")
    return found


def _truncated(path: Path) -> RequestError:
    size = path.stat().st_size
    return RequestError(
        f"{path.name} is damaged or cut short: it has {size} bytes and its directory asks for more.",
        "Copy it again from where it was recorded.",
    )


def _is_complete(series: tifffile.TiffPageSeries) -> bool:
    if series.dataoffset is not None:
        size = series.keyframe.parent.filehandle.size
        return bool(series.dataoffset + series.size * series.dtype.itemsize <= size)
    pages = [page for page in series.pages if page is not None]
    for page in pages if len(pages) <= 4096 else [*pages[:32], *pages[-32:]]:
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > page.parent.filehandle.size:
            return False
    return True


def _chain_ends(tif: tifffile.TiffFile) -> bool:
    """Whether the last page that could be read says that it is the last one."""
    form, file = tif.tiff, tif.filehandle
    start = tif.pages[len(tif.pages) - 1].offset
    file.seek(start)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(start + form.tagnosize + n_tags * form.tagsize)
    return not any(file.read(form.offsetsize))


def _describe(tif: tifffile.TiffFile, index: int, path: Path) -> TiffSeries:
    series, stat = tif.series[index], path.stat()
    spacing, channels, record = _sizes(tif, index)
    shape = tuple(int(n) for n in series.shape)
    page_shape = tuple(int(n) for n in series.keyframe.shape)
    contiguous = series.dataoffset is not None
    planes: tuple[tuple[str, int], ...] = ()
    n_pages = len(series.pages)
    if (
        not contiguous
        and shape[len(shape) - len(page_shape) :] == page_shape
        and int(np.prod(shape[: len(shape) - len(page_shape)])) == n_pages
        and all(page is not None for page in series.pages)
    ):
        planes = tuple((str(p.parent.filehandle.path), int(p.offset)) for p in series.pages if p is not None)
    return TiffSeries(
        path=path,
        index=index,
        axes=series.axes,
        shape=shape,
        dtype=np.dtype(series.dtype),
        spacing=spacing,
        channels=channels,
        record=record,
        planes=planes,
        page_shape=shape[-2:] if contiguous and len(shape) >= 2 else page_shape,
        offset=None if series.dataoffset is None else int(series.dataoffset),
        byte_order=tif.byteorder,
        stamp=(stat.st_mtime_ns, stat.st_size),
    )


def _sizes(tif: tifffile.TiffFile, index: int) -> tuple[dict[str, float], tuple[str, ...], dict[str, Any]]:
    if tif.is_ome and tif.ome_metadata:
        spacing, channels = sizes_from_xml(tif.ome_metadata, index)
        return spacing, channels, record_from_xml(tif.ome_metadata) if index == 0 else {}
    if tif.is_imagej:
        return _imagej_sizes(tif), (), {}
    shaped = (tif.shaped_metadata or ({},))[0]
    return {**_tag_sizes(tif), **_shaped_sizes(shaped)}, (), {}


def _pixels_per_unit(tif: tifffile.TiffFile) -> dict[str, float]:
    out: dict[str, float] = {}
    for dim, name in (("y", "YResolution"), ("x", "XResolution")):
        tag = tif.pages.first.tags.get(name)
        if tag is not None and isinstance(tag.value, tuple) and tag.value[0] and tag.value[1]:
            out[dim] = tag.value[0] / tag.value[1]
    return out


def _imagej_sizes(tif: tifffile.TiffFile) -> dict[str, float]:
    known = tif.imagej_metadata or {}
    out: dict[str, float] = {}
    unit = known.get("unit", "")
    for dim, per_unit in _pixels_per_unit(tif).items():
        factor = length_in_um(known.get(f"{dim}unit") or unit)
        size = believable(1 / per_unit)
        if factor is not None and size is not None and _from_optics(size * factor, factor):
            out[dim] = size * factor
    factor = length_in_um(known.get("zunit") or unit)
    spacing = believable(abs(float(known.get("spacing") or 0.0)))
    if factor is not None and spacing is not None:
        out["z"] = spacing * factor
    interval, tick = believable(float(known.get("finterval") or 0.0)), time_in_s(known.get("tunit") or "s")
    if interval is not None and tick is not None:
        out["t"] = interval * tick
    return out


def _tag_sizes(tif: tifffile.TiffFile) -> dict[str, float]:
    tag = tif.pages.first.tags.get("ResolutionUnit")
    factor = {2: 25400.0, 3: 1e4}.get(int(tag.value) if tag is not None else 1)
    if factor is None:
        return {}
    sizes = {dim: factor / per_unit for dim, per_unit in _pixels_per_unit(tif).items()}
    return {d: s for d, s in sizes.items() if believable(s) and _from_optics(s, factor)}


def _from_optics(size_um: float, factor: float) -> bool:
    """Whether a size given per inch or centimetre can be a microscope's, not a print resolution."""
    return factor < 1e4 or size_um < PRINT_RESOLUTION_UM


def _shaped_sizes(known: dict[str, Any]) -> dict[str, float]:
    """Sizes that scripts pass to ``tifffile.imwrite(metadata=...)``."""
    out: dict[str, float] = {}
    unit = length_in_um(known.get("unit"))
    if unit is not None and isinstance(known.get("spacing"), int | float) and believable(known["spacing"]):
        out["z"] = float(known["spacing"]) * unit
    for dim in "zyx":
        size, factor = (
            known.get(f"PhysicalSize{dim.upper()}"),
            length_in_um(known.get(f"PhysicalSize{dim.upper()}Unit", "um")),
        )
        if isinstance(size, int | float) and believable(size) and factor is not None:
            out[dim] = float(size) * factor
    return out
