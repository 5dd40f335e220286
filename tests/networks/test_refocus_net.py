"""The modern network of virtual refocusing, and the physics that it is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus import CONDITIONS, RefocusNet, conditions
from napari_lfm.networks.refocus_physics import RefocusPhysics, mirrored, reblur_planes
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_scenes import bead_field
from napari_lfm.simulation.focal_stacks import FocalSettings, focal_stack

OPTICS = DefocusOptics()


@pytest.fixture
def net() -> RefocusNet:
    torch.manual_seed(0)
    return RefocusNet(widths=(4, 6, 8)).eval()


def condition(z: list[float]) -> torch.Tensor:
    return conditions(torch.tensor(z).reshape(-1, 1, 1, 1), 10.0, 0.67, 4.1, 1.7)


def test_parameters_of_the_shipped_size() -> None:
    assert sum(p.numel() for p in RefocusNet().parameters()) < 1_500_000


def test_planes_together_are_the_planes_alone(net: RefocusNet) -> None:
    image, physics = torch.rand(1, 1, 32, 48), torch.rand(3, 3, 32, 48)
    assert condition([0.0]).shape == (1, CONDITIONS, 1, 1)
    encoded = net.encode(image)
    z = [-4.0, 0.0, 7.0]
    together = net.decode(encoded, condition(z), physics)
    assert together.shape == (3, 2, 32, 48)
    for k in range(3):
        alone = net.decode(encoded, condition(z[k : k + 1]), physics[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_a_flat_surface_is_a_plane(net: RefocusNet) -> None:
    image, physics = torch.rand(1, 1, 32, 32), torch.rand(1, 3, 32, 32)
    everywhere = condition([3.0]).expand(1, -1, 16, 16)
    plane = net(image, condition([3.0]), physics)
    torch.testing.assert_close(net(image, everywhere, physics), plane, rtol=1e-4, atol=1e-5)


def test_works_without_physics() -> None:
    net = RefocusNet(widths=(4, 6), physics=0)
    assert net(torch.rand(1, 1, 16, 16), condition([1.0]), None).shape == (1, 2, 16, 16)


def test_refuses_no_network() -> None:
    with pytest.raises(RequestError, match="make no network"):
        RefocusNet(widths=(4,))


def test_mirrored_goes_on_for_ever() -> None:
    line = torch.arange(3)[mirrored(3, 14, 5)]
    assert (
        line[5:8].tolist() == [0, 1, 2]
        and line[8:11].tolist() == [2, 1, 0]
        and line[2:5].tolist() == [2, 1, 0]
    )


def test_wiener_undoes_the_known_blur() -> None:
    """A point, blurred by 4 um of defocus, comes back to a point; from the other side it does not."""
    size, pixel = 96, 0.325
    image = torch.zeros(size, size)
    image[48, 48] = 1.0
    sharp = RefocusPhysics(OPTICS, pixel, 10.0, image, margin_px=0)
    blurred = torch.fft.irfft2(torch.fft.rfft2(image) * sharp.transfer([-4.0])[0], (size, size))
    made = RefocusPhysics(OPTICS, pixel, 10.0, blurred).guesses([4.0, -4.0])
    assert made.shape == (2, 3, size, size)
    right, wrong = made[0, 0], made[1, 0]
    assert right.argmax() == 48 * size + 48
    assert right.max() > 5 * blurred.max() and right.max() > 2 * wrong.max()


def test_the_confocal_stack_gives_back_the_image() -> None:
    """The consistency's operator: true confocal planes, blurred, are the true wide-field image."""
    settings = FocalSettings(shape=(41, 96, 96), step_um=0.5, beyond=0)
    made = focal_stack(settings, OPTICS, 2, bead_field)
    z = (np.arange(41) - 20) * 0.5
    planes = reblur_planes(OPTICS, 10.0, z, (96, 96), settings.pixel_um)
    seen = torch.fft.irfft2((torch.fft.rfft2(made.confocal) * planes).sum(0), (96, 96))
    seen = seen * (settings.step_um / OPTICS.depth_of_field_um)
    wanted = made.widefield[20]
    assert np.corrcoef(seen.flatten(), wanted.flatten())[0, 1] > 0.98
    assert float((seen * wanted).sum() / (wanted**2).sum()) == pytest.approx(1.0, abs=0.1)
