"""Running a network on whole images or on overlapping tiles, and what that costs, before it is run."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.chosen_model import sized, skeleton
from napari_lfm.networks.lenslet_net import shapes_only

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.networks.card import ModelCard

_WORKSPACE = 1.0
"""Convolutions on a CPU keep rearranged copies of what goes in and out: so many times the largest layer."""


@dataclass(frozen=True)
class Tile:
    """A part of an image, in lenslets (y, x), end excluded.

    Attributes
    ----------
    start, stop : tuple of int
        What the network is given.
    keep_start, keep_stop : tuple of int
        The part of it whose result counts.
    """

    start: tuple[int, int]
    stop: tuple[int, int]
    keep_start: tuple[int, int]
    keep_stop: tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What one pass of a network takes.

    Attributes
    ----------
    peak_bytes : int
        Weights and intermediate results at the fullest moment.
    flop : int
        Floating-point operations (a multiplication and an addition are two).
    """

    peak_bytes: int
    flop: int


def tiles_of(cells: tuple[int, int], size: int, reach: int, step: int) -> list[Tile]:
    """Return tiles that cover an image, so that the parts to keep do not feel the tiles' edges.

    Parameters
    ----------
    cells : tuple of int
        Lenslets (rows, columns) of the image.
    size : int
        Largest side of a tile, overlap included, in lenslets.
    reach : int
        How many lenslets away an input still changes the output.
    step : int
        Tiles begin at multiples of it.

    Returns
    -------
    list of Tile
        One that is the whole image where `size` allows it. Row by row.

    Raises
    ------
    ValueError
        If `size` leaves nothing to keep.
    """
    sides = [_side(n, size, reach, step) for n in cells]
    return [Tile((y[0], x[0]), (y[1], x[1]), (y[2], x[2]), (y[3], x[3])) for y in sides[0] for x in sides[1]]


def smallest_tile(reach: int, step: int) -> int:
    """Return the smallest side of a tile that leaves something to keep, in lenslets."""
    return 2 * _up(reach, step) + step


def _side(n: int, size: int, reach: int, step: int) -> list[tuple[int, int, int, int]]:
    if size >= n:
        return [(0, n, 0, n)]
    overlap = _up(reach, step)
    core = (size - 2 * overlap) // step * step
    if core < step:
        raise ValueError(f"tiles of {size} lenslets are smaller than their overlap of 2 x {overlap}")
    return [(max(0, k - overlap), min(n, k + core + overlap), k, min(n, k + core)) for k in range(0, n, core)]


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def choose_tile(
    card: ModelCard, n_pixels: int, cells: tuple[int, int], room_bytes: int, item_bytes: int = 4
) -> tuple[int, Cost]:
    """Return the side of the largest tile that fits, and the cost of one of them.

    Parameters
    ----------
    card : ModelCard
    n_pixels : int
        Pixels per lenslet, N.
    cells : tuple of int
        Lenslets (rows, columns).
    room_bytes : int
        Memory for the network.
    item_bytes : int
        Bytes per number of intermediate results.

    Raises
    ------
    RequestError
        If not even the smallest tile fits, or the network has to see the whole image and that does not fit.
    """
    network = skeleton(card)
    whole = cost_of(card, n_pixels, cells, item_bytes)
    if whole.peak_bytes <= room_bytes:
        return max(cells), whole
    budget = "%.3g GiB of memory are free for it" % (max(0, room_bytes) / 2**30)
    if not network.tileable:
        raise RequestError(
            f"The model '{card.id}' has to see the whole image at once, because its result depends on the "
            f"image's size. That takes {whole.peak_bytes / 2**30:.1f} GiB, but {budget}.",
            "Raise the budget, or choose a model that works on tiles.",
        )
    step = int(network.tile_step_lenslets)  # type: ignore[arg-type]
    least = smallest_tile(int(network.reach_lenslets), step)  # type: ignore[arg-type]
    sizes = range(least, max(cells), step)
    # cost grows with the side: bisect for the last that fits
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if _tile_cost(card, n_pixels, cells, sizes[middle], item_bytes).peak_bytes <= room_bytes:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        need = min(whole, _tile_cost(card, n_pixels, cells, least, item_bytes), key=lambda c: c.peak_bytes)
        raise RequestError(
            f"The model '{card.id}' needs {need.peak_bytes / 2**30:.1f} GiB even for the smallest tile, but "
            f"{budget}.",
            "Raise the budget, or choose a smaller model.",
        )
    size = sizes[low - 1]
    return size, _tile_cost(card, n_pixels, cells, size, item_bytes)


