"""The models of the *Refocus* panel: the one whose pixels and aperture are nearest is taken by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lfm.networks.refocus_fit import check_refocus_card, pixel_of
from napari_lfm.widgets.models import Models

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.networks.fit import Fit
    from napari_lfm.optics.microscope import Microscope

METHOD = "refocus"


def wide_field(microscope: Microscope | None) -> Microscope | None:
    """Return the microscope, unless it is one for light fields: then its objective says nothing."""
    return None if microscope is None or microscope.lenslets is not None else microscope


class CardFit:
    """Holds cards against an image, in the shape in which `Models` asks methods."""

    input_kind = "image"

    def fit_card(self, card: ModelCard, microscope: Microscope | None, voxel_um: Any) -> Fit:
        """Return how a model suits; without a pixel size, as if it were the model's."""
        pixel = pixel_of(card) if voxel_um is None else float(voxel_um[-1])
        return check_refocus_card(card, pixel, wide_field(microscope))


class RefocusModels(Models):
    """Resampling does no harm here: it is said, and not asked for."""

    asks = False

    def begin(self) -> None:
        """Offer the models for refocusing."""
        self.use(METHOD, CardFit())
