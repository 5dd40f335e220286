"""What a registration finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_lfm.training.registration_grid import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

Vector = tuple[float, float, float]
Method = Literal["psf", "correlation"]
TITLES = {"psf": "point spread function", "correlation": "correlation"}


@dataclass(frozen=True)
class Estimate:
    """A shift by one method.

    Attributes
    ----------
    method : {"psf", "correlation"}
    shift_um, shift_voxels : (z, y, x)
        As in `Registration`.
    confidence : float
        0 (another shift is as likely) to 1 (no other comes near).
    profile_um, profile : ndarray, shape (n,)
        The estimate's evidence for shifts along z through its peak, highest 1.
    """

    method: Method
    shift_um: Vector
    shift_voxels: Vector
    confidence: float
    profile_um: np.ndarray
    profile: np.ndarray


@dataclass(frozen=True)
class Registration:
    """How a moving stack comes to lie upon a fixed one.

    A place p of the fixed stack is shown by ``c + m R (p - shift - c)`` of the moving one, with the
    magnification m, the rotation R from x towards y, and c, `centre_um`.

    Attributes
    ----------
    shift_um : (z, y, x)
        To be added to the moving stack's coordinates, micrometres.
    shift_voxels : (z, y, x)
        The same in voxels of the fixed stack.
    rotation_deg, magnification : float
        Of the moving stack's content against the fixed one's; 0 and 1 unless they were looked for.
    centre_um : (y, x)
        What it is turned about.
    estimates : tuple of Estimate
        By the point spread function, and by correlation.
    agreed : bool
        Whether both lie within the tolerance on every axis.
    accepted : bool
        Whether they agree, and both are sure enough.
    reason : str
        One sentence: why it was accepted or not.
    notes : tuple of str
        What was made to fit before.
    psf : xarray.DataArray
        The estimated point spread function around its peak; its coordinates are displacements of the moving
        stack's content, um.
    z_um : ndarray, shape (n,)
        Planes of the fixed stack that were compared.
    correlation_before, correlation_after : ndarray, shape (n,)
        Of each of them with the moving stack, without haze; NaN where that has no such plane.
    """

    shift_um: Vector
    shift_voxels: Vector
    rotation_deg: float
    magnification: float
    centre_um: tuple[float, float]
    estimates: tuple[Estimate, Estimate]
    agreed: bool
    accepted: bool
    reason: str
    notes: tuple[str, ...]
    psf: xr.DataArray
    z_um: np.ndarray
    correlation_before: np.ndarray
    correlation_after: np.ndarray

    @property
    def turn(self) -> Turn:
        """Rotation and magnification."""
        return Turn(self.rotation_deg, self.magnification, self.centre_um)

    def moved_by(self, shift_um: Sequence[float], reason: str = "Moved by hand.") -> Registration:
        """Return the registration with another shift, accepted by a person."""
        z, y, x = (float(s) for s in shift_um)
        voxel = self.psf.attrs["spacing"]
        voxels = z / voxel["z"], y / voxel["y"], x / voxel["x"]
        return replace(self, shift_um=(z, y, x), shift_voxels=voxels, accepted=True, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Return the figures, for records and tables."""
        return {
            "shift_um": [round(s, 4) for s in self.shift_um],
            "shift_voxels": [round(s, 3) for s in self.shift_voxels],
            "rotation_deg": round(self.rotation_deg, 4),
            "magnification": round(self.magnification, 5),
            "centre_um": [round(c, 4) for c in self.centre_um],
            "estimates": {
                e.method: {
                    "shift_voxels": [round(s, 3) for s in e.shift_voxels],
                    "confidence": round(e.confidence, 3),
                }
                for e in self.estimates
            },
            "agreed": self.agreed,
            "accepted": self.accepted,
            "reason": self.reason,
            "notes": list(self.notes),
            "correlation_before": round(float(np.nanmean(self.correlation_before)), 4),
            "correlation_after": round(float(np.nanmean(self.correlation_after)), 4),
        }
