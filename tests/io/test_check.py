from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_lfm.core.labelled import labelled
from napari_lfm.io.read import check_pixels, read_image

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
GOOD = RNG.integers(100, 3000, (40, 50)).astype(np.uint16)


def problems(data: np.ndarray, **options: float) -> list[tuple[str, str]]:
    dims = "tyx"[-data.ndim :]
    found = check_pixels(labelled(data, dims, {}), **options)
    assert all(p.remedy and p.field == "image" for p in found)
    return [(p.severity, p.message) for p in found]


def test_good_frames_are_fine() -> None:
    assert problems(GOOD) == []
    assert problems(GOOD.astype(float)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    data = GOOD.astype(np.float32)
    data[3, :5] = bad
    assert problems(data) == [("error", "5 of 2000 pixels (0.25 %) are NaN or infinite.")]


def test_nothing_finite() -> None:
    assert problems(np.full((4, 5), np.nan)) == [("error", "No pixel holds a number (all NaN or infinite).")]


def test_all_zero_and_constant() -> None:
    assert problems(np.zeros((4, 5), np.uint16)) == [("error", "All pixels are zero.")]
    assert problems(np.zeros((4, 5))) == [("error", "All pixels are zero.")]
    assert problems(np.full((4, 5), 7, np.uint16)) == [("error", "All pixels are the same value (7).")]


def test_wholly_saturated_says_so() -> None:
    (problem,) = check_pixels(labelled(np.full((4, 5), 65535, np.uint16), "yx", {}))
    assert problem.severity == "error"
    assert "expose it shorter" in problem.remedy


@pytest.mark.parametrize(
    ("dtype", "level"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095), (np.uint16, 16383)]
)
def test_saturated_pixels_with_their_fraction(dtype: type, level: int) -> None:
    data = np.minimum(GOOD, 200).astype(dtype)
    data[:2] = level
    assert problems(data) == [("warning", f"100 of 2000 pixels (5 %) are saturated (at {level}).")]


def test_the_cameras_own_level_counts() -> None:
    data = np.minimum(GOOD, 2047)
    n = int((data == 2047).sum())
    assert problems(data) == []
    assert problems(data, saturation_level=2047) == [
        ("warning", f"{n} of 2000 pixels ({100 * n / 2000:.2g} %) are saturated (at 2047).")
    ]


def test_one_hot_pixel_is_no_saturation() -> None:
    data = GOOD.copy()
    data[0, 0] = 65535
    assert problems(data) == []


def test_negative() -> None:
    data = GOOD.astype(np.float32)
    data[0, :20] *= -1
    assert problems(data) == [("warning", "20 of 2000 pixels (1 %) are negative.")]
    assert problems(-data - 1) == [("error", "1980 of 2000 pixels (99 %) are negative.")]


@pytest.mark.parametrize(("count", "text"), [(1999, "over 99 %"), (1985, "over 99 %"), (1100, "55 %")])
def test_percentages_are_plain(count: int, text: str) -> None:
    data = np.arange(1, 2001, dtype=np.float32)
    data[:count] *= -1
    assert problems(data.reshape(40, 50)) == [
        ("error", f"{count} of 2000 pixels ({text}) are negative."),
    ]


def test_several_problems_at_once() -> None:
    data = GOOD.astype(np.float32)
    data[0, 0], data[1, 1] = np.nan, -1
    assert [s for s, _ in problems(data)] == ["error", "warning"]


def test_lazy_movie_is_sampled_not_loaded() -> None:
    touched: list[int] = []

    def frame(block: np.ndarray, block_info: dict[int, dict[str, list[tuple[int, int]]]]) -> np.ndarray:
        touched.append(block_info[0]["array-location"][0][0])
        return block

    data = np.broadcast_to(GOOD, (200, 40, 50)).copy()
    data[0, 0, :4] = 65535
    data[199, 0, :6] = 65535
    movie = da.from_array(data, chunks=(1, 40, 50)).map_blocks(frame, dtype=data.dtype, meta=data[:0])
    (problem,) = check_pixels(labelled(movie, "tyx", {}))
    assert "10 of 32000 pixels" in problem.message
    assert len(touched) == 16
    assert {0, 199} <= set(touched)


def test_real_frames(guv: Path) -> None:
    assert check_pixels(read_image(guv / "Lightfield_GUVExperim1.tif", "lightfield")) == []


def test_saturation_is_found_in_a_file(tmp_path: Path) -> None:
    data = np.stack([GOOD] * 5)
    data[2, :4] = 65535
    tifffile.imwrite(tmp_path / "a.tif", data)
    (problem,) = check_pixels(read_image(tmp_path / "a.tif", "lightfield"))
    assert "200 of 10000 pixels (2 %)" in problem.message
