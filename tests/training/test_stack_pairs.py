"""Patches of pairs: places, noise, left-out planes, and which pairs are only validated on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.thick_tissue import TissueSettings
from napari_lfm.training.stack_pairs import (
    PatchSettings,
    RecordedPairs,
    StackPair,
    TissuePairs,
    draw_patch,
    skipped,
    with_noise,
)


def _numbered(shape: tuple[int, int, int] = (12, 40, 44)) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape) / np.prod(shape)


def test_input_and_target_are_the_same_place_turned_alike() -> None:
    stack = _numbered()
    pair = StackPair(stack, 2 * stack)
    settings = PatchSettings((5, 16, 16), skip_share=0.0)
    seen = set()
    for k in range(30):
        rng, generator = np.random.default_rng(k), torch.Generator().manual_seed(k)
        given, wanted = draw_patch(pair, settings, rng, generator)
        assert given.shape == (5, 16, 16)
        assert torch.equal(2 * given, wanted)
        seen.add((bool(given[0, 0, 0] < given[-1, 0, 0]), bool(given[0, 0, 0] < given[0, -1, 0])))
    assert len(seen) == 4  # flips along z and across


def test_left_out_planes_are_interpolated_between_those_that_are_there() -> None:
    ramp = torch.arange(13.0).reshape(13, 1, 1).expand(13, 3, 3)
    assert torch.allclose(skipped(ramp, 4), ramp)
    bumpy = torch.zeros(13, 2, 2)
    bumpy[5] = 1.0
    assert skipped(bumpy, 4).abs().max() == 0
    assert skipped(bumpy, 4, first=1)[5].min() == 1
    assert torch.equal(skipped(bumpy, 1), bumpy)


def test_a_patch_with_left_out_planes_keeps_its_place() -> None:
    ramp = torch.arange(40.0).reshape(40, 1, 1).expand(40, 16, 16)
    pair = StackPair(ramp, ramp)
    inside = 0
    for k in range(40):
        rng, generator = np.random.default_rng(k), torch.Generator().manual_seed(k)
        given, wanted = draw_patch(pair, PatchSettings((8, 16, 16), 1.0), rng, generator)
        if 4 < wanted.min() and wanted.max() < 35:  # a ramp is interpolated exactly away from the ends
            assert torch.allclose(given, wanted, atol=1e-4)
            inside += 1
    assert inside > 10


def test_noise_has_the_variance_of_electrons() -> None:
    pair = StackPair(torch.full((20, 60, 60), 0.5), torch.zeros(20, 60, 60), noise=400.0, dark=-0.1)
    noisy = with_noise(pair, pair.given, torch.Generator().manual_seed(0))
    assert float(noisy.var()) == pytest.approx(0.6 / 400, rel=0.05)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=1e-3)
    quiet = StackPair(pair.given, pair.wanted)
    assert torch.equal(with_noise(quiet, quiet.given, torch.Generator()), quiet.given)


def test_old_specimens_make_way_for_new_ones_in_an_order_that_a_resumed_run_repeats() -> None:
    settings = TissueSettings(
        na=0.8, immersion_index=1.33, sample_index=1.33, voxel_um=(1.0, 0.3, 0.3), shape=(8, 32, 32)
    )

    def source() -> TissuePairs:
        return TissuePairs(settings, seed=4, pool=3, fresh_every=5, validation_stacks=1)

    running = source()
    names = []
    for step in range(24):
        names.append([running.at(slot, step).name for slot in range(3)])
    resumed = source()
    assert [resumed.at(slot, 23).name for slot in range(3)] == names[23]
    assert names[0] != names[23]
    changes = sum(a != b for before, after in pairwise(names) for a, b in zip(before, after, strict=True))
    assert changes == 23 // 5
    assert len({n for row in names for n in row}) == 3 + changes
    for _ in running.prepare():
        pass
    held = {p.name for p in running.validation()}
    assert not held & {n for row in names for n in row}
    assert running.validation()[0].noise == 0  # drawn once


def _pairs(count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(f"p{k}", rng.random((6, 30, 40)), rng.random((6, 30, 40))) for k in range(count)]


def test_pairs_are_split_by_stack() -> None:
    source = RecordedPairs(_pairs(10), seed=1)
    train, held = source.names
    assert len(held) == 2
    assert not set(train) & set(held)
    assert {source.pair(k, np.random.default_rng(k)).name for k in range(200)} == set(train)
    assert {p.name for p in source.validation()} == set(held)
    assert RecordedPairs(_pairs(10), seed=2).names != source.names


def test_a_single_pair_is_split_in_two_parts_without_overlap() -> None:
    name, wide, confocal = _pairs(1)[0]
    source = RecordedPairs([(name, wide, confocal)])
    train = source.pair(0, np.random.default_rng(0)).given
    held = source.validation()[0].given
    assert train.shape == (6, 30, 32)
    assert held.shape == (6, 30, 8)


def test_stacks_are_scaled_whatever_their_units() -> None:
    name, wide, confocal = _pairs(1)[0]
    source = RecordedPairs([(name, 1000 * wide + 300, (255 * confocal).astype(np.uint8)), *_pairs(3)])
    for k in range(20):
        pair = source.pair(k, np.random.default_rng(k))
        assert -0.05 < float(pair.given.min()) < 0.05
        assert 0.95 < float(pair.wanted.max()) < 1.05


@pytest.mark.parametrize("change", ["shape", "nan", "dark"])
def test_pairs_that_cannot_be_used_are_refused(change: str) -> None:
    name, wide, confocal = _pairs(1)[0]
    if change == "shape":
        confocal = confocal[1:]
    elif change == "nan":
        wide[0, 0, 0] = np.nan
    else:
        confocal[:] = 3
    with pytest.raises(RequestError, match="p0"):
        RecordedPairs([(name, wide, confocal)])
    with pytest.raises(RequestError):
        RecordedPairs([])
