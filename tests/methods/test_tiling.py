"""Tiles that cover an image, and what a network will cost before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_lfm.methods.confidence import Agreement, apply, percentile, undo
from napari_lfm.methods.tiling import choose_tile, cost_of, smallest_tile, tiles_of
from napari_lfm.optics.symmetry import cell_group

if TYPE_CHECKING:
    from tests.methods.conftest import Nets  # only for reading


@pytest.mark.parametrize(("cells", "size"), [((40, 33), 24), ((17, 60), 20), ((41, 41), 28), ((30, 30), 200)])
def test_tiles_cover_everything_once_with_their_surroundings(cells: tuple[int, int], size: int) -> None:
    reach, step = 6, 4
    seen = np.zeros(cells, int)
    for tile in tiles_of(cells, size, reach, step):
        seen[tile.keep_start[0] : tile.keep_stop[0], tile.keep_start[1] : tile.keep_stop[1]] += 1
        for axis, n in enumerate(cells):
            assert tile.start[axis] % step == 0
            assert tile.stop[axis] - tile.start[axis] <= max(size, step)
            assert tile.start[axis] == 0 or tile.keep_start[axis] - tile.start[axis] >= reach
            assert tile.stop[axis] == n or tile.stop[axis] - tile.keep_stop[axis] >= reach
    assert (seen == 1).all()


def test_tiles_without_a_middle_are_refused() -> None:
    assert smallest_tile(6, 4) == 20
    with pytest.raises(ValueError, match="smaller than their overlap"):
        tiles_of((40, 40), 19, 6, 4)


def test_costs_grow_with_the_image_and_decide_the_tile(nets: Nets) -> None:
    card = nets.put(nets.random(9, 9, 5))
    small, large = cost_of(card, 9, (40, 40)), cost_of(card, 9, (80, 80))
    assert large.flop == pytest.approx(4 * small.flop, rel=0.01)
    assert 3 < large.peak_bytes / small.peak_bytes < 4.2
    # the last layer's answer and its input must fit at the least
    assert small.peak_bytes > 4 * (9 + 4) * 200**2
    size, cost = choose_tile(card, 9, (80, 80), large.peak_bytes // 2)
    assert smallest_tile(nets.random(9, 9, 5).reach_lenslets, 4) <= size < 80
    assert cost.peak_bytes <= large.peak_bytes // 2
    assert choose_tile(card, 9, (80, 80), large.peak_bytes)[0] == 80


@pytest.mark.parametrize("operation", cell_group(True), ids=str)
def test_flips_are_those_of_the_optics_and_can_be_undone(operation: object) -> None:
    image = torch.arange(12.0).reshape(1, 3, 4)
    moved = apply(operation, image)  # type: ignore[arg-type]
    np.testing.assert_array_equal(moved, operation.on_image(image.numpy()))  # type: ignore[attr-defined]
    torch.testing.assert_close(undo(operation, moved), image)  # type: ignore[arg-type]


def test_confidence_is_what_the_definition_says() -> None:
    answers = torch.tensor([[10.0, 0.0, 4.0], [10.0, 0.1, 8.0]])[:, None, None]
    agreement = Agreement((1, 1, 3))
    for answer in answers:
        agreement.add(answer)
    floor = 0.02 * percentile(answers.mean(0), 99.9)
    expected = 1 - answers.std(0, correction=0) / (answers.mean(0).abs() + floor)
    torch.testing.assert_close(agreement.confidence(), expected.clamp(0, 1))
    assert agreement.confidence()[0, 0, 0] == 1
