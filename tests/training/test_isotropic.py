"""Isotropic restoration: degradation of slices, patches, and a short training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d, zoom
from scipy.signal import fftconvolve

from napari_lfm.core.noise import Noise
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.axial_blur import gaussian_kernel
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.training.isotropic import IsotropicPlan, IsotropicTask, LaplaceNLL
from napari_lfm.training.isotropic_degradation import (
    Degradation,
    blur,
    csbdeep_degradation,
    modern_degradation,
)
from napari_lfm.training.isotropic_patches import LateralPatches, PatchPlan
from napari_lfm.training.isotropic_resampling import (
    csbdeep_down_up,
    csbdeep_factor,
    csbdeep_up,
    fine_length,
    interpolate_planes,
    sample_and_interpolate,
)
from napari_lfm.training.loop import train
from napari_lfm.training.task import numpy_rng, torch_rng

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.training.config import TrainConfig


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    """Blobs of light, four times coarser along z."""
    rng = np.random.default_rng(0)
    truth = gaussian_filter((rng.random((80, 64, 72)) > 0.995).astype(float), 1.2)
    seen = gaussian_filter1d(truth, 3.0, 0)[::4]
    return np.asarray(rng.poisson(300 * seen / seen.max()) + 100, np.float32)


@pytest.mark.parametrize("factor", [1.0, 1.1, 2.5, 4.0, 4.8, 10.2])
def test_planes_stay_where_they_are(factor: float) -> None:
    """What is linear along z comes back exactly, whatever the factor."""
    coarse = (3.0 + 2.0 * factor * torch.arange(9.0, dtype=torch.double)).expand(2, 9)
    fine = interpolate_planes(coarse, factor)
    assert fine.shape == (2, fine_length(9, factor))
    assert torch.allclose(fine[0], 3 + 2 * torch.arange(fine.shape[1], dtype=torch.double))
    points, back = sample_and_interpolate(fine, factor, phase=0.3 * factor)
    assert torch.allclose(points[0, 0], torch.tensor(3 + 0.6 * factor).double())
    inner = slice(int(factor) + 1, int(0.3 * factor + (points.shape[1] - 1) * factor))
    assert torch.allclose(back[:, inner], fine[:, inner])


@pytest.mark.parametrize("factor", [2, 4, 5])
def test_published_resampling_is_scipys(factor: int) -> None:
    fine = np.random.default_rng(1).random((3, 40))
    down = zoom(fine, (1, 1 / factor), order=0)
    up = zoom(down, (1, factor), order=1)
    assert np.allclose(csbdeep_down_up(torch.from_numpy(fine), factor).numpy(), up, atol=1e-6)
    assert np.allclose(csbdeep_up(torch.from_numpy(down), factor).numpy(), up, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "factor", "found"),
    [(128, 4, (4.0, 128)), (130, 4, (4.0, 128)), (256, 10.2, (10.2, 255)), (100, 4.81, (4.8, 96))],
)
def test_published_factor_is_rounded_to_fit(length: int, factor: float, found: tuple[float, int]) -> None:
    assert csbdeep_factor(length, factor) == pytest.approx(found)


def test_factors_that_are_none_are_refused() -> None:
    for factor in (0.5, float("nan"), 100.0):
        with pytest.raises(RequestError, match="cannot be restored"):
            interpolate_planes(torch.ones(4), factor)
    with pytest.raises(RequestError, match="too few"):
        csbdeep_factor(7, 9.0)


@pytest.mark.parametrize("shape", [(1, 9), (5, 7), (21, 41)])
def test_blur_is_a_convolution(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    image, kernel = rng.random((48, 64)), rng.random(shape)
    found = blur(torch.from_numpy(image[None, None]).float(), kernel, border="zero")[0, 0].numpy()
    assert np.allclose(found, fftconvolve(image, kernel, mode="same"), rtol=1e-4, atol=1e-3)


def test_published_order() -> None:
    """Without noise it is blur, whole counts left alone, and scipy's two zooms."""
    image = np.random.default_rng(3).random((32, 40)).astype(np.float32) * 100
    made = csbdeep_degradation(4, 3.0, 1.0, poisson=False)
    assert made.kernel.sum() == pytest.approx(1, abs=1e-5)
    wanted = fftconvolve(image, made.kernel, mode="same")
    wanted = zoom(zoom(wanted, (1, 1 / 4), order=0), (1, 4), order=1)
    tensor = torch.from_numpy(image)[None, None]
    assert np.allclose(made(tensor, torch_rng(0, 0))[0, 0].numpy(), wanted, atol=1e-3)
    # what does not divide is cut on both sides
    wider = torch.nn.functional.pad(tensor, (1, 1))
    assert made.columns(42) == slice(1, 41)
    assert made(wider, torch_rng(0, 0)).shape == tensor.shape
    drawn = csbdeep_degradation(1, kernel=np.ones((1, 1)))(tensor - 0.5, torch_rng(0, 0))
    assert torch.equal(drawn, drawn.trunc()) and (drawn >= 0).all()
    # whole numbers before they are drawn: the mean is half a count lower
    many = csbdeep_degradation(1, kernel=np.ones((1, 1)))(torch.full((1, 1, 200, 200), 1.9), torch_rng(0, 0))
    assert float(many.mean()) == pytest.approx(1.0, abs=0.02)
    noisy = csbdeep_degradation(1, kernel=np.ones((1, 1)), poisson=False, gauss_sigma=5.0)
    assert float(noisy(tensor * 0, torch_rng(0, 0)).min()) == 0


