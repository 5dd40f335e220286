"""From files to rectified cells: layouts, calibration on the way, and what is refused in plain words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import affine_of, labelled, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.lightfield_data import LightfieldData, check_input, expected_cells, prepare
from napari_lfm.optics.microscope import Camera, Microscope
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.simulation.recording import Recording

    Make = Callable[..., Request]

METHOD = get_method("deconvolve-lightfield")


def prepared(request: Request) -> tuple[LightfieldData, list[str]]:
    events = list(prepare(request))
    assert isinstance(events[-1], LightfieldData)
    return events[-1], [e.message for e in events if isinstance(e, Progress)]


def with_image(make: Make, image: xr.DataArray, **fields: Any) -> Request:
    return make({"inputs": {"image": image}, **fields})


def frame(values: np.ndarray, dims: str = "yx") -> xr.DataArray:
    return labelled(values, tuple(dims), {d: 0.55 for d in dims if d in "yx"})


def test_the_lattice_is_found_when_none_is_given(make_request: Make, recording: Recording) -> None:
    data, stages = prepared(make_request({"lattice": None}))
    assert "Finding the lenslets" in stages
    assert data.lattice.pitch_px == pytest.approx(recording["lattice"].pitch_px, abs=0.03)
    assert data.n_pixels == 9
    assert data.white is not None
    assert data.white.shape == data.rectified.image.shape[1:]
    known, stages = prepared(make_request())
    assert "Finding the lenslets" not in stages
    assert known.rectified.cells == (11, 13)
    assert not known.is_movie


@pytest.mark.parametrize("grid", [True, False])
def test_a_white_frame_that_is_none_is_refused(make_request: Make, recording: Recording, grid: bool) -> None:
    raw, white, dark = recording["raw"], recording["white"], recording["dark"]
    fields = {} if grid else {"lattice": None}
    for inputs, says in (
        ({"image": white, "white": raw, "dark": dark}, "look swapped"),
        ({"image": raw, "white": dark}, "looks like a dark frame"),
    ):
        with pytest.raises(RequestError, match=says):
            list(prepare(make_request({"inputs": inputs, **fields})))


def test_negative_values_stay(make_request: Make, recording: Recording) -> None:
    inputs = {"image": recording["raw"], "dark": recording["dark"] + 60}
    data, _ = prepared(make_request({"inputs": inputs}))
    assert data.rectified.image.min() < -30


def test_the_expectation_before_calibrating_is_close(make_request: Make) -> None:
    n, cells = expected_cells(make_request({"lattice": None}))
    data, _ = prepared(make_request())
    assert n == data.n_pixels
    assert np.abs(np.array(cells) - data.rectified.cells).max() <= 1
    region = {"region_px": (20, 20, 70, 80), "lattice": None}
    n, cells = expected_cells(make_request(region))
    part, _ = prepared(make_request(region))
    assert np.abs(np.array(cells) - part.rectified.cells).max() <= 1


@pytest.mark.parametrize("region", [None, (20, 20, 70, 80), (-5, 31, 66, 400), (27, 18, 81, 91)])
def test_with_a_lattice_the_announced_size_is_the_one_made(
    make_request: Make, region: tuple[int, int, int, int] | None
) -> None:
    request = make_request({"region_px": region}, iterations=1)
    result = list(METHOD.run(request))[-1]
    assert METHOD.estimate(request).output_shape == result.outputs["volume"].shape  # type: ignore[union-attr]


@pytest.fixture
def lenslets(rng: np.random.Generator) -> np.ndarray:
    """7 x 8 lenslets of 9 pixels, already rectified, in grey values of a camera with offset 20."""
    return (rng.poisson(200, (63, 72)) + 20).astype(np.uint16)


def test_rectified_frames_keep_their_pixels(make_request: Make, lenslets: np.ndarray) -> None:
    dark = np.full(lenslets.shape, 20, np.uint16)
    inputs = {"image": frame(lenslets), "white": frame(lenslets * 3), "dark": frame(dark)}
    request = make_request({"inputs": inputs, "layout": "lenslet:9", "lattice": None})
    data, _ = prepared(request)
    np.testing.assert_array_equal(data.rectified.image[0], lenslets.astype(np.float32) - 20)
    assert data.white is not None
    np.testing.assert_array_equal(data.white, lenslets * 3.0 - 20)
    assert data.rectified.cells == (7, 8)
    # rectified pixels are no camera pixels: the lenslet's size in the object is what is known
    volume = data.volume(np.zeros((1, 2, 21, 24), np.float32), np.array([-1.0, 0.0]), (3, 3), "v")
    assert spacing_of(volume)["y"] == pytest.approx(5 / 3)
    assert affine_of(volume)[1, 3] == pytest.approx(5 / 9 * (4 - 3))  # middle of the first voxel
    lazy = with_image(make_request, frame(da.from_array(lenslets[None]), "tyx"), layout="lenslet:9")
    movie, _ = prepared(replace(lazy, lattice=None))
    assert movie.is_movie


def test_views_are_put_back_into_lenslets(make_request: Make, lenslets: np.ndarray) -> None:
    vuts = lenslets.reshape(7, 9, 8, 9).transpose(1, 3, 0, 2)
    request = with_image(make_request, xr.DataArray(vuts, dims=("v", "u", "t", "s")), lattice=None)
    data, _ = prepared(request)
    np.testing.assert_array_equal(data.rectified.image[0], lenslets)
    assert expected_cells(request) == (9, (7, 8))
    result = list(METHOD.run(request))[-1]
    assert result.outputs["volume"].shape == (9, 21, 24)  # type: ignore[union-attr]


def test_volumes_lie_where_their_lenslets_do(make_request: Make, recording: Recording) -> None:
    data, _ = prepared(make_request())
    volume = data.volume(np.zeros((1, 1, 33, 39), np.float32), np.array([3.0]), (3, 3), "v")
    matrix = affine_of(volume)
    centres = recording["lattice"].centres_px() * 0.55
    for t, s in ((0, 0), (10, 12), (4, 7)):
        world = matrix @ [0, 3 * t + 1, 3 * s + 1, 1]  # the middle voxel of a lenslet
        np.testing.assert_allclose(world[1:3], centres[t, s], atol=0.02)
        assert world[0] == 3.0


def refusal(request: Request) -> str:
    """The sentence that a run is refused with."""
    with pytest.raises(RequestError) as caught:
        for _ in METHOD.run(request):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert caught.value.exit_status == 2
    return text


def test_nothing_to_work_on(make_request: Make) -> None:
    assert "no light field" in refusal(make_request({"inputs": {}}))
    assert "empty" in refusal(with_image(make_request, frame(np.zeros((0, 50), np.uint16))))


@pytest.mark.parametrize(
    ("values", "dims", "says"),
    [
        (np.ones(100), "x", "not (x)"),
        (np.ones((100, 100, 3)), "yxc", "not (y, x, c)"),
        (np.ones((2, 3, 50, 50)), "tcyx", "one channel"),
        (np.ones((5, 50, 50)), "zyx", "not (z, y, x)"),
    ],
)
def test_wrong_axes(make_request: Make, values: np.ndarray, dims: str, says: str) -> None:
    assert says in refusal(with_image(make_request, frame(values, dims)))


def test_pixels_that_are_no_light(make_request: Make, recording: Recording) -> None:
    raw = recording["raw"].astype(np.float32)
    for value in (np.nan, np.inf):
        broken = raw.copy(deep=True)
        broken.values[10, 12] = value
        assert "NaN or infinite" in refusal(with_image(make_request, broken))
        dark = {"image": recording["raw"], "dark": broken}
        assert "finite" in refusal(make_request({"inputs": dark}))
        white = {"image": recording["raw"], "white": broken}
        assert "finite" in refusal(make_request({"inputs": white, "lattice": None}))
    assert "All pixels are zero" in refusal(with_image(make_request, raw * 0))
    full = raw * 0 + 65535
    assert "saturated" in refusal(with_image(make_request, full))


def test_saturation_is_told_and_does_not_stop(make_request: Make, recording: Recording) -> None:
    raw = recording["raw"].copy(deep=True)
    raw.values[40:44, 40:44] = 65535
    _, stages = prepared(with_image(make_request, raw))
    assert any("saturated" in s for s in stages)


def test_too_few_lenslets(make_request: Make, recording: Recording) -> None:
    small = recording["raw"].isel(y=slice(0, 40), x=slice(0, 40))
    assert "lenslets" in refusal(with_image(make_request, small, lattice=None))
    text = refusal(make_request({"region_px": (30, 30, 50, 60)}))
    assert "lenslets lie in the region" in text
    assert "larger region" in text
    blind = METHOD.check(make_request({"region_px": (30, 30, 50, 60), "lattice": None}))
    assert any("larger region" in str(p) for p in blind)


def test_what_is_wrong_is_found_before_the_run(make_request: Make, recording: Recording) -> None:
    def errors(request: Request) -> str:
        return " ".join(str(p) for p in METHOD.check(request) if p.severity == "error")

    assert errors(make_request()) == ""
    other = recording["lattice"].model_copy(update={"image_shape": (500, 600)})
    assert "found on a frame of 500 x 600" in errors(make_request({"lattice": other}))
    full = recording["raw"].copy(deep=True)
    full.values[:] = 65535
    assert "saturated" in errors(with_image(make_request, full))
    below = recording["raw"].astype(np.float32) - 1e4
    assert "100 %" in errors(with_image(make_request, below))
    assert "takes no model ('mine')" in errors(make_request({"model": "mine"}))
    assert "wrong way round" in errors(make_request({"region_px": (70, 20, 20, 80)}))
    assert "outside the frame" in errors(make_request({"region_px": (0, 500, 60, 560)}))


def test_the_wrong_microscope_is_told_what_was_seen(make_request: Make, tiny: Microscope) -> None:
    camera = Camera(**{**tiny.camera.model_dump(), "pixel_um": 8.0})
    wrong = tiny.model_copy(update={"camera": camera})
    for fields in ({"microscope": wrong}, {"microscope": wrong, "lattice": None}):
        text = refusal(make_request(fields))
        assert "9.09 px apart" in text
        assert "12.50" in text


def test_no_lenslets_in_the_microscope(make_request: Make) -> None:
    text = refusal(make_request({"microscope": load_microscope("wf-20x0.8")}))
    assert "no lenslet array" in text
    assert "No microscope" in refusal(make_request({"microscope": None}))


@pytest.mark.parametrize("name", ["white", "dark"])
def test_frames_of_another_size(make_request: Make, recording: Recording, name: str) -> None:
    other = recording["white"].isel(y=slice(0, 50))
    text = refusal(make_request({"inputs": {"image": recording["raw"], name: other}}))
    assert f"The {name} frame is 50 x 119 pixels" in text
    assert "101 x 119" in text


@pytest.mark.parametrize("layout", ["lenslet:8", "lenslet:x", "lenslet:", "views"])
def test_unknown_layouts(make_request: Make, layout: str) -> None:
    assert f"Unknown layout '{layout}'" in refusal(make_request({"layout": layout}))


def test_layouts_with_too_few_lenslets(make_request: Make, lenslets: np.ndarray) -> None:
    request = with_image(make_request, frame(lenslets[:36]), layout="lenslet:9", lattice=None)
    assert "5 x 5" in refusal(request)
    views = xr.DataArray(np.ones((4, 4, 6, 6)) * np.arange(6), dims=("v", "u", "t", "s"))
    assert "odd number" in refusal(with_image(make_request, views, lattice=None))


def test_all_problems_at_once(make_request: Make, recording: Recording) -> None:
    other = recording["white"].isel(y=slice(0, 50))
    request = make_request({"inputs": {"image": recording["raw"], "white": other}, "microscope": None})
    assert {p.field for p in check_input(request)} == {"microscope", "white"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"z_min_um": 5, "z_max_um": -5}, "z_max_um = -5 lies below z_min_um = 5"),
        ({"z_step_um": 0}, "z_step_um"),
        ({"iterations": 0}, "iterations"),
        ({"z_min_um": -3000, "z_max_um": 3000, "z_step_um": 1}, "more than 2000"),
        ({"iteration": 3}, "Did you mean 'iterations'?"),
        ({"vignetting": "maybe"}, "vignetting"),
    ],
)
def test_parameters_are_refused_in_words(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        make_parameters(METHOD, values)
    assert says in str(caught.value)
