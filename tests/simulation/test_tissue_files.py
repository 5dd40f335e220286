"""Simulated pairs on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.core.labelled import spacing_of
from napari_lfm.core.problems import RequestError
from napari_lfm.io.read import read_image
from napari_lfm.simulation.thick_tissue import Scattering, ThickTissue, TissueSettings
from napari_lfm.simulation.tissue_files import recorded_pair, write_tissue

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (10, 48, 56)


def test_pairs_lie_in_folders_under_equal_names(tmp_path: Path) -> None:
    steps = list(write_tissue(tmp_path, 2, SHAPE, seed=3))
    assert [s[:2] for s in steps] == [(1, 2), (2, 2)]
    names = [sorted(p.name for p in (tmp_path / d).iterdir()) for d in ("widefield", "confocal", "truth")]
    assert names[0] == names[1] == names[2]
    stack = read_image(tmp_path / "widefield" / names[0][0], "stack").load()
    assert stack.shape == SHAPE
    assert stack.dtype == np.uint16
    assert spacing_of(stack) == pytest.approx({"z": 0.5, "y": 0.1083, "x": 0.1083})
    again = list(write_tissue(tmp_path / "again", 2, SHAPE, seed=3))[1][2]["confocal"]
    assert np.array_equal(read_image(again).values, read_image(steps[1][2]["confocal"]).values)


def test_a_shift_moves_the_confocal_stack_only() -> None:
    made = ThickTissue(TissueSettings(shape=SHAPE))
    plain, moved = (
        recorded_pair(made, 1, Scattering(100.0), 1e6, shift) for shift in ((0, 0, 0), (2, -3, 4))
    )
    assert np.array_equal(plain["widefield"], moved["widefield"])
    back = np.roll(moved["confocal"].values.astype(float), (-2, 3, -4), (0, 1, 2))[:-2]
    assert np.corrcoef(back.ravel(), plain["confocal"].values[:-2].ravel())[0, 1] > 0.99
    assert moved["confocal"].values[:2].std() < 10  # read noise alone


@pytest.mark.parametrize("wish", [{"count": 0}, {"scattering_um": 0.0}, {"shift_px": (0, 60, 0)}])
def test_figures_that_make_no_stack_are_refused(tmp_path: Path, wish: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        list(write_tissue(tmp_path, shape=SHAPE, **wish))  # type: ignore[arg-type]