def test_modern_slices_have_the_cameras_noise_at_the_planes() -> None:
    rng = np.random.default_rng(4)
    flat = rng.poisson(400, (6, 96, 96)).astype(np.float32) * 2
    made = modern_degradation(4, 3.0, channels=[flat])
    sharp = torch.from_numpy(flat)[:, None]
    coarse = made(sharp, torch_rng(0, 0))
    again = made(sharp, torch_rng(0, 0))
    assert torch.equal(coarse, again)
    assert not torch.equal(coarse, made(sharp, torch_rng(0, 1)))
    for one in coarse[:, 0]:
        # planes are where the line has its corners: four pixels apart
        phase = int(one[0].diff().diff().abs()[8:40].argmax()) % 4 + 1
        assert float(one[:, phase + 12 : -12 : 4].var()) == pytest.approx(1600, rel=0.25)
    assert float(coarse.mean()) == pytest.approx(800, rel=0.01)


@pytest.mark.parametrize("factor", [2.0, 4.8])
def test_modern_slice_looks_like_one_along_z(factor: float) -> None:
    """The same specimen, recorded by steps, and made from a slice that is sharp."""
    rng = np.random.default_rng(5)
    truth = gaussian_filter(rng.random((1, 1, 24, 200)), (0, 0, 2, 2)).astype(np.float32)
    made = Degradation(factor, modern_degradation(factor, 3.0).kernel)
    found = made(torch.from_numpy(truth), torch_rng(0, 0))
    wanted = torch.from_numpy(gaussian_filter1d(truth, 3.0, -1))
    rest = (found - wanted)[..., 12:-12].square().mean() / wanted[..., 12:-12].var()
    assert float(rest) < 0.03


def test_bad_degradations_are_refused() -> None:
    for make in (
        lambda: modern_degradation(4),
        lambda: modern_degradation(4, -1.0),
        lambda: modern_degradation(0.3, 1.0),
        lambda: modern_degradation(4, kernel=np.ones((2, 3))),
        lambda: csbdeep_degradation(4),
        lambda: Degradation(4, profile="other"),  # type: ignore[arg-type]
        lambda: Degradation(4, gauss_sigma=-1),
    ):
        with pytest.raises(RequestError):
            make()


@pytest.mark.parametrize("profile", ["modern", "csbdeep"])
def test_patches_are_scaled_pairs_with_signal(stack: np.ndarray, profile: str) -> None:
    both = np.stack([stack, 3 * stack])
    made = (
        modern_degradation(4, 3.0, channels=both) if profile == "modern" else csbdeep_degradation(4, 3.2, 1)
    )
    plan = PatchPlan(patch_px=32, background_share=0.0) if profile == "modern" else PatchPlan.published()
    source = LateralPatches(both, made, plan)
    draws = [source.draw(6, numpy_rng(0, k), torch_rng(0, k)) for k in (0, 0, 1)]
    given, wanted = draws[0]
    side = 32 if profile == "modern" else 64
    assert given.shape == wanted.shape == (6, 2, side, side)
    assert torch.equal(given, draws[1][0]) and not torch.equal(given, draws[2][0])
    if profile == "modern":
        assert (wanted.amax((2, 3)) > 0.3).all()
        assert float((given - wanted).mean()) == pytest.approx(0, abs=0.05)
        # blurred along one axis only
        rough = given.diff(dim=-1).square().mean(), given.diff(dim=-2).square().mean()
        assert rough[0] < 0.7 * rough[1]
    json.dumps(source.describe())


