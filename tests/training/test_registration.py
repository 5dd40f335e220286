"""Registration of pairs: known shifts are found, doubtful ones not accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from napari_lfm.bench._registration import registration_rows
from napari_lfm.bench._registration_pairs import CASES, CLEAR, HAZY, Case, PairMaker, Setup
from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import RequestError
from napari_lfm.training import shift_estimates
from napari_lfm.training.registration import Registration, apply_registration, register_pair, registered
from napari_lfm.training.registration_grid import Turn, checked_pair, sample

VOXEL = {"z": 0.5, "y": 0.2, "x": 0.2}
TINY = Setup(shape=(20, 80, 80), psf_shape=(21, 49, 49))


def image(values: Any, voxel: dict[str, float] | None = None, **origin: float) -> Any:
    return labelled(np.asarray(values), ("z", "y", "x"), VOXEL if voxel is None else voxel, origin)


@pytest.fixture(scope="module")
def world() -> np.ndarray:
    """A textured volume, larger than the stacks cut from it."""
    rng = np.random.default_rng(4)
    fine = gaussian_filter(rng.random((40, 140, 140)) ** 6, (1, 1.5, 1.5))
    return np.asarray(1000 * fine / fine.max(), np.float32)


def cut(world: np.ndarray, z: int = 8, y: int = 20, x: int = 20, size: Any = (20, 80, 80)) -> np.ndarray:
    return world[z : z + size[0], y : y + size[1], x : x + size[2]]


def hazy(stack: np.ndarray, seed: int = 0) -> np.ndarray:
    """What a bad wide-field microscope makes of it."""
    noise = np.random.default_rng(seed).normal(size=stack.shape)
    blurred = gaussian_filter(stack, (2, 1.5, 1.5)) + 2 * gaussian_filter(stack, (4, 15, 15))
    return np.asarray(blurred + 0.02 * blurred.max() * noise, np.float32)


def test_simulated_pairs_with_known_shifts() -> None:
    rows = registration_rows(setup=TINY, cases=[CASES[1], CASES[6]], levels=(CLEAR, HAZY))
    clear, haze = (row for row in rows if row.get("summary"))
    assert clear["pairs"] == haze["pairs"] == 2
    assert clear["psf_right"] == clear["correlation_right"] == clear["combined_right"] == 2
    assert haze["combined_right"] == 2
    assert clear["wrongly_accepted"] == haze["wrongly_accepted"] == 0
    assert clear["refused"] == 0


def test_signs_units_and_the_way_back(world: np.ndarray) -> None:
    fixed = image(cut(world))
    # content of the moving stack lies 2 planes and 5 columns further on, 4 rows earlier
    moving = image(hazy(cut(world, 6, 24, 15)))
    found = registered(moving, fixed)
    assert isinstance(found, Registration)
    np.testing.assert_allclose(found.shift_voxels, (-2, 4, -5), atol=0.25)
    np.testing.assert_allclose(found.shift_um, np.multiply(found.shift_voxels, (0.5, 0.2, 0.2)))
    assert found.agreed and found.accepted and "agree" in found.reason
    # of the 20 planes 18 are shared
    assert found.z_um.shape == found.correlation_after.shape == found.correlation_before.shape == (18,)
    assert np.nanmean(found.correlation_after) > 0.7 > 0.3 > np.nanmean(found.correlation_before)
    # the peak of the point spread function is where the content has gone
    peak = np.unravel_index(int(found.psf.values.argmax()), found.psf.shape)
    shown = [float(found.psf.coords[d][k]) for d, k in zip("zyx", peak, strict=True)]
    np.testing.assert_allclose(shown, (1.0, -0.8, 1.0), atol=1e-6)
    for estimate in found.estimates:
        assert estimate.profile_um[estimate.profile.argmax()] == pytest.approx(-1.0)
        assert 0.2 < estimate.confidence <= 1
    sharp = image(cut(world, 6, 24, 15))
    back = apply_registration(sharp, found.moved_by((-1.0, 0.8, -1.0)), fixed)
    assert back.shape == fixed.shape
    np.testing.assert_array_equal(back.values[:-2, 4:, :-5], fixed.values[:-2, 4:, :-5])
    assert not back.values[-2:].any() and not back.values[:, :4].any() and not back.values[:, :, -5:].any()
    part = apply_registration(sharp, found.moved_by((-1.0, 0.8, -1.0)), fixed, crop=True)
    assert part.shape == (18, 76, 75)
    np.testing.assert_array_equal(part.values, fixed.sel(z=part.z, y=part.y, x=part.x).values)


def test_an_event_at_every_step_and_an_end_in_between(world: np.ndarray) -> None:
    pair = image(hazy(cut(world))), image(cut(world))
    events = list(register_pair(*pair, iterations=7))
    assert isinstance(events[-1], Registration)
    progress = [e for e in events[:-1] if isinstance(e, Progress)]
    assert len(progress) == len(events) - 1
    assert sum("step" in e.message for e in progress) == 7
    assert all(0 <= e.step <= e.total for e in progress)
    going = register_pair(*pair)
    next(going)
    going.close()
    assert next(going, None) is None


def test_what_has_nothing_in_common_is_not_accepted(world: np.ndarray) -> None:
    rng = np.random.default_rng(9)
    other = gaussian_filter(rng.random((20, 80, 80)) ** 6, (1, 1.5, 1.5))
    found = registered(image(hazy(other)), image(cut(world)))
    assert not found.accepted
    assert "look at it before you use it" in found.reason or "by hand" in found.reason
    moved = found.moved_by((1.0, 0.4, 0.0))
    assert moved.accepted and moved.shift_voxels == pytest.approx((2.0, 2.0, 0.0))
    figures = moved.to_json()
    assert figures["shift_um"] == [1.0, 0.4, 0.0] and set(figures["estimates"]) == {"psf", "correlation"}


def test_other_voxels_shape_type_and_a_large_shift(world: np.ndarray) -> None:
    fixed = image(cut(world, 0, 0, 0, (40, 140, 140)))
    # every second pixel's mean, placed 30 rows off
    coarse = cut(world, 4, 40, 10, (32, 96, 120)).reshape(32, 48, 2, 60, 2).mean((2, 4))
    voxel, place = {"z": 0.5, "y": 0.4, "x": 0.4}, {"z": 2.0, "y": 0.1, "x": 2.1}
    moving = image((hazy(coarse) * 8).astype(np.uint16), voxel, **place)
    found = registered(moving, fixed, box=(24, 64, 64))
    np.testing.assert_allclose(found.shift_um, (0, 8.0, 0), atol=0.12)
    assert any("resampled" in note for note in found.notes)
    onto = apply_registration(image(coarse, voxel, **place), found, fixed, crop=True)
    shown = fixed.sel(z=onto.z, y=onto.y, x=onto.x)
    assert shown.shape == onto.shape
    assert np.corrcoef(onto.values.ravel(), shown.values.ravel())[0, 1] > 0.9


def test_rotation_and_magnification(world: np.ndarray) -> None:
    world = world[:20]
    turn = Turn(-2.3, 1.02, (14.0, 14.0))
    stack, _, _ = checked_pair(image(world), image(world))
    axes = [stack.axis(k) for k in range(3)]
    # moving shows at q what the world has at c + R(-a) (q - c) / m
    inverse = np.linalg.inv(turn.matrix())
    centre = np.array(turn.centre_um) / 0.2
    moved = np.stack([affine_transform(p, inverse, centre - inverse @ centre, order=3) for p in world])
    moving, fixed = image(hazy(moved)), image(world)
    plain = registered(moving, fixed)
    found = registered(moving, fixed, find_rotation=True, max_rotation_deg=3, max_magnification=0.03)
    assert found.rotation_deg == pytest.approx(-2.3, abs=0.1)
    assert found.magnification == pytest.approx(1.02, abs=0.002)
    assert np.nanmean(found.correlation_after) > np.nanmean(plain.correlation_after) + 0.1
    assert (plain.rotation_deg, plain.magnification) == (0.0, 1.0)
    back = apply_registration(image(moved), found, fixed, crop=True)
    shown = fixed.sel(z=back.z, y=back.y, x=back.x)
    assert np.corrcoef(back.values.ravel(), shown.values.ravel())[0, 1] > 0.9
    # and directly: sampling with the turn undoes it
    again, planes, area = sample(checked_pair(image(moved), fixed)[0], axes, turn, 3)
    inner = (slice(None), slice(20, -20), slice(20, -20))
    assert planes.all() and not area.all()
    assert np.corrcoef(again[inner].ravel(), world[inner].ravel())[0, 1] > 0.98


def test_refusals_are_sentences(world: np.ndarray) -> None:
    good = image(cut(world))
    holes = cut(world).copy()
    holes[3, 4, 5] = np.nan
    movie = labelled(np.ones((3, 8, 32, 32)), "tzyx", {"t": 1.0, **VOXEL})
    for bad, words in (
        (image(np.zeros((20, 80, 80))), "all dark"),
        (image(np.full((20, 80, 80), 7)), "the same everywhere"),
        (image(holes), "not numbers"),
        (movie, "the axes t, z, y, x"),
        (image(cut(world)[:3]), "3 planes"),
        (image(cut(world)[:, :20]), "20 x 80"),
        (image(cut(world), z=50.0), "do not overlap"),
        (image(cut(world), y=12.0), "share 20"),
        (labelled(cut(world, size=(10, 80, 80)), "zyx", {}), "no voxel sizes"),
    ):
        for pair in ((bad, good), (good, bad)):
            with pytest.raises(RequestError, match=words) as error:
                registered(*pair)
            assert str(error.value).endswith(".")
    with pytest.raises(RequestError, match="do not overlap"):
        registration = registered(image(hazy(cut(world))), good)
        apply_registration(good, registration.moved_by((100.0, 0, 0)), good)
    # without sizes in either, one voxel is one
    bare = labelled(cut(world), "zyx", {})
    (note,) = registered(bare, bare).notes
    assert "Neither stack has voxel sizes" in note


def test_the_solver_finds_a_kernel_that_is_known() -> None:
    rng = np.random.default_rng(2)
    x = torch.as_tensor(gaussian_filter(rng.random((16, 32, 32)) ** 8, 0.7).astype(np.float32))
    kernel = torch.zeros(16, 32, 32)
    kernel[2, 3, -4] = 0.7
    kernel[3, 3, -4] = 0.2
    kernel[2, 4, -4] = 0.1
    y = torch.fft.irfftn(torch.fft.rfftn(x) * torch.fft.rfftn(kernel), s=x.shape)
    *_, f = shift_estimates.psf_by_primal_dual(y - y.mean(), x - x.mean(), iterations=200, lam=0.01)
    assert float(f.sum()) == pytest.approx(1.0, abs=0.02)  # only the energy term knows it
    assert float((f - kernel).abs().max()) < 0.1
    peak = shift_estimates.read_peak(shift_estimates.unwrapped(f, (7, 15, 15)))
    assert [round(s) for s in peak.shift] == [2, 3, -4]
    # total variation takes off what noise makes
    noise = 0.3 * y.std() * torch.as_tensor(rng.normal(size=y.shape), dtype=torch.float32)
    *_, f = shift_estimates.psf_by_primal_dual(y + noise - y.mean(), x - x.mean(), iterations=200, lam=0.0)
    *_, smooth = shift_estimates.psf_by_primal_dual(y + noise - y.mean(), x - x.mean(), iterations=200, lam=3)

    def variation(k: torch.Tensor) -> float:
        return float(sum((torch.roll(k, -1, a) - k).square() for a in range(3)).sqrt().sum())  # type: ignore[union-attr]

    assert variation(smooth) < 0.8 * variation(f)
    # the same stacks in other units of light give the same answer
    weight = shift_estimates.window(x.shape)
    one, other = (shift_estimates.prepared(stack, weight) for stack in (x, 500 * x + 100))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_pairs_are_not_the_same_noise_twice() -> None:
    maker = PairMaker(TINY)
    case = Case("filaments", (1.0, 2.0, 3.0), 1)
    wide, sharp = maker.pair(case, HAZY)
    again, _ = maker.pair(case, HAZY)
    np.testing.assert_array_equal(wide.values, again.values)
    assert wide.dtype == sharp.dtype == np.uint16
    clear, _ = maker.pair(case, CLEAR)
    assert clear.values.std() / clear.values.mean() > 2 * wide.values.std() / wide.values.mean()
