"""The lenslet projector: the checks that every operator must pass, and those of light-field physics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.optics import cache
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import LightfieldPsf

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.psf import CellOptics

    Make = Callable[..., CellOptics]
    BruteForce = Callable[[Geometry, np.ndarray], np.ndarray]

MIXED = (Plane(-5.0, (3, 3)), Plane(0.0, (2, 2)), Plane(3.0, (1, 1)), Plane(6.0, (3, 3)))
OBLONG = (Plane(-4.0, (2, 3)), Plane(2.0, (1, 2)))

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "square": ({}, {"planes": MIXED, "cells": (5, 5)}),
    "oblong field, square period": ({}, {"planes": MIXED, "cells": (4, 7)}),
    "oblong field, oblong period": ({}, {"planes": MIXED[:2], "cells": (2, 17)}),
    "hexagonal": (
        {"lattice": "hexagonal", "aperture": "circular"},
        {"planes": MIXED[:3], "cells": (3, 5)},
    ),
    "oblong voxels": ({}, {"planes": OBLONG, "cells": (4, 4)}),
    "small margin": ({}, {"planes": MIXED, "cells": (5, 4), "margin": (1, 0)}),
    "large margin": ({}, {"planes": MIXED[1:3], "cells": (4, 4), "margin": (5, 5)}),
    "capped half width": ({}, {"planes": MIXED, "cells": (4, 4), "max_half_width": (2, 2)}),
    "2.0 camera": ({"distance_um": 1800.0}, {"planes": MIXED[:2], "cells": (4, 4)}),
}


@pytest.fixture(scope="module", params=CASES, ids=[c.replace(" ", "-") for c in CASES])
def geometry(request: pytest.FixtureRequest, make_optics: Make) -> Geometry:
    optics, plan = CASES[request.param]
    return Geometry.plan(make_optics(**optics), **plan)


def natural(projector: LensletProjector, stored: torch.Tensor) -> np.ndarray:
    """One frame's volume channels, plane by plane and row by row."""
    everything = projector.stored_channels(len(projector.geometry.planes))
    return stored[0, everything].double().numpy()


def build(geometry: Geometry, **how: Any) -> LensletProjector:
    return LensletProjector.build(geometry, use_cache=False, **how)


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() * b.double()).sum())


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_every_path_is_the_same_operator(geometry: Geometry, brute_force: BruteForce) -> None:
    folded = build(geometry)
    assert folded.matrix is not None
    assert folded.matrix.dtype == torch.float32
    assert folded.matrix.numel() * 4 == geometry.matrix_bytes()
    assert len(folded.matrix) == geometry.frequencies
    x = torch.rand(1, geometry.voxel_channels, *geometry.volume_cells) - 0.3
    y = torch.rand(1, geometry.pixel_channels, *geometry.cells) - 0.3
    ax, aty = folded.project(x), folded.backproject(y)
    assert ax.shape == y.shape
    assert aty.shape == x.shape
    truth = brute_force(geometry, natural(folded, x))
    image = folded.channels_to_image(ax)[0].double().numpy()
    assert np.linalg.norm(image - truth) < 2e-6 * np.linalg.norm(truth)
    assert inner(ax, y) == pytest.approx(inner(x, aty), rel=1e-5, abs=1e-5 * float(ax.norm() * y.norm()))

    streamed = build(geometry, streamed=True)
    assert streamed.matrix is None
    assert error(streamed.project(x), ax) < 2e-6
    assert error(streamed.backproject(y), aty) < 2e-6

    for storage, tolerance in (("float16", 5e-4), ("bfloat16", 3e-3)):
        half = build(geometry, storage=storage)
        assert half.matrix is not None
        assert half.matrix.numel() * 2 == geometry.matrix_bytes(storage)  # type: ignore[arg-type]
        hx, hty = half.project(x), half.backproject(y)
        assert 0 < error(hx, ax) < tolerance
        assert 0 < error(hty, aty) < tolerance
        assert inner(hx, y) == pytest.approx(inner(x, hty), rel=2e-3, abs=2e-3 * float(hx.norm() * y.norm()))

    plain = build(replace(geometry, symmetric=False))
    assert plain.matrix is not None
    assert plain.matrix.is_complex()
    assert plain.matrix.numel() * 8 == plain.geometry.matrix_bytes() > 3 * geometry.matrix_bytes()
    x_plain = x[:, folded.stored_channels(len(geometry.planes))]  # its stored order is the natural one
    image_plain = plain.channels_to_image(plain.project(x_plain))
    period = plain.geometry.period
    assert period[0] >= geometry.cells[0] + geometry.margin[0]
    assert error(image_plain, folded.channels_to_image(ax)) < 2e-6
    back = plain.backproject(plain.image_to_channels(folded.channels_to_image(y)))
    assert error(back, aty[:, folded.stored_channels(len(geometry.planes))]) < 2e-6


