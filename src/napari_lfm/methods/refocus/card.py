"""What the card of a refocusing model says: optics, pixels, range; and the card's entries for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.stack_scale import HIGH_PERCENTILE, LOW_PERCENTILE
from napari_lfm.optics.defocus import DefocusOptics

if TYPE_CHECKING:
    from napari_lfm.networks.card import ModelCard


@dataclass(frozen=True)
class RefocusDomain:
    """What a model was trained for.

    Attributes
    ----------
    optics : DefocusOptics
        The stated microscope; its depth is the middle of the trained range.
    pixel_um : float
    range_um : float
        Largest distance from the image's plane.
    step_um : float
        Distance of the planes that it was trained on.
    low_percentile, high_percentile : float
        Of the image, that become 0 and 1.
    confocal : bool
        Whether the confocal head was trained.
    """

    optics: DefocusOptics
    pixel_um: float
    range_um: float
    step_um: float
    low_percentile: float = LOW_PERCENTILE
    high_percentile: float = HIGH_PERCENTILE
    confocal: bool = True


def scalers_of(domain: RefocusDomain) -> dict[str, float]:
    """Return the card's ``scalers``; the rest of the optics is its microscope."""
    o = domain.optics
    return {
        "low_percentile": domain.low_percentile,
        "high_percentile": domain.high_percentile,
        "pixel_um": domain.pixel_um,
        "range_um": domain.range_um,
        "z_step_um": domain.step_um,
        "confocal": float(domain.confocal),
        "na": o.na,
        "wavelength_um": o.wavelength_um,
        "immersion_index": o.immersion_index,
        "sample_index": o.sample_index,
        "excitation_um": o.excitation_um,
        "depth_um": o.depth_um,
        "coverslip_error_um": o.coverslip_error_um,
        "pinhole_airy": o.pinhole_airy,
    }


def domain_of(card: ModelCard) -> RefocusDomain:
    """Return what a card says.

    Raises
    ------
    RequestError
        If an entry is missing.
    """
    s = card.scalers
    try:
        optics = DefocusOptics(
            na=s["na"],
            wavelength_um=s["wavelength_um"],
            immersion_index=s["immersion_index"],
            sample_index=s["sample_index"],
            excitation_um=s["excitation_um"],
            depth_um=s["depth_um"],
            coverslip_error_um=s["coverslip_error_um"],
            pinhole_airy=s["pinhole_airy"],
        )
        return RefocusDomain(
            optics,
            s["pixel_um"],
            s["range_um"],
            s["z_step_um"],
            s["low_percentile"],
            s["high_percentile"],
            s["confocal"] > 0,
        )
    except KeyError as error:
        raise RequestError(
            f"The card of '{card.id}' does not say {error}: it is no model for refocusing.",
            "Choose another model, or import this one again.",
        ) from None
