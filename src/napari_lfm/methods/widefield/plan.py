"""How a wide-field deconvolution fits into the memory: whole, or block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lfm.core.devices import memory_budget, pick_device
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.widefield.frames import stack_info
from napari_lfm.methods.widefield.given_psf import given_psf
from napari_lfm.methods.widefield.psf import model_half, optics_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.widefield.frames import StackInfo
    from napari_lfm.methods.widefield.parameters import WidefieldParameters

RUNTIME_BYTES = 450 * 2**20
"""What Python, torch and the libraries take by themselves on a CPU."""
_LEAST_BLOCK = 16
_SECONDS_PER_ENTRY = (2.5e-8, 6e-8)
"""Of the transforms' size, for one iteration on one CPU thread: measured at 192^3 and at 54 x 1200 x 1200."""
_LARGE = 2**24


@dataclass(frozen=True)
class Plan:
    """The way through the memory.

    Attributes
    ----------
    info : StackInfo
    half : tuple of int
        How far the point spread function reaches, (z, y, x).
    margin : tuple of int
        How far the object reaches beyond the recording.
    block : tuple of int
        Entries that are computed at once, per axis.
    home : str
        Device where object and recording lie; the transforms are computed on `device`.
    device : str
    peak_bytes : int
        On the device that `home` names, the runtime's own memory included.
    """

    info: StackInfo
    half: tuple[int, ...]
    margin: tuple[int, ...]
    block: tuple[int, ...]
    home: str
    device: str
    peak_bytes: int

    @property
    def object_shape(self) -> tuple[int, ...]:
        """Shape of what is solved for."""
        return tuple(n + 2 * m for n, m in zip(self.info.shape, self.margin, strict=True))

    @property
    def blocks(self) -> int:
        """Number of blocks that the object is computed in."""
        return math.prod(-(-n // b) for n, b in zip(self.object_shape, self.block, strict=True))

    @property
    def size(self) -> tuple[int, ...]:
        """Size of the transforms."""
        from napari_lfm.optics.stack_blur import fft_size

        return fft_size(self.info.shape, self.half, self.margin, self.block)

    @property
    def sentence(self) -> str:
        """What was chosen, in plain words."""
        if self.blocks == 1:
            return "The whole stack is computed at once"
        place = " on the CPU's memory" if self.home != self.device else ""
        return (
            f"The stack is computed in {self.blocks} overlapping blocks{place} to fit the memory; the result "
            "is the same as at once"
        )

    def seconds(self, iterations: int) -> float:
        """Return a guess of the duration, from the transforms' size."""
        import torch

        fast = {"cuda": 80.0, "mps": 15.0}.get(self.device, max(1.0, 0.7 * torch.get_num_threads()))
        entries = math.prod(self.size)
        each = entries * self.blocks * _SECONDS_PER_ENTRY[entries > _LARGE]
        return (iterations + 1) * self.info.frames * self.info.channels * each / fast + 0.5


def make_plan(
    request: Request, half: tuple[int, ...] | None = None, device: str | None = None, halvings: int = 0
) -> Plan:
    """Choose blocks so that the run stays within the memory budget.

    Parameters
    ----------
    request : Request
    half : tuple of int, optional
        Reach of the point spread function where it is known already.
    device : str, optional
        Another device than the request's.
    halvings : int
        How often the memory was not enough: so many of the larger choices are left out.

    Raises
    ------
    RequestError
        If not even the smallest blocks fit.
    """
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    info = stack_info(request.inputs["image"])
    half = psf_half(request, info) if half is None else half
    margin = half if p.masked_borders else (0, 0, 0)
    where = pick_device(device or request.device).type
    homes = [where] if where == "cpu" else [where, "cpu"]
    budgets = {home: memory_budget(home, request.memory_gib) for home in homes}
    smallest: Plan | None = None
    for home in homes:
        for block in _blocks(info, margin):
            whole = all(b >= n + 2 * m for b, n, m in zip(block, info.shape, margin, strict=True))
            peak = _held_bytes(info, margin, p, whole) + (RUNTIME_BYTES if home == "cpu" else 0)
            work = _work_bytes(info, half, margin, block)
            if p.channel_wavelengths_um:  # every colour has a spectrum of its own
                work += (info.channels - 1) * work // 5
            plan = Plan(info, half, margin, block, home, where, peak + (work if home == where else 0))
            fits = plan.peak_bytes <= budgets[home] and (home == where or work <= budgets[where])
            if fits and halvings > 0:
                halvings -= 1
            elif fits:
                return plan
            if home == "cpu" and (smallest is None or plan.peak_bytes < smallest.peak_bytes):
                smallest = plan
    need = "" if smallest is None else f" at least {_memory(smallest.peak_bytes)}"
    raise RequestError(
        f"This stack needs{need or ' more memory'}, but the memory budget is {_memory(budgets[homes[-1]])}.",
        "Raise the budget, crop the stack, or switch acceleration and total variation off.",
    )


def psf_half(request: Request, info: StackInfo) -> tuple[int, ...]:
    """Return how far the point spread function of a request reaches, (z, y, x)."""
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    if "psf" in request.inputs:
        return tuple(n // 2 for n in given_psf(request.inputs["psf"], info, p.psf_kind).values.shape)
    channels = range(info.channels) if p.channel_wavelengths_um else range(1)
    halves = [model_half(optics_of(request, c), info, p) for c in channels]
    return tuple(max(axis) for axis in zip(*halves, strict=True))


def _blocks(info: StackInfo, margin: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the whole object, then smaller and smaller parts of its planes."""
    z, y, x = (n + 2 * m for n, m in zip(info.shape, margin, strict=True))
    yield z, y, x
    parts = 1
    while max(y, x) / parts > _LEAST_BLOCK:
        parts = parts + 1 if parts < 4 else parts * 3 // 2
        side = max(math.ceil(max(y, x) / parts), _LEAST_BLOCK)
        yield z, min(y, side), min(x, side)


def _held_bytes(info: StackInfo, margin: tuple[int, ...], p: WidefieldParameters, copied: bool) -> int:
    """Return the memory of everything that is kept, beside the transforms."""
    recorded = math.prod(info.shape)
    whole = math.prod(n + 2 * m for n, m in zip(info.shape, margin, strict=True))
    held = 2 * recorded  # data, ratio
    if info.frames * info.channels > 1:
        held += recorded * info.frames * info.channels
    elif copied:
        held += 2 * recorded  # the preview that is shown, and the one being made
    held += whole * (2 if p.masked_borders else 1)  # estimate, normaliser
    held += whole * (2 if p.accelerate else 0)
    held += whole * (1 if p.total_variation > 0 else 0)
    return 4 * held


def _work_bytes(
    info: StackInfo, half: tuple[int, ...], margin: tuple[int, ...], block: tuple[int, ...]
) -> int:
    from napari_lfm.optics.stack_blur import fft_size, transform_bytes

    return transform_bytes(fft_size(info.shape, half, margin, block))


def _memory(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 0.1 * 2**30 else f"{n_bytes / 2**20:.3g} MiB"
