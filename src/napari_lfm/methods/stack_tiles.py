"""Tiles of a stack with blended seams, and what a network needs for one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.methods.tiling import MemoryMeter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.networks.card import ModelCard

Box = tuple[slice, slice, slice]
_WORKSPACE = 0.6
"""Share of the largest operation's tensors that a convolution takes besides (measured)."""


@dataclass(frozen=True)
class StackTiling:
    """How a stack is cut.

    Attributes
    ----------
    shape : tuple of int
        Of the stack, (z, y, x).
    core : tuple of int
        Of a tile without its surroundings.
    halo : tuple of int
        Surroundings on either side that the network sees too.
    ramp : tuple of int
        Voxels across a seam over which one tile fades into the next; at most the halo.
    """

    shape: tuple[int, int, int]
    core: tuple[int, int, int]
    halo: tuple[int, int, int]
    ramp: tuple[int, int, int]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return int(np.prod([len(_edges(n, c)) - 1 for n, c in zip(self.shape, self.core, strict=True)]))

    @property
    def largest(self) -> tuple[int, int, int]:
        """Shape of the largest tile."""
        # the last one may have a sliver more than the core
        z, y, x = (
            max(seen.stop - seen.start for seen, _, _ in _side(n, c, h, 0))
            for n, c, h in zip(self.shape, self.core, self.halo, strict=True)
        )
        return z, y, x

    def tiles(self) -> Iterator[tuple[Box, Box, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Yield what a tile sees, what of the stack it contributes to, and its weights along z, y, x.

        The weights of all tiles add up to 1 everywhere.
        """
        sides = [
            _side(n, c, h, r) for n, c, h, r in zip(self.shape, self.core, self.halo, self.ramp, strict=True)
        ]
        for z in sides[0]:
            for y in sides[1]:
                for x in sides[2]:
                    yield (z[0], y[0], x[0]), (z[1], y[1], x[1]), (z[2], y[2], x[2])


def _edges(n: int, core: int) -> list[int]:
    """Return where tiles begin along one axis, and its end; a sliver goes to its neighbour."""
    edges = [*range(0, n, core), n]
    if len(edges) > 2 and edges[-1] - edges[-2] < core / 4:
        del edges[-2]
    return edges


def _side(n: int, core: int, halo: int, ramp: int) -> list[tuple[slice, slice, np.ndarray]]:
    """Return seen, used and weights of every tile along one axis."""
    edges = _edges(n, core)
    half = min(ramp, halo) // 2
    out = []
    for low, high in pairwise(edges):
        first, last = max(0, low - half) if low else 0, min(n, high + half) if high < n else n
        at = np.arange(first, last) + 0.5
        weight = np.ones(last - first, np.float32)
        if half and low:
            weight *= np.clip((at - (low - half)) / (2 * half), 0, 1)
        if half and high < n:
            weight *= np.clip(((high + half) - at) / (2 * half), 0, 1)
        out.append((slice(max(0, low - halo), min(n, high + halo)), slice(first, last), weight))
    return out


def plan_tiling(
    shape: tuple[int, int, int],
    halo: tuple[int, int, int],
    multiple: tuple[int, int, int],
    bytes_per_voxel: float,
    budget: int,
    most_across: int = 512,
    wanted_across: int = 0,
) -> StackTiling | None:
    """Return the largest tiles that fit a budget, None where not even the smallest does.

    The planes stay together as long as they fit: light of all planes is in every plane.

    Parameters
    ----------
    shape, halo, multiple : tuple of int
        Of the stack, of a tile's surroundings, and what tiles are a multiple of.
    bytes_per_voxel : float
        What the network needs.
    budget : int
        Bytes for one tile.
    most_across : int
        Largest core across.
    wanted_across : int
        Core across that the user wants, 0 for the largest.
    """
    # poolings of a tile must fall where those of the whole stack do
    halo = tuple(-(-h // m) * m for h, m in zip(halo, multiple, strict=True))  # type: ignore[assignment]
    wanted_across = -(-wanted_across // multiple[1]) * multiple[1]
    ramp = tuple(h // 2 for h in halo)
    cores = [wanted_across] if wanted_across else _down_from(most_across, multiple[1])
    depths = [shape[0], *(d for d in _down_from(shape[0] // 2, multiple[0]) if d >= 8)]
    for depth in depths:
        for core in cores:
            size = (depth, min(core, shape[1]), min(core, shape[2]))
            # no seam, no surroundings
            tiling = StackTiling(shape, size, halo, ramp)  # type: ignore[arg-type]
            if np.prod(tiling.largest, dtype=float) * bytes_per_voxel <= budget:
                return tiling
    return None


def _down_from(most: int, step: int) -> list[int]:
    out, size = [], max(step, most // step * step)
    while size >= step:
        out.append(size)
        size = int(size * 0.75) // step * step
    return out


@lru_cache(maxsize=64)
def _bytes_per_voxel(card_json: str, sha256: str, item_bytes: int) -> float:
    from napari_lfm.methods.chosen_model import skeleton
    from napari_lfm.networks.card import ModelCard

    network = skeleton(ModelCard.model_validate_json(card_json))
    given = torch.empty((1, 1, 16, 128, 128), device="meta")
    meter = MemoryMeter()
    with torch.no_grad(), meter:
        network(given)
    return (meter.peak + _WORKSPACE * meter.largest) / given.numel() * item_bytes / 4


def bytes_per_voxel(card: ModelCard, item_bytes: int = 4) -> float:
    """Return what a network needs for every voxel of a tile, by running it without numbers."""
    return _bytes_per_voxel(card.model_dump_json(), card.sha256, item_bytes)


def run_stack_tiles(
    network: Any, stack: np.ndarray, tiling: StackTiling, prepare: Any, device: torch.device, bfloat16: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Run a network over a stack; yields the number of tiles done and the stack so far.

    Parameters
    ----------
    network : nn.Module
        (1, 1, z, y, x) in and out, on `device`.
    stack : ndarray, shape (z, y, x)
        Any numbers.
    tiling : StackTiling
    prepare : callable
        Scales a part of the stack, array -> float32 array.
    device : torch.device
    bfloat16 : bool
        Whether the network computes in bfloat16.

    Yields
    ------
    int, ndarray
        The array is one and the same and grows.
    """
    out = np.zeros(tiling.shape, np.float32)
    for number, (seen, used, weights) in enumerate(tiling.tiles()):
        part = torch.from_numpy(np.ascontiguousarray(prepare(stack[seen]), np.float32)).to(device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=bfloat16),
        ):
            made = network(part[None, None])[0, 0].float().cpu().numpy()
        inner = tuple(slice(u.start - s.start, u.stop - s.start) for u, s in zip(used, seen, strict=True))
        made = made[inner]
        wz, wy, wx = weights
        made *= wz[:, None, None]
        made *= wy[None, :, None]
        made *= wx[None, None, :]
        out[used] += made
        yield number + 1, out
