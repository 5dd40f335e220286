"""Point spread functions of wide-field and confocal microscopes.

Two models of one detection path. Scalar: Gibson and Lanni (J. Opt. Soc. Am. A 8, 1601 (1991)), whose integral
over the pupil is taken by a series of Bessel functions, fitted once and integrated exactly (Li, Xue, Blu,
J. Opt. Soc. Am. A 34, 1029 (2017)). Vectorial: Richards and Wolf (Proc. R. Soc. A 253, 358 (1959)), with the
same aberration in its phase; above an aperture of about 1 polarisation makes the spot wider than the scalar
model says. Both are averaged over the voxel's pixel where asked.

Signs: z is positive away from the coverslip, deeper in the sample; plane 0 is where the microscope is
focused at its design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import j0, j1, jv

from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

Model = Literal["auto", "scalar", "vectorial"]
VECTORIAL_FROM_NA = 1.0
_TERMS = 120
_NODES = 400
_SUB = 3
"""Points across a pixel that its mean is taken from."""


@dataclass(frozen=True)
class WidefieldOptics:
    """What a point's light passes on its way to the camera.

    Attributes
    ----------
    na : float
    wavelength_um : float
        In vacuum.
    immersion_index, coverslip_index, sample_index : float
    immersion_design_index, coverslip_design_index : float
        What the objective is made for.
    coverslip_um, coverslip_design_um, working_distance_um : float
        Thicknesses; the last is that of the immersion at the design.
    depth_um : float
        Of the point below the coverslip: where the sample's index is not the immersion's, deeper points are
        aberrated.
    """

    na: float
    wavelength_um: float
    immersion_index: float
    sample_index: float
    immersion_design_index: float | None = None
    coverslip_index: float = 1.515
    coverslip_design_index: float = 1.515
    coverslip_um: float = 170.0
    coverslip_design_um: float = 170.0
    working_distance_um: float = 150.0
    depth_um: float = 0.0

    @classmethod
    def of(cls, microscope: Microscope, depth_um: float = 0.0) -> WidefieldOptics:
        """Return the optics of a microscope."""
        objective = microscope.objective
        return cls(
            na=objective.na,
            wavelength_um=microscope.wavelength_um,
            immersion_index=objective.immersion_index,
            sample_index=microscope.sample_index,
            depth_um=depth_um,
        )

    @property
    def reach(self) -> float:
        """Share of the aperture that gets through every medium."""
        return min(1.0, 0.999 * min(self.immersion_index, self.sample_index, self.coverslip_index) / self.na)

    def path_um(self, share: np.ndarray, z_um: np.ndarray) -> np.ndarray:
        """Return the optical path difference (z, share) of pupil radii, in um (Gibson and Lanni, equation 4).

        Parameters
        ----------
        share : ndarray, shape (m,)
            Radii in the pupil, 1 at the nominal aperture.
        z_um : ndarray, shape (k,)
            Where the microscope is focused, from the point.
        """
        sine = self.na * np.asarray(share)

        def axial(index: float) -> np.ndarray:
            return np.sqrt(np.maximum(index**2 - sine**2, 0.0))

        design = self.immersion_index if self.immersion_design_index is None else self.immersion_design_index
        fixed = (
            self.depth_um * (axial(self.sample_index) - axial(self.immersion_index) * self._focal_shift)
            + self.coverslip_um * axial(self.coverslip_index)
            - self.coverslip_design_um * axial(self.coverslip_design_index)
            + self.working_distance_um * (axial(self.immersion_index) - axial(design))
        )
        return np.asarray(fixed - np.asarray(z_um)[:, None] * axial(self.immersion_index))

    @property
    def _focal_shift(self) -> float:
        """Stage movement per depth that keeps a point in paraxial focus."""
        return self.immersion_index / self.sample_index


def radial_psf(
    optics: WidefieldOptics, z_um: np.ndarray, radius_um: np.ndarray, model: Model = "auto"
) -> np.ndarray:
    """Return the intensity (z, radius) of a point, 1 at the focus of a perfect microscope.

    Parameters
    ----------
    optics : WidefieldOptics
    z_um, radius_um : ndarray
        Focus from the point, and distance from the axis, in the sample.
    model : {"auto", "scalar", "vectorial"}
        ``auto``: vectorial from an aperture of 1 on.
    """
    z, radius = np.atleast_1d(np.asarray(z_um, float)), np.atleast_1d(np.asarray(radius_um, float))
    vectorial = model == "vectorial" or (model == "auto" and optics.na >= VECTORIAL_FROM_NA)
    return _vectorial(optics, z, radius) if vectorial else _scalar(optics, z, radius)


def _scalar(optics: WidefieldOptics, z: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return ``|2 int_0^a exp(i k W) J0(k NA r p) p dp|^2`` by the Bessel series."""
    a, k = optics.reach, 2 * np.pi / optics.wavelength_um
    nodes = np.linspace(0, a, 6 * _TERMS)
    path = optics.path_um(nodes, z) - optics.path_um(np.zeros(1), z)
    pupil = np.exp(1j * k * path)
    # frequencies as high as the phase is steep
    steepest = float(np.abs(np.gradient(k * path, nodes, axis=1)).max(initial=1.0))
    terms = int(min(max(_TERMS, 0.6 * steepest), 4 * _TERMS))
    scale = np.linspace(0, max(1.2 * steepest, 3 * np.pi), terms) + 1e-3
    basis = j0(np.outer(nodes, scale))
    weights, *_ = np.linalg.lstsq(basis, pupil.T, rcond=1e-10)  # term, z
    beta = (k * optics.na * radius)[:, None]
    # int_0^a J0(s p) J0(b p) p dp = a (s J1(s a) J0(b a) - b J0(s a) J1(b a)) / (s^2 - b^2)
    away = scale**2 - beta**2
    close = np.abs(away) < 1e-6 * np.maximum(scale**2, 1.0)
    top = scale * j1(scale * a) * j0(beta * a) - beta * j0(scale * a) * j1(beta * a)
    alike = 0.5 * a**2 * (j0(scale * a) ** 2 + j1(scale * a) ** 2)
    integral = np.where(close, alike, a * top / np.where(close, 1.0, away))  # radius, term
    return np.asarray(np.abs(2 * (integral @ weights).T) ** 2)


