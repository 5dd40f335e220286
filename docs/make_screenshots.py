"""Take the pictures of the window that the documentation shows, and time it.

Runs the whole way on the giant-vesicle recording: open, calibrate, look around, run, stop, continue,
check. Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1100x24" python docs/make_screenshots.py DATA docs/images
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import QElapsedTimer, QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_lfm.optics.presets import load_microscope
from napari_lfm.training.events import Validated
from napari_lfm.widgets.light_field import LightFieldWidget
from napari_lfm.widgets.microscope_dialog import editor_dialog, wizard_dialog
from napari_lfm.widgets.reconstruct import ReconstructWidget
from napari_lfm.widgets.train import TrainWidget

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (1600, 1000)


class StallProbe:
    """Measures how long the event loop did not come round: a timer that should fire every 5 ms."""

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._clock = QElapsedTimer()
        self.gaps_ms: list[float] = []

    def start(self) -> None:
        """Begin to measure."""
        self.gaps_ms = []
        self._clock.start()
        self._timer.start()

    def stop(self) -> float:
        """Return the longest gap in ms."""
        self._timer.stop()
        return max(self.gaps_ms, default=0.0)

    def _tick(self) -> None:
        self.gaps_ms.append(self._clock.nsecsElapsed() / 1e6)
        self._clock.restart()


def wait(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Run the event loop until a condition holds."""
    loop, timer = QEventLoop(), QTimer()
    begin = time.monotonic()

    def look() -> None:
        if condition() or time.monotonic() - begin > seconds:
            loop.quit()

    timer.timeout.connect(look)
    timer.start(10)
    loop.exec()
    timer.stop()
    if not condition():
        raise TimeoutError(f"nothing happened within {seconds:.0f} s")


