"""``lfmnet`` as a user meets it: models, volumes in the world, movies, tiles, flips, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xarray as xr

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.labelled import labelled, origin_of, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods import lfmnet_plan
from napari_lfm.methods.base import Method, Request, get_method, make_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.methods.conftest import Nets  # only for reading

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

    Make = Callable[..., Request]

METHOD = get_method("lfmnet")


@pytest.fixture
def make(nets: Nets, tiny: Microscope, recording: Recording) -> Make:
    """A request on the three beads with the model 'tiny-net'."""

    def request(fields: dict[str, Any] | None = None, **parameters: Any) -> Request:
        given = {
            "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
            "microscope": tiny,
            "lattice": recording["lattice"],
            "model": "tiny-net",
            "device": "cpu",
            **(fields or {}),
        }
        return Request("lfmnet", parameters=make_parameters(METHOD, parameters), **given)

    return request


def events_of(request: Request) -> list[Event]:
    return list(METHOD.run(request))


def result_of(request: Request) -> Result:
    last = events_of(request)[-1]
    assert isinstance(last, Result)
    return last


def volume_of(request: Request, name: str = "volume") -> xr.DataArray:
    image = result_of(request).outputs[name]
    assert isinstance(image, xr.DataArray)
    return image


def lenslets(rows: int, columns: int, n: int = 9, seed: int = 3) -> xr.DataArray:
    """A rectified light field of noise that is smooth over lenslets."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 50.0, (rows * n, columns * n)).astype(np.float32)
    return labelled(values, "yx", {"y": 0.5, "x": 0.5})


def test_it_is_a_method() -> None:
    assert isinstance(METHOD, Method)
    assert METHOD.input_kind == "lightfield"


def test_a_run_tells_what_it_does_and_ends_with_a_result(make: Make, tiny: Microscope, nets: Nets) -> None:
    card = nets.put(nets.mean(9, 9, 3))
    request = make()
    assert [p for p in METHOD.check(request) if p.severity != "info"] == []
    estimate = METHOD.estimate(request)
    events = events_of(request)
    stages = [e.message for e in events if isinstance(e, Progress)]
    assert "Rectifying" in stages
    assert "Opening the model 'tiny-net'" in stages
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) == 1
    assert previews[-1].progress.seconds_left == 0
    assert previews[-1].provenance["model"]["sha256"] == card.sha256
    result = events[-1]
    assert isinstance(result, Result)
    volume = result.outputs["volume"]
    assert isinstance(volume, xr.DataArray)
    assert volume.shape == estimate.output_shape == (9, 33, 39)
    assert volume.dims == estimate.output_dims
    assert volume.dtype == np.float32
    assert float(volume.min()) >= 0
    np.testing.assert_array_equal(volume, previews[-1].image)
    record = result.provenance
    assert record["method"] == "lfmnet"
    assert record["model"]["id"] == "tiny-net"
    assert record["model"]["version"] == "1.0"
    assert record["model"]["sha256"] == card.sha256
    assert record["figures"]["input_scale"][0] > 0
    assert record["figures"]["offset_counts"] == pytest.approx(100, abs=1)
    assert record["figures"]["seconds"] > 0
    assert volume.attrs["provenance"] == record


def test_the_volume_lies_where_the_deconvolution_puts_it(
    make: Make, make_request: Make, tiny: Microscope, nets: Nets
) -> None:
    nets.put(nets.mean(9, 9, 3))
    ours = volume_of(make())
    theirs = next(
        e
        for e in get_method("deconvolve-lightfield").run(make_request(iterations=1))
        if isinstance(e, Result)
    ).outputs["volume"]
    assert isinstance(theirs, xr.DataArray)
    assert ours.shape == theirs.shape
    for dim in ("z", "y", "x"):
        np.testing.assert_allclose(ours.coords[dim], theirs.coords[dim])
        assert ours.coords[dim].attrs["units"] == "um"


