"""A stack through a network of isotropic restoration: slices XZ, slices YZ, and what the two agree on.

Weigert et al., MICCAI 2017 and Nature Methods 15, 1090 (2018): a network that has learnt to sharpen one axis
of a slice is applied to all slices along x and to all along y; each voxel is the mean of both.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

Mean = Literal["geometric", "arithmetic"]
Resampling = Literal["modern", "csbdeep"]
CHUNK_SECONDS = 0.4
"""Slices are taken together for about so long: a run can be stopped in between."""
CHUNK_PIXELS = 1 << 21
"""Most pixels of slices that the network sees at a time; wider slices are cut."""
_FIRST_PIXELS = 1 << 17
_USUAL_REACH_PX = 48
_MOST_HALF = float(np.finfo(np.float16).max) / 2
"""A hot pixel may be thousands of spans bright; of widths two such are added."""
_LINE_VALUES = 16
"""Neighbouring columns that share a line of the processor's memory: fewer are not worth a chunk."""


@dataclass(frozen=True)
class Restored:
    """An isotropic stack.

    Attributes
    ----------
    image : ndarray, float32, shape (channels, fine z, y, x)
        Grey values.
    disagreement : ndarray, float16, shape as `image`, or None
        Half the distance of the two passes, in parts of the span of the channel's levels.
    stated_width : ndarray, float16, shape as `image`, or None
        What a probabilistic network expects its error to be: the mean of both passes' Laplace widths, in
        the same parts.
    step_px : float
        Distance of the new planes, lateral pixels: 1, but for the published resampling.
    """

    image: np.ndarray
    disagreement: np.ndarray | None
    stated_width: np.ndarray | None
    step_px: float = 1.0


def new_planes(planes: int, factor: float, resampling: Resampling = "modern") -> tuple[int, float]:
    """Return how many planes a stack will have, and their distance in lateral pixels.

    The published resampling lets first and last planes fall on one another, so that planes are not quite a
    pixel apart.

    Parameters
    ----------
    planes : int
    factor : float
        Distance of the recorded planes, lateral pixels.
    resampling : {"modern", "csbdeep"}
    """
    from napari_lfm.training.isotropic_resampling import fine_length

    if resampling == "modern":
        return fine_length(planes, factor), 1.0
    count = round(planes * factor)
    return count, (planes - 1) * factor / max(1, count - 1)


def restore_stack(
    network: Any,
    stack: np.ndarray,
    factor: float,
    levels: Sequence[tuple[float, float]],
    *,
    mean: Mean = "geometric",
    resampling: Resampling = "modern",
    device: str | torch.device = "cpu",
    bfloat16: bool = False,
    uncertainty: bool = True,
    chunk_pixels: int = CHUNK_PIXELS,
) -> Iterator[Progress | Restored]:
    """Restore a stack; yields a `Progress` after every few slices, and the `Restored` last.

    Parameters
    ----------
    network : nn.Module
        Of `napari_lfm.networks.isotropic`. One of a single channel restores every channel by itself.
    stack : ndarray, shape (channels, z, y, x)
        Grey values.
    factor : float
        Distance of planes, lateral pixels.
    levels : sequence of (low, high)
        Grey values of every channel that become 0 and 1.
    mean : {"geometric", "arithmetic"}
        Of the two passes, scaled; the geometric one, as published, has nothing below `low`.
    resampling : {"modern", "csbdeep"}
        That of the training.
    device : str or torch.device
    bfloat16 : bool
        Whether convolutions multiply half as exactly, where the device does that quickly.
    uncertainty : bool
        Whether the passes' disagreement is kept.
    chunk_pixels : int
        Most pixels at a time.

    Raises
    ------
    RequestError
        If the network takes another number of channels.
    """
    import torch

    device = torch.device(device)
    stack = np.asarray(stack)
    channels = len(stack)
    takes = int(getattr(network, "channels", 1))
    if takes not in (1, channels):
        raise RequestError(
            f"The model restores {takes} channels together, and the stack has {channels}.",
            "Choose a model of one channel, which takes them one by one.",
        )
    planes, rows, columns = stack.shape[1:]
    count, step_px = new_planes(planes, factor, resampling)
    shape = (channels, count, rows, columns)
    out = np.empty(shape, np.float32)
    apart = np.empty(shape, np.float16) if uncertainty else None
    probabilistic = bool(getattr(network, "probabilistic", False))
    width = np.zeros(shape, np.float16) if probabilistic else None
    groups = [[c] for c in range(channels)] if takes == 1 else [list(range(channels))]
    passes = _Passes(network, factor, resampling, device, bfloat16, chunk_pixels)
    total = len(groups) * (rows + columns)
    done, started = 0, time.perf_counter()
    for group in groups:
        low = np.array([levels[c][0] for c in group], np.float32)[:, None, None, None]
        span = np.array([levels[c][1] - levels[c][0] for c in group], np.float32)[:, None, None, None]
        chosen = slice(group[0], group[-1] + 1)
        part = stack[chosen]
        for axis, name in ((2, "XZ"), (3, "YZ")):
            passes.begin()
            for at, made, stated in passes.slices(part, axis, low, span):
                where = (chosen, slice(None), *((at, slice(None)) if axis == 2 else (slice(None), at)))
                if width is not None and stated is not None:
                    width[where] += _half(stated / 2)
                if axis == 2:
                    out[where] = made
                else:
                    first = out[where]
                    if apart is not None:
                        apart[where] = _half(np.abs(first - made) / 2)
                    out[where] = _joined(first, made, mean) * span + low
                done += at.stop - at.start
                left = (time.perf_counter() - started) / done * (total - done)
                yield Progress(done, total, f"Restoring slices {name}", seconds_left=left)
    yield Restored(out, apart, width, step_px)


