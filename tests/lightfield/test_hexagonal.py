"""Hexagonal arrays whose discs overlap: brightest between the lenslets, and symmetric there too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_lfm.core.problems import RequestError
from napari_lfm.lightfield.calibrate import calibrate, check_pitch
from napari_lfm.lightfield.fit import Geometry
from napari_lfm.lightfield.light import log_light
from napari_lfm.lightfield.origin import at_six_fold, widened
from napari_lfm.lightfield.spectrum import find_lattice
from napari_lfm.optics.microscope import LensletArray, Microscope
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.lightfield import Exposure, simulate_lightfield
from napari_lfm.simulation.scene import Scene
from napari_lfm.simulation.shapes import Ball


def _overlapping(frame: Any, radius: float = 0.53, photons: float = 3000.0) -> np.ndarray:
    """Flat discs wider than the pitch, added up: lenses of double light between neighbours."""
    pixels = np.moveaxis(np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]], 0, -1).reshape(-1, 2)
    away, _ = cKDTree(frame.centres()).query(pixels, k=4)
    light = (1 / (1 + np.exp((away / frame.pitch - radius) / 0.03))).sum(axis=1)
    counts = np.random.default_rng(0).poisson(photons * light) + 100
    return np.asarray(counts.reshape(frame.shape).astype(np.uint16))


def _hexagonal(aperture: str) -> Microscope:
    mbl = load_microscope("mbl-60x1.2w")
    assert mbl.lenslets is not None
    array = LensletArray.model_validate(
        {**mbl.lenslets.model_dump(), "lattice": "hexagonal", "aperture": aperture}
    )
    return mbl.model_copy(update={"name": "hexagonal", "lenslets": array})


@pytest.mark.parametrize("rotation", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("radius", [0.5, 0.53, 0.56])  # the lowest peaks: positive, nearly gone, negative
def test_bridges_brighter_than_lenslets_are_not_lenslets(
    frame_of: Any, rotation: float, radius: float
) -> None:
    frame = frame_of(kind="hexagonal", rotation_deg=rotation, shape=(230, 260))
    for expected in ({"kind": "hexagonal"}, {}, {"microscope": _hexagonal("circular")}):
        lattice = calibrate(white=_overlapping(frame, radius), **expected)
        assert lattice.kind == "hexagonal"
        assert lattice.pitch_px == pytest.approx((15.4, 15.4), abs=0.02)
        assert frame.error(lattice.centres_px()).max() < 0.1
        # a pattern with hardly a lowest peak is called weak, but is not given up
        assert lattice.confidence > (0.2 if radius == 0.53 else 0.9)


@pytest.mark.parametrize(
    ("aperture", "rotation"), [("circular", 0.0), ("circular", 3.0), ("circular", 30.0), ("square", 0.0)]
)
def test_simulated_hexagonal_microscope(aperture: str, rotation: float) -> None:
    microscope = _hexagonal(aperture)
    bead = (0.5, 0.0, 0.0)
    recording = simulate_lightfield(
        Scene((Ball(bead, 0.4),), ("bead",), (bead,)),
        microscope,
        z_um=(0, 0, 1.0),
        lenslets=(11, 11),
        rotation_deg=rotation,
        exposure=Exposure(falloff=0.0),
        seed=1,
    )
    lattice = calibrate(recording["raw"], recording["white"], recording["dark"], microscope)
    assert not [p for p in check_pitch(lattice, microscope) if p.severity == "error"]
    # a rotated frame holds more lenslets than the simulation names: its lattice goes on
    everywhere = np.moveaxis(np.mgrid[-40:60, -50:50], 0, -1)
    truth = Geometry.from_lattice(recording["lattice"]).place(everywhere).reshape(-1, 2)
    assert cKDTree(truth).query(lattice.centres_px())[0].max() < 0.5
    assert lattice.confidence > 0.8


@pytest.mark.parametrize(("m", "n"), [(2, 0), (3, 0), (1, 1), (2, 1), (1, 2)])
def test_the_lattice_of_the_harmonics_is_widened(frame_of: Any, m: int, n: int) -> None:
    frame = frame_of(kind="hexagonal", pitch=24.0, shape=(300, 320))
    light = log_light(frame.white().astype(float))
    row, column = frame.steps()
    # the finer lattice of which (m, n), in neighbour steps, is a neighbour step of the drawn one
    size = np.sqrt(m * m + n * n + m * n)
    turn = -np.arctan2(n * np.sqrt(3) / 2, m + n / 2)
    across = row * 2 / np.sqrt(3)
    fine_column = (np.cos(turn) * column + np.sin(turn) * across) / size
    fine_row = (np.cos(turn) * across - np.sin(turn) * column) / size * np.sqrt(3) / 2
    start = Geometry("hexagonal", np.array([150.0, 157.0]), fine_row, fine_column, frame.shape)
    found = widened(light, start)
    assert found.pitch == pytest.approx(24.0)
    placed, margin = at_six_fold(light, found)
    assert frame.error(placed.whole_lenslets().centres_px()).max() < 24.0 / 36
    assert margin > 0.3
    assert widened(light, placed) is placed


def test_undecided_centres_are_not_trusted(frame_of: Any) -> None:
    # alike at the lenslets and at all bridges: a lattice half as wide, but for a trace of the other
    frame = frame_of(kind="hexagonal", pitch=8.0, shape=(230, 260))
    light = np.zeros(frame.shape, np.float32) + log_light(frame.white().astype(float))
    row, column = frame.steps()
    twice = Geometry("hexagonal", frame.centres()[200], 2 * row, 2 * column, frame.shape)
    assert at_six_fold(light, twice)[1] < 0.05


def test_a_pitch_beyond_the_nominal_is_still_seen(frame_of: Any) -> None:
    for pitch in (7.7, 19.0, 30.8, 15.4 * np.sqrt(7)):
        frame = frame_of(kind="hexagonal", pitch=pitch, shape=(330, 350))
        guess = find_lattice(log_light(frame.white().astype(float)), "hexagonal", 15.4)
        assert guess is not None
        assert np.hypot(*guess.column_step) == pytest.approx(pitch, rel=0.01)


def test_square_lenslets_are_no_hexagonal_ones(frame_of: Any) -> None:
    with pytest.raises(RequestError):
        calibrate(white=frame_of(shape=(230, 260)).white(), kind="hexagonal")