def test_held_out_planes_are_never_drawn(stack: np.ndarray) -> None:
    marked = stack.copy()
    source = LateralPatches(marked, modern_degradation(4, 3.0), PatchPlan(patch_px=32))
    assert len(source.held) == 2 and not set(source.held) & set(source.trained)
    source.stack[:, torch.from_numpy(source.held)] = 1e6
    for k in range(20):
        _, wanted = source.draw(8, numpy_rng(0, k), torch_rng(0, k))
        assert float(wanted.max()) < 100


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda s: s[0], "not on"),
        (lambda s: s[:2], "too small"),
        (lambda s: s[:, :8], "too small"),
        (lambda s: 0 * s, "nothing in"),
        (lambda s: np.where(s > 200, np.nan, s), "no numbers"),
    ],
)
def test_stacks_that_cannot_be_trained_on(
    stack: np.ndarray, bad: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        LateralPatches(bad(stack), modern_degradation(4, 3.0))


def _task(stack: np.ndarray, **network: Any) -> IsotropicTask:
    source = LateralPatches(stack, modern_degradation(4, 3.0, channels=[stack]), PatchPlan(patch_px=32))
    return IsotropicTask(source, IsotropicPlan(network={"widths": [12, 16], **network}, batch_size=6))


@pytest.mark.parametrize("probabilistic", [False, True])
def test_a_short_training_gains_over_interpolation(
    stack: np.ndarray, tmp_path: Path, config: Callable[..., TrainConfig], probabilistic: bool
) -> None:
    task = _task(stack, probabilistic=probabilistic)
    assert [what for _, _, what in task.prepare()] == ["Degrading lateral slices"]
    events = list(train(task, config(steps=40, validate_every_steps=40, ema_decay=0.8), tmp_path))
    assert isinstance(events[-1], TrainResult)
    last = [e for e in events if isinstance(e, Validated)][-1]
    # likelihood learns widths first
    assert last.values["gain_db"] > (0.1 if probabilistic else 0.5)
    assert set(last.images) == {"truth", "input", "network", "xz_before", "xz_after"}
    assert last.images["xz_before"].shape == last.images["xz_after"].shape == (77, 72)
    json.dumps(task.describe())


def test_published_profile_trains(
    stack: np.ndarray, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    source = LateralPatches(stack, csbdeep_degradation(4, 3.2, 1.2), PatchPlan.published())
    plan = IsotropicPlan("isotropic-csbdeep", {"base": 4, "kernel": 3}, 2)
    events = list(train(IsotropicTask(source, plan), config(steps=2), tmp_path))
    last = [e for e in events if isinstance(e, Validated)][-1]
    assert last.images["xz_after"].shape == (80, 72)


def test_laplace_likelihood() -> None:
    both = torch.tensor([[[1.0], [2.0]]])
    assert float(LaplaceNLL()(both, torch.tensor([[[4.0]]]))) == pytest.approx(1.5 + np.log(4))


def test_tasks_that_do_not_fit_are_refused(stack: np.ndarray) -> None:
    source = LateralPatches(np.stack([stack, stack]), modern_degradation(4, 3.0))
    for plan in (
        IsotropicPlan("isotropic-isonet2"),
        IsotropicPlan(network={"channels": 1}),
        IsotropicPlan(network={"slices": 3}),
    ):
        with pytest.raises(RequestError):
            IsotropicTask(source, plan)
    with pytest.raises(RequestError, match="another network"):
        IsotropicTask(source, start={"x": torch.ones(1)})


def test_noise_of_inputs_and_targets_has_nothing_in_common() -> None:
    """Nothing but noise: what an input and its target share, a network would learn to keep."""
    rng = np.random.default_rng(2)
    noisy = torch.from_numpy(100 + 10 * rng.standard_normal((32, 1, 48, 96)).astype(np.float32))
    noise = Noise(0.0, 100.0, 100.0, True, "known")
    degradation = Degradation(4, gaussian_kernel(2.4), noise=(noise,))
    given, wanted = degradation.pair(noisy, torch.Generator().manual_seed(0))
    plain = degradation(noisy, torch.Generator().manual_seed(0))
    assert degradation.parted == 4.0
    # between planes noise that was blurred is averaged away less than noise that is new
    assert float(given.var()) == pytest.approx(float(plain.var()), rel=0.15)
    assert float(wanted.var()) == pytest.approx(125.0, rel=0.05)
    assert float(given.mean()) == pytest.approx(100.0, abs=0.5)
    assert float(wanted.mean()) == pytest.approx(100.0, abs=0.5)

    def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1])

    assert likeness(plain, noisy) > 0.05
    assert abs(likeness(given, wanted)) < 0.01


def test_without_noise_or_blur_slices_are_their_own_targets() -> None:
    sharp = torch.rand(2, 1, 32, 64)
    for degradation in (
        Degradation(4, gaussian_kernel(2.4)),
        Degradation(4, gaussian_kernel(0.0), noise=(Noise(0.0, 1e-4, 1e-4, True, "known"),)),
        csbdeep_degradation(4, 3.0, 1.0, poisson=False),
    ):
        given, wanted = degradation.pair(sharp, torch.Generator().manual_seed(0))
        assert given.shape == wanted.shape
        assert torch.equal(wanted, sharp)
