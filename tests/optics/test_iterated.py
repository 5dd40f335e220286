"""The iterations that a network starts from: what they compute, explain, cost, and how they are cancelled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.core.metrics import pearson
from napari_lfm.optics import iterated
from napari_lfm.optics.guards import guard_thickness, guarded_planes, widest
from napari_lfm.optics.inverse import InverseSettings, LinearInverse
from napari_lfm.optics.iterated import (
    IteratedStart,
    IterationSettings,
    iteration_bytes,
    iteration_geometry,
    iteration_seconds,
)
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.start import make_start, start_arguments, start_cost, start_settings, start_version
from napari_lfm.optics.symmetry import cell_group

N, S, Z, CELLS = 5, 3, (-6.0, 0.0, 6.0), (8, 8)
COUNTS = (1, 3, 12)


@pytest.fixture(scope="module")
def optics() -> CellOptics:
    microscope = Microscope.model_validate(
        {
            "name": "tiny",
            "objective": {"magnification": 20, "na": 0.45, "immersion_index": 1.0},
            "sample_index": 1.0,
            "wavelength_um": 0.52,
            "lenslets": {"pitch_um": 100, "focal_length_um": 1000, "lattice": "square"},
            "camera": {"pixel_um": 20},
        }
    )
    return CellOptics.of(microscope, N)


def built(
    optics: CellOptics, counts: tuple[int, ...] = COUNTS, cells: tuple[int, int] = CELLS
) -> IteratedStart:
    start = IteratedStart(optics, IterationSettings(Z, S, counts), cells)
    for _ in start.build_steps(use_cache=False):
        pass
    return start


@pytest.fixture(scope="module")
def start(optics: CellOptics) -> IteratedStart:
    return built(optics)


@pytest.fixture(scope="module")
def beads(optics: CellOptics) -> tuple[torch.Tensor, torch.Tensor]:
    """A volume, and a frame of it, of which light goes on beyond the edges."""
    wide = (CELLS[0] + 8, CELLS[1] + 8)
    geometry = Geometry.plan(optics, [Plane(z, (S, S)) for z in Z], wide, margin=(0, 0))
    volume = torch.zeros(1, 3, wide[0] * S, wide[1] * S)
    for z, y, x in ((0, 20, 17), (1, 30, 25), (2, 25, 31), (2, 12, 12), (0, 36, 30)):
        volume[0, z, y, x] = 1000.0
    frame = LensletProjector.build(geometry, use_cache=False).forward(volume)
    inner = slice(4 * S, (4 + CELLS[0]) * S)
    return volume[..., inner, inner], frame[:, 4 * N : (4 + CELLS[0]) * N, 4 * N : (4 + CELLS[1]) * N]


def test_the_first_iteration_is_the_published_formula(
    optics: CellOptics, start: IteratedStart, beads: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Against the projector without folding, whose channels stand in natural order."""
    g = iteration_geometry(optics, start.settings, CELLS)
    plain = Geometry(g.optics, g.planes, g.cells, g.margin, g.half_width, symmetric=False)
    projector = LensletProjector.build(plain, use_cache=False)
    even = torch.ones(1, g.voxel_channels, *g.volume_cells)
    even[:, projector.stored_channels(3).max() + 1 :] = guard_thickness(Z, S)
    frame = beads[1]
    data = projector.image_to_channels(frame)
    shift = iterated.SHIFT * float(data.square().mean().sqrt())
    shifted = (data + shift).clamp(min=0)
    x = even * (float(shifted.mean()) - shift) / float(projector.project(even).mean())
    norm = projector.backproject(torch.ones_like(data))
    norm = norm.clamp(min=1e-3 * float(norm.max()))
    x = x * projector.backproject(shifted / (projector.project(x) + shift)) / norm
    volume = projector.channels_to_volume(x, slice(0, 3))
    (my, mx), (rows, columns) = g.margin, CELLS
    expected = volume[..., my * S : (my + rows) * S, mx * S : (mx + columns) * S]
    torch.testing.assert_close(start(frame)[:, :3], expected, rtol=2e-3, atol=1e-4 * float(expected.max()))


def test_more_iterations_come_nearer_and_stay_above_zero(
    start: IteratedStart, beads: tuple[torch.Tensor, torch.Tensor]
) -> None:
    truth, frame = beads
    volumes = start(frame)[0].chunk(3)
    assert float(volumes[0].min()) >= 0
    scores = [pearson(v.numpy(), truth[0].numpy()) for v in volumes]
    assert scores == sorted(scores)
    assert scores[-1] > 0.6
    assert np.unravel_index(int(volumes[-1].argmax()), volumes[-1].shape)[0] in (0, 2)


