"""Isotropic restoration: the two passes of a network, and what the result explains."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods import waiting
from napari_lfm.methods.isotropic import explained as explained_module
from napari_lfm.methods.isotropic.explained import Explained, expected_stack, explained
from napari_lfm.methods.isotropic.restore import Restored, new_planes, restore_stack
from napari_lfm.networks.isotropic import make_network
from napari_lfm.optics.axial_blur import gaussian_kernel
from napari_lfm.training.isotropic_resampling import csbdeep_up, interpolate_planes

FACTOR = 4.8


def restored(network: Any, stack: np.ndarray, factor: float = FACTOR, **more: Any) -> Restored:
    levels = more.pop("levels", [(0.0, 1000.0)] * len(stack))
    events = list(restore_stack(network, stack, factor, levels, **more))
    assert all(isinstance(e, Progress) for e in events[:-1]) and len(events) > 1
    assert events[-2].step == events[-2].total  # type: ignore[union-attr]
    last = events[-1]
    assert isinstance(last, Restored)
    return last


def a_stack(channels: int = 1, planes: int = 9, rows: int = 40, columns: int = 24) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (gaussian_filter(rng.random((channels, planes, rows, columns)), 1.0) * 1000).astype(np.float32)


class Slope(nn.Module):
    """Gives what rises along the slice, then along z: tells the two axes apart."""

    channels = 1

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[self.axis]
        shape = [1, 1, 1, 1]
        shape[self.axis] = n
        return torch.arange(n).reshape(shape).expand_as(x).float()


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_a_network_that_changes_nothing_interpolates(mean: Any) -> None:
    stack = a_stack(2)
    made = restored(make_network(), stack, mean=mean)
    wanted = interpolate_planes(torch.from_numpy(stack).movedim(1, -1), FACTOR).movedim(-1, 1).numpy()
    assert made.image.shape == wanted.shape == (2, 39, 40, 24) and made.step_px == 1.0
    np.testing.assert_allclose(made.image, wanted, atol=1e-3)
    assert made.disagreement is not None and float(made.disagreement.max()) < 1e-6
    assert made.stated_width is None


def test_published_resampling() -> None:
    stack = a_stack(planes=10)
    made = restored(make_network("isotropic-csbdeep"), stack, 4.0, resampling="csbdeep", uncertainty=False)
    assert made.image.shape[1] == 40 and made.disagreement is None
    assert made.step_px == pytest.approx(36 / 39)
    assert new_planes(38, 4.8) == (178, 1.0)
    wanted = csbdeep_up(torch.from_numpy(stack).movedim(1, -1), 4.0).movedim(-1, 1)
    assert wanted.shape == made.image.shape


def test_z_is_the_last_axis_of_both_passes() -> None:
    """Along z both passes rise alike; along the slice one rises with x, the other with y."""
    levels = [(0.0, 1.0)]
    along_z = restored(Slope(-1), a_stack(), mean="arithmetic", levels=levels).image[0]
    z = np.arange(39.0)[:, None, None]
    np.testing.assert_allclose(along_z, np.broadcast_to(z, along_z.shape), atol=1e-4)
    across = restored(Slope(-2), a_stack(), mean="arithmetic", levels=levels)
    y, x = np.mgrid[:40, :24]
    np.testing.assert_allclose(across.image[0, 7], (x + y) / 2, atol=1e-4)
    assert across.disagreement is not None
    np.testing.assert_allclose(across.disagreement[0, 7], np.abs(x - y) / 2, atol=1e-2)
    geometric = restored(Slope(-2), a_stack(), mean="geometric", levels=levels)
    np.testing.assert_allclose(geometric.image[0, 7], np.sqrt(x * y), atol=1e-4)


def test_passes_that_are_worlds_apart_are_still_told_in_numbers() -> None:
    """A hot pixel may be brighter than half precision goes."""

    class Steep(Slope):
        probabilistic = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rising = 1e6 * super().forward(x)
            return torch.cat([rising, rising], 1)

    made = restored(Steep(-2), a_stack(), levels=[(0.0, 1.0)])
    assert made.disagreement is not None and made.stated_width is not None
    for values in (made.disagreement, made.stated_width):
        assert np.isfinite(values).all()
        assert float(values.max()) > 3e4


def _random(architecture: str = "isotropic", **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network = make_network(architecture, arguments).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape) / max(1.0, p[0].numel()) ** 0.5)
    return network


@pytest.mark.parametrize("architecture", ["isotropic", "isotropic-csbdeep"])
def test_wide_slices_are_cut_without_a_seam(architecture: str) -> None:
    arguments = {"widths": [8, 8, 8]} if architecture == "isotropic" else {}
    network = _random(architecture, **arguments)
    stack = a_stack(planes=5, rows=6, columns=420)
    whole = restored(network, stack, 2.0, mean="arithmetic").image
    cut = restored(network, stack, 2.0, mean="arithmetic", chunk_pixels=9 * 200).image
    assert np.ptp(whole) > 100
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-2 * 1e-3 * np.abs(whole).max())


def test_channels_together_or_one_by_one() -> None:
    stack = a_stack(2)
    together = _random(channels=2, widths=[8, 8])
    assert restored(together, stack).image.shape[0] == 2
    with pytest.raises(RequestError, match="2 channels together, and the stack has 3"):
        list(restore_stack(together, a_stack(3), FACTOR, [(0, 1)] * 3))
    alone = _random(widths=[8, 8])
    both = restored(alone, stack).image
    np.testing.assert_allclose(both[1:], restored(alone, stack[1:]).image, rtol=1e-5, atol=1e-3)


def test_stated_widths_of_both_passes() -> None:
    made = restored(_random(widths=[8, 8], probabilistic=True), a_stack())
    assert made.stated_width is not None and made.stated_width.shape == made.image.shape
    assert float(made.stated_width.min()) > 0


def test_it_can_be_left_in_between() -> None:
    events = restore_stack(_random(widths=[8, 8]), a_stack(rows=64), FACTOR, [(0.0, 1.0)], chunk_pixels=1)
    assert isinstance(next(events), Progress)
    events.close()  # type: ignore[attr-defined]


def judged(volume: np.ndarray, stack: np.ndarray, kernel: np.ndarray) -> Explained:
    last = list(explained(volume, stack, kernel, FACTOR))[-1]
    assert isinstance(last, Explained)
    return last


def test_truth_explains_the_stack_and_interpolation_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.random((97, 64, 64)) ** 8, 1.2).astype(np.float32) * 5000
    kernel = gaussian_kernel(3.0)
    clean = [e for e in expected_stack(truth, kernel, FACTOR, 21) if e is not None][-1]
    assert clean.shape == (21, 64, 64)
    stack = clean + rng.normal(0, 8, clean.shape).astype(np.float32)
    good = judged(truth, stack, kernel)
    interpolated = interpolate_planes(torch.from_numpy(stack).movedim(0, -1), FACTOR).movedim(-1, 0)
    bad = judged(interpolated.numpy(), stack, kernel)
    assert good.share < 0.1 and good.noise_share > 0.05
    assert bad.share > 2 * good.share
    np.testing.assert_allclose(good.expected + good.residual, stack, atol=1e-2)
    # whatever the grey values are called
    for unit in (1e-9, 1e9):
        same = judged(unit * interpolated.numpy(), unit * stack, kernel)
        assert same.share == pytest.approx(bad.share, rel=1e-3)
    assert judged(0 * truth, 0 * stack, kernel).share == 0


def test_it_can_be_left_while_the_noise_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_S", 0.001)
    go = threading.Event()
    real = explained_module.estimate_noise
    monkeypatch.setattr(explained_module, "estimate_noise", lambda s: go.wait(60) and real(s))
    stack = a_stack()[0]
    volume = interpolate_planes(torch.from_numpy(stack).movedim(0, -1), FACTOR).movedim(-1, 0).numpy()
    events = explained(volume, stack, gaussian_kernel(1.0), FACTOR)
    parts = 10  # far more than the blurring has
    assert [next(events) for _ in range(parts)] == [None] * parts
    go.set()
    assert isinstance(list(events)[-1], Explained)


def test_a_plane_kernel_blurs_along_both_lateral_axes() -> None:
    point = np.zeros((31, 25, 25), np.float32)
    point[15, 12, 12] = 1.0
    kernel = gaussian_kernel(2.0, 1.5)
    assert min(kernel.shape) > 1
    made = [e for e in expected_stack(point, kernel, 1.0, 31) if e is not None][-1]
    assert made.sum() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(made[15], made[15].T, atol=1e-6)
    for axis, sigma in ((0, 2.0), (1, 1.5), (2, 1.5)):
        place = np.arange(made.shape[axis])
        line = made.sum(tuple({0, 1, 2} - {axis}))
        mean = (place * line).sum()
        assert np.sqrt(((place - mean) ** 2 * line).sum()) == pytest.approx(sigma, rel=0.05)
