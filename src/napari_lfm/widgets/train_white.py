"""The pupil of the user's own microscope, from the white frame of the open light field. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import get_method
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.resolve import resolve
from napari_lfm.widgets.state import ROLES, ReconstructState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.widgets.state import LayerInfo

METHOD = "deconvolve-lightfield"
_WORST_FIT = 0.3
"""Misfit beyond which a white frame says nothing about the pupil, as in the deconvolution."""


@dataclass(frozen=True)
class WhiteFit:
    """What a white frame says about the light in the pupil.

    Attributes
    ----------
    pupil : tuple of float
        Radial intensity at equally spaced radii.
    misfit : float
        ``||fit - white|| / ||white||``.
    n_pixels : int
        Pixels per lenslet of the recording.
    """

    pupil: tuple[float, ...]
    misfit: float
    n_pixels: int


@dataclass(frozen=True)
class WhiteSource:
    """The light field whose white frame is to be fitted: what the user chose, and the layers."""

    state: ReconstructState
    layers: Mapping[str, LayerInfo] = field(default_factory=dict)

    def same_as(self, other: WhiteSource | None) -> bool:
        """Return whether a fit to the other one holds for this one too."""
        if other is None or self.state != other.state:
            return False
        names = [getattr(self.state, role) for role in ROLES]
        # arrays are compared by identity: `other` keeps its own alive, so that none can take its place
        return all(self.data(name) is other.data(name) for name in names)

    def data(self, name: str) -> object:
        """Return the array of a layer, None where there is none."""
        return self.layers[name].data if name in self.layers else None


class WhiteFits:
    """Fits the pupil to white frames, and remembers the last fit: typing must not repeat it."""

    def __init__(self) -> None:
        self._last: tuple[WhiteSource, WhiteFit] | None = None

    def of(self, source: WhiteSource) -> WhiteFit:
        """Return the fit (worker thread); raises `RequestError` as `fit_white` does."""
        if self._last is None or not source.same_as(self._last[0]):
            self._last = source, fit_white(source)
        return self._last[1]


def fit_white(source: WhiteSource) -> WhiteFit:
    """Fit the pupil to the mean lenslet of a light field's white frame (worker thread).

    Raises
    ------
    RequestError
        If the light field or its white frame cannot be used, or the optics do not explain it.
    """
    import_torch_gently()
    from napari_lfm.methods.lightfield_data import LightfieldData, prepare
    from napari_lfm.optics.psf import CellOptics
    from napari_lfm.optics.vignetting import fit_pupil

    request = resolve(source.state, source.layers, get_method(METHOD))
    if isinstance(request, list):
        first = request[0]
        raise RequestError(first.message, first.remedy)
    data = None
    for event in prepare(request):
        if isinstance(event, LightfieldData):
            data = event
    if data is None or data.white is None:
        raise RequestError("There is no white frame.", "Choose it on the 'Light field' panel.")
    (rows, columns), (ny, nx) = data.rectified.cells, data.rectified.cell_px
    cell = np.asarray(data.white.reshape(rows, ny, columns, nx).mean((0, 2)))
    pupil, misfit = fit_pupil(cell, CellOptics.of(data.microscope, data.n_pixels))
    if not pupil or misfit >= _WORST_FIT:
        raise RequestError(
            f"The white frame does not look like one of '{data.microscope.name}' ({misfit:.0%} of it is "
            "not explained).",
            "Check the microscope and the frame.",
        )
    return WhiteFit(tuple(round(v, 4) for v in pupil), misfit, data.n_pixels)
