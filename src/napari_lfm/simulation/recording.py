"""What a simulated recording is made of: optical errors, light and camera, and the frames that come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from napari_lfm.optics.microscope import Microscope

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from napari_lfm.lightfield.lattice import Lattice


@dataclass(frozen=True)
class OpticsError:
    """How far the true optics are off the microscope that the reconstruction is told.

    Attributes
    ----------
    na, focal_length, sample_index : float
        Relative errors: 0.01 is one percent.
    pupil : tuple of float
        Radial pupil transmission from the axis to the edge; empty for a clear pupil.
    """

    na: float = 0.0
    focal_length: float = 0.0
    sample_index: float = 0.0
    pupil: tuple[float, ...] = ()

    def applied(self, microscope: Microscope, pitch_um: float) -> Microscope:
        """Return the true microscope."""
        array = microscope.lenslets
        assert array is not None
        objective = microscope.objective
        record = microscope.model_dump()
        record["objective"]["na"] = objective.na * (1 + self.na)
        record["lenslets"]["pitch_um"] = pitch_um
        record["lenslets"]["focal_length_um"] = array.focal_length_um * (1 + self.focal_length)
        record["sample_index"] = microscope.sample_index * (1 + self.sample_index)
        return Microscope.model_validate(record)

    def possible(self, microscope: Microscope) -> OpticsError:
        """Return it without what no microscope has: an index below air's, an aperture above the index."""
        assert microscope.lenslets is not None
        for out in (self, replace(self, sample_index=0.0), replace(self, sample_index=0.0, na=0.0)):
            try:
                out.applied(microscope, microscope.lenslets.pitch_um)
            except ValueError:  # pydantic's is one
                continue
            return out
        return OpticsError(pupil=self.pupil)


SLIGHTLY_OFF = OpticsError(
    na=-0.01, focal_length=0.01, sample_index=0.003, pupil=(1, 1, 0.98, 0.95, 0.88, 0.7)
)
"""Errors of the size that a well-kept microscope has."""


@dataclass(frozen=True)
class Exposure:
    """Light and camera of one simulated recording.

    Attributes
    ----------
    peak_electrons : float
        Photo-electrons per pixel at the 99.9th percentile of the noise-free frame.
    background : float
        Uniform haze, as a share of the peak.
    white_electrons : float
        The same for the white frame.
    falloff : float
        Loss of illumination at the frame's corners.
    hot_pixels : float
        Share of pixels with a high dark current.
    noise : bool
        False: the expectation itself, in grey values, no noise and no rounding.
    """

    peak_electrons: float = 3000.0
    background: float = 0.02
    white_electrons: float = 20000.0
    falloff: float = 0.15
    hot_pixels: float = 1e-4
    noise: bool = True


class Recording(TypedDict):
    """What `simulate_lightfield` gives.

    ``raw``, ``white``, ``dark``: camera frames, dims ``y x``, grey values. ``truth``: the volume on the
    reconstruction's grid, dims ``z y x``. ``expected``: noise-free electrons of ``raw``. ``points``: beads or
    cell bodies, ``z_um, y_um, x_um``. ``lattice``: where the lenslets truly are. All in one world.
    """

    raw: xr.DataArray
    white: xr.DataArray
    dark: xr.DataArray
    truth: xr.DataArray
    expected: xr.DataArray
    points: pd.DataFrame
    lattice: Lattice
