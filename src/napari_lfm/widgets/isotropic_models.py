"""The models of the *Restore isotropic* panel: the bundled one that suits, or none at all."""

from __future__ import annotations

import html

from napari_lfm.methods.isotropic.method import Isotropic
from napari_lfm.methods.isotropic.start import METHOD, NO_START, usual_model
from napari_lfm.widgets.model_choice import Offer, fit_html
from napari_lfm.widgets.models import Models
from napari_lfm.widgets.texts import coloured

_NONE = (
    "None is chosen. <b>Train and restore</b> begins from nothing; <b>Restore</b> needs one: choose or "
    "import it."
)


_AXES = 3


class IsotropicModels(Models):
    """What a training begins with, and what restores without one.

    A model of the user's is for the stack that it was trained on: it is taken only when it is chosen.
    """

    asks = False
    optics_count = False
    _usual = ""
    nothing = ("(none: train from nothing)", NO_START)

    def begin(self) -> None:
        """Offer the models for isotropic restoration."""
        self.use(METHOD, Isotropic())

    @property
    def key(self) -> str | None:
        """What a request calls the model."""
        offer = self.chosen
        return NO_START if offer is None else offer.key

    @property
    def chosen(self) -> Offer | None:
        """The model that is to run: the one that was chosen, else the usual one, else none."""
        wanted = self._wanted or self._usual
        return next((o for o in self.offers if wanted and wanted in (o.key, o.card.id)), None)

    def refresh(self) -> None:
        """Find out what is usual for the stack, and hold every model against it."""
        voxel_um = self._voxel_um() if self._voxel_um is not None else None
        known = voxel_um is not None and len(voxel_um) == _AXES
        entry = usual_model(voxel_um[0] / voxel_um[-1] if voxel_um is not None and known else 0.0)
        self._usual = "" if entry is None else entry.card.id
        super().refresh()

    def words(self) -> str:
        """Return what is chosen, and how it fits, as rich text."""
        offer = self.chosen
        if offer is None:
            return _NONE
        name = f"<b>{html.escape(offer.card.id)}</b>"
        if offer.verdict in ("refused", "broken", "remote"):
            return f"{name} {fit_html(offer)}"
        said = html.escape(" ".join(offer.reasons)) if offer.verdict == "resample" else ""
        whose = "your own." if offer.entry.source == "user" else "which came with napari-lfm."
        return f"{name}, {whose} {coloured(said, 'warning')}" if said else f"{name}, {whose}"
