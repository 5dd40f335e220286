"""Pixels of a TIFF series: all at once, or plane by plane when they are asked for.

A lazy array opens the file anew for every plane: no handle stays open (so the file can be replaced,
on Windows too), threads do not share one, and the graph can travel to another process.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.io.tiff import not_readable

if TYPE_CHECKING:
    from napari_lfm.io.tiff import TiffSeries

LAZY_BYTES = 256 * 2**20
"""Stacks and images above this size are read when they are needed."""
_CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class LazyPlanes:
    """Array-like over the planes of a series: dask slices it, the file answers."""

    series: TiffSeries

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole series."""
        return self.series.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type, in the machine's byte order."""
        return self.series.dtype.newbyteorder("=")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.series.shape)

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        """Read the planes that `key` touches and cut them out; only basic indices are answered."""
        series = self.series
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key:
            at = key.index(Ellipsis)
            key = key[:at] + (slice(None),) * (self.ndim - len(key) + 1) + key[at + 1 :]
        key = key + (slice(None),) * (self.ndim - len(key))
        n_lead = self.ndim - len(series.page_shape)
        lead, inner = key[:n_lead], key[n_lead:]
        picks = [
            [k] if isinstance(k, int | np.integer) else list(range(*k.indices(n)))
            for k, n in zip(lead, series.shape, strict=False)
        ]
        _check_unchanged(series)
        planes = [
            self._plane(int(np.ravel_multi_index(at, series.shape[:n_lead])) if n_lead else 0)[inner]
            for at in itertools.product(*picks)
        ]
        kept = [len(p) for p, k in zip(picks, lead, strict=True) if isinstance(k, slice)]
        if not planes:
            return np.empty([*kept, *np.empty(series.page_shape, np.uint8)[inner].shape], self.dtype)
        return np.stack(planes).reshape([*kept, *planes[0].shape])

    def _plane(self, index: int) -> np.ndarray[Any, Any]:
        series = self.series
        count = int(np.prod(series.page_shape))
        try:
            if series.offset is not None:
                dtype = series.dtype.newbyteorder(series.byte_order)  # type: ignore[arg-type]
                start = series.offset + index * count * dtype.itemsize
                flat = np.fromfile(series.path, dtype, count, offset=start)
                return flat.reshape(series.page_shape).astype(self.dtype, copy=False)
            path, offset = series.planes[index]
            with tifffile.TiffFile(path) as tif:
                tif.filehandle.seek(offset)
                return np.asarray(tifffile.TiffPage(tif, index).asarray(), self.dtype).reshape(
                    series.page_shape
                )
        except OSError as error:
            raise not_readable(series.path, error) from None
        except Exception as error:  # zlib, struct, tifffile: a compressed plane can break in many ways
            raise unreadable_pixels(series, error) from error


def _check_unchanged(series: TiffSeries) -> None:
    try:
        stat = series.path.stat()
    except OSError as error:
        raise not_readable(series.path, error) from None
    if (stat.st_mtime_ns, stat.st_size) != series.stamp:
        raise LfmError(f"{series.path.name} has changed since it was opened.", "Open it again.")


def unreadable_pixels(series: TiffSeries, error: Exception) -> RequestError:
    """Return one sentence for pixels that cannot be decoded."""
    if "imagecodecs" in str(error):
        return RequestError(
            f"{series.path.name} is compressed in a way that needs the package imagecodecs.",
            "Install it (pip install imagecodecs), or save the file uncompressed.",
        )
    return RequestError(
        f"The pixels of {series.path.name} cannot be decoded: it is damaged or cut short.",
        "Copy it again from where it was recorded.",
    )


def read_pixels(series: TiffSeries, lazy: bool, time_axis: int | None = None) -> Any:
    """Return the pixels of `series`: numpy, or dask when `lazy` and the file allows it.

    Along `time_axis` every chunk of a lazy array is one frame.

    Raises
    ------
    RequestError
        If they cannot be decoded.
    """
    if lazy and (series.offset is not None or series.planes):
        import dask.array as da

        source = LazyPlanes(series)
        name, chunks = _token(series), _chunks(series, time_axis)
        return da.from_array(source, chunks=chunks, asarray=True, name=name)  # type: ignore[no-untyped-call]
    try:
        with tifffile.TiffFile(series.path) as tif:
            pixels = tif.series[series.index].asarray()
    except OSError as error:
        raise not_readable(series.path, error) from None
    except MemoryError:
        raise LfmError(
            f"{series.path.name} does not fit into memory.", "Close other programs or crop it."
        ) from None
    except Exception as error:
        raise unreadable_pixels(series, error) from error
    return np.ascontiguousarray(pixels, series.dtype.newbyteorder("=")).reshape(series.shape)


def _token(series: TiffSeries) -> str:
    from dask.base import tokenize

    return f"tiff-{tokenize(str(series.path.absolute()), series.stamp, series.index)}"


def _chunks(series: TiffSeries, time_axis: int | None) -> tuple[int, ...]:
    """Whole pages, and as many of the inner axes as fit; frames of a movie stay apart."""
    n_lead = len(series.shape) - len(series.page_shape)
    chunks = [1] * n_lead + list(series.page_shape)
    size = int(np.prod(series.page_shape)) * series.dtype.itemsize
    for axis in reversed(range(n_lead)):
        if axis == time_axis:
            break
        chunks[axis] = max(1, min(series.shape[axis], _CHUNK_BYTES // max(size, 1)))
        size *= chunks[axis]
        if chunks[axis] < series.shape[axis]:
            break
    return tuple(chunks)
