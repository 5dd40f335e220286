"""The published figures: pictures and text are those of the kept bench output, and the targets are met."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def plots() -> Any:
    spec = importlib.util.spec_from_file_location("plot_resolution", ROOT / "tools/plot_resolution.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def beads() -> dict[str, Any]:
    found = json.loads((RESULTS / "beads.json").read_text("utf-8"))
    found.pop("machine", None)
    return found


@pytest.fixture(scope="module")
def subjects() -> dict[str, Any]:
    return json.loads((RESULTS / "sphere.json").read_text("utf-8"))["subjects"]


def test_the_pictures_show_the_kept_figures(plots: Any, beads: Any, subjects: Any) -> None:
    drawn = {
        "bead-width": plots.width_plot(beads),
        "bead-error": plots.error_plot(beads),
        "axial-scale": plots.scale_plot(subjects),
    }
    for name, picture in drawn.items():
        assert (ROOT / f"docs/images/{name}.svg").read_text("utf-8") == picture, (
            "run tools/plot_resolution.py"
        )


def test_beads_meet_the_target_and_the_page_says_so(beads: Any) -> None:
    page = (RESULTS / "light-field-resolution.md").read_text("utf-8")
    for case in beads.values():
        assert case["median_lateral_voxels"] < 0.5
        assert case["median_axial_steps"] < 1
        for unit in ("lateral_voxels", "axial_steps"):
            figure = f"**{case[f'median_{unit}']:.2f}** ({case[f'largest_{unit}']:.2f})"
            assert figure in page
        assert f"{case['axial_scale']:.3f}" in page


def test_the_table_of_axial_scales_is_the_kept_one(subjects: Any) -> None:
    page = (RESULTS / "light-field-resolution.md").read_text("utf-8")
    for name, runs in subjects.items():
        for way in ("pupil", "white", "none"):
            fit = runs[f"vignetting {way}"]
            figure = f"{fit['axial_scale']:.3f} ± {fit['axial_scale_error']:.3f}"
            assert figure in page, (name, way)
