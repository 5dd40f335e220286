from __future__ import annotations

import pytest

from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective


@pytest.fixture(scope="session")
def tiny() -> Microscope:
    """A coarse light-field microscope whose recordings take a second."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
    )
