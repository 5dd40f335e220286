"""The simulator's own projection agrees with the reconstruction's projector: two codes, one optics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
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
    found = project_plane(plane, z, optics, voxels, nodes=2)
    np.testing.assert_allclose(found, expected, atol=2e-4 * expected.max())


def test_one_node_is_enough_for_fine_voxels() -> None:
    optics, z, voxels = small_optics("square"), 8.0, (9, 9)
    cells = 3 + 2 * margin_cells(optics, z)[0]
    plane = np.zeros((9 * cells, 9 * cells), np.float32)
    plane[9 * cells // 2 - 3 : 9 * cells // 2 + 6, 9 * cells // 2 - 4 : 9 * cells // 2 + 2] = 1
    one, two = (project_plane(plane, z, optics, voxels, nodes=n) for n in (1, 2))
    assert np.abs(one - two).max() < 0.04 * two.max()
    assert np.linalg.norm(one - two) < 0.03 * np.linalg.norm(two)
    assert one.sum() == pytest.approx(two.sum(), rel=2e-3)


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
