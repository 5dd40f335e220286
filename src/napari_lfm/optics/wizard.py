"""A microscope from what is printed on the objective and on the array's data sheet."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_lfm.core.problems import Problem, RequestError, explain_validation
from napari_lfm.optics.engravings import (
    EMISSION_NM,
    IMMERSION_INDEX,
    SAMPLE_INDEX,
    TUBE_LENS_MM,
    Engraving,
    index_of,
    look_up,
    read_engraving,
)
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.sanity import physical_sanity

AGREE = 0.05
"""Relative difference up to which two statements of one length agree."""
HIGHEST_DRY_NA = 0.95
HIGHEST_WATER_NA = 1.27
"""Largest apertures sold for the medium; above them another one must have been meant."""


class DataSheet(BaseModel):
    """The questions of the wizard, in the words of the data sheets."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="my microscope", min_length=1, max_length=80)
    """What to call it."""
    objective: str = Field(min_length=2, max_length=200)
    """The text on the objective, such as '60x/1.20 W' or 'Plan Apo 40x/0.95 Corr'."""
    immersion: str | float | None = None
    """Medium (air, water, glycerol, silicone, oil) or its index, where the objective does not say."""
    brand: str | None = None
    """Maker of the objective, where its text does not say; decides the tube lens it was made for."""
    tube_lens_mm: float | None = Field(default=None, gt=10, le=1000)
    """Focal length of the tube lens in use; empty: the one the objective was made for."""
    sample: str | float = "water"
    """What the light comes from: water, tissue, glycerol, ... or its refractive index."""
    fluorophore: str | None = None
    """Dye or protein, for its emission wavelength."""
    wavelength_nm: float | None = Field(default=None, gt=0)
    """Emission wavelength (centre of the filter); it counts more than the dye."""
    pixel_um: float = Field(gt=0)
    """Camera pixel, from its data sheet."""
    relay_magnification: float | None = Field(default=None, gt=0.01, le=100)
    """Magnification from lenslet image to camera; empty: none (1), or from the measured pitch."""
    pitch_um: float | None = Field(default=None, gt=0)
    """Pitch of the lenslet array; empty for a wide-field microscope."""
    focal_length_um: float | None = Field(default=None, gt=0)
    """Focal length of the lenslets."""
    f_number: float | None = Field(default=None, gt=0)
    """f-number of the lenslets (focal length over pitch), instead of the focal length."""
    radius_of_curvature_um: float | None = Field(default=None, gt=0)
    """Radius of curvature (ROC) of plano-convex lenslets, instead of the focal length."""
    lens_index: float = Field(default=1.46, gt=1, lt=3)
    """Refractive index of the lenslets, used with the radius of curvature (fused silica 1.46)."""
    lattice: Literal["square", "hexagonal"] = "square"
    """Arrangement of the lenslets."""
    aperture: Literal["square", "circular"] = "square"
    """Lenslets that touch without gaps (square), or round ones with gaps between (circular)."""
    sensor_distance_um: float | None = Field(default=None, gt=0)
    """Distance from lenslets to the camera's image; empty: the focal length."""
    measured_pitch_px: float | None = Field(default=None, gt=0)
    """Pitch seen on the camera, in pixels, where it is known already."""


def microscope_from_data_sheet(
    sheet: DataSheet | None = None, **answers: Any
) -> tuple[Microscope, list[Problem]]:
    """Make a microscope from data-sheet figures, and say where they contradict each other.

    Parameters
    ----------
    sheet : DataSheet, optional
        The answers as one object.
    **answers
        Or the fields of `DataSheet` one by one.

    Returns
    -------
    microscope : Microscope
        Always a valid one: where two figures exclude each other, the likelier is used.
    problems : list of Problem
        ``error`` where the user must decide before it is saved, ``warning`` where figures disagree,
        ``info`` on what was assumed.

    Raises
    ------
    RequestError
        If something needed is missing or cannot be read.

    Examples
    --------
    >>> m, problems = microscope_from_data_sheet(
    ...     objective="60x/1.20 W", pixel_um=6.5, pitch_um=100, f_number=25, fluorophore="RFP"
    ... )
    >>> m.objective.magnification, m.lenslets.focal_length_um, [str(p) for p in problems]
    (60.0, 2500.0, [])
    """
    if sheet is None:
        try:
            sheet = DataSheet.model_validate(answers)
        except ValidationError as error:
            raise RequestError("The data sheet is not complete.", explain_validation(error)) from None
    found: list[Problem] = []
    engraved = read_engraving(sheet.objective)
    immersion = _immersion(sheet, engraved, found)
    array = _array(sheet, found)
    sample = index_of(sheet.sample, SAMPLE_INDEX, "sample medium")
    try:
        microscope = Microscope(
            name=sheet.name,
            objective=Objective(
                magnification=_magnification(sheet, engraved, found),
                na=_aperture(engraved, sample, array, found),
                immersion_index=immersion,
            ),
            lenslets=array,
            camera=Camera(pixel_um=sheet.pixel_um, relay_magnification=_relay(sheet, found)),
            wavelength_um=_wavelength_um(sheet, found),
            sample_index=sample,
            notes=f"Made with the wizard from '{sheet.objective}'.",
        )
    except ValidationError as error:
        raise RequestError("These figures make no microscope.", explain_validation(error)) from None
    return microscope, found + physical_sanity(microscope)


