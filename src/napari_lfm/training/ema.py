"""A running average of the weights: smoother than the last step, and what is validated and kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


class Ema:
    """Exponential moving average of all parameters of some modules.

    After update n (from 1): ``average <- d average + (1 - d) weights`` with
    ``d = min(decay, (1 + n) / (10 + n))``, the warm-up of TensorFlow's `ExponentialMovingAverage`, so that
    a short run does not keep its random start (Polyak and Juditsky, SIAM J. Control Optim. 30, 838, 1992).
    Buffers (running statistics, counters) are copied, not averaged.

    Parameters
    ----------
    modules : mapping of str to nn.Module
    decay : float
        0 to below 1; 0 makes the average the weights themselves, and costs nothing.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._live: dict[str, torch.Tensor] = {}
        self._alias: dict[str, str] = {}  # weights that two layers share are averaged once
        first: dict[int, str] = {}
        for name, module in modules.items():
            for key, tensor in module.state_dict(keep_vars=True).items():
                self._alias[f"{name}.{key}"] = owner = first.setdefault(id(tensor), f"{name}.{key}")
                self._live[owner] = tensor
        self.average: dict[str, torch.Tensor] = {}
        if decay:
            self.average = {key: tensor.detach().clone() for key, tensor in self._live.items()}

    def update(self) -> None:
        """Take the present weights into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for key, average in self.average.items():
                live = self._live[key]
                if isinstance(live, torch.nn.Parameter) and live.is_floating_point():
                    average.lerp_(live.detach(), 1 - decay)
                else:
                    average.copy_(live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the modules for the time of the context."""
        done: list[str] = []
        try:
            for key in self.average:
                self._swap(key)
                done.append(key)
            yield
        finally:
            for key in done:
                self._swap(key)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights and buffers, keyed ``module.parameter`` (no copy)."""
        found = self.average or {key: tensor.detach() for key, tensor in self._live.items()}
        return {key: found[owner] for key, owner in self._alias.items()}

    def load(self, weights: Mapping[str, torch.Tensor], updates: int) -> None:
        """Take up a stored average of the same modules after `updates` updates."""
        self.updates = updates
        for key, average in self.average.items():
            average.copy_(weights[key])

    def _swap(self, key: str) -> None:
        # pointers change places: exact, and free
        live = self._live[key]
        self.average[key], live.data = live.data, self.average[key]
