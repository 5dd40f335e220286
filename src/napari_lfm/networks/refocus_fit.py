"""Does a model for refocusing fit a recording? It is told the optics, within what it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.fit import Fit

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.optics.microscope import Microscope

SAME_PIXEL = 0.12
"""Part by which pixels may be off and be taken as they are: so far the trainings draw them."""
PIXEL_RANGE = (0.2, 2.0)
"""Pixels over the model's that resampling can bridge."""
NOTED, REFUSED = 0.13, 0.3
"""Part by which aperture and wavelength may be off without a word, and at all."""
INDEX_REFUSED = 0.05
"""How far the immersion may be off: with another one it is another objective."""


def pixel_of(card: ModelCard) -> float:
    """Return the pixels that a model was trained on, um.

    Raises
    ------
    RequestError
        If the card does not say.
    """
    try:
        return float(card.scalers["pixel_um"])
    except KeyError:
        raise RequestError(
            f"The card of '{card.id}' does not say how large its pixels are.", "Get the model again."
        ) from None


def check_refocus_card(card: ModelCard, pixel_um: float, microscope: Microscope | None) -> Fit:
    """Return whether a model can refocus an image.

    Parameters
    ----------
    card : ModelCard
    pixel_um : float
        Of the image, in the sample.
    microscope : Microscope, optional
        The user's; None: as the card says.
    """
    trained = pixel_of(card)
    ratio = pixel_um / trained
    refused: list[str] = []
    reasons: list[str] = []
    if abs(ratio - 1) > SAME_PIXEL:
        said = f"The model was trained on pixels of {trained:g} um, and these are {pixel_um:.4g} um."
        low, high = PIXEL_RANGE
        (reasons if low <= ratio <= high else refused).append(said)
    if microscope is None:
        return _verdict(refused, reasons)
    if microscope.lenslets is not None:
        refused.append("The model was trained for a microscope without lenslets, and this one has them.")
    s = card.scalers
    for what, key, new in (
        ("a numerical aperture of", "na", microscope.objective.na),
        ("light of, in um,", "wavelength_um", microscope.wavelength_um),
    ):
        old = s.get(key)
        if old is None:
            continue
        off = abs(new / old - 1)
        said = f"The model was trained for {what} {old:g}, and this microscope has {new:g}."
        if off > REFUSED:
            refused.append(said)
        elif off > NOTED:
            reasons.append(said)
    old, new = s.get("immersion_index"), microscope.objective.immersion_index
    if old is not None and abs(new - old) > INDEX_REFUSED:
        refused.append(
            f"The model was trained for an immersion of index {old:g}, and this objective has {new:g}."
        )
    return _verdict(refused, reasons)


def _verdict(refused: list[str], reasons: list[str]) -> Fit:
    if refused:
        return Fit("refused", tuple(refused))
    return Fit("resample", tuple(reasons)) if reasons else Fit("matches")
