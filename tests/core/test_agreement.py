"""Where two stacks disagree: known differences, units that do not matter, and figures in words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.agreement import agreement_words, local_disagreement, match_scale
from napari_lfm.core.problems import RequestError


@pytest.fixture
def stack() -> np.ndarray:
    """Two bright blocks on a flat background."""
    out = np.full((4, 60, 80), 100.0)
    out[:, 10:30, 10:30] = 500.0
    out[:, 10:30, 50:70] = 300.0
    return out


def test_other_units_agree_everywhere(stack: np.ndarray) -> None:
    found = local_disagreement(0.01 * stack + 7.0, stack)
    assert np.abs(found.error).max() < 1e-4
    assert found.within == {0.1: 1.0, 0.25: 1.0, 0.5: 1.0}
    assert found.scale == pytest.approx(100.0, rel=1e-4)
    assert found.scale * (0.01 * 500 + 7) + found.offset == pytest.approx(500.0, rel=1e-4)
    # the signal is both blocks and the rim that the window reaches
    assert 2 * 20 * 20 <= found.signal_share * 60 * 80 <= 2 * 24 * 24


def test_what_one_lacks_is_told_with_its_sign(stack: np.ndarray) -> None:
    less = stack.copy()
    less[:, 10:30, 50:70] = 100.0  # one block is missing
    found = local_disagreement(less, stack)
    # the block that both have is not dragged by the missing one
    assert abs(found.error[1, 20, 20]) < 1e-3
    assert found.error[1, 20, 60] == pytest.approx(-2.0, abs=1e-3)
    assert abs(found.error[1, 50, 40]) < 1e-3
    swapped = local_disagreement(stack, less)
    assert swapped.error[1, 20, 60] == pytest.approx(2.0, abs=1e-3)
    assert found.less == pytest.approx(swapped.more)
    assert found.less > 0.4 > found.more


def test_a_tenth_more_is_a_tenth(stack: np.ndarray) -> None:
    brighter = stack.copy()
    brighter[:, 10:30, 50:70] += 0.2 * 200.0
    found = local_disagreement(brighter, stack, window_px=1)
    # 240 against 200 above the background: 40 of 220 on average
    assert found.error[0, 20, 60] == pytest.approx(40 / 220, abs=1e-3)
    assert found.within[0.1] == pytest.approx(0.5, abs=0.01)
    assert found.within[0.25] == 1.0


def test_noise_counts_less_in_a_window(stack: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    one, other = (stack + rng.normal(0, 60, stack.shape) for _ in range(2))
    assert (
        local_disagreement(one, other).within[0.25] > local_disagreement(one, other, window_px=1).within[0.25]
    )


def test_background_noise_is_no_signal(stack: np.ndarray) -> None:
    noisy = stack + np.random.default_rng(1).normal(0, 3, stack.shape)
    found = local_disagreement(noisy, stack)
    assert found.within[0.1] > 0.95
    assert found.signal_share < 0.25
    assert np.abs(found.error[:, 40:]).max() < 0.5  # held against the floor, not against nothing


def test_cancelling_and_bad_stacks(stack: np.ndarray) -> None:
    def stop(share: float) -> None:
        if share:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        local_disagreement(stack, stack, on_plane=stop)
    with pytest.raises(RequestError, match="shapes"):
        local_disagreement(stack[:2], stack)
    with pytest.raises(RequestError, match="constant"):
        local_disagreement(np.ones_like(stack), stack)
    with pytest.raises(RequestError, match="NaN"):
        local_disagreement(np.where(stack > 400, np.nan, stack), stack)


def test_nothing_in_common_still_has_a_scale() -> None:
    one, other = np.zeros((2, 40, 40)), np.zeros((2, 40, 40))
    one[:, :10], other[:, 30:] = 5.0, 9.0
    scale = match_scale(one, other)[0]
    assert scale == pytest.approx(9 / 5)
    found = local_disagreement(one, other)
    assert found.within[0.5] == 0.0


def test_words(stack: np.ndarray) -> None:
    text = agreement_words(local_disagreement(stack, stack), "network", "deconvolution")
    assert text.startswith("network agrees with deconvolution within 10 % in 100 % of the signal")
