"""Simulated thick tissue: light is kept, blur is the optics', haze grows with depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.optics.widefield_psf import widefield_psf
from napari_lfm.simulation.brain_slice import brain_slice
from napari_lfm.simulation.scene import Box
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue, TissueSettings

SETTINGS = TissueSettings(
    na=0.8, immersion_index=1.33, sample_index=1.33, voxel_um=(0.6, 0.2, 0.2), shape=(16, 96, 96)
)
CLEAR = Scattering(1e9, 0.0)


@pytest.fixture(scope="module")
def maker() -> ThickTissue:
    return ThickTissue(SETTINGS)


def _point(z: int, y: int = 48, x: int = 48) -> torch.Tensor:
    truth = torch.zeros(SETTINGS.shape)
    truth[z, y, x] = 100.0
    return truth


def test_every_plane_of_a_widefield_stack_holds_all_the_light(maker: ThickTissue) -> None:
    made = maker.image(_point(8), CLEAR)
    sums = made.widefield.sum((1, 2))
    assert torch.allclose(sums, torch.full_like(sums, 100.0), rtol=0.02)  # ringing of a point is cut at 0
    # a confocal one lets the light of other planes go
    confocal = made.confocal.sum((1, 2))
    assert confocal[8] > 5 * confocal[12]
    assert confocal[8] > 5 * confocal[4]


def test_a_clear_specimen_is_blurred_by_the_point_spread_function(maker: ThickTissue) -> None:
    made = maker.image(_point(8), CLEAR).widefield.numpy()
    shape = (9, 25, 25)
    psf = widefield_psf(SETTINGS.optics(SETTINGS.emission_um, 0.0), shape, SETTINGS.voxel_um)
    got = made[4:13, 36:61, 36:61]
    # planes of the PSF are cut at the border, and share one scale
    scale = float((got * psf).sum() / (psf * psf).sum())
    assert np.abs(got - scale * psf).max() < 0.02 * got.max()
    assert np.corrcoef(got.ravel(), psf.ravel())[0, 1] > 0.999


def test_the_sides_are_joined(maker: ThickTissue) -> None:
    here = maker.image(_point(8), CLEAR).widefield
    there = maker.image(_point(8, 0, 0), CLEAR).widefield
    assert torch.allclose(torch.roll(there, (48, 48), (1, 2)), here, atol=1e-4)


def test_deeper_light_is_scattered_more_and_none_is_lost(maker: ThickTissue) -> None:
    hazy = Scattering(6.0, 0.0)
    peaks = []
    for z in (1, 8, 14):
        clear, seen = maker.image(_point(z), CLEAR).widefield, maker.image(_point(z), hazy).widefield
        assert float(seen.sum()) == pytest.approx(float(clear.sum()), rel=2e-3)
        peaks.append(float(seen[z].max() / clear[z].max()))
        # what goes straight is exp(-z / l); the halo is wide and adds little to the peak
        straight = np.exp(-(z + 0.5) * 0.6 / 6.0)
        assert straight - 1e-3 < peaks[-1] < straight + 0.35 * (1 - straight)
    assert peaks[0] > peaks[1] > peaks[2]


def test_confocal_focus_is_the_widefield_focus_also_when_aberrated() -> None:
    oil = TissueSettings(shape=(24, 64, 64), voxel_um=(0.5, 0.15, 0.15))
    made = ThickTissue(oil).image(_point_of(oil, 12), Scattering(1e9, 6.0))
    best = [int(v.amax((1, 2)).argmax()) for v in (made.widefield, made.confocal)]
    assert best == [12, 12]


def _point_of(settings: TissueSettings, z: int) -> torch.Tensor:
    truth = torch.zeros(settings.shape)
    truth[z, settings.shape[1] // 2, settings.shape[2] // 2] = 1.0
    return truth


def test_same_seed_same_pair(maker: ThickTissue) -> None:
    one, two = (maker.pair(np.random.default_rng(5), Scattering(20.0, 0.0)) for _ in range(2))
    assert torch.equal(one.widefield, two.widefield)
    other = maker.pair(np.random.default_rng(6), Scattering(20.0, 0.0))
    assert not torch.equal(one.truth, other.truth)
    assert "somata" in one.families
    assert "tissue" in one.families


def test_slices_differ_in_density() -> None:
    box = Box.centred((40.0, 40.0, 40.0))
    counts = [len(brain_slice(box, np.random.default_rng(s)).shapes) for s in range(12)]
    assert min(counts) < 0.5 * max(counts)


def test_no_slice_of_one_plane() -> None:
    with pytest.raises(RequestError):
        ThickTissue(TissueSettings(shape=(1, 64, 64)))