def _immersion(sheet: DataSheet, engraved: Engraving, found: list[Problem]) -> float:
    na, printed = engraved.na, engraved.immersion
    stated = sheet.immersion if sheet.immersion is not None else printed
    if stated is None and engraved.several_media:
        found.append(
            Problem(
                "The objective takes several immersion media; water was assumed.",
                "Choose the medium that its collar is set to.",
                "info",
                "immersion",
            )
        )
        stated = "water"
    index = 1.0 if stated is None else index_of(stated, IMMERSION_INDEX, "immersion medium")
    if sheet.immersion is not None and printed is not None and abs(index - IMMERSION_INDEX[printed]) > 0.03:
        found.append(
            Problem(
                f"The objective is engraved for {printed}, but the immersion given has index {index:g}.",
                "Check the medium: the wrong one costs sharpness.",
                "warning",
                "immersion",
            )
        )
    if na <= HIGHEST_DRY_NA or (index > 1.0 and na < index):
        return index
    likely = "water" if na <= HIGHEST_WATER_NA else "oil"
    if na >= IMMERSION_INDEX[likely]:
        raise RequestError(
            f"A numerical aperture of {na:g} is beyond every immersion medium known here.",
            "Check it, or give the immersion's refractive index.",
        )
    why = "no medium is printed" if stated is None else f"{stated} (index {index:g}) was given"
    found.append(
        Problem(
            f"A numerical aperture of {na:g} does not exist in air, and {why}; {likely} was assumed."
            if index == 1.0
            else f"A numerical aperture of {na:g} cannot be reached in a medium of index {index:g}; "
            f"{likely} was assumed.",
            f"Check the aperture, and choose the immersion medium ({likely}?).",
            "warning" if stated is None else "error",
            "immersion",
        )
    )
    return IMMERSION_INDEX[likely]


def _magnification(sheet: DataSheet, engraved: Engraving, found: list[Problem]) -> float:
    printed = engraved.magnification
    if sheet.tube_lens_mm is None:
        return printed
    if sheet.brand is None and engraved.brand is None:
        found.append(
            Problem(
                f"Whether a {sheet.tube_lens_mm:g} mm tube lens gives the printed {printed:g}x "
                "depends on the objective's maker, which is not known; the printed figure was used.",
                f"Choose the maker ({', '.join(TUBE_LENS_MM)}).",
                "warning",
                "brand",
            )
        )
        return printed
    brand = sheet.brand or engraved.brand or ""
    made_for = look_up(brand, TUBE_LENS_MM, "maker")
    actual = printed * sheet.tube_lens_mm / made_for
    if abs(actual / printed - 1) < 0.01:  # 164.5 and 165 mm are the same lens
        return printed
    found.append(
        Problem(
            f"{brand} objectives are made for a {made_for:g} mm tube lens; with {sheet.tube_lens_mm:g} mm "
            f"the {printed:g}x objective magnifies {actual:.3g}x, which was used.",
            "If the stand is of the same make as the objective, leave the tube lens empty.",
            "warning",
            "tube_lens_mm",
        )
    )
    return float(f"{actual:.5g}")


def _aperture(engraved: Engraving, sample: float, array: LensletArray | None, found: list[Problem]) -> float:
    if array is None or engraved.na < sample:
        return engraved.na
    usable = math.floor(99 * sample) / 100
    found.append(
        Problem(
            f"Of the aperture {engraved.na:g} only what is below the sample's index {sample:g} carries light "
            f"from inside the sample; {usable:g} was used.",
            "Check the sample medium.",
            "warning",
            "sample",
        )
    )
    return usable


