"""Blur along z beyond the lateral one: kernels, and its estimate from a stack."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.axial_blur import (
    anisotropic_sigma_um,
    csbdeep_kernel,
    gaussian_kernel,
    kernel_of_line,
    kernel_of_plane,
    unit_sum,
)
from napari_lfm.optics.axial_estimate import estimate_axial_blur
from napari_lfm.simulation.phantoms import make_phantom
from napari_lfm.simulation.scene import Grid

PIXEL_UM = 0.2
SIGMA_X_PX = 1.2


def _width(kernel: np.ndarray, axis: int) -> float:
    line = kernel.sum(1 - axis)
    at = np.arange(len(line)) - (len(line) - 1) / 2
    return float(np.sqrt((line * at**2).sum() / line.sum()))


def test_variances_add() -> None:
    assert anisotropic_sigma_um(3, 1) == pytest.approx(8**0.5)
    assert anisotropic_sigma_um(3, 1, "csbdeep") == 2
    with pytest.raises(RequestError, match="coarser along z"):
        anisotropic_sigma_um(1, 3)


def test_kernels_have_their_widths() -> None:
    kernel = gaussian_kernel(2.5)
    assert kernel.shape == (1, 21) and kernel.sum() == pytest.approx(1, abs=1e-6)
    assert _width(kernel, 1) == pytest.approx(2.5, rel=2e-3)
    published = csbdeep_kernel(3.0, 1.0)
    assert published.shape == (9, 17)
    assert (_width(published, 0), _width(published, 1)) == pytest.approx((1, 2), rel=2e-3)
    assert gaussian_kernel(0).tolist() == [[1.0]]
    with pytest.raises(RequestError):
        unit_sum(np.zeros(3))


def test_measured_psf_gives_what_is_between_its_profiles() -> None:
    """Lateral profile blurred with the kernel is the axial profile."""
    z, y, x = (np.arange(n) - n // 2 for n in (41, 25, 25))
    sz, sx = 0.6 / 0.15, 0.2 / 0.1  # um over um per voxel
    psf = 50 + 900 * np.exp(-(z[:, None, None] ** 2) / (2 * sz**2) - (y[:, None] ** 2 + x**2) / (2 * sx**2))
    line = kernel_of_line(psf, (0.15, 0.1, 0.1), 0.1)
    assert line.shape[0] == 1
    assert _width(line, 1) == pytest.approx((6**2 - 2**2) ** 0.5, rel=0.05)
    plane = kernel_of_plane(psf, (0.15, 0.1, 0.1), 0.1)
    assert (_width(plane, 0), _width(plane, 1)) == pytest.approx((2, 6), rel=0.05)


@pytest.mark.parametrize("psf", [np.ones((3, 3)), np.zeros((9, 9, 9)), np.full((9, 9, 9), np.nan)])
def test_what_is_no_psf_is_refused(psf: np.ndarray) -> None:
    for make in (kernel_of_line, kernel_of_plane):
        with pytest.raises(RequestError):
            make(psf, (1, 1, 1), 1)


def _stack(kind: str, factor: int, sigma_px: float, photons: float, **options: object) -> np.ndarray:
    """Return a stack as a camera records it, every `factor`-th plane."""
    n = 112
    grid = Grid.centred((n, n, n), (PIXEL_UM,) * 3)
    truth = np.asarray(make_phantom(kind, grid, 3, options={kind: options}))
    blurred = gaussian_filter(truth, (np.hypot(sigma_px, SIGMA_X_PX), SIGMA_X_PX, SIGMA_X_PX))
    light = photons * blurred[::factor] / np.percentile(blurred, 99.9)
    rng = np.random.default_rng(0)
    return np.asarray(rng.poisson(light) + 3 * rng.standard_normal(light.shape) + 100)


@pytest.mark.parametrize(
    ("kind", "options", "factor", "sigma_px"),
    [
        ("beads", {"count": 40, "diameter_um": 0.5}, 4, 3.0),
        ("filaments", {"count": 40, "radius_um": 0.2, "length_um": 12}, 6, 4.0),
        ("nuclei", {"count": 30, "radius_um": 2.0}, 4, 3.0),
    ],
)
def test_estimate_is_within_a_tenth(
    kind: str, options: dict[str, float], factor: int, sigma_px: float
) -> None:
    stack = _stack(kind, factor, sigma_px, 400, **options)
    found = estimate_axial_blur(stack, (factor * PIXEL_UM, PIXEL_UM, PIXEL_UM))
    assert found.is_known
    assert found.sigma_um == pytest.approx(sigma_px * PIXEL_UM, rel=0.1)
    assert 0 < found.uncertainty_um < 0.25 * found.sigma_um
    assert found.quality > 0.9
    assert found.note == ""


def test_isotropic_stack_is_not_given_a_figure() -> None:
    field = gaussian_filter(np.random.default_rng(1).random((48, 48, 48)), 1.5)
    found = estimate_axial_blur(field, (0.2, 0.2, 0.2))
    assert not found.is_known and "cannot be told" in found.note


def test_noise_alone_is_not_given_a_figure() -> None:
    noise = np.random.default_rng(1).poisson(100, (20, 64, 64))
    found = estimate_axial_blur(noise, (0.8, 0.2, 0.2))
    assert not found.is_known and found.note.endswith("Give it, or take the microscope's.")


@pytest.mark.parametrize("stack", [np.zeros((20, 64, 64)), np.zeros((3, 64, 64)), np.zeros((20, 9, 64))])
def test_empty_and_small_stacks_get_a_sentence(stack: np.ndarray) -> None:
    assert "cannot be told" in estimate_axial_blur(stack, (0.8, 0.2, 0.2)).note


def test_bad_input_is_refused() -> None:
    good = gaussian_filter1d(np.random.default_rng(0).random((20, 32, 32)), 2, 0)
    with pytest.raises(RequestError, match="4 axes"):
        estimate_axial_blur(good[None], (1, 1, 1))
    with pytest.raises(RequestError, match="make no sense"):
        estimate_axial_blur(good, (0, 1, 1))
    with pytest.raises(RequestError, match="no numbers"):
        estimate_axial_blur(np.where(good > 0.6, np.nan, good), (1, 1, 1))
