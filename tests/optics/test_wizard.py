from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.engravings import read_engraving
from napari_lfm.optics.presets import load_microscope
from napari_lfm.optics.wizard import DataSheet, microscope_from_data_sheet

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope

OBJECTIVES = [
    ("60x/1.20 W", 60, 1.2, "water", None),
    ("Plan Apo 40x/0.95 Corr", 40, 0.95, None, None),
    ("63x/1.4 Oil", 63, 1.4, "oil", None),
    ("HC PL APO 25x/0.95 W", 25, 0.95, "water", "Leica"),
    ("CFI Apo LWD Lambda S 40XC WI 1.15", 40, 1.15, "water", "Nikon"),
    ("UPlanSApo 60x/1.20 W", 60, 1.2, "water", "Olympus"),
    ("LUMPlanFL N 40x/0.80 W ∞/0/FN26.5", 40, 0.8, "water", "Olympus"),
    ("XLUMPLFLN 20XW NA 1.00", 20, 1.0, "water", "Olympus"),
    ("Plan-Apochromat 20x/0.8 M27", 20, 0.8, None, "Zeiss"),
    ("EC Plan-Neofluar 40x/1.30 Oil DIC", 40, 1.3, "oil", "Zeiss"),
    ("N PLAN 10X 0.25 NA", 10, 0.25, None, "Leica"),
    ("CFI75 LWD 16X W 0.80 NA", 16, 0.8, "water", "Nikon"),
    ("CFI Plan Apo Lambda 20x/0.75 ∞/0.17 WD 1.0", 20, 0.75, None, "Nikon"),
    ("20x WD 2.0 mm NA 0.45", 20, 0.45, None, None),
    ("UPLSAPO 30x/1.05 Sil", 30, 1.05, "silicone", "Olympus"),
    ("63x/1.3 Glyc", 63, 1.3, "glycerol", None),
    ("22.2x/0.5", 22.2, 0.5, None, None),
    ("100x/1,49 Oil", 100, 1.49, "oil", None),
    ("60×/1.2 WI", 60, 1.2, "water", None),
    ("S Fluor 20x/0.75", 20, 0.75, None, None),
    ("60x Plan Apo VC Oil, NA 1.4", 60, 1.4, "oil", None),
]


@pytest.mark.parametrize(("text", "magnification", "na", "immersion", "brand"), OBJECTIVES)
def test_objectives_are_read(
    text: str, magnification: float, na: float, immersion: str | None, brand: str | None
) -> None:
    found = read_engraving(text)
    assert (found.magnification, found.na, found.immersion, found.brand) == (
        magnification,
        na,
        immersion,
        brand,
    )
    assert not found.several_media


def test_a_collar_for_several_media_is_noticed() -> None:
    assert read_engraving("LD LCI Plan-Apochromat 25x/0.8 Imm Corr").several_media


@pytest.mark.parametrize(
    ("text", "says"), [("Plan Apo 1.4 Oil", "magnification"), ("Plan Fluor 10x ∞/0.17", "aperture")]
)
def test_unreadable_objectives_are_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        read_engraving(text)


def ask(**changes: Any) -> tuple[Microscope, dict[str, str], str]:
    """Return the microscope, severity by field, and all text, for a sound 60x water set-up with changes."""
    answers = {
        "objective": "Plan Apo 60x/1.20 W",
        "pixel_um": 6.5,
        "pitch_um": 100,
        "focal_length_um": 2500,
        "wavelength_nm": 593,
        **changes,
    }
    m, problems = microscope_from_data_sheet(**{k: v for k, v in answers.items() if v is not None})
    return m, {p.field: p.severity for p in problems}, " ".join(map(str, problems))


