"""Phantoms: the right amount of light at the right place on any grid, the same for the same seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.simulation.morphology import grow_neuron, random_rotation, read_morphology
from napari_lfm.simulation.phantoms import FAMILIES, make_phantom, make_scene
from napari_lfm.simulation.scene import Box, Grid, Scene, render
from napari_lfm.simulation.shapes import Ball, Bar, Shape, Tube, Union

if TYPE_CHECKING:
    from pathlib import Path

VOXEL = (0.5, 0.25, 0.25)
GRID = Grid.centred((40, 80, 80), VOXEL)


def volume_of(shape: Shape, grid: Grid = GRID) -> float:
    return float(render(Scene((shape,)), grid).sum()) * math.prod(grid.voxel_um)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (Ball((0.1, 0.2, 0.03), 5), 4 / 3 * np.pi * 125),
        (Ball((0.1, 0.2, 0.03), 5, 4.5), 4 / 3 * np.pi * (125 - 4.5**3)),
        (Ball((0.11, 0.21, 0.03), 0.2), 4 / 3 * np.pi * 0.2**3),
        (Tube(((0, 0, -8), (0, 0, 8)), (1, 1)), 17 * np.pi + np.pi / 3),
        (Tube(((0, 0, -8), (1, 2, 8)), (0.05, 0.05)), np.pi * 0.05**2 * math.sqrt(261)),
        (Bar((0.1, 0.2, 0.3), (3, 1, 7), 33), 21),
        (Bar((0.1, 0.2, 0.3), (0.1, 0.1, 7)), 0.07),
    ],
    ids=["ball", "shell", "small ball", "tube", "thin tube", "turned bar", "thin bar"],
)
def test_partial_voxels_keep_the_volume(shape: Shape, expected: float) -> None:
    assert volume_of(shape) == pytest.approx(expected, rel=0.02)


def test_a_ball_that_moves_by_less_than_a_voxel_moves_its_centroid() -> None:
    grid = Grid.centred((9, 17, 17), VOXEL)
    for shift in (0.0, 0.06, 0.11):
        light = render(Scene((Ball((0.0, 0.02, shift), 0.6),)), grid)
        centroid = float((light * light.x).sum() / light.sum())
        assert centroid == pytest.approx(shift, abs=2e-3)


def test_fine_and_coarse_renderings_hold_one_object() -> None:
    box = Box.centred((10, 16, 16))
    scene = make_scene("vesicles+beads", box, 5)
    coarse = render(scene, Grid.centred((10, 16, 16), (1, 1, 1)))
    fine = render(scene, Grid.centred((30, 48, 48), (1 / 3, 1 / 3, 1 / 3)))
    averaged = fine.values.reshape(10, 3, 16, 3, 16, 3).mean((1, 3, 5))
    np.testing.assert_allclose(coarse.values, averaged, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_seeded_and_differ(family: str) -> None:
    one, again, other = (make_phantom(family, GRID, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.values, again.values)
    if family != "mixtures":  # a mixture carries the names of what is in it
        assert one.attrs["families"] == [family]
    if family not in {"tissue", "mixtures"}:
        assert 0 < float((one > 0).mean()) < 0.5
    assert np.isfinite(one.values).all()
    assert float(one.min()) >= 0
    assert not np.array_equal(one.values, other.values)
    assert one.coords["z"].attrs["units"] == "um"


def test_turning_a_scene_turns_the_picture() -> None:
    scene = make_scene("bars+beads+vessels", Box.centred((4, 12, 12)), 3)
    grid = Grid.centred((8, 48, 48), (0.5, 0.25, 0.25))
    straight, turned = render(scene, grid).values, render(scene.turned(90), grid).values
    # + from x towards y: what was at +x comes to +y
    np.testing.assert_allclose(turned, np.rot90(straight, k=-1, axes=(1, 2)), atol=0.05)
    assert scene.turned(90).points_um[0][1] == pytest.approx(scene.points_um[0][2])


def test_a_hollow_vessel_is_dark_inside() -> None:
    tube = Tube(((0, 0, -8), (0, 0, 8)), (3, 3), wall_um=0.5)
    light = render(Scene((tube,)), GRID)
    assert float(light.sel(z=0, y=0, x=0, method="nearest")) == 0
    assert float(light.sel(z=0, y=2.75, x=0, method="nearest")) > 0.9


def test_union_counts_overlaps_once() -> None:
    ball = Ball((0, 0, 0), 3)
    assert volume_of(Union((ball, ball))) == pytest.approx(volume_of(ball))


def test_sparse_labelling_drops_bodies_and_their_points() -> None:
    box = Box.centred((20, 60, 60))
    full = make_scene("beads", box, 1, options={"beads": {"count": 100}})
    sparse = make_scene("beads", box, 1, options={"beads": {"count": 100}}, labelled_share=0.3)
    assert 10 < len(sparse.shapes) < 50
    assert len(sparse.points_um) == len(sparse.shapes)
    assert set(sparse.points_um) < set(full.points_um)
    with pytest.raises(RequestError, match="labelled share"):
        make_scene("beads", box, 1, labelled_share=0)


def test_beads_keep_their_distance_where_it_fits() -> None:
    scene = make_scene("beads", Box.centred((20, 60, 60)), 1, options={"beads": {"count": 12, "apart_um": 9}})
    points = np.array(scene.points_um)
    gaps = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(12, 1)]
    assert gaps.min() >= 9


def test_unknown_family_is_explained() -> None:
    with pytest.raises(RequestError, match="Did you mean 'vessels'"):
        make_scene("vesels", Box.centred((1, 1, 1)))


def test_grown_neuron_is_a_connected_tree() -> None:
    cell = grow_neuron(np.random.default_rng(0))
    assert (cell.parents[1:] < np.arange(1, len(cell.parents))).all()
    assert (np.bincount(cell.parents[1:]) > 1).sum() >= 1
    steps = np.linalg.norm(cell.points_um[1:] - cell.points_um[cell.parents[1:]], axis=1)
    np.testing.assert_allclose(steps, steps[0])


def test_random_rotations_are_rotations() -> None:
    turn = random_rotation(np.random.default_rng(0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_swc_lengths_survive(tmp_path: Path) -> None:
    path = tmp_path / "cell.swc"
    path.write_text(
        "# a soma, a stem that branches\n1 1 0 0 0 5 -1\n2 3 5 0 0 1 1\n3 3 15 0 0 1 2\n"
        "4 3 15 10 0 0.5 3\n5 3 15 0 7 0.5 3\n"
    )
    cell = read_morphology(path)
    assert cell.soma_um == 5
    assert cell.points_um.tolist()[1] == [0, 0, 15]
    body = cell.body()
    tubes = [p for p in body.parts if isinstance(p, Tube)]
    length = sum(float(np.linalg.norm(np.diff(t.points_um, axis=0), axis=1).sum()) for t in tubes)
    assert length == pytest.approx(10 + 10 + 7)


def test_bad_morphologies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.swc"
    path.write_text("this is not a neuron\n")
    with pytest.raises(RequestError, match="not an SWC"):
        read_morphology(path)
    with pytest.raises(RequestError, match="no morphology file"):
        read_morphology(tmp_path / "absent.swc")
    path.write_text("1 1 0 0 0 5 -1\n")
    with pytest.raises(RequestError, match="no dendrites"):
        read_morphology(path)


@pytest.mark.parametrize("name", ["Neuron.swc", "bio_neuron-000.h5"])
def test_real_morphologies(shared_data: Path, name: str) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    cell = read_morphology(shared_data / "neurom" / name)
    assert len(cell.points_um) > 500
    assert 1 <= cell.soma_um <= 15
    linked = cell.parents >= 0
    steps = np.linalg.norm(cell.points_um[linked] - cell.points_um[cell.parents[linked]], axis=1)
    # neighbours in the tree are neighbours in space
    assert np.percentile(steps, 99) < 40
    scene = make_scene(
        "neurons",
        Box.centred((40, 120, 120)),
        0,
        options={"neurons": {"count": 1, "morphologies": [shared_data / "neurom" / name]}},
    )
    light = render(scene, Grid.centred((20, 60, 60), (2, 2, 2)))
    assert float((light > 0).sum()) > 20
