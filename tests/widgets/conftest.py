"""A method that obeys the contract and needs no optics, and viewers with layers for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.methods.base import Parameters, Request
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeParameters(Parameters):
    z_min_um: float = Field(default=-2.0, ge=-100, le=100)
    """Lowest plane."""
    z_max_um: float = Field(default=2.0, ge=-100, le=100)
    """Highest plane."""
    iterations: int = Field(default=5, ge=1, le=100_000)
    """How many iterations."""
    fail_at: int = Field(default=0, ge=0, json_schema_extra={"advanced": True})
    """Fail at this iteration."""


class FakeMethod:
    """Doubles a flat volume's brightness every iteration; `gate` makes each step wait for the test."""

    id: ClassVar[str] = "fake"
    title: ClassVar[str] = "Fake reconstruction"
    summary: ClassVar[str] = "For tests."
    input_kind: ClassVar[str] = "lightfield"
    Parameters: ClassVar[type[Parameters]] = FakeParameters

    def __init__(self) -> None:
        self.gate: threading.Semaphore | None = None
        self.steps = 0
        self.closed = threading.Event()
        self.requests: list[Request] = []

    def check(self, request: Request) -> list[Problem]:
        if request.parameters.z_min_um > request.parameters.z_max_um:  # type: ignore[attr-defined]
            return [Problem("The lowest plane is above the highest.", "Swap them.", field="z_min_um")]
        return [Problem("Fine.", severity="info")]

    def estimate(self, request: Request) -> Estimate:
        return Estimate((5, 8, 8), ("z", "y", "x"), 10_000_000, 1.0, ("On the fast path.",))

    def run(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        p: Any = request.parameters
        start = request.continue_from or 0
        try:
            yield Progress(0, p.iterations, "Computing the point spread function")
            for i in range(start + 1, start + p.iterations + 1):
                if self.gate is not None:
                    self.gate.acquire()
                if i == p.fail_at:
                    raise RequestError("The light field is all zero.", "Choose another one.")
                self.steps = i
                step = Progress(i - start, p.iterations, f"Iteration {i}", 0.1, {"residual": 1.0 / i})
                yield Preview("volume", self.volume(i), step)
            yield Result(
                {"volume": self.volume(i)},
                "volume",
                {"method": "fake", "parameters": p.model_dump()},
                state=i,
            )
        finally:
            self.closed.set()

    @staticmethod
    def volume(i: int) -> Any:
        values = np.full((5, 8, 8), float(i), np.float64)
        values[2, 4, 4] = 2.0 * i
        spacing, origin = {"z": 1.0, "y": 0.5, "x": 0.5}, {"z": -2.0, "y": 1.0, "x": 1.5}
        return labelled(values, ("z", "y", "x"), spacing, origin, name="volume")


@pytest.fixture
def fake_method() -> FakeMethod:
    return FakeMethod()


@pytest.fixture
def microscope() -> Microscope:
    """The optics of the giant-vesicle recording."""
    return Microscope(
        name="test-60x",
        objective=Objective(magnification=60, na=1.2, immersion_index=1.33),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2500),
        camera=Camera(pixel_um=6.5),
        wavelength_um=0.593,
        sample_index=1.35,
    )