def _tile_cost(card: ModelCard, n: int, cells: tuple[int, int], size: int, item_bytes: int) -> Cost:
    return cost_of(card, n, (min(size, cells[0]), min(size, cells[1])), item_bytes)


def cost_of(card: ModelCard, n_pixels: int, cells: tuple[int, int], item_bytes: int = 4) -> Cost:
    """Return what one pass over `cells` lenslets takes, by running the network without numbers.

    Every operation is done on tensors that have a shape but no storage, and what is alive at a time is
    added up.
    """
    return _cost_of(card.model_dump_json(), n_pixels, cells, item_bytes)


@lru_cache(maxsize=256)
def _cost_of(card_json: str, n_pixels: int, cells: tuple[int, int], item_bytes: int) -> Cost:
    from napari_lfm.networks.card import ModelCard

    network = sized(skeleton(ModelCard.model_validate_json(card_json)), n_pixels)
    given = shapes_only(network, n_pixels, cells)
    meter, counter = MemoryMeter(), FlopCounterMode(display=False)
    with torch.no_grad(), counter, meter:
        network.volume_of(*given)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    work = meter.peak + _WORKSPACE * meter.largest
    return Cost(int(weights + work * item_bytes / 4), int(counter.get_total_flops()))


class MemoryMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the storage of all tensors that are alive, and remember the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, list[int]] = {}  # storage -> [bytes, tensors on it]
        self.now = self.peak = self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        outputs = [
            t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, torch.Tensor)
        ]
        for tensor in outputs:
            self._enter(tensor)
        inputs = sum(t.numel() * 4 for t in args if isinstance(t, torch.Tensor))
        self.largest = max(self.largest, inputs + sum(t.numel() * 4 for t in outputs))
        return out

    def _enter(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - views share it, nothing public tells
        if key in self.alive:
            self.alive[key][1] += 1
        else:
            self.alive[key] = [storage.nbytes(), 1]
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self._leave, key)

    def _leave(self, key: int) -> None:
        entry = self.alive.get(key)
        if entry is None:
            return
        entry[1] -= 1
        if entry[1] == 0:
            self.now -= entry[0]
            del self.alive[key]


def run_tiles(
    network: Any,
    image: torch.Tensor,
    n_pixels: int,
    tiles: list[Tile],
    precision: str,
    start: torch.Tensor | None = None,
) -> Iterator[tuple[Tile, torch.Tensor]]:
    """Run a network on one image, tile by tile.

    Parameters
    ----------
    network : nn.Module
        With ``volume_of``; on the image's device.
    image : tensor, shape (rows * N, columns * N)
        Scaled lenslet image.
    n_pixels : int
        N.
    tiles : list of Tile
        From `tiles_of`.
    precision : str
        ``float32`` or ``bfloat16``.
    start : tensor, shape (channels, rows * v, columns * v), optional
        What the network starts from, of the whole image (`napari_lfm.optics.start`).

    Yields
    ------
    Tile, tensor
        The tile and the part of its volume that counts, shape (depths, rows * s, columns * s), float32.
    """
    device = image.device.type
    for tile in tiles:
        (y0, x0), (y1, x1) = tile.start, tile.stop
        part = image[None, y0 * n_pixels : y1 * n_pixels, x0 * n_pixels : x1 * n_pixels]
        given = [part.contiguous()]
        if start is not None:
            v = start.shape[-2] * n_pixels // image.shape[0]
            given.append(start[None, :, y0 * v : y1 * v, x0 * v : x1 * v].contiguous())
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            volume = network.volume_of(*given)[0]
        sy, sx = volume.shape[1] // (y1 - y0), volume.shape[2] // (x1 - x0)
        (ky, kx), (ly, lx) = tile.keep_start, tile.keep_stop
        yield tile, volume[:, (ky - y0) * sy : (ly - y0) * sy, (kx - x0) * sx : (lx - x0) * sx].float()
