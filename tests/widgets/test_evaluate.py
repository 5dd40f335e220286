"""The *Evaluate* panel: figures, curves, a width along a line, side by side with the difference."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from scipy.ndimage import gaussian_filter, shift

from napari_lfm.core.problems import RequestError
from napari_lfm.widgets import evaluate as panel_module
from napari_lfm.widgets.evaluate import EvaluateWidget
from napari_lfm.widgets.evaluate_input import image_of, line_in
from napari_lfm.widgets.session import bare
from napari_lfm.widgets.side_by_side import grid_of

if TYPE_CHECKING:
    from pathlib import Path

SCALE = (0.4, 0.2, 0.2)
COMMON: dict[str, Any] = {"scale": SCALE, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
MOVE = (0.0, 1.5, -0.75)


def stack() -> np.ndarray:
    rng = np.random.default_rng(0)
    out = gaussian_filter(rng.normal(size=(16, 40, 40)), (1.5, 1, 1))
    out /= out.std()
    out[8, 20, 20] += 300.0
    sharp: np.ndarray = 50 + gaussian_filter(out, (0, 1, 1)) + rng.normal(0, 0.02, out.shape)
    return sharp.astype(np.float32)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    viewer = make_napari_viewer_proxy()
    viewer.add_image(stack(), name="confocal", **COMMON)
    moved = shift(stack(), [-m for m in MOVE], order=3, mode="nearest")
    made = {"napari_lfm": {"role": "volume"}}
    viewer.add_image(3 * moved, name="result", metadata=made, **COMMON)
    return viewer


@pytest.fixture
def widget(viewer: Any) -> Any:
    widget = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Evaluate")
    return widget


def done(qtbot: Any, widget: Any) -> None:
    qtbot.waitUntil(lambda: not widget.controller.busy, timeout=30_000)


def test_alone_it_is_resolution(qtbot: Any, widget: Any) -> None:
    view = widget.view
    assert view.image_combo.currentText() == "result"
    assert view.truth_combo.currentText() == "(none)"
    assert "16 planes of 40" in view.input_text.text()
    assert "pixels of 0.2" in view.input_text.text()
    assert not view.align_box.isEnabled()
    assert not view.save_button.isEnabled()
    assert view.charts.isHidden()
    view.measure_button.click()
    assert view.stop_button.isVisibleTo(widget)
    done(qtbot, widget)
    assert "Decorrelation" in view.table.text()
    assert "PSNR" not in view.table.text()
    titles = [view.charts.combo.itemText(i) for i in range(view.charts.combo.count())]
    assert titles == ["Fourier shell correlation of the image with itself", "Power spectra", *titles[2:]]
    assert len(titles) == 3
    view.charts.combo.setCurrentIndex(1)
    assert view.charts.view.chart.key == "spectra"
    assert not view.charts.view.grab().isNull()  # paints
    view.measure_button.click()
    done(qtbot, widget)
    assert view.charts.view.chart.key == "spectra"  # what was looked at stays
    assert view.progress_row.isHidden()


def test_against_a_truth_aligned_and_saved(qtbot: Any, widget: Any, viewer: Any, tmp_path: Path) -> None:
    c, view = widget.controller, widget.view
    view.truth_chosen.emit(viewer.layers["confocal"])
    assert view.align_box.isEnabled()
    view.measure_button.click()
    done(qtbot, widget)
    before = c.found.scores["psnr_db"]
    view.align_box.setChecked(True)
    view.measure_button.click()
    done(qtbot, widget)
    assert c.found.scores["psnr_db"] > before + 10
    moved = [s / v for s, v in zip(c.found.shift_um.values(), SCALE, strict=True)]
    np.testing.assert_allclose(moved, MOVE, atol=0.1)
    assert "PSNR" in view.table.text()
    assert "Aligned: the image was moved by" in view.table.text()
    assert view.charts.combo.itemText(0) == "Fourier shell correlation with the truth"
    c.save(tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"measures.csv", "fsc-truth.png", "fsc-truth.svg", "fsc-truth.csv", "spectra.png"} <= names
    assert f"{len(names)} files are in" in view.text.text()
    assert "psnr_db" in (tmp_path / "out" / "measures.csv").read_text()
    (tmp_path / "file").touch()
    c.save(tmp_path / "file")
    assert "failed" in view.text.text() or "file" in view.text.text()
    # another layer: what was measured of this one is gone
    view.truth_chosen.emit(None)
    assert c.found is None
    assert view.table.text() == ""
    assert not view.save_button.isEnabled()


def test_width_along_a_line(qtbot: Any, widget: Any, viewer: Any) -> None:
    c, view = widget.controller, widget.view
    c.choose(viewer.layers["confocal"], None)
    assert not view.line_button.isEnabled()
    view.draw_button.click()
    layer = viewer.layers["profile line"]
    assert layer.mode == "add_line"
    np.testing.assert_allclose(layer.scale, SCALE)
    view.line_button.click()
    assert "is empty" in view.line_text.text()
    layer.add_lines([[8, 20, 12], [8, 20, 28]])
    view.line_button.click()
    done(qtbot, widget)
    # a point, blurred by one pixel
    assert c.found.profile.fwhm_gauss_um == pytest.approx(2.355 * 0.2, rel=0.05)
    assert "FWHM 0.4" in view.line_text.text()
    assert view.profile.chart.key == "profile"
    assert not view.profile.grab().isNull()
    view.measure_button.click()
    done(qtbot, widget)
    view.draw_button.click()  # the layer that is there
    assert sum(x.name.startswith("profile line") for x in viewer.layers) == 1
    view.line_button.click()
    done(qtbot, widget)
    assert c.found.own is not None and c.found.profile is not None
    viewer.layers.remove("profile line")
    assert not view.line_button.isEnabled()


def test_lines_lie_in_the_world(viewer: Any) -> None:
    """Points of a plane's layer lie in the slice that is shown; offsets of layers count."""
    image = viewer.add_image(stack(), name="there", translate=(1.2, 2.0, 3.0), **COMMON)
    viewer.dims.set_point(0, 1.2 + 8 * 0.4)
    flat = viewer.add_points(np.array([[2.4, 3.4], [4.0, 5.4]]), units=("um",) * 2)
    start, end = line_in(bare(flat), bare(image), bare(viewer))
    np.testing.assert_allclose(start, (4.4, 2.4, 3.4))
    np.testing.assert_allclose(end, (4.4, 4.0, 5.4))
    with pytest.raises(RequestError, match="fewer than two"):
        line_in(viewer.add_points(ndim=3), bare(image), bare(viewer))


