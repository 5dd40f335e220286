"""Tiles of stacks: their weights, their size within a budget, their seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.methods.stack_tiles import StackTiling, plan_tiling, run_stack_tiles


@pytest.mark.parametrize("core", [(7, 16, 16), (20, 50, 60), (4, 13, 60)])
@pytest.mark.parametrize("ramp", [(0, 0, 0), (2, 6, 6)])
def test_weights_of_all_tiles_add_up_to_one(core: tuple[int, int, int], ramp: tuple[int, int, int]) -> None:
    tiling = StackTiling((20, 50, 60), core, (3, 8, 8), ramp)
    total = np.zeros(tiling.shape)
    for seen, used, (wz, wy, wx) in tiling.tiles():
        total[used] += wz[:, None, None] * wy[None, :, None] * wx[None, None, :]
        for s, u in zip(seen, used, strict=True):
            assert s.start <= u.start
            assert u.stop <= s.stop
    assert np.allclose(total, 1, atol=1e-6)


def test_a_local_operation_is_the_same_in_tiles() -> None:
    rng = np.random.default_rng(0)
    stack = rng.random((12, 70, 90)).astype(np.float32)
    blur = torch.nn.AvgPool3d(3, 1, 1)
    tiling = StackTiling(stack.shape, (6, 32, 32), (2, 4, 4), (1, 3, 3))
    steps = list(run_stack_tiles(blur, stack, tiling, lambda a: a, torch.device("cpu"), False))
    assert [done for done, _ in steps] == list(range(1, tiling.count + 1))
    last = steps[-1][1]
    with torch.no_grad():
        whole = blur(torch.from_numpy(stack)[None, None])[0, 0].numpy()
    # the pooling pads with zeros at the rim of every tile, which the halo keeps away
    assert np.abs(last - whole).max() < 1e-5


def test_tiles_fit_the_budget_and_planes_stay_together_where_they_can() -> None:
    shape, halo, multiple = (40, 1000, 1200), (8, 32, 32), (4, 32, 32)
    large = plan_tiling(shape, halo, multiple, 100.0, 10**10)
    assert large is not None
    assert large.core[0] == 40
    for budget in (10**9, 10**8, 3 * 10**7):
        tiling = plan_tiling(shape, halo, multiple, 100.0, budget)
        assert tiling is not None
        assert np.prod(tiling.largest) * 100 <= budget
    assert tiling.core[1] < large.core[1]
    assert plan_tiling(shape, halo, multiple, 100.0, 10**5) is None
    asked = plan_tiling(shape, halo, multiple, 100.0, 10**10, wanted_across=256)
    assert asked is not None
    assert asked.core[1:] == (256, 256)


def test_a_sliver_counts_for_the_largest_tile() -> None:
    tiling = StackTiling((4, 159, 300), (4, 128, 128), (0, 0, 0), (0, 0, 0))
    seen = [[s.stop - s.start for s in box] for box, _, _ in tiling.tiles()]
    assert tiling.largest == tuple(max(n) for n in zip(*seen, strict=True)) == (4, 159, 128)
