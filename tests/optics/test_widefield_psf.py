"""Wide-field point spread functions against textbook optics, brute force, and a measured bead."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy.ndimage import shift
from scipy.special import j0, j1

from napari_lfm.core.metrics import pearson
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.presets import load_microscope
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf, widefield_psf

if TYPE_CHECKING:
    from pathlib import Path

AIR = WidefieldOptics(na=0.3, wavelength_um=0.5, immersion_index=1.0, sample_index=1.0)
OIL = WidefieldOptics(na=1.4, wavelength_um=0.52, immersion_index=1.518, sample_index=1.518)
RADIUS = np.linspace(0, 4, 200)


def half_width(line: np.ndarray, step: float) -> float:
    """Full width at half maximum of a line whose first entry is its peak."""
    below = int(np.argmax(line < line[0] / 2))
    part = (line[below - 1] - line[0] / 2) / (line[below - 1] - line[below])
    return 2 * step * (below - 1 + part)


def test_in_focus_it_is_the_airy_pattern() -> None:
    v = 2 * np.pi / 0.5 * 0.3 * RADIUS[1:]
    airy = (2 * j1(v) / v) ** 2
    line = radial_psf(AIR, np.zeros(1), RADIUS, "scalar")[0]
    assert line[0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(line[1:], airy, atol=1e-6)


def test_on_the_axis_it_is_a_squared_sinc() -> None:
    z = np.linspace(-15, 15, 61)
    u = 2 * np.pi / 0.5 * z * (1 - np.sqrt(1 - 0.3**2))  # nearly parabolic at this aperture
    np.testing.assert_allclose(
        radial_psf(AIR, z, np.zeros(1), "scalar")[:, 0], np.sinc(u / 2 / np.pi) ** 2, atol=0.01
    )


@pytest.mark.parametrize("depth_um", [0.0, 15.0])
def test_the_series_is_the_integral(depth_um: float) -> None:
    optics = replace(OIL, sample_index=1.47, depth_um=depth_um)
    z, radius = np.array([-3.0, 0.0, 2.0]), np.linspace(0, 3, 50)
    share = np.linspace(0, optics.reach, 40_001)
    phase = np.exp(2j * np.pi / 0.52 * (optics.path_um(share, z) - optics.path_um(np.zeros(1), z)))
    kernel = j0(2 * np.pi / 0.52 * 1.4 * np.outer(radius, share)) * share
    brute = np.abs(2 * np.trapezoid(phase[:, None] * kernel, share, axis=2)) ** 2
    np.testing.assert_allclose(radial_psf(optics, z, radius, "scalar"), brute, atol=2e-5)


def test_polarisation_matters_at_large_apertures_only() -> None:
    step = RADIUS[1]
    scalar, vectorial = (radial_psf(AIR, np.zeros(1), RADIUS, m)[0] for m in ("scalar", "vectorial"))
    np.testing.assert_allclose(vectorial, scalar, atol=0.01)
    fine = RADIUS / 10
    scalar, vectorial = (radial_psf(OIL, np.zeros(1), fine, m)[0] for m in ("scalar", "vectorial"))
    assert half_width(vectorial, step / 10) > 1.05 * half_width(scalar, step / 10)
    np.testing.assert_array_equal(radial_psf(OIL, np.zeros(1), fine), vectorial[None])  # what auto takes
    np.testing.assert_array_equal(
        radial_psf(AIR, np.zeros(1), RADIUS), radial_psf(AIR, np.zeros(1), RADIUS, "scalar")
    )


@pytest.mark.parametrize("model", ["scalar", "vectorial"])
def test_depth_in_another_medium_aberrates(model: str) -> None:
    z = np.linspace(-6, 6, 121)
    good = radial_psf(OIL, z, np.zeros(1), model)[:, 0]  # type: ignore[arg-type]
    np.testing.assert_allclose(good, good[::-1], atol=1e-6)
    deep = replace(OIL, sample_index=1.33, depth_um=10.0)
    bad = radial_psf(deep, z, np.zeros(1), model)[:, 0]  # type: ignore[arg-type]
    assert bad.max() < 0.5 * good.max()
    assert abs(z[bad.argmax()]) > 0.3
    assert not np.allclose(bad, bad[::-1], atol=0.02)


def test_a_coverslip_of_another_thickness_does_so_too() -> None:
    thick = replace(OIL, immersion_index=1.0, na=0.9, sample_index=1.0, coverslip_um=200.0)
    best = radial_psf(thick, np.linspace(-40, 40, 400), np.zeros(1), "scalar").max()
    assert best < 0.7


def test_stacks_are_centred_and_sum_to_one() -> None:
    optics = WidefieldOptics.of(load_microscope("wf-20x0.8"))
    psf = widefield_psf(optics, (9, 15, 16), (1.0, 0.325, 0.325))
    assert psf.shape == (9, 15, 16) and psf.dtype == np.float32
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(psf.argmax(), psf.shape) == (4, 7, 7)
    np.testing.assert_allclose(psf[4, 7, 7 - 5 : 7 + 6], psf[4, 2:13, 7], rtol=1e-4)
    point = widefield_psf(optics, (9, 15, 16), (1.0, 0.325, 0.325), pixel_mean=False)
    assert point.max() > psf.max()  # a pixel takes the mean of what falls on it
    with pytest.raises(RequestError, match="cannot be computed"):
        widefield_psf(optics, (0, 5, 5), (1.0, 1.0, 1.0))


def test_a_measured_bead_is_like_its_model(shared_data: Path) -> None:
    path = shared_data / "pyotf" / "psf_wl520nm_z300nm_x130nm_na0.85_n1.0.tif"
    if not path.is_file():
        pytest.skip("the measured bead is not here")
    bead = tifffile.imread(path).astype(float)
    bead -= np.percentile(bead, 20)
    z, y, x = np.unravel_index(bead.argmax(), bead.shape)
    part = bead[:, y - 20 : y + 21, x - 20 : x + 21]
    optics = WidefieldOptics(na=0.85, wavelength_um=0.52, immersion_index=1.0, sample_index=1.0)
    model = widefield_psf(optics, (49, 41, 41), (0.3, 0.13, 0.13))
    found = max(
        pearson(part, shift(model, (d, 0, 0), order=1)[24 - z : 24 - z + len(part)])
        for d in np.linspace(-2, 2, 17)
    )
    assert found > 0.9