def test_the_vesicle_microscope_from_its_data_sheets() -> None:
    m, problems, _ = ask(sample=1.35, name="mine")
    preset = load_microscope("mbl-60x1.2w")
    assert problems == {}
    assert (m.objective, m.lenslets, m.sample_index, m.wavelength_um) == (
        preset.objective,
        preset.lenslets,
        preset.sample_index,
        preset.wavelength_um,
    )
    assert m.name == "mine"


def test_a_sheet_object_does_the_same() -> None:
    sheet = DataSheet(objective="20x/0.8", pixel_um=6.5, fluorophore="egfp")
    m, _ = microscope_from_data_sheet(sheet)
    assert m.lenslets is None
    assert m.wavelength_um == pytest.approx(0.509)
    assert m.objective.immersion_index == 1.0


@pytest.mark.parametrize(
    "array",
    [
        {"focal_length_um": None, "f_number": 25},
        {"focal_length_um": None, "radius_of_curvature_um": 1150, "lens_index": 1.46},
        {"f_number": 25.4, "radius_of_curvature_um": 1160},
    ],
)
def test_ways_to_give_the_focal_length(array: dict[str, Any]) -> None:
    m, problems, _ = ask(**array)
    assert m.lenslets is not None
    assert m.lenslets.focal_length_um == pytest.approx(2500, rel=0.01)
    assert problems == {}


def test_statements_of_the_focal_length_that_disagree() -> None:
    m, problems, text = ask(radius_of_curvature_um=2500)
    assert m.lenslets is not None
    assert m.lenslets.focal_length_um == 2500
    assert problems == {"focal_length_um": "warning"}
    assert "5435 um" in text


def test_millimetres_for_micrometres() -> None:
    m, problems, text = ask(focal_length_um=2.5)
    assert m.lenslets is not None
    assert m.lenslets.focal_length_um == 2500
    assert problems["focal_length_um"] == "error"
    assert "2.5 mm is 2500" in text


def test_high_aperture_without_a_medium() -> None:
    m, problems, text = ask(objective="60x/1.2")
    assert m.objective.immersion_index == 1.333
    assert problems == {"immersion": "warning"}
    assert "no medium is printed; water was assumed" in text
    m, _, _ = ask(objective="60x/1.4", lattice="square", sample="oil")
    assert m.objective.immersion_index == 1.518


def test_high_aperture_in_air_is_an_error_but_still_a_microscope() -> None:
    m, problems, _ = ask(immersion="air")
    assert m.objective.immersion_index == 1.333
    assert problems == {"immersion": "error"}


def test_oil_aperture_in_water() -> None:
    m, problems, text = ask(objective="60x/1.4 W", sample="oil")
    assert m.objective.immersion_index == 1.518
    assert problems["immersion"] == "error"
    assert "cannot be reached in a medium of index 1.333" in text


def test_the_given_medium_against_the_engraved_one() -> None:
    m, problems, text = ask(objective="40x/0.8 W", immersion="oil")
    assert m.objective.immersion_index == 1.518
    assert problems["immersion"] == "warning"
    assert "engraved for water" in text


def test_an_aperture_beyond_every_medium() -> None:
    with pytest.raises(RequestError, match="beyond every immersion medium"):
        ask(objective="100x/1.65")
    m, _, _ = ask(objective="100x/1.65", immersion=1.78, sample=1.78)
    assert m.objective.immersion_index == 1.78


def test_the_sample_limits_the_aperture() -> None:
    m, problems, _ = ask(objective="100x/1.49 Oil", sample="water")
    assert m.objective.na == pytest.approx(1.31)
    assert problems["sample"] == "warning"
    wide, problems, _ = ask(objective="100x/1.49 Oil", pitch_um=None, focal_length_um=None)
    assert wide.objective.na == 1.49
    assert problems["sample_index"] == "warning"


