"""Richardson-Lucy: what the mathematics promises, on problems whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_lfm.methods.smoothing import Smoother, sampling_gap_um
from napari_lfm.methods.solver import Measurement, Options, RichardsonLucy, State
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics

OPTICS = CellOptics(20.0, 0.45, 1.0, 0.55, 100.0, 2200.0, 2200.0, "square", "square", (7, 7))
DEPTHS = (-8.0, -4.0, 0.0, 4.0, 8.0)
PLAIN = Options(fit_offset=False, anti_aliasing=False)
CELLS = (9, 9)


@dataclass(frozen=True)
class Problem:
    projector: LensletProjector
    truth: torch.Tensor  # (1, z, y, x), enlarged field

    def measure(self, photons: float | None = None, offset: float = 0.0, seed: int = 0) -> torch.Tensor:
        """Lenslet channels of the truth, Poisson of `photons` at the brightest pixel where given."""
        light = self.projector.project(self.projector.volume_to_channels(self.truth))
        light = light.clamp(min=0) / light.max() * 1000
        if photons is not None:
            noisy = np.random.default_rng(seed).poisson(light.numpy() * photons / 1000) * 1000 / photons
            light = torch.from_numpy(noisy.astype(np.float32))
        return light + offset

    def solver(self, data: torch.Tensor, options: Options = PLAIN, shift: float = 0.0) -> RichardsonLucy:
        response = torch.ones(1, *data.shape[1:])
        shifts = torch.full((len(data), 1, 1, 1), shift)
        measurement = Measurement(data, response, 0.0, shifts, 0.05)
        return RichardsonLucy(self.projector, measurement, options, len(DEPTHS), (4.0, 5 / 3, 5 / 3))


@pytest.fixture(scope="module")
def projector() -> LensletProjector:
    g = Geometry.plan(OPTICS, [Plane(z, (3, 3)) for z in DEPTHS], CELLS)
    return LensletProjector.build(g, use_cache=False)


@pytest.fixture(scope="module")
def beads(projector: LensletProjector) -> Problem:
    g = projector.geometry
    size = [n * 3 for n in g.volume_cells]
    truth = torch.zeros(1, len(DEPTHS), *size)
    middle = size[0] // 2
    for k, (dy, dx) in enumerate(((-7, 5), (8, -6), (1, 1), (-3, -9), (6, 8))):
        truth[0, k, middle + dy, middle + dx] = 1
    return Problem(projector, truth)


@pytest.fixture(scope="module")
def slab(projector: LensletProjector) -> Problem:
    """An even block of light that fills the middle of the three middle planes."""
    size = [n * 3 for n in projector.geometry.volume_cells]
    truth = torch.zeros(1, len(DEPTHS), *size)
    truth[0, 1:4, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 1
    return Problem(projector, truth)


def iterate(solver: RichardsonLucy, count: int, state: State | None = None) -> State:
    state = state or solver.start()
    for _ in range(count):
        state = solver.step(state)
    return state


def log_likelihood(solver: RichardsonLucy, state: State) -> float:
    m = solver.measurement
    seen = (m.data + m.shift).clamp(min=0).double()
    expected = (solver.predict(state) + m.shift).double().clamp(min=1e-9)
    return float((seen * torch.log(expected) - expected).sum())


@pytest.mark.parametrize("anti_aliasing", [False, True])
@pytest.mark.parametrize("fit_offset", [False, True])
def test_the_likelihood_never_falls(beads: Problem, fit_offset: bool, anti_aliasing: bool) -> None:
    options = Options(fit_offset=fit_offset, anti_aliasing=anti_aliasing)
    solver = beads.solver(beads.measure(photons=200, offset=5.0), options, shift=3.0)
    state = solver.start()
    likelihoods = [log_likelihood(solver, state)]
    for _ in range(15):
        state = solver.step(state)
        likelihoods.append(log_likelihood(solver, state))
    gains = np.diff(likelihoods)
    assert (gains > -1e-6 * abs(likelihoods[0])).all()
    assert gains[:5].min() > 0
    assert state.iteration == len(state.residuals) == 15
    assert solver.residual(state) < state.residuals[-1] * 1.001 < state.residuals[0]
    assert float(state.x.min()) >= 0


def test_light_is_kept(beads: Problem) -> None:
    """After one plain iteration the prediction has the data's total: a property of Richardson-Lucy."""
    data = beads.measure(photons=500)
    solver = beads.solver(data)
    norm = 1 / solver._inverse_norm  # noqa: SLF001 - the sensitivity of each voxel
    state = solver.step(solver.start())
    assert float((state.x * norm).sum()) == pytest.approx(float(data.sum()), rel=2e-3)