def test_light_from_outside_is_not_explained_inside(
    optics: CellOptics, start: IteratedStart, beads: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Half of the light lies beyond the frame's edges, which a linear inverse cannot tell."""
    truth, frame = beads
    linear = LinearInverse.build(optics, InverseSettings(Z, S, (0.1,)), CELLS, use_cache=False)
    ours = pearson(start(frame)[0, -3:].numpy(), truth[0].numpy())
    theirs = pearson(linear(frame)[0].clamp(min=0).numpy(), truth[0].numpy())
    assert ours > theirs + 0.02


def test_it_turns_with_its_frame_and_scales_with_it(start: IteratedStart) -> None:
    image = torch.rand(1, CELLS[0] * N, CELLS[1] * N, generator=torch.Generator().manual_seed(1))
    volume = start(image)
    torch.testing.assert_close(start(7 * image), 7 * volume, rtol=1e-3, atol=1e-4 * float(7 * volume.max()))
    for operation in cell_group(True):
        flips = [axis for axis, flip in ((-2, operation.flip_y), (-1, operation.flip_x)) if flip]
        back = volume.mT if operation.transpose else volume
        turned = image.mT if operation.transpose else image
        difference = start(turned.flip(flips)) - back.flip(flips)
        assert float(difference.abs().max()) < 1e-3 * float(volume.max())


def test_no_frame_depends_on_its_neighbours(start: IteratedStart) -> None:
    frames = torch.rand(3, CELLS[0] * N, CELLS[1] * N, generator=torch.Generator().manual_seed(2))
    frames[1] *= 100
    together = start(frames)
    assert together.shape == (3, 9, CELLS[0] * S, CELLS[1] * S)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], start(frames[k : k + 1]))


def test_an_even_frame_gives_no_bright_border(start: IteratedStart) -> None:
    volume = start(torch.ones(1, CELLS[0] * N, CELLS[1] * N))[0, :3]
    middle = float(volume[:, 6:-6, 6:-6].mean())
    assert float(volume.max()) < 3 * middle


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_dark_frames_give_finite_volumes(start: IteratedStart, value: float) -> None:
    volume = start(torch.full((1, CELLS[0] * N, CELLS[1] * N), value))
    assert bool(torch.isfinite(volume).all())
    assert float(volume.max()) < 1e-3


def test_it_can_be_stopped_between_iterations(start: IteratedStart) -> None:
    steps = start.steps(torch.rand(2, CELLS[0] * N, CELLS[1] * N))
    assert next(steps) == (1, 24)
    assert next(steps) == (2, 24)
    steps.close()
    with torch.autocast("cpu", torch.bfloat16):
        again = start.steps(torch.rand(1, CELLS[0] * N, CELLS[1] * N))
        next(again)
        assert torch.is_autocast_enabled("cpu")  # whoever asks keeps its own mode
        assert torch.is_grad_enabled()


def test_bad_calls_are_refused(optics: CellOptics, start: IteratedStart) -> None:
    with pytest.raises(ValueError, match="do not hold"):
        start(torch.zeros(1, 10, 10))
    with pytest.raises(RuntimeError, match="not been built"):
        IteratedStart(optics, start.settings, CELLS)(torch.zeros(1, CELLS[0] * N, CELLS[1] * N))
    for counts in ((), (0,), (4, 4), (4, 2)):
        with pytest.raises(ValueError, match="rising"):
            IteratedStart(optics, IterationSettings(Z, S, counts), CELLS)


def test_its_cost_is_known_before(optics: CellOptics, start: IteratedStart) -> None:
    building, held = iteration_bytes(optics, start.settings, CELLS)
    g = iteration_geometry(optics, start.settings, CELLS)
    assert building > g.matrix_bytes()
    assert held > g.matrix_bytes()
    cost = start_cost(optics, start.settings, CELLS, use_cache=False)
    assert (cost.building_bytes, cost.held_bytes) == (building, held)
    assert cost.frame_seconds > 0
    twice = IterationSettings(Z, S, (24,))
    assert iteration_seconds(optics, twice, CELLS)[1] == pytest.approx(2 * cost.frame_seconds)


def test_the_optics_come_back_from_the_cache(optics: CellOptics, start: IteratedStart) -> None:
    first = IteratedStart(optics, start.settings, (5, 6))
    before = iteration_seconds(optics, start.settings, (5, 6))[0]
    for _ in first.build_steps():
        pass
    again = IteratedStart(optics, start.settings, (5, 6))
    assert len(list(again.build_steps())) == 2
    assert iteration_seconds(optics, start.settings, (5, 6))[0] != before
    image = torch.rand(1, 5 * N, 6 * N)
    torch.testing.assert_close(first(image), again(image))


def test_a_start_is_named_by_its_arguments(optics: CellOptics) -> None:
    assert start_settings(Z, {}) is None
    assert start_version(None) is None
    for settings in (IterationSettings(Z, 2, (4, 16)), InverseSettings(Z, 3, (3.0, 0.3))):
        assert start_settings(Z, start_arguments(settings)) == settings
        assert start_version(settings) == 1
        assert settings.volumes == 2
        assert make_start(optics, settings, CELLS).settings == settings


def test_guard_planes_surround_the_volume(optics: CellOptics) -> None:
    planes = guarded_planes(Z, S)
    assert [p.z_um for p in planes] == [-6, 0, 6, -12, -18, -24, 12, 18, 24]
    assert [p.voxels for p in planes[3:]] == [(1, 1)] * 6
    assert guard_thickness(Z, S) == S**2  # as far apart as the volume's planes
    assert guard_thickness(tuple(range(0, 61)), 2) == 10 * 4
    assert widest(optics, Z) == optics.half_width(6.0)