def test_values_are_what_the_card_says(make: Make, tiny: Microscope, nets: Nets) -> None:
    """Input over its percentile, output times that and output_scale: plane d of this network is known."""
    nets.put(nets.mean(9, 9, 3))
    image = lenslets(11, 13)
    volume = volume_of(make({"inputs": {"image": image}, "layout": "lenslet:9", "lattice": None}))
    means = image.values.reshape(11, 9, 13, 9).mean((1, 3))
    expected = 2.0 * means * np.arange(1, 10)[:, None, None]  # output_scale is 2
    np.testing.assert_allclose(volume[:, 1::3, 1::3], expected, rtol=1e-4)
    figures = result_of(make({"inputs": {"image": image}, "layout": "lenslet:9"})).provenance["figures"]
    assert figures["input_scale"][0] == pytest.approx(np.percentile(image, 99.9), rel=1e-5)


def test_exposure_scales_the_volume(make: Make, tiny: Microscope, nets: Nets) -> None:
    nets.put(nets.random(9, 9, 3))
    image = lenslets(11, 13)
    fields = {"layout": "lenslet:9", "lattice": None}
    once = volume_of(make({"inputs": {"image": image}, **fields}))
    twice = volume_of(make({"inputs": {"image": image * 2}, **fields}))
    assert float(once.max()) > 0
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-4 * float(once.max()))


def test_the_white_frame_evens_out_lenslets_but_not_pixels(make: Make, tiny: Microscope, nets: Nets) -> None:
    nets.put(nets.mean(9, 9, 3))
    gain = np.linspace(0.5, 1.5, 11)[:, None] * np.ones((1, 13))
    falloff = np.linspace(1.2, 0.8, 81).reshape(9, 9)
    pattern = np.kron(gain, falloff)  # brightness of each lenslet, times the shape of its disc
    base = lenslets(11, 13)
    image, white = base.copy(data=base.values * pattern), base.copy(data=1000 * pattern)
    fields = {"layout": "lenslet:9", "lattice": None}
    volume = volume_of(make({"inputs": {"image": image, "white": white}, **fields}))
    means = (base.values * np.kron(np.ones((11, 13)), falloff)).reshape(11, 9, 13, 9).mean((1, 3))
    np.testing.assert_allclose(volume[0, 1::3, 1::3], 2 * means, rtol=1e-3)


@pytest.mark.parametrize("tile", [20, 24])
def test_tiles_give_what_the_whole_image_gives(make: Make, tiny: Microscope, nets: Nets, tile: int) -> None:
    nets.put(nets.random(9, 9, 5))
    fields = {"inputs": {"image": lenslets(30, 26)}, "layout": "lenslet:9", "lattice": None}
    whole = volume_of(make(fields))
    events = events_of(make(fields, tile_lenslets=tile))
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) > 5, "a preview for every tile"
    filled = [float((p.image.values > 0).mean()) for p in previews]
    assert filled == sorted(filled)
    assert filled[0] < 0.3 < filled[-1]
    last = events[-1]
    assert isinstance(last, Result)
    span = float(whole.max() - whole.min())
    assert span > 0
    np.testing.assert_allclose(last.outputs["volume"], whole, atol=1e-4 * span)  # borders too


def test_little_memory_means_tiles_and_too_little_a_sentence(
    make: Make, tiny: Microscope, nets: Nets
) -> None:
    from napari_lfm.methods.plan import RUNTIME_BYTES

    nets.put(nets.random(9, 9, 5))
    fields = {"inputs": {"image": lenslets(40, 40)}, "layout": "lenslet:9", "lattice": None}
    plenty = METHOD.estimate(make(fields))
    request = make({**fields, "memory_gib": (0.6 * plenty.peak_bytes + 0.4 * RUNTIME_BYTES) / 2**30})
    estimate = METHOD.estimate(request)
    assert any("tiles" in note for note in estimate.notes)
    assert estimate.peak_bytes < 0.61 * plenty.peak_bytes + 0.4 * RUNTIME_BYTES
    assert any("tiles" in p.message for p in METHOD.check(request))
    np.testing.assert_allclose(volume_of(request), volume_of(make(fields)), rtol=1e-3, atol=1e-2)
    problems = METHOD.check(make({**fields, "memory_gib": 0.01}))
    assert [p.field for p in problems if p.severity == "error"] == ["memory_gib"]
    assert "even for the smallest tile" in problems[-1].message