@pytest.mark.parametrize("offset", [-30.0, -15.0, 0.0])
def test_the_offset_is_found(beads: Problem, offset: float) -> None:
    """A dark frame that took away too much, with the shift that the data ask for, as in a real run.

    An offset above the shift's lower bound is found slowly only: a haze of light explains it as well.
    """
    g = replace(beads.projector.geometry, optics=replace(OPTICS, aperture="circular"))
    problem = Problem(LensletProjector.build(g, use_cache=False), beads.truth)
    data = problem.measure(photons=1000, offset=offset)
    shift = max(2.0, -offset)
    fitted = problem.solver(data, Options(fit_offset=True), shift=shift)
    state = iterate(fitted, 40)
    assert float(state.offset) == pytest.approx(offset, abs=2.0)
    if offset:
        ignored = problem.solver(data, Options(fit_offset=False), shift=shift)
        assert fitted.residual(state) < ignored.residual(iterate(ignored, 40))


def test_total_variation_calms_noise_and_keeps_the_light(slab: Problem) -> None:
    data = slab.measure(photons=30)
    volumes = {}
    for weight in (0.0, 0.01):
        solver = slab.solver(data, replace(PLAIN, total_variation=weight))
        volumes[weight] = solver.volume(iterate(solver, 25))[0]
    n = volumes[0.0].shape[-1]
    inside = (slice(1, 4), slice(n // 3, -n // 3), slice(n // 3, -n // 3))
    roughness = {w: float(v[inside].diff(dim=1).abs().mean() / v[inside].mean()) for w, v in volumes.items()}
    assert roughness[0.01] < 0.8 * roughness[0.0]
    assert float(volumes[0.01].sum()) == pytest.approx(float(volumes[0.0].sum()), rel=0.05)


def test_acceleration_saves_iterations(beads: Problem) -> None:
    data = beads.measure(photons=2000)
    plain = beads.solver(data)
    wanted = plain.residual(iterate(plain, 30))
    fast = beads.solver(data, replace(PLAIN, accelerate=True))
    state, needed = fast.start(), 0
    while fast.residual(state) > wanted:
        state, needed = fast.step(state), needed + 1
        assert needed <= 20, "no faster than two thirds of the plain iterations"
    assert float(state.x.min()) >= 0


def test_a_frame_does_not_depend_on_its_neighbours(beads: Problem) -> None:
    dim = beads.measure(photons=300, seed=1) * 0.2
    bright = beads.measure(photons=300, seed=2) + 20
    options = Options(accelerate=True, total_variation=0.002)
    together = iterate(beads.solver(torch.cat([dim, bright]), options, shift=2.0), 6)
    for k, data in enumerate((dim, bright)):
        alone = iterate(beads.solver(data, options, shift=2.0), 6)
        torch.testing.assert_close(
            together.x[k : k + 1], alone.x, rtol=2e-3, atol=1e-4 * float(alone.x.max())
        )
        assert float(together.offset[k]) == pytest.approx(float(alone.offset), abs=1e-2)


def test_negative_data_survive(beads: Problem) -> None:
    data = beads.measure(photons=100) - 40  # an over-subtracted dark frame
    solver = beads.solver(data, Options(), shift=1.0)
    state = iterate(solver, 10)
    assert torch.isfinite(state.x).all()
    assert float(state.x.min()) >= 0
    assert float(state.x.max()) > 0
    assert solver.residual(state) < state.residuals[0]
    nothing = beads.solver(torch.full_like(data, -5.0), Options(), shift=1.0)
    assert torch.isfinite(iterate(nothing, 3).x).all()


def test_pixels_that_are_not_observed_do_not_count(beads: Problem) -> None:
    data = beads.measure(photons=1000)
    clean = beads.solver(data)
    response = torch.ones(1, *data.shape[1:])
    response[:, ::7, 2:4] = 0
    broken = torch.where(response > 0, data, torch.full_like(data, 1e6))
    measurement = replace(clean.measurement, data=broken, response=response)
    solver = RichardsonLucy(beads.projector, measurement, PLAIN, len(DEPTHS), (4.0, 5 / 3, 5 / 3))
    state = iterate(solver, 10)
    assert solver.residual(state) < 0.5
    assert state.residuals[0] < 2
    peak = solver.volume(state)[0]
    assert int(peak.argmax()) == int(clean.volume(iterate(clean, 10))[0].argmax())


def test_stopping_and_going_on_changes_nothing(beads: Problem) -> None:
    options = Options(accelerate=True, total_variation=0.001)
    solver = beads.solver(beads.measure(photons=500), options)
    at_once = iterate(solver, 9)
    kept = iterate(solver, 4)
    before = kept.x.clone()
    in_two = iterate(solver, 5, kept)
    assert torch.equal(in_two.x, at_once.x)
    assert in_two.residuals == at_once.residuals
    assert torch.equal(kept.x, before), "a state is never changed in place"


def blockiness(plane: torch.Tensor) -> float:
    """Steps between voxels of neighbouring lenslets over steps between voxels of one lenslet (3 voxels)."""
    steps = plane.diff(dim=-1).abs()
    across = torch.arange(steps.shape[-1]) % 3 == 2
    return float(steps[:, across].mean() / steps[:, ~across].mean())


def test_no_lenslet_blocks_near_the_native_plane(slab: Problem) -> None:
    """A fine ring in the native plane, on finer voxels than those that are solved for."""
    fine = LensletProjector.build(Geometry.plan(OPTICS, [Plane(0.0, (5, 5))], CELLS), use_cache=False)
    size = [n * 5 for n in fine.geometry.volume_cells]
    y, x = (torch.linspace(-1, 1, n) for n in size)
    radius = torch.sqrt(y[:, None] ** 2 + x[None] ** 2)
    ring = torch.exp(-(((radius - 0.25) / 0.03) ** 2))[None, None]
    image = fine.channels_to_image(fine.project(fine.volume_to_channels(ring)))
    data = slab.projector.image_to_channels(image / image.max() * 1000)
    native = min(range(len(DEPTHS)), key=lambda k: abs(DEPTHS[k]))
    found = {}
    for on in (False, True):
        solver = slab.solver(data, replace(PLAIN, anti_aliasing=on))
        found[on] = blockiness(solver.volume(iterate(solver, 25))[0, native])
    assert found[False] > 5, "without it the plane is made of blocks"
    assert found[True] < 2, "with it steps between lenslets are like others"


def test_planes_that_are_sampled_well_are_not_smoothed() -> None:
    depths = (-20.0, 0.0, 5.0, 20.0)
    planes = [Plane(z, (3, 3)) for z in depths] + [Plane(30.0, (1, 1))]
    projector = LensletProjector(Geometry.plan(OPTICS, planes, (4, 4), margin=(1, 1)))
    smooth = Smoother(projector, 4)
    g = projector.geometry
    x = torch.rand(2, g.voxel_channels, *g.volume_cells)
    y = smooth(x)
    before, after = (projector.channels_to_volume(v, slice(0, 4)) for v in (x, y))
    assert torch.equal(after[:, [0, 3]], before[:, [0, 3]])
    assert float(after[:, 1].std()) < float(after[:, 2].std()) < float(before[:, 2].std())
    guard = slice(4, 5)
    assert torch.equal(projector.channels_to_volume(x, guard), projector.channels_to_volume(y, guard))
    # Richardson-Lucy needs the smoother's adjoint, which is the smoother itself
    z = torch.rand_like(x)
    assert float((smooth(x) * z).sum()) == pytest.approx(float((x * smooth(z)).sum()), rel=1e-5)


def test_the_sampling_gap() -> None:
    pitch = OPTICS.pitch_um / OPTICS.magnification
    assert sampling_gap_um(OPTICS, 0.0) == pytest.approx(pitch)
    gaps = [sampling_gap_um(OPTICS, z) for z in np.linspace(0, 60, 30)]
    assert all(b <= a for a, b in pairwise(gaps))
    assert gaps[-1] < 0.1 * pitch
    assert sampling_gap_um(OPTICS, -7.0) == sampling_gap_um(OPTICS, 7.0)