def pause(seconds: float) -> None:
    """Run the event loop for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() >= end, seconds + 5)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder GUVExperim1")
    parser.add_argument("out", type=Path)
    parser.add_argument("--microscope", default="mbl-60x1.2w")
    parser.add_argument("--only", choices=["lfmnet", "train"], help="only these pictures")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the training that is shown")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.only == "lfmnet":
        print(json.dumps(lfmnet_pictures(arguments.data, arguments.out), indent=2))
        return
    if arguments.only == "train":
        print(json.dumps(train_picture(arguments.data, arguments.out, arguments.minutes), indent=2))
        return
    figures: dict[str, Any] = {}
    probe = StallProbe()

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)

    def shot(name: str) -> None:
        pause(0.4)
        viewer.screenshot(str(arguments.out / f"{name}.png"), canvas_only=False, flash=False)

    begin = time.perf_counter()
    _, light = viewer.window.add_plugin_dock_widget("napari-lfm", "Light field")
    figures["open_light_field_panel_ms"] = 1e3 * (time.perf_counter() - begin)
    assert isinstance(light, LightFieldWidget)
    pause(0.3)
    shot("light-field-empty")
    for name, dialog in (
        ("microscope-editor", editor_dialog(load_microscope(arguments.microscope), light.view)),
        ("microscope-wizard", wizard_dialog(parent=light.view)),
    ):
        dialog.show()
        pause(0.4)
        dialog.grab().save(str(arguments.out / f"{name}.png"))
        dialog.close()
    probe.start()
    light.controller.open(sorted(arguments.data.glob("*.tif")))
    wait(lambda: len(viewer.layers) == 3)
    light.controller.choose_microscope(arguments.microscope)
    light.controller.lattice.calibrate()
    wait(lambda: light.controller.quick_look.prepared is not None)
    pause(0.3)
    figures["longest_stall_opening_and_calibrating_ms"] = probe.stop()
    shot("light-field-calibrated")
    viewer.scene.camera.zoom *= 5
    shot("light-field-overlay")
    viewer.reset_view()
    figures |= slider_latency(light)
    light.view.depth_slider.setValue(30)
    shot("light-field-quick-look")
    viewer.layers["quick look"].visible = False

    probe.start()
    begin = time.perf_counter()
    _, rec = viewer.window.add_plugin_dock_widget("napari-lfm", "Reconstruct", tabify=True)
    assert isinstance(rec, ReconstructWidget)
    figures["open_reconstruct_panel_ms"] = 1e3 * (time.perf_counter() - begin)
    c = rec.controller
    wait(lambda: c.ready)
    pause(0.3)
    figures["longest_stall_opening_reconstruct_ms"] = probe.stop()
    shot("reconstruct-before")

    form = rec.view.form
    assert form is not None
    form.set_values({"z_min_um": -7.0, "z_max_um": 7.0, "z_step_um": 1.0, "iterations": 400})
    wait(lambda: c.ready)
    figures |= run_and_stop(rec, probe, shot)
    wait(lambda: c.results.result is not None)
    shot("reconstruct-stopped")
    form.set_values({"iterations": 15})
    wait(lambda: c.ready)
    done: list[Any] = []
    c.runner.finished.connect(done.append)
    c.run()
    pause(0.1)
    probe.start()
    wait(lambda: bool(done) and c.results.result is not None)
    figures["longest_stall_15_iterations_ms"] = probe.stop()
    figures["seconds_15_iterations"] = done[-1].seconds
    rec.view.scroll_to_result()
    shot("reconstruct-after")
    rec.view.contrast_button.click()
    rec.view.volume_button.click()
    pause(0.5)
    shot("volume-3d")
    rec.view.volume_button.click()
    begin = time.perf_counter()
    c.results.check()
    wait(lambda: any("residual" in layer.name for layer in viewer.layers))
    figures["seconds_check"] = time.perf_counter() - begin
    viewer.reset_view()
    shot("reconstruct-checked")
    path = arguments.out / "guv-volume.tif"
    c.results.save(path)
    wait(lambda: "Saved" in rec.view.save_text.text())
    path.unlink()
    text = json.dumps({k: round(v, 2) for k, v in figures.items()}, indent=2)
    (arguments.out / "window-figures.json").write_text(text + "\n")
    print(text)
    viewer.close()
    print(json.dumps(lfmnet_pictures(arguments.data, arguments.out), indent=2))


def opened(viewer: napari.Viewer, data: Path) -> LightFieldWidget:
    """Open the *Light field* panel and drop the three files on it."""
    _, light = viewer.window.add_plugin_dock_widget("napari-lfm", "Light field")
    assert isinstance(light, LightFieldWidget)
    light.controller.open(sorted(data.glob("*.tif")))
    wait(lambda: len(viewer.layers) == 3)
    return light


def train_picture(data: Path, out: Path, minutes: float) -> dict[str, float]:
    """Train a network for the vesicle's microscope and take a picture near the end; return its figures."""
    # the model is for the picture alone: in the user's folder it would go before the one in the package
    os.environ["NAPARI_LFM_HOME"] = tempfile.mkdtemp()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    light = opened(viewer, data)
    light.controller.choose_microscope("mbl-60x1.2w")
    light.controller.lattice.calibrate()
    wait(lambda: light.controller.quick_look.prepared is not None)
    _, train = viewer.window.add_plugin_dock_widget("napari-lfm", "Train a network", tabify=True)
    assert isinstance(train, TrainWidget)
    c, view = train.controller, train.view
    name = f"picture-{int(time.time())}"
    view.form.set_values(
        {
            "z_min_um": -7.0,
            "z_max_um": 7.0,
            "z_step_um": 1.0,
            "specimen": "vesicles",
            "minutes": minutes,
            "name": name,
        }
    )
    wait(lambda: c.ready)
    probe = StallProbe()
    scores: list[float] = []
    done: list[Any] = []
    c.runner.progressed.connect(
        lambda events: scores.extend(e.score for e in events if isinstance(e, Validated))
    )
    c.runner.finished.connect(done.append)
    c.run()
    probe.start()
    wait(lambda: len(scores) >= 15 or bool(done), 60 * minutes + 600)
    figures = {"longest_stall_training_ms": probe.stop(), "validation_psnr_db": scores[-1]}
    view.scroll_to_course()
    pause(0.4)
    viewer.screenshot(str(out / "train.png"), canvas_only=False, flash=False)
    begin = time.perf_counter()
    c.stop()
    wait(lambda: bool(done), 60)
    figures["seconds_to_stop"] = time.perf_counter() - begin
    viewer.close()
    return figures


