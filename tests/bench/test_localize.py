"""The benchmark of localisation, small: its rows, its specimens, what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lfm.bench import localize
from napari_lfm.bench._localize_movie import MovieSetup, simulate
from napari_lfm.bench._localize_scenes import LocalizeSetup, specimens
from napari_lfm.optics.presets import load_microscope

if TYPE_CHECKING:
    from pathlib import Path

SMALL = LocalizeSetup(
    microscope="waveblocks-20x0.45",
    lenslets=13,
    z_um=(-30.0, 30.0),
    depths=2,
    per_field=2,
    counts=(3,),
    fields=1,
    voxels=3,
    z_step_um=6.0,
    levels=(("low", 2000.0, 0.3),),
)


def test_specimens_are_what_they_are_called() -> None:
    setup = LocalizeSetup()
    found = specimens(setup, 5.0)
    alone = [p for s in found if s.kind == "isolated" for p in s.scene.points_um]
    assert sorted(p[0] for p in alone) == [float(z) for z in range(-18, 37)]
    for one in found:
        if one.kind == "isolated":
            for k, p in enumerate(one.scene.points_um):
                others = [q for j, q in enumerate(one.scene.points_um) if j != k]
                assert all(min(abs(p[1] - q[1]), abs(p[2] - q[2])) > 17 for q in others)
        else:
            assert len(one.scene.points_um) == int(one.kind.split()[0])
    assert specimens(setup, 5.0)[3].scene.points_um == found[3].scene.points_um


def test_images_with_few_neurons_are_told() -> None:
    points = np.array([[0.0, 10, 10], [5, 12, 90], [9, 60, 10], [3, 61, 60], [3, 62, 110]])
    assert localize._sources_per_image(points, 5.0).tolist() == [2, 2, 3, 3, 3]  # noqa: SLF001


def test_a_movie_is_what_it_is_called() -> None:
    setup = MovieSetup("waveblocks-20x0.45", 13, 1, neurons=2, frames=9)
    movie, light, places = simulate(setup, load_microscope(setup.microscope))
    assert movie.dims == ("t", "y", "x") and movie.sizes["t"] == 9
    assert light.shape == (9, 2) and light.min() >= 0.3 and places.shape == (2, 3)
    again = simulate(setup, load_microscope(setup.microscope))
    np.testing.assert_array_equal(movie, again[0])


@pytest.mark.slow
def test_rows_hold_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    out = localize.run(told.append, SMALL, ("csc",), folder=tmp_path, movie=None)
    assert {r["specimens"] for r in out["rows"]} == {"isolated", "3 neurons"}
    for row in out["rows"]:
        assert row["algorithm"] == "csc"
        assert row["ms_per_epi"] > 0 and row["ms_for_one"] > 0
        assert 0 <= row["precision"] <= 1 and 0 <= row["recall"] <= 1
        assert row["neurons"] in (2, 3)
    assert max(r["recall"] for r in out["rows"]) > 0
    assert any("plane" in t for t in told)
    # recordings are kept
    monkeypatch.setattr(localize, "epipolar_times", lambda *_: {})
    monkeypatch.setattr("napari_lfm.bench._localize_scenes.simulate_lightfields", None)
    again = localize.run(None, SMALL, ("csc",), folder=tmp_path, movie=None)
    for a, b in zip(out["rows"], again["rows"], strict=True):
        np.testing.assert_equal(a["rmse_z_um"], b["rmse_z_um"])
