"""Wide-field deconvolution: borders, blocks, what is kept, and every kind of bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from scipy.signal import fftconvolve

from napari_lfm.api import build_request, run
from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.metrics import nrmse, pearson
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.base import Request, get_method
from napari_lfm.methods.widefield.plan import RUNTIME_BYTES, make_plan
from napari_lfm.optics.microscope import Camera, Microscope, Objective
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf

if TYPE_CHECKING:
    from collections.abc import Callable

VOXEL = (0.4, 0.15, 0.15)
OPTICS: dict[str, Any] = {"na": 0.9, "wavelength_um": 0.52, "immersion_index": 1.0}
PSF = widefield_psf(WidefieldOptics(0.9, 0.52, 1.0, 1.0), (9, 17, 17), VOXEL)
METHOD = "deconvolve-widefield"
BEAD = np.random.default_rng(5).poisson(100 + 2e4 * PSF / PSF.max()).astype(np.uint16)


def scene(shape: tuple[int, int, int] = (14, 40, 44)) -> np.ndarray:
    """A box and points, some of them at the rim."""
    truth = np.zeros(shape)
    truth[4:9, 10:18, 12:26] = 60
    for place in ((6, 30, 30), (9, 5, 38), (0, 20, 40), (7, 39, 6)):
        truth[place] = 4000
    return truth


def blurred(truth: np.ndarray, background: float = 10.0) -> np.ndarray:
    return np.maximum(fftconvolve(truth, PSF, "same"), 0) + background


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return np.random.default_rng(3).poisson(blurred(scene())).astype(np.uint16)


def stack(data: np.ndarray, dims: str = "zyx") -> xr.DataArray:
    return labelled(data, dims, {d: s for d, s in zip("zyx", VOXEL, strict=True) if d in dims})


def solved(image: Any, **more: Any) -> np.ndarray:
    result = run(METHOD, image, **{"psf": stack(PSF), "iterations": 5, "device": "cpu", **more})
    out: np.ndarray = result.outputs["deconvolved"].values
    return out


def previews(request: Request) -> list[Preview]:
    return [e for e in get_method(METHOD).run(request) if isinstance(e, Preview)]


def request_for(image: Any, **more: Any) -> Request:
    given = {k: more.pop(k) for k in ("psf", "device", "memory_gib", "microscope", "voxel_um") if k in more}
    request, _ = build_request(METHOD, image, parameters=more, **{"device": "cpu", **given})
    return request


# -- what it is for -----------------------------------------------------------------------------


def test_blur_comes_off(noisy: np.ndarray) -> None:
    truth = scene()
    before, after = pearson(noisy, truth), pearson(solved(stack(noisy), iterations=40), truth)
    assert after > before + 0.2


def test_one_step_is_richardson_lucy_s() -> None:
    """Without borders to speak of it is the textbook's formula, from the same even start."""
    truth = np.zeros((21, 41, 41))
    truth[10, 18:24, 20] = 500
    data = fftconvolve(truth, PSF, "same").clip(0) + 2
    found = solved(stack(data), iterations=3, background_counts=2.0, masked_borders=False)
    x = np.full(data.shape, (data - 2).mean())
    for _ in range(3):
        x = x * fftconvolve(data / (fftconvolve(x, PSF, "same") + 2), PSF[::-1, ::-1, ::-1], "same")
    np.testing.assert_allclose(found, x, rtol=2e-3, atol=1e-3 * x.max())


def test_a_stack_cut_in_the_middle_of_an_object_is_right_at_the_cut() -> None:
    wide = np.zeros((14, 64, 64))
    wide[5:9, 10:54, 10:54] = 100
    data = blurred(wide, 5.0)
    cut = (slice(None), slice(20, 44), slice(20, 44))
    flat = {"iterations": 30, "background_counts": 5.0}
    whole = solved(stack(data), **flat)[cut]
    masked, plain = (solved(stack(data[cut]), masked_borders=m, **flat) for m in (True, False))
    assert nrmse(masked, whole) < 0.1
    assert nrmse(plain, whole) > 4 * nrmse(masked, whole)