def test_out_of_memory_halves_the_tiles(
    make: Make, tiny: Microscope, nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_lfm.networks.lenslet_net import LensletNet

    nets.put(nets.random(9, 9, 5))
    fields = {"inputs": {"image": lenslets(44, 40)}, "layout": "lenslet:9", "lattice": None}
    whole = volume_of(make(fields))
    real = LensletNet.volume_of

    def scarce(self: LensletNet, image: torch.Tensor) -> torch.Tensor:
        if image.shape[1] > 30 * 9 and image.device.type != "meta":
            raise MemoryError
        return real(self, image)

    monkeypatch.setattr(LensletNet, "volume_of", scarce)
    events = events_of(make(fields))
    assert "Out of memory; again with tiles of 22 lenslets" in [
        e.message for e in events if isinstance(e, Progress)
    ]
    last = events[-1]
    assert isinstance(last, Result)
    np.testing.assert_allclose(last.outputs["volume"], whole, atol=1e-4 * float(whole.max()))


def test_frames_of_a_movie_are_what_they_are_alone(
    make: Make, tiny: Microscope, recording: Recording, nets: Nets
) -> None:
    nets.put(nets.random(9, 9, 3))
    raw = recording["raw"]
    frames = np.stack([(raw.values - 100.0) * share + 100 for share in (1, 0.6, 0.2)]).astype(np.uint16)
    step = spacing_of(raw)["y"]
    movie = labelled(frames, "tyx", {"t": 0.2, "y": step, "x": step})
    others = {"white": recording["white"], "dark": recording["dark"]}
    request = make({"inputs": {"image": movie, **others}})
    assert METHOD.estimate(request).output_dims == ("t", "z", "y", "x")
    run, seen = METHOD.run(request), []
    volumes: Any = None
    for event in run:
        if isinstance(event, Preview):
            seen.append(len(event.image) if event.image.ndim == 4 else 1)
            assert event.image.dims == ("t", "z", "y", "x")
        if isinstance(event, Result):
            volumes = event.outputs["volume"]
    assert seen == [1, 2, 3], "a stopped movie keeps the frames that are done"
    assert spacing_of(volumes)["t"] == pytest.approx(0.2)
    for k in range(3):
        alone = volume_of(make({"inputs": {"image": movie[k], **others}}))
        np.testing.assert_allclose(volumes[k], alone, rtol=1e-5, atol=1e-5 * float(alone.max()))


def test_closing_stops_between_frames_and_keeps_what_is_done(
    make: Make, tiny: Microscope, recording: Recording, nets: Nets
) -> None:
    nets.put(nets.random(9, 9, 3))
    raw = recording["raw"]
    step = spacing_of(raw)["y"]
    movie = labelled(np.stack([raw.values] * 4), "tyx", {"t": 1.0, "y": step, "x": step})
    run = METHOD.run(make({"inputs": {"image": movie, "dark": recording["dark"]}}))
    previews = []
    for event in run:
        if isinstance(event, Preview):
            previews.append(event)
            if len(previews) == 2:
                run.close()  # type: ignore[attr-defined]
    assert len(previews[-1].image) == 2
    assert previews[-1].progress.step == 2
    assert previews[-1].progress.total == 4
    assert previews[-1].progress.seconds_left > 0  # type: ignore[operator]
    assert float(previews[-1].image[1].max()) > 0


def test_confidence_of_a_network_that_flips_with_its_input_is_one(
    make: Make, tiny: Microscope, nets: Nets
) -> None:
    nets.put(nets.mean(9, 9, 3))
    plain = volume_of(make())
    result = result_of(make(confidence="flips"))
    sure, volume = result.outputs["confidence"], result.outputs["volume"]
    assert isinstance(sure, xr.DataArray)
    assert isinstance(volume, xr.DataArray)
    assert sure.shape == volume.shape
    np.testing.assert_array_equal(sure, 1.0)
    np.testing.assert_allclose(volume, plain, rtol=1e-4, atol=1e-4 * float(plain.max()))


def test_confidence_is_low_where_the_answers_differ(make: Make, tiny: Microscope, nets: Nets) -> None:
    nets.put(nets.random(9, 9, 3))
    events = events_of(make(confidence="flips"))
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) == 8
    result = events[-1]
    assert isinstance(result, Result)
    sure = result.outputs["confidence"]
    assert isinstance(sure, xr.DataArray)
    assert 0 <= float(sure.min()) < 0.5
    assert float(sure.max()) <= 1
    for dim in ("z", "y", "x"):
        np.testing.assert_array_equal(sure.coords[dim], result.outputs["volume"].coords[dim])
    assert sure.attrs["provenance"]["parameters"]["confidence"] == "flips"


