"""A camera: expected photo-electrons in, grey values out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Camera


def record(expected_electrons: npt.ArrayLike, camera: Camera, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return one exposure: Poisson shot noise, Gaussian read noise, gain, offset, rounding, saturation.

    Parameters
    ----------
    expected_electrons : array
        Mean photo-electrons per pixel (quantum efficiency included), not negative; any shape.
    camera : Camera
        ``gain_e_per_count``, ``offset_counts``, ``read_noise_e`` and ``bit_depth`` are used.
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    array of uint16
        uint32 for cameras with more than 16 bits.

    Raises
    ------
    RequestError
        If the expectation is negative or not finite.
    """
    mean = np.asarray(expected_electrons, np.float64)
    if not np.isfinite(mean).all() or (mean < 0).any():
        raise RequestError(
            "A camera cannot record negative or non-finite light.", "Check the volume and the background."
        )
    electrons = rng.poisson(mean) + rng.normal(0, camera.read_noise_e, mean.shape)
    counts = np.rint(electrons / camera.gain_e_per_count + camera.offset_counts)
    kind = np.uint16 if camera.bit_depth <= 16 else np.uint32
    return np.clip(counts, 0, 2**camera.bit_depth - 1).astype(kind)


def full_well_electrons(camera: Camera) -> float:
    """Return the electrons at which a pixel saturates."""
    return float((2**camera.bit_depth - 1 - camera.offset_counts) * camera.gain_e_per_count)
