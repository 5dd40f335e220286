"""The published generator of virtual refocusing: its size, its wiring, and the authors' file format."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus_import import load_published, published_names
from napari_lfm.networks.refocus_paper import RefocusPaperNet
from napari_lfm.networks.tensor_bundle import read_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _block(entries: list[tuple[bytes, bytes]], every: int = 4) -> bytes:
    """Return a block with shared prefixes and a restart at every few entries."""
    out, restarts, last = bytearray(), [], b""
    for k, (key, value) in enumerate(entries):
        shared = 0
        if k % every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + b"".join(struct.pack("<I", r) for r in restarts) + struct.pack("<I", len(restarts))


def write_bundle(folder: Path, tensors: Mapping[str, np.ndarray], per_block: int = 7) -> Path:
    """Write a checkpoint as TensorFlow's writer lays it out: data file, then a sorted table of entries."""
    place = folder / "variables"
    place.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    data, entries = bytearray(), [(b"", _field(1, 1))]
    for name in sorted(tensors):
        value = np.array(tensors[name], "<f4", order="C")
        shape = b"".join(_field(2, _field(1, n)) for n in value.shape)
        entry = _field(1, 1) + _field(2, shape) + _field(4, len(data)) + _field(5, value.nbytes)
        entries.append((name.encode(), entry + _varint(6 << 3 | 5) + b"\0\0\0\0"))
        data += value.tobytes()
    (place / "variables.data-00000-of-00001").write_bytes(bytes(data))
    out, handles = bytearray(), []
    for k in range(0, len(entries), per_block):
        part = entries[k : k + per_block]
        block = _block(part)
        handles.append((part[-1][0] + b"~", _varint(len(out)) + _varint(len(block))))
        out += block + b"\0" + b"\0\0\0\0"
    places = []
    for block in (_block([]), _block(handles)):
        places.append(_varint(len(out)) + _varint(len(block)))
        out += block + b"\0" + b"\0\0\0\0"
    foot = b"".join(places)
    out += foot + b"\0" * (40 - len(foot)) + struct.pack("<Q", 0xDB4775248B80FB57)
    (place / "variables.index").write_bytes(bytes(out))
    return folder


def _published(levels: int) -> dict[str, np.ndarray]:
    """Return random weights under the published names and in their layout."""
    rng = np.random.default_rng(0)
    state = RefocusPaperNet(levels).state_dict()
    out = {}
    for own, (name, kernel) in published_names(levels).items():
        shape = tuple(state[own].shape)
        theirs = (shape[2], shape[3], shape[1], shape[0]) if kernel else shape
        scale = (2 / (9 * theirs[2])) ** 0.5 if kernel else 0.1
        out[name] = (scale * rng.normal(size=theirs)).astype(np.float32)
    return out


