"""Decorrelation and spectra find an imposed cut-off, along every axis, in noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.decorrelation import decorrelation
from napari_lfm.core.problems import RequestError
from napari_lfm.core.spectra import power_spectra

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., np.ndarray]

CASES = [
    ((96, 96, 96), (0.1, 0.1, 0.1), (0.4, 0.4, 0.4)),
    ((96, 96, 96), (0.1, 0.1, 0.1), (1.0, 0.3, 0.3)),
    ((32, 160, 160), (0.3, 0.1, 0.1), (1.0, 0.35, 0.35)),
    ((256, 256), (0.1, 0.1), (0.6, 0.3)),
]


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
@pytest.mark.parametrize(("shape", "voxel_um", "period_um"), CASES)
def test_a_cut_off_is_found(
    band_limited: Make, shape: Any, voxel_um: Any, period_um: Any, noise: float
) -> None:
    image = band_limited(shape, voxel_um, period_um)
    image += np.random.default_rng(9).normal(0, noise * image.std(), shape)
    found = decorrelation(image, voxel_um)
    np.testing.assert_allclose(list(found.resolution_um.values()), period_um, rtol=0.15)
    # the window smears the edge, the farther (in voxels) the fewer samples there are
    spectra = power_spectra(image, voxel_um)
    np.testing.assert_allclose(list(spectra.resolution_um.values()), period_um, rtol=0.25)
    assert [c.axis for c in spectra.curves] == ["z", "y", "x"][-len(shape) :]


def test_axial_and_lateral_resolution_keep_their_order(band_limited: Make) -> None:
    """What isotropic restoration is to change: z coarser than y and x by the factor imposed."""
    coarse = [
        decorrelation(band_limited((96, 96, 96), (1, 1, 1), (3 * f, 3, 3)), (1, 1, 1)).resolution_um
        for f in (1, 2, 3)
    ]
    ratios = [one["z"] / one["x"] for one in coarse]  # type: ignore[operator]
    np.testing.assert_allclose(ratios, [1, 2, 3], rtol=0.1)


def test_noise_alone_has_no_resolution() -> None:
    noise = np.random.default_rng(0).normal(size=(64, 64, 64))
    assert decorrelation(noise, (1, 1, 1)).resolution_um == {"z": None, "y": None, "x": None}
    assert set(power_spectra(noise, (1, 1, 1)).resolution_um.values()) == {None}


def test_the_floor_is_that_of_the_noise(blurred: Make) -> None:
    image = blurred((64, 64, 64), (1, 1, 1), (2, 2, 2))
    found = power_spectra(image + np.random.default_rng(1).normal(0, 0.1, image.shape), (1, 1, 1))
    # far beyond the blur's cut-off there is nothing else
    assert found.curves[2].values[-4:].mean() == pytest.approx(found.floor, rel=0.1)
    # S = N where exp(-4 pi^2 sigma^2 k^2) = 0.01
    expected = 2 * np.pi * 2 / np.sqrt(np.log(100))
    assert found.resolution_um["x"] == pytest.approx(expected, rel=0.1)


def test_what_has_no_floor_reaches_the_voxels(blurred: Make) -> None:
    found = power_spectra(blurred((32, 32, 32), (1, 1, 1), (0.2, 0.2, 0.2)), (0.5, 1, 1))
    assert found.curves[1].at_nyquist == (found.curves[1].resolution_um == 2.0)


@pytest.mark.parametrize("measure", [decorrelation, power_spectra])
def test_bad_images_get_a_sentence(measure: Any) -> None:
    for image, says in (
        (np.ones((16, 16)), "constant"),
        (np.full((9, 9), np.nan), "NaN"),
        (np.eye(4), "only 4"),
    ):
        with pytest.raises(RequestError, match=says):
            measure(image, (1, 1))
