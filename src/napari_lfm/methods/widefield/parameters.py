"""Parameters of the wide-field deconvolution."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from napari_lfm.methods.base import Parameters

PsfModel = Literal["auto", "scalar", "vectorial", "gaussian", "confocal"]
_FROM_MICROSCOPE = {"none_text": "from the microscope"}
_ADVANCED: dict[str, Any] = {"advanced": True}


def _list_of_numbers(value: Any) -> Any:
    """Return the entries of a text like ``0.52, 0.6``; an empty text is no list."""
    if not isinstance(value, str):
        return value
    return [part for part in value.replace(";", ",").split(",") if part.strip()] or None


Wavelength = Annotated[float, Field(gt=0.2, lt=2.0)]


class WidefieldParameters(Parameters):
    """Parameters of the wide-field deconvolution."""

    iterations: int = Field(default=20, ge=1, le=10000)
    """Richardson-Lucy iterations; exactly that many unless auto stop is on. More are sharper and noisier."""
    auto_stop: bool = False
    """Stop by itself when what is left over is what noise explains, or no longer falls."""
    accelerate: bool = False
    """Extrapolate along the last steps (Biggs & Andrews): about the same result in half the iterations."""
    psf_model: PsfModel = "auto"
    """Model of the point spread function where none is given; auto: vectorial from an aperture of 1 on, else
    scalar (Gibson-Lanni)."""
    na: float | None = Field(default=None, gt=0, lt=2, json_schema_extra={**_FROM_MICROSCOPE})
    """Numerical aperture of the objective."""
    wavelength_um: float | None = Field(default=None, gt=0.2, lt=2.0, json_schema_extra={**_FROM_MICROSCOPE})
    """Wavelength of the fluorescence, in vacuum."""
    immersion_index: float | None = Field(
        default=None, ge=1.0, lt=2.5, json_schema_extra={**_FROM_MICROSCOPE}
    )
    """Refractive index of the immersion medium (air 1.0, water 1.333, oil 1.515)."""
    sample_index: float | None = Field(default=None, ge=1.0, lt=2.5, json_schema_extra={**_FROM_MICROSCOPE})
    """Refractive index of the sample's medium; without a microscope that of the immersion."""
    depth_um: float = Field(default=0.0, ge=0, le=2000, json_schema_extra=_ADVANCED)
    """Depth below the coverslip that the model's aberration is computed for."""
    pinhole_airy: float = Field(default=1.0, gt=0, le=100, json_schema_extra=_ADVANCED)
    """Diameter of the pinhole in Airy units, for the confocal model."""
    excitation_wavelength_um: float | None = Field(
        default=None, gt=0.2, lt=2.0, json_schema_extra={**_ADVANCED}
    )
    """Wavelength of the laser, for the confocal model."""
    channel_wavelengths_um: Annotated[tuple[Wavelength, ...] | None, BeforeValidator(_list_of_numbers)] = (
        Field(default=None, json_schema_extra={**_ADVANCED, "none_text": "one for all"})
    )
    """Wavelength of every channel, e.g. 0.46, 0.52, 0.61; empty: the same for all."""
    psf_reach_um: float | None = Field(
        default=None, gt=0, le=1000, json_schema_extra={**_ADVANCED, "none_text": "automatic"}
    )
    """How far above and below a point the model follows its light. Automatic: until the cone of light is 64
    pixels in radius; more takes haze from farther away into account, and more time and memory."""
    psf_kind: Literal["auto", "bead", "given"] = Field(default="auto", json_schema_extra=_ADVANCED)
    """What a point spread function of your own is: a recorded bead, whose background is taken off, or one
    that is finished. Auto: finished where its rim is dark, its sum is 1, or it has no noise."""
    total_variation: float = Field(default=0.0, ge=0, le=0.1, json_schema_extra=_ADVANCED)
    """Weight of the total-variation prior, 0 for none; 0.002 calms noise and keeps edges."""
    background_counts: float | None = Field(
        default=None, ge=0, le=1e9, json_schema_extra={"none_text": "estimated"}
    )
    """Even background with the camera's offset, in grey values; empty: estimated for every frame."""
    masked_borders: bool = Field(default=True, json_schema_extra=_ADVANCED)
    """Take the surroundings of the stack for unobserved. Off: they count as dark, as in most programs, and
    what lies near the border comes out wrong."""
