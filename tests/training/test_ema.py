from __future__ import annotations

import torch
from torch import nn

from napari_lfm.training.ema import Ema


def line(value: float) -> nn.Linear:
    module = nn.Linear(2, 1)
    nn.init.constant_(module.weight, value)
    nn.init.constant_(module.bias, value)
    return module


def test_warm_up_then_decay() -> None:
    module = line(0.0)
    ema = Ema({"m": module}, 0.2)
    expected = 0.0
    for n in range(1, 6):
        nn.init.constant_(module.weight, float(n))
        ema.update()
        decay = min(0.2, (1 + n) / (10 + n))  # 2/11 first, then 0.2
        expected = decay * expected + (1 - decay) * n
        torch.testing.assert_close(ema.weights()["m.weight"], torch.full((1, 2), expected))


def test_without_decay_it_is_the_weights_themselves() -> None:
    module = line(1.0)
    ema = Ema({"m": module}, 0.0)
    nn.init.constant_(module.weight, 5.0)
    ema.update()
    assert ema.average == {}
    assert torch.equal(ema.weights()["m.weight"], module.weight)
    with ema.applied():
        assert float(module.weight[0, 0].detach()) == 5


def test_applied_for_a_while_and_given_back_even_after_an_error() -> None:
    module = line(1.0)
    ema = Ema({"m": module}, 0.9)
    nn.init.constant_(module.weight, 3.0)
    weight = module.weight
    try:
        with ema.applied():
            assert torch.equal(module.weight, torch.ones(1, 2))
            raise ValueError
    except ValueError:
        pass
    assert module.weight is weight
    assert torch.equal(weight, torch.full((1, 2), 3.0))
    assert torch.equal(ema.weights()["m.weight"], torch.ones(1, 2))


def test_running_statistics_are_copied() -> None:
    module = nn.BatchNorm1d(3)
    ema = Ema({"m": module}, 0.99)
    module(torch.randn(8, 3) + 4)
    ema.update()
    assert torch.equal(ema.weights()["m.running_mean"], module.running_mean)
    assert int(ema.weights()["m.num_batches_tracked"]) == 1


def test_shared_weights_are_averaged_once_and_come_back() -> None:
    one, two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    two.weight = one.weight
    both = nn.Sequential(one, two)
    ema = Ema({"m": both}, 0.5)
    before = one.weight.detach().clone()
    nn.init.zeros_(one.weight)
    with ema.applied():
        assert torch.equal(two.weight, before)
    assert not one.weight.detach().any()
    assert one.weight is two.weight
    ema.update()
    assert torch.equal(ema.weights()["m.0.weight"], ema.weights()["m.1.weight"])
