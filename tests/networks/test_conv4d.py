"""The 4-D convolution against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_lfm.networks import conv4d
from napari_lfm.networks.conv4d import Conv4d, join_slabs


def correlate(light_field: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """4-D correlation with zero angles around; one product for each element of the kernel."""
    _, _, ka, kb, ks, kt = kernel.shape
    n, _, a, b, s, t = light_field.shape
    pa, pb = ka // 2, kb // 2
    padded = np.pad(light_field, ((0, 0), (0, 0), (pa, pa), (pb, pb), (0, 0), (0, 0)))
    out = np.zeros((n, kernel.shape[0], a, b, s - ks + 1, t - kt + 1))
    out += bias[:, None, None, None, None]
    for i, j, k, m in itertools.product(range(ka), range(kb), range(ks), range(kt)):
        seen = padded[:, :, i : i + a, j : j + b, k : k + s - ks + 1, m : m + t - kt + 1]
        out += np.einsum("ncabst,oc->noabst", seen, kernel[:, :, i, j, k, m])
    return out


def make(channels: int = 1, out: int = 5, size: tuple[int, int, int, int] = (3, 3, 9, 9)) -> Conv4d:
    torch.manual_seed(0)
    layer = Conv4d(channels, out, size)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias += torch.randn(out)
    return layer


@pytest.mark.parametrize(
    ("channels", "size", "shape"),
    [
        (1, (3, 3, 9, 9), (2, 1, 5, 4, 11, 10)),
        (2, (3, 5, 3, 2), (1, 2, 3, 6, 5, 4)),
        (1, (1, 3, 1, 3), (1, 1, 2, 2, 3, 3)),
    ],
)
def test_equals_the_loops(channels: int, size: tuple[int, int, int, int], shape: tuple[int, ...]) -> None:
    layer = make(channels, 5, size)
    x = torch.rand(shape)
    assert layer.bias is not None
    expected = correlate(
        x.double().numpy(), layer.kernel().detach().double().numpy(), layer.bias.detach().double().numpy()
    )
    found = layer(x)
    assert found.shape == expected.shape
    assert np.abs(found.detach().numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("budget", [1, 10_000, 2**30])
def test_the_image_is_the_same_in_chunks(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(conv4d.CHUNK_BYTES, "cpu", budget)
    layer, x = make(), torch.rand(2, 1, 5, 4, 11, 10)
    lenslets_first = layer(x).permute(0, 1, 4, 2, 5, 3).reshape(2, 5, 3 * 5, 2 * 4)
    with torch.no_grad():
        image = layer.to_image(x)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(image, lenslets_first, atol=1e-6)
    assert torch.allclose(layer.to_image(x), lenslets_first, atol=1e-6)


def test_gradients() -> None:
    layer = make(1, 2, (3, 3, 3, 3)).double()
    x = torch.rand(1, 1, 3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer.to_image(x), (x, *parameters))


@pytest.mark.parametrize("native", [True, False])
def test_sixteen_bits(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv4d, "half_is_native", lambda device: native)
    layer, x = make(), torch.rand(1, 1, 3, 3, 10, 10)
    exact = layer(x)
    rounded = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().max() < 0.03 * exact.abs().max()


def test_the_authors_slabs_are_joined() -> None:
    layer = make(2, 5, (3, 5, 3, 2))
    slabs = [torch.randn(5, 2, 5, 3, 2) for _ in range(3)]
    with torch.no_grad():
        layer.weight.copy_(join_slabs(slabs))
    for i, slab in enumerate(slabs):
        assert torch.equal(layer.kernel()[:, :, i], slab)


def test_the_start() -> None:
    layer = Conv4d(1, 64)
    assert sum(p.numel() for p in layer.parameters()) == 46_720
    assert layer.bias is not None
    assert torch.all(layer.bias == 0.1)
    assert float(layer.kernel().detach().std()) == pytest.approx((2 / 243) ** 0.5, rel=0.05)


def test_too_few_lenslets_and_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="8 x 9 lenslets are fewer"):
        Conv4d(1, 1)(torch.zeros(1, 1, 3, 3, 8, 9))
    with pytest.raises(ValueError, match="must be odd"):
        Conv4d(1, 1, (2, 3, 9, 9))
