"""The microscope: objective, lenslet array, camera and emission, with derived optics.

All lengths are micrometres. Presets and files live in `napari_lfm.optics.presets`.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Objective(_Part):
    """What is printed on the objective."""

    magnification: float = Field(gt=0, le=300)
    """Lateral magnification with the tube lens in use."""
    na: float = Field(gt=0, lt=2)
    """Numerical aperture."""
    immersion_index: float = Field(default=1.0, ge=1.0, lt=2.5)
    """Refractive index of the immersion medium (air 1.0, water 1.333, oil 1.518)."""

    @model_validator(mode="after")
    def _na_below_index(self) -> Self:
        if self.na >= self.immersion_index:
            raise ValueError(
                f"the numerical aperture {self.na:g} must be below the immersion index "
                f"{self.immersion_index:g}; check the immersion medium"
            )
        return self


class LensletArray(_Part):
    """The microlens array and where the sensor sits behind it."""

    pitch_um: float = Field(gt=1, le=5000)
    """Distance between neighbouring lenslet centres."""
    focal_length_um: float = Field(gt=10, le=1e6)
    """Focal length of one lenslet."""
    lattice: Literal["square", "hexagonal"] = "square"
    """Arrangement of the lenslets."""
    aperture: Literal["square", "circular"] = "square"
    """Shape of one lenslet's clear aperture; circular lenslets leave dark gaps."""
    sensor_distance_um: float | None = Field(default=None, gt=0)
    """Lenslet-to-sensor distance; empty means the focal length (a focused-at-infinity 1.0 camera)."""

    @property
    def distance_um(self) -> float:
        """Lenslet-to-sensor distance, the focal length unless set."""
        return self.focal_length_um if self.sensor_distance_um is None else self.sensor_distance_um

    @property
    def f_number(self) -> float:
        """Focal length over pitch."""
        return self.focal_length_um / self.pitch_um


class Camera(_Part):
    """The camera as seen at the lenslet image (behind any relay)."""

    pixel_um: float = Field(gt=0.1, le=100)
    """Pixel size on the chip."""
    relay_magnification: float = Field(default=1.0, gt=0.01, le=100)
    """Magnification of a relay between lenslet image and chip (1 when there is none)."""
    gain_e_per_count: float = Field(default=0.5, gt=0)
    """Electrons per grey value."""
    offset_counts: float = Field(default=100.0, ge=0)
    """Grey value without light; used when there is no dark frame."""
    read_noise_e: float = Field(default=1.6, ge=0)
    """Read noise, electrons rms."""
    bit_depth: int = Field(default=16, ge=8, le=32)
    """Bits per pixel; the saturation level is 2**bit_depth - 1."""

    @property
    def effective_pixel_um(self) -> float:
        """Pixel size at the lenslet image plane."""
        return self.pixel_um / self.relay_magnification


