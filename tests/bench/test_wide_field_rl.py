"""The wide-field benchmark on small cases whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy.signal import fftconvolve

from napari_lfm.bench import _widefield_bead, wide_field_rl
from napari_lfm.bench._widefield_bead import bead_figures
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf

if TYPE_CHECKING:
    from pathlib import Path

PSF = widefield_psf(WidefieldOptics(0.9, 0.52, 1.0, 1.0), (6, 14, 14), (0.3, 0.1, 0.1))


def test_bars_are_scored_beside_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_field_rl, "ITERATIONS", (2, 20))
    truth = np.zeros((18, 34, 34), np.float32)
    truth[7:11, 12:22, 12:16] = 500
    for name, values in (
        ("actual", truth),
        ("data", fftconvolve(truth, PSF, "same").clip(0)),
        ("kernel", PSF),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.asarray(values, np.float32))
    rows = wide_field_rl.bars_figures(tmp_path)
    assert rows is not None
    score = {(r["method"], r["iterations"]): r["nrmse"] for r in rows}
    assert len(rows) == 2 + 2 * (1 + len(wide_field_rl.WAYS))
    assert score["plain", 20] < score["plain", 2] < score["constant", 0]
    # nothing lies near the border: the peer gets the same, though the point is not in the middle here
    assert score["scikit-image", 20] == pytest.approx(score["surroundings dark", 20], abs=0.05)
    assert score["accelerated", 20] < score["plain", 20]
    assert wide_field_rl.bars_figures(tmp_path / "absent") is None


def test_the_border_of_a_cut_object(tmp_path: Path) -> None:
    z, y, x = np.meshgrid(*(np.arange(n) for n in (12, 80, 80)), indexing="ij")
    grain = (np.cos(y / 5) * np.cos(x / 7) * np.exp(-((z - 6) ** 2) / 8)).clip(0) * 1000
    tifffile.imwrite(tmp_path / "grain.tif", grain.astype(np.float32))
    rows = wide_field_rl.border_figures(tmp_path / "grain.tif", 24, 15)
    assert rows is not None
    found = {r["method"]: r for r in rows}
    masked, dark = found["unobserved surroundings"], found["surroundings dark"]
    assert masked["nrmse_border"] < 0.7 * dark["nrmse_border"]
    assert masked["nrmse_border"] < 1.5 * masked["nrmse_inside"]
    assert wide_field_rl.border_figures(tmp_path / "absent.tif") is None


def test_times_are_taken_on_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_field_rl, "SIDE", 24)
    figures = wide_field_rl.speed_figures(2)
    assert figures["stack"] == [24, 24, 24]
    ratio = figures["cpu_seconds_per_iteration_scikit_image"] / figures["cpu_seconds_per_iteration"]
    assert figures["times_faster"] == pytest.approx(ratio)


def test_a_bead_finds_its_own_aperture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optics = WidefieldOptics(0.76, _widefield_bead.WAVELENGTH_UM, 1.0, 1.0)
    bead = 200 + 1e7 * widefield_psf(optics, (25, 61, 61), _widefield_bead.STEP_UM)
    tifffile.imwrite(tmp_path / "bead.tif", np.random.default_rng(0).poisson(bead).astype(np.uint16))
    monkeypatch.setattr(_widefield_bead.measured_bead, "__defaults__", (tmp_path / "bead.tif",))
    monkeypatch.setattr(_widefield_bead, "_SHIFTS", np.zeros(1))
    figures = bead_figures()
    assert figures is not None
    assert figures["best_aperture"]["na"] == pytest.approx(0.76, abs=0.021)
    assert figures["best_aperture"]["correlation"] > 0.99 > figures["nominal"]["correlation"]
    assert figures["best_aperture"]["fwhm_along_um"] == pytest.approx(
        figures["bead"]["fwhm_along_um"], rel=0.1
    )
    monkeypatch.setattr(_widefield_bead.measured_bead, "__defaults__", (tmp_path / "absent.tif",))
    assert bead_figures() is None
