"""Blur with unobserved surroundings: the convolution it stands for, its adjoint, what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.stack_blur import StackBlur

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("psf", "observed"), [((5, 7, 4), (9, 12, 11)), ((6, 3), (10, 13)), ((9, 9, 9), (4, 5, 6))]
)
def test_it_is_the_convolution(psf: tuple[int, ...], observed: tuple[int, ...]) -> None:
    kernel = RNG.random(psf)
    blur = StackBlur(kernel, observed)
    stack = RNG.random(blur.shape)
    full = convolve(stack, kernel / kernel.sum(), mode="full", method="direct")
    start = [(n - 1) // 2 for n in psf]  # the point is the middle entry
    whole = full[tuple(slice(a, a + n) for a, n in zip(start, blur.shape, strict=True))]
    wanted = whole[tuple(slice(m, m + n) for m, n in zip(blur.margin, observed, strict=True))]
    found = blur.forward(torch.from_numpy(stack).float())
    assert tuple(found.shape) == observed
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert tuple(blur.crop(torch.from_numpy(stack)).shape) == observed


def test_the_adjoint_is_one() -> None:
    blur = StackBlur(RNG.random((5, 6, 7)), (8, 9, 10))
    x, y = torch.rand(blur.shape), torch.rand(blur.observed)
    left = (blur.forward(x) * y).sum()
    assert float(left) == pytest.approx(float((x * blur.adjoint(y)).sum()), rel=1e-4)


def test_light_from_beyond_the_rim_is_recorded_and_seen_in_part() -> None:
    kernel = np.ones((1, 5, 5))
    blur = StackBlur(kernel, (3, 8, 8))
    assert blur.margin == (0, 2, 2)
    beyond = torch.zeros(blur.shape)
    beyond[1, 1, 6] = 1  # one entry outside
    assert blur.forward(beyond).sum() == pytest.approx(10 / 25, abs=1e-5)
    seen = blur.seen()
    assert seen[1, 5, 5] == pytest.approx(1, abs=1e-5)
    assert seen[1, 1, 6] == pytest.approx(10 / 25, abs=1e-5)
    none = StackBlur(kernel, (3, 8, 8), margin=(0, 0, 0))
    assert none.shape == (3, 8, 8)


def test_what_is_no_point_spread_function_is_refused() -> None:
    for psf, reason in (
        (np.ones((3, 3)), "2 axes and the image 3"),
        (np.zeros((3, 3, 3)), "dark"),
        (np.full((3, 3, 3), np.nan), "no numbers"),
        (np.full((3, 3, 3), -1.0), "negative"),
    ):
        with pytest.raises(RequestError, match=reason):
            StackBlur(psf, (5, 5, 5))
    assert StackBlur(np.ones((3, 3, 3)), (5, 5, 5)).bytes_needed() > 1000


@pytest.mark.parametrize("block", [(20, 8, 9), (20, 5, 40), (3, 4, 5), (1, 1, 100)])
@pytest.mark.parametrize("margin", [None, (0, 0, 0), (1, 3, 2), (6, 6, 6)])
def test_blocks_are_the_whole(block: tuple[int, ...], margin: tuple[int, ...] | None) -> None:
    kernel = RNG.random((5, 7, 4))
    whole = StackBlur(kernel, (9, 12, 11), margin=margin)
    parts = StackBlur(kernel, (9, 12, 11), margin=margin, block=block)
    x, y = torch.rand(whole.shape), torch.rand(whole.observed)
    torch.testing.assert_close(parts.forward(x), whole.forward(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.adjoint(y), whole.adjoint(y), atol=1e-5, rtol=1e-5)
    assert parts.count() == sum(1 for _ in parts.forward_parts(x)) + sum(1 for _ in parts.adjoint_parts(y))
