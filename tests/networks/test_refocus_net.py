"""The modern network of virtual refocusing, the physics that it is shown, and the rendering of planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks.refocus import CONDITIONS, RefocusNet, conditions
from napari_lfm.networks.refocus_physics import RefocusPhysics, mirrored, reblur_planes
from napari_lfm.networks.refocus_render import blurs, plane_z_um, rendered, stack_spectrum, unexplained
from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_scenes import bead_field
from napari_lfm.simulation.focal_stacks import FocalSettings, FocalStack, focal_stack

OPTICS = DefocusOptics()
PIXEL = 0.325


@pytest.fixture(scope="module")
def beads() -> FocalStack:
    return focal_stack(FocalSettings(shape=(41, 96, 96), step_um=0.5, beyond=0), OPTICS, 2, bead_field)


def test_parameters_of_the_shipped_size() -> None:
    assert sum(p.numel() for p in RefocusNet().parameters()) < 2_500_000


def test_gives_all_planes_at_once() -> None:
    torch.manual_seed(0)
    net = RefocusNet(widths=(4, 6, 8), planes=5, depth_widths=(8, 8)).eval()
    image = torch.rand(48, 64)
    sweep = RefocusPhysics(OPTICS, PIXEL, 4.0, image).sweep(5)
    assert sweep.careful.shape == sweep.bold.shape == (5, 48, 64) and sweep.matched.shape == (5, 24, 32)
    one, other = (conditions(5, 4.0, 0.67, blur, 1.7, 0.9) for blur in (4.1, 6.0))
    assert one.shape == (5, CONDITIONS)
    made, log_shares = net(image, one, sweep)
    assert made.shape == (5, 48, 64)
    assert log_shares is not None and log_shares.shape == (5, 6, 8)
    torch.testing.assert_close(log_shares.exp().sum(0), torch.ones(6, 8))
    # it is told the optics
    assert (made - net(image, other, sweep)[0]).abs().max() > 1e-6


def test_begins_with_the_estimates_in_their_shares() -> None:
    """Before it has learned to mend, a plane is its estimate, as far as the light is said to come from it."""
    torch.manual_seed(0)
    net = RefocusNet(widths=(4, 6), planes=5, depth_widths=(8, 8)).eval()
    image = torch.rand(32, 32)
    sweep = RefocusPhysics(OPTICS, PIXEL, 4.0, image).sweep(5)
    told = conditions(5, 4.0, 0.67, 4.1, 1.7, 0.9)
    certain = torch.full((5, 4, 4), -30.0)
    certain[3] = 0.0
    made = net.mended(image, told, sweep, certain)
    assert np.corrcoef(made[3].detach().flatten(), sweep.careful[3].flatten())[0, 1] > 0.8
    assert float(made[[0, 1, 2, 4]].detach().abs().mean()) < 0.3 * float(made[3].detach().abs().mean())


def test_works_without_the_sweep() -> None:
    net = RefocusNet(widths=(4, 6), planes=3, sweep=False)
    roots, shares = net(torch.rand(16, 16), conditions(3, 4.0, 0.67, 4.1, 1.7, 0.9))
    assert roots.shape == (3, 16, 16) and shares is None


@pytest.mark.parametrize("bad", [{"widths": (4,)}, {"planes": 4}, {"planes": 1}])
def test_refuses_no_network(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        RefocusNet(**bad)  # type: ignore[arg-type]


def test_mirrored_goes_on_for_ever() -> None:
    line = torch.arange(3)[mirrored(3, 14, 5)]
    assert line[5:8].tolist() == [0, 1, 2]
    assert line[8:11].tolist() == line[2:5].tolist() == [2, 1, 0]


def point(size: int = 96) -> torch.Tensor:
    image = torch.zeros(size, size)
    image[48, 40] = 1.0
    return image


def defocused(z_um: float) -> torch.Tensor:
    """Return a point that lies z from the plane of its image."""
    physics = RefocusPhysics(OPTICS, PIXEL, 10.0, point(), margin_px=0)
    out: torch.Tensor = torch.fft.irfft2(physics.spectrum * physics.transfer([-z_um])[0], (96, 96))
    return out


def test_wiener_undoes_the_known_blur() -> None:
    """A point, blurred by 4 um of defocus, comes back to a point; from the other side it does not."""
    blurred = defocused(4.0)
    made = RefocusPhysics(OPTICS, PIXEL, 4.0, blurred).sweep(3).careful
    assert made.shape == (3, 96, 96)
    right, wrong = made[2], made[0]
    assert right.argmax() == 48 * 96 + 40
    assert right.max() > 5 * blurred.max() and right.max() > 2 * wrong.max()


@pytest.mark.parametrize("z_um", [-4.0, 0.0, 4.0])
def test_the_sweep_is_sharp_where_the_object_is(z_um: float) -> None:
    sweep = RefocusPhysics(OPTICS, PIXEL, 8.0, defocused(z_um), margin_px=0).sweep(9)
    sharp, coarse = sweep.careful, sweep.matched
    assert int(sharp.flatten(1).max(1).values.argmax()) == 4 + round(z_um / 2)
    best = coarse[4 + round(z_um / 2)]
    assert int(best.argmax()) in {row * 48 + 20 for row in (23, 24)} | {row * 48 + 19 for row in (23, 24)}


def test_the_confocal_stack_gives_back_the_image(beads: FocalStack) -> None:
    """The consistency's operator: true confocal planes, blurred, are the true wide-field image."""
    z = plane_z_um(41, 10.0)
    planes = reblur_planes(OPTICS, 10.0, z, (96, 96), PIXEL)
    seen = torch.fft.irfft2((torch.fft.rfft2(beads.confocal) * planes).sum(0), (96, 96))
    seen = seen * (0.5 / OPTICS.depth_of_field_um)
    wanted = beads.widefield[20]
    assert np.corrcoef(seen.flatten(), wanted.flatten())[0, 1] > 0.98
    assert float((seen * wanted).sum() / (wanted**2).sum()) == pytest.approx(1.0, abs=0.1)


def test_wide_field_planes_are_rendered_from_the_confocal_stack(beads: FocalStack) -> None:
    """Of the true confocal stack the renderer makes the true planes; of none, the image, blurred with z."""
    physics = RefocusPhysics(OPTICS, PIXEL, 10.0, beads.widefield[20], margin_px=0)
    spectrum = stack_spectrum(physics, beads.confocal)
    own, wanted = blurs(physics, 41, [0.0]), blurs(physics, 41, [-6.0, 0.0, 4.5])
    made = rendered(physics, spectrum, unexplained(physics, spectrum, own), wanted)
    for k, plane in enumerate((8, 20, 29)):
        truth = beads.widefield[plane]
        assert np.corrcoef(made[k].flatten(), truth.flatten())[0, 1] > 0.97
    # the image's own plane is the image, whatever the stack explains of it
    nothing = torch.zeros_like(spectrum)
    empty = rendered(physics, nothing, unexplained(physics, nothing, own), wanted)
    for found in (made[1], empty[1]):
        torch.testing.assert_close(found, beads.widefield[20], rtol=1e-3, atol=1e-6)
    assert float(empty[0].std()) < 0.5 * float(empty[1].std())