def test_acceleration_gets_farther_in_as_many_steps() -> None:
    clean, last = stack(blurred(scene())), {}
    for accelerate in (False, True):
        found = previews(request_for(clean, psf=stack(PSF), iterations=12, accelerate=accelerate))
        last[accelerate] = found[-1].progress.values["residual"]
    assert last[True] < 0.7 * last[False]


def test_total_variation_calms_noise(noisy: np.ndarray) -> None:
    background = (slice(None), slice(24, 36), slice(2, 20))
    plain, calm = (solved(stack(noisy), iterations=30, total_variation=w) for w in (0.0, 0.01))
    assert calm[background].std() < 0.9 * plain[background].std()
    again = solved(stack(noisy), iterations=30, total_variation=0.01, memory_gib=small(noisy, tv=True))
    np.testing.assert_allclose(again, calm, atol=1e-3 * calm.max())


def test_auto_stop_stops_at_the_noise_and_never_for_nothing(noisy: np.ndarray) -> None:
    found = previews(request_for(stack(noisy), psf=stack(PSF), iterations=300, auto_stop=True))
    assert 3 < len(found) < 300
    assert "noise" in found[-1].progress.message or "no longer" in found[-1].progress.message
    assert found[-1].progress.values["misfit"] < 2
    assert found[0].progress.values["misfit"] > 2
    exact = previews(request_for(stack(noisy), psf=stack(PSF), iterations=7))
    assert [p.progress.step for p in exact] == list(range(1, 8))


def test_auto_stop_believes_the_camera(noisy: np.ndarray) -> None:
    camera = Camera(pixel_um=6.5, gain_e_per_count=1.0, offset_counts=0.0, read_noise_e=0.1)
    scope = Microscope(
        name="mine",
        objective=Objective(magnification=40, na=0.9),
        camera=camera,
        wavelength_um=0.52,
        sample_index=1.0,
    )
    found = previews(
        request_for(
            stack(noisy), psf=stack(PSF), microscope=scope, iterations=300, auto_stop=True, accelerate=True
        )
    )
    assert len(found) < 300
    assert 0.8 < found[-1].progress.values["misfit"] < 1.6


# -- memory ------------------------------------------------------------------------------------------


def small(data: np.ndarray, tv: bool = False, **parameters: Any) -> float:
    """A budget that is too small for the whole stack, and enough for blocks."""
    more = {"total_variation": 0.01} if tv else {}
    request = request_for(stack(data), psf=stack(PSF), **more, **parameters)
    whole = make_plan(request)
    assert whole.blocks == 1
    # what is kept is the same: the transforms must shrink
    for share in np.linspace(0.99, 0.5, 30):
        gib = (RUNTIME_BYTES + share * (whole.peak_bytes - RUNTIME_BYTES)) / 2**30
        plan = make_plan(replace(request, memory_gib=gib))
        if plan.blocks > 3:
            return gib
    raise AssertionError("no budget gives blocks")


@pytest.mark.parametrize("accelerate", [False, True])
def test_blocks_leave_no_seam(accelerate: bool) -> None:
    truth = scene((10, 90, 100))
    data = np.random.default_rng(0).poisson(blurred(truth)).astype(np.float32)
    gib = small(data, accelerate=accelerate)
    request = request_for(stack(data), psf=stack(PSF), memory_gib=gib, accelerate=accelerate, iterations=6)
    events = list(get_method(METHOD).run(request))
    parts = [e for e in events if isinstance(e, Progress) and "part" in e.message]
    assert parts  # it can be stopped between blocks
    blocks = events[-1]
    assert isinstance(blocks, Result)
    whole = solved(stack(data), accelerate=accelerate, iterations=6)
    np.testing.assert_allclose(blocks.outputs["deconvolved"].values, whole, atol=2e-4 * float(whole.max()))


