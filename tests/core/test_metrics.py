"""Scores: known values, invariances, and what an image that knows nothing gets."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from napari_lfm.core import metrics
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.core.resample import resample_onto


@pytest.fixture
def truth() -> np.ndarray:
    rng = np.random.default_rng(0)
    out = np.zeros((9, 32, 32))
    out[3:6, 8:20, 10:22] = 5
    return out + rng.random(out.shape)


def test_scale_fit_recovers_brightness(truth: np.ndarray) -> None:
    a, b = metrics.fit_scale((truth - 2) / 3, truth, offset=True)
    assert a == pytest.approx(3)
    assert b == pytest.approx(2)
    a, b = metrics.fit_scale(truth / 7, truth)
    assert (a, b) == (pytest.approx(7), 0)


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_scale_of_a_constant_is_harmless(truth: np.ndarray, value: float) -> None:
    a, b = metrics.fit_scale(np.full_like(truth, value), truth, offset=True)
    assert a == 0
    assert b == pytest.approx(truth.mean())


def test_psnr_known_value() -> None:
    truth = np.array([0.0, 1.0, 0.0, 1.0])
    error = np.array([0.1, 0.0, -0.1, 0.0])  # orthogonal to the truth, so the fitted scale stays 1
    result = truth + error
    a, _ = metrics.fit_scale(result, truth)
    expected = -10 * np.log10(np.mean((a * result - truth) ** 2))
    assert metrics.psnr_db(result, truth) == pytest.approx(expected)
    assert metrics.psnr_db(result, truth, data_range=10) == pytest.approx(expected + 20)
    assert metrics.psnr_db(truth, truth) == float("inf")


def test_scores_do_not_depend_on_brightness(truth: np.ndarray) -> None:
    noisy = truth + np.random.default_rng(1).normal(0, 0.5, truth.shape)
    one, two = metrics.score_volume(noisy, truth), metrics.score_volume(40 * noisy, truth)
    for name in metrics.SCORES:
        assert one[name] == pytest.approx(two[name])


def test_scores_order_results_and_beat_the_constant(truth: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    good, bad = (truth + rng.normal(0, s, truth.shape) for s in (0.2, 1.0))
    a, b = metrics.score_volume(good, truth), metrics.score_volume(bad, truth, reference_input=good)
    assert a["psnr_db"] > b["psnr_db"] > b["constant"]["psnr_db"]
    assert a["ssim"] > b["ssim"] > b["constant"]["ssim"]
    assert a["nrmse"] < b["nrmse"] < b["constant"]["nrmse"]
    assert a["pearson"] > b["pearson"] > b["constant"]["pearson"] == 0
    assert b["input"]["psnr_db"] == pytest.approx(a["psnr_db"])


def test_ssim_handles_thin_volumes(truth: np.ndarray) -> None:
    assert metrics.ssim(truth[:4], truth[:4]) == pytest.approx(1)
    assert metrics.ssim(truth[:1], truth[:1]) == pytest.approx(1)
    with pytest.raises(RequestError, match="at least 3"):
        metrics.ssim(truth[:2], truth[:2])


@pytest.mark.parametrize(
    ("result", "truth", "words"),
    [
        (np.ones((3, 3)), np.ones((3, 4)), "shapes"),
        (np.full((3, 3), np.nan), np.eye(3), "NaN"),
        (np.eye(3), np.ones((3, 3)), "constant"),
        (np.eye(3), np.zeros((3, 3)), "constant"),
    ],
)
def test_bad_images_are_refused(result: np.ndarray, truth: np.ndarray, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        metrics.psnr_db(result, truth)


def test_labelled_images_meet_on_the_truths_grid() -> None:
    fine_z, fine_x = np.meshgrid(np.arange(40) * 0.25, np.arange(60) * 0.1, indexing="ij")
    image = labelled(fine_z + 2 * fine_x, ("z", "x"), {"z": 0.25, "x": 0.1})
    reference = labelled(np.zeros((5, 6)), ("z", "x"), {"z": 1.0, "x": 0.5}, {"z": 1.0, "x": 1.2})
    out, kept = resample_onto(image, reference)
    z, x = np.meshgrid(kept.z.values, kept.x.values, indexing="ij")
    # a linear ramp survives both the averaging and the interpolation exactly
    np.testing.assert_allclose(out.values, z + 2 * x, atol=1e-5)
    assert out.shape == (5, 6)


def test_only_the_common_part_is_compared() -> None:
    rng = np.random.default_rng(0)
    truth = labelled(rng.random((8, 10, 10)), "zyx", dict.fromkeys("zyx", 1.0))
    half = truth.isel(x=slice(2, 7))
    scores = metrics.score_volume(half * 2, truth)
    assert scores["coverage"] == pytest.approx(0.5)
    assert scores["nrmse"] == pytest.approx(0, abs=1e-6)
    far = labelled(truth.values, "zyx", dict.fromkeys("zyx", 1.0), {"x": 500.0})
    with pytest.raises(RequestError, match="overlap along x"):
        metrics.score_volume(far, truth)


@pytest.mark.parametrize("angle", [2.0, -40.0])
def test_rotated_grids_meet_too(angle: float) -> None:
    turn = np.eye(4)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn[1:3, 1:3] = 0.5 * np.array([[c, s], [-s, c]])
    turn[1:3, 3] = (4.0, -3.0)
    z, y, x = np.mgrid[:3, :60, :70]
    world = np.einsum("ij,j...->i...", turn, np.stack([z, y, x, np.ones_like(z)]))
    ramp = world[0] + 2 * world[1] - 3 * world[2]
    image = labelled(ramp, "zyx", {"z": 1, "y": 0.5, "x": 0.5}, attrs={"affine_um": turn.tolist()})
    reference = labelled(np.zeros((3, 30, 30)), "zyx", {"z": 1, "y": 1, "x": 1}, {"y": -5.0, "x": -5.0})
    out, kept = resample_onto(image, reference)
    gz, gy, gx = np.meshgrid(*(kept[d].values for d in "zyx"), indexing="ij")
    inner = np.s_[:, 1:-1, 1:-1]  # the border is averaged over what lies outside
    np.testing.assert_allclose(out.values[inner], (gz + 2 * gy - 3 * gx)[inner], atol=0.5)
    assert 0.1 < out.size / reference.size < 1
    far = labelled(np.zeros((3, 5, 5)), "zyx", {"z": 1, "y": 1, "x": 1}, {"y": 500.0})
    with pytest.raises(RequestError, match="do not overlap"):
        resample_onto(image, far)


def test_matching_prefers_more_pairs_then_closeness() -> None:
    # greedy nearest-first would pair found 0 with truth 1 and leave found 1 alone
    found = [[0, 0, 0], [0, 0, 3.0]]
    truth = [[0, 0, -2.5], [0, 0, 1.0]]
    scores = metrics.match_points(found, truth, tolerance_um=3)
    assert scores.matched == 2
    assert scores.precision == scores.recall == 1


def test_point_errors_per_axis_and_counts() -> None:
    truth = np.array([[0, 0, 0], [10, 10, 10], [20, 20, 20]], float)
    found = np.vstack([truth[[2, 0]] + [1.0, 0.5, 0.25], [[50, 50, 50]]])
    scores = metrics.match_points(found, truth, tolerance_um=2).to_dict()
    assert scores["rmse_um"] == {"z": pytest.approx(1), "y": pytest.approx(0.5), "x": pytest.approx(0.25)}
    assert scores["rmse_3d_um"] == pytest.approx(np.sqrt(1 + 0.25 + 0.0625))
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(2 / 3)


def test_no_points_at_all() -> None:
    scores = metrics.match_points([], [[0, 0, 0]])
    assert (scores.precision, scores.recall, scores.rmse_z_um) == (0, 0, None)
    with pytest.raises(RequestError, match="tolerance"):
        metrics.match_points([[0, 0, 0]], [[0, 0, 0]], tolerance_um=0)
    with pytest.raises(RequestError, match="shape"):
        metrics.match_points([[0, 0]], [[0, 0, 0]])
    with pytest.raises(RequestError, match="x_um"):
        metrics.points_of({"z_um": [1], "y_um": [1]})


def test_a_finer_mirrored_image_lies_where_its_coordinates_say() -> None:
    x = np.arange(40) * 0.5
    up = xr.DataArray(np.sin(x / 4)[None].repeat(4, 0), dims=["y", "x"], coords={"y": np.arange(4.0), "x": x})
    places = {"y": np.arange(4.0), "x": np.arange(20.0)}
    reference = xr.DataArray(np.zeros((4, 20)), dims=["y", "x"], coords=places)
    straight = resample_onto(up, reference)[0]
    mirrored = resample_onto(up.isel(x=slice(None, None, -1)), reference)[0]
    assert np.allclose(straight, mirrored, atol=1e-5)
