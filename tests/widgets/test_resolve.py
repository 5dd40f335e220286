from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.problems import Problem
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.methods.base import Request
from napari_lfm.widgets.resolve import field_um, region_px, resolve
from napari_lfm.widgets.resolve_stack import stack_of, stack_words
from napari_lfm.widgets.state import LayerInfo, ReconstructState

if TYPE_CHECKING:
    from napari_lfm.optics.microscope import Microscope


@pytest.fixture
def layers() -> dict[str, LayerInfo]:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 100, (60, 75)).astype(np.uint16)
    return {
        "raw": LayerInfo("raw", frame, path="/data/raw.tif"),
        "white": LayerInfo("white", frame + 500),
        "small": LayerInfo("small", frame[:50]),
        "movie": LayerInfo("movie", np.stack([frame, frame + 1, frame + 2])),
        "colour": LayerInfo("colour", np.zeros((60, 75, 3), np.uint8), rgb=True),
        "views": LayerInfo("views", np.zeros((5, 5, 12, 15)), axis_labels=("v", "u", "t", "s")),
        "padded": LayerInfo("padded", frame[None, None]),
        "deep": LayerInfo("deep", np.zeros((2, 3, 60, 75))),
    }


@pytest.fixture
def state(microscope: Microscope) -> ReconstructState:
    return ReconstructState(method="fake", lightfield="raw", microscope=microscope)


def problems(found: Request | list[Problem]) -> list[Problem]:
    assert isinstance(found, list)
    return found


def test_complete_request(
    state: ReconstructState, layers: Any, fake_method: Any, microscope: Microscope
) -> None:
    wish = replace(state, white="white", parameters={"iterations": 7}, device="cpu", memory_gib=2.0)
    request = resolve(wish, layers, fake_method)
    assert isinstance(request, Request)
    image = request.inputs["image"]
    assert image.dims == ("y", "x")
    assert np.shares_memory(image.values, layers["raw"].data)
    assert float(image.coords["x"][1]) == pytest.approx(6.5 / 60)
    assert image.coords["x"].attrs["units"] == "um"
    assert set(request.inputs) == {"image", "white"}
    assert request.sources == {"image": "/data/raw.tif"}
    assert request.parameters.iterations == 7  # type: ignore[attr-defined]
    assert (request.device, request.memory_gib, request.region_px) == ("cpu", 2.0, None)
    assert request.microscope == microscope


def test_every_missing_thing_is_named(layers: Any, fake_method: Any) -> None:
    found = problems(resolve(ReconstructState(method="fake"), layers, fake_method))
    assert {p.field for p in found} == {"lightfield", "microscope"}
    assert all(p.message.endswith(".") and p.remedy for p in found)
    assert problems(resolve(ReconstructState(), layers))[0].field == "method"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"lightfield": "gone"}, "lightfield", "'gone' is gone"),
        ({"lightfield": "colour"}, "lightfield", "colour"),
        ({"lightfield": "deep"}, "lightfield", "4 axes"),
        ({"white": "small"}, "white", "50 x 75 pixels, the light field 60 x 75"),
        ({"dark": "small"}, "dark", "dark frame"),
        ({"lightfield": "movie", "frame": 3}, "frame", "3 frames"),
        ({"region_um": (100.0, 100.0, 120.0, 120.0)}, "region", "outside"),
        ({"parameters": {"iterations": 0}}, "parameters", "iterations"),
        ({"parameters": {"iteration": 1}}, "parameters", "iteration"),
    ],
)
def test_plain_problems(
    state: ReconstructState, layers: Any, fake_method: Any, change: dict[str, Any], field: str, words: str
) -> None:
    found = problems(resolve(replace(state, **change), layers, fake_method))
    assert [p.field for p in found] == [field]
    assert words in found[0].message + found[0].remedy
    assert "Traceback" not in str(found[0])


def test_trained_methods_may_tell_the_microscope(
    state: ReconstructState, layers: Any, fake_method: Any
) -> None:
    fake_method.complete = lambda request: (request, [])
    wish = replace(state, microscope=None, model="net")
    request = resolve(wish, layers, fake_method)
    assert isinstance(request, Request)
    assert (request.microscope, request.model) == (None, "net")
    # a drawn rectangle is in micrometres, which nobody knows without it
    (found,) = problems(resolve(replace(wish, region_um=(0, 0, 9, 9)), layers, fake_method))
    assert found.field == "microscope"


