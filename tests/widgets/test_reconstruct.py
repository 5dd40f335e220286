from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.problems import LfmError
from napari_lfm.io.read import read_image
from napari_lfm.widgets import reconstruct, result_export
from napari_lfm.widgets.reconstruct import ReconstructWidget

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(qtbot: Any, viewer: Any, fake_method: Any, microscope: Microscope, monkeypatch: Any) -> Any:
    """The panel with the fake method, a light field and a microscope, ready to run."""
    monkeypatch.setattr(reconstruct, "load_methods", lambda: {"fake": fake_method})
    viewer.add_image(np.random.default_rng(0).poisson(100, (60, 75)).astype(np.uint16), name="raw")
    widget = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Reconstruct")
    c = widget.controller
    c.session.set_microscope(microscope)
    c.session.set_input("lightfield", viewer.layers["raw"])
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    return widget


def end(qtbot: Any, c: Any, act: Any) -> Any:
    with qtbot.waitSignal(c.runner.finished, timeout=20_000) as caught:
        act()
    return caught.args[0]


def release(method: Any, steps: int) -> None:
    for _ in range(steps):
        method.gate.release()


def have_result(qtbot: Any, c: Any) -> None:
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=20_000)


def test_plan_is_told_before_the_run(widget: Any) -> None:
    view = widget.view
    assert "raw, one frame, 60" in view.understood.text()
    assert "no white frame" in view.understood.text()
    assert "5 \N{MULTIPLICATION SIGN} 8" in view.estimate.text()
    assert "10 MB" in view.estimate.text()
    assert view.run_row.run_button.isEnabled()
    assert not view.run_row.stop_button.isEnabled()
    assert not view.run_row.continue_button.isEnabled()


def test_problems_keep_run_away(qtbot: Any, widget: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"z_min_um": 50.0})
    qtbot.waitUntil(lambda: "above the highest" in widget.view.problems.text(), timeout=20_000)
    assert not widget.view.run_row.run_button.isEnabled()
    widget.view.form.reset()
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    c.session.set_input("lightfield", None)
    qtbot.waitUntil(lambda: "No light field is chosen" in widget.view.problems.text(), timeout=20_000)
    assert not widget.view.run_row.run_button.isEnabled()


