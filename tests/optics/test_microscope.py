from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective, nearest_odd
from napari_lfm.optics.sanity import physical_sanity


def make(**changes: object) -> Microscope:
    """The 60x/1.2 microscope of the giant vesicle, with changes."""
    parts: dict[str, object] = {
        "name": "test",
        "objective": {"magnification": 60, "na": 1.2, "immersion_index": 1.333},
        "lenslets": {"pitch_um": 100, "focal_length_um": 2500},
        "camera": {"pixel_um": 6.5},
        "wavelength_um": 0.593,
        "sample_index": 1.35,
    }
    return Microscope.model_validate({**parts, **changes})


def test_derived_figures_of_a_known_microscope() -> None:
    m = make()
    assert m.object_pixel_um == pytest.approx(6.5 / 60)
    assert m.nominal_pitch_px == pytest.approx(100 / 6.5)
    assert m.lenslet_um == pytest.approx(1.6667, abs=1e-4)
    assert m.n_pixels == 15
    assert m.image_f_number == pytest.approx(25)
    assert m.lenslets is not None
    assert m.lenslets.f_number == pytest.approx(25)
    assert m.lenslets.distance_um == 2500
    assert m.lateral_resolution_um == pytest.approx(0.47 * 0.593 / 1.2)
    assert m.depth_of_field_um == pytest.approx(1.35 * 0.593 / 1.44 + 1.35 * (100 / 60) / 1.2)
    assert m.max_half_angle() == pytest.approx(math.asin(1.2 / 1.35))
    assert m.field_of_view_um((436, 400)) == pytest.approx((47.2333, 43.3333), abs=1e-3)


def test_a_relay_makes_pixels_smaller() -> None:
    m = make(camera={"pixel_um": 6.5, "relay_magnification": 2})
    assert m.camera.effective_pixel_um == 3.25
    assert m.nominal_pitch_px == pytest.approx(2 * 100 / 6.5)


def test_resolution_follows_depth() -> None:
    m = make()
    p, knee = 100 / 60, 1.35 * (100 / 60) ** 2 / (2 * 0.593)
    assert m.lateral_resolution_at(0) == pytest.approx(p)
    assert m.lateral_resolution_at(0.99 * knee) == pytest.approx(p)
    # Broxton 2013: just outside, 0.47 of a lenslet; then it grows with |z|, alike on both sides
    assert m.lateral_resolution_at(1.0001 * knee) == pytest.approx(0.47 * p, rel=1e-3)
    assert m.lateral_resolution_at(-2 * knee) == pytest.approx(2 * 0.47 * p, rel=1e-6)
    assert m.lateral_resolution_at(m.depth_range_um) == pytest.approx(p)


def test_a_long_wavelength_objective_limits_the_resolution_instead() -> None:
    # lenslets so large that their own limit lies below that of a slow objective
    m = make(objective={"magnification": 5, "na": 0.1}, lenslets={"pitch_um": 125, "focal_length_um": 3125})
    z = 1.01 * 1.35 * 25**2 / (2 * 0.593)
    assert m.lateral_resolution_at(z) >= m.lateral_resolution_um


def test_wide_field_has_no_lenslet_figures() -> None:
    m = make(lenslets=None)
    assert m.nominal_pitch_px is m.lenslet_um is m.n_pixels is None
    assert m.lateral_resolution_at(5) == m.lateral_resolution_um
    assert m.depth_range_um == pytest.approx(m.depth_of_field_um / 2)


@pytest.mark.parametrize(
    ("value", "odd"), [(15.38, 15), (15.0, 15), (14.4, 15), (13.9, 13), (32.46, 33), (16.0, 17), (0.4, 3)]
)
def test_nearest_odd(value: float, odd: int) -> None:
    assert nearest_odd(value) == odd


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": {"magnification": 60, "na": 1.2}}, "below the immersion index 1"),
        ({"sample_index": 1.0}, "below the sample index 1"),
        ({"pixels_per_lenslet": 16}, "must be odd"),
        ({"wavelength_um": 593}, "less than 2"),
        ({"camera": {"pixel_um": 0}}, "greater than 0.1"),
        ({"camera": {"pixel_um": float("nan")}}, "pixel_um"),
        ({"lenses": {}}, "Extra inputs"),
    ],
)
def test_impossible_microscopes_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(**changes)


