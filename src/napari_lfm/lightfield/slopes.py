"""From depth to epipolar slope and back, without the paraxial approximation.

Pixel ``u`` behind a lenslet sees the pupil under ``tan(beta) = u a / d`` (a pixel, d lenslet-to-sensor
distance). Abbe's sine condition makes that ``NA_u = M sin(beta)`` in the sample, so a ray of view u
from a point at depth z meets the native plane ``z tan(asin(NA_u / n))`` off the point. A line fitted
over views -m..m then has a slope that grows with m: every slope here states its range of views.

Signs: z is positive towards the objective. A point there is seen by +u at smaller s, so the epipolar
slope ds/du (lenslets per view) of a point at z is ``-slope_per_um * z``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope


def view_aperture(microscope: Microscope, n_pixels: int | None = None) -> tuple[float, float]:
    """Return ``tan(beta)`` per view and the largest view (not rounded) inside the pupil.

    Parameters
    ----------
    microscope : Microscope
        With a lenslet array.
    n_pixels : int, optional
        N of the rectified light field; the microscope's by default.

    Raises
    ------
    RequestError
        If the microscope has no lenslets.
    """
    n = microscope.n_pixels if n_pixels is None else n_pixels
    if microscope.lenslets is None or n is None:
        raise RequestError(
            f"The microscope '{microscope.name}' has no lenslet array, so a view has no depth slope.",
            "Choose a light-field microscope.",
        )
    per_view = microscope.lenslets.pitch_um / n / microscope.lenslets.distance_um
    sine = microscope.objective.na / microscope.objective.magnification
    return per_view, math.tan(math.asin(sine)) / per_view


def default_view_range(microscope: Microscope, n_pixels: int | None = None) -> int:
    """Return the largest m for which views -m..m have light and behave: 70 % of the pupil's radius."""
    n = microscope.n_pixels if n_pixels is None else n_pixels
    _, edge = view_aperture(microscope, n)
    return max(1, min((int(n or 3) - 1) // 2, math.floor(0.7 * edge)))


def slope_per_um(microscope: Microscope, view_range: int | None = None, n_pixels: int | None = None) -> float:
    """Return the epipolar slope of a point, in lenslets per view and per um of depth (positive).

    Least-squares line through the exact positions in views ``-view_range..view_range`` of the row
    through the pupil's centre.

    Parameters
    ----------
    microscope : Microscope
        With a lenslet array.
    view_range : int, optional
        m; `default_view_range` where not given.
    n_pixels : int, optional
        N of the rectified light field; the microscope's by default.

    Returns
    -------
    float
        E.g. 0.0218 for a 25x/1.0 water objective with 125 um f/10 lenslets, N = 19 and m = 5; the
        paraxial value is 0.0198.

    Raises
    ------
    RequestError
        If the range is below 1 or reaches beyond the aperture of the sample medium.
    """
    m = default_view_range(microscope, n_pixels) if view_range is None else view_range
    per_view, _ = view_aperture(microscope, n_pixels)
    if m < 1:
        raise RequestError(
            "A slope needs at least the views next to the centre.", "Give a range of 1 or more."
        )
    views = np.arange(1, m + 1)
    na = microscope.objective.magnification * np.sin(np.arctan(views * per_view))
    if na[-1] >= microscope.sample_index:
        raise RequestError(
            f"View {m} lies beyond what the sample medium lets through.",
            f"Use views up to {default_view_range(microscope, n_pixels)}.",
        )
    tangent = np.tan(np.arcsin(na / microscope.sample_index))
    lenslet_um = microscope.lenslet_um
    assert lenslet_um is not None  # view_aperture has checked
    return float((views * tangent).sum() / (views**2).sum() / lenslet_um)


def ray_offsets_per_um(microscope: Microscope, n_pixels: int) -> np.ndarray:
    """Return how many lenslets every view sees a source displaced by, per um of depth; exact, no fitted line.

    Parameters
    ----------
    microscope : Microscope
        With a lenslet array.
    n_pixels : int
        N of the rectified light field.

    Returns
    -------
    ndarray, shape (2, N, N)
        Along t and along s, for view (v, u); the sign is the module's. Views outside the pupil, or beyond
        what the sample medium lets through, are not a number.
    """
    per_view, edge = view_aperture(microscope, n_pixels)
    at = np.arange(n_pixels) - (n_pixels - 1) // 2
    v, u = np.meshgrid(at, at, indexing="ij")
    radius = np.hypot(v, u)
    na = microscope.objective.magnification * np.sin(np.arctan(radius * per_view))
    sine = na / microscope.sample_index
    with np.errstate(invalid="ignore", divide="ignore"):
        tangent = np.tan(np.arcsin(np.where(sine < 1, sine, np.nan)))
        per_view_um = np.where(radius > 0, tangent / radius, 0.0) / (microscope.lenslet_um or np.nan)
    out = -np.stack([v, u]) * per_view_um
    out[:, radius > edge] = np.nan
    return np.asarray(out)


def paraxial_slope_per_um(microscope: Microscope, n_pixels: int | None = None) -> float:
    """Return the small-angle limit of `slope_per_um`, for comparison with the literature."""
    per_view, _ = view_aperture(microscope, n_pixels)
    lenslet_um = microscope.lenslet_um
    assert lenslet_um is not None
    return microscope.objective.magnification * per_view / microscope.sample_index / lenslet_um


def slope_at_depth(
    z_um: float, microscope: Microscope, view_range: int | None = None, n_pixels: int | None = None
) -> float:
    """Return the epipolar slope (lenslets per view) of a point at depth z; the sign is the module's."""
    return -slope_per_um(microscope, view_range, n_pixels) * z_um


def depth_at_slope(
    slope: float, microscope: Microscope, view_range: int | None = None, n_pixels: int | None = None
) -> float:
    """Return the depth (um) of a point with this epipolar slope (lenslets per view)."""
    return -slope / slope_per_um(microscope, view_range, n_pixels)