def test_run_gives_a_placed_layer_with_provenance(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    outcome = end(qtbot, c, widget.view.run_row.run_button.click)
    assert outcome.status == "finished"
    layer = viewer.layers["volume (raw)"]
    np.testing.assert_allclose(layer.scale, (1.0, 0.5, 0.5))
    np.testing.assert_allclose(layer.translate, (-2.0, 1.0, 1.5))
    assert [str(u) for u in layer.units] == ["micrometer"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    assert layer.metadata["napari_lfm"]["role"] == "volume"
    assert layer.metadata["napari_lfm"]["provenance"]["method"] == "fake"
    assert float(layer.data.max()) == 10.0
    # a result is no input
    assert "volume (raw)" not in [one.name for one in c.session.candidates()]
    assert "Done" in widget.view.run_row.text.text()
    assert widget.view.run_row.curve.values == (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5)


def test_contrast_limits_stay_those_of_the_first_preview(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    layer = viewer.layers["volume (raw)"]
    before = tuple(layer.contrast_limits)
    assert before[1] <= 4.0
    widget.view.contrast_button.click()
    assert tuple(layer.contrast_limits) != before


def test_stop_keeps_the_last_preview(qtbot: Any, widget: Any, viewer: Any, fake_method: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"iterations": 1000})
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    fake_method.gate = threading.Semaphore(0)
    c.run()
    release(fake_method, 3)
    qtbot.waitUntil(lambda: viewer.layers["volume (raw)"].opacity == 1, timeout=20_000)
    qtbot.waitUntil(lambda: fake_method.steps == 3)
    assert widget.view.run_row.stop_button.isEnabled()

    def act() -> None:
        widget.view.run_row.stop_button.click()
        assert "Stopping" in widget.view.run_row.text.text()
        release(fake_method, 1)

    outcome = end(qtbot, c, act)
    assert outcome.status == "stopped"
    assert fake_method.steps == 4
    assert float(viewer.layers["volume (raw)"].data.max()) == 8.0
    assert "Stopped" in widget.view.run_row.text.text()
    have_result(qtbot, c)
    # the record says how many iterations were done, so that the script gives this volume again
    assert c.results.result.provenance["parameters"]["iterations"] == 4
    record = viewer.layers["volume (raw)"].metadata["napari_lfm"]["provenance"]
    assert record["parameters"]["iterations"] == 4


def test_continue_sharpens_the_same_layer(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    have_result(qtbot, c)
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    assert widget.view.run_row.continue_button.isEnabled()
    before = viewer.layers["volume (raw)"]
    end(qtbot, c, widget.view.run_row.continue_button.click)
    assert [layer.name for layer in viewer.layers] == ["raw", "volume (raw)"]
    assert viewer.layers["volume (raw)"] == before
    assert float(before.data.max()) == 20.0
    assert len(widget.view.run_row.curve.values) == 10


def test_second_run_makes_a_second_layer(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    end(qtbot, c, c.run)
    assert sum("volume" in layer.name for layer in viewer.layers) == 2


def test_failure_is_one_sentence_in_the_panel(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"fail_at": 3})
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    outcome = end(qtbot, c, c.run)
    assert outcome.status == "failed"
    assert "The light field is all zero." in widget.view.run_row.text.text()
    assert "Traceback" not in widget.view.run_row.text.text()
    assert "volume (raw)" in viewer.layers  # what had come before stays


def test_failure_before_the_first_preview_leaves_no_layer(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"fail_at": 1})
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    outcome = end(qtbot, c, c.run)
    assert outcome.status == "failed"
    assert [layer.name for layer in viewer.layers] == ["raw"]


def test_result_layer_deleted_in_the_middle(qtbot: Any, widget: Any, viewer: Any, fake_method: Any) -> None:
    c = widget.controller
    fake_method.gate = threading.Semaphore(0)
    c.run()
    release(fake_method, 2)
    qtbot.waitUntil(lambda: viewer.layers["volume (raw)"].opacity == 1, timeout=20_000)
    del viewer.layers["volume (raw)"]
    shown = []
    c.runner.previewed.connect(shown.append)
    release(fake_method, 1)
    qtbot.waitUntil(lambda: bool(shown), timeout=20_000)
    assert "volume (raw)" not in viewer.layers
    outcome = end(qtbot, c, lambda: release(fake_method, 2))
    assert outcome.status == "finished"
    assert float(viewer.layers["volume (raw)"].data.max()) == 10.0


def test_input_layer_deleted_in_the_middle(qtbot: Any, widget: Any, viewer: Any, fake_method: Any) -> None:
    c = widget.controller
    fake_method.gate = threading.Semaphore(0)
    c.run()
    release(fake_method, 1)
    qtbot.waitUntil(lambda: fake_method.steps == 1)
    del viewer.layers["raw"]
    outcome = end(qtbot, c, lambda: release(fake_method, 4))
    assert outcome.status == "finished"
    assert float(viewer.layers["volume (raw)"].data.max()) == 10.0
    qtbot.waitUntil(lambda: "No light field is chosen" in widget.view.problems.text(), timeout=20_000)


def test_viewer_closed_in_the_middle(qtbot: Any, widget: Any, viewer: Any, fake_method: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"iterations": 100_000})
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    crew = widget.crew
    c.run()
    qtbot.waitUntil(lambda: fake_method.steps > 5, timeout=20_000)
    viewer.close()
    qtbot.waitUntil(lambda: crew.closed, timeout=20_000)
    gc.collect()
    assert fake_method.closed.wait(20)
    steps = fake_method.steps
    qtbot.wait(50)
    assert fake_method.steps == steps


def test_panel_closed_in_the_middle(qtbot: Any, widget: Any, viewer: Any, fake_method: Any) -> None:
    c = widget.controller
    widget.view.form.set_values({"iterations": 100_000})
    qtbot.waitUntil(lambda: c.ready, timeout=20_000)
    crew = widget.crew
    c.run()
    qtbot.waitUntil(lambda: viewer.layers["volume (raw)"].opacity == 1, timeout=20_000)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: crew.closed, timeout=20_000)
    gc.collect()
    assert fake_method.closed.wait(20)
    assert "volume (raw)" in viewer.layers


def test_closed_panels_leave_nothing_behind(qtbot: Any, widget: Any, viewer: Any) -> None:
    gone = weakref.ref(widget.controller)
    session = weakref.ref(widget.controller.session)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: widget.crew.closed, timeout=20_000)
    widget.__dict__.clear()

    def left() -> bool:
        gc.collect()
        return gone() is None and session() is None

    # Qt lets go of connected slots in a later turn of the event loop
    qtbot.waitUntil(left, timeout=20_000)


def test_save_and_read_back(qtbot: Any, widget: Any, tmp_path: Path) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    have_result(qtbot, c)
    path = tmp_path / "out.tif"
    c.results.save(path)
    qtbot.waitUntil(lambda: "Saved" in widget.view.save_text.text(), timeout=20_000)
    image = read_image(path)
    assert image.dims == ("z", "y", "x")
    np.testing.assert_allclose(image.values.max(), 10.0)
    assert image.attrs["provenance"]["method"] == "fake"


