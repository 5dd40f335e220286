"""The simulator's own projection agrees with the reconstruction's projector: two codes, one optics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics, LightfieldPsf
from napari_lfm.simulation.projection import margin_cells, project_plane


def small_optics(lattice: str) -> CellOptics:
    return CellOptics(
        magnification=20.0,
        na=0.5,
        sample_index=1.33,
        wavelength_um=0.52,
        pitch_um=100.0,
        focal_length_um=2000.0,
        distance_um=2000.0,
        lattice=lattice,
        aperture="square" if lattice == "square" else "circular",
        cell_px=(7, 7) if lattice == "square" else (13, 7),
    )


@pytest.mark.parametrize(("lattice", "voxels"), [("square", (3, 3)), ("hexagonal", (5, 3))])
@pytest.mark.parametrize("cells", [(4, 4), (3, 6)])
def test_agrees_with_the_projector(lattice: str, voxels: tuple[int, int], cells: tuple[int, int]) -> None:
    optics, z = small_optics(lattice), -9.0
    geometry = Geometry.plan(optics, (Plane(z, voxels),), cells)
    projector = LensletProjector.build(geometry, use_cache=False)
    shape = [n * s for n, s in zip(geometry.volume_cells, voxels, strict=True)]
    plane = np.random.default_rng(0).random(shape).astype(np.float32)
    expected = projector.forward(torch.from_numpy(plane[None, None]))[0].numpy()
    assert margin_cells(optics, z) == geometry.margin
    nodes = LightfieldPsf(optics, voxels).nodes_at(z)
    found = project_plane(plane, z, optics, voxels, nodes=nodes)
    np.testing.assert_allclose(found, expected, atol=2e-4 * expected.max())


@pytest.mark.parametrize(("z", "nodes"), [(0.0, 2), (12.0, 1)])
def test_few_nodes_are_enough_for_fine_voxels(z: float, nodes: int) -> None:
    optics, voxels = small_optics("square"), (9, 9)
    cells = 3 + 2 * margin_cells(optics, z)[0]
    plane = np.zeros((9 * cells, 9 * cells), np.float32)
    plane[9 * cells // 2 - 3 : 9 * cells // 2 + 6, 9 * cells // 2 - 4 : 9 * cells // 2 + 2] = 1
    few, many = (project_plane(plane, z, optics, voxels, nodes=n) for n in (nodes, 5))
    assert np.abs(few - many).max() < 0.04 * many.max()
    assert np.linalg.norm(few - many) < 0.03 * np.linalg.norm(many)
    assert few.sum() == pytest.approx(many.sum(), rel=2e-3)


@pytest.mark.parametrize("voxel", [(4, 4), (0, 2)])
def test_flux_does_not_depend_on_depth(voxel: tuple[int, int]) -> None:
    optics, voxels = small_optics("square"), (9, 9)
    for z in (-12.0, 0.0, 12.0):
        margin = margin_cells(optics, z)[0]
        plane = np.zeros((9 * (4 * margin + 1),) * 2)
        middle = 9 * 2 * margin
        plane[middle + voxel[0], middle + voxel[1]] = 1
        # square lenslets without gaps pass all the light on
        assert project_plane(plane, z, optics, voxels).sum() == pytest.approx(1, abs=0.03)
