"""Simulated pairs: the truth lies where the projector says, symmetries hold, a step gives the same pairs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics
from napari_lfm.simulation.recording import OpticsError
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball
from napari_lfm.training import lightfield_pairs
from napari_lfm.training.lightfield_pairs import LightfieldPairs, Pair, PairSettings

if TYPE_CHECKING:
    from collections.abc import Callable

Z_UM = (-16.0, -8.0, 0.0, 8.0, 16.0)
N, S, CELLS = 5, 3, 6
CLEAR = PairSettings(
    families=("beads",), cells=CELLS, z_substeps=1, errors=(OpticsError(),), pool=3, most=5, jitter_px=0.0
)


def tiny_microscope() -> Microscope:
    """20x/0.45 in air with lenslets of 5 pixels, 5 um in the object."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=20),
        wavelength_um=0.55,
        sample_index=1.0,
    )


@pytest.fixture(scope="module")
def tiny() -> Microscope:
    return tiny_microscope()


@cache
def projectors() -> LightfieldPairs:
    """The optics of all tests: building them takes a second."""
    pairs = LightfieldPairs(tiny_microscope(), N, Z_UM, S, CLEAR)
    for _ in pairs.prepare():
        pass
    return pairs


@cache
def nominal() -> LensletProjector:
    """The same optics without a margin or anything beyond the volume."""
    planes = [Plane(z, (S, S)) for z in Z_UM]
    geometry = Geometry.plan(CellOptics.of(tiny_microscope(), N), planes, (CELLS, CELLS), margin=(0, 0))
    return LensletProjector.build(geometry, use_cache=False)


def pairs_of(microscope: Microscope, settings: PairSettings = CLEAR, **changes: Any) -> LightfieldPairs:
    pairs = LightfieldPairs(microscope, N, Z_UM, S, settings, seed=2, **changes)
    pairs._projectors, pairs._guards = projectors()._projectors, projectors()._guards  # noqa: SLF001
    return pairs


@pytest.fixture
def bead(monkeypatch: pytest.MonkeyPatch, tiny: Microscope) -> Callable[[float, float, float], None]:
    """Make every scene one bead at a place (z, y, x), um, as wide as a voxel."""

    def put(z: float, y: float, x: float) -> None:
        assert tiny.lenslet_um is not None
        scene = Scene((Ball((z, y, x), tiny.lenslet_um / S / 2),))
        monkeypatch.setattr(lightfield_pairs, "random_scene", lambda *_, **__: scene)

    return put


def test_a_bead_is_in_the_truth_where_it_is_in_the_scene(
    bead: Callable[[float, float, float], None], tiny: Microscope
) -> None:
    voxel = tiny.lenslet_um / S  # type: ignore[operator]
    middle = (CELLS * S - 1) / 2
    bead(8.0, -2.5 * voxel, 4.5 * voxel)
    truth = pairs_of(tiny).scene_pair(0).volume[0].float()
    assert truth.shape == (len(Z_UM), CELLS * S, CELLS * S)
    place = np.unravel_index(int(truth.argmax()), truth.shape)
    assert place == (3, round(middle - 2.5), round(middle + 4.5))
    assert float(truth[3].sum()) > 0.99 * float(truth.sum())


@pytest.mark.parametrize("place", [(16.0, 0.0, 0.0), (-8.0, 3.0, -5.0)])
def test_the_frame_is_what_the_projector_makes_of_the_truth(
    bead: Callable[[float, float, float], None], tiny: Microscope, place: tuple[float, float, float]
) -> None:
    bead(*place)
    pair = pairs_of(tiny).scene_pair(0)
    expected = nominal().forward(pair.volume.float())
    seen = pair.image.float()
    assert float(np.percentile(seen.numpy(), 99.9)) == pytest.approx(1, abs=0.01)
    assert float((seen - expected).norm() / expected.norm()) < 0.03  # half precision; guards see nothing


def test_light_from_beyond_the_volume_is_seen_but_not_in_the_truth(
    bead: Callable[[float, float, float], None], tiny: Microscope
) -> None:
    bead(26.0, 0.0, 0.0)
    pair = pairs_of(tiny).scene_pair(0)
    assert float(pair.volume.float().abs().max()) < 1e-3
    assert float(pair.image.float().max()) > 0.9


