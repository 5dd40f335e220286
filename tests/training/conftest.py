"""Small tasks that train in milliseconds, and a clock that only the task moves."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_lfm.training.config import TrainConfig
from napari_lfm.training.task import BaseTask, Phase, Validation, torch_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Shift(BaseTask):
    """Learn to shift an image; with everything that has a state: dropout, running statistics, own tensors."""

    def __init__(self, seed: int = 1, width: int = 6, scores: Sequence[float] | None = None) -> None:
        torch.manual_seed(seed)
        super().__init__(
            {
                "network": nn.Sequential(
                    nn.Conv2d(1, width, 3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Dropout(0.2),
                    nn.Conv2d(width, 1, 3, padding=1),
                )
            }
        )
        self.seed, self.width = seed, width
        self.scores = None if scores is None else list(scores)
        self.seen = torch.zeros(())
        self.made: list[int] = []
        self.bad_steps: set[int] = set()
        self.at_loss: Callable[[int], None] = lambda index: None

    def batch(self, index: int) -> dict[str, Any]:
        self.made.append(index)
        x = torch.randn(2, 1, 8, 8, generator=torch_rng(self.seed, index))
        return {"x": x, "y": x.roll(1, -1), "index": index}

    def loss(self, phase: str, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        self.at_loss(batch["index"])
        x = batch["x"] * float("nan") if batch["index"] in self.bad_steps else batch["x"]
        d = self.modules["network"](x).float() - batch["y"]
        self.seen += 1
        return {"loss": d.square().mean() + 0.1 * d.abs().mean(), "l1": d.abs().mean()}

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        assert not any(m.training for m in modules["network"].modules())
        assert not torch.is_grad_enabled()
        batch = self.batch(1_000_000)
        out = modules["network"](batch["x"]).float()
        error = float((out - batch["y"]).square().mean())
        score = -error if self.scores is None else self.scores.pop(0)
        return Validation(score, {"mse": error}, {"network": out[0, 0].numpy()})

    def describe(self) -> dict[str, Any]:
        return {"network": {"width": self.width}, "seed": self.seed}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "name": "shift"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert state["name"] == "shift"
        self.seen = state["seen"].clone()


class Duel(BaseTask):
    """A generator and a discriminator, three updates of one to two of the other."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        super().__init__({"generator": nn.Conv2d(1, 1, 3, padding=1), "discriminator": nn.Conv2d(1, 1, 3)})
        self.calls: list[tuple[str, int]] = []
        self.before: list[dict[str, torch.Tensor]] = []

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("generator", ("generator",), repeats=3, betas=(0.5, 0.999)),
            Phase("discriminator", ("discriminator",), repeats=2, rate=0.3, betas=(0.5, 0.999)),
        )

    def batch(self, index: int) -> tuple[int, torch.Tensor]:
        return index, torch.randn(2, 1, 6, 6, generator=torch_rng(3, index))

    def loss(self, phase: str, batch: tuple[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls.append((phase, batch[0]))
        self.before.append({k: copy.deepcopy(m.weight.detach()) for k, m in self.modules.items()})
        generator, judge = self.modules["generator"], self.modules["discriminator"]
        fake = generator(batch[1])
        if phase == "generator":
            assert not any(p.requires_grad for p in judge.parameters())
            return {"loss": 0.5 * (judge(fake) - 1).square().mean()}
        assert not any(p.requires_grad for p in generator.parameters())
        return {"loss": 0.5 * judge(fake).square().mean() + 0.5 * (judge(batch[1]) - 1).square().mean()}

    def validate(self, modules: Mapping[str, nn.Module]) -> Validation:
        return Validation(float(np.float64(1)))


@pytest.fixture
def shift() -> type[Shift]:
    return Shift


@pytest.fixture
def duel() -> type[Duel]:
    return Duel


@pytest.fixture
def config() -> Callable[..., TrainConfig]:
    """Make settings that are exactly repeatable and quick."""

    def make(**settings: Any) -> TrainConfig:
        usual: dict[str, Any] = {"steps": 12, "validate_every_steps": 5, "precision": "float32"}
        return TrainConfig(**{**usual, "device": "cpu", "learning_rate": 1e-2, "prefetch": 0, **settings})

    return make


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self, *_: object) -> None:
        self.now += 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stand in for the loop's clock."""
    clock = Clock()
    monkeypatch.setattr("napari_lfm.training.loop._now", clock)
    return clock


@pytest.fixture
def same_files() -> Callable[[Path, Path], None]:
    """Compare two run folders bit for bit, apart from the clock."""
    from napari_lfm.training.checkpoint import BEST, LAST, load

    def compare(one: Path, two: Path) -> None:
        for name in (LAST, BEST):
            (a, state_a), (b, state_b) = load(one / name), load(two / name)
            assert a.keys() == b.keys()
            assert [k for k in a if not torch.equal(a[k], b[k])] == []
            assert [k for k in a if a[k].dtype != b[k].dtype] == []
            assert state_a["step"] == state_b["step"]
        scores = [
            [(h["step"], h["score"], h["values"]) for h in load(f / LAST)[1]["history"]] for f in (one, two)
        ]
        assert scores[0] == scores[1]

    return compare
