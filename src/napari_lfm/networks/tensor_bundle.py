"""Weights out of TensorFlow's checkpoint format, without TensorFlow.

A checkpoint, also within a SavedModel, is an index (a sorted-string table as LevelDB's, of names and protocol
buffers that say type, shape and place) and data files of plain numbers. Nothing in it is executed. Source:
TensorFlow's descriptions of the formats, table_format.txt and tensor_bundle.proto.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
"""Of tensorflow/core/framework/types.proto."""
_LARGEST_INDEX = 64 << 20


class _Damaged(Exception):
    """The bytes are not what they should be."""


def read_bundle(folder: str | Path) -> dict[str, np.ndarray]:
    """Return every tensor of a checkpoint by its name.

    Parameters
    ----------
    folder : path
        A SavedModel folder, its folder ``variables``, or the checkpoint's ``.index`` file.

    Raises
    ------
    RequestError
        If there is none, it is damaged, or it holds what is no plain array of numbers.
    """
    index = _index_of(Path(folder).expanduser())
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise RequestError(f"{index} is too large for an index.", "Choose another folder.")
        entries = dict(_table(index.read_bytes()))
        header = _message(entries.pop(b"", b""))
        shards = int(header.get(1, [1])[0])
        out = {}
        for name, value in entries.items():
            out[name.decode()] = _tensor(index, shards, _message(value))
    except _Damaged as error:
        raise _broken(index, str(error)) from None
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, OverflowError):
        raise _broken(index, "it is cut off or no checkpoint") from None
    except OSError as error:
        raise RequestError(f"{index} cannot be read ({error.strerror}).", "Check the path.") from None
    return out


def _index_of(place: Path) -> Path:
    if place.is_file() and place.suffix == ".index":
        return place
    for folder in (place, place / "variables"):
        found = sorted(folder.glob("*.index")) if folder.is_dir() else []
        if found:
            return found[0]
    raise RequestError(
        f"There is no TensorFlow checkpoint in {place}.",
        "Choose a SavedModel folder: it holds 'variables' with 'variables.index' in it.",
    )


def _broken(index: Path, why: str) -> RequestError:
    return RequestError(f"The checkpoint {index} is damaged: {why}.", "Get it again.")


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a sorted-string table."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise _Damaged("its end is not that of a table")
    at = len(data) - _FOOTER
    for _ in range(2):  # the place of the meta index, which nobody needs
        _, at = _varint(data, at)
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    for _, handle in _block(data, offset, size):
        start, place = _varint(handle, 0)
        length, _ = _varint(handle, place)
        yield from _block(data, start, length)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + 5 > len(data):
        raise _Damaged("a block reaches beyond its end")
    if data[offset + size] != 0:
        raise _Damaged("its blocks are compressed")
    block = data[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end = size - 4 * (restarts + 1)
    if end < 0:
        raise _Damaged("a block is shorter than its list of restarts")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise _Damaged("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise _Damaged("a number is too long")


def _message(data: bytes) -> dict[int, list[Any]]:
    """Return the fields of a protocol buffer by number."""
    out: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in (1, 5):
            wide = 8 if kind == 1 else 4
            value, at = data[at : at + wide], at + wide
        else:
            raise _Damaged("an entry has fields of an unknown kind")
        if at > len(data):
            raise _Damaged("an entry is cut off")
        out.setdefault(tag >> 3, []).append(value)
    return out


def _tensor(index: Path, shards: int, entry: dict[int, list[Any]]) -> np.ndarray:
    kind = int(entry.get(1, [0])[0])
    if 7 in entry:
        raise _Damaged("it holds tensors in slices")
    if kind not in _TYPES:
        return np.empty(0, np.uint8)  # texts and the like: nothing to compute with
    dims = [_message(d) for d in _message(entry.get(2, [b""])[0]).get(2, [])]
    shape = tuple(int(d.get(1, [0])[0]) for d in dims)
    shard, offset = int(entry.get(3, [0])[0]), int(entry.get(4, [0])[0])
    size = int(entry.get(5, [0])[0])
    dtype = np.dtype(_TYPES[kind])
    if size != math.prod(shape) * dtype.itemsize:
        raise _Damaged("a tensor's size is not that of its shape")
    stem = re.sub(r"\.index$", "", index.name)
    path = index.with_name(f"{stem}.data-{shard:05d}-of-{shards:05d}")
    if not path.is_file():
        raise _Damaged(f"its data file {path.name} is missing")
    with path.open("rb") as file:
        file.seek(offset)
        found = file.read(size)
    if len(found) != size:
        raise _Damaged(f"its data file {path.name} is cut off")
    return np.frombuffer(found, dtype).reshape(shape)
