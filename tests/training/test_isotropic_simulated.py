"""Simulated slices that the first model of isotropic restoration is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.training.isotropic import IsotropicPlan, IsotropicTask
from napari_lfm.training.isotropic_simulated import SimulatedLateral, SimulatedPlan

SMALL = SimulatedPlan(patch_px=32, planes=3, side_px=96, pool=3, fresh_every=2, pixels_across=(2.0, 4.0))


@pytest.fixture(scope="module")
def source() -> SimulatedLateral:
    made = SimulatedLateral(SMALL, 1)
    assert [k for k, _, _ in made.making()] == [1, 2, 3]
    return made


def draw(source: SimulatedLateral, count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    given, wanted = source.draw(count, rng, generator)
    return given.numpy(), wanted.numpy()


def test_pairs_differ_along_the_last_axis_only(source: SimulatedLateral) -> None:
    given, wanted = draw(source, 24)
    assert given.shape == wanted.shape == (24, 1, 32, 32)
    assert np.isfinite(given).all() and np.isfinite(wanted).all()
    # interpolated along the last axis: far smoother there than what is wanted
    along, across = (np.abs(np.diff(given, n=2, axis=axis)).mean() for axis in (-1, -2))
    assert along < 0.7 * across
    wanted_along, wanted_across = (np.abs(np.diff(wanted, n=2, axis=axis)).mean() for axis in (-1, -2))
    assert wanted_along == pytest.approx(wanted_across, rel=0.3)
    # blur and sampling keep the light
    assert np.abs(given.mean((1, 2, 3)) - wanted.mean((1, 2, 3))).mean() < 0.1
    again = draw(source, 24)
    np.testing.assert_array_equal(given, again[0])
    assert not np.array_equal(given, draw(source, 24, 1)[0])


def test_specimens_make_way_for_new_ones(source: SimulatedLateral) -> None:
    first = [source.at(k, 0) for k in range(3)]
    later = [source.at(k, 8) for k in range(3)]
    assert all(a is not b for a, b in zip(first, later, strict=True))
    assert source.at(0, 8) is later[0]


def test_a_task_trains_on_them(source: SimulatedLateral) -> None:
    task = IsotropicTask(source, IsotropicPlan(network={"widths": [8, 8]}, batch_size=2), 0)
    assert [what for *_, what in task.prepare()][-1] == "Drawing specimens"
    losses = task.loss("generator", task.batch(0))
    assert torch.isfinite(losses["loss"])
    with torch.no_grad():
        validation = task.validate(task.modules)
    # it starts as the identity: nothing is gained yet
    assert validation.values["gain_db"] == pytest.approx(0.0, abs=1e-4)
    assert set(validation.images) == {"truth", "input", "network", "xz_before", "xz_after"}
    assert task.describe()["stack"]["kind"] == "simulated lateral slices"
