"""A tiny network in the registry, models of it on the disk, and an empty list of everything else."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_lfm.networks import catalogue
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.weights import save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MBL = {
    "name": "mbl",
    "objective": {"magnification": 60, "na": 1.2, "immersion_index": 1.333},
    "lenslets": {"pitch_um": 100, "focal_length_um": 2500},
    "camera": {"pixel_um": 6.5},
    "wavelength_um": 0.593,
    "sample_index": 1.35,
}


class TinyNet(nn.Module):
    """One convolution, a count and running statistics."""

    def __init__(self, channels: int = 3, kernel: int = 3) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError("the kernel must be odd")
        self.convolution = nn.Conv2d(1, channels, kernel)
        self.norm = nn.BatchNorm2d(channels)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[TinyNet]:
    """The network, registered as 'tiny'."""
    module = types.ModuleType("napari_lfm_test_network")
    module.TinyNet = TinyNet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(catalogue.ARCHITECTURES, "tiny", f"{module.__name__}:TinyNet")
    return TinyNet


@pytest.fixture
def make_card() -> Callable[..., ModelCard]:
    """A card for the vesicle microscope; anything can be changed."""

    def make(**changes: Any) -> ModelCard:
        values: dict[str, Any] = {
            "id": "tiny-mbl",
            "title": "A tiny network",
            "version": "1.0",
            "method": "lfmnet",
            "architecture": "tiny",
            "network": {"channels": 3},
            "microscope": MBL,
            "n_pixels": 15,
            "z_um": [-7.0, 0.0, 7.0],
            "voxels_per_lenslet": 5,
            "scalers": {"input_percentile": 99.9, "output_scale": 1.0},
            "specimens": ["beads"],
            "licence": "BSD-3-Clause",
            "data": "simulated",
            "training": {"seed": 1},
            "scores": [{"set": "beads", "psnr_db": 30.0}, {"set": "shells", "psnr_db": 34.0}],
            "hours": 0.5,
            "trained_on": "two cores",
            "date": "2026-11-22",
            "parameters": 33,
            "sha256": "",
            "versions": {"torch": "2"},
            "notes": "",
        }
        return ModelCard(**{**values, **changes})

    return make


@pytest.fixture
def make_model(tiny: type[TinyNet], make_card: Callable[..., ModelCard]) -> Callable[..., ModelCard]:
    """Write a model of the tiny network into a folder."""

    def make(folder: Path, **changes: Any) -> ModelCard:
        torch.manual_seed(5)
        card = make_card(**changes)
        return save_model(folder, card, tiny(**{"channels": 3, **card.network}).state_dict())

    return make


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders of the user's and the bundled models, both empty, and nothing to fetch."""
    user, bundled = tmp_path / "user", tmp_path / "bundled"
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(user))
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: bundled)
    monkeypatch.setattr(catalogue, "remote_cards", list)
    return user, bundled
