"""Events are frozen records; problems read as sentences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr
from pydantic import BaseModel, Field, ValidationError

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.problems import (
    Estimate,
    LfmError,
    Problem,
    RequestError,
    explain_validation,
    raise_for,
)


def test_events_cannot_be_changed() -> None:
    progress = Progress(1, 3, "Iterating", 2.0, {"residual": 0.5})
    preview = Preview("volume", xr.DataArray(np.zeros(2)), progress)
    result = Result({"volume": preview.image}, "volume", {"method": "x"})
    for event, field in ((progress, "step"), (preview, "name"), (result, "primary")):
        assert isinstance(event, Event)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field, None)
    assert Progress(0, 0, "Starting").values == {}
    assert result.state is None


def test_problems_and_errors_read_alike() -> None:
    problem = Problem("The pitch does not fit.", "Choose another microscope.", field="microscope")
    error = RequestError(problem.message, problem.remedy)
    assert str(problem) == str(error) == "The pitch does not fit. Choose another microscope."
    assert error.problem().message == problem.message
    assert str(Problem("Only this.")) == "Only this."
    assert (LfmError("x").exit_status, RequestError("x").exit_status) == (1, 2)
    assert issubclass(RequestError, LfmError)


def test_raise_for_lists_errors_only() -> None:
    raise_for([Problem("Worth knowing.", severity="info"), Problem("Odd.", severity="warning")])
    with pytest.raises(RequestError) as caught:
        raise_for([Problem("First.", "Mend it."), Problem("Odd.", severity="warning"), Problem("Second.")])
    assert str(caught.value) == "First. Mend it. Second."


def test_validation_errors_become_sentences() -> None:
    class Model(BaseModel, extra="forbid"):
        na: float = Field(gt=0)

    for values, words in (
        ({"na": -1}, "na = -1"),
        ({}, "'na' is missing"),
        ({"na": 1, "naa": 2}, "no entry 'naa'"),
    ):
        with pytest.raises(ValidationError) as caught:
            Model.model_validate(values)
        assert words in explain_validation(caught.value)


def test_an_estimate_needs_no_notes() -> None:
    assert Estimate((3, 4), ("y", "x"), 10, 0.5).notes == ()


def test_wrong_values_are_explained_without_programmers_words() -> None:
    class Model(BaseModel):
        count: int = 1
        step_um: float = Field(default=1.0, gt=0)
        on: bool = True
        name: str = Field(default="a", min_length=1)

    for value, words in (
        ({"count": 2.5}, "count = 2.5 must be a whole number."),
        ({"count": "some"}, "count = 'some' must be a whole number."),
        ({"step_um": "nan"}, "step_um = 'nan' is not a number."),
        ({"step_um": float("nan")}, "step_um = nan is not a number."),
        ({"step_um": "wide"}, "step_um = 'wide' is not a number."),
        ({"step_um": -1}, "step_um = -1 must be greater than 0."),
        ({"on": "perhaps"}, "on = 'perhaps' must be true or false."),
        ({"name": ""}, "name = '' must have at least 1 character."),
    ):
        with pytest.raises(ValidationError) as caught:
            Model.model_validate(value)
        assert explain_validation(caught.value) == words