class Microscope(_Part):
    """One microscope; light-field ones have `lenslets`, wide-field ones do not."""

    name: str = Field(min_length=1, max_length=80)
    """Short name, used in menus and files."""
    objective: Objective
    lenslets: LensletArray | None = None
    """The lenslet array, none for a wide-field microscope."""
    camera: Camera
    wavelength_um: float = Field(gt=0.2, lt=2.0)
    """Vacuum emission wavelength."""
    sample_index: float = Field(default=1.33, ge=1.0, lt=2.5)
    """Refractive index of the sample medium."""
    pixels_per_lenslet: int | None = Field(default=None, ge=3, le=201)
    """Odd number N of pixels that a rectified lenslet gets; empty: nearest odd to the pitch."""
    notes: str = ""
    """Where the figures come from."""

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if self.objective.na >= self.sample_index and self.lenslets is not None:
            raise ValueError(
                f"the numerical aperture {self.objective.na:g} must be below the sample index "
                f"{self.sample_index:g}; light beyond it never leaves the sample"
            )
        if self.pixels_per_lenslet is not None and self.pixels_per_lenslet % 2 == 0:
            raise ValueError("pixels_per_lenslet must be odd, so that a pixel sits on the lenslet's axis")
        return self

    @property
    def object_pixel_um(self) -> float:
        """Camera pixel in object space: the scale of a raw layer."""
        return self.camera.effective_pixel_um / self.objective.magnification

    @property
    def nominal_pitch_px(self) -> float | None:
        """Expected lenslet pitch in raw camera pixels, None without lenslets."""
        if self.lenslets is None:
            return None
        return self.lenslets.pitch_um / self.camera.effective_pixel_um

    @property
    def lenslet_um(self) -> float | None:
        """Lenslet pitch in object space, None without lenslets."""
        return None if self.lenslets is None else self.lenslets.pitch_um / self.objective.magnification

    @property
    def n_pixels(self) -> int | None:
        """N: odd pixels per rectified lenslet."""
        if self.pixels_per_lenslet is not None or self.nominal_pitch_px is None:
            return self.pixels_per_lenslet
        return nearest_odd(self.nominal_pitch_px)

    @property
    def image_f_number(self) -> float:
        """f-number of the light at the native image plane, M / (2 NA)."""
        return self.objective.magnification / (2 * self.objective.na)

    @property
    def lateral_resolution_um(self) -> float:
        """Sparrow limit 0.47 lambda / NA of the objective alone."""
        return 0.47 * self.wavelength_um / self.objective.na

    @property
    def depth_of_field_um(self) -> float:
        """Depth over which a point stays within one lenslet (or one pixel, wide field).

        ``n lambda / NA^2 + n e / NA`` with the object-space sampling e (Inoue & Spring).
        """
        e = self.lenslet_um if self.lenslet_um is not None else self.object_pixel_um
        na, n = self.objective.na, self.sample_index
        return n * self.wavelength_um / na**2 + n * e / na

    @property
    def depth_range_um(self) -> float:
        """Half the depth range in which a point is still told apart to within one lenslet.

        One lenslet, seen from depth z, is an aperture of width ``p = lenslet_um``; its diffraction
        limit ``0.94 lambda |z| / (n p)`` (Sparrow) reaches p at ``z = n p^2 / (0.94 lambda)``. Beyond
        it a light field resolves no better than its lenslets. Wide field: half the depth of field.
        """
        if self.lenslet_um is None:
            return self.depth_of_field_um / 2
        return self.sample_index * self.lenslet_um**2 / (0.94 * self.wavelength_um)

    def lateral_resolution_at(self, z_um: float) -> float:
        """Return the smallest lateral distance told apart at depth `z_um`, in micrometres.

        With lenslets: the depth-dependent band limit of Broxton et al., Opt. Express 21, 25418
        (2013), ``0.94 lambda |z| / (n p)``, never below the objective's own limit. It starts at
        ``|z| = n p^2 / (2 lambda)``; nearer to the native plane, where each point is seen through a
        single lenslet, the limit is the lenslet itself. Wide field: the objective's limit.
        """
        p = self.lenslet_um
        if p is None:
            return self.lateral_resolution_um
        if abs(z_um) < self.sample_index * p**2 / (2 * self.wavelength_um):
            return p
        limit = 0.94 * self.wavelength_um * abs(z_um) / (self.sample_index * p)
        return max(self.lateral_resolution_um, limit)

    def field_of_view_um(self, shape_px: tuple[int, int]) -> tuple[float, float]:
        """Return the field (height, width) in the sample of a frame of `shape_px` raw pixels."""
        return shape_px[0] * self.object_pixel_um, shape_px[1] * self.object_pixel_um

    def max_half_angle(self) -> float:
        """Half angle of the light cone in the sample, radians."""
        return math.asin(min(self.objective.na / self.sample_index, 1.0))


def nearest_odd(value: float) -> int:
    """Return the odd integer nearest to `value`, at least 3."""
    return max(3, 2 * math.floor(value / 2) + 1)
