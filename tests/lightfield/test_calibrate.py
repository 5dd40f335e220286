"""Lattices found in drawn frames with known centres, and in real ones; what cannot be used is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from scipy import ndimage

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.calibrate import calibrate, check_pitch, pixels_per_lenslet, residual_map
from napari_lfm.lightfield.edit import nudge
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.lightfield.lattice import Lattice


def _all_inside(lattice: Lattice) -> bool:
    half = np.array(lattice.pitch_px) / 2
    centres = lattice.centres_px()
    low, high = centres.min((0, 1)) - half, centres.max((0, 1)) + half
    return bool((low > -1.1).all() and (high < np.array(lattice.image_shape) + 0.1).all())


@pytest.mark.parametrize(
    "setting",
    [
        {"rotation_deg": 0.0},
        {"rotation_deg": -5.0},
        {"rotation_deg": 5.0, "kind": "hexagonal"},
        {"pitch": 8.0, "shape": (150, 180)},
        {"pitch": 40.0, "shape": (520, 560)},
        {"pitch": 22.3, "kind": "hexagonal", "shape": (400, 440)},
        {"kind": "hexagonal", "rotation_deg": 30.0},
        {"shape": (110, 500)},
        {"photons": 40.0},
        {"dust": 0.15},
        {"corner": 0.9},
    ],
    ids=str,
)
def test_white_frame(frame_of: Any, setting: dict[str, Any]) -> None:
    frame = frame_of(**setting)
    lattice = calibrate(white=frame.white())
    assert lattice.kind == frame.kind
    assert lattice.pitch_px == pytest.approx((frame.pitch, frame.pitch), abs=0.01)
    assert frame.error(lattice.centres_px()).max() < 0.06
    assert lattice.source == "white"
    assert lattice.confidence > 0.9
    assert lattice.warnings == ()
    assert _all_inside(lattice)


@pytest.mark.parametrize(
    "setting",
    [
        {"rotation_deg": 0.0},
        {"rotation_deg": 4.0, "seed": 5},
        {"rotation_deg": -3.0, "kind": "hexagonal"},
        {"pitch": 9.0, "shape": (180, 200)},
        {"pitch": 33.0, "shape": (500, 530), "seed": 2},
        {"photons": 40.0},
        {"dust": 0.15},
        {"corner": 0.9},
    ],
    ids=str,
)
def test_blind(frame_of: Any, setting: dict[str, Any]) -> None:
    frame = frame_of(**setting)
    lattice = calibrate(frame.raw())
    assert lattice.kind == frame.kind
    assert lattice.pitch_px == pytest.approx((frame.pitch, frame.pitch), rel=2e-3)
    assert frame.error(lattice.centres_px()).max() < 0.04 * frame.pitch
    assert lattice.source == "raw"
    assert lattice.confidence > 0.7


@pytest.mark.parametrize(("haze", "blobs"), [(0.02, 8), (0.01, 4), (0.0, 8), (0.0, 3)])
def test_blind_on_sparse_frames_is_right_or_says_so(frame_of: Any, haze: float, blobs: int) -> None:
    frame = frame_of(seed=3)
    try:
        lattice = calibrate(frame.raw(haze=haze, blobs=blobs))
    except RequestError as error:
        assert "white frame" in str(error)
        return
    error_px = frame.error(lattice.centres_px()).max()
    assert error_px < 0.6 or (lattice.confidence < 0.5 and any("white frame" in w for w in lattice.warnings))


def test_whole_lenslets_are_all_found(frame_of: Any) -> None:
    frame = frame_of(shape=(150, 165), pitch=15.0, offset=(0.5, 0.0))
    lattice = calibrate(white=frame.white())
    centres = frame.centres()
    whole = ((centres > 6.9) & (centres < np.array(frame.shape) - 7.9)).all(axis=1)
    assert lattice.rows * lattice.columns == whole.sum()


def test_distortion_is_reported_and_fitted_when_asked(frame_of: Any) -> None:
    frame = frame_of(bend_px=(1.5, -1.0, 1.0, 2.0))
    white = frame.white()
    plain = calibrate(white=white)
    assert any("structured" in w for w in plain.warnings)
    assert plain.distortion is None
    assert frame.error(plain.centres_px()).max() > 0.5
    bent = calibrate(white=white, distortion=True)
    assert bent.distortion is not None
    assert any("distorted" in w for w in bent.warnings)
    assert frame.error(bent.centres_px()).max() < 0.05
    assert bent.residual_px < 0.1 * plain.residual_px


def test_no_distortion_where_there_is_none(frame_of: Any) -> None:
    assert calibrate(white=frame_of().white(), distortion=True).distortion is None


def test_uneven_light_in_the_discs_is_reported(frame_of: Any) -> None:
    frame = frame_of()
    white = frame.white().astype(float) - 100
    centres, _, nearest, away = frame.geometry()
    field = (centres[nearest] - (np.array(frame.shape) - 1) / 2) / max(frame.shape)
    leaning = white * (1 + 0.35 * (away * field).sum(axis=1)).clip(0.05).reshape(frame.shape)
    assert any("telecentric" in w for w in calibrate(white=leaning).warnings)


def test_movies_labels_and_dark_frames_are_taken(frame_of: Any) -> None:
    frame = frame_of(shape=(200, 200))
    movie = np.stack([frame_of(shape=(200, 200), seed=k).raw(blobs=20) for k in range(4)])
    image = xr.DataArray(movie, dims=("t", "y", "x"))
    lattice = calibrate(image, dark=np.full((200, 200), 100, np.uint16))
    assert frame.error(lattice.centres_px()).max() < 0.4


def test_white_and_raw_that_do_not_match_are_reported(frame_of: Any) -> None:
    still, moved = frame_of(), frame_of(offset=(5.0, -2.1))
    together = calibrate(moved.raw(haze=0.5), still.white())
    assert together.source == "white"
    assert any("shifted by 1." in w for w in together.warnings)
    assert not calibrate(still.raw(haze=0.5), still.white()).warnings


def test_residual_map(frame_of: Any) -> None:
    frame = frame_of()
    white = frame.white()
    lattice = calibrate(white=white)
    residual = residual_map(lattice, white)
    assert residual.shape == (lattice.rows, lattice.columns, 2)
    assert np.hypot(*np.moveaxis(residual, -1, 0)).max() < 0.15
    moved = residual_map(nudge(lattice, 0.8, -0.5).model_copy(update={"source": "white"}), white)
    assert np.nanmedian(moved, axis=(0, 1)) == pytest.approx([-0.8, 0.5], abs=0.05)
    with pytest.raises(RequestError, match="pixels but the lattice"):
        residual_map(lattice, white[:-4])


def test_residual_map_knows_nothing_of_dark_lenslets(frame_of: Any) -> None:
    frame = frame_of()
    lattice = calibrate(white=frame.white())
    dark_half = frame.white().astype(float)
    dark_half[:100] = 100 + np.random.default_rng(0).normal(0, 2, (100, frame.shape[1]))
    residual = residual_map(lattice, dark_half)
    assert np.isnan(residual[:5]).mean() > 0.9
    assert np.isfinite(residual[8:]).all()


def _spoiled(white: np.ndarray) -> dict[str, tuple[dict[str, Any], str]]:
    nan = white.astype(float)
    nan[5, 5] = np.nan
    noise = np.random.default_rng(0).normal(500, 20, white.shape)
    saturated = np.where(white > 400, 65535, white).astype(np.uint16)
    return {
        "nothing": ({}, "nothing to calibrate"),
        "1-D": ({"raw": white[0]}, "one frame"),
        "RGB": ({"raw": np.stack([white] * 3, -1)}, "colour"),
        "NaN": ({"raw": nan}, "not finite"),
        "all zero": ({"white": np.zeros_like(white)}, "all zero"),
        "empty": ({"raw": white[:0]}, "one frame"),
        "constant": ({"raw": np.full_like(white, 7)}, r"same value \(7\) in the raw light field. Check that"),
        "all saturated": ({"raw": np.full_like(white, 65535)}, "It is saturated: expose it shorter"),
        "white all saturated": ({"white": np.full_like(white, 65535)}, "in the white frame. It is saturated"),
        "noise": ({"raw": noise}, "Record a white frame"),
        "saturated": ({"white": saturated}, "saturated"),
        "white of another size": ({"raw": white, "white": white[:-3]}, "Record both"),
        "dark of another size": ({"raw": white, "dark": white[:-3]}, "Record both"),
        "four lenslets": ({"white": white[:70, :70]}, "at least 5 x 5"),
        "few rows": ({"white": white[:62]}, "at least 5 x 5"),
        "tiny": ({"white": white[:12, :12]}, "smaller than 5 x 5"),
        "complex": ({"raw": white * 1j}, "plain numbers"),
    }


_SPOILED = list(_spoiled(np.ones((100, 100))))


@pytest.mark.parametrize("case", _SPOILED)
def test_bad_input_is_one_clear_sentence(frame_of: Any, case: str) -> None:
    arguments, words = _spoiled(frame_of(shape=(200, 220)).white())[case]
    with pytest.raises(RequestError, match=words) as caught:
        calibrate(**arguments)
    assert caught.value.remedy


def test_spots_that_repeat_but_not_like_lenslets_are_refused() -> None:
    y, x = np.mgrid[0:200, 0:220]
    spots = np.exp(-((y % 15 - 7) ** 2 + ((x + 0.05 * y) % 16.5 - 8) ** 2) / 8)
    with pytest.raises(RequestError, match="Record a white frame"):
        calibrate(100 + 900 * spots)


@pytest.mark.parametrize("source", ["raw", "white"])
def test_a_frame_binned_along_one_axis_is_explained(frame_of: Any, source: str) -> None:
    white = frame_of(shape=(400, 300)).white()
    stretched = ndimage.zoom(white.astype(float), (1.06, 1.0), order=1)
    with pytest.raises(RequestError, match=r"16\.3 x 15\.4 px apart") as caught:
        calibrate(**{source: stretched})
    assert "same binning along both axes" in caught.value.remedy
    assert ("Record a white frame" in caught.value.remedy) == (source == "raw")


def test_specimens_without_lenslets_are_refused(shared_data: Path) -> None:
    nuclei = tifffile.imread(shared_data / "cells3d" / "nuclei.tif")[30]
    with pytest.raises(RequestError, match="No lenslet lattice"):
        calibrate(nuclei)


def test_frame_too_small_for_the_microscope(frame_of: Any) -> None:
    with pytest.raises(RequestError, match=r"smaller than 5 x 5 lenslets of 15\.4 px"):
        calibrate(frame_of().raw()[:60], microscope=load_microscope("mbl-60x1.2w"))


def test_check_pitch(frame_of: Any) -> None:
    mbl = load_microscope("mbl-60x1.2w")
    lattice = calibrate(white=frame_of(pitch=15.4).white(), microscope=mbl)
    assert check_pitch(lattice, mbl) == []
    (near,) = check_pitch(calibrate(white=frame_of(pitch=15.9).white()), mbl)
    assert near.severity == "info"
    assert "15.90" in near.message
    (far,) = check_pitch(calibrate(white=frame_of(pitch=19.0).white(), microscope=mbl), mbl)
    assert far.severity == "error"
    assert "19.00 px" in far.message
    assert "15.38 px" in far.message
    (other,) = check_pitch(calibrate(white=frame_of(kind="hexagonal").white()), mbl)
    assert other.severity == "error"
    assert "hexagonal" in other.message
    assert check_pitch(lattice, load_microscope("wf-20x0.8"))[0].severity == "error"
    assert pixels_per_lenslet(lattice) == 15


def test_guv_with_white_frame(guv: Path) -> None:
    white = tifffile.imread(guv / "Radiometry_GUVExperim1.tif")
    lattice = calibrate(white=white)
    assert lattice.pitch_px == pytest.approx((15.40, 15.40), abs=0.03)
    assert (lattice.rows, lattice.columns) == (28, 28)
    residual = residual_map(lattice, white)
    assert np.sqrt((residual**2).sum(-1).mean()) < 0.2  # all 784, not only those the fit used
    assert lattice.confidence > 0.95


def test_guv_blind(guv: Path) -> None:
    white = calibrate(white=tifffile.imread(guv / "Radiometry_GUVExperim1.tif"))
    blind = calibrate(tifffile.imread(guv / "Lightfield_GUVExperim1.tif"))
    assert blind.pitch_px == pytest.approx(white.pitch_px, abs=0.05)
    apart = blind.centres_px() - white.centres_px()
    assert np.hypot(apart[..., 0], apart[..., 1]).max() < 0.5


def test_mitochondria_blind(shared_data: Path) -> None:
    lattice = calibrate(tifffile.imread(shared_data / "alpha-lfm" / "mito.tif"))
    assert lattice.pitch_px == pytest.approx((15.0, 15.0), abs=0.02)
    assert (lattice.rows, lattice.columns) == (49, 49)
    truth = 7 + 15 * np.moveaxis(np.mgrid[:49, :49], 0, -1)
    assert np.abs(lattice.centres_px() - truth).max() < 0.5
