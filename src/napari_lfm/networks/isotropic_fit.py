"""Does a model of isotropic restoration suit a stack? It learnt one distance of planes, or many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_lfm.networks.fit import Fit

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard

LOW_PERCENTILE, HIGH_PERCENTILE = 2.0, 99.8
"""Of a stack's grey values, that become 0 and 1, where a card does not say."""
SAME_FACTOR = 0.1
"""Part by which planes may be farther apart or nearer together than the model's without a word."""


def factor_of(card: ModelCard) -> float:
    """Return the distance of planes, in lateral pixels, that a model learnt; 0: any, or nobody says."""
    return max(0.0, float(card.scalers.get("factor", 0.0)))


def resampling_of(card: ModelCard) -> Literal["modern", "csbdeep"]:
    """Return how slices come to square pixels before the model sees them."""
    return "csbdeep" if card.scalers.get("csbdeep", 0.0) > 0 else "modern"


def check_isotropic_card(card: ModelCard, factor: float) -> Fit:
    """Return whether a model suits a stack; never refused, for the data's look matters more.

    Parameters
    ----------
    card : ModelCard
    factor : float
        Distance of the stack's planes, lateral pixels.
    """
    trained = factor_of(card)
    if trained == 0 or abs(factor / trained - 1) <= SAME_FACTOR:
        return Fit("matches")
    return Fit(
        "resample",
        (f"The model was trained for planes {trained:.3g} pixels apart, and these are {factor:.3g} apart.",),
    )
