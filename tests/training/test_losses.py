from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_lfm.training.losses import (
    L1,
    MSE,
    SSIM,
    Charbonnier,
    Gradient,
    LeastSquaresDiscriminator,
    LeastSquaresGenerator,
    Reprojection,
    SignalWeighted,
    SmoothL1,
    Sum,
    TotalVariation,
    combine,
    target_scale,
)

T = torch.tensor


def pictures(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    target = rng.random((2, 3, 20, 24)).astype(np.float32)
    return torch.from_numpy(
        target + 0.1 * rng.standard_normal(target.shape).astype(np.float32)
    ), torch.from_numpy(target)


@pytest.mark.parametrize(
    "loss", [L1(), MSE(), Charbonnier(), SmoothL1(), SignalWeighted(), SSIM(), Gradient(), Gradient(3)]
)
def test_zero_when_perfect_positive_and_differentiable_otherwise(loss) -> None:
    output, target = pictures()
    assert float(loss(target, target)) == pytest.approx(0, abs=1e-6)
    output.requires_grad_()
    value = loss(output, target)
    assert value.dim() == 0 and float(value.detach()) > 0
    value.backward()
    assert torch.isfinite(output.grad).all() and output.grad.any()


def test_values_by_hand() -> None:
    o, t = T([[1.0, 4.0]]), T([[0.0, 2.0]])
    assert float(L1()(o, t)) == pytest.approx(1.5)
    assert float(MSE()(o, t)) == pytest.approx(2.5)
    assert float(Charbonnier(1.0)(o, t)) == pytest.approx((math.sqrt(2) + math.sqrt(5)) / 2 - 1)
    assert float(SmoothL1(2.0)(o, t)) == pytest.approx((0.25 + 1.0) / 2)
    # weights 1 and 1 + 8 clip(2, 0, 1)
    assert float(SignalWeighted()(o, t)) == pytest.approx((1.3 + 9 * (4 + 0.6)) / 2)


def test_signal_weighted_does_not_see_the_brightness_of_a_sample() -> None:
    output, target = pictures()
    loss = SignalWeighted(percentile=99.9)
    assert float(loss(output * 7, target * 7)) == pytest.approx(float(loss(output, target)), rel=1e-5)
    scale = T([2.0, 4.0])
    by_hand = [
        float(SignalWeighted()(output[i : i + 1] / s, target[i : i + 1] / s)) for i, s in enumerate((2, 4))
    ]
    assert float(SignalWeighted()(output, target, scale)) == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_signal_weighted_makes_an_empty_answer_dear() -> None:
    target = torch.zeros(1, 1000)
    target[0, :5] = 1
    faint_haze = torch.full_like(target, 0.02) + 0.9 * target
    loss, plain = SignalWeighted(), L1()
    empty = torch.zeros_like(target)
    assert float(plain(faint_haze, target)) > float(plain(empty, target))
    assert float(loss(faint_haze, target)) < float(loss(empty, target))


def test_target_scale_is_a_percentile_and_never_zero() -> None:
    target = torch.stack([torch.arange(1000.0), torch.zeros(1000)])
    assert target_scale(target, 99.0).tolist() == [989.0, 1.0]
    assert target_scale(target, 100.0).tolist() == [999.0, 1.0]


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    output, target = pictures()
    slices = [
        structural_similarity(
            t.numpy(),
            o.numpy(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1][5:-5, 5:-5].mean()
        for o, t in zip(output.reshape(-1, 20, 24), target.reshape(-1, 20, 24), strict=True)
    ]
    assert float(SSIM()(output, target)) == pytest.approx(1 - float(np.mean(slices)), abs=1e-4)
    assert float(SSIM()(output[..., :4, :4], target[..., :4, :4])) > 0  # smaller than the window


def test_total_variation_counts_edges_by_their_height_and_axis() -> None:
    step = torch.zeros(1, 4, 10)
    step[..., 5:] = 3.0
    assert float(TotalVariation(epsilon=1e-6)(step)) == pytest.approx(3.0 * 4 / 40, rel=1e-4)
    assert float(TotalVariation((1.0, 0.5), 1e-6)(step)) == pytest.approx(1.5 * 4 / 40, rel=1e-4)
    assert float(TotalVariation()(torch.full((1, 4, 4), 7.0))) == 0


def test_gradient_ignores_an_offset() -> None:
    _, target = pictures()
    assert float(Gradient()(target + 5, target)) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 4, 10)
    step[..., 5:] = 3.0
    assert float(Gradient()(step, torch.zeros_like(step))) == pytest.approx(3.0 * 4 / 40 / 2)


def test_least_squares_gan() -> None:
    assert float(LeastSquaresGenerator()(T([1.0, 3.0]))) == pytest.approx(1.0)
    assert float(LeastSquaresDiscriminator()(T([2.0]), T([0.0]))) == pytest.approx(2.5)
    assert float(LeastSquaresDiscriminator()(T([0.0]), T([1.0]))) == 0


def matrix_projector() -> tuple[torch.Tensor, Reprojection]:
    matrix = torch.from_numpy(np.random.default_rng(0).random((12, 30)).astype(np.float32))

    def project(volume: torch.Tensor) -> torch.Tensor:
        assert volume.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return (volume.flatten(1) @ matrix.T).reshape(-1, 3, 4)

    return matrix, Reprojection(project, gain=0.1, read_variance=0.01)


def test_reprojection_is_a_share_of_what_was_measured() -> None:
    matrix, loss = matrix_projector()
    volume = torch.rand(2, 5, 2, 3)
    image = loss.project(volume)
    assert float(loss(volume, image)) == pytest.approx(0, abs=1e-8)
    assert float(loss(torch.zeros_like(volume), image)) == pytest.approx(1)
    assert float(loss(2 * volume, image)) == pytest.approx(1, rel=1e-5)
    flat = 1.3 * volume.flatten(1) @ matrix.T
    y = image.flatten(1)
    v = 0.1 * y + 0.01
    expected = (((flat - y) ** 2 / v).sum(1) / (y**2 / v).sum(1)).mean()
    assert float(loss(1.3 * volume, image)) == pytest.approx(float(expected), rel=1e-5)


def test_reprojection_under_autocast_of_dark_frames_and_with_known_variance() -> None:
    _, loss = matrix_projector()
    volume = torch.rand(1, 5, 2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(volume, torch.zeros(1, 3, 4))
    value.backward()
    assert torch.isfinite(volume.grad).all()
    image = loss.project(volume.detach())
    noisy = image.clone()
    noisy[0, 0, 0] += 100  # one dead pixel, known to be worthless
    variance = torch.ones_like(image)
    variance[0, 0, 0] = 1e8
    assert float(loss(volume, noisy, variance).detach()) < 0.01
    assert float(loss(volume, noisy).detach()) > 0.3


def test_sum_reports_every_term_and_passes_gradients() -> None:
    output, target = pictures()
    output.requires_grad_()
    found = Sum({"l1": (2.0, L1()), "mse": (0.5, MSE()), "ssim": (0.0, SSIM())})(output, target)
    assert list(found) == ["loss", "l1", "mse", "ssim"]
    assert float(found["loss"].detach()) == pytest.approx(2 * float(found["l1"]) + 0.5 * float(found["mse"]))
    assert found["loss"].requires_grad and not found["l1"].requires_grad
    assert float(combine({"a": (3.0, T(2.0)), "b": (1.0, T(1.0))})["loss"]) == 7


def test_bfloat16_outputs_are_compared_in_float32() -> None:
    output, target = pictures()
    for loss in (L1(), MSE(), SignalWeighted(), SSIM(), Gradient(), Charbonnier(), SmoothL1()):
        assert loss(output.bfloat16(), target).dtype == torch.float32
