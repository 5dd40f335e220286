"""A coarse light-field microscope and recordings that are simulated and solved in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.networks.lenslet_net import LensletNet
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.simulation.lightfield import Exposure, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.networks.card import ModelCard
    from napari_lfm.simulation.recording import Recording

FAST = {"z_min_um": -24.0, "z_max_um": 24.0, "z_step_um": 6.0, "iterations": 3, "guard_planes": False}


@pytest.fixture(scope="session")
def tiny() -> Microscope:
    """20x/0.45 in air; 100 um lenslets of 9.09 camera pixels, 5 um in the object."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
        sample_index=1.0,
    )


@pytest.fixture(scope="session")
def recording(tiny: Microscope) -> Recording:
    """Three beads outside the depth of field (14 um) over 11 x 13 lenslets, with noise; pitch 9.09 px."""
    beads = ((18.0, 6.0, -9.0), (-18.0, -9.0, 8.0), (21.0, 3.0, 16.0))
    return simulate_lightfield(
        Scene(tuple(Ball(b, 1.5) for b in beads), points_um=beads),
        tiny,
        z_um=(-24, 24, 6),
        lenslets=(11, 13),
        exposure=Exposure(hot_pixels=0),
        voxels_per_lenslet=5,
        seed=1,
    )


@pytest.fixture(scope="session")
def make_request(tiny: Microscope, recording: Recording) -> Callable[..., Request]:
    """A request on the three beads with everything known; parameters and other fields can be changed."""
    method = get_method("deconvolve-lightfield")

    def make(fields: dict[str, Any] | None = None, **parameters: Any) -> Request:
        given = {
            "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
            "microscope": tiny,
            "lattice": recording["lattice"],
            "device": "cpu",
            **(fields or {}),
        }
        chosen = make_parameters(method, {**FAST, **parameters})
        return Request("deconvolve-lightfield", parameters=chosen, **given)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# -- tiny trained models ----------------------------------------------------------------------

Z_UM = [-24.0, -18.0, -12.0, -6.0, 0.0, 6.0, 12.0, 18.0, 24.0]
START_ARGUMENTS = ("start_voxels", "start_noise", "start_iterations")
SMALL: dict[str, Any] = {"slopes": [-0.1, 0.1], "width": 4, "lenslet_width": 6, "blocks": 0, "angular": 1}


def random_net(n: int, depths: int, voxels: int, seed: int = 0, **more: Any) -> LensletNet:
    """A network with random weights: everything that it can see changes its answer."""
    torch.manual_seed(seed)
    net = LensletNet(n, depths, voxels, **SMALL, **more)
    torch.nn.init.normal_(net.leave.weight, std=0.3)  # an untrained one begins with next to nothing
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.003)
    return net


def mean_net(n: int, depths: int, voxels: int) -> LensletNet:
    """A network whose plane d holds (d + 1) times each lenslet's mean: exact, and blind to flips."""
    net = LensletNet(n, depths, voxels, **SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.views.weight[0] = 1 / n**2
        net.spread.weight[: voxels**2, 0] = 1
        for layer, source in (
            (net.enter.first, 0),
            (net.enter.second, 0),
            (net.merge2.first, net.up2.out_channels),  # the shortcut stands behind the upsampled maps
            (net.merge2.second, 0),
        ):
            layer.weight[0, source, 1, 1] = 1
        net.leave.weight[:, 0, 0, 0] = torch.arange(1, depths + 1, dtype=torch.float32)
    return net


def start_net(
    n: int, depths: int, voxels: int, start_iterations: tuple[int, int] | None = None
) -> LensletNet:
    """A network whose answer is the second, sharper of the two volumes that it starts from."""
    named = {"start_iterations": start_iterations} if start_iterations else {"start_noise": (1.0, 0.1)}
    net = LensletNet(n, depths, voxels, **SMALL, start_voxels=voxels, **named)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.start_scale.copy_(torch.tensor([1.0, 0.5]))
        net.straight[1] = 1
    return net


def put_model(
    folder: Path, microscope: Microscope | None, net: LensletNet, id: str = "tiny-net", **changes: Any
) -> ModelCard:
    """Save a network with its card as the model `id` in `folder`."""
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.weights import save_model

    values: dict[str, Any] = {
        "id": id,
        "title": "A test",
        "version": "1.0",
        "method": "lfmnet",
        "architecture": "lfmnet-modern",
        "network": {
            "n_pixels": net.n_pixels,
            "depths": net.depths,
            "voxels_per_lenslet": net.voxels_per_lenslet,
            **SMALL,
            **{name: getattr(net, name) for name in START_ARGUMENTS if hasattr(net, name)},
        },
        "microscope": None if microscope is None else microscope.model_dump(mode="json"),
        "n_pixels": net.n_pixels,
        "z_um": Z_UM[: net.depths],
        "voxels_per_lenslet": net.voxels_per_lenslet,
        "scalers": {"input_percentile": 99.9, "output_scale": 2.0},
        "specimens": ["beads"],
        "licence": "MIT",
        "data": "nothing",
        "training": {},
        "scores": [],
        "hours": 0.0,
        "trained_on": "nothing",
        "date": "2026-01-01",
        "parameters": sum(p.numel() for p in net.parameters()),
        "sha256": "",
        "versions": {},
        "notes": "",
        **changes,
    }
    return save_model(folder / id, ModelCard(**values), net.state_dict(), half=False)


class Nets:
    """Tiny networks whose answers are known; `put` makes a model of one in the registry of a test."""

    random = staticmethod(random_net)
    mean = staticmethod(mean_net)
    start = staticmethod(start_net)

    def __init__(self, folder: Path, microscope: Microscope) -> None:
        self.folder, self.microscope = folder, microscope

    def put(self, net: LensletNet, id: str = "tiny-net", **changes: Any) -> ModelCard:
        """Save a network with its card as the model `id`."""
        return put_model(self.folder, changes.pop("of", self.microscope), net, id, **changes)


@pytest.fixture
def nets(tmp_path: Path, tiny: Microscope, monkeypatch: pytest.MonkeyPatch) -> Nets:
    """An empty folder of models, and what to put into it."""
    folder = tmp_path / "models"
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(folder))
    return Nets(folder, tiny)
