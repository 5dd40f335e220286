from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from napari_lfm.training.feed import Feed, to_device
from napari_lfm.training.log import CsvLog
from napari_lfm.training.task import numpy_rng, step_seed, torch_rng


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_batches_come_in_order_from_the_start_asked_for(ahead: int) -> None:
    threads = set()

    def make(index: int) -> int:
        threads.add(threading.current_thread().name)
        return index

    feed = Feed(make, 7, ahead)
    assert [feed.next() for _ in range(6)] == [7, 8, 9, 10, 11, 12]
    feed.close()
    assert len(threads) == 1
    assert (threading.current_thread().name in threads) == (ahead == 0)
    assert not any(t.name.startswith("batches") for t in threading.enumerate())


def test_an_error_comes_with_the_batch_it_belongs_to() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ValueError("two")
        return index

    feed = Feed(make, 0, 3)
    assert [feed.next(), feed.next()] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        feed.next()
    feed.close()


def test_every_tensor_of_a_batch_is_moved() -> None:
    @dataclass(frozen=True)
    class Parts:
        image: torch.Tensor
        name: str

    Two = namedtuple("Two", "a b")
    meta = torch.device("meta")
    x = torch.ones(2)
    moved = to_device({"a": [x, 3], "b": Two(x, (x,)), "c": Parts(x, "n"), "d": np.ones(2)}, meta)
    assert (
        moved["a"][0].device
        == moved["b"].a.device
        == moved["b"].b[0].device
        == moved["c"].image.device
        == meta
    )
    assert moved["a"][1] == 3 and moved["c"].name == "n" and isinstance(moved["d"], np.ndarray)


def test_random_numbers_of_updates_are_repeatable_and_differ() -> None:
    assert torch.equal(torch.rand(4, generator=torch_rng(1, 2)), torch.rand(4, generator=torch_rng(1, 2)))
    assert numpy_rng(1, 2).random() == numpy_rng(1, 2).random()
    seeds = {
        step_seed(seed, index, stream) for seed in range(5) for index in range(50) for stream in range(3)
    }
    assert len(seeds) == 750
    assert len({numpy_rng(1, i, s).random() for i in range(20) for s in range(3)}) == 60


def test_a_table_widens_when_a_figure_appears_and_drops_later_rows(tmp_path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    log.add({"step": 1, "loss": 0.5})
    log.add({"step": 2, "loss": 0.25, "extra": 7})
    log.close()
    assert path.read_text() == "step,loss,extra\n1,0.5,\n2,0.25,7\n"
    path.write_text(path.read_text() + "3,0.125,8\n4,0.0")  # cut short by a kill
    log = CsvLog(path, 2)
    log.add({"step": 3, "loss": 1.0, "extra": 1})
    log.close()
    assert path.read_text() == "step,loss,extra\n1,0.5,\n2,0.25,7\n3,1.0,1\n"