def test_wide_field_microscope_is_refused(state: ReconstructState, layers: Any, fake_method: Any) -> None:
    assert state.microscope is not None
    wide = state.microscope.model_copy(update={"lenslets": None})
    (found,) = problems(resolve(replace(state, microscope=wide), layers, fake_method))
    assert "without a lenslet array" in found.message


@pytest.mark.parametrize(
    ("name", "frame", "dims", "first"),
    [("movie", 1, ("y", "x"), 1), ("movie", None, ("t", "y", "x"), 0), ("padded", 0, ("y", "x"), 0)],
)
def test_movies_and_padding(
    state: ReconstructState,
    layers: Any,
    fake_method: Any,
    name: str,
    frame: int | None,
    dims: Any,
    first: int,
) -> None:
    request = resolve(replace(state, lightfield=name, frame=frame), layers, fake_method)
    assert isinstance(request, Request)
    assert request.inputs["image"].dims == dims
    got = request.inputs["image"].values.reshape(-1, 60, 75)[0]
    np.testing.assert_array_equal(got, layers["raw"].data + first)


def test_views_are_taken_as_they_are(state: ReconstructState, layers: Any, fake_method: Any) -> None:
    request = resolve(replace(state, lightfield="views"), layers, fake_method)
    assert isinstance(request, Request)
    assert request.inputs["image"].dims == ("v", "u", "t", "s")


def test_white_repeats_are_averaged(state: ReconstructState, layers: Any, fake_method: Any) -> None:
    request = resolve(replace(state, white="movie"), layers, fake_method)
    assert isinstance(request, Request)
    np.testing.assert_allclose(request.inputs["white"].values, layers["raw"].data + 1.0)


def test_lattice_of_another_frame_is_not_used(state: ReconstructState, layers: Any, fake_method: Any) -> None:
    lattice = Lattice(
        origin_px=(7, 7), row_step_px=(15, 0), column_step_px=(0, 15), rows=4, columns=5, image_shape=(60, 75)
    )
    request = resolve(replace(state, lattice=lattice), layers, fake_method)
    assert isinstance(request, Request)
    assert request.lattice == lattice
    other = lattice.model_copy(update={"image_shape": (61, 75)})
    request = resolve(replace(state, lattice=other), layers, fake_method)
    assert isinstance(request, Request)
    assert request.lattice is None


def test_region_pixels() -> None:
    # pixel k covers k - 1/2 to k + 1/2
    assert region_px((2.0, 3.0, 4.0, 6.0), 1.0, (100, 100)) == (2, 3, 5, 7)
    assert region_px((4.0, 6.0, 2.0, 3.0), 1.0, (100, 100)) == (2, 3, 5, 7)
    assert region_px((-9.0, -9.0, 500.0, 500.0), 0.5, (30, 40)) == (0, 0, 30, 40)
    assert isinstance(region_px((-9.0, -9.0, -5.0, -5.0), 1.0, (30, 40)), Problem)


# ------------------------------------------------------------------------------------ stacks
@pytest.fixture
def stacks() -> dict[str, LayerInfo]:
    planes = np.random.default_rng(1).integers(0, 100, (6, 20, 30)).astype(np.uint16)
    um = {"scale": (0.5, 0.1, 0.2), "translate": (0.0, 10.0, -4.0), "units": ("um",) * 3}
    turned = {**um, "rotate": np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])}
    return {
        "cells": LayerInfo("cells", planes, path="/data/cells.tif", placement=um),
        "plain": LayerInfo("plain", planes),
        "turned": LayerInfo("turned", planes, placement=turned),
        "half": LayerInfo("half", planes, placement={"scale": (1, 0.1, 0.1)}),
        "bead": LayerInfo("bead", planes[:5, :9, :9]),
        "plane": LayerInfo("plane", planes[0], placement={"scale": (0.1, 0.1), "units": ("um",) * 2}),
        "thin": LayerInfo(
            "thin", planes[None, None], ("t", "c", "z", "y", "x"), placement={"scale": (1, 1, 2, 3, 3)}
        ),
        "colour": LayerInfo("colour", np.zeros((60, 75, 3), np.uint8), rgb=True),
        "views": LayerInfo("views", np.zeros((5, 5, 12, 15)), axis_labels=("v", "u", "t", "s")),
        "deep": LayerInfo("deep", np.zeros((2, 2, 2, 2, 8, 8))),
    }


