"""Patches of several channels for a network of one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.problems import RequestError
from napari_lfm.training.isotropic import IsotropicPlan, IsotropicTask
from napari_lfm.training.isotropic_degradation import csbdeep_degradation, modern_degradation
from napari_lfm.training.isotropic_patches import LateralPatches, PatchPlan
from napari_lfm.training.isotropic_pooled import PooledPatches, patches_of
from napari_lfm.training.task import numpy_rng, torch_rng

PLAN = PatchPlan(patch_px=32, background_share=0.0)


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    """Two channels of other brightness, and an empty one."""
    rng = np.random.default_rng(0)
    blobs = gaussian_filter((rng.random((2, 12, 48, 48)) > 0.995).astype(float), (0, 1, 1.5, 1.5))
    seen = (
        rng.poisson(300 * blobs / blobs.max((1, 2, 3), keepdims=True))
        * np.array([1, 50])[:, None, None, None]
    )
    return np.concatenate([seen + 100, np.full((1, 12, 48, 48), 7)]).astype(np.float32)


@pytest.mark.parametrize("profile", ["modern", "csbdeep"])
def test_patches_of_all_channels_are_scaled_alike(stack: np.ndarray, profile: str) -> None:
    made = (
        modern_degradation(4, 2.0, channels=list(stack))
        if profile == "modern"
        else csbdeep_degradation(4, 2.2, 1.0)
    )
    source = patches_of(stack, made, PLAN)
    assert isinstance(source, PooledPatches)
    assert (source.channels, source.used) == (1, [0, 1])
    given, wanted = source.draw(12, numpy_rng(0, 0), torch_rng(0, 0))
    assert given.shape == wanted.shape == (12, 1, 32, 32)
    assert torch.equal(given, source.draw(12, numpy_rng(0, 0), torch_rng(0, 0))[0])
    # whichever channel it is from, its brightest are about 1
    assert (wanted.amax((1, 2, 3)) > 0.3).all() and float(wanted.max()) < 3
    held = source.validation(torch_rng(0, 1))
    assert len(held) == 2 * len(source.parts[0].held)
    assert all(g.shape == w.shape and len(g) == 1 for g, w in held)
    assert len(source.axial_slice()) == 1
    json.dumps(source.describe())


def test_every_channel_has_the_noise_of_its_own(stack: np.ndarray) -> None:
    source = patches_of(stack, modern_degradation(4, 2.0, channels=list(stack)), PLAN)
    assert isinstance(source, PooledPatches)
    slopes = [part.degradation.noise[0].slope for part in source.parts]
    assert slopes[1] == pytest.approx(50 * slopes[0], rel=0.3)


def test_a_network_of_one_channel_learns_from_all(stack: np.ndarray) -> None:
    source = patches_of(stack, modern_degradation(4, 2.0, channels=list(stack)), PLAN)
    task = IsotropicTask(source, IsotropicPlan(network={"widths": [4, 6]}, batch_size=3))
    assert task.arguments["channels"] == 1
    assert set(task.loss("train", task.batch(0))) >= {"loss", "l1"}
    task.modules["network"].eval()
    with torch.no_grad():
        assert task.validate(task.modules).values["gain_db"] == pytest.approx(0, abs=1e-4)


def test_together_and_alone(stack: np.ndarray) -> None:
    made = modern_degradation(4, 2.0, channels=list(stack[:2]))
    together = patches_of(stack[:2], made, PLAN, pooled=False)
    assert isinstance(together, LateralPatches) and together.channels == 2
    assert isinstance(patches_of(stack[:1], made, PLAN), LateralPatches)
    with pytest.raises(RequestError, match="nothing in the stack"):
        patches_of(np.repeat(stack[2:], 2, 0), made, PLAN)
