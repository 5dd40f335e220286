"""A coarse light-field microscope and recordings that are simulated and solved in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.simulation.lightfield import Exposure, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Callable

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
