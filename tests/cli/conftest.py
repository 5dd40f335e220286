"""A small, quick method in the registry, and a way to run the command line in this process."""

from __future__ import annotations

import json
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import Field
from typer.testing import CliRunner

from napari_lfm.cli import app
from napari_lfm.core.events import Event, Preview, Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Estimate, Problem
from napari_lfm.io.provenance import make_provenance
from napari_lfm.io.write import write_image
from napari_lfm.methods.base import InputKind, Parameters, Request

if TYPE_CHECKING:
    from pathlib import Path


class StretchParameters(Parameters):
    """Parameters of the method that multiplies."""

    gain: float = Field(default=2.0, gt=0, le=100)
    """Factor, without unit."""
    steps: int = Field(default=3, ge=1, le=50, json_schema_extra={"advanced": True})
    """Steps to take."""
    mode: Literal["plain", "points", "interrupt", "early", "terminate", "bug", "full"] = "plain"
    """What to do at the end."""
    limit: float | None = None
    """Optional limit."""


class Stretch:
    """Multiply an image, step by step."""

    id: ClassVar[str] = "stretch"
    title: ClassVar[str] = "Stretch"
    summary: ClassVar[str] = "Multiplies an image."
    input_kind: ClassVar[InputKind] = "image"
    Parameters: ClassVar[type[StretchParameters]] = StretchParameters
    closed: ClassVar[list[bool]] = []

    def check(self, request: Request) -> list[Problem]:
        out = []
        if request.memory_gib is not None and request.memory_gib < 0.5:
            out.append(Problem("The memory budget is too small.", "Give at least 0.5 GiB."))
        if request.region_px is not None:
            out.append(Problem(f"Only the region {request.region_px} is used.", severity="info"))
        return out

    def estimate(self, request: Request) -> Estimate:
        image = request.inputs["image"]
        return Estimate(image.shape, tuple(map(str, image.dims)), 2**20, 0.1, ("A note.",))

    def run(self, request: Request) -> Iterator[Event]:
        parameters = request.parameters
        assert isinstance(parameters, StretchParameters)
        image = request.inputs["image"]
        try:
            print("a library that prints")
            for k in range(1, parameters.steps + 1):
                if parameters.mode == "early":
                    raise KeyboardInterrupt
                part = image * (parameters.gain * k / parameters.steps)
                part.attrs = dict(image.attrs)
                progress = Progress(k, parameters.steps, f"Iteration {k}", 1.0, {"residual": 1 / k})
                yield Preview("stretched", part, progress)
                if k == 2 and parameters.mode == "interrupt":
                    raise KeyboardInterrupt
                if k == 2 and parameters.mode == "terminate":
                    signal.raise_signal(signal.SIGTERM)
                if k == 2 and parameters.mode == "bug":
                    raise ZeroDivisionError("a bug")
                if k == 2 and parameters.mode == "full":
                    raise OSError(28, "No space left on device", "/somewhere")
            provenance = make_provenance(
                method=self.id,
                parameters=parameters,
                inputs=request.inputs,
                sources=request.sources,
                device="cpu",
                region_px=request.region_px,
                memory_gib=request.memory_gib,
                layout=request.layout,
            )
            outputs: dict[str, Any] = {"stretched": part}
            if parameters.mode == "points":
                outputs["points"] = pd.DataFrame(
                    {"z_um": [0.0], "y_um": [1.0], "x_um": [2.0], "confidence": [0.5]}
                )
            yield Result(outputs, "stretched", provenance)
        finally:
            self.closed.append(True)


@pytest.fixture(autouse=True)
def stretch(monkeypatch: pytest.MonkeyPatch) -> type[Stretch]:
    """Put the method beside the real ones."""
    from napari_lfm.methods import base

    module = types.ModuleType("napari_lfm_test_method")
    module.Stretch = Stretch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    real = base._registry()  # noqa: SLF001
    monkeypatch.setattr(base, "_registry", lambda: {**real, "stretch": f"{module.__name__}:Stretch"})
    Stretch.closed.clear()
    return Stretch


@dataclass
class Outcome:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Shell = Callable[..., Outcome]


@pytest.fixture
def shell() -> Shell:
    """Run a command line in this process."""

    def call(*words: object, answers: str | None = None) -> Outcome:
        result = CliRunner().invoke(app, [str(w) for w in words], input=answers)
        assert "Traceback" not in result.output, result.output
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image file with sizes."""
    data = np.arange(1, 101, dtype=np.uint16).reshape(10, 10)
    return write_image(tmp_path / "image.tif", labelled(data, "yx", {"y": 0.5, "x": 0.5}))
