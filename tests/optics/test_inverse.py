"""The linear inverse of the projector: what it solves, its symmetry, what comes from outside, its cache."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_lfm.core.metrics import pearson
from napari_lfm.optics.inverse import (
    InverseSettings,
    LinearInverse,
    inverse_bytes,
    inverse_geometry,
    inverse_seconds,
    matrices_bytes,
)
from napari_lfm.optics.microscope import Microscope
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.optics.symmetry import cell_group

N, S, Z, CELLS = 5, 3, (-6.0, 0.0, 6.0), (8, 8)


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


@pytest.fixture(scope="module")
def inverse(optics: CellOptics) -> LinearInverse:
    return LinearInverse.build(optics, InverseSettings(Z, S, (0.03, 1.0)), CELLS, use_cache=False)


def frame_of(optics: CellOptics, volume: torch.Tensor, cells: tuple[int, int] = CELLS) -> torch.Tensor:
    geometry = Geometry.plan(optics, [Plane(z, (S, S)) for z in Z], cells, margin=(0, 0))
    return LensletProjector.build(geometry, use_cache=False).forward(volume)


def test_without_noise_it_gives_back_what_the_optics_let_through(
    optics: CellOptics, inverse: LinearInverse
) -> None:
    volume = torch.zeros(1, 3, CELLS[0] * S, CELLS[1] * S)
    volume[0, 0, 11, 12] = volume[0, 2, 13, 8] = 1.0
    found = inverse(frame_of(optics, volume))
    assert found.shape == (1, 6, CELLS[0] * S, CELLS[1] * S)
    sharp, soft = found[:, :3], found[:, 3:]
    # the brightest voxels are where the beads are, and the weaker regularisation is the sharper one
    for plane, place in ((0, (11, 12)), (2, (13, 8))):
        best = int(sharp[0, plane].argmax())
        assert divmod(best, CELLS[1] * S) == place
    assert pearson(sharp.numpy(), volume.numpy()) > pearson(soft.numpy(), volume.numpy()) > 0.1


def test_it_solves_the_normal_equations(optics: CellOptics) -> None:
    """The whole system is written down as one dense matrix and solved, for a frame that fills its period."""
    settings = InverseSettings((0.0, 6.0), 1, (0.05,))
    inverse = LinearInverse.build(optics, settings, CELLS, use_cache=False)
    g = inverse_geometry(optics, settings, CELLS)
    py, px = g.period
    torus = replace(g, cells=(py, px), half_width=(0, 0))
    assert torus.period == (py, px)
    projector = LensletProjector.build(g, use_cache=False)
    dense = LensletProjector(torus)
    dense.matrix = projector.matrix  # the same operator, on the torus that it was made for
    count = g.voxel_channels
    every = torch.eye(count * py * px).view(-1, count, py, px)
    a = dense.project(every).flatten(1).T.double()
    order = dense.voxel_tables.order  # stored channel -> natural channel: fine planes first, then guards
    thick = (torch.arange(count) >= 2).double() * (6.0 / 6.0 - 1) + 1
    spread = thick[torch.from_numpy(order)].repeat_interleave(py * px)
    power = ((a * spread) * a).sum(1).mean()
    torch.manual_seed(0)
    image = torch.rand(1, CELLS[0] * N, CELLS[1] * N)
    hy, hx = g.half_width
    channels = dense.image_to_channels(image)
    around = (hx, px - CELLS[1] - hx, hy, py - CELLS[0] - hy)
    y = torch.nn.functional.pad(channels, around, mode="replicate").flatten().double()
    normal = a.T @ a + torch.diag(0.05 * power / spread)
    x = torch.linalg.solve(normal, a.T @ y).float().reshape(1, count, py, px)
    natural = x[:, dense.voxel_tables.to_natural][:, :2, hy : hy + CELLS[0], hx : hx + CELLS[1]]
    torch.testing.assert_close(inverse(image), natural, rtol=1e-3, atol=1e-4 * float(natural.abs().max()))


def test_it_turns_with_its_frame(inverse: LinearInverse) -> None:
    torch.manual_seed(1)
    # dark at its edge: what lies beyond a frame is not filled quite alike on both sides
    image = torch.nn.functional.pad(torch.rand(1, 6 * N, 6 * N), (N,) * 4)
    straight = inverse(image)
    for operation in cell_group(True):
        turned = image.mT if operation.transpose else image
        back = straight.mT if operation.transpose else straight
        flips = [d for d, on in ((-2, operation.flip_y), (-1, operation.flip_x)) if on]
        difference = inverse(turned.flip(flips)) - back.flip(flips)
        assert float(difference.abs().max()) < 1e-4 * float(straight.abs().max())


def test_it_is_linear_and_takes_several_frames(inverse: LinearInverse) -> None:
    torch.manual_seed(2)
    images = torch.rand(2, CELLS[0] * N, CELLS[1] * N)
    both = inverse(images)
    torch.testing.assert_close(both[:1], inverse(images[:1]), rtol=1e-4, atol=1e-5)
    together = inverse(images.sum(0, keepdim=True))
    torch.testing.assert_close(together, both.sum(0, keepdim=True), rtol=1e-3, atol=1e-4)


def test_an_even_frame_has_no_borders(inverse: LinearInverse) -> None:
    found = inverse(torch.ones(1, CELLS[0] * N, CELLS[1] * N))
    cells = found.reshape(6, CELLS[0], S, CELLS[1], S)
    spread = cells.amax((1, 3)) - cells.amin((1, 3))  # the same voxel of all lenslets
    assert float(spread.max()) < 1e-3 * float(found.abs().max())


def test_frames_of_every_shape(optics: CellOptics) -> None:
    settings = InverseSettings(Z, S, (1.0,))
    torch.manual_seed(3)
    large = torch.rand(1, 13 * N, 9 * N)
    wide = LinearInverse.build(optics, settings, (13, 9), use_cache=False)(large)
    assert wide.shape == (1, 3, 13 * S, 9 * S)
    tall = LinearInverse.build(optics, settings, (9, 13), use_cache=False)(large.mT)
    torch.testing.assert_close(tall.mT, wide, rtol=1e-2, atol=1e-2 * float(wide.abs().max()))
    assert LinearInverse.build(optics, settings, (2, 31), use_cache=False)(
        torch.rand(1, 2 * N, 31 * N)
    ).shape == (1, 3, 2 * S, 31 * S)


def test_half_the_memory_is_nearly_as_good(optics: CellOptics, inverse: LinearInverse) -> None:
    half = LinearInverse.build(optics, inverse.settings, CELLS, storage="float16", use_cache=False)
    image = torch.rand(1, CELLS[0] * N, CELLS[1] * N)
    exact = inverse(image)
    assert float((half(image) - exact).norm() / exact.norm()) < 5e-3


def test_it_comes_back_from_the_cache(optics: CellOptics, inverse: LinearInverse) -> None:
    first = LinearInverse(optics, inverse.settings, CELLS)
    steps = list(first.build_steps())
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)
    assert steps[-1][0] == steps[-1][1] == len(Z) + 6 + 2  # planes, guard planes, blocks of matrices
    again = LinearInverse(optics, inverse.settings, CELLS)
    assert list(again.build_steps()) == steps[-1:]  # one step: read
    image = torch.rand(1, CELLS[0] * N, CELLS[1] * N)
    assert torch.equal(first(image), again(image))
    other = LinearInverse(optics, replace(inverse.settings, noise=(0.03, 2.0)), CELLS)
    assert len(list(other.build_steps())) > 1
    assert (
        inverse_seconds(optics, inverse.settings, CELLS)
        < 1
        < 1e9 * inverse_seconds(optics, inverse.settings, (30, 30))
    )


def test_a_build_that_is_cancelled_leaves_nothing(optics: CellOptics, inverse: LinearInverse) -> None:
    settings = replace(inverse.settings, noise=(0.7,))
    cancelled = LinearInverse(optics, settings, CELLS)
    steps = cancelled.build_steps()
    while next(steps)[0] <= len(Z) + 6:
        pass  # in the middle of the inversion
    steps.close()
    assert not cancelled.ready
    assert len(list(LinearInverse(optics, settings, CELLS).build_steps())) > 1


def test_half_precision_around_it_changes_nothing(inverse: LinearInverse) -> None:
    image = torch.rand(1, CELLS[0] * N, CELLS[1] * N)
    exact = inverse(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inverse(image), exact)


def test_other_frames_are_refused(optics: CellOptics, inverse: LinearInverse) -> None:
    with pytest.raises(RuntimeError, match="has not been built"):
        LinearInverse(optics, InverseSettings(Z, S, (1.0,)), CELLS)(torch.ones(1, 40, 40))
    with pytest.raises(ValueError, match=r"do not hold \(8, 8\) lenslets"):
        inverse(torch.ones(1, 8 * N, 9 * N))


def test_its_memory_is_known_before(optics: CellOptics, inverse: LinearInverse) -> None:
    building, held = inverse_bytes(optics, inverse.settings, CELLS)
    g = inverse_geometry(optics, inverse.settings, CELLS)
    kept = matrices_bytes(g, inverse.settings, "float32")
    assert kept == 4 * g.frequencies * N * N * 2 * len(Z) * S * S
    assert held > kept
    assert building > g.matrix_bytes() + kept  # the projector and its inverse stand side by side
    assert inverse_bytes(optics, inverse.settings, (40, 40))[0] > building
    assert inverse_bytes(optics, inverse.settings, CELLS, "float16")[1] < held