@pytest.mark.parametrize(
    ("objective", "brand", "tube", "actual"),
    [
        ("CFI Plan Apo 40x/0.95", None, 180, 36.0),
        ("UPlanSApo 40x/0.95", None, 200, 44.444),
        ("Plan-Apochromat 40x/0.95", None, 200, 48.632),
        ("Plan-Apochromat 40x/0.95", None, 165, 40.0),
        ("Plan Apo 40x/0.95", "leica", 180, 36.0),
        ("Plan Apo 40x/0.95", "nikon", 200, 40.0),
    ],
)
def test_tube_lenses(objective: str, brand: str | None, tube: float, actual: float) -> None:
    m, problems, text = ask(objective=objective, brand=brand, tube_lens_mm=tube)
    assert m.objective.magnification == pytest.approx(actual, abs=1e-3)
    assert problems.get("tube_lens_mm") == (None if actual == 40 else "warning")
    assert ("was used" in text) == (actual != 40)


def test_a_tube_lens_without_a_maker() -> None:
    m, problems, text = ask(objective="40x/0.95", tube_lens_mm=180)
    assert m.objective.magnification == 40
    assert problems["brand"] == "warning"
    assert "Zeiss" in text


def test_f_number_mismatch_is_passed_on() -> None:
    _, problems, text = ask(objective="20x/0.5", focal_length_um=4000)
    assert problems == {"lenslets.focal_length_um": "warning"}
    assert "overlap" in text


def test_too_few_pixels() -> None:
    _, problems, text = ask(pixel_um=24)
    assert problems["camera.pixel_um"] == "warning"
    assert "only 4.2 pixels" in text


def test_wavelengths() -> None:
    m, problems, _ = ask(wavelength_nm=0.52)
    assert m.wavelength_um == pytest.approx(0.52)
    assert problems == {"wavelength_nm": "warning"}
    m, problems, text = ask(wavelength_nm=450, fluorophore="mCherry")
    assert m.wavelength_um == pytest.approx(0.45)
    assert problems == {"wavelength_nm": "warning"}
    assert "around 610 nm" in text
    m, problems, _ = ask(wavelength_nm=None, fluorophore="alexa fluor-488")
    assert (m.wavelength_um, problems) == (pytest.approx(0.519), {})


def test_the_measured_pitch() -> None:
    assert ask(measured_pitch_px=15.4)[1] == {}
    m, problems, text = ask(measured_pitch_px=22.0)
    assert m.camera.relay_magnification == pytest.approx(1.43)
    assert problems == {"relay_magnification": "warning"}
    assert "1.43x" in text
    m, problems, text = ask(measured_pitch_px=22.0, relay_magnification=1.0)
    assert m.camera.relay_magnification == 1
    assert problems == {"relay_magnification": "error"}
    assert "predict 15.38 px" in text


def test_several_media() -> None:
    m, problems, _ = ask(objective="25x/0.8 Imm Corr")
    assert m.objective.immersion_index == 1.333
    assert problems["immersion"] == "info"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"wavelength_nm": None}, "wavelength is missing"),
        ({"wavelength_nm": None, "fluorophore": "mChery"}, "Did you mean 'mCherry'"),
        ({"pitch_um": None}, "pitch of the lenslet array is missing"),
        (
            {"pitch_um": None, "focal_length_um": None, "f_number": 20},
            "pitch of the lenslet array is missing",
        ),
        ({"focal_length_um": None}, "focal length of the lenslets is missing"),
        ({"immersion": "watr"}, "Did you mean 'water'"),
        ({"sample": "jelly"}, "not a known sample medium"),
        ({"brand": "Nikkon", "tube_lens_mm": 180}, "Did you mean 'Nikon'"),
        ({"pixel_um": 6500}, "camera.pixel_um = 6500|pixel_um"),
        ({"pixel_um": -1}, "pixel_um = -1"),
        ({"pitch_um": 0.1, "focal_length_um": 2}, "no lenslet array"),
        ({"colour": "red"}, "no entry 'colour'"),
        ({"objective": "60x"}, "aperture"),
    ],
)
def test_what_cannot_be_answered_is_asked_for(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        ask(**changes)
