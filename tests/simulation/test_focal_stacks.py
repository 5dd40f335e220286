"""Simulated focal stacks: geometry, light, signs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_scenes import (
    bead_field,
    clouds,
    focal_scene,
    packed_nuclei,
    sparse_neurons,
    worm,
)
from napari_lfm.simulation.focal_stacks import FocalSettings, focal_stack, image_focal_stack
from napari_lfm.simulation.scene import Box

SMALL = FocalSettings(shape=(13, 64, 64), step_um=1.0, beyond=2)
OPTICS = DefocusOptics()


def one_point(plane: int) -> torch.Tensor:
    truth = torch.zeros(SMALL.object_planes, 64, 64)
    truth[plane + SMALL.beyond, 30, 20] = 1.0
    return truth


@pytest.mark.parametrize("plane", [2, 6, 11])
def test_a_point_is_sharp_in_its_plane(plane: int) -> None:
    perfect = image_focal_stack(one_point(plane), SMALL, replace(OPTICS, depth_um=0.0))
    made = image_focal_stack(one_point(plane), SMALL, OPTICS)
    for stack in (perfect.widefield, perfect.confocal, made.confocal):
        where = np.unravel_index(int(stack.argmax()), stack.shape)
        assert [int(k) for k in where] == [plane, 30, 20]
    # deep in a sample the focus is two planes wide, and pixels that are averaged over choose either
    where = np.unravel_index(int(made.widefield.argmax()), made.widefield.shape)
    assert [int(k) for k in where[1:]] == [30, 20] and abs(int(where[0]) - plane) <= 1
    # no plane of a wide-field stack loses light; a confocal one holds that of its depth of field
    np.testing.assert_allclose(made.widefield.sum((1, 2)).numpy(), 1.0, atol=0.03)
    assert float(made.confocal.sum()) * SMALL.step_um / OPTICS.depth_of_field_um == pytest.approx(
        1.0, abs=0.1
    )


def test_focus_rises_with_the_index() -> None:
    """The stack has the aberration of its table: planes after the object's are the table's positive side."""
    from napari_lfm.optics.defocus import transfer_table

    made = image_focal_stack(one_point(6), SMALL, OPTICS)
    table = transfer_table(OPTICS, SMALL.table_range_um)
    spot = torch.fft.irfft2(
        torch.from_numpy(table.planes("widefield", 3.0, (64, 64), SMALL.pixel_um, pixel_mean=False)), (64, 64)
    )[0]
    found = torch.roll(made.widefield[9], (-30, -20), (0, 1))
    np.testing.assert_allclose(found.numpy(), spot.clamp(min=0).numpy(), atol=1e-6)


def test_same_seed_same_stack() -> None:
    one, two = (focal_stack(SMALL, OPTICS, 3) for _ in range(2))
    assert torch.equal(one.widefield, two.widefield)
    assert not torch.equal(one.widefield, focal_stack(SMALL, OPTICS, 4).widefield)


def test_points_are_in_voxels() -> None:
    made = focal_stack(SMALL, OPTICS, 1, bead_field)
    inside = [p for p in made.points if all(1 <= v < n - 1 for v, n in zip(p, made.truth.shape, strict=True))]
    assert inside
    z, y, x = np.round(inside[0]).astype(int)
    assert float(made.truth[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].max()) > 0


@pytest.mark.parametrize("scene", [bead_field, worm, sparse_neurons, clouds, packed_nuclei, focal_scene])
def test_scenes_hold_bodies(scene: object) -> None:
    drawn = scene(Box.centred((25.0, 60.0, 60.0)), np.random.default_rng(0))  # type: ignore[operator]
    assert drawn.shapes and drawn.points_um and drawn.families


def test_refuses_no_stack() -> None:
    with pytest.raises(RequestError, match="cannot be simulated"):
        FocalSettings(shape=(0, 64, 64))
