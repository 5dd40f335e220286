"""Does a model for stacks fit a recording? Voxels can be resampled; the optics cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.fit import Fit

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard
    from napari_lfm.optics.microscope import Microscope

SAME_ACROSS, SAME_ALONG = 0.03, 0.05
"""Part by which voxels may be off and still be the model's."""
ACROSS_RANGE, ALONG_RANGE = (0.4, 2.0), (0.2, 4.5)
"""Voxels over the model's that resampling can bridge, across and along z."""
NOTED, REFUSED = 0.1, 0.3
"""Part by which aperture and wavelength may be off without a word, and at all."""


def voxel_of(card: ModelCard) -> tuple[float, float, float]:
    """Return the voxels (z, y, x) that a model was trained on, um.

    Raises
    ------
    RequestError
        If the card does not say.
    """
    try:
        z, y, x = (float(card.scalers[f"voxel_{axis}_um"]) for axis in "zyx")
    except KeyError:
        raise RequestError(
            f"The card of '{card.id}' does not say how large its voxels are.", "Get the model again."
        ) from None
    return z, y, x


def check_stack_card(
    card: ModelCard, voxel_um: tuple[float, float, float], microscope: Microscope | None
) -> Fit:
    """Return whether a model can be used on a stack.

    Parameters
    ----------
    card : ModelCard
    voxel_um : tuple of float
        Of the stack, (z, y, x).
    microscope : Microscope, optional
        The user's; only its objective and wavelength count.
    """
    trained = voxel_of(card)
    refused: list[str] = []
    reasons: list[str] = []
    for axis, own, model in zip("zyx", voxel_um, trained, strict=True):
        ratio = own / model
        low, high = ALONG_RANGE if axis == "z" else ACROSS_RANGE
        same = SAME_ALONG if axis == "z" else SAME_ACROSS
        if abs(ratio - 1) <= same:
            continue
        what = "planes" if axis == "z" else "pixels"
        said = f"The model was trained on {what} of {model:g} um, and these are {own:.4g} um."
        # with the same leeway: a camera binned twofold is not refused for a rounded pixel size
        bridged = (1 - same) * low <= ratio <= (1 + same) * high
        (reasons if bridged else refused).append(said)
    optics = card.optics
    if optics is not None and microscope is not None:
        for what, old, new in (
            ("a numerical aperture of", optics.objective.na, microscope.objective.na),
            ("light of, in um,", optics.wavelength_um, microscope.wavelength_um),
        ):
            off = abs(new / old - 1)
            said = f"The model was trained for {what} {old:g}, and this microscope has {new:g}."
            if off > REFUSED:
                refused.append(said)
            elif off > NOTED:
                reasons.append(said)
    # y and x say the same
    refused, reasons = list(dict.fromkeys(refused)), list(dict.fromkeys(reasons))
    if refused:
        return Fit("refused", tuple(refused))
    return Fit("resample", tuple(reasons)) if reasons else Fit("matches")
