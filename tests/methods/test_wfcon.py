"""The method wfcon: grids, tiles, movies, bad input, with a small network of fixed weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.train_wfcon import tissue_microscope
from napari_lfm.methods.wfcon_plan import _resized
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.weights import save_model
from napari_lfm.networks.wfcon import WfconNet

if TYPE_CHECKING:
    from pathlib import Path

VOXEL = (0.5, 0.1083, 0.1083)


def save_small_model(
    folder: Path, id: str = "small", voxel: tuple[float, float, float] = VOXEL, **network: Any
) -> Path:
    """Write a model with random weights that keeps most of its input."""
    torch.manual_seed(0)
    arguments = {"widths": [3, 4, 5], "z_pool_levels": 1, **network}
    net = WfconNet(**arguments)
    card = ModelCard(
        id=id, title="", version="1", method="wfcon", architecture="wfcon", network=arguments,
        microscope=tissue_microscope().model_dump(mode="json"), n_pixels=None, z_um=[],
        voxels_per_lenslet=None,
        scalers={"low_percentile": 0.5, "high_percentile": 99.9,
                 **{f"voxel_{a}_um": v for a, v in zip("zyx", voxel, strict=True)}},
        specimens=[], licence="", data="", training={}, scores=[], hours=0.0, trained_on="",
        date="2026-01-01", parameters=1, sha256="", versions={}, notes="",
    )  # fmt: skip
    save_model(folder, card, net.state_dict())
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_small_model(tmp_path / "small"))


def stack(
    shape: tuple[int, ...] = (10, 60, 70), dims: str = "zyx", voxel: tuple[float, ...] = VOXEL
) -> xr.DataArray:
    values = np.random.default_rng(0).integers(100, 1000, shape).astype(np.uint16)
    return labelled(values, dims, dict(zip("zyx", voxel, strict=True)))


def request(image: xr.DataArray, model: str | None, **wishes: Any) -> Request:
    memory = wishes.pop("memory_gib", None)
    parameters = make_parameters(get_method("wfcon"), {"precision": "float32", **wishes})
    return Request("wfcon", {"image": image}, parameters, model=model, memory_gib=memory)


def run(image: xr.DataArray, model: str, **wishes: Any) -> xr.DataArray:
    result = list(get_method("wfcon").run(request(image, model, **wishes)))[-1]
    assert isinstance(result, Result)
    return result.outputs[result.primary]


def errors(image: xr.DataArray, model: str | None, **wishes: Any) -> str:
    found = get_method("wfcon").check(request(image, model, **wishes))
    return " ".join(str(p) for p in found if p.severity == "error")


def test_result_lies_where_the_input_does(model: str) -> None:
    image = stack()
    made = run(image, model)
    assert made.shape == image.shape
    assert made.dtype == np.float32
    for d in "zyx":
        assert np.array_equal(made.coords[d], image.coords[d])
    record = made.attrs["provenance"]
    assert record["model"]["id"] == "small"
    assert float(made.min()) >= 0


def test_what_the_network_says_is_scaled_back(model: str) -> None:
    from napari_lfm.networks.registry import find_model, open_network
    from napari_lfm.networks.stack_scale import stack_levels

    image = stack()
    levels = stack_levels(image.values)
    network = open_network(find_model(model))
    with torch.no_grad():
        wanted = network(torch.from_numpy(levels.scaled(image.values))[None, None])[0, 0].numpy()
    assert np.allclose(run(image, model).values, levels.grey(wanted), atol=0.05)


@pytest.mark.parametrize("profile", ["modern", "paper"])
def test_tiles_agree_with_the_whole(tmp_path: Path, profile: str) -> None:
    folder = save_small_model(
        tmp_path / "m", profile=profile, **({"bands": (4,)} if profile == "modern" else {})
    )
    image = stack((8, 140, 150))
    whole = run(image, str(folder))
    tiled = run(image, str(folder), tile_px=64, overlap_px=48)
    span = float(whole.max() - whole.min())
    # with norms the statistics are of some tiles of the stack in either case
    assert float(np.abs(tiled - whole).max()) < (1e-3 if profile == "modern" else 5e-3) * span


def test_sparse_planes_are_filled_in_on_request(model: str) -> None:
    image = stack((6, 60, 70), voxel=(1.0, 0.1083, 0.1083))
    same = run(image, model)
    assert same.sizes["z"] == 6
    dense = run(image, model, planes="model")
    assert dense.sizes["z"] == 11
    assert spacing_of(dense)["z"] == pytest.approx(0.5)
    assert float(dense.coords["z"][-1]) == pytest.approx(float(image.coords["z"][-1]))
    # where there are planes of the input, both say the same
    assert np.allclose(dense.values[::2], same.values, atol=1e-3 * float(same.max()))


def test_other_pixels_are_resampled_and_back(model: str) -> None:
    image = stack((8, 40, 50), voxel=(0.5, 0.2, 0.2))
    found = get_method("wfcon").check(request(image, model))
    assert [p.severity for p in found] == ["warning"]
    assert "0.2 um" in found[0].message
    assert run(image, model).shape == image.shape
    assert "pixels of 0.1083" in errors(stack((8, 40, 50), voxel=(0.5, 0.6, 0.6)), model)


def test_movies_and_channels_keep_their_axes(model: str) -> None:
    image = stack((2, 2, 6, 40, 44), "tczyx")
    events = list(get_method("wfcon").run(request(image, model)))
    made = events[-1].outputs["confocal-like"]
    assert made.dims == image.dims
    one = run(image.isel(t=1, c=0), model)
    assert np.allclose(made.isel(t=1, c=0).values, one.values, atol=1e-2)
    assert [e.image.sizes["t"] for e in events if isinstance(e, Preview)] == [1, 1, 2]


def test_stop_between_tiles_leaves_a_preview(model: str) -> None:
    events = get_method("wfcon").run(request(stack((8, 200, 210)), model, tile_px=64, overlap_px=16))
    for event in events:
        if isinstance(event, Preview):
            break
    events.close()  # type: ignore[attr-defined]
    assert event.image.shape == (8, 200, 210)
    assert float(event.image.max()) > 0


def test_numbers_that_are_none_and_dark_stacks(model: str) -> None:
    image = stack().astype(np.float32)
    image[3, 4, 5] = np.nan
    found = get_method("wfcon").check(request(image, model))
    assert "NaN" in found[0].message
    assert np.isfinite(run(image, model).values).all()
    assert "zero" in errors(stack() * 0, model)
    movie = stack((3, 6, 40, 44), "tzyx")
    movie[1] = 7  # one dark frame is no reason to lose the others
    said = [e.message for e in get_method("wfcon").run(request(movie, model)) if isinstance(e, Progress)]
    assert any("stays dark" in s for s in said)
    assert float(run(movie, model)[1].max()) == 0
    assert float(run(movie, model)[2].max()) > 0


def test_what_is_no_stack_gets_a_sentence(model: str) -> None:
    assert "one plane" in errors(labelled(np.ones((40, 40)), "yx", {"y": 0.1, "x": 0.1}), model)
    assert "16 x 16" in errors(stack((8, 10, 10)), model)
    no_size = xr.DataArray(np.ones((8, 40, 40)), dims=list("zyx"))
    assert "how large its voxels are" in errors(no_size, model)
    thin = get_method("wfcon").check(request(stack((2, 40, 40)), model))
    assert "2 planes are fewer" in thin[0].message
    assert run(stack((2, 40, 40)), model).shape == (2, 40, 40)
    assert "memory budget" in errors(stack(), model, memory_gib=0.1)
    assert "no model" in errors(stack(), "nothing")


def test_the_model_with_the_nearest_voxels_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path))
    save_small_model(tmp_path / "fine", "fine")
    save_small_model(tmp_path / "coarse", "coarse", (1.0, 0.33, 0.33))
    method: Any = get_method("wfcon")
    for voxel, name in ((VOXEL, "fine"), ((1.0, 0.33, 0.33), "coarse")):
        filled, _ = method.complete(request(stack(voxel=voxel), None))
        assert filled.model == name
    far = method.complete(request(stack(voxel=(30.0, 5.0, 5.0)), None))[0]
    assert far.model is None
    with pytest.raises(RequestError, match="no wfcon model"):
        list(method.run(far))


def test_a_smaller_budget_means_smaller_tiles(model: str) -> None:
    method: Any = get_method("wfcon")
    image = stack((8, 300, 300))
    large, small = (method.estimate(request(image, model, overlap_px=32, memory_gib=g)) for g in (4.0, 0.48))
    assert small.peak_bytes < large.peak_bytes
    assert small.peak_bytes <= 0.48 * 2**30


@pytest.mark.parametrize("shape", [(9, 61, 61), (17, 83, 140)])
def test_resampling_moves_nothing(shape: tuple[int, int, int]) -> None:
    """Pixels twice as fine as the model's, or of two sizes, and back: every spot stays where it was."""
    sizes = (17, 121, 121)
    for at in ((6, 20, 20), (8, 60, 60), (10, 100, 96)):
        away = [(np.arange(n) - a) / s for n, a, s in zip(sizes, at, (1.5, 4, 4), strict=True)]
        lines = [np.exp(-0.5 * a**2) for a in away]
        spot = (lines[0][:, None, None] * lines[1][:, None] * lines[2]).astype(np.float32)
        there = _resized(spot, shape, mean_along=True)
        for image in (there, _resized(there, sizes)):
            for axis, wanted in enumerate(at):
                line = image.sum(tuple(k for k in range(3) if k != axis))
                centre = (line * np.arange(len(line))).sum() / line.sum()
                assert centre * (sizes[axis] - 1) / (len(line) - 1) == pytest.approx(wanted, abs=0.06)


