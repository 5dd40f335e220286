"""Correcting a lattice by hand, and keeping it in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.problems import LfmError, RequestError
from napari_lfm.lightfield.edit import (
    fit_to_points,
    move_centre,
    nearest_lenslets,
    nudge,
    rotate,
    scale_pitch,
)
from napari_lfm.lightfield.files import load_lattice, save_lattice
from napari_lfm.lightfield.lattice import Lattice

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["square", "hexagonal"])
def lattice(request: pytest.FixtureRequest) -> Lattice:
    return Lattice(
        kind=request.param,
        origin_px=(20.0, 21.0),
        row_step_px=(15.0 if request.param == "square" else 12.990381, 0.0),
        column_step_px=(0.0, 15.0),
        rows=12,
        columns=14,
        image_shape=(230, 260),
        residual_px=0.1,
        confidence=0.8,
        warnings=("Weak.",),
    )


def _from_nearest(lattice: Lattice, points: np.ndarray) -> float:
    index = nearest_lenslets(lattice, points)
    return float(np.abs(lattice.centres_px()[tuple(index.T)] - points).max())


def test_nudge(lattice: Lattice) -> None:
    out = nudge(lattice, 1.5, -2.0)
    assert _from_nearest(out, lattice.centres_px()[3:6, 3:6].reshape(-1, 2) + (1.5, -2.0)) < 1e-9  # noqa: RUF005
    assert out.source == "manual"
    assert out.pitch_px == pytest.approx(lattice.pitch_px)
    assert out.confidence == 0.8
    assert out.warnings == ("Weak.", "The grid was corrected by hand.")
    assert nudge(out, 0, 0).warnings == out.warnings


def test_whole_lenslets_only(lattice: Lattice) -> None:
    for out in (nudge(lattice, 9.0, 9.0), rotate(lattice, 4.0), scale_pitch(lattice, 1.2)):
        half = out.pitch_px[1] / 2
        centres = out.centres_px()
        assert centres.min() >= half - 1.01
        assert (centres.max((0, 1)) <= np.array(out.image_shape) - half + 0.01).all()


def test_rotate_turns_about_the_middle(lattice: Lattice) -> None:
    out = rotate(lattice, 2.0)
    assert out.rotation_deg == pytest.approx(2.0)
    assert out.pitch_px == pytest.approx(lattice.pitch_px)
    back = rotate(out, -2.0)
    assert _from_nearest(back, lattice.centres_px()[4:7, 4:7].reshape(-1, 2)) < 1e-9
    held = tuple(lattice.centres_px()[5, 5])
    assert _from_nearest(rotate(lattice, 3.0, about_yx=held), np.array([held])) < 1e-9


def test_scale_pitch(lattice: Lattice) -> None:
    held = tuple(lattice.centres_px()[5, 6])
    out = scale_pitch(lattice, 1.02, about_yx=held)
    assert out.pitch_px == pytest.approx(tuple(1.02 * p for p in lattice.pitch_px))
    assert _from_nearest(out, np.array([held])) < 1e-9
    with pytest.raises(RequestError, match=r"between 0\.5 and 2"):
        scale_pitch(lattice, 3.0)


def test_drag_one_centre(lattice: Lattice) -> None:
    target = lattice.centres_px()[2, 3] + (2.0, 1.0)
    out = move_centre(lattice, (2, 3), (float(target[0]), float(target[1])))
    assert _from_nearest(out, target[None]) < 1e-9
    assert out.pitch_px == pytest.approx(lattice.pitch_px)


def test_drag_one_centre_while_another_stays(lattice: Lattice) -> None:
    held = lattice.centres_px()[1, 1]
    target = lattice.centres_px()[10, 12] + (3.0, 2.0)
    out = move_centre(lattice, (10, 12), (float(target[0]), float(target[1])), keep=(1, 1))
    assert _from_nearest(out, np.stack([held, target])) < 1e-9
    assert out.rotation_deg != pytest.approx(lattice.rotation_deg, abs=1e-6)
    # a similarity: rows and columns scale alike
    assert out.pitch_px[0] / out.pitch_px[1] == pytest.approx(lattice.pitch_px[0] / lattice.pitch_px[1])


def test_fit_to_clicked_centres(lattice: Lattice) -> None:
    truth = rotate(scale_pitch(nudge(lattice, 2.0, -1.0), 1.01), 0.7)
    centres = truth.centres_px()
    clicked = centres[[1, 1, 9, 8, 5], [1, 9, 2, 9, 5]]
    out = fit_to_points(lattice, clicked)
    assert _from_nearest(out, centres[2:8, 2:8].reshape(-1, 2)) < 1e-6
    # two on a line still turn and scale
    two = fit_to_points(lattice, clicked[[0, 3]])
    assert _from_nearest(two, clicked[[0, 3]]) < 1e-6


def test_fit_refusals(lattice: Lattice) -> None:
    with pytest.raises(RequestError, match="Click on at least one"):
        fit_to_points(lattice, [])
    with pytest.raises(RequestError, match="same lenslet"):
        fit_to_points(lattice, [(50.0, 50.0), (51.0, 50.0)])
    with pytest.raises(RequestError, match="No whole lenslet"):
        nudge(lattice.model_copy(update={"image_shape": (14, 14)}), 0.0, 0.0)


def test_saved_and_loaded(lattice: Lattice, tmp_path: Path) -> None:
    bent = lattice.model_copy(update={"distortion": ((0.1,) * 7, (0.2,) * 7)})
    path = save_lattice(tmp_path / "grid.json", bent)
    assert load_lattice(path) == bent
    record = json.loads(path.read_text())
    assert record["pitch_px"] == pytest.approx([15.0, 15.0], abs=1e-4)
    assert record["lenslets"] == [12, 14]
    assert record["lattice"] == lattice.kind
    assert {"rotation_deg", "residual_px", "confidence"} <= record.keys()
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "damaged or no JSON"),
        (b"\xff\xfe\x00", "damaged or no JSON"),
        (b"[1, 2]", "not a lenslet grid"),
        (b'{"pitch_px": [15, 15]}', "not a lenslet grid"),
        (b'{"origin_px": [1, "two"], "rows": 3}', "damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "grid.json"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        load_lattice(path)


def test_missing_and_unwritable(lattice: Lattice, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no grid file"):
        load_lattice(tmp_path / "none.json")
    with pytest.raises(RequestError, match="cannot be read"):
        load_lattice(tmp_path)
    with pytest.raises(LfmError, match="could not be saved"):
        save_lattice(tmp_path / "no" / "such" / "grid.json", lattice)
