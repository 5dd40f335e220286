"""The *Compare stacks* panel: sharpness, error map, side by side."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.widgets import compare_stacks
from napari_lfm.widgets.compare_stacks import CompareStacksWidget
from napari_lfm.widgets.resolve_stack import stack_of
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.side_by_side import SideBySide, grid_of
from napari_lfm.widgets.stack_comparison import (
    Cancelled,
    error_map,
    one_stack,
    sharpness_series,
    sharpness_words,
)
from napari_lfm.widgets.state import LayerInfo


def sharp() -> np.ndarray:
    out = np.zeros((6, 64, 64), np.float32)
    rng = np.random.default_rng(0)
    for z in range(6):
        out[z, rng.integers(4, 60, 80), rng.integers(4, 60, 80)] = 1000.0
    blurred: np.ndarray = gaussian_filter(out, (0, 1, 1))
    return blurred


def hazy() -> np.ndarray:
    """The same, the blurrier the deeper."""
    return np.stack([gaussian_filter(p, 1 + 0.7 * z) for z, p in enumerate(sharp())]) + 3.0


def labelled_stack(data: np.ndarray, **placement: Any) -> Any:
    placed = {"scale": (0.5, 0.1, 0.1), "units": ("um",) * 3, **placement}
    found = stack_of(LayerInfo("s", data, placement=placed))
    assert not isinstance(found, Problem)
    return found


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    viewer = make_napari_viewer_proxy()
    common = {"scale": (0.5, 0.1, 0.1), "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    viewer.add_image(hazy(), name="input", **common)
    made = {"napari_lfm": {"role": "volume"}}
    viewer.add_image(sharp(), name="deconvolved", metadata=made, colormap="inferno", **common)
    viewer.add_image(2 * sharp(), name="network", metadata=made, **common)
    return viewer


@pytest.fixture
def widget(viewer: Any) -> Any:
    widget = CompareStacksWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Compare stacks")
    return widget


def names(c: Any) -> dict[str, str]:
    return {slot: layer.name for slot, layer in c.stacks()}


def test_slots_are_filled_from_what_layers_are(widget: Any, viewer: Any) -> None:
    c = widget.controller
    assert names(c) == {"input": "input", "result1": "deconvolved", "result2": "network"}
    # two results are compared with each other, the network first
    assert widget.view.first_combo.currentText() == "network"
    assert widget.view.second_combo.currentText() == "deconvolved"
    widget.view.slot_chosen.emit("truth", viewer.layers["network"])  # one layer, one slot
    assert names(c) == {"input": "input", "result1": "deconvolved", "truth": "network"}
    viewer.layers.remove("deconvolved")
    assert names(c) == {"input": "input", "truth": "network"}
    c.propose("input", viewer.add_image(sharp(), name="newer"))
    assert names(c)["result1"] == "newer"


def test_sharpness_is_plotted_for_every_stack(qtbot: Any, widget: Any) -> None:
    widget.view.sharpness_button.click()
    qtbot.waitUntil(lambda: len(widget.view.plot.series) == 3, timeout=20_000)
    by_name = {one.name: one for one, _ in widget.view.plot.series}
    np.testing.assert_allclose(by_name["input"].depth_um, 0.5 * np.arange(6))
    lost = {n: s.sharpness.signal[-1] / s.sharpness.signal[0] for n, s in by_name.items()}
    assert lost["input"] < 0.5 < lost["network"]
    text = widget.view.sharpness_text.text()
    assert "In the deepest third" in text
    assert "1 and 99.9 percentiles" in text
    assert not widget.view.plot.isHidden()
    assert not widget.view.plot.grab().isNull()  # paints
    assert widget.view.progress_row.isHidden()


def test_error_map_is_a_layer_and_a_sentence(qtbot: Any, widget: Any, viewer: Any) -> None:
    widget.view.error_button.click()
    qtbot.waitUntil(lambda: widget.controller.map_layer is not None, timeout=20_000)
    layer = widget.controller.map_layer
    assert "within 10 % in 100 % of the signal" in widget.view.error_text.text()
    assert np.abs(layer.data).max() < 1e-3  # the factor of two is a matter of units
    np.testing.assert_allclose(layer.scale, (0.5, 0.1, 0.1))
    assert layer.metadata["napari_lfm"]["role"] == "disagreement"
    np.testing.assert_allclose(layer.colormap.map(np.array([0.5]))[0][:3], 0.0, atol=0.02)
    # a map is no stack to compare; another one takes its place
    assert layer.name not in [widget.view.combos["input"].itemText(i) for i in range(9)]
    widget.view.second_combo.setCurrentText("input")
    widget.view.error_button.click()
    qtbot.waitUntil(lambda: "network - input" in str([x.name for x in viewer.layers]), timeout=20_000)
    assert sum("error map" in x.name for x in viewer.layers) == 1
    assert "within 10 % in 100 %" not in widget.view.error_text.text()
    widget.view.first_combo.setCurrentText("input")
    widget.view.error_button.click()
    assert "chosen twice" in widget.view.error_text.text()


def test_stop_ends_the_computation(qtbot: Any, widget: Any, monkeypatch: Any) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(stacks: Any, stop: threading.Event, tell: Any) -> Any:
        begun.set()
        go.wait(20)
        return sharpness_series(stacks, stop, tell)

    monkeypatch.setattr(compare_stacks, "sharpness_series", slow)
    widget.view.sharpness_button.click()
    assert begun.wait(20)
    assert not widget.view.progress_row.isHidden()
    assert not widget.view.error_button.isEnabled()
    widget.view.stop_button.click()
    go.set()
    qtbot.waitUntil(lambda: widget.view.sharpness_text.text() == "Stopped.", timeout=20_000)
    assert not widget.view.plot.series
    assert widget.view.error_button.isEnabled()


def test_side_by_side_and_back(widget: Any, viewer: Any) -> None:
    layers = viewer.layers
    other = viewer.add_image(np.zeros((8, 8)), name="other")
    layers.move(0, 3)  # the order of the list is not that of the comparison
    before = [x.name for x in layers]
    limits = tuple(layers["deconvolved"].contrast_limits)
    widget.view.side_button.click()
    grid = grid_of(viewer)
    assert grid.enabled
    assert tuple(grid.shape) == (1, 3)
    assert not other.visible
    shown = [x.name for x in layers if x.visible]
    assert shown == ["input", "deconvolved", "network"]
    places = [grid.position(i, [bare(x) for x in layers]) for i, x in enumerate(layers) if x.visible]
    assert places == [(0, 0), (0, 1), (0, 2)]
    # the same percentiles of each: twice the grey values, twice the limits
    ours, theirs = (np.array(layers[n].contrast_limits) for n in ("deconvolved", "network"))
    np.testing.assert_allclose(theirs, 2 * ours, rtol=1e-4)
    assert layers["deconvolved"].colormap.name == "gray"
    assert layers["network"].name_overlay.visible
    assert "input | result | 2nd result" in widget.view.side_text.text()
    widget.view.back_button.click()
    assert not grid.enabled
    assert [x.name for x in layers] == before
    assert other.visible
    assert tuple(layers["deconvolved"].contrast_limits) == pytest.approx(limits)
    assert layers["deconvolved"].colormap.name == "inferno"
    assert not layers["network"].name_overlay.visible


def test_layers_that_go_meanwhile_do_not_matter(viewer: Any) -> None:
    side = SideBySide(viewer)
    side.show([viewer.layers["input"], viewer.layers["network"]])
    viewer.layers.remove("network")
    late = viewer.add_image(sharp(), name="late")
    side.restore()
    assert [x.name for x in viewer.layers] == ["input", "deconvolved", "late"]
    assert late.visible
    side.restore()  # nothing more to put back


# ------------------------------------------------------------------------------ without a window
def test_frames_and_channels_that_are_looked_at() -> None:
    movie = np.arange(3 * 2 * 4 * 5 * 6).reshape(3, 2, 4, 5, 6)
    info = LayerInfo("m", movie, axis_labels=("t", "c", "z", "y", "x"))
    np.testing.assert_array_equal(one_stack(info, {"t": 2, "c": 1}).values, movie[2, 1])
    np.testing.assert_array_equal(one_stack(info, {"t": 9}).values, movie[2, 0])
    with pytest.raises(RequestError, match="single plane"):
        one_stack(LayerInfo("p", movie[0, 0, 0]), {})


def test_other_grids_are_compared_where_both_are() -> None:
    data = sharp()
    whole = labelled_stack(data)
    part = labelled_stack(data[:, 16:48, 16:48], translate=(0.0, 1.6, 1.6))
    found = error_map(("part", part), ("whole", whole), threading.Event(), lambda share: None)
    assert found.image.shape == (6, 32, 32)
    assert float(found.image.coords["y"][0]) == pytest.approx(1.6)
    assert np.abs(found.image.values).max() < 0.05
    with pytest.raises(RequestError, match="no sizes"):
        error_map(
            ("a", labelled_stack(data[:, 1:], scale=(1, 1, 1), units=("pixel",) * 3)),
            ("whole", whole),
            threading.Event(),
            lambda share: None,
        )


def test_workers_stop_and_tell() -> None:
    stop = threading.Event()
    told: list[float] = []
    stacks = [("a", labelled_stack(sharp())), ("b", labelled_stack(hazy()))]
    found = sharpness_series(stacks, stop, told.append)
    assert told[0] == 0.0
    assert told[-1] == pytest.approx(11 / 12)
    assert "in a; " in sharpness_words(found)
    stop.set()
    with pytest.raises(Cancelled):
        sharpness_series(stacks, stop, told.append)
    with pytest.raises(RequestError, match="'flat': The stack is constant"):
        sharpness_series([("flat", labelled_stack(np.ones((2, 8, 8))))], threading.Event(), told.append)