def _same_conv(x: np.ndarray, filters: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3 x 3 convolution of the SAME kind, channels last, in plain sums."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:2], filters.shape[3]))
    for dy in range(3):
        for dx in range(3):
            out += padded[dy : dy + x.shape[0], dx : dx + x.shape[1]] @ filters[dy, dx]
    return out + bias


def _same_transposed(x: np.ndarray, filters: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The adjoint of a 3 x 3 convolution of the SAME kind with stride 2: it pads after, for even sizes."""
    rows, columns = 2 * x.shape[0], 2 * x.shape[1]
    out = np.zeros((rows + 1, columns + 1, filters.shape[2]))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum("hwoc,c->hwo", filters, x[i, j])
    return out[:rows, :columns] + bias


def _reference(w: Mapping[str, np.ndarray], image: np.ndarray, z_um: np.ndarray, levels: int) -> np.ndarray:
    """The published graph, written down once more in numpy."""

    def conv(name: str, x: np.ndarray, bias: str = "biases") -> np.ndarray:
        return _same_conv(x, w[f"Generator/{name}/filters"], w[f"Generator/{name}/{bias}"])

    x = np.stack([image, z_um / 10], -1)
    kept = []
    for level in range(levels):
        if level:
            r, c, n = x.shape
            x = x.reshape(r // 2, 2, c // 2, 2, n).max((1, 3))
        y = np.maximum(conv(f"down{level}/conv2", np.maximum(conv(f"down{level}/conv1", x), 0)), 0)
        x = y + np.pad(x, ((0, 0), (0, 0), (0, y.shape[2] - x.shape[2])))
        kept.append(x)
    for level in reversed(range(levels - 1)):
        name = f"Generator/up{level}/conv0"
        risen = _same_transposed(x, w[f"{name}/filters"], w[f"{name}/biases"])
        y = np.maximum(conv(f"up{level}/conv1", np.concatenate([risen, kept[level]], -1)), 0)
        x = np.maximum(conv(f"up{level}/conv2", y), 0) + risen
    return conv("last_layer", x, "biases_1")[..., 0]


@pytest.mark.parametrize(("levels", "count"), [(5, 19_404_956), (6, 77_802_908)])
def test_parameter_counts_are_the_published_ones(levels: int, count: int) -> None:
    with torch.device("meta"):
        network = RefocusPaperNet(levels)
    assert sum(p.numel() for p in network.parameters()) == count


def test_saved_model_gives_the_published_graph(tmp_path: Path) -> None:
    weights = _published(5)
    network = load_published(write_bundle(tmp_path / "model", weights))
    rng = np.random.default_rng(1)
    image, z = rng.random((16, 32)), np.full((16, 32), -3.0)
    with torch.no_grad():
        got = network(*(torch.from_numpy(v)[None, None].float() for v in (image, z)))[0, 0].numpy()
    wanted = _reference(weights, image, z, 5)
    assert np.abs(got - wanted).max() < 2e-4 * np.abs(wanted).max()


def test_other_sizes_and_surfaces_go_through() -> None:
    network = RefocusPaperNet(5, padding="replicate").eval()
    image = torch.rand(1, 1, 21, 37)
    tilt = torch.linspace(-5, 5, 37).expand(1, 1, 21, 37)
    with torch.no_grad():
        assert network(image, tilt).shape == image.shape
        assert not torch.equal(network(image, tilt), network(image, 0 * tilt))


def test_bundle_round_trip_with_shared_prefixes_and_many_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    tensors = {
        f"Generator/a{k:03d}/filters": rng.random((2, k % 5 + 1)).astype(np.float32) for k in range(60)
    }
    tensors["scalar"] = np.float32(3.5).reshape(())
    read = read_bundle(write_bundle(tmp_path / "b", tensors, per_block=5))
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        assert np.array_equal(read[name], value)


@pytest.mark.parametrize("damage", ["cut index", "cut data", "no data", "no index", "other magic", "shape"])
def test_damaged_checkpoints_get_a_sentence(tmp_path: Path, damage: str) -> None:
    folder = write_bundle(tmp_path / "m", {"Generator/down0/conv1/filters": np.ones((3, 3, 2, 25))})
    index = folder / "variables" / "variables.index"
    data = folder / "variables" / "variables.data-00000-of-00001"
    if damage == "cut index":
        index.write_bytes(index.read_bytes()[20:])
    elif damage == "cut data":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "no data":
        data.unlink()
    elif damage == "no index":
        index.unlink()
    elif damage == "other magic":
        index.write_bytes(index.read_bytes()[:-1] + b"x")
    with pytest.raises(RequestError):
        load_published(folder)


def test_another_network_is_refused(tmp_path: Path) -> None:
    weights = _published(5)
    more = {**weights, "Generator/extra/filters": np.ones((1, 1, 1, 1), np.float32)}
    with pytest.raises(RequestError, match="extra"):
        load_published(write_bundle(tmp_path / "more", more))
    fewer = {k: v for k, v in weights.items() if "last_layer" not in k}
    with pytest.raises(RequestError, match="lacks"):
        load_published(write_bundle(tmp_path / "fewer", fewer))
    with pytest.raises(RequestError, match="5 or 6"):
        RefocusPaperNet(4)
