"""Transfer functions of defocus: against the spot itself, and what must hold for any microscope."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.confocal_psf import confocal_psf
from napari_lfm.optics.defocus import DefocusOptics, best_focus_um, transfer_table
from napari_lfm.optics.widefield_psf import widefield_psf

PERFECT = DefocusOptics(sample_index=1.0, depth_um=0.0)


def test_agrees_with_the_transform_of_the_spot() -> None:
    optics = DefocusOptics(depth_um=20.0)
    table = transfer_table(optics, 4.0)
    for z in (-3.0, 0.0, 2.0):
        spot = widefield_psf(
            optics.emission,
            (1, 255, 255),
            (1.0, 0.2, 0.2),
            pixel_mean=False,
            focus_um=z + best_focus_um(optics.emission),
        )[0]
        wanted = np.fft.rfft2(np.fft.ifftshift(spot)).real
        got = table.planes("widefield", z, (255, 255), 0.2, pixel_mean=False)[0]
        np.testing.assert_allclose(got, wanted, atol=0.02)


def test_confocal_agrees_with_its_spot() -> None:
    table = transfer_table(PERFECT, 6.0)
    shape, voxel = (25, 127, 127), (0.5, 0.1, 0.1)
    lit, seen = PERFECT.perfect(PERFECT.excitation_um), PERFECT.perfect(PERFECT.wavelength_um)
    spot = confocal_psf(lit, seen, 1.0, shape, voxel)
    z = (np.arange(25) - 12) * 0.5
    wanted = np.stack([np.fft.rfft2(np.fft.ifftshift(p)).real for p in spot])
    got = table.planes("confocal", z, (127, 127), 0.1) * 0.5
    np.testing.assert_allclose(got, wanted, atol=0.012)


def test_no_plane_loses_light() -> None:
    table = transfer_table(DefocusOptics(), 4.0)
    np.testing.assert_allclose(table.widefield[:, 0], 1.0, atol=1e-6)
    assert table.confocal[:, 0].sum() * 0.25 == pytest.approx(1.0)


def test_only_aberration_tells_the_sides_apart() -> None:
    table = transfer_table(PERFECT, 4.0)
    np.testing.assert_allclose(table.widefield, table.widefield[::-1], atol=1e-5)
    other = transfer_table(DefocusOptics(depth_um=27.0), 4.0)
    assert np.abs(other.widefield - other.widefield[::-1]).max() > 0.1
    assert PERFECT.spherical_rms_waves == pytest.approx(0.0, abs=1e-6)
    assert 0.05 < DefocusOptics(depth_um=27.0).spherical_rms_waves < 0.3


def test_plane_zero_is_the_brightest() -> None:
    table = transfer_table(DefocusOptics(depth_um=40.0), 4.0)
    peaks = (table.widefield * table.frequency).sum(1)  # intensity on the axis
    assert table.z_um[peaks.argmax()] == pytest.approx(0.0, abs=0.3)


def test_beyond_the_table() -> None:
    table = transfer_table(PERFECT, 3.0)
    assert not table.planes("confocal", 50.0, (16, 16), 0.3).any()
    ends = table.planes("widefield", [50.0, table.z_um[-1]], (16, 16), 0.3)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.parametrize("values", [{"na": 1.2}, {"na": 0.0}, {"wavelength_um": 600.0}])
def test_refuses_what_makes_no_image(values: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="makes no image"):
        DefocusOptics(**values)


def test_refuses_no_range() -> None:
    with pytest.raises(RequestError, match="range"):
        transfer_table(PERFECT, 0.0)