def test_wide_field_may_exceed_the_sample_index() -> None:
    assert make(lenslets=None, sample_index=1.0).objective.na == 1.2


def test_parts_are_frozen() -> None:
    with pytest.raises(ValidationError):
        make().camera.pixel_um = 3.0  # type: ignore[misc]


def test_a_consistent_microscope_has_no_problems() -> None:
    assert physical_sanity(make()) == []


def focal_um(focal_length_um: float) -> dict[str, object]:
    return {"lenslets": {"pitch_um": 100, "focal_length_um": focal_length_um}}


@pytest.mark.parametrize(
    ("changes", "severity", "field", "says"),
    [
        (focal_um(3500), "warning", "lenslets.focal_length_um", "overlap"),
        (focal_um(1800), "warning", "lenslets.focal_length_um", "fill only 72%"),
        ({"camera": {"pixel_um": 25}}, "warning", "camera.pixel_um", "only 4 pixels"),
        ({"camera": {"pixel_um": 40}}, "error", "camera.pixel_um", "only 2.5 pixels"),
        ({"pixels_per_lenslet": 11}, "info", "pixels_per_lenslet", "resampled to 11"),
        ({"pixels_per_lenslet": 31}, "warning", "pixels_per_lenslet", "invents no detail"),
        ({"wavelength_um": 0.9}, "warning", "wavelength_um", "not visible"),
        ({"sample_index": 1.5}, "info", "sample_index", "differ in refractive index"),
        ({"lenslets": None, "sample_index": 1.1}, "warning", "sample_index", "never leaves the sample"),
        ({"lenslets": None, "camera": {"pixel_um": 16}}, "info", "camera.pixel_um", "Nyquist"),
    ],
)  # fmt: skip
def test_each_contradiction_is_named(
    changes: dict[str, object], severity: str, field: str, says: str
) -> None:
    found = [p for p in physical_sanity(make(**changes)) if p.field == field]
    assert [p.severity for p in found] == [severity]
    assert says in found[0].message


def test_f_numbers_within_fifteen_percent_are_accepted() -> None:
    for focal in (2200, 2850):
        assert physical_sanity(make(**focal_um(focal))) == []


def test_the_disc_follows_the_sensor_distance() -> None:
    near = {"pitch_um": 100, "focal_length_um": 2500, "sensor_distance_um": 500}
    texts = [p.message for p in physical_sanity(make(lenslets=near))]
    assert any("fill only 20%" in t for t in texts)
    assert any("0.2 focal lengths" in t for t in texts)


@pytest.mark.parametrize(("lattice", "lost"), [("square", "21%"), ("hexagonal", "9%")])
def test_circular_lenslets_lose_light(lattice: str, lost: str) -> None:
    array = {"pitch_um": 100, "focal_length_um": 2500, "aperture": "circular", "lattice": lattice}
    (problem,) = physical_sanity(make(lenslets=array))
    assert (problem.severity, problem.field) == ("info", "lenslets.aperture")
    assert lost in problem.message


def test_square_lenslets_do_not_fit_on_a_hexagonal_lattice() -> None:
    array = {"pitch_um": 100, "focal_length_um": 2500, "aperture": "square", "lattice": "hexagonal"}
    (problem,) = physical_sanity(make(lenslets=array))
    assert (problem.severity, problem.field) == ("warning", "lenslets.aperture")
    assert "86.6 um" in problem.message
    assert "overlap" in problem.message


def test_parts_can_be_given_as_objects() -> None:
    m = Microscope(
        name="x",
        objective=Objective(magnification=20, na=0.5),
        lenslets=LensletArray(pitch_um=125, focal_length_um=2500, sensor_distance_um=2400),
        camera=Camera(pixel_um=6.5),
        wavelength_um=0.52,
    )
    assert m.lenslets is not None
    assert m.lenslets.distance_um == 2400
    assert Microscope.model_validate(m.model_dump(mode="json")) == m
