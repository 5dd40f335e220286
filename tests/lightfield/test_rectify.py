"""Rectification: exact where it can be, counts kept, noise propagated, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.grid import cell_grid
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.lightfield.rectify import from_lenslet_image, from_vuts, rectify, unrectify

SHAPE = (170, 190)


def _lattice(**changes: Any) -> Lattice:
    fields: dict[str, Any] = {
        "origin_px": (14.2, 12.6),
        "row_step_px": (15.4, -0.3),
        "column_step_px": (0.3, 15.4),
        "rows": 9,
        "columns": 11,
        "image_shape": SHAPE,
    }
    return Lattice(**{**fields, **changes})


SQUARE = _lattice()
INTEGER = _lattice(origin_px=(12.0, 9.0), row_step_px=(15.0, 0.0), column_step_px=(0.0, 15.0))
HEXAGONAL = _lattice(kind="hexagonal", row_step_px=(13.33679, -0.2598))
BENT = _lattice(distortion=((0.8, 0, 0, 0, 0, 0, -0.5), (0, 0, 0.7, 0.4, 0, 0, 0)))


def _smooth(seed: int = 0, sigma: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(seed).random(SHAPE)
    out = ndimage.gaussian_filter(noise, sigma)
    return np.asarray((out - out.min()) / (out.max() - out.min()) * 1000, np.float32)


def test_an_integer_lattice_is_sliced_exactly() -> None:
    raw = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
    out = rectify(raw, INTEGER, 15, hot_pixel_sigma=None)
    np.testing.assert_array_equal(out.image[0], raw[5 : 5 + 135, 2 : 2 + 165].astype(np.float32))
    np.testing.assert_array_equal(out.variance_factor, 1.0)
    assert out.image.dtype == np.float32
    assert out.grid.is_slice
    np.testing.assert_array_equal(out.affine_px, [[1, 0, 5], [0, 1, 2], [0, 0, 1]])
    back = unrectify(out.image, out, fill=-1)
    np.testing.assert_array_equal(back[0, 5:140, 2:167], raw[5:140, 2:167])
    assert (back[0, 0] == -1).all()


def test_a_nearly_integer_lattice_is_sliced_like_its_regions() -> None:
    near = INTEGER.model_copy(update={"origin_px": (12.06, 8.95), "column_step_px": (0.003, 15.006)})
    raw = _smooth()
    whole = rectify(raw, near, 15)
    assert whole.grid.is_slice
    part = rectify(raw, near, 15, region_px=(60, 60, 90, 90))
    rows, cols = (slice(f * 15, (f + c) * 15) for f, c in zip(part.first_cell, part.cells, strict=True))
    np.testing.assert_array_equal(part.image[0], whole.image[0, rows, cols])
    shifted = INTEGER.model_copy(update={"origin_px": (12.4, 9.0)})
    assert not cell_grid(shifted, 15).is_slice


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("lattice", [SQUARE, HEXAGONAL, BENT], ids=["square", "hexagonal", "bent"])
def test_a_plane_is_sampled_exactly(lattice: Lattice, interpolation: Any) -> None:
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    out = rectify(100 + 2.0 * y - 0.5 * x, lattice, 15, interpolation=interpolation)
    place = out.grid.raw_positions()
    inner = ((place > 1) & (place < np.array(SHAPE) - 2)).all(axis=-1)
    assert inner.mean() > 0.9
    expected = (100 + 2.0 * place[..., 0] - 0.5 * place[..., 1]) * out.grid.area_px
    np.testing.assert_allclose(out.image[0][inner], expected[inner], rtol=1e-5)


def test_lenslet_centres_become_cell_centres() -> None:
    for lattice in (SQUARE, BENT, HEXAGONAL):
        grid = cell_grid(lattice, 15)
        ny, nx = grid.cell_px
        middles = grid.raw_positions()[(ny - 1) // 2 :: ny, (nx - 1) // 2 :: nx]
        step = 2 if lattice.kind == "hexagonal" else 1
        np.testing.assert_allclose(middles, lattice.centres_px()[::step], atol=1e-9)


def test_hexagonal_cells_are_odd_rectangles() -> None:
    grid = cell_grid(HEXAGONAL, 15)
    assert grid.cell_px == (25, 15)  # nearest odd to 15 sqrt(3) = 25.98
    assert grid.cells == (5, 11)  # one cell per even row


@pytest.mark.parametrize("lattice", [SQUARE, BENT], ids=["square", "bent"])
def test_counts_are_kept(lattice: Lattice) -> None:
    raw = np.zeros(SHAPE, np.float32)
    raw[40:110, 45:120] = _smooth(1)[40:110, 45:120]
    out = rectify(raw, lattice, 15, hot_pixel_sigma=None)
    assert out.image.sum() == pytest.approx(raw.sum(), rel=5e-3)
    assert unrectify(out.image, out).sum() == pytest.approx(raw.sum(), rel=5e-3)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_variance_factor_is_that_of_real_noise(interpolation: Any) -> None:
    noise = np.random.default_rng(2).normal(0, 3, (600, *SHAPE)).astype(np.float32)
    out = rectify(noise, SQUARE, 15, hot_pixel_sigma=None, interpolation=interpolation)
    measured = out.image.var(axis=0) / 9
    assert measured.mean() == pytest.approx(out.variance_factor.mean(), rel=0.01)
    assert np.corrcoef(measured.ravel(), out.variance_factor.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("lattice", [SQUARE, HEXAGONAL, BENT], ids=["square", "hexagonal", "bent"])
def test_way_back_to_the_raw_frame(lattice: Lattice) -> None:
    raw = _smooth(3)
    out = rectify(raw, lattice, 15)
    back = unrectify(out.image[0], out, fill=np.nan)
    assert back.shape == SHAPE
    inner = np.isfinite(back)
    inner = ndimage.binary_erosion(inner, iterations=3)
    assert inner.mean() > 0.6
    assert np.abs(back - raw)[inner].max() < 0.03 * np.ptp(raw)
    movie = unrectify(np.stack([out.image[0], 2 * out.image[0]]), out)
    np.testing.assert_allclose(movie[1], 2 * movie[0], rtol=1e-5)


def test_dark_is_subtracted_without_clipping() -> None:
    raw, dark = np.full(SHAPE, 90, np.uint16), np.full((3, *SHAPE), 100, np.uint16)
    out = rectify(raw, INTEGER, 15, dark=dark)
    np.testing.assert_array_equal(out.image, -10.0)


def test_hot_pixels_of_the_dark_frame_are_replaced() -> None:
    random = np.random.default_rng(0)
    dark = random.normal(100, 3, SHAPE).astype(np.float32)
    hot = np.array([[30, 40], [77, 81], [78, 81], [0, 0]])
    dark[tuple(hot.T)] += 400
    raw = _smooth() + dark
    out = rectify(raw, INTEGER, 15, dark=dark)
    assert out.hot_pixel_count == 4
    assert {tuple(p) for p in out.hot_pixels} == {tuple(p) for p in hot}
    clean = rectify(_smooth(), INTEGER, 15).image[0]
    assert np.abs(out.image[0] - clean)[~out.mask].max() < 60
    assert (~out.mask).sum() == 3  # the fourth is outside the lenslets


def test_hot_pixels_are_found_in_the_light_field_itself(frame_of: Any) -> None:
    frame = frame_of(shape=SHAPE, pitch=15.4)
    raw = frame.raw().astype(np.float32)
    assert rectify(raw, SQUARE, 15).hot_pixel_count == 0  # a bright specimen is none
    raw[90, 100] += 9000
    out = rectify(np.stack([raw] * 3), SQUARE, 15)
    assert out.hot_pixels.tolist() == [[90, 100]]
    assert out.image.max() < 8000
    offset = np.full(SHAPE, 100.0, np.float32)  # no dark frame: a constant hides nothing
    assert rectify(raw, SQUARE, 15, dark=offset).hot_pixels.tolist() == [[90, 100]]
    assert rectify(raw, SQUARE, 15, hot_pixel_sigma=None).hot_pixel_count == 0


@pytest.mark.parametrize("lattice", [SQUARE, HEXAGONAL], ids=["square", "hexagonal"])
def test_a_region_is_a_crop_of_the_whole(lattice: Lattice) -> None:
    raw = _smooth()
    whole = rectify(raw, lattice, 15)
    part = rectify(raw, lattice, 15, region_px=(50.0, 60.0, 80.0, 120.0))
    ny, nx = part.cell_px
    rows = slice(part.first_cell[0] * ny, (part.first_cell[0] + part.cells[0]) * ny)
    cols = slice(part.first_cell[1] * nx, (part.first_cell[1] + part.cells[1]) * nx)
    np.testing.assert_allclose(part.image[0], whole.image[0, rows, cols], rtol=1e-5)
    assert part.image.size < whole.image.size
    # every cell that the rectangle touches is there
    corners = part.grid.rectified_positions(np.array([[50.0, 60.0], [50, 120], [80, 60], [80, 120]]))
    assert (corners >= -0.5).all()
    assert (corners <= np.array(part.grid.shape) - 0.5).all()


def test_a_point_region_is_its_lenslet() -> None:
    centre = SQUARE.centres_px()[4, 6]
    part = rectify(_smooth(), SQUARE, 15, region_px=(*centre, *centre))
    assert (part.cells, part.first_cell) == ((1, 1), (4, 6))


def test_movies_are_the_frames_one_by_one() -> None:
    movie = np.stack([_smooth(k) for k in range(3)])
    together = rectify(xr.DataArray(movie, dims=("t", "y", "x")), SQUARE, 15)
    assert together.image.shape == (3, 135, 165)
    for k in range(3):
        np.testing.assert_allclose(together.image[k], rectify(movie[k], SQUARE, 15).image[0], rtol=1e-5)


def test_lazy_movies_are_read() -> None:
    dask = pytest.importorskip("dask.array")
    movie = np.stack([_smooth(k) for k in range(3)])
    lazy = xr.DataArray(dask.from_array(movie, chunks=(1, *SHAPE)), dims=("t", "y", "x"))
    np.testing.assert_array_equal(rectify(lazy, SQUARE, 15).image, rectify(movie, SQUARE, 15).image)


def test_rectified_layouts_agree() -> None:
    field = np.random.default_rng(0).random((2, 7, 7, 6, 8)).astype(np.float32)
    out = from_vuts(field)
    assert out.cells == (6, 8)
    assert out.cell_px == (7, 7)
    np.testing.assert_array_equal(out.views(1), field[1])
    again = from_lenslet_image(np.pad(out.image, ((0, 0), (0, 3), (0, 2))), 7)
    np.testing.assert_array_equal(again.image, out.image)
    assert again.lattice.source == "nominal"
    assert again.mask.all()


def test_pixels_outside_the_frame_are_masked() -> None:
    outside = _lattice(origin_px=(4.0, 12.6), row_step_px=(15.4, 0.0), column_step_px=(0.0, 15.4))
    out = rectify(_smooth(), outside, 15)
    assert not out.mask[:3].any()
    assert out.mask[3:].all()
    assert (out.image[0][~out.mask] == 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rectify(np.zeros(5), SQUARE, 15), "one frame"),
        (lambda: rectify(np.zeros((3, 3, 3, 3)), SQUARE, 15), "one frame"),
        (lambda: rectify(np.zeros((9, 9)), SQUARE, 15), "lattice was found on one of 170 x 190"),
        (lambda: rectify(np.full(SHAPE, np.nan), SQUARE, 15), "not finite"),
        (lambda: rectify(_smooth(), SQUARE, 14), "odd number"),
        (lambda: rectify(_smooth(), SQUARE, 15, dark=np.zeros((9, 9))), "dark frame is 9 x 9"),
        (lambda: rectify(_smooth(), SQUARE, 15, dark=np.full(SHAPE, np.inf)), "not finite"),
        (lambda: rectify(_smooth(), SQUARE, 15, region_px=(-90, -90, -50, -50)), "does not touch"),
        (lambda: rectify(_smooth(), SQUARE, 15, region_px=(500, 0, 600, 90)), "does not touch"),
        (lambda: from_lenslet_image(np.zeros((60, 200)), 15), "4 x 13 lenslets"),
        (lambda: from_vuts(np.zeros((6, 6, 9, 9))), "odd number"),
        (lambda: from_vuts(np.zeros((7, 5, 9, 9))), "order of the axes"),
        (lambda: unrectify(np.zeros((5, 5)), cell_grid(SQUARE, 15)), "lenslet image is"),
    ],
)
def test_bad_input_is_one_clear_sentence(make: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make()
