"""The point spread function of a run: from the optics, or from a stack that the user gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.widefield.given_psf import ChosenPsf, given_psf, normal
from napari_lfm.optics.confocal_psf import confocal_psf, gaussian_sigmas_um
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf, widefield_psf

if TYPE_CHECKING:
    from napari_lfm.methods.base import Request
    from napari_lfm.methods.widefield.frames import StackInfo
    from napari_lfm.methods.widefield.parameters import WidefieldParameters

_CONE_PX = 64
"""The cone of light is followed until it is so wide, in pixels, unless the reach is given."""
_AIRY_RADII = 5


def optics_of(request: Request, channel: int = 0) -> WidefieldOptics:
    """Return the optics: what the parameters say, else what the microscope does.

    Raises
    ------
    RequestError
        If something is missing, or makes no microscope.
    """
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    microscope = request.microscope
    objective = microscope.objective if microscope is not None else None
    na = p.na if p.na is not None else (objective.na if objective else None)
    immersion = p.immersion_index
    if immersion is None and objective is not None:
        immersion = objective.immersion_index
    wavelength = p.wavelength_um
    if wavelength is None and microscope is not None:
        wavelength = microscope.wavelength_um
    if p.channel_wavelengths_um:
        listed = p.channel_wavelengths_um
        wavelength = listed[min(channel, len(listed) - 1)]
    named = {"na": na, "wavelength_um": wavelength, "immersion_index": immersion}
    missing = [name for name, value in named.items() if value is None]
    if missing:
        raise RequestError(
            f"The optics are not known: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "Choose a microscope, give the values, or give a point spread function.",
        )
    assert na is not None
    assert wavelength is not None
    assert immersion is not None
    if na >= immersion:
        raise RequestError(
            f"The numerical aperture {na:g} must be below the immersion index {immersion:g}.",
            "Check the immersion medium (air 1.0, water 1.333, oil 1.515).",
        )
    sample = p.sample_index
    if sample is None:
        sample = microscope.sample_index if microscope is not None else immersion
    return WidefieldOptics(
        na=na,
        wavelength_um=wavelength,
        immersion_index=immersion,
        sample_index=sample,
        depth_um=p.depth_um,
    )


def model_half(optics: WidefieldOptics, info: StackInfo, parameters: WidefieldParameters) -> tuple[int, ...]:
    """Return how many voxels (z, y, x) the model reaches from its point."""
    dz, dy, dx = info.voxel_um
    sine = min(optics.na / optics.immersion_index, 0.999)
    tangent = sine / math.sqrt(1 - sine**2)
    airy = 0.61 * optics.wavelength_um / optics.na
    if parameters.psf_model == "gaussian":
        along, across = gaussian_sigmas_um(optics)
        reach, wide = 4 * along, 4 * across
    else:
        axial = 2 * optics.immersion_index * optics.wavelength_um / optics.na**2
        reach = max(_CONE_PX * math.sqrt(dy * dx) / tangent, 1.5 * axial)
        if parameters.psf_model == "confocal":
            # what comes from farther away is stopped by the pinhole
            reach = min(reach, 4 * axial * max(1.0, parameters.pinhole_airy))
        if parameters.psf_reach_um is not None:
            reach = parameters.psf_reach_um
        wide = 0.0
    z = 0 if info.flat else min(max(1, math.ceil(reach / dz)), max(1, info.shape[0] - 1))
    if wide == 0.0:
        wide = z * dz * tangent + _AIRY_RADII * airy
    return (z, *(min(max(1, math.ceil(wide / d)), n) for d, n in zip((dy, dx), info.shape[1:], strict=True)))


def choose_psf(request: Request, info: StackInfo, channel: int = 0) -> ChosenPsf:
    """Return the point spread function of a channel.

    Raises
    ------
    RequestError
        If there is neither a fitting stack nor enough optics.
    """
    given = request.inputs.get("psf")
    if given is not None:
        return given_psf(given, info, request.parameters.psf_kind)  # type: ignore[attr-defined]
    return model_psf(optics_of(request, channel), info, request.parameters)  # type: ignore[arg-type]


def model_psf(
    optics: WidefieldOptics,
    info: StackInfo,
    parameters: WidefieldParameters,
) -> ChosenPsf:
    """Return the point spread function of a microscope."""
    half = model_half(optics, info, parameters)
    shape: Any = tuple(2 * h + 1 for h in half)
    model = parameters.psf_model
    if model == "gaussian":
        along, across = gaussian_sigmas_um(optics)
        lines = [
            np.exp(-0.5 * ((np.arange(n) - n // 2) * d / s) ** 2)
            for n, d, s in zip(shape, info.voxel_um, (along, across, across), strict=True)
        ]
        values = lines[0][:, None, None] * lines[1][:, None] * lines[2]
        return ChosenPsf(normal(values), (f"Gaussian of {across:.3g} um across and {along:.3g} um along",))
    shift = _focus_planes(optics, info.voxel_um[0], model) if half[0] else 0
    tall = (shape[0] + 2 * abs(shift), *shape[1:])
    if model == "confocal":
        laser = replace(optics, wavelength_um=_excitation(parameters))
        values = confocal_psf(laser, optics, parameters.pinhole_airy, tall, info.voxel_um)
        name = f"Confocal, pinhole {parameters.pinhole_airy:g} Airy units"
    else:
        values = widefield_psf(optics, tall, info.voxel_um, model)
        name = "Wide field"
    # an aberrated spot is where it is seen: what is deconvolved stays in its place
    values = values[abs(shift) + shift : abs(shift) + shift + shape[0]]
    if info.falling[0]:  # the model is deeper with every plane
        values = values[::-1]
    note = (
        f"{name}: NA {optics.na:g}, {1000 * optics.wavelength_um:.0f} nm, "
        f"immersion {optics.immersion_index:g}, sample {optics.sample_index:g}"
    )
    return ChosenPsf(normal(values), (note,))


def _excitation(parameters: WidefieldParameters) -> float:
    if parameters.excitation_wavelength_um is None:
        raise RequestError(
            "The confocal model needs the wavelength of the laser: excitation_wavelength_um is missing.",
            "Give it, or choose another model.",
        )
    return parameters.excitation_wavelength_um


def _focus_planes(optics: WidefieldOptics, step_um: float, model: str) -> int:
    """Return by how many planes the brightest one is off the nominal focus."""
    if optics.depth_um == 0 or optics.sample_index == optics.immersion_index:
        return 0
    reach = max(2.0, 0.5 * optics.depth_um)
    z = np.arange(-reach, reach, 0.05)
    kind: Any = "auto" if model == "confocal" else model
    axis = radial_psf(optics, z, np.zeros(1), kind)[:, 0]
    return round(float(z[axis.argmax()]) / step_um)


def check_psf(request: Request, info: StackInfo) -> list[Problem]:
    """Return what is wrong with the point spread function or the optics, in plain words."""
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    if "psf" in request.inputs:
        try:
            chosen = choose_psf(request, info)
        except RequestError as error:
            return [Problem(error.message, error.remedy, field="psf")]
        out = [Problem(note, severity="info", field="psf") for note in chosen.notes]
        psf_step = spacing_of(request.inputs["psf"]).get("x")
        if psf_step and psf_step > 2 * info.voxel_um[2]:
            out.append(
                Problem(
                    f"The point spread function's pixels ({psf_step:.3g} um) are more than twice the image's "
                    f"({info.voxel_um[2]:.3g} um): what lies between them is interpolated.",
                    "Record the bead as finely as the image.",
                    severity="warning",
                    field="psf",
                )
            )
        return out
    try:
        optics = optics_of(request)
        if p.psf_model == "confocal":
            _excitation(p)
    except RequestError as error:
        return [Problem(error.message, error.remedy, field="microscope")]
    return _check_optics(optics, request, info)


def _check_optics(optics: WidefieldOptics, request: Request, info: StackInfo) -> list[Problem]:
    p: WidefieldParameters = request.parameters  # type: ignore[assignment]
    out: list[Problem] = []
    listed = p.channel_wavelengths_um
    if listed and len(listed) not in (1, info.channels):
        out.append(
            Problem(
                f"There are {len(listed)} wavelengths for {info.channels} channels.",
                "Give one for every channel.",
                field="channel_wavelengths_um",
            )
        )
    if request.microscope is None and p.sample_index is None:
        out.append(
            Problem(
                f"The sample's index is not given: that of the immersion ({optics.immersion_index:g}) is "
                "taken.",
                severity="info",
                field="sample_index",
            )
        )
    if optics.depth_um and optics.sample_index == optics.immersion_index:
        out.append(
            Problem(
                "Sample and immersion have the same index: depth makes no difference.",
                severity="info",
                field="depth_um",
            )
        )
    long = 2 * optics.immersion_index * optics.wavelength_um / optics.na**2
    if not info.flat and info.voxel_um[0] > 2 * long:
        out.append(
            Problem(
                f"Planes {info.voxel_um[0]:.3g} um apart are farther than a point is long ({long:.2g} um): "
                "each is worked on nearly by itself.",
                "Check the voxel size along z.",
                severity="warning",
                field="image",
            )
        )
    limit = 0.25 * optics.wavelength_um / optics.na
    if max(info.voxel_um[1:]) > 1.05 * 2 * limit:
        out.append(
            Problem(
                f"Pixels of {max(info.voxel_um[1:]):.3g} um are coarser than what the objective resolves "
                f"({2 * limit:.3g} um): little can be sharpened.",
                f"Check the voxel size; pixels of {limit:.2g} um would take in all there is.",
                severity="warning",
                field="image",
            )
        )
    return out