def test_the_cases_meet_what_they_are_named_for(make_optics: Make) -> None:
    def plan(name: str) -> Geometry:
        optics, wanted = CASES[name]
        return Geometry.plan(make_optics(**optics), **wanted)

    assert len(plan("square").group) == 8
    assert len(plan("hexagonal").group) == 4
    oblong = plan("oblong field, oblong period")
    assert oblong.period[0] != oblong.period[1]
    assert plan("small margin").margin < plan("small margin").half_width
    assert plan("large margin").margin > plan("large margin").half_width


def test_frames_in_a_batch_do_not_touch_each_other(make_optics: Make) -> None:
    projector = build(Geometry.plan(make_optics(), MIXED, (5, 6)))
    g = projector.geometry
    x = torch.rand(11, g.voxel_channels, *g.volume_cells)  # more than go through at once
    x[3] = 0
    together = projector.project(x)
    back = projector.backproject(together)
    assert not together[3].any()
    for k in (0, 7, 8, 10):
        assert error(together[k : k + 1], projector.project(x[k : k + 1])) < 1e-6
        assert error(back[k : k + 1], projector.backproject(together[k : k + 1])) < 1e-6


@pytest.mark.parametrize("lattice", ["square", "hexagonal"])
@pytest.mark.parametrize("path", ["folded", "half", "complex", "streamed"])
def test_gradients(make_optics: Make, lattice: str, path: str) -> None:
    optics = make_optics(lattice, n=3)
    planes = [Plane(-1.0, (2, 2)), Plane(2.0, (2, 2))]
    g = Geometry.plan(optics, planes, (2, 2), margin=(1, 1), symmetric=path != "complex")
    projector = build(g, storage="float16" if path == "half" else "float32", streamed=path == "streamed")
    size = [n * s for n, s in zip(g.volume_cells, (2, 2), strict=True)]
    volume = torch.rand(2, 2, *size, dtype=torch.float64, requires_grad=True)
    image = projector.forward(volume)
    assert image.dtype == torch.float64
    assert torch.autograd.gradcheck(projector.forward, (volume,), fast_mode=path != "folded")
    seen = torch.rand_like(image, requires_grad=True)
    assert torch.autograd.gradcheck(projector.adjoint, (seen,), fast_mode=True)
    # a network's loss has curvature: the gradient must itself be differentiable
    assert torch.autograd.gradgradcheck(lambda v: projector.forward(v) ** 2, (volume,), fast_mode=True)


def test_images_and_channels_are_the_same_thing(make_optics: Make) -> None:
    planes = [Plane(z, (3, 3)) for z in (-2.0, 0.0, 2.0)] + [Plane(9.0, (1, 1))]
    projector = LensletProjector(Geometry.plan(make_optics(), planes, (4, 6), margin=(1, 2)))
    image = torch.rand(2, 20, 30)
    assert torch.equal(projector.channels_to_image(projector.image_to_channels(image)), image)
    x = torch.rand(2, projector.geometry.voxel_channels, *projector.geometry.volume_cells)
    fine = projector.channels_to_volume(x, slice(0, 3))
    assert fine.shape == (2, 3, 18, 30)
    assert torch.equal(projector.channels_to_volume(x, slice(1, 2)), fine[:, 1:2])
    guard = projector.channels_to_volume(x, slice(3, 4))
    assert guard.shape == (2, 1, 6, 10)
    natural_order = x[:, projector.stored_channels(4)]
    assert torch.equal(natural_order[:, -1], guard[:, 0])
    assert torch.equal(natural_order[:, 9 + 3 * 1 + 2], fine[:, 1, 1::3, 2::3])


@pytest.mark.parametrize(("lattice", "aperture"), [("square", "square"), ("hexagonal", "square")])
def test_no_depth_loses_light(make_optics: Make, lattice: str, aperture: str) -> None:
    psf = LightfieldPsf(make_optics(lattice, aperture), (3, 3))
    depths = [-12.0, -6.0, -1.0, 0.0, 1.0, 6.0, 12.0]
    for images in psf.planes(depths):
        np.testing.assert_allclose(images.sum((1, 2)), 1, atol=0.02)


def test_an_even_slab_is_seen_alike_from_every_depth(make_optics: Make) -> None:
    images = []
    for z in (-8.0, 0.0, 8.0):
        projector = build(Geometry.plan(make_optics(), [Plane(z, (7, 7))], (1, 1)))
        ones = torch.ones(1, 49, *projector.geometry.volume_cells)
        images.append(projector.channels_to_image(projector.project(ones))[0].numpy())
    for image in images:
        assert image.sum() == pytest.approx(49, rel=0.02)  # what the neighbours take, they give
        np.testing.assert_allclose(image, images[1], atol=0.02 * images[1].mean())