def lfmnet_pictures(data: Path, out: Path) -> dict[str, float]:
    """Take the pictures of a trained network in the *Reconstruct* panel; return how long things took.

    As somebody does it who has the files and nothing else: drop them, choose LFMNet, run. Then a
    deconvolution, and both held against the measurement.
    """
    figures: dict[str, float] = {}
    begin = time.perf_counter()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)

    def shot(name: str) -> None:
        pause(0.4)
        viewer.screenshot(str(out / f"{name}.png"), canvas_only=False, flash=False)

    opened(viewer, data)
    _, rec = viewer.window.add_plugin_dock_widget("napari-lfm", "Reconstruct", tabify=True)
    assert isinstance(rec, ReconstructWidget)
    c, view = rec.controller, rec.view
    wait(lambda: "lfmnet" in c.methods)

    def choose(method: str) -> None:
        index = view.method_combo.findData(method)
        view.method_combo.setCurrentIndex(index)
        view.method_combo.activated.emit(index)
        wait(lambda: c.ready)

    def run() -> Any:
        done: list[Any] = []
        c.runner.finished.connect(done.append)
        c.run()
        wait(lambda: bool(done) and c.results.result is not None, 300)
        wait(lambda: c.ready)
        return done[-1]

    probe = StallProbe()
    probe.start()
    choose("lfmnet")
    figures["longest_stall_choosing_ms"] = probe.stop()
    shot("reconstruct-lfmnet")
    pause(0.1)
    outcome = run()
    figures["seconds_of_the_run"] = outcome.seconds
    figures["seconds_from_opening_napari_to_the_volume"] = time.perf_counter() - begin
    volume = c.layers.layer("volume")
    assert volume is not None
    show_middle(viewer, volume)
    view.scroll_to_result()
    shot("reconstruct-lfmnet-after")
    choose("deconvolve-lightfield")
    assert view.form is not None
    view.form.set_values({"z_min_um": -7.0, "z_max_um": 7.0, "z_step_um": 1.0, "iterations": 15})
    wait(lambda: c.ready)
    run()
    c.results.check()
    wait(lambda: any("residual" in layer.name for layer in viewer.layers))
    wait(lambda: not c.results.is_judging, 300)
    c.results.judge_others()
    wait(lambda: not c.results.is_judging, 300)
    pause(0.3)
    rec.view.scroll_to_result()
    shot("reconstruct-lfmnet-residuals")
    viewer.close()
    return {k: round(v, 2) for k, v in figures.items()}


def show_middle(viewer: napari.Viewer, layer: Any) -> None:
    """Look at the middle plane of a volume, alone."""
    for one in viewer.layers:
        one.visible = one is layer or one == layer
    viewer.dims.set_current_step(0, layer.data.shape[0] // 2)
    viewer.reset_view()


def slider_latency(light: LightFieldWidget) -> dict[str, float]:
    """Return how long a slider move takes to new layer data, and to new pixels on the screen."""
    out = {}
    for name, slider, values in (
        ("refocus", light.view.depth_slider, range(-40, 41, 4)),
        ("perspective", light.view.u_slider, range(-5, 6)),
    ):
        data_ms, drawn_ms = [], []
        for value in values:
            begin = time.perf_counter()
            slider.setValue(value)
            data_ms.append(1e3 * (time.perf_counter() - begin))
            QApplication.processEvents()
            drawn_ms.append(1e3 * (time.perf_counter() - begin))
        out[f"{name}_data_median_ms"] = float(np.median(data_ms[2:]))
        out[f"{name}_data_max_ms"] = max(data_ms[2:])
        out[f"{name}_drawn_median_ms"] = float(np.median(drawn_ms[2:]))
    return out


def run_and_stop(rec: ReconstructWidget, probe: StallProbe, shot: Callable[[str], None]) -> dict[str, float]:
    """Run, take a picture in the middle, stop; return stall and stop times."""
    c = rec.controller
    done: list[Any] = []
    c.runner.finished.connect(done.append)
    begin = time.perf_counter()
    c.run()
    click_ms = 1e3 * (time.perf_counter() - begin)
    pause(0.1)  # what the click itself has left to draw
    probe.start()
    wait(lambda: len(rec.view.run_row.curve.values) > 10)
    pause(1.0)
    stall = probe.stop()
    shot("reconstruct-running")
    begin = time.perf_counter()
    c.stop()
    wait(lambda: not c.runner.is_running)
    stop_ms = 1e3 * (time.perf_counter() - begin)
    wait(lambda: bool(done))
    return {
        "run_click_ms": click_ms,
        "longest_stall_during_run_ms": stall,
        "stop_to_worker_end_ms": stop_ms,
        "ms_per_iteration_with_preview": 1e3 * done[0].seconds / max(1, done[0].steps),
    }


if __name__ == "__main__":
    main()
