"""The method refocus: surfaces, stacks, movies, records and bad input, with a small network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import labelled, spacing_of
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.refocus.card import RefocusDomain, scalers_of
from napari_lfm.methods.refocus.opening import open_refocuser
from napari_lfm.methods.refocus.plan import make_plan
from napari_lfm.methods.refocus.surfaces import through_points, tilted
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.networks.registry import find_model
from napari_lfm.networks.weights import save_model
from napari_lfm.optics.defocus import DefocusOptics

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.methods.refocus.engine import Refocuser

PIXEL = 0.325
DOMAIN = RefocusDomain(DefocusOptics(), PIXEL, 4.0, 1.0)
NETWORK: dict[str, Any] = {"widths": [4, 6], "bands": [4], "planes": 5, "sweep": True}
METHOD = get_method("refocus")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_model(tmp_path_factory.mktemp("models") / "small")


def save_small_model(folder: Path, domain: RefocusDomain = DOMAIN) -> str:
    torch.manual_seed(0)
    net = RefocusNet(**NETWORK)
    card = ModelCard(
        id=folder.name, title="", version="1", method="refocus", architecture="refocus", network=NETWORK,
        microscope=None, n_pixels=None, z_um=[], voxels_per_lenslet=None, scalers=scalers_of(domain),
        specimens=[], licence="", data="", training={}, scores=[], hours=0.0, trained_on="",
        date="2026-01-01", parameters=1, sha256="", versions={}, notes="",
    )  # fmt: skip
    save_model(folder, card, net.state_dict())
    return str(folder)


def image(
    shape: tuple[int, ...] = (40, 48), dims: str = "yx", pixel: float = PIXEL, origin: float = 0.0
) -> xr.DataArray:
    rough = np.random.default_rng(0).random(shape) ** 6
    values = gaussian_filter(rough, (*([0] * (len(shape) - 2)), 1.0, 1.0))
    grey = (100 + 900 * values / values.max()).astype(np.uint16)
    return labelled(grey, dims, {"y": pixel, "x": pixel, "t": 2.0}, {"y": origin, "x": origin})


def request(picture: xr.DataArray, model: str | None, **wishes: Any) -> Request:
    more = {k: wishes.pop(k) for k in ("memory_gib", "region_px", "inputs", "sources") if k in wishes}
    inputs = {"image": picture, **more.pop("inputs", {})}
    return Request("refocus", inputs, make_parameters(METHOD, wishes), model=model, **more)


def run(picture: xr.DataArray, model: str, **wishes: Any) -> Result:
    result = list(METHOD.run(request(picture, model, **wishes)))[-1]
    assert isinstance(result, Result)
    return result


def problems(picture: xr.DataArray, model: str | None, **wishes: Any) -> list[Problem]:
    return METHOD.check(request(picture, model, **wishes))


def errors(picture: xr.DataArray, model: str | None, **wishes: Any) -> str:
    return " ".join(str(p) for p in problems(picture, model, **wishes) if p.severity == "error")


def refocuser(picture: np.ndarray, model: str, **more: Any) -> Refocuser:
    return open_refocuser(picture, PIXEL, find_model(model), **more).refocuser


# -- surfaces ---------------------------------------------------------------------------------


def test_a_plane_comes_with_both_heads_and_lies_where_the_image_does(model: str) -> None:
    picture = image(origin=7.0)
    result = run(picture, model, z_um=2.5)
    assert set(result.outputs) == {"refocused", "confocal-like"} and result.primary == "refocused"
    wanted = refocuser(picture.values, model).plane(2.5)
    for name, plane in (("refocused", wanted.widefield), ("confocal-like", wanted.confocal)):
        made = result.outputs[name]
        assert isinstance(made, xr.DataArray) and made.dims == ("y", "x")
        assert np.allclose(made.values, plane, atol=1e-3)
        assert np.array_equal(made.coords["x"], picture.coords["x"])
    assert result.provenance["model"]["id"] == "small"
    assert result.provenance["input_kind"] == "image"


def test_one_output_only(model: str) -> None:
    result = run(image(), model, output="confocal")
    assert list(result.outputs) == ["confocal-like"] == [result.primary]


def test_a_stack_has_its_planes_at_their_distances(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = image()
    result = run(picture, model, surface="stack", z_min_um=-2, z_max_um=3, z_step_um=2.5, output="widefield")
    made = result.outputs["refocused"]
    assert isinstance(made, xr.DataArray) and made.dims == ("z", "y", "x")
    assert list(made.coords["z"].values) == [-2.0, 0.5, 3.0]
    assert np.allclose(made.values[2], refocuser(picture.values, model).plane(3.0).widefield, atol=1e-3)
    monkeypatch.setattr("napari_lfm.methods.refocus.tiles.PART_PX", 32)
    parts = run(picture, model, surface="stack", z_min_um=-2, z_max_um=3, z_step_um=2.5).outputs["refocused"]
    assert np.abs(made - parts).mean() < 0.05 * made.std()
    whole = METHOD.estimate(request(picture, model, surface="stack"))
    assert whole.output_shape == (9, 40, 48)  # the model's own range and step


def test_tilts_and_points_are_the_surfaces_they_say(model: str, tmp_path: Path) -> None:
    picture = image(origin=5.0)
    made = run(picture, model, surface="tilt", tilt_x_deg=8, z_um=1.0).outputs
    heights = tilted((40, 48), PIXEL, 1.0, 8.0)
    assert np.allclose(made["height"], heights, atol=1e-5)
    wanted = refocuser(picture.values, model).surface(heights)
    assert np.allclose(made["refocused"], wanted.widefield, atol=1e-3)

    points = [(-1.0, 1.0, 1.0), (2.0, 12.0, 2.0), (0.0, 3.0, 14.0), (1.0, 12.0, 15.0)]
    rows = [f"{z},{y + 5},{x + 5},1" for z, y, x in points]  # in the image's coordinates
    file = tmp_path / "points.csv"
    file.write_text("\n".join(["z_um,y_um,x_um,confidence", *rows]))
    result = run(picture, model, surface="points", points_file=str(file))
    assert np.allclose(result.outputs["height"], through_points(points, (40, 48), PIXEL), atol=1e-4)
    kept = result.provenance["parameters"]
    assert kept["points_file"] is None
    assert kept["points_um"] == [[z, y + 5, x + 5] for z, y, x in points]
    again = run(picture, model, **{k: v for k, v in kept.items() if v is not None})
    assert np.array_equal(again.outputs["refocused"], result.outputs["refocused"])


def test_height_maps_come_from_files_and_layers(model: str, tmp_path: Path) -> None:
    picture = image()
    heights = np.linspace(-3, 3, 48)[None].repeat(40, 0)
    np.save(tmp_path / "map.npy", 1000 * heights)
    path = str(tmp_path / "map.npy")
    from_file = run(picture, model, surface="height-map", height_map_file=path, height_map_unit="nm")
    layer = labelled(heights, "yx", {})
    from_layer = run(picture, model, surface="height-map", inputs={"height_map": layer})
    assert np.allclose(from_file.outputs["height"], heights, atol=1e-4)
    assert np.allclose(from_file.outputs["refocused"], from_layer.outputs["refocused"], atol=1e-2)
    assert from_file.provenance["sources"]["height_map"] == path
    assert "height_map" in from_file.provenance["inputs"]


def test_extended_focus_has_a_height_map(model: str) -> None:
    result = run(image(), model, surface="extended-focus", compare="wiener")
    assert result.primary == "extended-focus"
    assert set(result.outputs) == {"extended-focus", "height", "certainty", "wiener"}
    assert all(o.shape == (40, 48) for o in result.outputs.values())
    assert np.abs(result.outputs["height"]).max() <= 4.5


@pytest.mark.parametrize("surface", ["plane", "stack", "tilt", "extended-focus"])
def test_estimates_are_what_is_made(model: str, surface: str) -> None:
    picture = image((2, 3, 40, 48), "tcyx")
    said = METHOD.estimate(request(picture, model, surface=surface, z_step_um=2))
    result = run(picture, model, surface=surface, z_step_um=2)
    made = result.outputs[result.primary]
    assert isinstance(made, xr.DataArray)
    assert (said.output_shape, said.output_dims) == (made.shape, made.dims)
    assert said.peak_bytes > sum(o.nbytes for o in result.outputs.values() if isinstance(o, xr.DataArray))


def test_comparison_and_check_are_further_outputs(model: str) -> None:
    result = run(image(), model, z_um=1.0, check_consistency=True, compare="richardson-lucy", iterations=3)
    assert {"residual", "doubt", "guessed", "richardson-lucy"} < set(result.outputs)
    assert len(result.provenance["figures"]["consistency_shares"]) == 1


# -- the trained range ------------------------------------------------------------------------


def test_what_lies_beyond_the_range_is_flagged_and_said(model: str) -> None:
    wish = {"surface": "tilt", "tilt_x_deg": 40.0}
    result = run(image(), model, **wish)
    heights = tilted((40, 48), PIXEL, 0.0, 40.0)
    assert np.array_equal(result.outputs["beyond"], np.abs(heights) > 4)
    share = 100 * float(np.mean(np.abs(heights) > 4))
    warnings = [str(p) for p in problems(image(), model, **wish) if p.severity == "warning"]
    assert any(
        f"{share:.1f} % of the pixels lie outside the trained range of -4 to 4 um" in w for w in warnings
    )
    assert "beyond" not in run(image(), model, z_um=4.0).outputs
    assert "100 % of the pixels" in str(problems(image(), model, z_um=4.5)[-1])


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"z_um": 6.0}, "6 um is too far: the model was trained for -4 to 4 um.*beyond 5 um"),
        ({"surface": "stack", "z_max_um": -6.0}, "lies below z_min_um"),
        ({"surface": "stack", "z_min_um": -30.0}, "-30 um is too far"),
        ({"surface": "stack", "z_step_um": 0.0008}, "are 10001 planes; 1000 are the most"),
        ({"surface": "extended-focus", "z_min_um": 1, "z_max_um": 1}, "two planes or more"),
        ({"surface": "points"}, "needs points"),
        ({"surface": "points", "points_um": [(0, 1, 1), (0, 2, 2)]}, "2 points are given"),
        ({"surface": "points", "points_um": [(0, 1, 1), (0, 2, 2), (1, 3, 3)]}, "one line"),
        ({"surface": "points", "points_um": [(0, 1, 1), (0, 1, 1), (1, 3, 9)]}, "same place"),
        ({"surface": "points", "points_um": [(90, 1, 1), (91, 2, 9), (90, 9, 3)]}, "The whole surface is"),
        ({"surface": "height-map"}, "There is no height map"),
        ({"drift_um": [1.0, 2.0]}, "There is one image, and 2 values of drift"),
        ({"region_px": (0, 0, 9, 9)}, "taken whole"),
        ({"memory_gib": 0.2}, "needs 0.4 GiB, and the memory budget is 0.2 GiB"),
    ],
)
def test_wrong_wishes_are_refused(model: str, wishes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        run(image(), model, **wishes)
    assert errors(image(), model, **wishes)


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (image((3, 40, 48), "zyx"), "stack of 3 planes"),
        (image((40, 48, 3), "yxs"), "axes y x s"),
        (image().isel(x=slice(1)), "40 x 1 pixels"),
        (image((2, 40, 48), "tyx").isel(t=slice(0)), "no frames"),
        (image() * 0 + 7, "same value"),
        (image().astype(float).where(image() > 200), "NaN or infinite"),
        (image(pixel=5.0), "pixels of 0.325 um, and these are 5 um"),
        (labelled(image().values, "yx", {}), "how large its pixels are"),
        (labelled(image().values, "yx", {"y": 0.3, "x": 0.4}), "not square"),
    ],
)
def test_wrong_images_are_refused(model: str, picture: xr.DataArray, says: str) -> None:
    assert says in errors(picture, model)


def test_files_that_say_nothing_are_refused(model: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    for text, key, says in (
        ("a,b\n1,2", "points_file", "no column z_um, y_um, x_um"),
        ("z_um,y_um,x_um\n1,2,many", "points_file", "Line 2 of x.csv"),
        ("drift\n1.0\nfast", "drift_file", "begins with 'fast'"),
    ):
        file.write_text(text)
        with pytest.raises(RequestError, match=says):
            run(image(), model, surface="points", **{key: str(file)})
    for name in ("nothing.csv", "nothing.npy"):
        key = "points_file" if name.endswith("csv") else "height_map_file"
        with pytest.raises(RequestError, match="cannot be read"):
            surface = "points" if key == "points_file" else "height-map"
            run(image(), model, surface=surface, **{key: str(tmp_path / name)})
    with pytest.raises(RequestError, match="both given"):
        request(image(), model, drift_um=[1.0], drift_file="x.csv")


# -- other pixels, models, movies -------------------------------------------------------------


def test_other_pixels_are_resampled_and_it_is_said(model: str) -> None:
    picture = image(pixel=2 * PIXEL, origin=3.0)
    result = run(picture, model, surface="tilt", tilt_y_deg=2.0)
    made = result.outputs["refocused"]
    assert isinstance(made, xr.DataArray) and made.shape == (79, 95)
    assert spacing_of(made)["x"] == pytest.approx(PIXEL)
    assert float(made.coords["y"][0]) == 3.0
    assert float(made.coords["y"][-1]) == pytest.approx(float(picture.coords["y"][-1]))
    assert "resampled" in result.provenance["figures"]["notes"][0]
    assert any("resampled" in str(p) for p in problems(picture, model))


def test_the_model_with_the_nearest_pixels_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path))
    save_small_model(tmp_path / "fine", replace(DOMAIN, pixel_um=0.01))
    save_small_model(tmp_path / "near", replace(DOMAIN, pixel_um=0.0215))
    completed, _ = METHOD.complete(request(image(pixel=0.02), None))  # type: ignore[attr-defined]
    assert completed.model == "near"
    assert "no refocus model for pixels of 50 um" in errors(image(pixel=50), None)


def test_a_movie_drifts_and_keeps_its_brightness(model: str) -> None:
    first = image().values.astype(float)
    second = first.copy()
    second[5:8, 5:8] = 9000  # percentiles of its own would darken all the rest
    movie = labelled(np.stack([first, second]), "tyx", {"y": PIXEL, "x": PIXEL, "t": 2.0})
    result = run(movie, model, z_um=1.0, drift_um=[-1.0, 0.5])
    made = result.outputs["refocused"]
    assert isinstance(made, xr.DataArray) and made.dims == ("t", "y", "x")
    assert list(made.coords["t"].values) == [0.0, 2.0]
    one = refocuser(first, model)
    other = refocuser(second, model, levels=one.levels)
    assert np.allclose(made[0], one.plane(0.0).widefield, atol=1e-3)
    assert np.allclose(made[1], other.plane(1.5).widefield, rtol=1e-4, atol=1e-2)


def test_channels_are_refocused_one_by_one(model: str) -> None:
    picture = image((2, 40, 48), "cyx").assign_coords(c=["red", "green"])
    made = run(picture, model, surface="stack", z_step_um=4).outputs["refocused"]
    assert isinstance(made, xr.DataArray) and made.dims == ("c", "z", "y", "x")
    assert list(made.coords["c"].values) == ["red", "green"]
    alone = run(picture.isel(c=1, drop=True), model, surface="stack", z_step_um=4).outputs["refocused"]
    assert np.allclose(made[1], alone, atol=1e-3)


def test_a_movie_is_read_frame_by_frame_and_stops_between_frames(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def frame(block_info: Any = None) -> np.ndarray:
        t = block_info[None]["chunk-location"][0]
        read.append(t)
        return image().values[None] + np.uint16(t)

    pixels = da.map_blocks(frame, chunks=((1,) * 6, (40,), (48,)), dtype=np.uint16)
    movie = labelled(pixels, "tyx", {"y": PIXEL, "x": PIXEL, "t": 1.0})
    monkeypatch.setattr("napari_lfm.methods.refocus.plan.check_pixels", lambda _: [])
    read.clear()
    events = METHOD.run(request(movie, model))
    previews = []
    for event in events:
        if isinstance(event, Preview):
            previews.append(event)
            if len(previews) == 2:
                break
    events.close()  # type: ignore[attr-defined]
    assert sorted(set(read)) == [0, 1]
    assert [p.image.sizes["t"] for p in previews] == [1, 2]
    assert previews[0].name == "refocused" and previews[0].provenance["model"]["id"] == "small"


def test_a_dark_frame_stays_dark_and_is_said(model: str) -> None:
    movie = image((3, 40, 48), "tyx")
    movie[0] = 100
    events = list(METHOD.run(request(movie, model)))
    result = events[-1]
    assert isinstance(result, Result)
    made = result.outputs["refocused"]
    assert isinstance(made, xr.DataArray)
    assert float(made[0].max()) == 0 and float(made[1].max()) > 0
    assert any("frame 1 of 3: it stays dark" in note for note in result.provenance["figures"]["notes"])
    assert any(isinstance(e, Progress) and "stays dark" in e.message for e in events)


def test_a_frame_with_nan_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    movie = image((2, 40, 48), "tyx").astype(float)
    movie[1, 3, 4] = np.nan
    assert "NaN" in errors(movie, model)
    monkeypatch.setattr("napari_lfm.methods.refocus.plan.check_pixels", lambda _: [])  # long movies
    with pytest.raises(RequestError, match="frame 2 of 2"):
        run(movie, model)


def test_a_stack_of_a_long_movie_must_fit_the_memory(model: str) -> None:
    pixels = da.zeros((500, 400, 400), dtype=np.uint16, chunks=(1, 400, 400))
    movie = labelled(pixels, "tyx", {"y": PIXEL, "x": PIXEL})
    with pytest.raises(
        RequestError, match=r"500 times 9 planes of 400 x 400 pixels in 2 outputs needs 5\.\d GiB"
    ):
        make_plan(request(movie, model, surface="stack", memory_gib=4.0), "refocus")
    assert make_plan(request(movie, model, memory_gib=4.0), "refocus").frames == 500


def test_the_published_network_goes_through_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_lfm.methods.refocus import published
    from napari_lfm.networks.refocus_paper import RefocusPaperNet

    torch.manual_seed(0)
    net = RefocusPaperNet(5)
    wide = {"confocal": False, "low_percentile": 50.0, "high_percentile": 99.0}
    folder = save_small_model(tmp_path / "paper", replace(DOMAIN, **wide))
    card = find_model(folder).card.model_copy(
        update={"architecture": "refocus-paper", "network": {"levels": 5}}
    )
    save_model(folder, card, net.state_dict())
    monkeypatch.setattr(published.PublishedRefocuser.__init__, "__defaults__", (None, 64))
    picture = image()
    result = run(picture, folder, z_um=2.0)
    assert list(result.outputs) == ["refocused"]
    wanted = refocuser(picture.values, folder).plane(2.0).widefield
    assert np.allclose(result.outputs["refocused"], wanted, atol=1e-3)
    assert "no confocal-like image" in errors(picture, folder, output="confocal")
    assert "no confocal-like image" in errors(picture, folder, check_consistency=True)
