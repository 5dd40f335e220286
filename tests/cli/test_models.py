"""``napari-lfm models``: the list, one card, import, delete, locate, fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_lfm.networks import catalogue
from napari_lfm.networks.card import WEIGHTS_FILE, ModelCard
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell


def put(folder: Path, **changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "id": "vessels",
        "title": "Vessels at 60x",
        "version": "1.2",
        "method": "lfmnet",
        "architecture": "lfmnet-modern",
        "network": {},
        "microscope": load_microscope("mbl-60x1.2w").model_dump(mode="json"),
        "n_pixels": 15,
        "z_um": [-7.0, 0.0, 7.0],
        "voxels_per_lenslet": 5,
        "scalers": {},
        "specimens": ["vessels", "beads"],
        "licence": "BSD-3-Clause",
        "data": "simulated trees",
        "training": {"seed": 1},
        "scores": [{"set": "unseen", "psnr_db": 31.25}],
        "hours": 1.5,
        "trained_on": "two cores",
        "date": "2026-11-22",
        "parameters": 1234567,
        "sha256": "",
        "versions": {},
        "notes": "",
        **changes,
    }
    return save_model(folder, ModelCard(**values), {"w": torch.zeros(2, 2)})


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, empty, and nothing bundled or remote."""
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "user"))
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")
    monkeypatch.setattr(catalogue, "remote_cards", list)
    return tmp_path / "user"


def test_no_models_is_said_honestly(shell: Shell, user: Path) -> None:
    assert shell("models", "--json").json == {"models": []}
    done = shell("models")
    assert "no trained models" in done.out
    assert str(user) in done.out


def test_models_are_listed(shell: Shell, user: Path, tmp_path: Path) -> None:
    put(user / "vessels")
    put(tmp_path / "bundled" / "b", id="b", microscope=None, scores=[], z_um=[0.0])
    (user / "broken").mkdir()
    done = shell("models")
    head, broken, vessels, b = (line.split() for line in done.out.splitlines())
    assert head == ["id", "method", "optics", "depths", "score", "source"]
    assert " ".join(vessels) == (
        "vessels lfmnet 60x/1.2, 100 um f/25, N 15 -7 to 7 um, 3 planes 31.2 dB user"
    )
    assert " ".join(b) == "b lfmnet N 15 0 to 0 um, 1 plane bundled"
    assert broken[-1] == "(broken)"
    assert "the model 'broken' cannot be used" in done.err
    found = {m["id"]: m for m in shell("models", "--json").json["models"]}
    assert found["vessels"]["microscope"]["objective"]["na"] == 1.2
    assert found["vessels"]["training"] == {"seed": 1}
    assert found["vessels"]["source"] == "user"
    assert found["vessels"]["sha256"]
    assert "no card.json" in found["broken"]["problem"]


def test_one_model_is_shown(shell: Shell, user: Path) -> None:
    put(user / "vessels")
    text = shell("models", "--show", "vessels").out
    for words in ("Vessels at 60x", "1,234,567 parameters", "593 nm", "set unseen, psnr db 31.25", "BSD-3"):
        assert words in text
    assert shell("models", "--show", "vessels", "--json").json["version"] == "1.2"
    done = shell("models", "--show", "vessel")
    assert (done.status, "Did you mean 'vessels'" in done.err) == (2, True)
    (user / "broken").mkdir()
    assert "no card.json" in shell("models", "--show", "broken").out


def test_import_locate_delete(shell: Shell, user: Path, tmp_path: Path) -> None:
    put(tmp_path / "m")
    done = shell("models", "--import", tmp_path / "m", "--json")
    assert (done.status, done.json["id"]) == (0, "vessels")
    done = shell("models", "--import", tmp_path / "m")
    assert (done.status, done.out) == (2, "")
    assert "Give another id" in done.err
    assert "Imported other" in shell("models", "--import", tmp_path / "m", "--id", "other").out
    assert shell("models", "--locate", "other").out.strip() == str(user / "other")
    assert shell("models", "--delete", "other").out == "Deleted other\n"
    assert not (user / "other").exists()
    assert shell("models", "--delete", "other").status == 2
    assert shell("models", "--import", tmp_path / "nowhere").status == 2


def test_fetch(shell: Shell, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    card = put(tmp_path / "m").model_copy(update={"url": "https://example.org/w"})
    monkeypatch.setattr(catalogue, "remote_cards", lambda: [card])
    assert "remote" in shell("models").out
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: str(tmp_path / "m" / WEIGHTS_FILE))
    done = shell("models", "--fetch", "vessels")
    assert (done.status, "Fetched vessels" in done.out) == (0, True), done.err
    assert (user / "vessels" / WEIGHTS_FILE).is_file()


def test_one_wish_at_a_time(shell: Shell) -> None:
    done = shell("models", "--show", "a", "--delete", "b")
    assert (done.status, "--show and --delete cannot be asked for at once" in done.err) == (2, True)
    assert "Give --import, too" in shell("models", "--id", "a").err
