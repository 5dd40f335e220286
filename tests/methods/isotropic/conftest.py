"""A specimen recorded coarsely along z, a small network to begin with, and requests on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_lfm.core.labelled import labelled
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.networks import catalogue
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.isotropic import make_network
from napari_lfm.networks.weights import save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr

PIXEL_UM, FACTOR = 0.1, 4.8


def specimen(planes: int = 10, side: int = 40, factor: float = FACTOR, seed: int = 0) -> np.ndarray:
    """Blobs of light, blurred by 2.5 pixels along z, with planes `factor` pixels apart."""
    rng = np.random.default_rng(seed)
    fine = int((planes - 1) * factor) + 1
    truth = gaussian_filter((rng.random((fine, side, side + 8)) > 0.99).astype(float), 1.2)
    at = np.round(np.arange(planes) * factor).astype(int).clip(max=fine - 1)
    seen = gaussian_filter1d(truth, 2.5, 0)[at]
    return np.asarray(rng.poisson(400 * seen / seen.max()) + 100, np.uint16)


def recorded(values: np.ndarray, dims: str = "zyx", factor: float = FACTOR, **attrs: Any) -> xr.DataArray:
    """An image with sizes, its first plane at 5 um."""
    size = {"z": factor * PIXEL_UM, "y": PIXEL_UM, "x": PIXEL_UM}
    spacing = {d: size[d] for d in dims if d in size}
    return labelled(values, dims, spacing, {"z": 5.0}, name="cells", attrs=attrs)


def put_model(folder: Path, id: str = "isotropic-starter", noise: float = 0.0, **changes: Any) -> ModelCard:
    """Save a small network as a model: the identity, or with `noise` one that changes what it sees."""
    arguments = changes.pop("network", {"widths": [4, 6], "channels": 1})
    architecture = changes.pop("architecture", "isotropic")
    torch.manual_seed(3)
    network = make_network(architecture, arguments)
    if noise:
        for name, weight in network.named_parameters():
            if name.startswith("leave"):
                torch.nn.init.normal_(weight, std=noise)
    values: dict[str, Any] = {
        "id": id,
        "title": "",
        "version": "1",
        "method": "isotropic",
        "architecture": architecture,
        "network": arguments,
        "microscope": None,
        "n_pixels": None,
        "z_um": [],
        "voxels_per_lenslet": None,
        "scalers": {"low_percentile": 2.0, "high_percentile": 99.8, "factor": 0.0},
        "specimens": [],
        "licence": "MIT",
        "data": "",
        "training": {},
        "scores": [],
        "hours": 0.0,
        "trained_on": "",
        "date": "2026-11-30",
        "parameters": 1,
        "sha256": "",
        "versions": {},
        "notes": "",
        **changes,
    }
    return save_model(folder / id, ModelCard(**values), network.state_dict(), half=False)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundled models, empty."""
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")
    monkeypatch.setattr(catalogue, "remote_cards", list)
    return tmp_path / "bundled"


@pytest.fixture
def starter(bundled: Path) -> ModelCard:
    """A small bundled network that changes what it sees a little."""
    return put_model(bundled, noise=0.02)


@pytest.fixture
def ask(bundled: Path) -> Callable[..., Request]:
    """A request on an image; fields of the request by name, all else is a parameter."""

    def make(image: xr.DataArray | None = None, **wishes: Any) -> Request:
        image = recorded(specimen()) if image is None else image
        fields = {k: wishes.pop(k) for k in ("model", "microscope", "sources", "memory_gib") if k in wishes}
        inputs = {"image": image, **({"psf": wishes.pop("psf")} if "psf" in wishes else {})}
        parameters = make_parameters(get_method("isotropic"), {"precision": "float32", **wishes})
        return Request("isotropic", inputs, parameters, device="cpu", **fields)

    return make


class Specimens:
    """What tests make stacks and models with."""

    values = staticmethod(specimen)
    image = staticmethod(recorded)
    put_model = staticmethod(put_model)


@pytest.fixture
def make() -> type[Specimens]:
    """Makers of stacks and models."""
    return Specimens
