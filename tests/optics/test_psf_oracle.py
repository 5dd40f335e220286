"""Point spread functions beside those of the PyPI package ``psf-generator``, an implementation by others.

Y. Liu, V. Stergiopoulou, J. Chuah, D. Sage, J. Dong (EPFL), MIT licence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_lfm.optics.widefield_psf import Model, WidefieldOptics, widefield_psf

oracle = pytest.importorskip("psf_generator.propagators", reason="pip install psf-generator")

VOXEL = (0.15, 0.05, 0.05)
SHAPE = (9, 31, 31)
WAVELENGTH = 0.52


def theirs(kind: Any, na: float, index: float, **weighting: bool) -> np.ndarray:
    """Intensity (z, y, x), its peak 1; unpolarised: the mean of both directions of the field."""

    def pitch(axis: int) -> float:  # they lay n points over n pixels, ends included; lengths in nm
        return 1000 * VOXEL[axis] * (SHAPE[axis] - 1) / SHAPE[axis]

    propagator = kind(
        n_pix_pupil=401,
        n_pix_psf=SHAPE[1],
        wavelength=1000 * WAVELENGTH,
        na=na,
        pix_size=pitch(1),
        defocus_step=pitch(0),
        n_defocus=SHAPE[0],
        **dict.fromkeys(("n_i", "n_i0", "n_s", "n_g", "n_g0"), index),
        **weighting,
    )
    light = (propagator.compute_focus_field().abs() ** 2).sum(1).numpy()
    light = (light + light.transpose(0, 2, 1)) / 2
    out: np.ndarray = light / light.max()
    return out


@pytest.mark.parametrize(("na", "index"), [(0.3, 1.0), (0.8, 1.0), (1.2, 1.333), (1.4, 1.515)])
@pytest.mark.parametrize("model", ["vectorial", "scalar"])
def test_it_is_that_of_others(na: float, index: float, model: Model) -> None:
    optics = WidefieldOptics(na, WAVELENGTH, index, index)
    ours = widefield_psf(optics, SHAPE, VOXEL, model, pixel_mean=False)
    if model == "vectorial":  # the sine condition of an aplanatic lens
        wanted = theirs(oracle.VectorialSphericalPropagator, na, index, apod_factor=True)
    else:  # Gibson and Lanni weigh the pupil evenly
        wanted = theirs(oracle.ScalarSphericalPropagator, na, index, cos_factor=True)
    np.testing.assert_allclose(ours / ours.max(), wanted, atol=1e-3)
