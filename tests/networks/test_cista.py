"""CISTA-net: its layer against the formula, its shapes and profiles, and that it learns depth from slope."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_lfm.networks.cista import CistaLayer, CistaNet

VIEWS, LENSLETS, DEPTHS = 7, 11, 5


def lines(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Epipolar images with one line each: (images, depth bins, places)."""
    depth = torch.randint(DEPTHS, (count,), generator=generator)
    place = torch.randint(3, LENSLETS - 3, (count,), generator=generator)
    view = torch.arange(VIEWS) - VIEWS // 2
    at = place[:, None] + (depth[:, None] - DEPTHS // 2) * 0.35 * view
    image = torch.exp(-((torch.arange(LENSLETS) - at[..., None]) ** 2) / 1.5)
    return image + 0.02 * torch.randn(image.shape, generator=generator), depth, place


@pytest.mark.parametrize("profile", ["modern", "paper"])
def test_shapes(profile: str) -> None:
    net = CistaNet(VIEWS, LENSLETS, DEPTHS, (3, 5), profile)
    image = torch.rand(4, VIEWS, LENSLETS)
    codes = net.codes(image).detach()
    wanted = (4, DEPTHS, LENSLETS) if profile == "modern" else (4, DEPTHS, VIEWS, LENSLETS)
    assert codes.shape == wanted
    assert float(codes.min()) >= 0
    assert net(image).shape == net(image, near=1).shape == (4, DEPTHS)
    torch.testing.assert_close(net(image), net.curve(codes))
    torch.testing.assert_close(net(image, near=LENSLETS), net(image))


def test_a_layer_is_equation_four() -> None:
    torch.manual_seed(0)
    layer = CistaLayer(VIEWS, DEPTHS, 3, 1, first=False)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image, codes = torch.rand(2, VIEWS, LENSLETS), torch.rand(2, DEPTHS, LENSLETS)
    assert layer.suppress is not None
    along, across = layer.suppress.along.weight, layer.suppress.across.weight
    # S in one piece: a mixture of depths after a convolution within each
    whole = across[:, :, 0, None] * along[None, :, 0]
    expected = functional.relu(
        codes
        - functional.conv1d(codes, whole, padding=1)
        + functional.conv1d(image, layer.analyse.weight, padding=1)
        - functional.softplus(layer.threshold)[:, None]
    )
    torch.testing.assert_close(layer(image, codes), expected)


def test_the_threshold_makes_codes_sparser() -> None:
    torch.manual_seed(0)
    net = CistaNet(VIEWS, LENSLETS, DEPTHS)
    image = torch.rand(3, VIEWS, LENSLETS)
    before = net.codes(image)
    with torch.no_grad():
        for layer in net.layers:
            layer.threshold += 2.0
    after = net.codes(image)
    assert int((after > 0).sum()) < int((before > 0).sum())
    with torch.no_grad():
        for layer in net.layers:
            layer.threshold.fill_(-50.0)  # softplus keeps it from becoming a gain
    assert all(float(functional.softplus(layer.threshold.detach()).min()) >= 0 for layer in net.layers)


@pytest.mark.parametrize("profile", ["modern", "paper"])
def test_it_learns_depth_from_slope_and_where(profile: str) -> None:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    net = CistaNet(VIEWS, LENSLETS, DEPTHS, (5, 7), profile)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    middle = LENSLETS // 2

    def labels(depth: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        every = functional.one_hot(depth, DEPTHS).float()
        return every, every * ((place - middle).abs() <= 1)[:, None]

    for _ in range(250):
        image, depth, place = lines(64, generator)
        codes = net.codes(image)
        loss = sum(
            functional.binary_cross_entropy_with_logits(net.curve(codes, near), label)
            for near, label in zip((None, 1), labels(depth, place), strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, depth, place = lines(300, generator)
    with torch.no_grad():
        assert float((net(image).argmax(1) == depth).float().mean()) > 0.9
        found = net(image, near=1).sigmoid()
    here = labels(depth, place)[1]
    told = (found > 0.5).float()
    assert float((told * here).sum() / here.sum()) > 0.7  # sources in the middle are found there,
    assert float((told * (1 - here)).sum() / told.sum()) < 0.3  # and those elsewhere are not


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no profile"):
        CistaNet(3, 3, 3, profile="new")
    for kernels in ((), (4,), (3, 0)):
        with pytest.raises(ValueError, match="odd"):
            CistaNet(3, 3, 3, kernels)
    with pytest.raises(ValueError, match="at least 1"):
        CistaNet(3, 3, 0)
    with pytest.raises(ValueError, match=r"are not \(B, 7, 11\)"):
        CistaNet(VIEWS, LENSLETS, DEPTHS)(torch.zeros(1, 7, 12))
