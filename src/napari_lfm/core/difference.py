"""The difference of an image and its truth, as an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.align import align
from napari_lfm.core.metrics import fit_scale
from napari_lfm.core.one_image import one_image, voxel_um_of
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import resample_onto

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr


@dataclass(frozen=True)
class Difference:
    """A difference, and the range of the truth that it is to be seen against.

    Attributes
    ----------
    image : xarray.DataArray
        ``scale * image + offset - truth`` on the part of the truth's grid that both cover.
    truth_range : float
        Between the truth's 1 and 99.9 percentiles.
    scale, offset : float
        Least squares, as the scores fit a scale: no image knows its absolute brightness.
    """

    image: xr.DataArray
    truth_range: float
    scale: float
    offset: float


def difference(
    image: xr.DataArray,
    truth: xr.DataArray,
    *,
    aligned: bool = False,
    on_step: Callable[[float], None] | None = None,
) -> Difference:
    """Return how far an image is from the truth, voxel by voxel, after brightness was fitted.

    Parameters
    ----------
    image, truth : xarray.DataArray
        One volume (z, y, x) or plane (y, x), in micrometres.
    aligned : bool
        Move the image onto the truth first, to fractions of a voxel.
    on_step : callable, optional
        Called with the share that is done; an exception in it ends the computation.

    Raises
    ------
    RequestError
        If the two cannot be compared.
    """
    tell = on_step or (lambda share: None)
    tell(0.0)
    image, reference = resample_onto(one_image(image, "The image"), one_image(truth, "The truth"))
    tell(0.3)
    a, b = np.asarray(image.values, np.float32), np.asarray(reference.values, np.float32)
    if aligned:
        sizes = list(voxel_um_of(reference).values())
        moved = align(a, b, sizes, on_step=lambda share: tell(0.3 + 0.5 * share))
        a, b, reference = moved.image, moved.reference, reference[moved.part]
    tell(0.8)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise RequestError("The images contain NaN or infinite values.", "Replace them first.")
    scale, offset = fit_scale(a, b, offset=True)
    low, high = (float(v) for v in np.percentile(b, (1, 99.9)))
    out = reference.copy(data=np.asarray(scale * a + offset - b, np.float32))
    out.name = "difference"
    return Difference(out, max(high - low, 1e-12), scale, offset)
