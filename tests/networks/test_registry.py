"""The list of models: finding, choosing, opening."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks import catalogue
from napari_lfm.networks.card import CARD_FILE, WEIGHTS_FILE, ModelCard, write_card
from napari_lfm.networks.registry import (
    best_model,
    build_network,
    find_model,
    list_models,
    locate_model,
    open_network,
)
from napari_lfm.networks.weights import load_weights, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., ModelCard]
    Homes = tuple[Path, Path]


def test_models_are_listed_with_their_source(homes: Homes, make_model: Make) -> None:
    user, bundled = homes
    assert list_models() == []
    make_model(bundled / "a-bundled", id="a-bundled")
    make_model(user / "mine", id="mine", method="other")
    (user / ".hidden").mkdir()
    (user / "file.txt").write_text("x")
    assert [(e.card.id, e.source, e.problem) for e in list_models()] == [
        ("mine", "user", ""),
        ("a-bundled", "bundled", ""),
    ]
    assert [e.card.id for e in list_models("lfmnet")] == ["a-bundled"]


def test_the_packages_own_models_are_whole() -> None:
    for entry in list_models():
        if entry.source == "bundled":
            assert not entry.problem, entry.problem
            assert entry.folder.name == entry.card.id
            load_weights(entry.folder, entry.card)


def test_what_can_be_fetched_is_well_formed() -> None:
    for card in catalogue.remote_cards():
        assert card.url.startswith("https://")
        assert card.sha256


def test_folders_of_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "a"))
    assert catalogue.user_model_dir() == tmp_path / "a"
    monkeypatch.delenv("NAPARI_LFM_MODELS")
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path / "b"))
    assert catalogue.user_model_dir() == tmp_path / "b" / "models"
    monkeypatch.delenv("NAPARI_LFM_HOME")
    assert catalogue.user_model_dir().parts[-2:] == ("napari-lfm", "models")
    assert catalogue.bundled_model_dir().parts[-3:] == ("napari_lfm", "networks", "weights")


def test_broken_folders_are_listed_with_the_reason(homes: Homes, make_model: Make) -> None:
    user, _ = homes
    make_model(user / "truncated", id="truncated")
    path = user / "truncated" / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-10])
    (user / "empty folder").mkdir()
    make_model(user / "future", id="future")
    values = json.loads((user / "future" / CARD_FILE).read_text())
    (user / "future" / CARD_FILE).write_text(json.dumps({**values, "architecture": "transformer-9"}))
    found = {e.card.id: e.problem for e in list_models("lfmnet")}
    assert "incomplete" in found["truncated"]
    assert "has no card.json" in found["empty folder"]
    assert "network 'transformer-9', which this version does not know" in found["future"]
    entry = find_model("empty folder", "lfmnet")
    assert entry.problem
    with pytest.raises(RequestError, match=r"'truncated' cannot be used: .* incomplete"):
        open_network(find_model("truncated"))


def test_models_are_found_by_id_and_by_folder(homes: Homes, make_model: Make, tmp_path: Path) -> None:
    user, bundled = homes
    make_model(user / "mine", id="mine")
    make_model(bundled / "tiny-mbl")
    make_model(tmp_path / "elsewhere" / "m", id="trained")
    assert find_model("MINE").source == "user"
    assert find_model("tiny-mbl").folder == bundled / "tiny-mbl"
    assert find_model(str(bundled / "tiny-mbl")).source == "bundled"
    for where in (tmp_path / "elsewhere" / "m", str(tmp_path / "elsewhere" / "m" / CARD_FILE)):
        assert find_model(where, "lfmnet").card.id == "trained"
    assert locate_model("mine") == user / "mine"


def test_a_wrong_name_is_answered_with_the_right_one(homes: Homes, make_model: Make, tmp_path: Path) -> None:
    user, _ = homes
    with pytest.raises(RequestError, match=r"There is no model 'x'. Give a model folder"):
        find_model("x")
    make_model(user / "lfmnet-mbl", id="lfmnet-mbl")
    with pytest.raises(RequestError, match="Did you mean 'lfmnet-mbl'"):
        find_model("lfment-mbl")
    with pytest.raises(RequestError, match="Use one of lfmnet-mbl"):
        find_model("zzz")
    with pytest.raises(RequestError, match="no model folder"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="for the method 'lfmnet', not for 'wfcon'"):
        find_model("lfmnet-mbl", "wfcon")


def test_the_best_model(homes: Homes, make_model: Make, make_card: Make) -> None:
    user, bundled = homes
    scope = make_card().optics
    assert scope is not None
    assert best_model("lfmnet", scope) is None

    def best() -> str:
        entry = best_model("lfmnet", scope, 15)
        return entry.card.id if entry else ""

    far = {**scope.model_dump(mode="json"), "wavelength_um": 0.4}
    make_model(bundled / "refused", id="refused", microscope=far)
    assert best() == ""
    make_model(user / "unknown", id="unknown", microscope=None, scores=[{"psnr_db": 99.0}])
    assert best() == "unknown"  # better than nothing
    make_model(user / "resampled", id="resampled", n_pixels=17, scores=[{"psnr_db": 50.0}])
    assert best() == "resampled"
    make_model(bundled / "fits", id="fits")
    assert best() == "fits"
    make_model(user / "other-method", id="other-method", method="localize")
    make_model(user / "broken", id="broken")
    (user / "broken" / WEIGHTS_FILE).write_bytes(b"")
    assert best() == "fits"
    make_model(user / "old", id="old", date="2026-01-01", scores=[])
    assert best() == "old"  # the user's own before the bundled
    make_model(user / "new", id="new", date="2026-06-01", scores=[])
    assert best() == "new"
    make_model(user / "scored", id="scored", date="2025-01-01", scores=[{"psnr_db": 20.0}])
    assert best() == "scored"
    compared = [{"psnr_db": 40.0, "baseline_psnr_db": 39.5}]
    make_model(user / "hardly", id="hardly", date="2026-12-01", scores=compared)
    assert best() == "scored"  # a minute's training does not push a good one aside
    for name in ("old", "new", "scored"):
        shutil.rmtree(user / name)
    assert best() == "fits"
    make_model(user / "learned", id="learned", scores=[{"psnr_db": 30.0, "baseline_psnr_db": 28.0}])
    assert best() == "learned"


def test_a_network_is_opened_ready_to_use(homes: Homes, make_model: Make) -> None:
    card = make_model(homes[0] / "m", id="m")
    network = open_network(find_model("m"), torch.device("cpu"))
    assert not network.training
    weights = load_weights(homes[0] / "m", card)
    assert torch.equal(network.state_dict()["convolution.weight"], weights["convolution.weight"])
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"chanels": 3}, "sets 'chanels', which tiny does not have. Did you mean 'channels'"),
        ({"width": 3}, "sets 'width', .* It takes channels, kernel"),
        ({"kernel": 4}, r"cannot be built .* \(the kernel must be odd\)"),
        ({"channels": "three"}, "cannot be built"),
        ({"channels": -1}, "cannot be built"),
    ],
)
def test_wrong_sizes_in_a_card_are_explained(
    tiny: type, make_card: Make, network: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        build_network(make_card(network=network))


def test_sizes_that_a_card_lacks_are_named(make_card: Make) -> None:
    with pytest.raises(RequestError, match=r"does not set 'n_pixels', .*which lfmnet-modern needs"):
        build_network(make_card(architecture="lfmnet-modern", network={}))


def test_an_unknown_network_is_named(make_card: Make) -> None:
    with pytest.raises(RequestError, match=r"'deep-9', which this version does not know. Update"):
        build_network(make_card(architecture="deep-9"))


@pytest.mark.parametrize("name", sorted(catalogue.ARCHITECTURES))
def test_every_architecture_exists(name: str) -> None:
    from importlib import import_module

    module, _, kind = catalogue.ARCHITECTURES[name].partition(":")
    assert issubclass(getattr(import_module(module), kind), torch.nn.Module)


def test_weights_of_another_size_are_put_in_words(homes: Homes, tiny: Any, make_card: Make) -> None:
    user, _ = homes
    card = save_model(user / "m", make_card(id="m"), tiny(channels=4).state_dict())
    with pytest.raises(RequestError, match=r"'convolution.weight' is 4 x 1 x 3 x 3, not 3 x 1 x 3 x 3"):
        open_network(find_model("m"))
    state = dict(tiny().state_dict())
    state["extra"] = state.pop("convolution.bias")
    save_model(user / "m", card, state)
    with pytest.raises(RequestError, match=r"'convolution.bias' is missing; 'extra' is unknown") as caught:
        open_network(find_model("m"))
    assert "\n" not in str(caught.value)


def test_a_card_that_was_edited_after_listing_changes_nothing_that_runs(
    homes: Homes, make_model: Make
) -> None:
    user, _ = homes
    card = make_model(user / "m", id="m")
    write_card(user / "m", card.model_copy(update={"architecture": "os:system"}))
    with pytest.raises(RequestError, match="'os:system', which this version does not know"):
        open_network(find_model("m"))


def test_the_list_needs_no_torch(homes: Homes, make_model: Make) -> None:
    make_model(homes[0] / "m", id="m")
    code = (
        "import sys\n"
        "from napari_lfm.networks.registry import list_models, find_model\n"
        "from napari_lfm.networks.fit import check_card\n"
        "e = find_model('m'); check_card(e.card, e.card.optics)\n"
        "print({'torch', 'pooch', 'requests', 'xarray'} & set(sys.modules), len(list_models()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set()")
