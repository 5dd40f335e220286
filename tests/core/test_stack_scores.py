"""Scores of stacks that are scaled already."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.stack_scores import stack_scores


def test_scores_are_those_of_the_formulas() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    truth = rng.random((5, 20, 24))
    found = np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1)
    got = stack_scores(found, truth)
    assert got["rmse"] == pytest.approx(np.sqrt(((found - truth) ** 2).mean()), rel=1e-5)
    assert got["psnr_db"] == pytest.approx(-20 * np.log10(got["rmse"]))
    planes = [
        structural_similarity(t.astype(np.float32), f.astype(np.float32), data_range=1.0, win_size=7)
        for t, f in zip(truth, found, strict=True)
    ]
    assert got["ssim"] == pytest.approx(np.mean(planes), abs=1e-4)


def test_no_scale_is_fitted_and_what_is_beyond_the_range_is_clipped() -> None:
    truth = np.random.default_rng(1).random((3, 16, 16))
    assert stack_scores(truth, truth)["ssim"] == pytest.approx(1)
    assert stack_scores(0.5 * truth, truth)["rmse"] > 0.2
    assert stack_scores(truth + np.where(truth == truth.max(), 5, 0), truth)["rmse"] < 0.02


def test_few_planes_stand_for_many() -> None:
    rng = np.random.default_rng(2)
    truth, found = rng.random((64, 16, 16)), rng.random((64, 16, 16))
    assert stack_scores(found, truth)["ssim"] == pytest.approx(
        stack_scores(found, truth, most_planes=None)["ssim"], abs=0.04
    )