def test_part_of_the_depths(make: Make, tiny: Microscope, nets: Nets) -> None:
    nets.put(nets.mean(9, 9, 3))
    whole = volume_of(make())
    part = volume_of(make(z_min_um=-12, z_max_um=6))
    assert list(part.coords["z"].values) == [-12, -6, 0, 6]
    np.testing.assert_array_equal(part, whole.sel(z=slice(-12, 6)))
    between = make(z_min_um=-12, z_max_um=6, z_step_um=3)
    assert any("interpolated" in p.message for p in METHOD.check(between))
    fine = volume_of(between)
    assert list(fine.coords["z"].values) == [-12, -9, -6, -3, 0, 3, 6]
    np.testing.assert_allclose(fine[1], (whole[2].values + whole[3].values) / 2, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("voxels", [1, 2, 5])
def test_other_voxels_are_resampled_and_said(make: Make, tiny: Microscope, nets: Nets, voxels: int) -> None:
    nets.put(nets.mean(9, 9, 3))
    request = make(voxels_per_lenslet=voxels)
    assert any("gives 3 voxels per lenslet" in p.message for p in METHOD.check(request))
    volume, own = volume_of(request), volume_of(make())
    assert volume.shape == METHOD.estimate(request).output_shape == (9, 11 * voxels, 13 * voxels)
    # the field they cover is the same one
    for dim in ("y", "x"):
        low = origin_of(volume)[dim] - spacing_of(volume)[dim] / 2
        assert low == pytest.approx(origin_of(own)[dim] - spacing_of(own)[dim] / 2, abs=1e-6)
    assert float(volume.mean()) == pytest.approx(float(own.mean()), rel=0.02)


def test_another_number_of_pixels_is_resampled(make: Make, tiny: Microscope, nets: Nets) -> None:
    """A model with N = 7 or 3 on a recording with N = 9: the same means, in the same places."""
    nets.put(nets.mean(9, 9, 3))
    own = volume_of(make())
    for n in (7, 3):
        nets.put(nets.mean(n, 9, 3), id=f"n{n}")
        request = make({"model": f"n{n}"})
        warnings = [p for p in METHOD.check(request) if p.severity == "warning"]
        assert [p.field for p in warnings] == ["model"]
        assert "The light field is resampled" in warnings[0].remedy
        volume = volume_of(request)
        np.testing.assert_allclose(volume.coords["x"], own.coords["x"], atol=1e-6)
        # per pixel: a coarser one holds more light
        ratio = volume.values / (own.values + 1e-3)
        assert np.median(ratio) == pytest.approx((9 / n) ** 2, rel=0.1)
        assert np.corrcoef(volume.values.ravel(), own.values.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("layout", ["lenslet:9", "vuts"])
def test_rectified_frames_are_resampled_too(make: Make, tiny: Microscope, nets: Nets, layout: str) -> None:
    nets.put(nets.mean(7, 9, 3))
    image = lenslets(11, 13)
    if layout == "vuts":
        image = xr.DataArray(
            image.values.reshape(11, 9, 13, 9).transpose(1, 3, 0, 2), dims=("v", "u", "t", "s")
        )
        layout = "auto"
    volume = volume_of(make({"inputs": {"image": image}, "layout": layout, "lattice": None}))
    assert volume.shape == (9, 33, 39)
    assert spacing_of(volume)["x"] == pytest.approx(5 / 3)
    assert origin_of(volume)["x"] == pytest.approx(5 / 9 * (9 / 3 / 2 - 0.5))


def test_the_best_model_and_its_microscope_are_found(
    make: Make, tiny: Microscope, recording: Recording, nets: Nets
) -> None:
    from napari_lfm.api import build_request

    nets.put(nets.mean(9, 9, 3))
    coarse = tiny.model_copy(
        update={"camera": tiny.camera.model_copy(update={"pixel_um": 6.0}), "name": "other"}
    )
    nets.put(nets.mean(17, 9, 3), id="other", of=coarse)
    assert result_of(make({"model": None})).provenance["model"]["id"] == "tiny-net"
    request, problems = build_request(
        "lfmnet", recording["raw"].drop_attrs(), white=recording["white"], dark=recording["dark"]
    )
    assert request.microscope == tiny
    assert request.model == "tiny-net"
    assert any("taken to be 'tiny'" in p.message for p in problems)
    assert not [p for p in problems if p.severity == "error"]
    alone = replace(make({"model": "other"}), microscope=None, lattice=None)
    assert result_of(make({"microscope": None})).provenance["microscope"]["name"] == "tiny"
    assert any(p.severity == "error" for p in METHOD.check(replace(alone, microscope=tiny, model="othr")))


def test_models_that_do_not_fit_are_refused_with_the_reason(make: Make, tiny: Microscope, nets: Nets) -> None:
    other = tiny.model_copy(
        update={"objective": tiny.objective.model_copy(update={"na": 0.7, "magnification": 40.0})}
    )
    nets.put(nets.mean(9, 9, 3), of=other)
    problems = METHOD.check(make())
    assert [p.severity for p in problems] == ["error"]
    assert "does not fit" in problems[0].message
    assert len(problems[0].message) > 60, "the reasons are told"
    with pytest.raises(RequestError, match="does not fit"):
        events_of(make())
    nothing = METHOD.check(make({"model": None}))
    assert "no lfmnet model for the microscope 'tiny'" in nothing[-1].message
    hexagonal = tiny.model_copy(
        update={"lenslets": tiny.lenslets.model_copy(update={"lattice": "hexagonal"})}  # type: ignore[union-attr]
    )
    assert any(p.severity == "error" for p in METHOD.check(make({"microscope": hexagonal, "lattice": None})))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"z_min_um": -30}, "trained for depths of -24 to 24 um"),
        ({"z_min_um": 6, "z_max_um": -6}, "lies below"),
        ({"z_min_um": 1, "z_max_um": 2}, "No plane of the model 'tiny-net' lies between 1 and 2 um"),
    ],
)
def test_depths_that_the_model_does_not_know(
    make: Make, tiny: Microscope, nets: Nets, parameters: dict[str, float], says: str
) -> None:
    nets.put(nets.mean(9, 9, 3))
    problems = METHOD.check(make(**parameters))
    assert [p.field for p in problems if p.severity == "error"] == ["z_min_um"]
    assert says in problems[-1].message
    with pytest.raises(RequestError, match=says):
        events_of(make(**parameters))


