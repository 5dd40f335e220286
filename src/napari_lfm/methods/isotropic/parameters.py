"""Parameters of the isotropic restoration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from napari_lfm.methods.base import Parameters
from napari_lfm.optics.axial_blur import PsfRule
from napari_lfm.training.config import Precision

BlurSource = Literal["estimate", "microscope", "measured"]
Architecture = Literal["", "isotropic", "isotropic-csbdeep", "isotropic-isonet1", "isotropic-isonet2"]
Profile = Literal["modern", "csbdeep"]
_ADVANCED: dict[str, Any] = {"advanced": True}


class IsotropicParameters(Parameters):
    """Parameters of the isotropic restoration."""

    train_minutes: float = Field(default=0.0, ge=0, le=600)
    """Minutes to train on this very stack before it is restored; 0: the model as it is."""
    train_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, json_schema_extra={**_ADVANCED, "none_text": "as the minutes hold"}
    )
    """Steps to train; without minutes they make a training repeatable."""
    factor: float = Field(default=0.0, ge=0, le=64)
    """How many lateral pixels the planes are apart, any number from 1; 0: as the voxel sizes say."""
    blur: BlurSource = "estimate"
    """Where the blur along z is taken from: estimated from the stack itself, the microscope's, or that of a
    measured point spread function (--psf on the command line)."""
    blur_um: float = Field(default=0.0, ge=0, le=1000)
    """The blur along z beyond the lateral one by hand, a standard deviation: sqrt(sigma_z^2 - sigma_x^2);
    0: see blur."""
    mean: Literal["geometric", "arithmetic"] = "geometric"
    """How slices along x and along y are joined; the geometric mean has nothing below the dark level."""
    uncertainty: bool = True
    """Also give how far slices along x and along y disagree."""
    consistency: bool = True
    """Blur and sample the result as the microscope does, and give what the recorded stack has beyond that."""
    probabilistic: bool = Field(default=False, json_schema_extra=_ADVANCED)
    """Train a network that also states how far it may be off."""
    architecture: Architecture = Field(default="", json_schema_extra=_ADVANCED)
    """Network that is trained; empty: that of the model it goes on from."""
    profile: Profile = Field(default="modern", json_schema_extra=_ADVANCED)
    """How slices are made coarse in the training: as recorded, with the camera's noise, or exactly as CSBDeep
    does, all channels together."""
    psf_rule: PsfRule = Field(default="exact", json_schema_extra=_ADVANCED)
    """How the blur follows from a point spread function: variances subtracted, or CSBDeep's formula."""
    precision: Precision = Field(default="auto", json_schema_extra=_ADVANCED)
    """Numbers that the network computes with; auto takes bfloat16 where the hardware multiplies it."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1, json_schema_extra=_ADVANCED)
    """Seed of everything random in the training."""

    @property
    def trains(self) -> bool:
        """Whether a training comes first."""
        return self.train_minutes > 0 or self.train_steps is not None
