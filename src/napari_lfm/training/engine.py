"""Modules, optimisers and averages of a run: one step, one validation, everything that a checkpoint holds."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_lfm.core.devices import pick_device
from napari_lfm.training.checkpoint import refuse_other_shapes, within
from napari_lfm.training.config import uses_bfloat16
from napari_lfm.training.ema import Ema
from napari_lfm.training.feed import to_device
from napari_lfm.training.task import step_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from napari_lfm.training.config import TrainConfig
    from napari_lfm.training.task import Phase, Task, Validation

_DROPOUT, _VALIDATION = 1, 2  # streams of random numbers


class Engine:
    """Everything of a run that changes with a step, apart from the counters.

    Attributes
    ----------
    whole : bool
        False while a step is half done: the state then belongs to no step and is not worth keeping. A step
        sets it to False; whoever counts the step sets it to True again.
    """

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self.task, self.config = task, config
        self.device = pick_device(config.device)
        self.bfloat16 = uses_bfloat16(config.precision, self.device)
        for module in task.modules.values():
            module.to(self.device)
            if config.channels_last:
                _channels_last(module)
            module.train()
        self._trainable = {
            name: [p for p in module.parameters() if p.requires_grad] for name, module in task.modules.items()
        }
        self._optimisers = {phase.name: self._optimiser(phase) for phase in task.phases}
        self.updates_per_step = sum(phase.repeats for phase in task.phases)
        self.ema = Ema(task.modules, config.ema_decay)
        self._statistics = [b for m in task.modules.values() for b in m.buffers() if b.is_floating_point()]
        self.whole = True

    def step(self, step: int, factor: float, batch: Callable[[], Any]) -> tuple[dict[str, float], bool]:
        """Make every update of step number `step` (from 0).

        Parameters
        ----------
        step : int
        factor : float
            Learning rate over its largest value.
        batch : callable
            Returns the next batch.

        Returns
        -------
        values : dict
            Losses and ``grad_norm``; with several phases named ``phase.loss``, and ``loss`` is the first's.
        fine : bool
            Whether every loss and gradient was finite; an update that was not did nothing.
        """
        values: dict[str, float] = {}
        fine = True
        with self._random(step, _DROPOUT):
            for phase in self.task.phases:
                for _ in range(phase.repeats):
                    found, good = self._update(phase, factor, to_device(batch(), self.device))
                    fine = fine and good
                if len(self.task.phases) > 1:
                    values.setdefault("loss", found["loss"])
                    found = {f"{phase.name}.{key}": value for key, value in found.items()}
                values.update(found)
        self.whole = False
        self.ema.update()
        return values, fine

    def validate(self) -> Validation:
        """Score the averaged weights; nothing of the run changes."""
        training = {m: m.training for top in self.task.modules.values() for m in top.modules()}
        with self.ema.applied(), torch.no_grad(), self._autocast(), self._random(0, _VALIDATION):
            try:
                for module in self.task.modules.values():
                    module.eval()
                return self.task.validate(self.task.modules)
            finally:
                for module, mode in training.items():
                    module.training = mode

    def best_tensors(self) -> dict[str, torch.Tensor]:
        """Return what ``best.safetensors`` holds: the averaged weights of every module."""
        return {f"modules.{key}": value for key, value in self.ema.weights().items()}

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything needed to go on: tensors, and the JSON-ready rest."""
        tensors = _weights(self.task.modules)
        if self.ema.average:
            tensors |= {f"ema.{key}": value for key, value in self.ema.weights().items()}
        for name, optimiser in self._optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{name}.{index}.{key}": value for key, value in state.items()}
        rest: dict[str, Any] = {}
        for key, value in self.task.state_dict().items():
            if isinstance(value, torch.Tensor):
                tensors[f"task.{key}"] = value
            else:
                rest[key] = value
        return tensors, {"ema_updates": self.ema.updates, "task_state": rest}

    def load(self, path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Take up what `tensors` returned.

        Raises
        ------
        RequestError
            If the tensors are not those of these modules.
        """
        live, _ = self.tensors()
        wanted = {k: v for k, v in live.items() if k.startswith(("modules.", "ema."))}
        refuse_other_shapes(
            path, {k: v for k, v in tensors.items() if k.startswith(("modules.", "ema."))}, wanted
        )
        with torch.no_grad():
            for key, tensor in _weights(self.task.modules).items():
                tensor.copy_(tensors[key])
        self.ema.load(within(tensors, "ema."), int(state["ema_updates"]))
        for phase in self.task.phases:
            self._load_optimiser(self._optimisers[phase.name], within(tensors, f"optimiser.{phase.name}."))
        self.task.load_state_dict({**state["task_state"], **within(tensors, "task.")})

    def _update(self, phase: Phase, factor: float, batch: Any) -> tuple[dict[str, float], bool]:
        optimiser = self._optimisers[phase.name]
        kept = [b.clone() for b in self._statistics]
        if kept:
            self.whole = False
        with self._only(phase):
            with self._autocast():
                losses = self.task.loss(phase.name, batch)
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
        weights = [p for name in phase.modules for p in self._trainable[name]]
        norm = nn.utils.clip_grad_norm_(weights, self.config.clip_norm or math.inf)
        numbers = {**losses, "grad_norm": norm}
        # one transfer for all of them: each one makes the device wait
        flat = [v.detach().to(self.device, torch.float32).reshape(()) for v in numbers.values()]
        together = torch.stack(flat).tolist()
        values: dict[str, float] = dict(zip(numbers, together, strict=True))
        fine = math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])
        if fine:
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * phase.rate * factor
            self.whole = False
            optimiser.step()
        else:
            with torch.no_grad():
                for buffer, before in zip(self._statistics, kept, strict=True):
                    buffer.copy_(before)  # the forward pass took what is not finite into the statistics
        optimiser.zero_grad(set_to_none=True)
        return values, fine

    def _optimiser(self, phase: Phase) -> torch.optim.AdamW:
        weights = [p for name in phase.modules for p in self._trainable[name]]
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=self.config.learning_rate,
            betas=phase.betas,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def _load_optimiser(self, optimiser: torch.optim.AdamW, stored: Mapping[str, torch.Tensor]) -> None:
        weights = [p for group in optimiser.param_groups for p in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in stored.items():
            index, name = key.split(".", 1)
            weight = weights[int(index)]
            # in the layout of the weights: a fused update goes through memory, not through indices
            like = torch.empty_like(weight) if value.shape == weight.shape else torch.empty_like(value)
            state.setdefault(int(index), {})[name] = like.detach().copy_(value)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})

    @contextlib.contextmanager
    def _only(self, phase: Phase) -> Iterator[None]:
        # weights of the other modules need no gradients, though gradients pass through them
        others = [p for name, ps in self._trainable.items() if name not in phase.modules for p in ps]
        try:
            for p in others:
                p.requires_grad_(False)
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    @contextlib.contextmanager
    def _random(self, step: int, stream: int) -> Iterator[None]:
        # dropout and the like draw from torch's global state: set per step, and given back afterwards
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(step_seed(self.config.seed, step, stream))
            yield


def _weights(modules: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"modules.{name}.{key}": value.detach()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def _channels_last(module: nn.Module) -> None:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in module.parameters():
        if weight.dim() in layouts:
            weight.data = weight.data.contiguous(memory_format=layouts[weight.dim()])
