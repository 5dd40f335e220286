from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from napari_lfm.optics.microscope import Microscope
from napari_lfm.widgets.fields import MICROMETRES, label_of, specs_of
from napari_lfm.widgets.form import ModelForm


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    z_min_um: float = Field(default=-3.5, ge=-10, le=10)
    """Lowest plane."""
    iterations: int = Field(default=15, ge=1, le=99)
    """How many."""
    weight: float = Field(default=0.5, gt=0)
    kind: Literal["a", "b"] = "b"
    smooth: bool = True
    guard: int | None = Field(default=None, ge=0, json_schema_extra={"advanced": True})
    """Guard planes."""
    length_um: float | None = Field(default=None, gt=0)
    note: str = ""


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("z_min_um", f"z min ({MICROMETRES})"),
        ("voxels_per_lenslet", "voxels per lenslet"),
        ("gain_e_per_count", "gain (electrons per grey value)"),
        ("read_noise_e", "read noise (electrons)"),
        ("na", "NA"),
    ],
)
def test_labels(name: str, label: str) -> None:
    assert label_of(name) == label


def test_specs() -> None:
    specs = {s.name: s for s in specs_of(Example)}
    assert (specs["z_min_um"].low, specs["z_min_um"].high) == (-10, 10)
    assert specs["weight"].low_open
    assert specs["guard"].advanced
    assert specs["guard"].optional
    assert specs["kind"].choices == ("a", "b")
    assert "Lowest plane." in specs["z_min_um"].tooltip
    assert "-10 to 10" in specs["z_min_um"].tooltip


def test_form_gives_the_defaults_back(qtbot: Any) -> None:
    form = ModelForm(Example)
    qtbot.addWidget(form)
    assert Example.model_validate(form.values()) == Example()


def test_form_holds_bounds_and_none(qtbot: Any) -> None:
    form = ModelForm(Example)
    qtbot.addWidget(form)
    form.set_values({"z_min_um": -99.0, "iterations": 100, "guard": 0, "length_um": 0.25, "kind": "a"})
    values = form.values()
    assert values["z_min_um"] == -10
    assert values["iterations"] == 99
    assert values["guard"] == 0
    assert values["length_um"] == pytest.approx(0.25)
    assert values["kind"] == "a"
    form.set_values({"guard": None, "length_um": None, "weight": 0.0})
    assert form.values()["guard"] is None
    assert form.values()["length_um"] is None
    assert Example.model_validate(form.values()).weight > 0


def test_form_tells_of_changes_and_resets(qtbot: Any) -> None:
    form = ModelForm(Example)
    qtbot.addWidget(form)
    with qtbot.waitSignal(form.changed):
        form.editor("iterations").setValue(3)  # type: ignore[attr-defined]
    assert form.values()["iterations"] == 3
    form.reset()
    assert form.values()["iterations"] == 15


def test_microscope_survives_the_form(qtbot: Any, microscope: Microscope) -> None:
    form = ModelForm(Microscope)
    qtbot.addWidget(form)
    form.set_values(microscope.model_dump())
    assert Microscope.model_validate(form.values()) == microscope
    wide = microscope.model_copy(update={"lenslets": None})
    form.set_values(wide.model_dump())
    assert Microscope.model_validate(form.values()) == wide