def test_bad_images_are_told_as_the_deconvolution_tells_them(
    make: Make, make_request: Make, recording: Recording, tiny: Microscope, nets: Nets
) -> None:
    nets.put(nets.mean(9, 9, 3))
    raw = recording["raw"]
    broken = raw.astype(np.float32).copy()
    broken[5, 5] = np.nan
    bad: tuple[dict[str, Any], ...] = (
        {"inputs": {"image": broken}},
        {"inputs": {"image": raw * 0}},
        {"inputs": {}},
        {"layout": "lenslet:8"},
        {"region_px": (0, 0, 20, 20)},
        {"inputs": {"image": raw.expand_dims("c")}},
    )
    for fields in bad:
        ours = [p for p in METHOD.check(make(fields)) if p.severity == "error"]
        theirs = [
            p
            for p in get_method("deconvolve-lightfield").check(make_request(fields))
            if p.severity == "error"
        ]
        assert ours
        assert ours == theirs


def test_a_region_of_the_field(make: Make, tiny: Microscope, nets: Nets) -> None:
    nets.put(nets.mean(9, 9, 3))
    part = volume_of(make({"region_px": (25, 30, 80, 100)}))
    whole = volume_of(make())
    assert part.shape[1] < whole.shape[1]
    at = [(origin_of(part)[d] - origin_of(whole)[d]) / spacing_of(whole)[d] for d in ("y", "x")]
    np.testing.assert_allclose(at, np.round(at), atol=1e-3)


