"""The fast rasteriser against the reference `render`, shape by shape and family by family."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch

from napari_lfm.simulation.phantoms import make_scene
from napari_lfm.simulation.raster import rasterise
from napari_lfm.simulation.scene import Box, Grid, Scene, render
from napari_lfm.simulation.shapes import Ball, Bar, Shape, Tube, Union
from napari_lfm.simulation.soft_shapes import Ellipsoid, Haze, Waves, rotation_of

GRIDS = {
    "even": Grid.centred((40, 40, 40), (0.5, 0.5, 0.5)),
    "flat": Grid.centred((22, 42, 44), (1.0, 0.5, 0.45)),
}
BENT = ((-4.0, -6.0, -7.1), (-1.0, -3.0, -2.0), (0.5, 1.2, 0.3), (2.0, 3.0, 4.0), (2.2, 6.1, 5.0))
WAVES = Waves.random(np.random.default_rng(1), 4.0)
TURN = rotation_of(np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0])

SHAPES: dict[str, Shape] = {
    "small ball": Ball((0.2, 0.1, -0.3), 0.4),
    "big ball": Ball((0.2, 0.1, -0.3), 6.0, brightness=2.0),
    "shell": Ball((0.2, 0.1, -0.3), 6.0, 5.4),
    "wire": Tube(BENT, (0.1,) * 5),
    "thin tube": Tube(BENT, (0.3,) * 5),
    "tube": Tube(BENT, (0.8,) * 5),
    "thick tube": Tube(BENT, (2.0, 1.9, 1.8, 1.7, 1.6)),
    "tapered tube": Tube(BENT, (2.0, 1.2, 0.8, 0.4, 0.1)),
    "hollow tube": Tube(BENT, (2.5,) * 5, wall_um=0.5),
    "bar": Bar((0.1, 0.2, 0.3), (3, 1, 7), 33),
    "tree": Union(
        (Tube(BENT, (1.5,) * 5), Tube((BENT[2], (6.0, -5.0, 3.0)), (1.1, 1.1)), Ball(BENT[2], 2.5))
    ),
    "ellipsoid": Ellipsoid((0.2, 0.1, 0.4), (2.0, 4.0, 6.0), TURN),
    "membrane": Ellipsoid((0.2, 0.1, 0.4), (4.0, 5.0, 6.0), TURN, wall_um=0.3),
    "nucleus": Ellipsoid(
        (0.2, 0.1, 0.4), (3.0, 4.0, 5.0), TURN, core_share=0.5, core_level=0.2, texture=WAVES, contrast=0.4
    ),
    "bumpy": Ellipsoid((0.2, 0.1, 0.4), (4.0, 5.0, 6.0), TURN, bumps=WAVES, bumpiness=0.08),
    "organelle": Ellipsoid((0.2, 0.1, 0.4), (0.3, 0.4, 0.6), TURN),
    "haze": Haze((-8.0, -9.0, -20.0), (8.0, 9.0, 20.0), WAVES, 0.6),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_agrees_with_the_reference(shape: Shape, grid: Grid) -> None:
    expected = render(Scene((shape,)), grid).values
    found = rasterise(Scene((shape,)), grid).numpy()
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(expected.sum(), rel=0.01)
    # edges differ by how a slanted face cuts a voxel
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.012 * expected.max()
    assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)


@pytest.mark.parametrize("radius", [0.02, 0.1, 0.3, 0.45, 0.6, 1.2])
def test_tubes_hold_their_volume_at_any_thickness(radius: float) -> None:
    grid = Grid.centred((30, 60, 60), (1.0, 0.5, 0.5))
    straight = Tube(((-5.0, -6.0, -9.0), (6.0, 3.0, 8.0)), (radius, radius))
    length = float(np.linalg.norm(np.subtract(*straight.points_um)))
    volume = math.pi * radius**2 * length + 4 / 3 * math.pi * radius**3
    light = float(rasterise(Scene((straight,)), grid).sum()) * math.prod(grid.voxel_um)
    assert light == pytest.approx(volume, rel=0.01)


@pytest.mark.parametrize("family", ["vessels", "neurons", "nuclei", "cells", "filaments", "mixtures"])
def test_families_agree_with_the_reference(family: str) -> None:
    grid = Grid.centred((12, 60, 60), (1.0, 0.6, 0.6))
    scene = make_scene(family, Box.centred((16, 36, 36)), 4)
    expected, found = render(scene, grid).values, rasterise(scene, grid).numpy()
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_tree_has_no_walls_at_its_joints() -> None:
    tube = Tube(((0, 0, -8), (0, 0, -1), (0, 0.2, 3), (0, 0, 8)), (3.0,) * 4, wall_um=0.5)
    for light in (
        render(Scene((tube,)), GRIDS["even"]).values,
        rasterise(Scene((tube,)), GRIDS["even"]).numpy(),
    ):
        assert light[20, 20, 8:32].max() == 0


def test_what_is_outside_the_grid_is_cut_off() -> None:
    grid = Grid.centred((6, 20, 20), (0.5, 0.5, 0.5))
    wide = Grid.centred((46, 60, 60), (0.5, 0.5, 0.5))
    for name in ("thick tube", "thin tube", "wire", "big ball", "membrane", "bar", "haze"):
        part = rasterise(Scene((SHAPES[name],)), grid).numpy()
        whole = rasterise(Scene((SHAPES[name],)), wide).numpy()[20:26, 20:40, 20:40]
        np.testing.assert_allclose(part, whole, atol=1e-3, err_msg=name)
    away = Scene((Ball((50.0, 0.0, 0.0), 2.0), Tube(((50, 0, 0), (60, 0, 0)), (0.1, 0.1))))
    assert float(rasterise(away, grid).abs().sum()) == 0
    assert float(rasterise(Scene(()), grid).abs().sum()) == 0


def test_other_shapes_and_types_are_taken() -> None:
    class Block:
        brightness = 3.0

        def bounds(self) -> tuple[np.ndarray, np.ndarray]:
            return np.full(3, -1.0), np.full(3, 1.0)

        def coverage(self, z: np.ndarray, y: np.ndarray, x: np.ndarray, voxel_um: object) -> np.ndarray:
            return np.ones((len(z), len(y), len(x)))

        def turned(self, angle_deg: float) -> Block:
            return self

    out = rasterise(Scene((Block(),)), GRIDS["even"], dtype=torch.bfloat16)
    assert out.dtype == torch.bfloat16
    assert float(out.max()) == 3


def test_threads_do_not_disturb_one_another() -> None:
    grid, box = GRIDS["flat"], Box.centred((20, 20, 20))
    scenes = [make_scene("neurons+cells", box, k) for k in range(4)]
    expected = [rasterise(s, grid) for s in scenes]
    found: dict[int, torch.Tensor] = {}

    def work(k: int) -> None:
        found[k] = rasterise(scenes[k], grid)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, one in enumerate(expected):
        torch.testing.assert_close(found[k], one, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_draws_the_same() -> None:
    scene = make_scene("vessels+neurons+cells+beads+tissue", Box.centred((20, 20, 20)), 0)
    a, b = (rasterise(scene, GRIDS["flat"], device=d).cpu() for d in ("cpu", "cuda"))
    torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