@pytest.fixture
def on_stacks(fake_method: Any) -> Any:
    fake_method.input_kind = "stack"
    return fake_method


def test_stack_request(stacks: Any, on_stacks: Any, microscope: Microscope) -> None:
    wish = ReconstructState(method="fake", stack="cells", psf="bead", microscope=microscope, model="net")
    request = resolve(wish, stacks, on_stacks)
    assert isinstance(request, Request)
    image, psf = request.inputs["image"], request.inputs["psf"]
    assert image.dims == ("z", "y", "x")
    assert np.shares_memory(image.values, stacks["cells"].data)
    np.testing.assert_allclose(image.coords["y"].values[:2], (10.0, 10.1))
    assert (psf.shape, dict(psf.coords)) == ((5, 9, 9), {})  # the method says what it takes for its sizes
    assert request.sources == {"image": "/data/cells.tif"}
    assert (request.model, request.microscope, request.lattice) == ("net", microscope, None)
    # the optics may come from elsewhere: the method says when they are missing
    assert isinstance(resolve(replace(wish, microscope=None), stacks, on_stacks), Request)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"stack": ""}, "stack", "No stack is chosen"),
        ({"stack": "gone"}, "image", "'gone' is gone"),
        ({"psf": "gone"}, "psf", "'gone' is gone"),
        ({"stack": "plain"}, "voxel", "no size along z, y and x"),
        ({"stack": "half"}, "voxel", "no size along z)"),
        ({"stack": "colour"}, "stack", "colour picture"),
        ({"stack": "views"}, "stack", "light field"),
        ({"stack": "deep"}, "stack", "axes"),
        ({"region_um": (100.0, 100.0, 120.0, 120.0)}, "region", "outside the stack"),
        ({"stack": "turned", "region_um": (0.0, 0.0, 1.0, 1.0)}, "region", "turned"),
    ],
)
def test_stack_problems(stacks: Any, on_stacks: Any, change: dict[str, Any], field: str, words: str) -> None:
    wish = replace(ReconstructState(method="fake", stack="cells"), **change)
    (found,) = problems(resolve(wish, stacks, on_stacks))
    assert found.field == field
    assert words in str(found)
    assert found.remedy


def test_planes_and_axes_that_carry_nothing(stacks: Any, on_stacks: Any) -> None:
    for name, dims in (("plane", ("y", "x")), ("thin", ("z", "y", "x"))):
        request = resolve(ReconstructState(method="fake", stack=name), stacks, on_stacks)
        assert isinstance(request, Request)
        assert request.inputs["image"].dims == dims
    on_stacks.takes_flat_images = False
    (found,) = problems(resolve(ReconstructState(method="fake", stack="plane"), stacks, on_stacks))
    assert "no z axis" in found.message


def test_region_of_a_stack_is_in_its_own_pixels(stacks: Any, on_stacks: Any) -> None:
    wish = ReconstructState(method="fake", stack="cells", region_um=(10.4, -3.0, 11.0, 50.0))
    request = resolve(wish, stacks, on_stacks)
    assert isinstance(request, Request)
    assert request.region_px == (4, 5, 11, 30)
    assert field_um(request) == pytest.approx((10.4, -3.0, 11.1, 2.0))


def test_stack_in_words(stacks: Any) -> None:
    image = stack_of(stacks["cells"])
    assert not isinstance(image, Problem)
    assert stack_words(image).startswith("6 planes of 20 \N{MULTIPLICATION SIGN} 30 pixels, 0.5 ")
    assert "0.1 \N{MULTIPLICATION SIGN} 0.2" in stack_words(image)
    plain = stack_of(stacks["plain"])
    assert not isinstance(plain, Problem)
    assert stack_words(plain).endswith("distance not known, pixel size not known")
    movie = plain.expand_dims(t=3)
    assert stack_words(movie).startswith("3 frames, each 6 planes")