def test_planes_closer_than_the_models_are_averaged() -> None:
    noise = np.random.default_rng(0).normal(size=(41, 30, 30)).astype(np.float32)
    assert _resized(noise, (11, 30, 30), mean_along=True)[1:-1].std() < 0.6 * noise.std()
    assert _resized(np.ones_like(noise), (11, 30, 30), mean_along=True) == pytest.approx(1)


def test_frames_and_channels_are_called_so_and_previews_name_the_model(model: str) -> None:
    image = stack((2, 2, 6, 40, 44), "tczyx")
    image[1, 0] = 7
    events = list(get_method("wfcon").run(request(image, model)))
    said = [e.message if isinstance(e, Progress) else e.progress.message for e in events[:-1]]
    assert "The network has seen the stack, frame 1 of 2, channel 2 of 2" in said
    assert any(s.startswith("Frame 2 of 2, channel 1 of 2: A stack is all of one brightness") for s in said)
    shown = next(e for e in events if isinstance(e, Preview))
    assert shown.provenance["model"]["id"] == "small"


def test_a_point_spread_function_is_left_out_with_a_word(model: str) -> None:
    asked = request(stack(), model)
    found = get_method("wfcon").check(replace(asked, inputs={**asked.inputs, "psf": stack((5, 9, 9))}))
    assert [(p.field, p.severity) for p in found] == [("psf", "info")]
    assert "takes no point spread function" in found[0].message
