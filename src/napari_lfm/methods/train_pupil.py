"""The user's own pupil, from a white frame: one of the microscopes that a network is then trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.lightfield_data import LightfieldData, prepare
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.vignetting import fit_pupil

if TYPE_CHECKING:
    from napari_lfm.methods.base import Request

WORST_MISFIT = 0.3
"""Misfit beyond which a white frame says nothing about the pupil, as in the deconvolution."""


def pupil_of(request: Request, n_pixels: int | None = None) -> tuple[tuple[float, ...], float]:
    """Return the pupil's radial intensity, axis to edge, and how badly it explains the white frame.

    Parameters
    ----------
    request : Request
        Of any light-field method, with a white frame.
    n_pixels : int, optional
        Pixels per lenslet to rectify to; default the microscope's.

    Raises
    ------
    RequestError
        If there is no white frame, or the pupil cannot explain it.
    """
    if "white" not in request.inputs:
        raise RequestError("The pupil is fitted to a white frame, and there is none.", "Give one.")
    data: LightfieldData | None = None
    for event in prepare(request, n_pixels):
        if not isinstance(event, Progress):
            data = event
    assert data is not None
    assert data.white is not None
    (rows, columns), (ny, nx) = data.rectified.cells, data.rectified.cell_px
    cell = data.white.reshape(rows, ny, columns, nx).mean((0, 2))
    pupil, misfit = fit_pupil(cell, CellOptics.of(data.microscope, data.n_pixels))
    if not pupil or misfit > WORST_MISFIT:
        raise RequestError(
            f"The white frame does not look like light through this microscope's pupil ({misfit:.0%} of it "
            "is left unexplained).",
            "Check the microscope and the white frame, or train without it.",
        )
    return tuple(round(v, 4) for v in pupil), misfit