def test_symmetric_operations_turn_frame_and_volume_alike(tiny: Microscope) -> None:
    projector = nominal()
    volume = torch.rand(1, len(Z_UM), CELLS * S, CELLS * S)
    pair = Pair(projector.forward(volume), volume)
    seen = []
    for operation in range(8):
        other = pair.turned(operation)
        torch.testing.assert_close(projector.forward(other.volume), other.image, atol=1e-4, rtol=1e-4)
        assert other.image.shape == pair.image.shape
        seen.append(other.volume)
    assert all(not torch.equal(a, b) for k, a in enumerate(seen) for b in seen[:k])


def test_a_step_gives_the_same_pairs_whatever_was_made_before(tiny: Microscope) -> None:
    one, two = pairs_of(tiny), pairs_of(tiny)
    one.batch(0, 2)
    a, b = one.batch(9, 2), two.batch(9, 2)
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.volume, b.volume)
    assert not torch.equal(a.image, one.batch(8, 2).image)
    assert not torch.equal(a.image[0], a.image[1])
    other = one.other(3)
    assert not torch.equal(other.scene_pair(0).volume, one.scene_pair(0).volume)


def test_the_pool_grows_to_its_end(tiny: Microscope) -> None:
    pairs = pairs_of(tiny)
    for step in range(0, 40, 2):
        pairs.batch(step, 2)
    assert set(pairs._pool) <= set(range(CLEAR.most))  # noqa: SLF001
    assert max(pairs._pool) >= CLEAR.pool  # noqa: SLF001


def test_a_recorded_frame_is_scaled_and_noisy(tiny: Microscope) -> None:
    pairs = pairs_of(tiny)
    scene = pairs.scene_pair(0)
    pair = Pair(scene.image.float(), scene.volume.float())
    dim = pairs.recorded(pair, np.random.default_rng(1), 50.0)
    again = pairs.recorded(pair, np.random.default_rng(1), 50.0)
    bright = pairs.recorded(pair, np.random.default_rng(1), 1e6)
    assert torch.equal(dim.image, again.image)
    for found in (dim, bright):
        assert float(np.percentile(found.image.numpy(), 99.9)) == pytest.approx(1, abs=1e-4)
    # the volume goes with the frame: both are divided by the same number
    clean = replace(CLEAR, haze=0.0)
    exact = pairs_of(tiny, clean).recorded(pair, np.random.default_rng(1), 1e9)
    ratio = float(exact.volume.sum() / exact.image.sum())
    assert ratio == pytest.approx(float(pair.volume.sum() / pair.image.sum()), rel=1e-3)
    quiet = pairs_of(tiny, clean)
    dimmer, brighter = (quiet.recorded(pair, np.random.default_rng(1), e) for e in (50.0, 1e6))
    rough = float((dimmer.image - exact.image).std())
    assert rough > 10 * float((brighter.image - exact.image).std())
    assert rough > 0.02


def test_a_finer_truth_holds_the_same_light_at_the_same_place(
    bead: Callable[[float, float, float], None], tiny: Microscope
) -> None:
    bead(8.0, -4.0, 6.0)
    coarse = pairs_of(tiny).scene_pair(0)
    fine = pairs_of(tiny, truth_voxels=N).scene_pair(0)
    assert fine.volume.shape == (1, len(Z_UM), CELLS * N, CELLS * N)
    assert torch.equal(fine.image, coarse.image)
    light = [float(p.volume.float().sum()) for p in (coarse, fine)]
    assert light[1] == pytest.approx(light[0], rel=0.1)
    centres = []
    for pair, voxels in ((coarse, S), (fine, N)):
        plane = pair.volume[0, 3].float()
        at = (torch.arange(CELLS * voxels) + 0.5) / voxels
        centres.append([float((plane.sum(d) * at).sum() / plane.sum()) for d in (1, 0)])
    np.testing.assert_allclose(centres[0], centres[1], atol=0.1)  # lenslets


@pytest.mark.parametrize(("lattice", "says"), [("hexagonal", "square"), (None, "no lenslet array")])
def test_arrays_that_networks_cannot_have_are_refused(
    tiny: Microscope, lattice: str | None, says: str
) -> None:
    record = tiny.model_dump()
    record["lenslets"] = None if lattice is None else {**record["lenslets"], "lattice": lattice}
    with pytest.raises(RequestError, match=says):
        pairs_of(Microscope.model_validate(record))
