"""White frames that are none: saturated, dark, or swapped with the light field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.calibrate import calibrate
from napari_lfm.lightfield.white import check_white

if TYPE_CHECKING:
    from pathlib import Path


def _dark(frame: Any, hot: int = 0) -> np.ndarray:
    random = np.random.default_rng(5)
    dark = random.normal(100, 2, frame.shape)
    dark[random.integers(0, frame.shape[0], hot), random.integers(0, frame.shape[1], hot)] = 20_000
    return dark.round().astype(np.uint16)


@pytest.mark.parametrize("haze", [0.02, 0.5, 5.0])
@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"pitch": 4.2, "shape": (150, 160)},
        {"pitch": 40.0},
        {"kind": "hexagonal"},
        {"dust": 0.15},
        {"corner": 0.9},
        {"photons": 40.0},
    ],
    ids=str,
)
def test_genuine_frames_raise_no_alarm(frame_of: Any, setting: dict[str, Any], haze: float) -> None:
    frame = frame_of(**setting)
    raw, white = frame.raw(haze=haze, blobs=30), frame.white()
    for dark in (None, _dark(frame, hot=20)):
        for pitch in (None, frame.pitch):
            assert check_white(raw, white, dark, pitch) == []


def test_swapped_frames_are_refused(frame_of: Any) -> None:
    frame = frame_of()
    raw, white = frame.raw(), frame.white()
    for dark in (None, _dark(frame)):
        (problem,) = check_white(white, raw, dark)
        assert (problem.severity, problem.field) == ("error", "white")
        assert "swapped" in problem.message
    with pytest.raises(RequestError, match="look swapped") as caught:
        calibrate(white, raw)
    assert caught.value.remedy


def test_a_white_frame_less_even_than_the_light_field_is_doubted(frame_of: Any) -> None:
    frame = frame_of(pitch=15.0)
    white = frame.white().astype(float) - 100
    y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]]
    uneven = 100 + white * (1 + 0.25 * np.sin(x / 20) * np.sin(y / 20))
    raw = frame.raw(haze=5.0, blobs=10).astype(float)
    (problem,) = check_white(raw, uneven)
    assert (problem.severity, problem.field) == ("warning", "white")
    assert str(problem) in calibrate(raw, uneven).warnings


@pytest.mark.parametrize("hot", [0, 30])
def test_dark_frames_are_no_white_frames(frame_of: Any, hot: int) -> None:
    frame = frame_of()
    wrong = _dark(frame, hot)
    rows = wrong + np.random.default_rng(1).normal(0, 4, (frame.shape[0], 1)).round().astype(np.int64)
    for image in (wrong, rows):
        for raw in (None, frame.raw()):
            (problem,) = check_white(raw, image)
            assert "looks like a dark frame" in problem.message
    glow = wrong + np.linspace(0, 3, frame.shape[1])
    (problem,) = check_white(None, glow, wrong)
    assert "looks like a dark frame" in problem.message
    with pytest.raises(RequestError, match="looks like a dark frame"):
        calibrate(frame.raw(), wrong)


def test_saturated_frames_are_no_white_frames(frame_of: Any) -> None:
    white = frame_of().white()
    (problem,) = check_white(None, np.where(white > 400, 65535, white).astype(np.uint16))
    assert "saturated" in problem.message


def test_frames_of_unlike_shapes_are_not_compared(frame_of: Any) -> None:
    frame = frame_of()
    assert check_white(frame.white()[:-4], frame.raw(), _dark(frame)[:-8]) == []


def test_a_dark_frame_may_be_even(frame_of: Any) -> None:
    frame = frame_of()
    for level in (0, 100):
        found = calibrate(frame.raw(), frame.white(), np.full(frame.shape, level, np.uint16))
        assert frame.error(found.centres_px()).max() < 0.06


def test_real_frames(guv: Path) -> None:
    raw, white, dark = (
        tifffile.imread(guv / f"{name}_GUVExperim1.tif") for name in ("Lightfield", "Radiometry", "DarkFrame")
    )
    assert check_white(raw, white, dark) == check_white(raw, white) == []
    assert "swapped" in check_white(white, raw, dark)[0].message
    assert "swapped" in check_white(white, raw)[0].message
    assert "dark frame" in check_white(raw, dark)[0].message
    assert "dark frame" in check_white(raw, dark, dark)[0].message