PAPER = {
    "architecture": "lfmnet-paper",
    "network": {"n_depths": 9, "fov": 3, "n_pixels": 9},
    "voxels_per_lenslet": None,
    "scalers": {"input_max": 255.0},
}


@pytest.fixture
def paper(nets: Nets) -> Any:
    """A model of the published network, small, scaled as its authors' checkpoints are."""
    from napari_lfm.networks.lfmnet import LFMNet

    torch.manual_seed(1)
    net = LFMNet(n_depths=9, fov=3, n_pixels=9).eval()
    nets.put(net, **PAPER)  # type: ignore[arg-type]
    return net


def test_the_published_network_sees_the_whole_image(make: Make, paper: Any) -> None:
    image = lenslets(11, 13)
    fields = {"inputs": {"image": image}, "layout": "lenslet:9", "lattice": None}
    volume = volume_of(make(fields, tile_lenslets=4))
    with torch.no_grad():
        expected = paper.volume_of(torch.from_numpy(image.values / np.float32(255))[None])[0]
    np.testing.assert_allclose(volume, expected, atol=1e-5)
    assert volume.shape == METHOD.estimate(make(fields)).output_shape == (9, 99, 117)
    problems = METHOD.check(make({**fields, "memory_gib": 0.445}))
    assert "has to see the whole image at once" in problems[-1].message
    assert problems[-1].severity == "error"
    region = METHOD.check(make({"region_px": (0, 0, 90, 90)}))
    assert any(p.field == "region" and p.severity == "warning" for p in region)


def test_planes_lie_where_this_microscope_has_them(make: Make, nets: Nets, tiny: Microscope) -> None:
    """A model for another sample index: the same picture, from other depths."""
    deep = [30.0 * k for k in range(-4, 5)]
    nets.put(nets.mean(9, 9, 3), of=tiny.model_copy(update={"sample_index": 1.06}), z_um=deep)
    request = make()
    warning = next(p for p in METHOD.check(request) if p.severity == "warning")
    assert "sample index" in warning.message
    assert "planes are put where" in warning.remedy
    depths = volume_of(request).coords["z"].values
    assert depths[4] == pytest.approx(0)
    assert depths[-1] == pytest.approx(120 / 1.06, rel=0.02)
    assert any("trained for depths" in p.message for p in METHOD.check(make(z_max_um=120)))


def test_flips_of_tiles_are_flips_of_the_whole(make: Make, nets: Nets) -> None:
    nets.put(nets.random(9, 9, 5))
    fields = {"inputs": {"image": lenslets(26, 18)}, "layout": "lenslet:9", "lattice": None}
    whole = result_of(make(fields, confidence="flips"))
    run = METHOD.run(make(fields, confidence="flips", tile_lenslets=24))
    events = list(run)
    steps = [e.progress.step for e in events if isinstance(e, Preview)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 8
    last = events[-1]
    assert isinstance(last, Result)
    for name in ("volume", "confidence"):
        a, b = last.outputs[name], whole.outputs[name]
        assert isinstance(b, xr.DataArray)
        np.testing.assert_allclose(a, b, atol=1e-3 * float(b.max()))


@pytest.mark.parametrize(("native", "long", "expected"), [
    (True, True, "bfloat16"), (True, False, "float32"), (False, True, "float32"),
])  # fmt: skip
def test_long_runs_take_sixteen_bits_where_they_are_faster(
    make: Make, paper: Any, monkeypatch: pytest.MonkeyPatch, native: bool, long: bool, expected: str
) -> None:
    monkeypatch.setattr(lfmnet_plan, "half_is_native", lambda _: native)
    monkeypatch.setattr(lfmnet_plan, "LONG_FLOP", 0 if long else 1e18)
    request, entry = lfmnet_plan.settle(make())
    assert lfmnet_plan.make_plan(request, entry).precision == expected
    request, entry = lfmnet_plan.settle(make(precision="float32"))
    assert lfmnet_plan.make_plan(request, entry).precision == "float32"
