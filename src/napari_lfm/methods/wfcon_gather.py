"""All pairs of a training, one after the other: read, registered, scaled, kept in memory or on the disk."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lfm.core.devices import memory_budget
from napari_lfm.core.events import Progress
from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.methods.wfcon_pairs import (
    NamedPair,
    PairLeftOut,
    PairReady,
    ReadyPair,
    make_ready,
    pair_files,
    read_pair,
    with_voxels,
)
from napari_lfm.networks.catalogue import user_model_dir
from napari_lfm.training.stack_pairs import StackPair, checked_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari_lfm.methods.train_wfcon_wish import WfconWish

MEMORY_SHARE = 0.5
"""Of the memory that is free, what the pairs may take; the others wait on the disk."""


@dataclass(frozen=True)
class Gathered:
    """The pairs that can be used.

    Attributes
    ----------
    pairs : tuple of StackPair
        Half precision.
    voxel_um : tuple of float
        Of all of them, (z, y, x).
    words : str
        For the card.
    shifts : dict
        What registration found, by pair: ``shift_um``, and the ``stacks`` that it holds for.
    """

    pairs: tuple[StackPair, ...]
    voxel_um: tuple[float, float, float]
    words: str
    shifts: dict[str, Any] = field(default_factory=dict)


class Shelf:
    """Keeps stacks in half precision: in memory up to a limit, then in files that vanish by themselves.

    Parameters
    ----------
    limit : int
        Bytes in memory.
    folder : path
        Of the files.
    """

    def __init__(self, limit: int, folder: str | Path) -> None:
        self.limit, self.folder = limit, Path(folder)
        self.in_memory = self.on_disk = 0

    def put(self, stack: torch.Tensor) -> torch.Tensor:
        """Return the stack as it is kept.

        Raises
        ------
        RequestError
            If it has to go onto a disk that is full.
        """
        half = stack.half().contiguous()
        size = 2 * half.numel()
        if self.in_memory + size <= self.limit:
            self.in_memory += size
            return half
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # it has no name (or loses it when it is closed): the map keeps it as long as it is needed
            with tempfile.TemporaryFile(dir=self.folder) as file:
                # written, not only mapped: a full disk has to be noticed here
                file.write(half.numpy().data)
                file.flush()
                kept = np.memmap(file, np.float16, "r+", shape=tuple(half.shape))
        except OSError as error:
            raise RequestError(
                f"The pairs fit neither into the memory nor into {self.folder}: {error.strerror}.",
                f"Make room ({size / 1e9:.1f} GB for the next stack), or give fewer pairs.",
            ) from None
        self.on_disk += size
        return torch.from_numpy(kept)


def gather(
    wish: WfconWish, layers: Sequence[NamedPair] = (), known: Mapping[str, Any] | None = None
) -> Iterator[Progress | Gathered]:
    """Read, register and scale the pairs; what cannot be used is left out, with a sentence.

    Parameters
    ----------
    wish : WfconWish
    layers : sequence of NamedPair
        Where the wish names layers.
    known : mapping, optional
        `Gathered.shifts` of before: these stacks are not registered again.

    Yields
    ------
    Progress, PairReady, PairLeftOut or Gathered
        The pairs last.

    Raises
    ------
    RequestError
        If there is no pair, or none can be used.
    """
    openers = _openers(wish, layers)
    if not openers:
        raise RequestError("There is no pair to train on.", "Choose stacks of the same specimen.")
    shelf = Shelf(int(MEMORY_SHARE * memory_budget("cpu")), user_model_dir().parent / "trainings")
    kept: list[StackPair] = []
    refused: list[str] = []
    shifts: dict[str, Any] = {}
    voxel: tuple[float, float, float] | None = None
    for k, (name, open_pair) in enumerate(openers):
        yield Progress(k, len(openers), f"Reading {name}")
        try:
            ready: ReadyPair | None = None
            pair = open_pair()
            stacks = pair.fingerprint() if wish.register_pairs else ""
            before = (known or {}).get(name, {})
            shift = before.get("shift_um") if before.get("stacks") == stacks else None
            for step in make_ready(pair, wish.register_pairs, shift):
                if isinstance(step, ReadyPair):
                    ready = step
                else:
                    where = f"Registering {name} ({k + 1} of {len(openers)})"
                    yield Progress(step.step, step.total, where, step.seconds_left)
            assert ready is not None
            ready = with_voxels(ready, voxel or ready.voxel_um)
            scaled = checked_pair(name, ready.widefield, ready.confocal)
            voxel = voxel or ready.voxel_um  # those of the first pair that can be used
        except LfmError as error:
            refused.append(f"{error.message} {error.remedy}".strip())
            yield PairLeftOut(
                k + 1,
                len(openers),
                f"Left out. {error}",
                name=name,
                reason=error.message,
                remedy=error.remedy,
            )
            continue
        kept.append(replace(scaled, given=shelf.put(scaled.given), wanted=shelf.put(scaled.wanted)))
        if ready.shift_um is not None:
            shifts[name] = {"shift_um": list(ready.shift_um), "stacks": stacks}
        yield PairReady(k + 1, len(openers), ready.sentence, name=name, shift_um=ready.shift_um)
    if not kept or voxel is None:
        count = len(openers)
        what = "The pair" if count == 1 else f"None of the {count} pairs"
        raise RequestError(f"{what} can{'not' if count == 1 else ''} be used. {refused[0]}")
    if shelf.on_disk:
        yield Progress(
            len(openers),
            len(openers),
            f"{shelf.on_disk / 1e9:.1f} GB of the pairs wait on the disk: the memory is too small for all",
        )
    what = f"folder {Path(wish.pairs).name}" if wish.pairs else "layers in napari"
    done = "registered" if wish.register_pairs else "as they were"
    words = f"{len(kept)} pair{'s' if len(kept) > 1 else ''} of the user ({what}), {done}"
    if refused:
        words += f"; {len(refused)} left out"
    yield Gathered(tuple(kept), voxel, words, shifts)


def _openers(wish: WfconWish, layers: Sequence[NamedPair]) -> list[tuple[str, Callable[[], NamedPair]]]:
    """Return name and reader of every pair: large stacks are not all in memory at once."""
    if wish.pairs:
        return [
            (name, partial(read_pair, name, wide, confocal, wish.voxel_um))
            for name, wide, confocal in pair_files(wish.pairs)
        ]
    return [(pair.name, partial(_itself, pair)) for pair in layers]


def _itself(pair: NamedPair) -> NamedPair:
    return pair