def lit_cells(projector: LensletProjector, z_index: int) -> np.ndarray:
    """Light field (t, s, v, u) of a bead at the centre of plane `z_index`."""
    g = projector.geometry
    sy, sx = g.planes[0].voxels
    ty, tx = g.volume_cells
    volume = torch.zeros(1, len(g.planes), ty * sy, tx * sx)
    volume[0, z_index, ty * sy // 2, tx * sx // 2] = 1
    ny, nx = g.optics.cell_px
    image = projector.forward(volume)[0].numpy()
    return image.reshape(g.cells[0], ny, g.cells[1], nx).transpose(0, 2, 1, 3)


def test_mirrored_depths_mirror_the_centroids_and_only_them(make_optics: Make) -> None:
    z = 12.0
    g = Geometry.plan(make_optics(n=9), [Plane(-z, (3, 3)), Plane(z, (3, 3))], (7, 7))
    projector = build(g)
    below, above = lit_cells(projector, 0), lit_cells(projector, 1)
    u = np.arange(9) - 4
    for t, s in ((3, 4), (3, 2), (2, 3), (4, 4)):
        means = []
        for cells in (below, above):
            cell = cells[t, s]
            means.append(np.array([(cell.sum(1) * u).sum(), (cell.sum(0) * u).sum()]) / cell.sum())
        # the sign convention: a bead at +z lights the -u side of lenslets at +s
        away = np.array([t - 3, s - 3])
        assert (means[1] @ away) / (away @ away) < -0.8
        assert (means[0] @ away) / (away @ away) > 0.8
        np.testing.assert_allclose(means[0], -means[1], atol=0.25 * np.abs(means[1]).max())
    mirrored = below[..., ::-1, ::-1]
    assert np.linalg.norm(mirrored - above) > 0.05 * np.linalg.norm(above)


def test_building_tells_each_plane_and_can_be_left(make_optics: Make) -> None:
    projector = LensletProjector(Geometry.plan(make_optics(), MIXED, (3, 3)))
    assert list(projector.build_steps(use_cache=False)) == [(k, 4) for k in (1, 2, 3, 4)]
    left = LensletProjector(projector.geometry)
    steps = left.build_steps()
    next(steps)
    steps.close()
    assert left.matrix is None
    assert not list(cache.cache_dir().glob("operator-*"))
    assert len(list(cache.cache_dir().glob("psf-*"))) == 1  # what was computed is not lost


def test_cached_operators_equal_fresh_ones_and_broken_files_do_no_harm(make_optics: Make) -> None:
    g = Geometry.plan(make_optics(), MIXED, (3, 3))
    fresh = build(g).matrix
    first = LensletProjector.build(g).matrix
    files = sorted(cache.cache_dir().glob("*.npy"))
    assert len(files) == 1 + len(MIXED)
    steps = list(LensletProjector(g).build_steps())
    assert steps == [(4, 4)]  # one step: it was there
    again = LensletProjector.build(g).matrix
    assert fresh is not None
    assert first is not None
    assert again is not None
    assert torch.equal(fresh, first)
    assert torch.equal(fresh, again)
    half = LensletProjector.build(g, storage="float16").matrix
    assert half is not None
    assert torch.equal(half, fresh.half())
    for path in files:
        path.write_bytes(path.read_bytes()[:200] if path.name.startswith("operator") else b"not numpy")
    mended = LensletProjector.build(g).matrix
    assert mended is not None
    assert torch.equal(mended, fresh)
    for path in files:
        np.save(path, np.zeros((2, 5, 5), np.float32))  # readable, and wrong
    mended = LensletProjector.build(g).matrix
    assert mended is not None
    assert torch.equal(mended, fresh)


def test_other_optics_or_planes_have_other_keys(make_optics: Make) -> None:
    base = Geometry.plan(make_optics(), MIXED, (3, 3))
    others = [
        Geometry.plan(make_optics(na=0.44), MIXED, (3, 3)),
        Geometry.plan(make_optics(pupil=(1.0, 0.5)), MIXED, (3, 3)),
        Geometry.plan(make_optics(), MIXED[::-1], (3, 3)),
        Geometry.plan(make_optics(), MIXED, (3, 13)),
        Geometry.plan(make_optics(), MIXED, (3, 3), max_half_width=(1, 1)),
        replace(base, symmetric=False),
    ]
    assert len({base.key(), *(g.key() for g in others)}) == len(others) + 1


def test_memory_is_foretold(make_optics: Make) -> None:
    g = Geometry.plan(make_optics(), MIXED, (5, 5))
    assert g.matrix_bytes("float16") * 2 == g.matrix_bytes()
    assert g.vector_bytes(3) == 3 * g.vector_bytes(1)
    assert g.plane_bytes() > 0
