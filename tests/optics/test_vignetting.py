"""The white frame: the pupil that made it is found again, and the rest stays with the pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.optics.psf import LightfieldPsf
from napari_lfm.optics.vignetting import LIMITS, fit_pupil, pixel_response, slab_cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.psf import CellOptics

    Make = Callable[..., CellOptics]

PUPIL = (1.0, 0.95, 0.9, 0.7, 0.5, 0.2)


def slab_from_points(optics: CellOptics, z: float, guard: int = 5) -> np.ndarray:
    """The slow way: the sensor images of 18 x 18 points under each lenslet, folded into one cell."""
    psf = LightfieldPsf(optics, (9, 9), guard=guard)
    (ny, nx), images = optics.cell_px, next(psf.planes([z]))
    shape = len(images), images.shape[1] // ny, ny, images.shape[2] // nx, nx
    folded = images.reshape(shape).sum((1, 3), dtype=float)
    cell = np.sum([move.on_image(folded[kind]) for kind, move in psf.from_representative], axis=0)
    return np.asarray(cell / cell.mean())


@pytest.mark.parametrize(
    ("lattice", "aperture", "pupil"),
    [
        ("square", "square", ()),
        ("square", "circular", PUPIL),
        ("hexagonal", "circular", (1.0, 0.5)),
        ("hexagonal", "square", PUPIL),
    ],
)
def test_bloch_waves_give_what_points_give(
    make_optics: Make, lattice: str, aperture: str, pupil: tuple[float, ...]
) -> None:
    optics = make_optics(lattice, aperture, n=7, pupil=pupil)
    wanted = slab_from_points(optics, 1.0)
    found = slab_cell(optics)
    assert np.linalg.norm(found - wanted) < 0.015 * np.linalg.norm(wanted)
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize("pupil", [PUPIL, (1.0,) * 6, (0.6, 0.8, 1.0, 1.0, 0.9, 0.0)])
def test_the_pupil_is_found_in_a_white_cell(make_optics: Make, pupil: tuple[float, ...]) -> None:
    clear = make_optics(n=11)
    rng = np.random.default_rng(3)
    white = 5000 * slab_from_points(replace(clear, pupil=pupil), 1.0)
    found, misfit = fit_pupil(rng.poisson(white * 50) / 50.0, clear)
    assert misfit < 0.02
    # what counts is the light that passes: the middle of the pupil hardly has any area
    np.testing.assert_allclose(found[1:], pupil[1:], atol=0.08)
    assert found[0] == pytest.approx(pupil[0], abs=0.25)
    again = slab_cell(replace(clear, pupil=found))
    assert np.linalg.norm(again - white / white.mean()) < 0.02 * np.linalg.norm(again)


def test_a_dark_cell_has_no_pupil(make_optics: Make) -> None:
    cell = np.full((5, 5), -1.0)
    cell[2, 2] = 24.5
    pupil, misfit = fit_pupil(cell, make_optics())
    assert misfit > 0.3 or pupil == ()


def test_gain_of_lenslets_and_pixels_is_kept_apart_from_the_optics(make_optics: Make) -> None:
    optics = make_optics(n=7, pupil=PUPIL)
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.7, 1.3, (4, 5))
    dust = np.ones((28, 35))
    dust[10, 17] = 0.6
    white = np.kron(gain, slab_cell(optics)) * dust
    response = pixel_response(white, optics)
    assert response.dtype == np.float32
    wanted = np.kron(gain / gain.mean(), np.ones((7, 7))) * dust
    np.testing.assert_allclose(response, wanted, rtol=0.03)
    assert response[10, 17] == pytest.approx(wanted[10, 17], rel=0.03)


def test_the_response_is_bounded_in_dark_gaps(make_optics: Make) -> None:
    optics = make_optics(n=7, aperture="circular")
    white = np.tile(slab_cell(optics), (3, 3)) + 0.2  # stray light fills the gaps
    white[:7, :7] = 0  # a dead lenslet
    response = pixel_response(white, optics)
    assert np.isfinite(response).all()
    assert response.min() >= 0
    assert response[7:].max() <= LIMITS[1] * 1.5
    assert response[:7, :7].max() < 0.05
