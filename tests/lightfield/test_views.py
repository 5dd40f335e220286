"""Views, epipolar images and refocusing of points whose slope is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from napari_lfm.core.labelled import affine_of
from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.lightfield.rectify import Rectified, from_vuts, rectify
from napari_lfm.lightfield.refocus import Refocuser
from napari_lfm.lightfield.slopes import slope_at_depth
from napari_lfm.lightfield.views import (
    epipolar_image,
    lenslet_affine_px,
    lenslet_image,
    lf4d,
    light_field,
    refocused,
    subaperture_view,
)
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

MBL = load_microscope("mbl-60x1.2w")


def point(
    slope: float, n: int = 9, lenslets: tuple[int, int] = (25, 27), at: Any = (12.0, 13.0)
) -> np.ndarray:
    """Views of a blurred point whose position moves by `slope` lenslets per view."""
    v = np.arange(n) - (n - 1) / 2
    t, s = np.arange(lenslets[0]), np.arange(lenslets[1])
    dt = t - at[0] - slope * v[:, None]
    ds = s - at[1] - slope * v[:, None]
    along_t, along_s = (np.exp(-(d**2) / (2 * 1.4**2)) for d in (dt, ds))
    return np.asarray(np.einsum("vt,us->vuts", along_t, along_s), np.float32)


@pytest.mark.parametrize("slope", [-0.45, -0.1, 0.0, 0.23, 0.5])
def test_refocusing_is_sharpest_at_the_points_own_slope(slope: float) -> None:
    refocuser = Refocuser(point(slope), max_slope=0.8)
    tried = np.linspace(-0.8, 0.8, 65)
    sharpness = [float((refocuser.refocus(k) ** 2).sum()) for k in tried]
    assert tried[int(np.argmax(sharpness))] == pytest.approx(slope, abs=0.03)
    sharp = refocuser.refocus(slope)
    np.testing.assert_allclose(sharp, point(0.0)[4, 4], atol=2e-3)


def test_refocusing_keeps_the_light() -> None:
    field = point(0.3)
    refocuser = Refocuser(field, max_slope=0.6)
    for slope in (-0.5, 0.0, 0.3):
        assert refocuser.refocus(slope).sum() == pytest.approx(field.sum() / 81, rel=2e-3)


def test_refocusing_at_slope_zero_is_the_mean_view() -> None:
    field = np.random.default_rng(0).random((5, 5, 12, 15)).astype(np.float32)
    np.testing.assert_allclose(Refocuser(field).refocus(0.0), field.mean((0, 1)), atol=1e-6)


def test_refocusing_is_shift_and_sum() -> None:
    """Against splines in space, on smooth views."""
    field = point(0.3, at=(11.3, 12.8))
    total = np.zeros(field.shape[2:])
    t, s = np.mgrid[0:25, 0:27]
    for v in range(9):
        for u in range(9):
            shift = 0.2 * (v - 4), 0.2 * (u - 4)
            total += ndimage.map_coordinates(field[v, u], [t + shift[0], s + shift[1]], order=3)
    np.testing.assert_allclose(Refocuser(field).refocus(0.2), total / 81, atol=5e-3)


def test_upsampled_refocusing_keeps_place_and_scale() -> None:
    refocuser = Refocuser(point(0.3, at=(11.0, 14.0)), max_slope=0.5)
    fine = refocuser.refocus(0.3, upsample=3)
    assert fine.shape == (75, 81)
    assert np.unravel_index(fine.argmax(), fine.shape) == (34, 43)  # 3 * 11 + 1, 3 * 14 + 1
    assert fine.sum() / 9 == pytest.approx(refocuser.refocus(0.3).sum(), rel=5e-3)
    flat = Refocuser(np.ones((3, 3, 8, 9), np.float32)).refocus(0.2, upsample=2)
    np.testing.assert_allclose(flat, 1.0, atol=1e-4)


def test_upsampling_interleaves_samples() -> None:
    """Views shifted by a third of a lenslet each together resolve stripes finer than a lenslet."""
    n, k = 9, 3
    v = np.arange(n) - (n - 1) / 2
    s = np.arange(30)
    stripes = 1 + np.cos(2 * np.pi * 0.9 * (s[None] - v[:, None] / k))  # 0.9 per lenslet: above Nyquist
    field = np.broadcast_to(stripes[None, :, None, :], (n, n, 30, 30)).astype(np.float32)
    fine = Refocuser(field, max_slope=0.4).refocus(1 / k, upsample=k)
    middle = fine[45, 20:70]
    spectrum = np.abs(np.fft.rfft(middle - middle.mean()))
    assert np.fft.rfftfreq(50)[spectrum.argmax()] == pytest.approx(0.9 / k, abs=0.02)


def test_views_are_blended_between_pixels() -> None:
    field = np.random.default_rng(0).random((5, 5, 6, 7)).astype(np.float32)
    refocuser = Refocuser(field)
    np.testing.assert_array_equal(refocuser.view(1, 3), field[1, 3])
    np.testing.assert_allclose(refocuser.view(1.25, 3), 0.75 * field[1, 3] + 0.25 * field[2, 3], rtol=1e-6)
    np.testing.assert_array_equal(refocuser.view(99, -3), field[4, 0])


def test_weights_choose_views() -> None:
    field = np.random.default_rng(0).random((3, 3, 8, 8)).astype(np.float32)
    only = np.zeros((3, 3))
    only[1, 1] = 2.0
    np.testing.assert_allclose(Refocuser(field).refocus(0.4, weights=only), field[1, 1], atol=1e-6)


def test_lenslet_image_and_views_are_inverse() -> None:
    field = np.random.default_rng(0).random((7, 7, 6, 8)).astype(np.float32)
    image = lenslet_image(field)
    assert image[2 * 7 + 3, 5 * 7 + 1] == field[3, 1, 2, 5]
    np.testing.assert_array_equal(lf4d(from_vuts(field)), field)
    np.testing.assert_array_equal(from_vuts(field).image[0], image)


def _rotated() -> tuple[Lattice, Rectified]:
    lattice = Lattice(
        origin_px=(14.2, 12.6),
        row_step_px=(15.4, -0.5),
        column_step_px=(0.5, 15.4),
        rows=8,
        columns=10,
        image_shape=(160, 190),
    )
    y, x = np.mgrid[0:160, 0:190]
    return lattice, rectify(100.0 + 3 * y + x, lattice, 15)


def test_views_know_where_they_are() -> None:
    lattice, rectified = _rotated()
    view = subaperture_view(rectified, MBL)
    assert view.dims == ("y", "x")
    assert view.coords["y"].attrs["units"] == "um"
    world = affine_of(view) @ [3, 5, 1]
    np.testing.assert_allclose(world[:2], lattice.centres_px()[3, 5] * MBL.object_pixel_um, rtol=1e-9)
    expected = (
        100 + 3 * lattice.centres_px()[..., 0] + lattice.centres_px()[..., 1]
    ) * rectified.grid.area_px
    np.testing.assert_allclose(view.values, expected, rtol=1e-5)


def test_light_field_is_labelled() -> None:
    _, rectified = _rotated()
    field = light_field(rectified, MBL)
    assert field.dims == ("v", "u", "t", "s")
    assert field.coords["u"].values.tolist() == list(range(-7, 8))
    assert field.coords["s"].attrs["units"] == "um"
    assert field.sel(v=0, u=0).equals(field.isel(v=7, u=7))


def test_upsampled_refocusing_knows_where_it_is() -> None:
    lattice, rectified = _rotated()
    fine = refocused(rectified, MBL, slope=0.0, upsample=3)
    world = affine_of(fine) @ [3 * 4 + 1, 3 * 2 + 1, 1]
    np.testing.assert_allclose(world[:2], lattice.centres_px()[4, 2] * MBL.object_pixel_um, rtol=1e-9)


def test_epipolar_lines_have_the_points_slope() -> None:
    slope = slope_at_depth(3.0, MBL)
    assert slope < 0  # towards the objective: +u sees the point at smaller s
    rectified = from_vuts(point(slope, n=15, lenslets=(25, 25), at=(12, 12)))
    for image in (epipolar_image(rectified, MBL, t=12), epipolar_image(rectified, MBL, s=12)):
        view, lenslet = image.dims
        peak = (image.values * np.arange(25)).sum(1) / image.values.sum(1)
        fitted = np.polyfit(image.coords[view].values, peak, 1)[0]
        assert fitted == pytest.approx(slope, rel=0.02)
        assert (view, lenslet) in {("u", "s"), ("v", "t")}


def test_refocusing_by_depth_finds_the_point() -> None:
    rectified = from_vuts(point(slope_at_depth(3.0, MBL), n=15))
    depths = np.arange(-5, 6.0)
    sharpness = [float((refocused(rectified, MBL, z_um=z).values ** 2).sum()) for z in depths]
    assert depths[int(np.argmax(sharpness))] == 3.0


def test_real_neuron_refocuses_at_the_slope_of_its_depth(shared_data: Path) -> None:
    """Views of a real neuron at stage depths 0 and 24 um; depth to slope without any fitted figure."""
    record = np.load(shared_data / "neurons-digitised" / "views_0um_24um.npz")
    imperial = load_microscope("imperial-25x1.0w")
    tried = np.linspace(-0.8, 0.8, 65)
    for depth, field in zip(record["stage_depth_um"], record["foreground"].astype(float), strict=True):
        refocuser = Refocuser(field - np.median(field, axis=(2, 3), keepdims=True), max_slope=0.8)
        sharpness = [float((refocuser.refocus(k) ** 2).sum()) for k in tried]
        best = tried[int(np.argmax(sharpness))]
        assert best == pytest.approx(slope_at_depth(depth, imperial, view_range=5, n_pixels=19), abs=0.04)


def test_hexagonal_views_are_on_a_square_grid() -> None:
    lattice = Lattice(
        kind="hexagonal",
        origin_px=(14.0, 13.0),
        row_step_px=(13.0, 0.0),
        column_step_px=(0.0, 15.0111),
        rows=12,
        columns=10,
        image_shape=(180, 190),
    )
    y, x = np.mgrid[0:180, 0:190]
    rectified = rectify(50.0 + 2 * y + x, lattice, 15)
    field = lf4d(rectified)
    assert field.shape == (15, 15, 10, 10)
    affine = lenslet_affine_px(rectified)
    np.testing.assert_allclose(affine[:2, :2], [[15.0111, 0], [0, 15.0111]], atol=2e-4)
    t, s = np.mgrid[1:9, 1:9]
    place = np.stack([t, s, np.ones_like(t)], -1) @ affine.T
    # a pixel's offset behind its lenslet is a 15th of the pitch
    for v, u in ((7, 7), (3, 10), (12, 5)):
        offset = np.array([v - 7, u - 7]) * 15.0111 / 15
        expected = 50 + 2 * (place[..., 0] + offset[0]) + place[..., 1] + offset[1]
        np.testing.assert_allclose(field[v, u, 1:9, 1:9], expected * rectified.grid.area_px, rtol=2e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda r: subaperture_view(r, MBL, v=15), "no view"),
        (lambda r: epipolar_image(r, MBL), "Give one"),
        (lambda r: epipolar_image(r, MBL, t=1, s=1), "Give one"),
        (lambda r: epipolar_image(r, MBL, t=99), "no lenslet t = 99"),
        (lambda r: refocused(r, MBL), "Give one"),
        (lambda r: Refocuser(np.zeros((3, 3, 3))), "not shape"),
    ],
)
def test_bad_input_is_one_clear_sentence(make: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make(_rotated()[1])
