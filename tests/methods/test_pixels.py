"""Another number of pixels per lenslet: the light stays where it is, and all of it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.lightfield.rectify import from_lenslet_image, rectify
from napari_lfm.methods.pixels import rectify_at, resample_cells

PITCH = 15.4


@pytest.fixture
def lattice() -> Lattice:
    return Lattice(
        origin_px=(9.3, 8.7),
        row_step_px=(PITCH, 0.1),
        column_step_px=(-0.1, PITCH),
        rows=9,
        columns=8,
        image_shape=(160, 150),
    )


@pytest.fixture
def frame(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:160, 0:150]
    return (100 + 50 * np.sin(y / 9) * np.cos(x / 7) + rng.normal(0, 1, y.shape)).astype(np.float32)


@pytest.mark.parametrize("n", [3, 5, 9, 11, 15, 21])
def test_every_lenslet_keeps_its_light(lattice: Lattice, frame: np.ndarray, n: int) -> None:
    own = rectify(frame, lattice, 15)
    other = rectify_at(frame, lattice, n)
    assert other.cell_px == (n, n)
    assert other.cells == own.cells
    light = [r.image[0].reshape(9, r.cell_px[0], 8, r.cell_px[1]).sum((1, 3)) for r in (own, other)]
    np.testing.assert_allclose(light[1], light[0], rtol=4e-3)
    assert other.mask.all()


def test_coarse_pixels_average_the_noise(lattice: Lattice, rng: np.random.Generator) -> None:
    """A camera with large pixels would have seen sqrt(pixels) times the noise, not its picks."""
    noise = rng.normal(0, 1, (40, 160, 150)).astype(np.float32)
    coarse = rectify_at(noise, lattice, 5)
    assert float(coarse.image.var()) == pytest.approx(float(coarse.variance_factor.mean()), rel=0.03)
    assert 0.5 < float(coarse.variance_factor.mean()) / (PITCH / 5) ** 2 < 1
    picked = rectify(noise, lattice, 5)
    assert picked.image.std() > 2 * coarse.image.std()


def test_regions_and_hot_pixels_are_kept(lattice: Lattice, frame: np.ndarray) -> None:
    frame = frame.copy()
    frame[80, 75] = 1e5
    whole = rectify_at(frame, lattice, 5)
    assert whole.hot_pixel_count == 1
    part = rectify_at(frame, lattice, 5, region_px=(60, 60, 100, 110))
    (y, x), (rows, columns) = part.first_cell, part.cells
    assert (y, x) != (0, 0)
    same = whole.image[0, 5 * y : 5 * (y + rows), 5 * x : 5 * (x + columns)]
    np.testing.assert_allclose(part.image[0], same, rtol=1e-5)


def test_frames_that_came_rectified(rng: np.random.Generator) -> None:
    smooth = np.kron(rng.uniform(50, 100, (6, 7)), np.ones((15, 15))).astype(np.float32)
    given = from_lenslet_image(smooth[:, :104], 15)  # an incomplete lenslet at the right
    assert resample_cells(given, None) is given
    assert resample_cells(given, 15) is given
    other = resample_cells(given, 5)
    assert other.cells == given.cells == (6, 6)
    middle = other.image[0].reshape(6, 5, 6, 5)[:, 2, :, 2]
    np.testing.assert_allclose(middle, 9 * smooth[7::15, 7:90:15], rtol=1e-4)
