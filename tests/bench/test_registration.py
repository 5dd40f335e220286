"""The published figures of registration: the page shows those that are kept, and they meet the target."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_lfm.bench._registration import summary_of, table

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_page_shows_the_kept_figures_and_they_meet_the_target() -> None:
    rows = json.loads((RESULTS / "registration.json").read_text("utf-8"))["rows"]
    assert table(rows) in (RESULTS / "registration.md").read_text("utf-8")
    pairs = [row for row in rows if not row.get("summary")]
    for summary in (row for row in rows if row.get("summary")):
        assert summary == summary_of([row for row in pairs if row["level"] == summary["level"]])
        assert summary["combined_right"] == summary["pairs"] == 8
        assert summary["wrongly_accepted"] == 0
    clear = [row for row in pairs if row["level"] == "low noise"]
    for name in ("psf", "correlation"):
        assert np.abs([row[f"{name}_error_voxels"] for row in clear]).max() < 0.5
