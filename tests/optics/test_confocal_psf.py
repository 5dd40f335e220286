"""Confocal, Gaussian and measured point spread functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.confocal_psf import confocal_psf, gaussian_sigmas_um, measured_psf
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf, widefield_psf

OPTICS = WidefieldOptics(na=0.8, wavelength_um=0.52, immersion_index=1.0, sample_index=1.0)
LASER = replace(OPTICS, wavelength_um=0.488)
SHAPE, VOXEL = (21, 31, 31), (0.4, 0.1, 0.1)


def spread(psf: np.ndarray, axis: int) -> float:
    """Width of the middle line at half maximum, in voxels."""
    line = np.moveaxis(psf, axis, 0)[
        (slice(None), *(np.array(psf.shape)[[k for k in range(3) if k != axis]] // 2))
    ]
    return float((line > line.max() / 2).sum())


def test_a_closed_pinhole_gives_the_product() -> None:
    product = widefield_psf(LASER, SHAPE, VOXEL) * widefield_psf(OPTICS, SHAPE, VOXEL)
    psf = confocal_psf(LASER, OPTICS, 1e-3, SHAPE, VOXEL)
    np.testing.assert_allclose(psf, product / product.sum(), atol=2e-4 * psf.max())
    assert psf.sum() == pytest.approx(1, abs=1e-5)


def test_an_open_pinhole_gives_the_laser_alone_across() -> None:
    psf = confocal_psf(LASER, OPTICS, 1.0, SHAPE, VOXEL)
    wide = confocal_psf(LASER, OPTICS, 40.0, SHAPE, VOXEL)
    laser = widefield_psf(LASER, SHAPE, VOXEL)[10]
    # within a pinhole far wider than the stack all light counts the same
    np.testing.assert_allclose(wide[10] / wide[10].max(), laser / laser.max(), atol=0.02)
    for axis in (0, 1, 2):
        assert spread(psf, axis) <= spread(widefield_psf(OPTICS, SHAPE, VOXEL), axis)
    with pytest.raises(RequestError, match="no light"):
        confocal_psf(LASER, OPTICS, 0.0, SHAPE, VOXEL)


def test_gaussians_are_as_wide_as_the_spot() -> None:
    for na in (0.4, 0.8):
        optics = replace(OPTICS, na=na)
        z, across = gaussian_sigmas_um(optics)
        step = 0.002
        line = radial_psf(optics, np.zeros(1), np.arange(0, 2, step), "scalar")[0]
        half = step * np.argmax(line < 0.5)
        assert across * np.sqrt(2 * np.log(2)) == pytest.approx(half, rel=0.15)
        axis = radial_psf(optics, np.arange(0, 12, 0.01), np.zeros(1), "scalar")[:, 0]
        assert z * np.sqrt(2 * np.log(2)) == pytest.approx(0.01 * np.argmax(axis < 0.5), rel=0.25)


def test_a_bead_becomes_a_function_of_the_data_s_voxels() -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.arange(n) for n in (21, 33, 33)), indexing="ij")
    spot = np.exp(-((z - 10.3) ** 2) / 8 - ((y - 15.6) ** 2 + (x - 17.2) ** 2) / 8)
    bead = 100 + 1000 * spot + rng.normal(0, 2, spot.shape)
    psf = measured_psf(bead, (0.4, 0.1, 0.1), (0.2, 0.2, 0.2))
    assert all(n % 2 == 1 for n in psf.shape)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    middle = tuple(n // 2 for n in psf.shape)
    assert np.unravel_index(psf.argmax(), psf.shape) == middle
    # 2 voxels of 0.1 um across, 2 of 0.4 along: 0.2 and 0.8 um, one and four voxels of the data
    across = psf[middle[0], middle[1]]
    at = np.arange(len(across)) - middle[2]
    assert np.sqrt((across * at**2).sum() / across.sum()) == pytest.approx(1.0, abs=0.2)
    along = psf[:, middle[1], middle[2]]
    at = np.arange(len(along)) - middle[0]
    assert np.sqrt((along * at**2).sum() / along.sum()) == pytest.approx(4.0, abs=0.4)


@pytest.mark.parametrize(
    ("bead", "reason"),
    [
        (np.zeros((5, 5)), "no stack"),
        (np.full((9, 9, 9), np.nan), "no numbers"),
        (np.full((9, 9, 9), 7.0), "No bead"),
        (np.pad(np.full((1, 1, 1), 9.0), ((0, 8), (4, 4), (4, 4))), "edge"),
    ],
)
def test_what_is_no_bead_is_refused(bead: np.ndarray, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        measured_psf(bead, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
