"""The sparse fit of a whole light field, and the epipolar dictionary, on a small microscope."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.methods.localization.dictionary import epipolar_dictionary
from napari_lfm.methods.localization.phase_space import PhaseSpace
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics

N, CELLS = 7, (13, 13)


@pytest.fixture(scope="module")
def tiny() -> Microscope:
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=100 / 7),
        wavelength_um=0.55,
        sample_index=1.0,
    )


@pytest.fixture(scope="module")
def phase(tiny: Microscope) -> PhaseSpace:
    out = PhaseSpace(tiny, N, CELLS, (-36.0, 36.0), iterations=40)
    list(out.build_steps())
    return out


def test_points_come_back(tiny: Microscope, phase: PhaseSpace) -> None:
    planes = [Plane(z, (5, 5)) for z in (-24.0, 18.0)]
    projector = LensletProjector.build(Geometry.plan(CellOptics.of(tiny, N), planes, CELLS, margin=(0, 0)))
    volume = torch.zeros(1, 2, CELLS[0] * 5, CELLS[1] * 5)
    volume[0, 0, 4 * 5 + 2, 8 * 5 + 2] = 1  # lenslet (4, 8)
    volume[0, 1, 8 * 5 + 4, 4 * 5] = 1  # lenslet (8.4, 3.6)
    image = projector.forward(volume)[0].numpy()
    views = image.reshape(CELLS[0], N, CELLS[1], N).transpose(1, 3, 0, 2)
    *_, sources = phase.steps(views)
    assert sources.min() >= 0
    z, t, s, height, _ = phase.points(sources, 0.3)
    assert len(z) == 2
    order = np.argsort(z)
    np.testing.assert_allclose(z[order], [-24, 18], atol=3.0)
    np.testing.assert_allclose(t[order], [4, 8.4], atol=0.25)
    np.testing.assert_allclose(s[order], [8, 3.6], atol=0.25)
    assert height.max() == pytest.approx(1)


def test_a_dark_field_holds_nothing(phase: PhaseSpace) -> None:
    *_, sources = phase.steps(np.zeros((N, N, *CELLS), np.float32))
    assert len(phase.points(sources, 0.1)[0]) == 0


def test_the_objective_falls_and_codes_are_sparse(phase: PhaseSpace) -> None:
    views = np.random.default_rng(0).random((N, N, *CELLS)).astype(np.float32)
    first, *_, last = phase.steps(views)
    assert (last == 0).mean() > 0.3
    assert first.shape == last.shape == (len(phase.z_um), CELLS[0] * 2, CELLS[1] * 2)


def test_atoms_are_lines_of_their_depth(tiny: Microscope) -> None:
    depths = (-9.0, 0.0, 9.0)

    def made() -> tuple[int, np.ndarray]:
        steps, generator = 0, epipolar_dictionary(tiny, N, depths, 4, diameter_um=6.0)
        while True:
            try:
                next(generator)
                steps += 1
            except StopIteration as end:
                return steps, end.value

    steps, atoms = made()
    assert steps > 3
    assert atoms.shape == (3, 2, N, 9)
    again, same = made()
    assert again == 1  # from the cache
    np.testing.assert_array_equal(same, atoms)
    at = np.arange(9)
    inner = slice(1, N - 1)
    for place, z in enumerate(depths):
        for atom in atoms[place]:
            centre = (atom * at).sum(1) / atom.sum(1)
            slope = np.polyfit(np.arange(N)[inner], centre[inner], 1)[0]
            assert slope == pytest.approx(slope_at_depth(z, tiny, 2, N), abs=0.04)
    # the second place lies half a lenslet further along
    shift = [(a * at).sum() / a.sum() for a in atoms[1, :, N // 2]]
    assert shift[1] - shift[0] == pytest.approx(0.5, abs=0.1)
