"""LFMNet is what was published: parameters, layers, sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_lfm.networks.lfmnet import LFMNet


def settle(net: LFMNet) -> LFMNet:
    """Give the normalisations something to do, as after training."""
    generator = torch.Generator().manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, scale, least in (
                (layer.running_mean, 0.3, None),
                (layer.running_var, 0.5, 0.5),
                (layer.weight.data, 0.5, 0.75),
                (layer.bias.data, 0.2, None),
            ):
                assert tensor is not None
                values = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(scale * (values - 0.5) if least is None else least + scale * values)
    return net.eval()


@pytest.mark.parametrize(
    ("shallow", "skip", "count"),
    [
        (True, False, 1_602_496),
        (True, True, 1_417_984),
        (False, False, 25_207_360),
        (False, True, 22_072_960),
    ],
)
def test_parameter_counts(shallow: bool, skip: bool, count: int) -> None:
    with torch.device("meta"):
        net = LFMNet(64, 9, shallow, skip)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(
    ("size", "down", "trace"),
    [
        # lenslet image, after each level down, after each level up, after the resize
        (1287, "maxpool", [1287, 643, 321, 641, 1281, 1287]),
        (99, "maxpool", [99, 49, 24, 47, 93, 99]),
        (1287, "stride", [1287, 644, 322, 643, 1285, 1287]),
    ],
)
def test_the_sizes_are_mended_by_a_resize(size: int, down: str, trace: list[int]) -> None:
    with torch.device("meta"):
        unet = LFMNet(4, down=down).eval().Unet  # type: ignore[arg-type]
        seen: list[int] = []
        for name in ("inc", "down1", "down2", "up3", "up4", "outc"):
            unet.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.shape[-1]))
        out = unet(torch.empty(1, 4, size, size))
    assert seen == trace
    assert out.shape == (1, 4, size, size)


def published_shallow(net: LFMNet, x: torch.Tensor) -> torch.Tensor:
    """The published forward pass, written out from the parameters by name."""
    p = dict(net.state_dict())
    slope = 0.01 if net.act == "leaky" else 0.0

    def conv(x: torch.Tensor, name: str, reflect: bool, stride: int = 1) -> torch.Tensor:
        x = functional.pad(x, (1, 1, 1, 1), mode="reflect" if reflect else "constant")
        return functional.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], stride)

    def double(x: torch.Tensor, name: str) -> torch.Tensor:
        for at, reflect in ((0, True), (3, False)):
            x, n = conv(x, f"{name}.conv.{at}", reflect), f"{name}.conv.{at + 1}"
            x = functional.batch_norm(
                x, p[f"{n}.running_mean"], p[f"{n}.running_var"], p[f"{n}.weight"], p[f"{n}.bias"]
            )
            x = functional.leaky_relu(x, slope)
        return x

    def lower(x: torch.Tensor, name: str) -> torch.Tensor:
        x = double(conv(x, f"{name}.mpconv.0", True, 2 if net.down == "stride" else 1), f"{name}.mpconv.1")
        return functional.max_pool2d(x, 2) if net.down == "maxpool" else x

    def higher(x: torch.Tensor, beside: torch.Tensor, name: str) -> torch.Tensor:
        x = functional.conv_transpose2d(x, p[f"{name}.up.weight"], p[f"{name}.up.bias"], 2, 1)
        if net.skip:
            dy, dx = x.shape[2] - beside.shape[2], x.shape[3] - beside.shape[3]
            beside = functional.pad(beside, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
            x = torch.cat([x, beside], 1)
        return double(x, f"{name}.conv")

    x = functional.leaky_relu(net.lensletConvolution[0](x), 0.01)
    b, c, a_x, a_y, s_x, s_y = x.shape
    x = x.permute(0, 1, 4, 2, 5, 3).reshape(b, c, s_x * a_x, s_y * a_y)
    size = x.shape[2:]
    x1 = double(x, "Unet.inc.conv")
    x2 = lower(x1, "Unet.down1")
    x3 = lower(x2, "Unet.down2")
    x = higher(higher(x3, x2, "Unet.up3"), x1, "Unet.up4")
    x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    x = torch.sigmoid(functional.conv2d(x, p["Unet.outc.0.conv.weight"], p["Unet.outc.0.conv.bias"]))
    return x.permute(0, 2, 3, 1).unsqueeze(1)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("down", "act"), [("maxpool", "leaky"), ("stride", "relu")])
def test_the_layers_are_the_published_ones(skip: bool, down: str, act: str) -> None:
    torch.manual_seed(0)
    net = settle(LFMNet(4, 3, skip=skip, down=down, act=act))  # type: ignore[arg-type]
    x = torch.rand(2, 1, 7, 5, 5, 6)
    with torch.no_grad():
        expected = published_shallow(net, x)
        fast = net(x)
    plain = net(x)  # with gradients: the modules one after the other
    assert fast.shape == (2, 1, 21, 20, 4)
    assert float(expected.std()) > 0.01
    assert torch.allclose(fast, expected, atol=1e-5)
    assert torch.allclose(plain, expected, atol=1e-5)


def test_the_variants_of_the_shallow_network_differ_though_their_names_do_not() -> None:
    torch.manual_seed(0)
    first = settle(LFMNet(4, 3))
    other = LFMNet(4, 3, down="stride", act="relu").eval()
    other.load_state_dict(first.state_dict())
    x = torch.rand(1, 1, 7, 7, 5, 5)
    with torch.no_grad():
        assert (first(x) - other(x)).abs().max() > 0.01
    assert (first.down, first.act) == ("maxpool", "leaky")


@pytest.mark.parametrize("skip", [False, True])
def test_the_full_network_runs(skip: bool) -> None:
    net = settle(LFMNet(3, 3, shallow=False, skip=skip, n_pixels=9))
    assert (net.down, net.act) == ("stride", "relu")
    image = torch.rand(1, 36, 45)
    with torch.no_grad():
        fast = net.volume_of(image)
    assert fast.shape == (1, 3, 36, 45)
    assert torch.allclose(net.volume_of(image), fast, atol=1e-4)  # some twenty layers, rounded differently


def test_sixteen_bits_by_autocast() -> None:
    net = settle(LFMNet(4, 3, skip=True, n_pixels=5))
    image = torch.rand(1, 20, 20)
    with torch.no_grad():
        exact = net.volume_of(image)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = net.to(memory_format=torch.channels_last).volume_of(image)
    assert rounded.dtype == torch.bfloat16
    assert 0 < float((rounded - exact).abs().mean()) < 0.02


def test_a_lenslet_image_is_padded_with_dark_lenslets() -> None:
    net = settle(LFMNet(4, 5, n_pixels=7))
    image = torch.rand(2, 3 * 7, 4 * 7)
    light_field = torch.zeros(2, 1, 7, 7, 3 + 4, 4 + 4)
    for t in range(3):
        for s in range(4):
            light_field[:, 0, :, :, t + 2, s + 2] = image[:, 7 * t : 7 * t + 7, 7 * s : 7 * s + 7]
    with torch.no_grad():
        volume = net.volume_of(image)
        assert torch.allclose(volume, net(light_field)[:, 0].permute(0, 3, 1, 2), atol=1e-6)
    assert volume.shape == (2, 4, 21, 28)
    assert volume.is_contiguous()
    assert 0 < float(volume.min()) and float(volume.max()) < 1


@pytest.mark.parametrize("down", ["maxpool", "stride"])
def test_nothing_reaches_farther_than_told(down: str) -> None:
    n, lenslets = 15, 9
    net = LFMNet(1, 3, n_pixels=n, down=down)  # type: ignore[arg-type]
    for p in net.parameters():
        p.data.fill_(0.01)  # nothing cancels
    net.eval()
    net.Unet.outc = nn.Sequential(net.Unet.outc[0])  # the sigmoid would saturate
    assert net.reach_lenslets < lenslets // 2
    image = torch.rand(1, lenslets * n, lenslets * n, requires_grad=True)
    volume = net.volume_of(image)
    last = lenslets * n - 1
    reached = 0
    for voxel in (0, last // 2, last):
        (touched,) = torch.autograd.grad(volume[0, 0, voxel, voxel], image, retain_graph=True)
        assert torch.isfinite(touched).all()
        rows = torch.nonzero(touched[0].sum(dim=1))[:, 0] // n
        reached = max(reached, voxel // n - int(rows.min()), int(rows.max()) - voxel // n)
    assert net.reach_lenslets - 2 <= reached <= net.reach_lenslets


def test_start_as_published() -> None:
    net = LFMNet(8, 3)
    for layer in net.Unet.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            assert torch.all(layer.bias == 0.1)
    conv = net.Unet.get_submodule("down2.mpconv.0")
    assert isinstance(conv, nn.Conv2d)
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_it_learns() -> None:
    torch.manual_seed(0)
    net = LFMNet(2, 3, n_pixels=5)
    image, truth = torch.rand(2, 20, 20), torch.rand(2, 2, 20, 20)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = functional.l1_loss(net.volume_of(image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert all(
        p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.lensletConvolution.parameters()
    )


def test_wrong_arguments_are_refused() -> None:
    for wrong in ({"fov": 8}, {"n_depths": 0}, {"down": "mean"}, {"act": "tanh"}):
        with pytest.raises(ValueError):
            LFMNet(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs n_pixels"):
        LFMNet(2, 3).volume_of(torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="no whole lenslets"):
        LFMNet(2, 3, n_pixels=5).volume_of(torch.zeros(1, 9, 10))
