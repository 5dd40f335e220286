"""Figures of a reconstructed shell for a table: the fits of `measure_shell` with a standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.bench._sphere_fit import fit_sphere, measure_shell

if TYPE_CHECKING:
    import xarray as xr

SECTORS = 8


def shell_figures(volume: xr.DataArray) -> dict[str, float]:
    """Return the fits of a reconstructed shell, JSON-ready.

    Parameters
    ----------
    volume : xarray.DataArray
        Dims ``z y x``, one hollow shell.

    Returns
    -------
    dict
        ``axial_scale``: what z must be multiplied by for the wall to be a sphere, that is lateral over
        axial radius; ``axial_scale_error``: its standard error, from leaving out one of eight angular
        sectors after the other; ``rms`` and ``rms_of_a_sphere``: radial misfit over the radius with and
        without a free axial radius; ``radius_um``; ``height_um`` of the centre.
    """
    shell = measure_shell(volume)
    points, free = shell.points_um, shell.ellipsoid
    away = points[:, 1:] - np.asarray(free.centre_um[1:])
    sector = ((np.arctan2(away[:, 0], away[:, 1]) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    left_out = [_scale(fit_sphere(points[sector != s], free_axis=True).axial_scale) for s in range(SECTORS)]
    return {
        "axial_scale": _scale(free.axial_scale),
        "axial_scale_error": float((SECTORS - 1) ** 0.5 * np.std(left_out)),
        "rms": free.misfit,
        "rms_of_a_sphere": shell.sphere.misfit,
        "radius_um": free.radius_um,
        "height_um": free.centre_um[0],
    }


def _scale(axial_over_lateral: float) -> float:
    # only its square enters the fit, so that the sign is chance
    return 1 / abs(axial_over_lateral)
