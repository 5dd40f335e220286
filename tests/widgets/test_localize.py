"""The *Localize* panel: points that follow the threshold, clicks, corrections by hand, export."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import RequestError
from napari_lfm.methods.localization import table as tables
from napari_lfm.methods.localization.engine import Grounds
from napari_lfm.methods.localization.points import Found
from napari_lfm.widgets import localize
from napari_lfm.widgets.localize import LocalizeWidget
from napari_lfm.widgets.localize_click import brightest_on_ray, clicked_place
from napari_lfm.widgets.localize_input import parameters_of, point_words
from napari_lfm.widgets.localize_run import Answer, Stopped
from napari_lfm.widgets.session import layer_record

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope

PLACES = np.array([[-5.0, 20.0, 30.0], [2.0, 60.0, 30.0], [8.0, 40.0, 70.0]])
SURE = np.array([0.9, 0.6, 0.3])


def table_of(places: np.ndarray, sure: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "z_um": places[:, 0], "y_um": places[:, 1], "x_um": places[:, 2], "confidence": sure,
            "sigma_z_um": 0.5, "snr": 20.0, "at_edge": False, "algorithm": "csc",
            "neuron": np.arange(len(places)),
        }
    )  # fmt: skip


class FakeEngine:
    """Finds the nearest of three neurons within 10 um of a click."""

    data = SimpleNamespace(frame_spacing_s=0.5)
    frames = 1

    def traces_at(self, places: np.ndarray) -> Any:
        """Each neuron flickers at a rate of its own."""
        for k in range(3):
            yield Progress(k + 1, 3, "Reading the traces")
        time = np.arange(20.0)[:, None]
        return 2 + np.sin(time * (1 + np.arange(len(places))) / 3)

    def at(self, y_um: float, x_um: float) -> Found:
        away = np.hypot(PLACES[:, 1] - y_um, PLACES[:, 2] - x_um)
        k = int(away.argmin())
        if away[k] > 10:
            raise RequestError("There is nothing but background here.", "Click on something bright.")
        one = np.array([k])
        return Found(
            PLACES[one, 0], PLACES[one, 1], PLACES[one, 2], SURE[one], np.array([0.5]), np.array([9.0]),
            np.array([1.0]), np.zeros((1, 5)), np.zeros(1, bool),
        )  # fmt: skip

    def grounds(self, z_um: float, y_um: float, x_um: float) -> Grounds:
        image = np.eye(7, 9)
        return Grounds(
            {"x": image, "y": image}, 0.1 * z_um, {"x": 0.1, "y": -0.2}, np.arange(-9.0, 10.0), np.eye(19)[3]
        )


@pytest.fixture
def panel(
    make_napari_viewer: Any, microscope: Microscope, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> LocalizeWidget:
    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        return Answer(table_of(PLACES, SURE), engine or FakeEngine(), {"method": "localize"})  # type: ignore[arg-type]

    monkeypatch.setattr(localize, "find", find)
    monkeypatch.setattr(
        tables,
        "points_table",
        lambda found, data, algorithm: table_of(
            np.stack([found.z_um, found.t, found.s], 1), found.confidence
        ),
    )
    viewer = make_napari_viewer()
    widget = LocalizeWidget(viewer)
    viewer.window.add_dock_widget(widget)
    layer = viewer.add_image(np.random.default_rng(0).random((90, 90)), name="raw")
    widget.session.set_input("lightfield", layer)
    widget.session.set_microscope(microscope)
    widget.controller.choose_algorithm("csc")
    return widget


def detect(panel: LocalizeWidget, qtbot: Any) -> None:
    panel.controller.detect()
    qtbot.waitUntil(lambda: not panel.controller.is_running, timeout=5000)


def test_nothing_can_be_found_without_a_light_field(make_napari_viewer: Any) -> None:
    widget = LocalizeWidget(make_napari_viewer())
    assert "No light field is chosen" in widget.view.input_text.text()
    assert not widget.view.detect_button.isEnabled()
    widget.controller.export(__import__("pathlib").Path("x.csv"))
    assert "no points to export" in widget.view.export_text.text()


def test_points_follow_the_threshold_at_once(panel: LocalizeWidget, qtbot: Any) -> None:
    control = panel.controller
    control.move_threshold(0.5)
    detect(panel, qtbot)
    layer = control.points.layer
    assert layer is not None and len(layer.data) == 2
    assert list(layer.features["source"]) == ["detected", "detected"]
    assert {"confidence", "sigma_z_um", "snr", "algorithm"} <= set(layer.features)
    assert [str(u) for u in layer.units] == ["micrometer"] * 3
    assert "2 neurons" in panel.view.text.text()
    control.move_threshold(0.1)
    assert len(layer.data) == 3
    assert "3 of 3" in panel.view.threshold_label.text()
    control.move_threshold(0.95)
    assert len(layer.data) == 0
    control.move_threshold(0.1)
    assert len(control.points.layer.data) == 3  # type: ignore[union-attr]
    # another run replaces them
    detect(panel, qtbot)
    assert len(control.points.layer.data) == 3  # type: ignore[union-attr]


def test_a_click_adds_the_neuron_under_it_once(panel: LocalizeWidget, qtbot: Any) -> None:
    control = panel.controller
    control.click_at(41.0, 69.0)  # makes the engine ready first
    qtbot.waitUntil(lambda: not control.is_running, timeout=5000)
    assert control.points.layer is not None
    assert list(control.points.layer.features["source"]) == ["clicked"]
    np.testing.assert_allclose(control.points.layer.data[0], PLACES[2])
    control.click_at(41.0, 69.0)
    assert len(control.points.layer.data) == 1 and "already" in panel.view.text.text()
    control.click_at(500.0, 500.0)
    assert "nothing but background" in panel.view.text.text()
    # it is selected, and what it rests on is drawn
    assert control.points.selected() == pytest.approx(tuple(PLACES[2]))
    assert panel.view.plot.grounds is not None
    panel.view.plot.resize(300, 230)
    panel.view.plot.grab()
    assert "confidence 0.30" in panel.view.point_text.text()
    # detections come beside it, not on it, and the threshold leaves it alone
    control.move_threshold(0.5)
    detect(panel, qtbot)
    assert sorted(control.points.layer.features["source"]) == ["clicked", "detected", "detected"]


def test_corrections_stay_and_are_recorded(panel: LocalizeWidget, qtbot: Any, tmp_path: Path) -> None:
    control = panel.controller
    control.move_threshold(0.1)
    detect(panel, qtbot)
    layer = control.points.layer
    assert layer is not None
    layer.selected_data = {0}
    layer.remove_selected()
    assert len(layer.data) == 2
    layer.add([1.0, 10.0, 10.0])
    assert list(layer.features["source"])[-1] == "added"
    assert np.isnan(layer.features["confidence"].iloc[-1])
    moved = np.array(layer.data)
    moved[0] += (0.0, 3.0, 0.0)
    layer.data = moved
    layer.events.data(value=layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    assert layer.features["source"].iloc[0] == "moved"
    # moving the threshold brings neither the deleted one nor the moved one's detection back
    control.move_threshold(0.95)
    control.move_threshold(0.1)
    assert sorted(control.points.layer.features["source"]) == ["added", "detected", "moved"]  # type: ignore[union-attr]
    path = tmp_path / "neurons.csv"
    control.export(path)
    table = pd.read_csv(path)
    assert list(table.columns[:4]) == ["z_um", "y_um", "x_um", "confidence"]
    assert set(table["source"]) == {"added", "detected", "moved"}
    record = json.loads((tmp_path / "neurons.csv.json").read_text())
    assert {e["what"] for e in record["provenance"]["corrections"]} == {"deleted", "added", "moved"}
    control.export(tmp_path / "nowhere" / "x.csv")
    assert "x.csv" in panel.view.export_text.text() or panel.view.export_text.text()


def test_every_algorithm_has_a_layer_of_its_own(panel: LocalizeWidget, qtbot: Any) -> None:
    control = panel.controller
    control.move_threshold(0.1)
    detect(panel, qtbot)
    first = control.points.layer
    assert first is not None
    first.add([1.0, 10.0, 10.0])
    control.choose_algorithm("phase-space")
    control.move_threshold(0.5)
    detect(panel, qtbot)
    second = control.points.layer
    assert second is not None and second is not first
    assert len(first.data) == 4 and len(second.data) == 2
    # what is done to the other layer is not taken for a correction of this one
    first.selected_data = {0}
    first.remove_selected()
    assert control.points.edits == []
    control.choose_algorithm("csc")
    control.move_threshold(0.1)
    detect(panel, qtbot)
    assert control.points.layer is first
    assert "added" in set(first.features["source"])
    assert sum(one.name.endswith(")") for one in panel.viewer.layers) == 2


def test_a_layer_that_is_come_back_to_is_known(panel: LocalizeWidget, qtbot: Any) -> None:
    control = panel.controller
    control.move_threshold(0.5)
    detect(panel, qtbot)
    first = control.points.layer
    assert first is not None and len(first.data) == 2
    first.selected_data = {1}
    first.remove_selected()
    control.choose_algorithm("phase-space")
    control.move_threshold(0.1)
    detect(panel, qtbot)
    control.choose_algorithm("csc")
    # deletions are those of this layer, detections below the threshold are not lost, nor is the record
    control.move_threshold(0.1)
    assert control.points.layer is first and len(first.data) == 2
    first.selected_data = {0}
    first.remove_selected()
    assert [e["what"] for e in control.points.edits] == ["deleted", "deleted"]
    first.selected_data = set()
    moved = np.array(first.data)
    moved[0] += (0.0, 3.0, 0.0)
    first.data = moved
    first.events.data(value=first.data, action="changed", data_indices=(0,), vertex_indices=((),))
    assert list(first.features["source"]) == ["moved"]


def test_the_record_is_that_of_the_last_run(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = panel.controller
    detect(panel, qtbot)
    assert layer_record(control.points.layer)["provenance"]["method"] == "localize"  # type: ignore[arg-type]

    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        return Answer(table_of(PLACES, SURE), FakeEngine(), {"method": "again"})  # type: ignore[arg-type]

    monkeypatch.setattr(localize, "find", find)
    panel.view.form.set_values({"merge_um": 3.0})
    detect(panel, qtbot)
    assert layer_record(control.points.layer)["provenance"]["method"] == "again"  # type: ignore[arg-type]


def test_points_belong_to_the_light_field_that_was_asked_about(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = panel.controller
    going = threading.Event()

    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        going.wait(5)
        return Answer(table_of(PLACES, SURE), None, {})

    monkeypatch.setattr(localize, "find", find)
    control.detect()
    other = panel.viewer.add_image(np.zeros((90, 90)), name="other")
    panel.session.set_input("lightfield", other)
    going.set()
    qtbot.waitUntil(lambda: not control.is_running, timeout=5000)
    assert [one.name for one in panel.viewer.layers if "neurons" in one.name] == [
        "raw neurons (sparse coding)"
    ]
    assert control.engine is None  # phase space leaves none of another light field behind


def test_stop_and_failures_leave_the_points(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = panel.controller
    control.move_threshold(0.1)
    detect(panel, qtbot)

    def stopped(*_: Any, **__: Any) -> Answer:
        raise Stopped

    monkeypatch.setattr(localize, "find", stopped)
    detect(panel, qtbot)
    assert "Stopped" in panel.view.text.text()
    assert len(control.points.table()) == 3

    def broken(*_: Any, **__: Any) -> Answer:
        raise RequestError("The light field is all zero.", "Choose another one.")

    monkeypatch.setattr(localize, "find", broken)
    detect(panel, qtbot)
    assert "all zero" in panel.view.text.text()
    assert panel.view.detect_button.isEnabled()
    # the layer was thrown away by the user: the next run makes a new one
    panel.viewer.layers.remove(control.points.layer)
    assert len(control.points.table()) == 0
    control.move_threshold(0.2)
    assert control.points.is_there


def test_a_click_needs_the_toggle_and_no_drag(panel: LocalizeWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    control = panel.controller
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(control, "click_at", lambda y, x: asked.append((y, x)))
    monkeypatch.setattr(control.clicks, "_warm_up", lambda: None)

    def press(moves: bool) -> None:
        event = SimpleNamespace(type="mouse_press", button=1, position=(7.0, 8.0), is_dragging=False)
        steps = control.clicks.on_mouse(panel.viewer, event)
        next(steps, None)
        event.type, event.is_dragging = ("mouse_move", True) if moves else ("mouse_release", False)
        next(steps, None)

    press(False)
    assert asked == []
    panel.view.click_button.setChecked(True)
    press(True)
    assert asked == []
    press(False)
    assert asked == [(7.0, 8.0)]


def test_a_click_in_3d_means_the_brightest_voxel_on_its_ray(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    data = np.zeros((8, 10, 12), np.float32)
    data[5, 6, 7] = 1
    layer = viewer.add_image(data, scale=(2, 3, 3))
    viewer.dims.ndisplay = 3
    event = SimpleNamespace(
        position=(0.0, 18.0, 21.0), view_direction=np.array([1.0, 0, 0]), dims_displayed=[0, 1, 2]
    )
    assert isinstance(layer, Image)
    assert brightest_on_ray(layer, event) == pytest.approx((18.0, 21.0), abs=1.6)
    assert clicked_place(viewer, event) == pytest.approx((18.0, 21.0), abs=1.6)
    event.position = (0.0, 500.0, 500.0)
    assert clicked_place(viewer, event) is None


def test_a_movie_has_traces(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control = panel.controller
    control.move_threshold(0.1)
    detect(panel, qtbot)
    panel.view.traces_button.click()
    assert "no neurons of a movie" in panel.view.export_text.text()
    monkeypatch.setattr(FakeEngine, "frames", 20)
    detect(panel, qtbot)
    # a movie's are read at once
    qtbot.waitUntil(lambda: control.traces is not None and not control.is_running, timeout=5000)
    assert "3 neurons" in panel.view.text.text()
    layer = control.points.layer
    assert layer is not None
    layer.selected_data = {0, 2}
    control.show_selected()
    assert len(panel.view.trace_plot.labels) == 2
    assert "Traces of 2 points" in panel.view.point_text.text()
    panel.view.trace_plot.resize(300, 140)
    panel.view.trace_plot.grab()
    layer.add([1.0, 10.0, 10.0])
    control.export(tmp_path / "neurons.csv")
    assert (
        "3 traces" in panel.view.export_text.text()
        and "1 points have no trace" in panel.view.export_text.text()
    )
    traces, points = pd.read_csv(tmp_path / "neurons-traces.csv"), pd.read_csv(tmp_path / "neurons.csv")
    assert list(traces.columns) == ["neuron", "frame", "t_s", "light", "df_over_f"]
    assert set(traces["neuron"]) == {1, 2, 3} and set(points["neuron"]) == {1, 2, 3, 4}
    assert traces["t_s"].max() == pytest.approx(9.5)
    panel.view.traces_button.click()
    qtbot.waitUntil(lambda: not control.is_running, timeout=5000)
    control.export(tmp_path / "neurons.csv")
    assert "4 traces" in panel.view.export_text.text()
    # another light field: the traces were not of this one
    control.choose_algorithm("phase-space")
    assert control.traces is None


def test_all_algorithms_are_compared(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = panel.controller
    seen: list[str] = []

    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        seen.append(request.parameters.algorithm)
        places = PLACES + np.array([1.0, 0.0, 0.0]) if seen[-1] == "phase-space" else PLACES
        return Answer(table_of(places, SURE + 0.6), FakeEngine(), {})  # type: ignore[arg-type]

    monkeypatch.setattr(localize, "find", find)
    panel.view.compare_button.click()
    qtbot.waitUntil(lambda: len(seen) >= 2 and not control.is_running, timeout=5000)
    assert seen[-2:] == ["csc", "phase-space"]
    words = panel.view.text.text()
    assert "3 neurons, 3 of them" in words and "apart by 1.0" in words
    layers = [one for one in panel.viewer.layers if one.name.endswith(")")]
    assert len(layers) == len(seen)
    assert len({str(one.symbol[0]) for one in layers}) == len(seen)


def test_a_run_that_is_stopped_ends_the_comparison(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        while True:
            report(Progress(0, 0, "for ever"))

    monkeypatch.setattr(localize, "find", find)
    panel.view.compare_button.click()
    assert panel.controller.is_running
    panel.view.stop_button.click()
    qtbot.waitUntil(lambda: not panel.controller.is_running, timeout=5000)
    assert "Stopped" in panel.view.text.text() and not panel.controller.comparison.is_going


def test_points_moved_while_a_run_goes_on_are_kept(
    panel: LocalizeWidget, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = panel.controller
    control.move_threshold(0.1)
    detect(panel, qtbot)
    layer = control.points.layer
    assert layer is not None
    going = threading.Event()

    def find(request: Any, engine: Any, report: Any, *, everything: bool) -> Answer:
        going.wait(5)
        return Answer(table_of(PLACES, SURE), FakeEngine(), {})  # type: ignore[arg-type]

    monkeypatch.setattr(localize, "find", find)
    control.detect()
    layer.add([1.0, 10.0, 10.0])
    layer.selected_data = {0}
    layer.remove_selected()
    going.set()
    qtbot.waitUntil(lambda: not control.is_running, timeout=5000)
    assert sorted(control.points.layer.features["source"]) == ["added", "detected", "detected"]  # type: ignore[union-attr]


def test_words_and_parameters() -> None:
    words = point_words({"z_um": 1.0, "y_um": 2.0, "x_um": 3.0, "confidence": float("nan"), "at_edge": True})
    assert "z 1.0, y 2.0, x 3.0" in words and "further out" in words and "confidence" not in words
    assert parameters_of("csc", {"merge_um": 3.0})["merge_um"] == 3.0