def test_full_disk_is_told_and_nothing_is_lost(
    qtbot: Any, widget: Any, viewer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    have_result(qtbot, c)

    def full(path: Any, result: Any) -> None:
        raise LfmError("The disk is full.", "Choose another folder.")

    monkeypatch.setattr(result_export, "write_result", full)
    c.results.save(tmp_path / "out.tif")
    qtbot.waitUntil(lambda: "The disk is full." in widget.view.save_text.text(), timeout=20_000)
    assert widget.view.save_button.isEnabled()
    assert "volume (raw)" in viewer.layers
    assert c.results.result is not None


def test_copy_as_script(qtbot: Any, widget: Any, qapp: Any) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    have_result(qtbot, c)
    widget.view.command_button.click()
    assert "napari-lfm run fake" in qapp.clipboard().text()
    widget.view.python_button.click()
    compile(qapp.clipboard().text(), "script", "exec")


def test_region_from_a_drawn_rectangle(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    widget.view.draw_button.click()
    layer = viewer.layers["region"]
    assert str(layer.mode) == "add_rectangle"
    pixel = c.session.microscope.object_pixel_um
    layer.add_rectangles(np.array([[10, 20], [40, 70]]) * pixel)
    qtbot.waitUntil(lambda: str(layer.mode) == "pan_zoom", timeout=20_000)
    qtbot.waitUntil(lambda: "Region:" in widget.view.understood.text(), timeout=20_000)
    outcome = end(qtbot, c, c.run)
    np.testing.assert_allclose(outcome.request.region_px, (10, 20, 41, 71), atol=1)
    # a second rectangle replaces the first
    layer.add_rectangles(np.array([[0, 0], [20, 20]]) * pixel)
    qtbot.waitUntil(lambda: len(layer.data) == 1, timeout=20_000)
    assert c.region.region_um[0] == pytest.approx(0.0)
    # without a rectangle it is the whole field again
    del viewer.layers["region"]
    assert c.state().region_um is None


def test_check_lays_prediction_beside_measurement(
    qtbot: Any, widget: Any, viewer: Any, monkeypatch: Any
) -> None:
    import sys
    from types import ModuleType, SimpleNamespace

    from napari_lfm.core.labelled import labelled

    c = widget.controller
    end(qtbot, c, c.run)
    have_result(qtbot, c)
    frame = np.random.default_rng(1).random((60, 75))
    pixel = c.session.microscope.object_pixel_um
    image = labelled(frame, ("y", "x"), {"y": pixel, "x": pixel})
    seen = []

    def reproject(volume: Any, request: Any) -> Any:
        seen.append((volume, request.continue_from))
        return SimpleNamespace(
            measured=image,
            predicted=image * 0.9,
            residual=image * 0.1,
            relative_residual=0.1,
            expected_noise=0.05,
            message="Good.",
        )

    fake = ModuleType("napari_lfm.methods.reproject")
    fake.reproject = reproject  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_lfm.methods.reproject", fake)
    widget.view.check_button.click()
    qtbot.waitUntil(lambda: "residual (raw)" in viewer.layers, timeout=20_000)
    assert "Good." in widget.view.check_text.text()
    assert seen[0][1] == 5
    three = [viewer.layers[f"{part} (raw)"] for part in ("measured", "predicted", "residual")]
    assert [layer.visible for layer in viewer.layers] == [False, False, True, True, True]
    lefts = [float(layer.translate[-1]) for layer in three]
    assert lefts[0] == 0.0
    assert lefts[1] > 75 * pixel
    assert lefts[2] > 2 * 75 * pixel
    # measured and predicted share their grey scale; the residual's is symmetric about nothing
    assert tuple(three[0].contrast_limits) == tuple(three[1].contrast_limits)
    assert three[2].contrast_limits[0] == -three[2].contrast_limits[1]
    # one over the other they lie in the world of the raw frame again
    c.results.compare.choose("residual")
    assert [layer.visible for layer in three] == [False, False, True]
    assert float(three[2].translate[-1]) == 0.0
    c.results.compare.choose("volume")
    assert viewer.layers["volume (raw)"].visible
    assert not any(layer.visible for layer in three)


def test_show_in_3d_hides_what_is_flat(qtbot: Any, widget: Any, viewer: Any) -> None:
    c = widget.controller
    end(qtbot, c, c.run)
    widget.view.volume_button.click()
    assert viewer.dims.ndisplay == 3
    assert not viewer.layers["raw"].visible
    widget.view.volume_button.click()
    assert viewer.dims.ndisplay == 2
    assert viewer.layers["raw"].visible
