"""LFMNet, profile "modern": shapes, what it sees, tiles, and refocusing as its start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.networks.lenslet_net import EpipolarConvolution, LensletNet
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.optics.projector import Geometry, LensletProjector, Plane
from napari_lfm.optics.psf import CellOptics

SMALL: dict[str, Any] = {"width": 4, "lenslet_width": 6, "blocks": 1, "angular": 2}


def random_net(
    n: int = 3, depths: int = 2, s: int = 2, slopes: tuple[float, ...] = (-0.9, 0.6)
) -> LensletNet:
    """A network in which nothing is zero: everything that it can see changes its answer."""
    torch.manual_seed(4)
    net = LensletNet(n, depths, s, slopes, **SMALL)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.15 if parameter.ndim > 1 else 0.01)
    return net.eval()


@pytest.mark.parametrize(("n", "depths", "s"), [(3, 2, 1), (5, 4, 3), (7, 1, 5)])
@pytest.mark.parametrize("cells", [(4, 4), (5, 7), (1, 2)])
def test_a_volume_has_the_voxels_that_were_asked_for(
    n: int, depths: int, s: int, cells: tuple[int, int]
) -> None:
    net = LensletNet(n, depths, s, (0.0,), **SMALL)
    rows, columns = cells
    out = net.volume_of(torch.rand(2, rows * n, columns * n))
    assert out.shape == (2, depths, rows * s, columns * s)
    assert torch.isfinite(out).all()
    assert (net.n_pixels, net.depths, net.voxels_per_lenslet) == (n, depths, s)


@pytest.mark.parametrize("shape", [(2, 10, 9), (9, 9), (1, 9, 8)])
def test_images_that_hold_no_whole_lenslets_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="whole lenslets of 3 px"):
        random_net().volume_of(torch.zeros(shape))


def test_it_needs_a_slope() -> None:
    with pytest.raises(ValueError, match="at least one plane"):
        LensletNet(3, 2, 2, ())


def test_a_tile_equals_its_part_of_the_whole_image() -> None:
    net = random_net()
    reach, step, n, s = net.reach_lenslets, net.tile_step_lenslets, 3, 2
    edge = -(-reach // step) * step
    rows, columns = 2 * edge + 2 * step + 3, 6
    image = torch.rand(1, rows * n, columns * n)
    with torch.no_grad():
        whole = net.volume_of(image)
        start, stop = step, step + 2 * edge + step
        tile = net.volume_of(image[:, start * n : stop * n])
        cut = net.volume_of(image[:, (start + edge) * n :])[:, :, : step * s]
    kept = tile[:, :, edge * s : (edge + step) * s]
    wanted = whole[:, :, (start + edge) * s : (start + edge + step) * s]
    assert float(wanted.std()) > 0
    torch.testing.assert_close(kept, wanted, atol=1e-5 * float(whole.abs().max()), rtol=0)
    # and a tile that is cut nearer than that feels its edge
    assert float((cut - wanted).abs().max()) > 1e-3 * float(whole.abs().max())


@pytest.mark.parametrize("slopes", [(0.0,), (-0.9, 0.6), (7.0,)])
def test_no_pixel_beyond_its_reach_changes_a_voxel(slopes: tuple[float, ...]) -> None:
    net = random_net(slopes=slopes).double()
    n, s, reach = 3, 2, net.reach_lenslets
    cells = 2 * reach + 9
    # nothing before or behind the middle may come from the edge's padding
    image = torch.rand(1, 3 * n, cells * n, dtype=torch.float64, requires_grad=True)
    middle = cells // 2
    seen = torch.zeros(cells)
    for voxel in range(middle * s, (middle + 1) * s):
        (gradient,) = torch.autograd.grad(net.volume_of(image)[..., voxel].sum(), image)
        seen += gradient.abs().reshape(3, n, cells, n).sum((0, 1, 3)).float()
    support = torch.nonzero(seen).flatten()
    assert int(support.min()) >= middle - reach
    assert int(support.max()) <= middle + reach
    # not more than a few lenslets too careful: what is given away is computed in every tile
    assert max(middle - int(support.min()), int(support.max()) - middle) >= reach - net.tile_step_lenslets - 1


# -- refocusing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def microscope() -> Microscope:
    return Microscope(
        name="refocus",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
        sample_index=1.0,
    )


@pytest.mark.parametrize("z_um", [-36.0, 36.0])
def test_the_refocusing_layer_puts_a_bead_at_its_plane_and_place(microscope: Microscope, z_um: float) -> None:
    n, s, cells, voxel = 9, 3, 11, (19, 13)
    depths = [-36.0, -18.0, 0.0, 18.0, 36.0]
    plane = Plane(z_um, (s, s))
    geometry = Geometry.plan(CellOptics.of(microscope, n), [plane], (cells, cells), margin=(0, 0))
    volume = torch.zeros(1, 1, cells * s, cells * s)
    volume[0, 0, voxel[0], voxel[1]] = 1.0
    image = LensletProjector.build(geometry, use_cache=False).forward(volume)

    layer = EpipolarConvolution(n, [slope_at_depth(z, microscope, None, n) for z in depths], s)
    found = layer(image)[0].detach().numpy()
    assert found.shape == (len(depths), cells * s, cells * s)
    peak = np.unravel_index(found.argmax(), found.shape)
    assert depths[peak[0]] == z_um  # the other sign would be the mirrored plane
    assert abs(int(peak[1]) - voxel[0]) <= 1
    assert abs(int(peak[2]) - voxel[1]) <= 1
    # sharper than anywhere else
    brightest = found.max((1, 2))
    assert brightest[depths.index(z_um)] > 1.5 * brightest[depths.index(-z_um)]


def test_refocusing_an_even_image_gives_an_even_volume() -> None:
    n, s = 5, 3
    layer = EpipolarConvolution(n, [0.3, 0.0, -0.4], s, aperture=0.5)
    out = layer(torch.ones(1, 9 * n, 9 * n))[0]
    inner = out[:, layer.reach * s : -layer.reach * s, layer.reach * s : -layer.reach * s]
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_a_quarter_turn_of_the_light_field_turns_the_refocused_volume() -> None:
    # both axes are treated alike, and views turn with the lenslets
    n, s = 5, 2
    layer = EpipolarConvolution(n, [0.4, -0.2], s)
    image = torch.rand(1, 6 * n, 6 * n)
    torch.testing.assert_close(layer(image.mT), layer(image).mT)
    torch.testing.assert_close(layer(image.rot90(1, (1, 2))), layer(image).rot90(1, (2, 3)))


def test_a_frame_goes_on_like_its_edge() -> None:
    """A dark continuation is a sharp edge in a hazy frame: the network drew bright borders there."""
    net, n, s, step = random_net(), 3, 2, LensletNet.tile_step_lenslets
    image = 0.5 + torch.rand(1, (step + 1) * n, (step + 2) * n)
    more = image
    for dim, missing in ((1, step - 1), (2, step - 2)):
        more = torch.cat([more, *[more.narrow(dim, more.shape[dim] - n, n)] * missing], dim)
    with torch.no_grad():
        out, longer = net.volume_of(image), net.volume_of(more)
    torch.testing.assert_close(out, longer[..., : (step + 1) * s, : (step + 2) * s])


def test_a_start_of_another_size_is_refused() -> None:
    n, s = 5, 3
    net = LensletNet(n, 2, s, [-0.1, 0.1], width=4, lenslet_width=6, start_voxels=2, start_noise=[1.0, 0.1])
    image = torch.rand(1, 6 * n, 5 * n)
    start = torch.rand(1, 4, 12, 10)
    assert net.start_channels == 4
    assert net.volume_of(image, start).shape == (1, 2, 6 * s, 5 * s)
    with pytest.raises(ValueError, match=r"the start is none, but should be \(1, 4, 12, 10\)"):
        net.volume_of(image)
    with pytest.raises(ValueError, match=r"should be \(1, 4, 12, 10\)"):
        net.volume_of(image, start[:, :2])
    plain = LensletNet(n, 2, s, [0.1], width=4, lenslet_width=6)
    with pytest.raises(ValueError, match="should be none"):
        plain.volume_of(image, start)
    with pytest.raises(ValueError, match="needs its voxels"):
        LensletNet(n, 2, s, [0.1], start_voxels=2)
    for voxels, noise, reason in (
        (40, [1.0], "none for this"),
        (-1, [], "none for this"),
        (2, [0.0], "above 0"),
    ):
        with pytest.raises(ValueError, match=reason):
            LensletNet(n, 2, s, [0.1], start_voxels=voxels, start_noise=noise)
    for more, reason in (
        ({"start_iterations": [0]}, "1 to 100"),
        ({"start_iterations": [4, 1000]}, "1 to 100"),
        ({"start_iterations": [4], "start_noise": [1.0]}, "regularisations or iterations"),
    ):
        with pytest.raises(ValueError, match=reason):
            LensletNet(n, 2, s, [0.1], start_voxels=2, **more)
    iterated = LensletNet(n, 2, s, [0.1], width=4, lenslet_width=6, start_voxels=2, start_iterations=[4, 16])
    assert iterated.volume_of(image, start).shape == (1, 2, 6 * s, 5 * s)


def test_a_start_of_odd_ratio_fits_every_frame() -> None:
    net = LensletNet(3, 1, 13, [0.1], width=2, lenslet_width=2, start_voxels=3, start_noise=[1.0])
    assert net.volume_of(torch.rand(1, 3, 36 * 3), torch.rand(1, 1, 3, 36 * 3)).shape == (1, 1, 13, 36 * 13)


def test_a_start_is_scaled_and_goes_straight_to_the_volume() -> None:
    net = LensletNet(3, 2, 2, [0.1], width=4, lenslet_width=6, start_voxels=2, start_noise=[1.0, 0.1])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.get_buffer("start_scale").copy_(torch.tensor([2.0, 4.0]))
        net.straight[0] = torch.tensor([1.0, 3.0])
    start = torch.rand(1, 4, 10, 14)
    found = net.volume_of(torch.rand(1, 15, 21), start)
    torch.testing.assert_close(found, start[:, :2] / 2 * torch.tensor([1.0, 3.0]).reshape(2, 1, 1))
