"""``deconvolve-lightfield`` as a user meets it: events, volumes in the world, stopping and going on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.labelled import affine_of, labelled, origin_of, spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import Method, Request, get_method
from napari_lfm.methods.deconvolve_lightfield import (
    DeconvolutionState,
    DeconvolveLightfield,
    DeconvolveParameters,
)
from napari_lfm.simulation.lightfield import Exposure, simulate_lightfield
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

    Make = Callable[..., Request]

METHOD = get_method("deconvolve-lightfield")


def events_of(request: Request) -> list[Event]:
    return list(METHOD.run(request))


def result_of(request: Request) -> Result:
    last = events_of(request)[-1]
    assert isinstance(last, Result)
    return last


def volume_of(request: Request) -> xr.DataArray:
    image = result_of(request).outputs["volume"]
    assert isinstance(image, xr.DataArray)
    return image


def nearest_peak(volume: xr.DataArray, point: np.ndarray, radius_um: tuple[float, float]) -> np.ndarray:
    """World position (z, y, x) of the light around `point`, weighted by its square."""
    index = np.indices(volume.shape).reshape(3, -1)
    world = (affine_of(volume) @ np.vstack([index, np.ones(index.shape[1])]))[:3].T
    away = np.abs(world - point)
    near = (away[:, 0] <= radius_um[0]) & (np.hypot(away[:, 1], away[:, 2]) <= radius_um[1])
    weight = np.where(near, np.asarray(volume).ravel() ** 2, 0)
    return np.asarray((world * weight[:, None]).sum(0) / weight.sum())


def test_it_is_a_method() -> None:
    assert isinstance(METHOD, Method)
    assert isinstance(METHOD, DeconvolveLightfield)
    assert METHOD.input_kind == "lightfield"
    for name, field in METHOD.Parameters.model_fields.items():
        assert field.description, name


def test_a_run_tells_what_it_does_and_ends_with_a_result(make_request: Make) -> None:
    request = make_request(iterations=4)
    assert [p for p in METHOD.check(request) if p.severity == "error"] == []
    estimate = METHOD.estimate(request)
    events = events_of(request)
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) == 4, "exactly `iterations` steps"
    assert [p.progress.step for p in previews] == [1, 2, 3, 4]
    assert previews[-1].progress.seconds_left == 0
    residuals = [p.progress.values["residual"] for p in previews]
    assert all(b < a for a, b in pairwise(residuals))
    stages = [e.message for e in events if isinstance(e, Progress)]
    assert "Rectifying" in stages
    assert "Computing the point spread function" in stages
    result = events[-1]
    assert isinstance(result, Result)
    volume = result.outputs["volume"]
    assert isinstance(volume, xr.DataArray)
    assert volume.shape == estimate.output_shape
    assert volume.dims == estimate.output_dims == ("z", "y", "x")
    assert volume.dtype == np.float32
    assert np.isfinite(volume).all()
    assert float(volume.min()) >= 0
    np.testing.assert_array_equal(volume, previews[-1].image)
    assert volume.coords["x"].attrs["units"] == "um"
    assert list(volume.coords["z"].values) == [-24, -18, -12, -6, 0, 6, 12, 18, 24]
    figures = result.provenance["figures"]
    assert figures["relative_residual"] <= residuals[-1]
    assert result.provenance["parameters"]["iterations"] == 4
    assert result.provenance["method"] == "deconvolve-lightfield"
    assert volume.attrs["provenance"] == result.provenance
    assert set(result.provenance["inputs"]) == {"image", "white", "dark"}


def test_beads_come_back_at_their_place(make_request: Make, recording: Recording) -> None:
    volume = volume_of(make_request(iterations=25, z_step_um=3.0))
    voxel = spacing_of(volume)
    assert voxel["x"] == pytest.approx(5 / 3, rel=1e-3)
    for point in recording["points"].to_numpy():
        found = nearest_peak(volume, point, (10, 6))
        np.testing.assert_allclose(found[1:], point[1:], atol=voxel["x"] / 2)
        assert found[0] == pytest.approx(point[0], abs=1.5)
    assert float(volume.max()) > 20 * float(volume.median())


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_a_rotated_lattice_gives_a_rotated_volume(tiny: Microscope, kind: str) -> None:
    assert tiny.lenslets is not None
    microscope = tiny.model_copy(update={"lenslets": tiny.lenslets.model_copy(update={"lattice": kind})})
    beads = ((18.0, 12.0, -12.0), (-18.0, -11.0, 10.0))
    recording = simulate_lightfield(
        Scene(tuple(Ball(b, 1.5) for b in beads), points_um=beads),
        microscope,
        z_um=(-18, 18, 6),
        lenslets=(14, 13) if kind == "hexagonal" else (12, 13),
        rotation_deg=6.0,
        exposure=Exposure(hot_pixels=0),
        voxels_per_lenslet=5,
    )
    request = Request(
        "deconvolve-lightfield",
        {k: recording[k] for k in ("white", "dark")} | {"image": recording["raw"]},  # type: ignore[literal-required]
        DeconvolveParameters(z_min_um=-24, z_max_um=24, z_step_um=6, iterations=20, guard_planes=False),
        microscope=microscope,
        lattice=recording["lattice"],
        device="cpu",
    )
    volume = volume_of(request)
    matrix = affine_of(volume)
    turned = np.degrees(np.arctan2(matrix[1, 2], matrix[2, 2]))
    assert turned == pytest.approx(6.0, abs=0.05)
    for point in recording["points"].to_numpy():
        found = nearest_peak(volume, point, (10, 7))
        np.testing.assert_allclose(found[1:], point[1:], atol=1.0)
        assert found[0] == pytest.approx(point[0], abs=3.0)


def test_going_on_equals_running_longer(make_request: Make) -> None:
    at_once = result_of(make_request(iterations=5, accelerate=True))
    first = result_of(make_request(iterations=2, accelerate=True))
    assert isinstance(first.state, DeconvolutionState)
    request = make_request({"continue_from": first.state}, iterations=3, accelerate=True)
    events = events_of(request)
    second = events[-1]
    assert isinstance(second, Result)
    steps = [e.progress.step for e in events if isinstance(e, Preview)]
    assert steps == [3, 4, 5]
    np.testing.assert_array_equal(second.outputs["volume"], at_once.outputs["volume"])
    assert second.provenance["parameters"]["iterations"] == 5
    assert second.provenance["figures"]["seconds"] > first.provenance["figures"]["seconds"]


def test_going_on_may_steer_but_not_turn(make_request: Make) -> None:
    kept = result_of(make_request(iterations=2)).state
    calmer = volume_of(make_request({"continue_from": kept}, iterations=3, total_variation=0.02))
    plain = volume_of(make_request({"continue_from": kept}, iterations=3))
    assert not np.array_equal(calmer, plain)
    with pytest.raises(RequestError, match="another z_step_um"):
        list(METHOD.run(make_request({"continue_from": kept}, z_step_um=2.0)))


def test_closing_stops_within_one_step_and_the_preview_can_go_on(make_request: Make) -> None:
    run = METHOD.run(make_request(iterations=1000))
    preview = next(e for e in run if isinstance(e, Preview) and e.progress.step == 2)
    run.close()
    with pytest.raises(StopIteration):
        next(run)
    assert preview.progress.total == 1000
    assert preview.progress.seconds_left is not None
    assert preview.progress.seconds_left > 0
    later = volume_of(make_request({"continue_from": preview.state}, iterations=1))
    np.testing.assert_allclose(later, volume_of(make_request(iterations=3)), rtol=1e-5)


def test_auto_stop_ends_at_the_noise_or_at_a_plateau(make_request: Make) -> None:
    events = events_of(make_request(iterations=400, auto_stop=True))
    previews = [e for e in events if isinstance(e, Preview)]
    assert 4 < len(previews) < 200
    assert "residual" in previews[-1].progress.message
    assert isinstance(events[-1], Result)
    record = events[-1].provenance
    assert record["parameters"]["iterations"] == len(previews)
    last, before = (p.progress.values["residual"] for p in (previews[-1], previews[-4]))
    assert last <= record["figures"]["expected_noise"] or before - last < 0.01 * last


def test_exactly_as_many_iterations_without_auto_stop(make_request: Make) -> None:
    quiet = make_request(iterations=40)
    assert sum(isinstance(e, Preview) for e in METHOD.run(quiet)) == 40


@pytest.fixture(scope="module")
def movie(recording: Recording) -> xr.DataArray:
    """Five frames of falling brightness."""
    raw = recording["raw"]
    frames = np.stack([(raw.values - 100.0) * share + 100 for share in (1, 0.7, 0.5, 0.2, 0.1)])
    step = spacing_of(raw)["y"]
    return labelled(frames.astype(np.uint16), "tyx", {"t": 0.2, "y": step, "x": step})


@pytest.mark.parametrize("frames_at_once", [1, 2, 5])
def test_frames_of_a_movie_are_what_they_are_alone(
    make_request: Make,
    movie: xr.DataArray,
    recording: Recording,
    frames_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_lfm.methods.plan.MAX_FRAMES_AT_ONCE", frames_at_once)
    given = {"white": recording["white"], "dark": recording["dark"]}
    request = make_request({"inputs": {"image": movie, **given}})
    assert METHOD.estimate(request).output_dims == ("t", "z", "y", "x")
    events = events_of(request)
    result = events[-1]
    assert isinstance(result, Result)
    volumes = result.outputs["volume"]
    assert isinstance(volumes, xr.DataArray)
    assert volumes.dims == ("t", "z", "y", "x")
    assert spacing_of(volumes)["t"] == pytest.approx(0.2)
    for k in (0, 3, 4):
        alone = volume_of(make_request({"inputs": {"image": movie[k], **given}}))
        scale = float(alone.max())
        np.testing.assert_allclose(volumes[k], alone, rtol=2e-3, atol=2e-4 * scale)
    seen = [len(e.image) for e in events if isinstance(e, Preview)]
    assert seen[-1] == 5, "a stopped movie keeps the frames that are done"
    assert seen == sorted(seen)
    if frames_at_once < 5:
        with pytest.raises(RequestError, match="in several parts"):
            list(METHOD.run(replace(request, continue_from=result.state)))


def test_a_region_gives_what_the_whole_field_gives_there(make_request: Make) -> None:
    whole = volume_of(make_request(iterations=12))
    region = (25, 30, 80, 100)  # y0, x0, y1, x1 in raw pixels
    part = volume_of(make_request({"region_px": region}, iterations=12))
    assert part.shape[1] < whole.shape[1]
    assert part.shape[2] < whole.shape[2]
    step, corner, first = spacing_of(whole), origin_of(part), origin_of(whole)
    assert spacing_of(part) == pytest.approx(step)
    at = [(corner[d] - first[d]) / step[d] for d in ("y", "x")]
    np.testing.assert_allclose(at, np.round(at), atol=1e-3)  # the same voxels
    y, x = (round(a) for a in at)
    same = whole.values[:, y : y + part.shape[1], x : x + part.shape[2]]
    inner = (slice(None), slice(6, -6), slice(6, -6))  # two lenslets from the cut
    a, b = part.values[inner].ravel(), same[inner].ravel()
    assert np.corrcoef(a, b)[0, 1] > 0.98
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(b)
    pixel = 0.55
    reach = origin_of(part)["y"], origin_of(part)["y"] + step["y"] * part.shape[1]
    assert reach[0] <= 25 * pixel + 0.01
    assert reach[1] >= 79 * pixel


def test_vignetting_belongs_in_the_model(make_request: Make, tiny: Microscope, recording: Recording) -> None:
    dim = simulate_lightfield(
        Scene((Ball((18.0, 6.0, -9.0), 6.0), Ball((-18.0, -9.0, 8.0), 6.0))),
        tiny,
        z_um=(-30, 30, 6),
        lenslets=(11, 13),
        error=OpticsError(pupil=(1, 0.95, 0.8, 0.55, 0.3, 0.15)),
        exposure=Exposure(hot_pixels=0, falloff=0.4),
        voxels_per_lenslet=5,
        z_substeps=1,
    )
    inputs = {"image": dim["raw"], "white": dim["white"], "dark": dim["dark"]}
    residual, pupils = {}, {}
    for how in ("pupil", "white", "none"):
        request = make_request({"inputs": inputs, "lattice": dim["lattice"]}, vignetting=how, iterations=15)
        figures = result_of(request).provenance["figures"]
        residual[how], pupils[how] = figures["relative_residual"], figures["pupil"]
    assert pupils["none"] == pupils["white"] == []
    assert pupils["pupil"][-1] < 0.4
    assert pupils["pupil"][-1] < pupils["pupil"][2]
    assert residual["pupil"] < 0.8 * residual["none"]
    assert residual["white"] < residual["none"]
    alone = make_request({"inputs": {"image": recording["raw"]}})
    assert any(p.severity == "info" and p.field == "white" for p in METHOD.check(alone))


def test_the_camera_offset_does_not_become_haze(make_request: Make, recording: Recording) -> None:
    """Without a dark frame, 100 grey values of offset are no light."""
    alone = volume_of(make_request({"inputs": {"image": recording["raw"]}}, iterations=8))
    known = volume_of(make_request(iterations=8))
    haze = float(alone.median()) / float(alone.max())
    assert haze < float(known.median()) / float(known.max()) + 0.05


def test_read_noise_and_negative_values_shift_the_likelihood(make_request: Make, tiny: Microscope) -> None:
    def shift(microscope: Microscope) -> float:
        run = METHOD.run(make_request({"microscope": microscope}))
        state = next(e for e in run if isinstance(e, Preview)).state
        run.close()
        assert isinstance(state, DeconvolutionState)
        return float(state.solver.measurement.shift)

    noisy = tiny.model_copy(update={"camera": tiny.camera.model_copy(update={"read_noise_e": 12.0})})
    assert shift(noisy) == pytest.approx(12.0**2 / tiny.camera.gain_e_per_count)
    assert 0 < shift(tiny) < 50


def test_guard_planes_and_half_storage_change_little(make_request: Make) -> None:
    plain = volume_of(make_request(iterations=5, anti_aliasing=False))
    half = volume_of(make_request(iterations=5, anti_aliasing=False, precision="float16"))
    assert np.linalg.norm(half - plain) < 5e-3 * np.linalg.norm(plain)
    guarded = volume_of(make_request(iterations=5, anti_aliasing=False, guard_planes=True))
    assert guarded.shape == plain.shape
    assert np.corrcoef(guarded.values.ravel(), plain.values.ravel())[0, 1] > 0.8


def test_suggestions_fit_the_microscope(tiny: Microscope) -> None:
    assert isinstance(METHOD, DeconvolveLightfield)
    values: dict[str, Any] = METHOD.suggest(tiny)
    parameters = DeconvolveParameters(**values)
    assert parameters.z_min_um == -parameters.z_max_um
    assert 0 in parameters.z_um
    assert 7 <= parameters.planes <= 31
    assert parameters.z_max_um < 4 * tiny.depth_range_um


def test_points_of_the_simulation_are_in_the_same_world(recording: Recording) -> None:
    points = recording["points"]
    assert isinstance(points, pd.DataFrame)
    centre = (np.array(recording["raw"].shape) - 1) / 2 * 0.55
    assert np.abs(points[["y_um", "x_um"]].to_numpy() - centre).max() < 20
