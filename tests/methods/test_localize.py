"""``localize`` as a user meets it: points of a recording by every algorithm, traces of a movie, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from napari_lfm.core.events import Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.metrics import match_points
from napari_lfm.core.problems import RequestError
from napari_lfm.io.write import write_result
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.methods.lightfield_data import LightfieldData, prepare
from napari_lfm.methods.localization.engine import LocalizeEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope
    from napari_lfm.simulation.recording import Recording

METHOD = get_method("localize")
BEADS = ((18.0, 6.0, -9.0), (-18.0, -9.0, 8.0), (21.0, 3.0, 16.0))
RANGE = {"z_min_um": -26.0, "z_max_um": 26.0, "diameter_um": 4.0, "fit": "none"}
TOGETHER = {**RANGE, "fit": "joint"}
Make = Any


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("localize")


@pytest.fixture(autouse=True)
def _optics_are_computed_once(one_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_LFM_HOME", str(one_home))


@pytest.fixture
def make(tiny: Microscope, recording: Recording) -> Callable[..., Request]:
    def request(fields: dict[str, Any] | None = None, **parameters: Any) -> Request:
        given = {
            "inputs": {"image": recording["raw"], "white": recording["white"], "dark": recording["dark"]},
            "microscope": tiny,
            "lattice": recording["lattice"],
            "device": "cpu",
            **(fields or {}),
        }
        return Request("localize", parameters=make_parameters(METHOD, parameters), **given)

    return request


def result_of(request: Request) -> Result:
    last = list(METHOD.run(request))[-1]
    assert isinstance(last, Result)
    return last


def errors(request: Request) -> str:
    return " ".join(f"{p.message} {p.remedy}" for p in METHOD.check(request) if p.severity == "error")


@pytest.mark.parametrize(("algorithm", "fit"), [("csc", "none"), ("csc", "joint"), ("phase-space", "none")])
def test_beads_are_found_where_they_are(make: Make, recording: Recording, algorithm: str, fit: str) -> None:
    result = result_of(make(algorithm=algorithm, **{**RANGE, "fit": fit}))
    points = result.outputs["points"]
    assert list(points.columns[:4]) == ["z_um", "y_um", "x_um", "confidence"]
    assert {"sigma_z_um", "snr", "at_edge", "algorithm", "neuron"} <= set(points.columns)
    assert set(points["algorithm"]) == {algorithm}
    truth = recording["points"][["z_um", "y_um", "x_um"]].to_numpy()
    scores = match_points(points[["z_um", "y_um", "x_um"]].to_numpy(), truth, 8.0)
    assert scores.recall == 1
    assert scores.rmse_x_um is not None and scores.rmse_x_um < 1.2
    assert scores.rmse_y_um is not None and scores.rmse_y_um < 1.2
    assert scores.rmse_z_um is not None and scores.rmse_z_um < 5  # the depth of field is 14 um
    assert result.primary == "points"
    assert result.provenance["method"] == "localize"


def test_a_run_says_what_it_does_and_can_be_stopped(make: Make) -> None:
    events = METHOD.run(make(algorithm="phase-space", **RANGE))
    stages = []
    for event in events:
        assert isinstance(event, Progress)
        stages.append(event.message)
        if event.message.startswith("Iteration 3"):
            break
    events.close()  # type: ignore[attr-defined]
    assert any("optics" in s for s in stages) and any("Looking for neurons" in s for s in stages)


def test_estimates_need_no_data(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path))  # where nothing is ready
    for algorithm in ("csc", "phase-space"):
        estimate = METHOD.estimate(make(algorithm=algorithm, **RANGE))
        assert estimate.seconds > 0
        assert estimate.peak_bytes > 1e8
    # what the joint fit computes once is in it, and is bounded however small bodies are
    alone = METHOD.estimate(make(algorithm="csc", **RANGE))
    together = METHOD.estimate(make(algorithm="csc", **TOGETHER))
    tiny = METHOD.estimate(make(algorithm="csc", **{**TOGETHER, "diameter_um": 0.6}))
    assert together.seconds > alone.seconds and together.peak_bytes > alone.peak_bytes
    assert tiny.seconds < 10 * together.seconds


def test_what_is_wrong_is_said(make: Make, tiny: Microscope, recording: Recording) -> None:
    told = errors(make())  # nobody trained one for this microscope
    assert "no localize model" in told and "'csc' and 'phase-space' need no model" in told
    assert "is empty" in errors(make(algorithm="csc", z_min_um=5.0, z_max_um=-5.0))
    assert "less than a step" in errors(make(algorithm="csc", z_min_um=0.0, z_max_um=0.5))
    assert "no microscope" in errors(make({"microscope": None}, algorithm="csc")).lower()
    bad = recording["raw"].astype(np.float32).copy()
    bad[20, 20] = np.nan
    assert "NaN" in errors(make({"inputs": {"image": bad}}, algorithm="csc"))
    hexagonal = tiny.model_copy(
        update={"lenslets": tiny.lenslets.model_copy(update={"lattice": "hexagonal"})}  # type: ignore[union-attr]
    )
    assert "hexagonal" in errors(make({"microscope": hexagonal, "lattice": None}, algorithm="csc"))
    with pytest.raises(RequestError, match="threshold"):
        make(threshold=2.0)


def test_an_empty_light_field_has_no_points(make: Make, recording: Recording) -> None:
    flat = recording["raw"].astype(np.float32) * 0 + 100.0
    assert "the same value" in errors(make({"inputs": {"image": flat}}, algorithm="csc", **RANGE))
    noise = flat + np.random.default_rng(0).normal(0, 3, flat.shape).astype(np.float32)
    fields = {"inputs": {"image": noise}}
    points = result_of(make(fields, algorithm="csc", **RANGE)).outputs["points"]
    assert len(points) == 0
    assert list(points.columns[:4]) == ["z_um", "y_um", "x_um", "confidence"]


def test_a_movie_gives_traces(make: Make, recording: Recording, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    level = 1 + np.abs(np.sin(np.arange(12) * 0.9))
    raw = recording["raw"].values.astype(np.float32)
    dark = recording["dark"].values.astype(np.float32)
    frames = np.stack([(raw - dark) * v + dark + rng.normal(0, 1, raw.shape) for v in level])
    step = float(recording["raw"].y[1] - recording["raw"].y[0])
    movie = labelled(frames.astype(np.float32), "tyx", {"t": 0.5, "y": step, "x": step})
    inputs = {"image": movie, "white": recording["white"], "dark": recording["dark"]}
    result = result_of(make({"inputs": inputs}, algorithm="csc", **RANGE))
    points, traces = result.outputs["points"], result.outputs["traces"]
    assert len(points) >= 3
    assert list(traces.columns) == ["neuron", "frame", "t_s", "light", "df_over_f"]
    for neuron in points["neuron"][:3]:
        light = traces[traces["neuron"] == neuron]["light"].to_numpy()
        assert np.corrcoef(light, level)[0, 1] > 0.95
    assert traces["t_s"].max() == pytest.approx(5.5)
    written = write_result(tmp_path / "neurons.csv", result)
    assert [p.name for p in written] == ["neurons.csv", "neurons.traces.csv"]
    assert list(pd.read_csv(written[1]).columns) == list(traces.columns)
    few = result_of(make({"inputs": {**inputs, "image": movie[:3]}}, algorithm="csc", **RANGE))
    assert len(few.outputs["points"]) >= 3  # three frames are no activity: their mean


def engine_of(request: Request) -> LocalizeEngine:
    data = next(e for e in prepare(request) if isinstance(e, LightfieldData))
    steps = LocalizeEngine.prepare(request, data, None, "mean")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_click_finds_the_neuron_under_it(make: Make, recording: Recording) -> None:
    engine = engine_of(make(algorithm="csc", **TOGETHER))
    everything = engine.places(engine.detect())
    for z, y, x in recording["points"][["z_um", "y_um", "x_um"]].to_numpy():
        found = engine.places(engine.at(y + 3.0, x - 3.0))  # not quite on it
        assert len(found) >= 1
        nearest = found[np.abs(found[:, 0] - z).argmin()]
        assert abs(nearest[1] - y) < 2 and abs(nearest[2] - x) < 2 and abs(nearest[0] - z) < 6
        # the same point as among all of them
        assert np.linalg.norm(everything - nearest, axis=1).min() < 1.0
        grounds = engine.grounds(float(z), float(y), float(x))
        assert grounds.images["x"].shape == grounds.images["y"].shape
        assert abs(float(grounds.z_um[grounds.curve.argmax()]) - z) < 7
        # the line runs where the image is bright
        image = grounds.images["x"]
        middle = image.shape[1] // 2
        views = np.arange(len(image)) - len(image) // 2
        at = middle + grounds.offset["x"] + grounds.slope * views
        along = image[np.arange(len(image)), np.clip(np.rint(at), 0, image.shape[1] - 1).astype(int)]
        assert along.mean() > 3 * image.mean()


def test_clicks_beside_the_specimen_are_told(make: Make) -> None:
    engine = engine_of(make(algorithm="csc", **RANGE))
    with pytest.raises(RequestError, match="outside the light field"):
        engine.at(-500.0, 0.0)
    dark = replace(engine, foreground=np.zeros_like(engine.foreground))
    with pytest.raises(RequestError, match="nothing but background"):
        dark.at(20.0, 20.0)