def _wavelength_um(sheet: DataSheet, found: list[Problem]) -> float:
    dye = None if not sheet.fluorophore else look_up(sheet.fluorophore, EMISSION_NM, "fluorophore")
    given = sheet.wavelength_nm
    if given is not None and given < 2:
        found.append(
            Problem(
                f"A wavelength of {given:g} nm is no light; it was taken as {given:g} um, "
                f"which is {1000 * given:g} nm.",
                "Give it in nanometres.",
                "warning",
                "wavelength_nm",
            )
        )
        given *= 1000
    if given is None and dye is None:
        raise RequestError(
            "The emission wavelength is missing.", "Give it in nm, or name the fluorophore, such as GFP."
        )
    if given is not None and dye is not None and abs(given - dye) > 50:
        found.append(
            Problem(
                f"{sheet.fluorophore} emits around {dye:g} nm, but {given:g} nm was given and used.",
                "Give the emission wavelength, not the excitation.",
                "warning",
                "wavelength_nm",
            )
        )
    return (given if given is not None else float(dye or 0)) / 1000


def _array(sheet: DataSheet, found: list[Problem]) -> LensletArray | None:
    pitch = sheet.pitch_um
    lengths: dict[str, float] = {}
    if sheet.focal_length_um is not None:
        lengths["focal length"] = sheet.focal_length_um
    if sheet.f_number is not None and pitch is not None:
        lengths["f-number"] = sheet.f_number * pitch
    if sheet.radius_of_curvature_um is not None:
        # thin plano-convex lens: the lensmaker's equation with one flat face
        lengths["radius of curvature"] = sheet.radius_of_curvature_um / (sheet.lens_index - 1)
    if pitch is None:
        if lengths or sheet.f_number is not None:
            raise RequestError(
                "The pitch of the lenslet array is missing.",
                "Give it in micrometres, or leave the array empty for a wide-field microscope.",
            )
        return None
    if not lengths:
        raise RequestError(
            "The focal length of the lenslets is missing.",
            "Give it in micrometres, or their f-number, or their radius of curvature.",
        )
    source, length = next(iter(lengths.items()))
    for other, value in list(lengths.items())[1:]:
        if abs(value / length - 1) > AGREE:
            found.append(
                Problem(
                    f"By their {source} the lenslets have f = {length:.4g} um, by their {other} "
                    f"{value:.4g} um; the first was used.",
                    f"Check {source}, {other}, pitch and glass.",
                    "warning",
                    "focal_length_um",
                )
            )
    if length < pitch:
        found.append(
            Problem(
                f"A focal length of {length:g} um is shorter than the pitch of {pitch:g} um "
                f"(f/{length / pitch:.2g}).",
                "Check the units: both are in micrometres, 2.5 mm is 2500.",
                "error",
                "focal_length_um",
            )
        )
        # the likeliest slip is millimetres, and a valid microscope is owed either way
        length = 1000 * length if pitch <= 1000 * length else pitch
    try:
        return LensletArray(
            pitch_um=pitch,
            focal_length_um=length,
            lattice=sheet.lattice,
            aperture=sheet.aperture,
            sensor_distance_um=sheet.sensor_distance_um,
        )
    except ValidationError as error:
        raise RequestError("These figures make no lenslet array.", explain_validation(error)) from None


def _relay(sheet: DataSheet, found: list[Problem]) -> float:
    relay = sheet.relay_magnification
    if sheet.measured_pitch_px is None or sheet.pitch_um is None:
        return 1.0 if relay is None else relay
    seen = sheet.measured_pitch_px * sheet.pixel_um / sheet.pitch_um
    if relay is None and abs(seen - 1) > AGREE:
        found.append(
            Problem(
                f"A pitch of {sheet.measured_pitch_px:g} px means that the lenslet image is magnified "
                f"{seen:.3g}x onto the camera; such a relay was assumed.",
                "Check pixel size, binning and pitch if there is no relay.",
                "warning",
                "relay_magnification",
            )
        )
        return float(f"{seen:.5g}")
    expected = 1.0 if relay is None else relay
    if abs(seen / expected - 1) > AGREE:
        found.append(
            Problem(
                f"Pixel, relay and pitch predict {sheet.pitch_um * expected / sheet.pixel_um:.4g} px "
                f"per lenslet, but {sheet.measured_pitch_px:g} px were measured.",
                "Check the relay's magnification, the pixel size and binning.",
                "error",
                "relay_magnification",
            )
        )
    return expected
