"""CSBDeep's folders as models of the user; files are written by the tests themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks import catalogue
from napari_lfm.networks.catalogue import list_models
from napari_lfm.networks.isotropic_fit import check_isotropic_card, resampling_of
from napari_lfm.networks.isotropic_paper import CareNet
from napari_lfm.networks.isotropic_published import care_entry, import_care, imported_care, is_care
from napari_lfm.networks.registry import open_network

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_bundled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")
    monkeypatch.setattr(catalogue, "remote_cards", list)


def keras_folder(folder: Path, network: CareNet, **config: Any) -> Path:
    """Write a network as CSBDeep saves one."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "weights_best.h5", "w") as file:
        for name, layer in network.named_children():
            theirs = "conv2d_7" if name == "mean" else name
            group = file.create_group(f"{theirs}/{theirs}")
            group["kernel:0"] = layer.weight.detach().permute(2, 3, 1, 0).numpy()
            group["bias:0"] = layer.bias.detach().numpy()
    values = {
        "n_dim": 2,
        "axes": "YXC",
        "n_channel_in": network.channels,
        "n_channel_out": network.channels_out,
        "unet_n_depth": network.depth,
        "unet_n_first": 4,
        "unet_kern_size": 3,
        "probabilistic": False,
        "train_learning_rate": 4e-4,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def care(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return keras_folder(tmp_path / "retina model", CareNet(1, base=4, kernel=3))


def test_a_folder_becomes_a_model(care: Path) -> None:
    assert is_care(care) and is_care(care / "weights_best.h5")
    assert imported_care(care) is None
    entry = import_care(care)
    card = entry.card
    assert [e.card.id for e in list_models("isotropic")] == ["isotropic-retina-model"]
    assert (card.architecture, card.method, resampling_of(card)) == (
        "isotropic-csbdeep",
        "isotropic",
        "csbdeep",
    )
    assert (card.scalers["low_percentile"], card.scalers["high_percentile"]) == (2.0, 99.8)
    assert check_isotropic_card(card, 7.3).verdict == "matches"
    torch.manual_seed(0)
    network = CareNet(1, base=4, kernel=3)
    image = torch.rand(1, 1, 20, 24)
    with torch.no_grad():
        assert torch.equal(open_network(entry)(image), network(image))
    # known again, and not twice
    assert care_entry(care).card.id == card.id
    with pytest.raises(RequestError, match="already"):
        import_care(care)
    assert import_care(care, "other", factor=4).card.scalers["factor"] == 4


def test_another_model_of_the_same_name_gets_a_number(care: Path, tmp_path: Path) -> None:
    import_care(care)
    other = keras_folder(tmp_path / "b" / "retina model", CareNet(1, base=4, kernel=3))
    assert care_entry(other).card.id == "isotropic-retina-model-2"
    assert care_entry(other).card.id == "isotropic-retina-model-2"


def test_what_is_no_such_model(care: Path, tmp_path: Path) -> None:
    assert not is_care(tmp_path / "nowhere")
    assert not is_care(tmp_path)
    assert not is_care(import_care(care).folder)
    channels = keras_folder(
        tmp_path / "two", CareNet(2, 1, base=4, kernel=3, residual=False), unet_residual=False
    )
    with pytest.raises(RequestError, match="1 channel of 2"):
        import_care(channels)
    deep = keras_folder(tmp_path / "deep", CareNet(1, base=4, kernel=3), n_dim=3)
    with pytest.raises(RequestError, match="3-dimensional"):
        import_care(deep)
    saved = keras_folder(tmp_path / "saved", CareNet(1, base=4, kernel=3))
    (saved / "saved_model.pb").touch()
    assert not is_care(saved)
