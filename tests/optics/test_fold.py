"""Folding by symmetry: what is gathered comes back, and each frequency is served once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.optics.channels import ChannelTables, inverse, mix, wrap
from napari_lfm.optics.fold import act_on_frequency, fold_frequencies, half_plane_index
from napari_lfm.optics.symmetry import IDENTITY, Operation, cell_group

SQUARE = cell_group(square=True)
OBLONG = cell_group(square=False)
NONE = cell_group(square=True, symmetric=False)


def test_groups() -> None:
    assert len(SQUARE) == 8
    assert len(OBLONG) == 4
    assert NONE == (IDENTITY,)
    points = {g.on_point(1.0, 2.0) for g in SQUARE}
    assert len(points) == 8


@pytest.mark.parametrize("op", SQUARE)
def test_operations_mean_the_same_for_points_images_and_indices(op: Operation) -> None:
    shape = (3, 3)
    image = np.arange(9.0).reshape(shape)
    for i in range(9):
        y, x = divmod(i, 3)
        there = op.on_point(y - 1.0, x - 1.0)
        j = round(there[0] + 1) * 3 + round(there[1] + 1)
        assert op.on_index(shape)[i] == j
        assert op.on_image(image).ravel()[j] == image.ravel()[i]
    back = inverse(op)
    np.testing.assert_array_equal(back.on_image(op.on_image(image)), image)
    assert back.on_point(*op.on_point(0.3, -0.7)) == (0.3, -0.7)


@pytest.mark.parametrize(
    ("group", "period"),
    [(SQUARE, (8, 8)), (SQUARE, (9, 9)), (OBLONG, (8, 9)), (OBLONG, (5, 12)), (NONE, (6, 7))],
)
def test_every_frequency_has_its_slot(group: tuple[Operation, ...], period: tuple[int, int]) -> None:
    fold = fold_frequencies(group, period)
    width = period[1] // 2 + 1
    assert len(fold.slot) == period[0] * width
    if len(group) == 1:
        assert len(fold.fundamental) == len(fold.slot)
    else:
        assert len(fold.fundamental) <= len(fold.slot) * 2 / len(group) * 1.7 + 4
    grid = np.stack(np.meshgrid(np.arange(period[0]), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    for at, (slot, conj) in enumerate(zip(fold.slot, fold.slot_conj, strict=True)):
        f, g = divmod(int(slot), len(fold.cosets))
        reached = act_on_frequency(fold.cosets[g], fold.fundamental[f], period)
        wanted = np.mod(-grid[at], period) if conj else grid[at]
        np.testing.assert_array_equal(reached, wanted)
        index, flipped = half_plane_index(reached, period)
        assert fold.source[f, g] == index
        assert fold.source_conj[f, g] == flipped


def test_a_transpose_needs_a_square_period() -> None:
    with pytest.raises(ValueError, match="square period"):
        fold_frequencies(SQUARE, (8, 9))


@pytest.mark.parametrize(
    ("group", "period", "planes"),
    [
        (SQUARE, (8, 8), [(3, 3), (2, 2), (1, 1)]),
        (SQUARE, (9, 9), [(5, 5)]),
        (OBLONG, (8, 9), [(3, 2), (2, 2), (1, 3)]),
        (OBLONG, (7, 6), [(4, 1)]),
        (NONE, (6, 7), [(2, 3), (1, 1)]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_gathered_is_scattered_back(
    group: tuple[Operation, ...], period: tuple[int, int], planes: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    fold = fold_frequencies(group, period)
    tables = ChannelTables(fold, planes, len(group) > 1, torch.device("cpu"))
    data = torch.rand(tables.channels, *period, dtype=dtype)
    parity = tables.to_parity(data)
    spectrum = torch.fft.rfft2(parity)
    slots = torch.empty(tables.f_count, tables.n_cosets, 2, tables.channels, dtype=dtype)
    tables.gather(spectrum.flatten(1), slots)
    back = tables.scatter(slots, 0, 1).reshape(spectrum.shape)
    torch.testing.assert_close(back, spectrum)
    among = torch.stack([slots + 1, slots, slots - 1], 1)  # the same frame, second of three
    torch.testing.assert_close(tables.scatter(among, 1, 3).reshape(spectrum.shape), spectrum)
    # sums and differences twice: twice the pairs; those that are their own pair stay
    again = tables.from_parity(torch.fft.irfft2(back, s=period))
    own = torch.full((tables.channels, 1, 1), 2.0, dtype=dtype)
    own[tables.pairs : tables.channels - tables.pairs] = 1
    torch.testing.assert_close(again, data * own)
    assert sorted(tables.order) == list(range(tables.channels))
    assert torch.equal(tables.to_stored[tables.to_natural], torch.arange(tables.channels))


def test_mixing_splits_even_from_odd() -> None:
    symmetric = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])
    assert torch.equal(mix(symmetric, 0), torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0]))
    antisymmetric = torch.tensor([1.0, 2.0, -2.0, -1.0])
    assert torch.equal(mix(antisymmetric, 0), torch.tensor([0.0, 0.0, 1.0, 2.0]))


def test_kernels_wider_than_the_period_wrap_round() -> None:
    kernel = torch.arange(25.0).reshape(1, 5, 5)
    small = wrap(kernel, (3, 4), (2, 2))
    assert small.sum() == kernel.sum()
    expected = torch.zeros(3, 4)
    for y in range(-2, 3):
        for x in range(-2, 3):
            expected[y % 3, x % 4] += kernel[0, y + 2, x + 2]
    assert torch.equal(small[0], expected)