def _vectorial(optics: WidefieldOptics, z: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return ``|I0|^2 + 2 |I1|^2 + |I2|^2`` by Gauss-Legendre quadrature over the pupil."""
    a, k = optics.reach, 2 * np.pi / optics.wavelength_um
    x, weight = np.polynomial.legendre.leggauss(_NODES)
    share, weight = 0.5 * a * (x + 1), 0.5 * a * weight
    sine = optics.na * share / optics.immersion_index
    cosine = np.sqrt(1 - sine**2)
    phase = np.exp(1j * k * (optics.path_um(share, z) - optics.path_um(np.zeros(1), z)))
    # sin(t) dt = (NA / n)^2 p dp / cos(t), and the sine condition's apodisation sqrt(cos(t))
    light = phase * (weight * share / np.sqrt(cosine))
    at = np.outer(share, k * optics.na * radius)
    field0 = (light * (1 + cosine)) @ j0(at)
    field1 = (light * sine) @ j1(at)
    field2 = (light * (1 - cosine)) @ jv(2, at)
    perfect = float((weight * share / np.sqrt(cosine) * (1 + cosine)).sum())
    return np.asarray((np.abs(field0) ** 2 + 2 * np.abs(field1) ** 2 + np.abs(field2) ** 2) / perfect**2)


def widefield_psf(
    optics: WidefieldOptics,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    model: Model = "auto",
    pixel_mean: bool = True,
    focus_um: float = 0.0,
) -> np.ndarray:
    """Return a wide-field point spread function.

    Parameters
    ----------
    optics : WidefieldOptics
    shape : tuple of int
        (z, y, x); the point lies in the middle voxel, ``(n - 1) // 2`` of every axis.
    voxel_um : tuple of float
        (z, y, x).
    model : {"auto", "scalar", "vectorial"}
    pixel_mean : bool
        Average over the pixel's area, as a camera does.
    focus_um : float
        Where the middle plane is focused, from the point.

    Returns
    -------
    ndarray, shape (z, y, x), float32
        With a sum of 1.

    Raises
    ------
    RequestError
        If shape or voxels make no stack.
    """
    if min(shape) < 1 or min(voxel_um) <= 0:
        raise RequestError(
            f"A stack of {shape} voxels of {voxel_um} um cannot be computed.",
            "Give three sizes of at least one, and three voxel sizes above 0.",
        )
    z = (np.arange(shape[0]) - (shape[0] - 1) // 2) * voxel_um[0] + focus_um
    sub = ((np.arange(_SUB) + 0.5) / _SUB - 0.5) if pixel_mean else np.zeros(1)
    y, x = (
        ((np.arange(n) - (n - 1) // 2)[:, None] + sub).ravel() * step
        for n, step in zip(shape[1:], voxel_um[1:], strict=True)
    )
    away = np.hypot(y[:, None], x)
    step = min(voxel_um[1:]) / (2 * _SUB)
    radius = np.arange(0, away.max() + 3 * step, step)
    table = radial_psf(optics, z, radius, model)
    at = away / step
    low = at.astype(int)
    share = at - low
    out = np.empty(shape, np.float32)
    for k, line in enumerate(table):  # plane by plane: a table of all would be large
        plane = (1 - share) * line[low] + share * line[low + 1]
        out[k] = plane.reshape(shape[1], len(sub), shape[2], len(sub)).mean((1, 3))
    return out / float(out.sum(dtype=np.float64))