def _half(values: np.ndarray) -> np.ndarray:
    """Return values in half precision, the largest it has in the place of larger ones."""
    return np.asarray(np.minimum(values, _MOST_HALF), np.float16)


def _joined(first: np.ndarray, second: np.ndarray, mean: Mean) -> np.ndarray:
    if mean == "geometric":
        return np.asarray(np.sqrt(np.maximum(first, 0) * np.maximum(second, 0)))
    return np.asarray((first + second) / 2)


class _Passes:
    """The network on slices, as many at a time as take a moment."""

    def __init__(
        self,
        network: Any,
        factor: float,
        resampling: Resampling,
        device: torch.device,
        bfloat16: bool,
        chunk_pixels: int,
    ) -> None:
        self.network, self.factor, self.resampling = network, factor, resampling
        self.device, self.bfloat16, self.most = device, bfloat16, chunk_pixels
        self._pixels = min(_FIRST_PIXELS, chunk_pixels)

    def begin(self) -> None:
        """Begin a pass: with a few slices, for how long those of another axis take is not known yet."""
        self._pixels = min(_FIRST_PIXELS, self.most)

    def slices(
        self, stack: np.ndarray, axis: int, low: np.ndarray, span: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Yield which rows (axis 2) or columns (3), and what the network makes of them.

        The results have the axes (channels, fine z, y, x) of the stack.
        """
        count, long = stack.shape[axis], stack.shape[5 - axis]
        area = long * new_planes(stack.shape[1], self.factor, self.resampling)[0]
        first = 0
        while first < count:
            size = max(1, self._pixels // area)
            if axis == 3 and size > _LINE_VALUES:
                size -= size % _LINE_VALUES
            at = slice(first, min(count, first + size))
            begun = time.perf_counter()
            cut = stack[:, :, at] if axis == 2 else stack[:, :, :, at]
            scaled = (cut.astype(np.float32) - low) / span
            # (slices, channels, along the slice, z)
            order = (2, 0, 3, 1) if axis == 2 else (3, 0, 2, 1)
            made, stated = self._network(np.ascontiguousarray(scaled.transpose(order)))
            back = (1, 3, 0, 2) if axis == 2 else (1, 3, 2, 0)
            yield at, made.transpose(back), None if stated is None else stated.transpose(back)
            spent = max(time.perf_counter() - begun, 1e-4)
            wanted = int((at.stop - at.start) * area * CHUNK_SECONDS / spent)
            # the first call of a size is slow: the size moves slowly, too
            self._pixels = int(np.clip(wanted, self._pixels // 2, 2 * self._pixels))
            self._pixels = int(np.clip(self._pixels, 1, self.most))
            first = at.stop

    def _network(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        import torch

        from napari_lfm.training.isotropic_resampling import csbdeep_up, interpolate_planes

        given = torch.from_numpy(slices).to(self.device)
        rise = interpolate_planes if self.resampling == "modern" else csbdeep_up
        given = rise(given, self.factor)
        cast: Any = contextlib.nullcontext()
        if self.bfloat16:
            cast = torch.autocast(self.device.type, dtype=torch.bfloat16)
        with torch.no_grad(), cast:
            out = torch.cat([self.network(part)[..., keep, :] for part, keep in self._parts(given)], -2)
        out = out.float().cpu()
        channels = given.shape[1]
        stated = out[:, channels:].numpy() if out.shape[1] > channels else None
        return out[:, :channels].numpy(), stated

    def _parts(self, slices: torch.Tensor) -> Iterator[tuple[torch.Tensor, slice]]:
        """Yield parts of slices that are too wide for one call, with what to keep of each."""
        long, fine = slices.shape[-2:]
        multiple = int(getattr(self.network, "multiple", 4))
        halo = -(-int(getattr(self.network, "reach", _USUAL_REACH_PX)) // multiple) * multiple
        most = max(4 * halo, self.most // max(fine, 1) // multiple * multiple)
        if slices.shape[0] * long * fine <= self.most or long <= most:
            yield slices, slice(0, long)
            return
        core = most - 2 * halo
        for first in range(0, long, core):
            start, stop = max(0, first - halo), min(long, first + core + halo)
            yield slices[..., start:stop, :], slice(first - start, min(long, first + core) - start)
