from __future__ import annotations

import numpy as np
import pytest

from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Problem
from napari_lfm.core.words import duration
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.widgets.texts import (
    lattice_html,
    outcome_words,
    problems_html,
    residual_words,
    shape_text,
    size,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than 1 s"), (12.4, "12 s"), (190, "3 min"), (8000, "2.2 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_size() -> None:
    assert (size(10), size(25e6), size(3.2e9)) == ("1 MB", "25 MB", "3.2 GB")


def test_errors_come_first_and_names_are_escaped() -> None:
    text = problems_html([Problem("Odd <name>.", severity="warning"), Problem("Stop.", "Mend it.")])
    assert text.index("Stop.") < text.index("Odd")
    assert "&lt;name&gt;" in text
    assert "Mend it." in text


def test_lattice_says_whether_to_trust_it() -> None:
    good = Lattice(
        origin_px=(7, 7),
        row_step_px=(15.4, 0),
        column_step_px=(0, 15.4),
        rows=28,
        columns=27,
        image_shape=(436, 436),
        residual_px=0.16,
    )
    assert "28 \N{MULTIPLICATION SIGN} 27 lenslets" in lattice_html(good)
    assert "trustworthy" in lattice_html(good)
    assert "do not trust" in lattice_html(good.model_copy(update={"confidence": 0.2}))


def test_residual_in_words() -> None:
    assert "15.0 %" in residual_words(0.15)
    assert "do not trust" in residual_words(0.7)
    assert "could not" in residual_words(float("nan"))


def test_shape() -> None:
    image = labelled(np.zeros((3, 4, 5)), ("z", "y", "x"), {"z": 1.0, "y": 0.5, "x": 0.5})
    times = " \N{MULTIPLICATION SIGN} "
    assert shape_text(image).startswith(f"3{times}4{times}5 (z, y, x), 1{times}0.5{times}0.5")


def test_what_a_stopped_run_leaves() -> None:
    assert "after 7 iterations" in outcome_words("stopped", 7)
    assert "no volume" in outcome_words("stopped", 0)
