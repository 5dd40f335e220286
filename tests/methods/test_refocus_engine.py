"""The engine that a slider drives: parts, tiles, surfaces and scale agree; bad images are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_lfm.core.problems import RequestError
from napari_lfm.methods.refocus import engine
from napari_lfm.methods.refocus.card import RefocusDomain
from napari_lfm.methods.refocus.engine import Refocuser
from napari_lfm.networks.refocus import RefocusNet
from napari_lfm.optics.defocus import DefocusOptics

DOMAIN = RefocusDomain(DefocusOptics(), 0.325, 4.0, 0.5)


@pytest.fixture(scope="module")
def net() -> RefocusNet:
    torch.manual_seed(0)
    return RefocusNet(widths=(4, 6), bands=(4,), planes=5).eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (100 + 400 * rng.random((90, 131)) ** 8).astype(np.uint16)


def opened(net: RefocusNet, image: np.ndarray) -> Refocuser:
    return Refocuser(net, DOMAIN, image, 0.325, precision="float32")


def test_plane_has_the_shape_and_units_of_the_image(net: RefocusNet, image: np.ndarray) -> None:
    made = opened(net, image).plane(2.0)
    assert made.widefield.shape == made.confocal.shape == made.beyond.shape == image.shape
    assert made.widefield.dtype == np.float32 and made.widefield.min() >= 0
    assert not made.beyond.any()


def test_brightness_and_offset_of_the_camera_do_not_matter(net: RefocusNet, image: np.ndarray) -> None:
    one = opened(net, image).plane(2.0).widefield
    other = opened(net, image.astype(np.float64) * 7 + 1000).plane(2.0).widefield
    np.testing.assert_allclose(other, 7 * one, rtol=1e-3, atol=0.5)


def test_a_region_is_a_part_of_the_whole(net: RefocusNet, image: np.ndarray) -> None:
    whole, part = opened(net, image).plane(-1.5), opened(net, image).plane(-1.5, (20, 30, 61, 97))
    np.testing.assert_allclose(part.widefield, whole.widefield[20:61, 30:97], rtol=1e-3, atol=0.05)


@pytest.mark.parametrize(("rounds", "most"), [(0, 0.2), (4, 0.25)])
def test_tiles_make_the_whole(
    net: RefocusNet, monkeypatch: pytest.MonkeyPatch, rounds: int, most: float
) -> None:
    """An untrained network sees further than a trained one: it is the worst case."""

    def opened(net: RefocusNet, image: np.ndarray) -> Refocuser:
        return Refocuser(net, DOMAIN, image, 0.325, precision="float32", rounds=rounds)

    spread = gaussian_filter(np.random.default_rng(1).random((320, 330)) ** 30, 1.0)
    large = (100 + 4000 * spread).astype(np.uint16)
    whole = opened(net, large).plane(1.0)
    monkeypatch.setattr(engine, "_TILE_PX", 64)
    monkeypatch.setattr(engine, "_CONTEXT_PX", 96)
    tiled = opened(net, large).plane(1.0)
    for found, wanted in ((tiled.confocal, whole.confocal), (tiled.widefield, whole.widefield)):
        assert np.abs(found - wanted).max() < most * wanted.max()
        assert np.abs(found - wanted).mean() < 0.3 * most * wanted.std()


def test_half_precision_differs_little(net: RefocusNet, image: np.ndarray) -> None:
    half = Refocuser(net, DOMAIN, image, 0.325, precision="bfloat16").plane(1.0)
    whole = opened(net, image).plane(1.0)
    for found, wanted in ((half.confocal, whole.confocal), (half.widefield, whole.widefield)):
        assert 0 < np.abs(found - wanted).mean() < 0.05 * wanted.std()


def test_what_was_seen_last_is_kept(
    net: RefocusNet, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = opened(net, image)
    seen = 0
    original = net.forward

    def counted(*args: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return original(*args)

    monkeypatch.setattr(net, "forward", counted)
    for z in (-2.0, 0.5, 3.0):
        taken.plane(z)
    assert seen == 1  # one pass of the network for all planes
    taken.plane(1.0, (0, 0, 30, 30))
    assert seen == 2
    taken.forget()
    taken.plane(1.0)
    assert seen == 3


def test_surfaces_follow_their_heights(net: RefocusNet, image: np.ndarray) -> None:
    taken = opened(net, image)
    flat = taken.surface(np.full(image.shape, 1.0, np.float32)).widefield
    # a level of the guesses: nothing is interpolated
    np.testing.assert_allclose(flat, taken.plane(1.0).widefield, rtol=1e-3, atol=0.05)
    ramp = np.broadcast_to(np.linspace(-5, 5, image.shape[1], dtype=np.float32), image.shape)
    made = taken.surface(ramp)
    np.testing.assert_array_equal(made.beyond, np.abs(ramp) > 4.0 * (1 + 1e-6))
    assert np.isfinite(made.widefield).all()


def test_far_beyond_the_range_is_as_at_its_limit(net: RefocusNet, image: np.ndarray) -> None:
    taken = opened(net, image)
    far, limit = taken.plane(50.0), taken.plane(taken.limit_um)
    assert np.abs(limit.widefield - taken.plane(4.0).widefield).max() > 0
    np.testing.assert_array_equal(far.widefield, limit.widefield)
    assert far.beyond.all() and limit.beyond.all()


def test_a_stack_that_explains_the_image(net: RefocusNet) -> None:
    """The true confocal stack of simulated beads gives back the image through the engine too."""
    from napari_lfm.simulation.focal_scenes import bead_field
    from napari_lfm.simulation.focal_stacks import FocalSettings, focal_stack

    settings = FocalSettings(shape=(33, 128, 128), step_um=0.25, beyond=0)
    made = focal_stack(settings, DOMAIN.optics, 5, bead_field)
    wanted = made.widefield[16].numpy()
    taken = opened(net, wanted)
    z = (np.arange(33) - 16) * 0.25
    seen = taken.expected(made.confocal.numpy(), z)
    middle = np.s_[24:-24, 24:-24]
    assert np.corrcoef(seen[middle].ravel(), wanted[middle].ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((1, 1)), "cannot be refocused"),
        (np.zeros((3, 8, 8)), "cannot be refocused"),
        (np.full((8, 8), np.nan), "no numbers"),
        (np.ones((8, 8)), "dark"),
    ],
)
def test_refuses_what_is_no_image(net: RefocusNet, bad: np.ndarray, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        opened(net, bad)


def test_the_smallest_images(net: RefocusNet) -> None:
    made = opened(net, np.array([[1.0, 2.0], [3.0, 9.0]])).plane(1.0)
    assert made.widefield.shape == (2, 2) and np.isfinite(made.widefield).all()


def test_rounds_make_the_stack_explain_the_image(net: RefocusNet) -> None:
    from napari_lfm.networks.refocus_explain import explaining
    from napari_lfm.networks.refocus_physics import RefocusPhysics
    from napari_lfm.networks.refocus_render import blurs, stack_spectrum

    truth = torch.zeros(5, 64, 64)
    truth[1, 20, 20] = truth[3, 40, 45] = 40.0
    truth = torch.from_numpy(gaussian_filter(truth.numpy(), (0, 1.5, 1.5)))
    physics = RefocusPhysics(DOMAIN.optics, 0.325, DOMAIN.range_um, torch.zeros(64, 64))
    own = blurs(physics, 5, [0.0]).planes[0]

    def image_of(light: torch.Tensor) -> torch.Tensor:
        seen = torch.fft.irfft2((stack_spectrum(physics, light) * own).sum(0), physics.padded)
        return physics.inner(seen)

    image = image_of(truth)
    physics = RefocusPhysics(DOMAIN.optics, 0.325, DOMAIN.range_um, image)
    found = 0.3 * truth  # the right places, far too dim
    better = explaining(physics, found)
    away = [float((image_of(v) - image).abs().mean()) for v in (found, better)]
    assert away[1] < 0.7 * away[0]
    assert float((better - truth).abs().sum()) < 0.8 * float((found - truth).abs().sum())
    assert float(better[2].abs().max()) == 0  # what is dark stays dark
    assert explaining(physics, found, rounds=0) is found