def test_of_movies_the_frame_that_is_shown(viewer: Any) -> None:
    movie = np.stack([stack(), 2 * stack()])
    layer = viewer.add_image(
        movie,
        name="movie",
        scale=(1, *SCALE),
        units=("s", "um", "um", "um"),
        axis_labels=("t", "z", "y", "x"),
    )
    viewer.dims.set_current_step(0, 1)
    found = image_of(bare(layer), bare(viewer))
    assert found.dims == ("z", "y", "x")
    np.testing.assert_array_equal(found.values, movie[1])


def test_side_by_side_with_the_difference(qtbot: Any, widget: Any, viewer: Any) -> None:
    c, view = widget.controller, widget.view
    c.choose(viewer.layers["result"], viewer.layers["confocal"])
    third = viewer.add_image(stack(), name="third", **COMMON)
    assert {x.name for x in view.ticked()} == {"result", "confocal"}
    view.difference_box.setChecked(True)
    view.align_box.setChecked(True)
    view.side_button.click()
    done(qtbot, widget)
    assert grid_of(viewer).enabled
    assert not third.visible
    layer = viewer.layers["result - confocal"]
    assert layer.visible
    assert np.abs(layer.data).mean() < 0.2 * np.std(stack())  # factor and shift are taken off
    assert layer.contrast_limits[0] == -layer.contrast_limits[1]
    assert "orange" in view.side_text.text()
    view.tick([bare(third)])
    view.side_button.click()
    done(qtbot, widget)
    assert third.visible
    assert sum(x.name.startswith("result - confocal") for x in viewer.layers) == 1
    view.back_button.click()
    assert not grid_of(viewer).enabled
    view.difference_box.setChecked(False)
    for k in range(view.layer_list.count()):
        view.layer_list.item(k).setCheckState(Qt.CheckState.Unchecked)
    view.side_button.click()
    assert "No layer is ticked" in view.side_text.text()


def test_stop(qtbot: Any, widget: Any, monkeypatch: Any) -> None:
    begun = threading.Event()

    def endless(*args: Any, on_step: Any, **more: Any) -> None:
        begun.set()
        while True:
            on_step(0.5)

    monkeypatch.setattr(panel_module, "evaluate", endless)
    widget.view.measure_button.click()
    assert begun.wait(10)
    assert not widget.view.measure_button.isEnabled()
    widget.view.stop_button.click()
    done(qtbot, widget)
    assert widget.view.text.text() == "Stopped."


def test_what_cannot_be_measured_gets_a_sentence(qtbot: Any, widget: Any, viewer: Any) -> None:
    c, view = widget.controller, widget.view
    cases = (
        (viewer.add_image(np.zeros((16, 16, 16), np.float32), name="dark", **COMMON), "constant"),
        (viewer.add_image(stack()[:3], name="thin", **COMMON), "at least 8"),
        (viewer.add_image(stack(), name="sizeless"), "how large its voxels are"),
    )
    for layer, says in cases:
        c.choose(layer, None)
        view.measure_button.click()
        done(qtbot, widget)
        assert says in view.text.text()
    assert "how large its voxels are" in view.input_text.text()
    c.choose(viewer.layers["result"], viewer.layers["dark"])
    view.measure_button.click()
    done(qtbot, widget)
    assert "constant" in view.text.text()
    while viewer.layers:
        viewer.layers.pop()
    assert view.input_text.text() == "Open an image first."
    assert not view.measure_button.isEnabled()


def test_a_plane_is_fine(qtbot: Any, widget: Any, viewer: Any) -> None:
    layer = viewer.add_image(
        stack()[8], name="plane", scale=(0.2, 0.2), units=("um",) * 2, axis_labels=("y", "x")
    )
    widget.controller.choose(layer, None)
    widget.view.measure_button.click()
    done(qtbot, widget)
    assert "FRC" in widget.view.table.text()
    assert list(widget.controller.found.voxel_um) == ["y", "x"]
