"""WFCON-Net: shapes, what a voxel depends on, statistics of the whole stack, features of VGG16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.stack_scale import stack_levels
from napari_lfm.networks.vgg import VggFeatures, load_vgg, perceptual_distance
from napari_lfm.networks.wfcon import Discriminator, WfconNet, _folded, _unfolded

if TYPE_CHECKING:
    from pathlib import Path

SMALL = (4, 6, 8)


@pytest.mark.parametrize("profile", ["modern", "paper"])
@pytest.mark.parametrize("shape", [(9, 33, 46), (1, 16, 16), (2, 40, 17)])
def test_any_stack_comes_out_as_it_went_in(profile: str, shape: tuple[int, int, int]) -> None:
    network = WfconNet(profile, widths=SMALL, z_pool_levels=1)
    assert network(torch.rand(2, 1, *shape)).shape == (2, 1, *shape)


def test_paper_profile_has_four_down_blocks_and_the_size_that_its_widths_imply() -> None:
    network = WfconNet("paper", base=32)
    assert len(network.down) == len(network.up) == 4
    assert network.widths == (32, 64, 128, 256, 512)
    # two 3x3x3 convolutions per block, a projection beside them, one after upsampling
    count = sum(p.numel() for p in network.parameters())
    assert count == 26_236_289
    assert all(m.__class__.__name__ != "ConvTranspose3d" for m in network.modules())


def test_depth_is_halved_as_often_as_said() -> None:
    assert WfconNet(widths=(2, 2, 2, 2), z_pool_levels=0).multiple == (1, 16, 16)
    assert WfconNet(widths=(2, 2, 2, 2), z_pool_levels=2).multiple == (4, 16, 16)
    # the paper's patches of 12 planes go through two halvings whole
    assert 12 % WfconNet("paper", base=2, z_pool_levels=2).multiple[0] == 0


def test_pixels_as_channels_and_back() -> None:
    x = torch.rand(2, 3, 4, 6, 8)
    assert _folded(x, 2).shape == (2, 12, 4, 3, 4)
    assert torch.equal(_unfolded(_folded(x, 2), 2), x)
    flat = torch.rand(2, 3, 6, 8)
    assert torch.equal(_unfolded(_folded(flat, 2), 2), flat)


def test_modern_output_does_not_depend_on_what_is_beyond_its_reach() -> None:
    network = WfconNet(widths=(3, 3), z_pool_levels=0, bands=(4,)).eval()
    reach = network.reach
    one = torch.rand(1, 1, 5, 8, 4 * (reach[2] // 4 + 1) + 64)
    other = one.clone()
    other[..., -16:] = 5.0
    with torch.no_grad():
        difference = (network(one) - network(other)).abs().amax((0, 1, 2, 3))
    edge = one.shape[-1] - 16
    assert difference[: edge - reach[2]].max() == 0
    assert difference[edge:].max() > 0


def test_statistics_of_all_of_a_stack_make_its_tiles_equal_to_the_whole() -> None:
    torch.manual_seed(3)
    network = WfconNet("paper", widths=(3, 4), z_pool_levels=0).eval()
    stack = torch.rand(1, 1, 6, 32, 64)
    stack[..., 32:] *= 5  # the two halves have statistics of their own
    with torch.no_grad():
        whole = network(stack)
        alone = network(stack[..., 28:])[..., 4:]
        assert (alone - whole[..., 32:]).abs().max() > 0.05
        network.hold_statistics(stack)
        reach = network.reach[2]
        held = network(stack[..., 32 - reach :])[..., reach:]
    assert torch.allclose(held, whole[..., 32:], atol=1e-5)
    network.hold_statistics(None)
    with torch.no_grad():
        assert torch.allclose(network(stack), whole, atol=1e-5)


def test_flat_network_treats_planes_one_by_one() -> None:
    network = WfconNet(widths=SMALL, flat=True, z_pool_levels=0).eval()
    stack = torch.rand(1, 1, 5, 24, 24)
    changed = stack.clone()
    changed[:, :, 2] += 1
    with torch.no_grad():
        difference = (network(stack) - network(changed)).abs().amax((0, 1, 3, 4))
    assert difference[2] > 0
    assert difference[[0, 1, 3, 4]].max() == 0
    three = WfconNet(widths=SMALL, flat=True, z_pool_levels=0, planes=3).eval()
    with torch.no_grad():
        difference = (three(stack) - three(changed)).abs().amax((0, 1, 3, 4))
    assert (difference[1:4] > 0).all()
    assert difference[[0, 4]].max() == 0


def test_a_dim_thing_in_haze_stands_out_in_the_bands() -> None:
    from napari_lfm.networks.wfcon import _band

    stack = torch.full((1, 1, 3, 64, 64), 0.5)
    stack[..., 30:33, 30:33] += 0.01
    band = _band(stack, 8)
    assert band[0, 0, 1, 31, 31] > 0.03
    assert band[0, 0, 1, 5, 5].abs() < 1e-5


@pytest.mark.parametrize(
    "arguments",
    [
        {"profile": "old"},
        {"widths": (4,)},
        {"widths": (4, 4), "z_pool_levels": 2},
        {"planes": 2, "flat": True},
        {"planes": 3},
        {"flat": True, "bands": (8,)},
    ],
)
def test_arguments_that_make_no_network_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        WfconNet(**arguments)  # type: ignore[arg-type]


def test_discriminator_gives_one_number_per_stack() -> None:
    assert Discriminator()(torch.rand(3, 1, 12, 64, 64)).shape == (3,)
    assert Discriminator(flat=True)(torch.rand(3, 1, 4, 64, 64)).shape == (12,)


def _weights(authors: bool) -> dict[str, np.ndarray]:
    from napari_lfm.networks.vgg import _LAYERS, _NUMBERS

    rng = np.random.default_rng(0)
    out, given, index = {}, 3, 0
    for block, count, width in _LAYERS:
        for k in range(count):
            stem = f"block{block}_conv{k + 1}_" if authors else f"features.{_NUMBERS[index]}."
            scale = (2 / (9 * given)) ** 0.5
            out[stem + "weight"] = (scale * rng.normal(size=(width, given, 3, 3))).astype(np.float32)
            out[stem + "bias"] = np.zeros(width, np.float32)
            given, index = width, index + 1
    return out


def test_vgg_features_from_both_kinds_of_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    np.savez(tmp_path / "vgg.npz", **_weights(True))  # type: ignore[arg-type]
    save_file(_weights(False), tmp_path / "vgg.safetensors")
    image = torch.rand(1, 32, 32)
    for name in ("vgg.npz", "vgg.safetensors"):
        vgg = load_vgg(tmp_path / name)
        assert vgg is not None
        assert vgg(image).shape == (1, 512, 4, 4)
        assert not any(p.requires_grad for p in vgg.parameters())
        assert float(perceptual_distance(vgg, image, image)) == 0
        made = (image * 0.5).requires_grad_()
        perceptual_distance(vgg, made, image).backward()
        assert made.grad is not None
        assert made.grad.abs().max() > 0


def test_vgg_input_is_what_the_authors_trained_on() -> None:
    weights = _weights(True)
    first = np.zeros((64, 3, 3, 3), np.float32)
    first[:, 0, 1, 1] = 1.0  # the blue channel, as it is
    weights["block1_conv1_weight"] = first
    vgg = VggFeatures(weights)
    after = vgg.body[0](255 * torch.full((1, 3, 4, 4), 0.8) - vgg.means)
    assert torch.allclose(after, torch.tensor(255 * 0.8 - 103.939), atol=1e-3)


def test_files_that_hold_no_vgg_get_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04nothing")
    (tmp_path / "model.pth").write_bytes(b"x")
    for name in ("other.npz", "broken.npz", "model.pth", "absent.npz"):
        with pytest.raises(RequestError):
            load_vgg(tmp_path / name)


def test_levels_are_percentiles_of_the_stack() -> None:
    stack = np.arange(1000, dtype=np.uint16).reshape(10, 10, 10)
    levels = stack_levels(stack)
    assert levels.low == pytest.approx(np.percentile(stack, 0.5))
    assert levels.high == pytest.approx(np.percentile(stack, 99.9))
    scaled = levels.scaled(stack)
    assert scaled.dtype == np.float32
    assert np.allclose(levels.grey(scaled), np.maximum(stack - levels.low, 0), atol=1e-3)
    with pytest.raises(RequestError, match="dark"):
        stack_levels(np.full((4, 4, 4), 7))