def test_the_estimate_says_what_it_takes_and_a_tiny_budget_is_refused(noisy: np.ndarray) -> None:
    request = request_for(stack(noisy), psf=stack(PSF), iterations=3)
    estimate = get_method(METHOD).estimate(request)
    assert estimate.output_shape == noisy.shape and estimate.output_dims == ("z", "y", "x")
    # estimate, normaliser, data, ratio, previews and the transforms
    assert 6 * 4 * noisy.size < estimate.peak_bytes - RUNTIME_BYTES < 100 * 4 * noisy.size
    problems = get_method(METHOD).check(replace(request, memory_gib=0.01))
    assert any("needs at least" in p.message and p.severity == "error" for p in problems)
    large = labelled(np.zeros((76, 2048, 2048), np.uint8), "zyx", {"z": 0.5, "y": 0.108, "x": 0.108})
    large.data[0, 0, 0] = 1
    parameters = request_for(stack(noisy), **OPTICS).parameters
    plan = make_plan(Request(METHOD, {"image": large}, parameters, memory_gib=10, device="cpu"))
    assert plan.blocks > 1 and plan.peak_bytes < 10 * 2**30


def test_out_of_memory_is_tried_again_in_smaller_blocks(
    noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_lfm.methods.widefield import setup

    made: list[tuple[int, ...]] = []
    real = setup.StackBlur

    def greedy(psf: Any, observed: Any, device: Any, margin: Any, block: Any) -> Any:
        made.append(block)
        if len(made) < 3:
            raise MemoryError
        return real(psf, observed, device, margin, block)

    monkeypatch.setattr(setup, "StackBlur", greedy)
    np.testing.assert_allclose(solved(stack(noisy)), solved(stack(noisy)), rtol=1e-3)
    assert made[0][1] > made[1][1] > made[2][1]


# -- axes, stops, records -------------------------------------------------------------------------


def test_movies_and_channels_come_out_as_they_went_in(noisy: np.ndarray) -> None:
    movie = np.stack([noisy, noisy // 2])
    single = solved(stack(noisy), iterations=2)
    image = labelled(movie, "tzyx", {"t": 2.0, "z": VOXEL[0], "y": VOXEL[1], "x": VOXEL[2]})
    result = run(METHOD, image, psf=stack(PSF), iterations=2)
    out = result.outputs["deconvolved"]
    assert out.dims == image.dims and out.shape == image.shape
    assert out.coords["t"].values.tolist() == [0.0, 2.0]
    np.testing.assert_allclose(out.values[0], single, rtol=1e-4, atol=1e-3)
    colours = labelled(movie.transpose(1, 0, 2, 3), "zcyx", {"z": VOXEL[0], "y": VOXEL[1], "x": VOXEL[2]})
    events = list(
        get_method(METHOD).run(
            request_for(colours, **OPTICS, channel_wavelengths_um="0.52, 0.6", iterations=2)
        )
    )
    final = events[-1]
    assert isinstance(final, Result)
    assert final.outputs["deconvolved"].dims == ("z", "c", "y", "x")
    messages = [e.progress.message for e in events if isinstance(e, Preview)]
    assert messages[2].startswith("Iteration 1, channel 2 of 2")
    assert len(final.provenance["figures"]["psf"]) == 2
    with pytest.raises(RequestError, match="cannot be continued"):
        list(get_method(METHOD).run(replace(request_for(colours, **OPTICS), continue_from=final.state)))


def test_flat_images_and_plain_arrays(noisy: np.ndarray) -> None:
    flat = solved(labelled(noisy[6], "yx", {"y": 0.15, "x": 0.15}), psf=None, **OPTICS)
    assert flat.shape == noisy[6].shape
    assert pearson(flat, scene()[6]) > pearson(noisy[6], scene()[6])
    plain = solved(noisy, voxel_um=VOXEL, psf=PSF, psf_voxel_um=VOXEL)
    np.testing.assert_array_equal(plain, solved(stack(noisy)))
    assert solved(np.stack([noisy, noisy]), axes="tzyx", voxel_um=VOXEL, iterations=1).ndim == 4


def test_a_run_goes_on_where_it_stopped(noisy: np.ndarray) -> None:
    request = request_for(stack(noisy), psf=stack(PSF), iterations=6, accelerate=True)
    events = get_method(METHOD).run(request)
    kept = None
    for event in events:
        if isinstance(event, Preview):
            kept = event
            if event.progress.step == 4:
                break
    events.close()  # type: ignore[attr-defined]
    assert kept is not None
    later = request_for(stack(noisy), psf=stack(PSF), iterations=2, accelerate=True)
    for _ in range(2):  # and once more from the same place: nothing was used up
        found = previews(replace(later, continue_from=kept.state))
        assert [p.progress.step for p in found] == [5, 6]
        np.testing.assert_allclose(
            found[-1].image.values, solved(stack(noisy), iterations=6, accelerate=True), rtol=1e-4, atol=1e-3
        )
    other = request_for(stack(noisy), psf=stack(PSF), background_counts=3.0)
    with pytest.raises(RequestError, match="another background_counts"):
        list(get_method(METHOD).run(replace(other, continue_from=kept.state)))


def test_the_record_repeats_the_run(noisy: np.ndarray) -> None:
    wish: dict[str, Any] = {"iterations": 300, "auto_stop": True, "sources": {"psf": "a.tif"}}
    result = run(METHOD, stack(noisy), psf=stack(PSF), **wish)
    record = result.provenance
    assert record["sources"]["psf"] == "a.tif" and "psf" in record["inputs"]
    assert record["parameters"]["iterations"] == result.state.state.iteration < 300
    assert record["parameters"]["auto_stop"] is False
    again = run(METHOD, stack(noisy), psf=stack(PSF), **record["parameters"])
    np.testing.assert_array_equal(again.outputs["deconvolved"].values, result.outputs["deconvolved"].values)


# -- bad input ----------------------------------------------------------------------------------------


def test_pixels_that_are_no_numbers_are_not_observed(noisy: np.ndarray) -> None:
    holes = noisy.astype(np.float32)
    holes[6, 10:14, 30:34] = np.nan
    request = request_for(stack(holes), psf=stack(PSF), iterations=10)
    notes = get_method(METHOD).check(request)
    assert any("NaN" in p.message and "not observed" in p.remedy and p.severity == "warning" for p in notes)
    found, whole = solved(stack(holes), iterations=10), solved(stack(noisy), iterations=10)
    assert np.isfinite(found).all()
    away = np.ones(noisy.shape, bool)
    away[2:11, 2:22, 22:42] = False
    np.testing.assert_allclose(found[away], whole[away], atol=0.02 * whole.max())


def test_empty_planes_at_the_ends_are_no_empty_stack(
    noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_lfm.methods.widefield import frames

    monkeypatch.setattr(frames, "QUICK_PIXELS", noisy[0].size)
    padded = stack(np.concatenate([np.zeros_like(noisy[:1]), noisy]))
    assert not [p for p in frames.check_stack_pixels(padded) if p.severity == "error"]
    assert [p for p in frames.check_stack_pixels(stack(np.zeros_like(noisy))) if p.severity == "error"]


def test_a_dark_frame_stays_dark(noisy: np.ndarray) -> None:
    movie = np.stack([noisy, np.full_like(noisy, 10)])
    image = labelled(movie, "tzyx", {"t": 1.0, "z": VOXEL[0], "y": VOXEL[1], "x": VOXEL[2]})
    events = list(get_method(METHOD).run(request_for(image, psf=stack(PSF), iterations=2)))
    assert any("left dark" in e.message for e in events if isinstance(e, Progress))
    assert not events[-1].outputs["deconvolved"].values[1].any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: {"image": stack(np.zeros_like(d))}, "All pixels are zero"),
        (lambda d: {"image": xr.DataArray(d, dims=("z", "y", "x"))}, "how large its voxels are"),
        (lambda d: {"image": labelled(d, "zyx", {"y": 0.1, "x": 0.1})}, "distance of its planes"),
        (lambda d: {"image": xr.DataArray(d[None], dims=("v", "z", "y", "x"))}, "has the axes"),
        (lambda d: {"psf": None}, "na, wavelength_um, immersion_index are missing"),
        (lambda d: {"psf": None, "na": 0.9, "immersion_index": 1.0}, "wavelength_um is missing"),
        (lambda d: {"psf": None, **OPTICS, "na": 1.1}, "must be below the immersion index"),
        (lambda d: {"psf": None, **OPTICS, "psf_model": "confocal"}, "excitation_wavelength_um is missing"),
        (lambda d: {"psf": stack(PSF[4], "yx")}, "is flat, and the image is a stack"),
        (lambda d: {"psf": stack(-PSF)}, "no light"),
        (lambda d: {"psf": stack(PSF - 0.5 * PSF.max())}, "negative values"),
        (lambda d: {"psf": stack(np.where(PSF > 1e-3, np.nan, PSF))}, "no numbers"),
        (lambda d: {"psf": stack(np.ones((9, 9, 9))), "psf_kind": "given"}, "no point"),
        (lambda d: {"psf": stack(np.ones((9, 9, 9)))}, "No bead"),
        (lambda d: {"psf": stack(d[:9, :9, :9])}, "No bead"),
        (lambda d: {"image": stack(d[:, :3, :3])}, "smaller than 4 x 4"),
        (lambda d: {"image": stack(d - 1000.0)}, "are negative"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    noisy: np.ndarray, change: Callable[[np.ndarray], dict[str, Any]], sentence: str
) -> None:
    given = {"image": stack(noisy), "psf": stack(PSF), **change(noisy)}
    with pytest.raises(RequestError, match=sentence):
        run(METHOD, given.pop("image"), **given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: {"psf": labelled(PSF, "zyx", {"z": 0.2, "y": 0.1, "x": 0.1})}, "resampled from voxels"),
        (lambda d: {"psf": labelled(PSF, "zyx", {"z": 0.4, "y": 0.6, "x": 0.6})}, "more than twice"),
        (lambda d: {"psf": xr.DataArray(PSF, dims=("z", "y", "x"))}, "does not say its voxel size"),
        (lambda d: {"psf": stack(np.pad(PSF, 40, mode="edge"))}, "larger than the stack"),
        (lambda d: {"psf": stack(BEAD)}, "background was taken off"),
        (lambda d: {"image": stack(np.minimum(d, 40).astype(np.uint8) * 7)}, ""),
        (lambda d: {"image": stack(np.where(d > 60, 65535, d).astype(np.uint16))}, "saturated"),
        (lambda d: {"psf": None, **OPTICS}, "sample's index is not given"),
        (lambda d: {"psf": None, **OPTICS, "na": 0.99, "wavelength_um": 0.25}, "coarser than"),
    ],
)
def test_what_is_mended_or_odd_is_said(
    noisy: np.ndarray, change: Callable[[np.ndarray], dict[str, Any]], sentence: str
) -> None:
    given = {"image": stack(noisy), "psf": stack(PSF), **change(noisy)}
    request = request_for(given.pop("image"), **{k: v for k, v in given.items() if v is not None})
    notes = get_method(METHOD).check(request)
    assert not [p for p in notes if p.severity == "error"]
    assert any(sentence in str(p) for p in notes) or not sentence


@pytest.mark.parametrize("how", ["model", "given"])
def test_a_mirrored_layer_is_the_same_specimen(noisy: np.ndarray, how: str) -> None:
    """Falling coordinates along z and y: an uneven point spread function is turned as the stack is."""
    uneven = np.roll(PSF, 1, 0) * 0.3 + PSF * np.linspace(0.5, 1.5, len(PSF))[:, None, None]
    more: dict[str, Any] = {"psf": stack(uneven), "psf_kind": "given"}
    if how == "model":
        more = {"psf": None, **OPTICS, "immersion_index": 1.515, "sample_index": 1.33, "depth_um": 40}
    more["background_counts"] = 10  # estimated from some of the planes
    image = stack(noisy)
    there = solved(image, **more)
    mirrored = image.isel(z=slice(None, None, -1), y=slice(None, None, -1))
    back = solved(mirrored, **more)[::-1, ::-1]
    assert np.allclose(back, there, rtol=1e-3, atol=1e-3 * there.max())
    # it makes a difference: as a plain array the same numbers are another specimen
    plain = solved(stack(mirrored.values), **more)[::-1, ::-1]
    assert np.abs(plain - there).max() > 0.02 * there.max()


def test_planes_too_far_apart_are_told(noisy: np.ndarray) -> None:
    """A step of 25 um that should have been 0.25."""
    said = []
    for step in (0.25, 25.0):
        image = labelled(noisy, "zyx", {"z": step, "y": 0.15, "x": 0.15})
        said.append([p.message for p in build_request(METHOD, image, parameters=OPTICS)[1]])
    assert not any("farther than a point is long" in s for s in said[0])
    assert any("Planes 25 um apart are farther than a point is long (1.3 um)" in s for s in said[1])
