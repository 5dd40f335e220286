"""What the training loop asks of a model: modules, phases, batches, losses, a validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn


@dataclass(frozen=True)
class Phase:
    """One kind of update within a step.

    Attributes
    ----------
    name : str
        Handed to `Task.loss`, e.g. ``"generator"``.
    modules : tuple of str
        The modules that it optimises; all others stand still (gradients pass through them).
    repeats : int
        Updates of this kind per step, each with a batch of its own.
    rate : float
        Learning rate over the configured one.
    betas : tuple of float
        Decay of AdamW's first and second moment.
    """

    name: str
    modules: tuple[str, ...]
    repeats: int = 1
    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


def adversarial_phases() -> tuple[Phase, Phase]:
    """Return a step of the generator, then one of the discriminator, which learns more slowly."""
    betas = (0.5, 0.999)
    return (
        Phase("generator", ("network",), betas=betas),
        Phase("discriminator", ("discriminator",), rate=0.3, betas=betas),
    )


@dataclass(frozen=True)
class Validation:
    """How good the network is on data it was never trained on.

    Attributes
    ----------
    score : float
        What decides which weights are the best; higher is better.
    values : mapping of str to float
        Further figures for the log, e.g. ``{"psnr_db": 31.2, "ssim": 0.91}``.
    images : mapping of str to array
        Slices to look at, e.g. ``{"truth": ..., "network": ..., "richardson-lucy": ...}``, float (y, x).
    """

    score: float
    values: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """What is trained and on what; `BaseTask` has everything that is the same for most.

    `batch` may be called from a background thread and ahead of time; it needs no gradients. It must depend
    on nothing but the task's own seed and `index`: draw from `numpy_rng` or `torch_rng`, never from the
    global state.
    """

    modules: Mapping[str, nn.Module]

    @property
    def phases(self) -> Sequence[Phase]:
        """Kinds of updates, in the order in which a step makes them."""
        ...

    def batch(self, index: int) -> Any:
        """Return the data of update number `index`: tensors on any device, alone or in dicts, lists, tuples.

        With one phase of one repeat `index` is the step; otherwise it counts the updates, so that every
        repeat of every phase sees other data.
        """
        ...

    def loss(self, phase: str, batch: Any) -> dict[str, torch.Tensor]:
        """Return scalar losses; ``"loss"`` is minimised, the others are logged. Runs under autocast."""
        ...

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        """Score the modules, which hold the averaged weights, are in eval mode and need no gradients."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return, JSON-ready, what tells this task from another: network arguments, data, seeds."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON-ready values that change while training, beyond the modules."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        ...

    def notes(self) -> list[str]:
        """Return sentences for the user since the last call, e.g. about a skipped file."""
        ...


class BaseTask:
    """A task with one phase over all its modules and no state of its own.

    Parameters
    ----------
    modules : mapping of str to nn.Module
        E.g. ``{"network": network}``.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules: Mapping[str, nn.Module] = dict(modules)

    @property
    def phases(self) -> Sequence[Phase]:
        """One kind of update, of all modules."""
        return (Phase("train", tuple(self.modules)),)

    def describe(self) -> dict[str, Any]:
        """Return nothing: two such tasks are told apart by their weights alone."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing up."""

    def notes(self) -> list[str]:
        """Return nothing."""
        return []


def step_seed(seed: int, index: int, stream: int = 0) -> int:
    """Return a 63-bit seed for update `index`; other updates, seeds and streams are independent of it."""
    words = np.random.SeedSequence([seed, index, stream]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def numpy_rng(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return numpy's generator for update `index`."""
    return np.random.default_rng([seed, index, stream])


def torch_rng(seed: int, index: int, stream: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return torch's generator for update `index`."""
    generator = torch.Generator(device)
    generator.manual_seed(step_seed(seed, index, stream))
    return generator
