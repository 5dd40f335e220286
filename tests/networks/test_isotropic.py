"""Networks of isotropic restoration: sizes, wiring, and Keras files that the tests write themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.isotropic import ARCHITECTURES, IsotropicNet, make_network
from napari_lfm.networks.isotropic_import import load_care
from napari_lfm.networks.isotropic_paper import CareNet, IsoNet1, IsoNet2

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"channels": 1, "base": 4, "kernel": 3}


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (CareNet(), 922_977),
        (CareNet(channels=2), 923_810),
        (CareNet(probabilistic=True), 922_977 + 33),
        (IsoNet1(), 57_283),
        (IsoNet2(), 314_561),
    ],
)
def test_sizes_are_the_published_ones(network: nn.Module, count: int) -> None:
    assert _count(network) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_size_goes_through_and_arguments_are_json(name: str) -> None:
    arguments: dict[str, Any] = {
        "isotropic": {"widths": [8, 8, 8], "channels": 1},
        "isotropic-csbdeep": SMALL,
    }.get(name, {})
    network = make_network(name, json.loads(json.dumps(arguments)))
    image = torch.rand(1, 1, 21, 37)
    with torch.no_grad():
        assert network(image).shape == image.shape
    assert network.multiple >= 1


def test_probabilistic_heads_give_means_and_positive_widths() -> None:
    image = torch.rand(2, 2, 16, 16)
    for network in (
        CareNet(2, base=4, probabilistic=True),
        IsotropicNet(2, widths=(8, 8), probabilistic=True),
    ):
        mean, width = network(image).chunk(2, 1)
        assert mean.shape == image.shape and (width > 0).all()


def test_ours_starts_as_the_identity_and_scales() -> None:
    network = IsotropicNet(widths=(8, 12))
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(image), image)
        nn.init.normal_(network.leave.weight, std=0.1)
        assert torch.allclose(network(7 * image), 7 * network(image), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(network(image), image)


def test_reach_holds() -> None:
    network = IsotropicNet(widths=(4, 4)).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.abs_().add_(0.1)
    image = torch.rand(1, 1, 8, 160, dtype=torch.double)
    other = image.clone()
    other[..., 80] += 1
    with torch.no_grad():
        changed = torch.nonzero((network(image) != network(other)).any(2)[0, 0])
    assert int((changed - 80).abs().max()) <= network.reach


def test_neighbouring_slices_and_smooth_ends() -> None:
    network = IsotropicNet(widths=(8, 8), slices=3, smooth=True)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(image), image[:, 1:2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: CareNet(kernel=4),
        lambda: CareNet(1, channels_out=2),
        lambda: IsotropicNet(slices=2),
        lambda: IsotropicNet(widths=()),
        lambda: make_network("isotropic-x"),
        lambda: make_network("isotropic-isonet1", {"channels": 2}),
    ],
)
def test_what_makes_no_network_is_refused(make: Any) -> None:
    with pytest.raises(RequestError):
        make()


def _write(folder: Path, network: CareNet, old: bool = False, **config: Any) -> Path:
    """Write a model as CSBDeep does: its settings, and Keras' groups of layers."""
    folder.mkdir()
    settings = {
        "n_dim": 2,
        "axes": "YXC",
        "n_channel_in": network.channels,
        "n_channel_out": network.channels_out,
        "probabilistic": network.probabilistic,
        "unet_residual": network.residual,
        "unet_n_depth": network.depth,
        "unet_kern_size": network.down_level_0_no_0.kernel_size[0],
        "unet_n_first": network.down_level_0_no_0.out_channels,
        "unet_last_activation": "linear",
        "train_checkpoint": "weights_best.h5",
    }
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    end = ":0" if old else ""
    names = {"mean": "conv2d_9", "scale": "conv2d_10"}  # the tenth comes after the ninth
    with h5py.File(folder / "weights_best.h5", "w") as file:
        file.attrs["layer_names"] = [b"input"]
        file.create_group("max_0").attrs["weight_names"] = []
        for name, layer in network.named_children():
            name = names.get(name, name)
            kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
            file[f"{name}/{name}/kernel{end}"] = kernel
            file[f"{name}/{name}/bias{end}"] = layer.bias.detach().numpy()
    return folder


def _random(**arguments: Any) -> CareNet:
    torch.manual_seed(0)
    network = CareNet(**arguments)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    return network


@pytest.mark.parametrize("probabilistic", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_keras_file_gives_the_same_network(tmp_path: Path, probabilistic: bool, old: bool) -> None:
    network = _random(**SMALL, probabilistic=probabilistic)
    model = load_care(_write(tmp_path / "m", network, old))
    image = torch.rand(1, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(model.network(image), network(image))
    assert model.arguments["probabilistic"] is probabilistic
    with torch.no_grad():
        assert torch.equal(load_care(model.weights_file).network(image), network(image))


def test_wiring_against_plain_sums() -> None:
    """One level, written down once more: what is joined in which order."""
    network = _random(channels=1, depth=1, base=2, kernel=3)
    p = dict(network.named_parameters())
    image = torch.rand(1, 1, 8, 8)

    def conv(name: str, x: torch.Tensor, pad: int = 1) -> torch.Tensor:
        return functional.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=pad)

    x = conv("down_level_0_no_0", image).relu()
    skip = conv("down_level_0_no_1", x).relu()
    x = skip.reshape(1, 2, 4, 2, 4, 2).amax((3, 5))
    x = conv("middle_2", conv("middle_0", x).relu()).relu()
    x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), skip], 1)
    x = conv("up_level_0_no_2", conv("up_level_0_no_0", x).relu()).relu()
    assert torch.allclose(network(image), conv("mean", x, 0) + image, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"n_dim": 3}, "3-dimensional"),
        ({"unet_n_first": 8}, "do not fit"),
        ({"unet_n_depth": 3}, "lacks the layer"),
        ({"unet_n_depth": 1}, "further layers"),
        ({"unet_n_depth": "two"}, "which no model has"),
        ({"probabilistic": True}, "further layers"),
        ({"unet_last_activation": "relu"}, "not linearly"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, damage: dict[str, Any], says: str) -> None:
    folder = _write(tmp_path / "m", _random(**SMALL), **damage)
    with pytest.raises(RequestError, match=says):
        load_care(folder)


def test_missing_and_damaged_files_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        load_care(tmp_path / "none")
    folder = _write(tmp_path / "m", _random(**SMALL))
    weights, config = folder / "weights_best.h5", folder / "config.json"
    with h5py.File(weights, "a") as file:
        file["middle_0/middle_0/bias"][0] = np.nan
    with pytest.raises(RequestError, match="no number"):
        load_care(folder)
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(RequestError, match="no readable Keras file"):
        load_care(folder)
    with h5py.File(weights, "w"):
        pass
    with pytest.raises(RequestError, match="holds no weights"):
        load_care(folder)
    weights.unlink()
    with pytest.raises(RequestError, match="holds no weights_best"):
        load_care(folder)
    config.write_text("[1]")
    with pytest.raises(RequestError, match="does not describe"):
        load_care(folder)
    config.write_text("{")
    with pytest.raises(RequestError, match="cannot be read"):
        load_care(folder)
    config.unlink()
    with pytest.raises(RequestError, match=r"holds no config\.json"):
        load_care(folder)
