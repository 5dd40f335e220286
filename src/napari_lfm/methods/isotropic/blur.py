"""The blur that a stack has along z beyond x and y: by hand, from the stack, the microscope, or a bead."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.optics.axial_blur import (
    anisotropic_sigma_um,
    csbdeep_kernel,
    gaussian_kernel,
    kernel_of_line,
    kernel_of_plane,
)

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.isotropic.parameters import BlurSource
    from napari_lfm.methods.isotropic.plan import Understood
    from napari_lfm.optics.axial_blur import PsfRule
    from napari_lfm.optics.axial_estimate import AxialBlur
    from napari_lfm.optics.microscope import Microscope

LOOKING_AT_BLUR = "Looking at the blur along z"
"""What a run says meanwhile."""
_FWHM = 2 * math.sqrt(2 * math.log(2))
_TWO_PER_FWHM = 2 / _FWHM
"""Standard deviation over the distance of points that lie two to a full width at half maximum."""
_MOST_SIGMA_PX = 200.0
_AXES = "zyx"


class BlurWish(Protocol):
    """What of a run's parameters, or of a training's wish, decides the blur."""

    @property
    def blur(self) -> BlurSource:
        """Where it comes from."""
        ...

    @property
    def blur_um(self) -> float:
        """By hand; 0: not."""
        ...

    @property
    def psf_rule(self) -> PsfRule:
        """How it follows from a point spread function."""
        ...


@dataclass(frozen=True, eq=False)
class ChosenBlur:
    """The blur of slices along z beyond that of lateral ones.

    Attributes
    ----------
    kernel : ndarray, shape (lateral, axial), float32
        In lateral pixels.
    sigma_um : float
        Its standard deviation along z, or that of the Gaussian as wide at half maximum.
    uncertainty_um : float or None
        One standard deviation; None where nothing tells.
    source : str
        ``given``, ``estimate``, ``assumed``, ``microscope`` or ``measured``.
    note : str
        What a user should know; may be empty.
    """

    kernel: np.ndarray
    sigma_um: float
    uncertainty_um: float | None
    source: str
    note: str = ""

    @property
    def sentence(self) -> str:
        """The same in words."""
        size = f"{self.sigma_um:.3g}"
        if self.uncertainty_um is not None:
            size += f" +- {self.uncertainty_um:.1g}"
        how = {
            "given": "as given",
            "estimate": "estimated from the stack",
            "assumed": "assumed",
            "microscope": "the microscope's",
            "measured": "of the measured point spread function",
        }[self.source]
        return f"Blur along z beyond x and y: sigma {size} um, {how}. {self.note}".strip()

    def record(self) -> dict[str, Any]:
        """Return the same for a record, JSON-ready."""
        return {
            "blur_um": self.sigma_um,
            "blur_uncertainty_um": self.uncertainty_um,
            "blur_source": self.source,
            "blur_note": self.note,
        }


def check_blur(wish: BlurWish, microscope: Microscope | None, psf: xr.DataArray | None) -> list[Problem]:
    """Return what keeps the blur from being found, without looking at the stack."""
    by_hand = wish.blur_um > 0
    if wish.psf_rule == "csbdeep" and (by_hand or wish.blur == "estimate"):
        what = "blur_um is one figure" if by_hand else "a stack tells their difference"
        return [
            Problem(
                f"CSBDeep's formula takes the widths along z and along x, and {what}.",
                "Take the blur from a microscope, or psf_rule = exact.",
                field="blur_um" if by_hand else "psf_rule",
            )
        ]
    if not by_hand and wish.blur == "microscope" and microscope is None:
        return [
            Problem(
                "The blur is to be the microscope's, and none is chosen.",
                "Choose a microscope, or let the blur be estimated.",
                field="microscope",
            )
        ]
    if not by_hand and wish.blur == "measured" and psf is None:
        return [
            Problem(
                "The blur is to be a measured one, and there is no point spread function.",
                "Give one (--psf on the command line), or let the blur be estimated.",
                field="psf",
            )
        ]
    if psf is not None and (by_hand or wish.blur != "measured"):
        said = "There is a point spread function, and the blur is not taken from it."
        remedy = "Leave blur_um out to use it." if by_hand else "Set blur to measured to use it."
        return [Problem(said, remedy, "info", "psf")]
    return []


def choose_blur(
    stack: np.ndarray,
    found: Understood,
    wish: BlurWish,
    microscope: Microscope | None = None,
    psf: xr.DataArray | None = None,
) -> ChosenBlur:
    """Return the blur of a stack.

    Parameters
    ----------
    stack : ndarray, shape (channels, z, y, x)
        As recorded; only looked at where the blur is estimated.
    found : Understood
    wish : BlurWish
    microscope : Microscope, optional
    psf : DataArray, dims ``z y x``, optional
        A recorded bead, or a finished point spread function.

    Raises
    ------
    RequestError
        If what it should be taken from is missing or makes no sense.
    """
    for problem in check_blur(wish, microscope, psf):
        if problem.severity == "error":
            raise RequestError(problem.message, problem.remedy)
    pixel_um = found.pixel_um
    if wish.blur_um > 0:
        return ChosenBlur(_gaussian(wish.blur_um, pixel_um), wish.blur_um, None, "given")
    if wish.blur == "microscope":
        assert microscope is not None
        return _of_microscope(microscope, pixel_um, wish.psf_rule)
    if wish.blur == "measured":
        assert psf is not None
        return _of_bead(psf, found, wish.psf_rule)
    return _of_stack(stack, found)


def _gaussian(sigma_um: float, pixel_um: float) -> np.ndarray:
    if sigma_um / pixel_um > _MOST_SIGMA_PX:
        raise RequestError(
            f"A blur of {sigma_um:g} um would be {sigma_um / pixel_um:.0f} pixels wide.",
            "Check the blur and the voxel size.",
        )
    return gaussian_kernel(sigma_um / pixel_um)


def _of_microscope(microscope: Microscope, pixel_um: float, rule: PsfRule) -> ChosenBlur:
    from napari_lfm.optics.confocal_psf import gaussian_sigmas_um
    from napari_lfm.optics.widefield_psf import WidefieldOptics

    along, across = gaussian_sigmas_um(WidefieldOptics.of(microscope))
    sigma = anisotropic_sigma_um(along, across, rule)
    kernel = _gaussian(sigma, pixel_um)
    if rule == "csbdeep":
        kernel = csbdeep_kernel(along / pixel_um, across / pixel_um)
    note = "A confocal microscope with a small pinhole blurs less along z, about 0.7 times."
    return ChosenBlur(kernel, sigma, None, "microscope", note)


def _of_bead(psf: xr.DataArray, found: Understood, rule: PsfRule) -> ChosenBlur:
    from dataclasses import replace

    from napari_lfm.methods.widefield.given_psf import given_psf

    pixel = found.pixel_um
    own = spacing_of(psf)
    lacks = {
        d: s for d, s in zip(_AXES, found.info.voxel_um, strict=True) if d in psf.dims and not own.get(d)
    }
    if lacks:
        psf = psf.assign_attrs(spacing={**psf.attrs.get("spacing", {}), **lacks})
    # onto cubes as large as the pixels, and not cut to the few planes that the stack may have
    shape = tuple(max(n, 4 * m) for n, m in zip(found.fine_shape, psf.shape[-3:], strict=True))
    info = replace(found.info, shape=shape, voxel_um=(pixel,) * 3, frames=1, channels=1)  # type: ignore[arg-type]
    chosen = given_psf(psf, info)
    make = kernel_of_line if rule == "exact" else kernel_of_plane
    kernel = make(chosen.values, (pixel,) * 3, pixel)
    notes = [n for n in chosen.notes if "does not say" in n]
    if lacks:
        axes = ", ".join(lacks)
        notes.append(f"It does not say its voxel size along {axes}: the stack's is taken.")
    sigma = _width_px(kernel.sum(0)) * pixel
    return ChosenBlur(kernel, sigma, None, "measured", " ".join(notes))


def _width_px(line: np.ndarray) -> float:
    """Return the standard deviation of the Gaussian as wide at half maximum."""
    half = float(line.max()) / 2
    above = np.flatnonzero(line >= half)
    first, last = int(above[0]), int(above[-1])
    left = first - (line[first] - half) / (line[first] - line[first - 1]) if first > 0 else -0.5
    right = last + 0.5
    if last + 1 < len(line):
        right = last + (line[last] - half) / (line[last] - line[last + 1])
    return float(right - left) / _FWHM


def _of_stack(stack: np.ndarray, found: Understood) -> ChosenBlur:
    from napari_lfm.optics.axial_estimate import estimate_axial_blur

    estimates = [estimate_axial_blur(channel, found.voxel_um) for channel in stack]
    known = [e for e in estimates if e.is_known and math.isfinite(e.uncertainty_um) and e.uncertainty_um > 0]
    if known:
        return _joined(known, found.pixel_um)
    rough = [e for e in estimates if e.is_known]
    if rough:  # a figure that parts of the stack do not agree on is better than none
        best = max(rough, key=lambda e: e.quality)
        return ChosenBlur(
            _gaussian(best.sigma_um, found.pixel_um), best.sigma_um, None, "estimate", best.note
        )
    # planes are usually set two to a full width at half maximum along z, and pixels laterally
    sigma = _TWO_PER_FWHM * found.pixel_um * math.sqrt(max(found.factor**2 - 1, 0.0))
    note = (
        f"{estimates[0].note} It is taken to be what planes as far apart as these suggest: two to the width "
        "of a point."
    )
    return ChosenBlur(_gaussian(sigma, found.pixel_um), sigma, None, "assumed", note)


def _joined(estimates: list[AxialBlur], pixel_um: float) -> ChosenBlur:
    """Return the mean of what the channels say, by their certainty."""
    weights = np.array([1 / e.uncertainty_um**2 for e in estimates])
    sigma = float(np.average([e.sigma_um for e in estimates], weights=weights))
    error = float(1 / np.sqrt(weights.sum()))
    if len(estimates) > 1:  # and no better than they agree
        spread = float(np.sqrt(np.average([(e.sigma_um - sigma) ** 2 for e in estimates], weights=weights)))
        error = max(error, spread / math.sqrt(len(estimates) - 1))
    best = min(estimates, key=lambda e: e.uncertainty_um / e.sigma_um)
    return ChosenBlur(_gaussian(sigma, pixel_um), sigma, error, "estimate", best.note)
