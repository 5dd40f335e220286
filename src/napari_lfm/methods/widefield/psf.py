"""The point spread function of a run: from the optics, or from a stack that the user gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.optics.confocal_psf import confocal_psf, gaussian_sigmas_um, measured_psf
from napari_lfm.optics.widefield_psf import WidefieldOptics, radial_psf, widefield_psf

if TYPE_CHECKING:
    import xarray as xr

    from napari_lfm.methods.base import Request
    from napari_lfm.methods.widefield.frames import StackInfo
    from napari_lfm.methods.widefield.parameters import WidefieldParameters

Voxel = tuple[float, float, float]

_CONE_PX = 64
"""The cone of light is followed until it is so wide, in pixels, unless the reach is given."""
_AIRY_RADII = 5
_LEAST_SHARE = 1e-4
"""What stands round a measured point with less of its peak than this is cut away."""
_FINISHED = 1e-3
"""A point spread function whose rim is darker than this share of its peak is taken as finished."""


@dataclass(frozen=True)
class ChosenPsf:
    """A point spread function on the data's voxels, and what was done to get it.

    Attributes
    ----------
    values : ndarray, shape (z, y, x), float32
        The point is in the middle; sizes are odd.
    notes : tuple of str
    """

    values: np.ndarray
    notes: tuple[str, ...]


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
        return ChosenPsf(_normal(values), (f"Gaussian of {across:.3g} um across and {along:.3g} um along",))
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
    note = (
        f"{name}: NA {optics.na:g}, {1000 * optics.wavelength_um:.0f} nm, "
        f"immersion {optics.immersion_index:g}, sample {optics.sample_index:g}"
    )
    return ChosenPsf(_normal(values), (note,))


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


def given_psf(psf: xr.DataArray, info: StackInfo, kind: str = "auto") -> ChosenPsf:
    """Return a point spread function that the user gives, on the data's voxels.

    Raises
    ------
    RequestError
        If it has other axes than the data, holds no point, or negative values or no numbers.
    """
    values, voxel, notes = _opened(psf, info)
    rim = np.concatenate([np.take(values, (0, -1), axis).ravel() for axis in (1, 2)])
    finished = kind == "given" or (kind == "auto" and _is_finished(values, rim))
    if finished:
        out, more = _finished(values, voxel, info.voxel_um)
    elif len(values) == 1:
        out, more = _finished(np.maximum(values - np.median(rim), 0), voxel, info.voxel_um)
        more = ["its background was taken off", *more]
    else:
        out = _trimmed(measured_psf(values, voxel, info.voxel_um))
        more = ["its background was taken off and the bead put in the middle"]
        if not _same(voxel, info.voxel_um):
            more.append(_resampled_note(voxel, info.voxel_um))
    out, cut = _cut(out, info.shape)
    more += cut
    if more:
        notes.append(f"The point spread function: {'; '.join(more)}.")
    return ChosenPsf(_normal(out), tuple(notes))


def _is_finished(values: np.ndarray, rim: np.ndarray) -> bool:
    """Return whether it needs no background taken off: its rim is dark, its sum is 1, or it has no noise."""
    if np.median(rim) <= _FINISHED * values.max() or abs(float(values.sum()) - 1) < 1e-3:
        return True
    middle = [int(k) for k in np.unravel_index(int(values.argmax()), values.shape)]
    half = [min(c, n - 1 - c) for c, n in zip(middle, values.shape, strict=True)]
    part = values[tuple(slice(c - h, c + h + 1) for c, h in zip(middle, half, strict=True))]
    # noise is not the same on either side of the axis
    return min(half[1:]) > 2 and bool(np.abs(part - part[:, ::-1, ::-1]).sum() < _FINISHED * part.sum())


def _opened(psf: xr.DataArray, info: StackInfo) -> tuple[np.ndarray, Voxel, list[str]]:
    """Return the values (z, y, x), voxel size and first notes of what was given."""
    notes: list[str] = []
    image = psf.squeeze([d for d in psf.dims if d in ("t", "c") and psf.sizes[d] == 1])
    extra = [str(d) for d in image.dims if d not in ("z", "y", "x")]
    if extra or "y" not in image.dims or "x" not in image.dims:
        raise RequestError(
            f"The point spread function has the axes {' '.join(map(str, psf.dims))}.",
            "Give one stack (z, y, x) of one point.",
        )
    image = image.transpose(*(d for d in ("z", "y", "x") if d in image.dims))
    values = np.asarray(image.data, np.float64)
    values = values if values.ndim == 3 else values[None]
    if not np.isfinite(values).all():
        raise RequestError("The point spread function holds values that are no numbers.", "Replace them.")
    if values.max() <= 0:
        raise RequestError("The point spread function holds no light.", "Choose a stack of one point.")
    if values.min() < -1e-3 * values.max():
        raise RequestError(
            "The point spread function holds negative values, which no light has.",
            "Give it before a background is taken off, or cut it off at 0.",
        )
    values = np.maximum(values, 0)
    spacing = spacing_of(image)
    voxel: list[float] = []
    for d, mine in zip("zyx", info.voxel_um, strict=True):
        voxel.append(abs(spacing[d]) if spacing.get(d) else mine)
    missing = [d for d in map(str, image.dims) if not spacing.get(d) and image.sizes[d] > 1]
    if missing:
        notes.append(
            f"The point spread function does not say its voxel size along {', '.join(missing)}: "
            "the stack's is taken."
        )
    if info.flat and len(values) > 1:
        # the sharpest plane is the brightest pixel's
        plane = int(values.max((1, 2)).argmax())
        values = values[plane : plane + 1]
        voxel[0] = info.voxel_um[0]
        notes.append("The image is flat: the sharpest plane of the point spread function is taken.")
    if not info.flat and len(values) == 1:
        raise RequestError(
            "The point spread function is flat, and the image is a stack.",
            "Give a stack of a point with several planes, or a microscope.",
        )
    return values, (voxel[0], voxel[1], voxel[2]), notes


def _finished(values: np.ndarray, voxel: Voxel, wanted: Voxel) -> tuple[np.ndarray, list[str]]:
    """Return a finished point spread function with its point in the middle, on other voxels if need be."""
    centre = _point(values)
    if _same(voxel, wanted):
        whole = [round(c) for c in centre]
        half = [max(c, n - 1 - c) for c, n in zip(whole, values.shape, strict=True)]
        pad = [(h - c, h - (n - 1 - c)) for h, c, n in zip(half, whole, values.shape, strict=True)]
        return np.pad(values, pad), []
    ratio = [w / v for w, v in zip(wanted, voxel, strict=True)]
    # coarser voxels take the mean of what falls into them
    smooth = gaussian_filter(values, [math.sqrt(max(r**2 - 1, 0.0) / 12) for r in ratio], mode="constant")
    half = [math.floor(max(c, n - 1 - c) / r) for c, n, r in zip(centre, values.shape, ratio, strict=True)]
    grid = np.meshgrid(
        *(c + r * np.arange(-h, h + 1) for c, r, h in zip(centre, ratio, half, strict=True)), indexing="ij"
    )
    order = 3 if min(values.shape[1:]) > 3 else 1
    out = np.maximum(map_coordinates(smooth, grid, order=order, mode="constant"), 0)
    return out, [_resampled_note(voxel, wanted)]


def _point(values: np.ndarray) -> list[float]:
    """Return where the point is: the centroid of what is brighter than half the peak."""
    bright = np.where(values >= 0.5 * values.max(), values, 0.0)
    if np.count_nonzero(bright) > 0.5 * values.size:
        raise RequestError(
            "The point spread function holds no point: more than half of it is about equally bright.",
            "Give a stack of one small bright point.",
        )
    total, out = bright.sum(), []
    for axis, n in enumerate(values.shape):
        others = tuple(k for k in range(values.ndim) if k != axis)
        out.append(float((bright.sum(others) * np.arange(n)).sum() / total))
    return out


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Return a measured point without what noise left round it: its rim's level off, and dark rims cut."""
    rim = np.concatenate([np.take(values, (0, -1), axis).ravel() for axis in (1, 2)])
    smooth = gaussian_filter(values, (0, 1, 1))
    level = float(rim.mean())
    lit = smooth - level > max(_LEAST_SHARE * float(smooth.max()), 2 * float(smooth[:, (0, -1)].std()))
    out = np.maximum(values - level, 0)
    middle = [n // 2 for n in values.shape]
    half = []
    for axis, m in enumerate(middle):
        others = tuple(k for k in range(3) if k != axis)
        where = np.flatnonzero(lit.any(others))
        half.append(int(min(m, max(2, np.abs(where - m).max() + 1))) if len(where) else m)
    return out[tuple(slice(m - h, m + h + 1) for m, h in zip(middle, half, strict=True))]


def _cut(values: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Return what of it can join two voxels of the stack."""
    half = [
        min(n // 2, max(1, size - 1) if n > 1 else 0) for n, size in zip(values.shape, shape, strict=True)
    ]
    if all(h == n // 2 for h, n in zip(half, values.shape, strict=True)):
        return values, []
    out = values[tuple(slice(n // 2 - h, n // 2 + h + 1) for n, h in zip(values.shape, half, strict=True))]
    lost = 1 - float(out.sum() / values.sum())
    if lost < 1e-3:
        return out, []
    return out, [f"it is larger than the stack and was cut to fit, with {100 * lost:.1f} % of its light"]


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


def _same(a: Voxel, b: Voxel) -> bool:
    return all(abs(u / v - 1) < 0.005 for u, v in zip(a, b, strict=True))


def _resampled_note(voxel: Voxel, wanted: Voxel) -> str:
    first, second = (" x ".join(f"{v:.3g}" for v in size) for size in (voxel, wanted))
    return f"it was resampled from voxels of {first} um to the stack's {second} um"


def _normal(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / values.sum(dtype=np.float64), np.float32)
