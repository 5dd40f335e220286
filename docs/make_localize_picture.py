"""Take the pictures of the *Localize* panel that the documentation shows, and time a click.

Simulates a light field of eight cell bodies, records it with noise and haze, opens the panel, finds all,
selects one. Needs a screen, or a virtual one, and a model for the microscope::

    xvfb-run -s "-screen 0 1700x1100x24" python docs/make_localize_picture.py docs/images
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication, QScrollArea

from napari_lfm.bench._localize_movie import MovieSetup, simulate
from napari_lfm.lightfield.views import lenslet_image
from napari_lfm.optics.presets import load_microscope
from napari_lfm.simulation.neuron_fields import OPTICS, NeuronFields, NeuronSettings
from napari_lfm.widgets.localize import LocalizeWidget

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lfm.optics.microscope import Microscope

SIZE = (1600, 1240)
# depth, lenslet row and column, radius, brightness
NEURONS = np.array(
    [
        [-10.0, 5.2, 6.1, 5.0, 1.0],
        [0.0, 8.4, 15.7, 4.5, 0.8],
        [12.0, 14.6, 5.3, 5.5, 0.9],
        [25.0, 15.3, 16.2, 5.0, 1.0],
        [33.0, 10.4, 10.7, 6.0, 1.0],
        [20.0, 18.6, 10.2, 5.0, 0.9],
        [6.0, 4.0, 18.0, 4.5, 0.8],
        [-15.0, 18.0, 18.6, 5.0, 1.0],
    ]
)


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    microscope = load_microscope("imperial-25x1.0w")
    n = microscope.n_pixels
    assert n is not None
    fields = NeuronFields(microscope, n, NeuronSettings(optics=OPTICS[:1]), seed=77)
    recorded = fields.recorded(fields.clean(0, NEURONS), np.random.default_rng(1), 800.0, 0.5)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    layer = viewer.add_image(lenslet_image(recorded.views), name="cortex")
    panel = LocalizeWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Localize neurons", area="right")
    panel.session.set_input("lightfield", layer)
    panel.session.set_layout(f"lenslet:{n}")
    panel.session.set_microscope(microscope)
    control = panel.controller
    pause(1.0)
    control.detect()
    wait(lambda: not control.is_running)
    found = control.points.table()
    place = found[["z_um", "y_um", "x_um"]].to_numpy(float)
    middle = (n - 1) / 2
    pixel = microscope.lenslet_um / n if microscope.lenslet_um else 1.0
    truth = np.stack([NEURONS[:, 0], *(pixel * (NEURONS[:, k] * n + middle) for k in (1, 2))], 1)
    nearest = np.linalg.norm(truth[:, None] - place, axis=2).argmin(1)
    error = place[nearest] - truth
    control.points.select(tuple(place[np.argmax(place[:, 0])]))
    pause(1.0)
    viewer.screenshot(str(out / "localize.png"), canvas_only=False, flash=False)
    panel.view.click_button.setChecked(True)
    times = []
    for _, y, x in truth:
        begun = time.perf_counter()
        control.click_at(float(y), float(x))
        times.append(1e3 * (time.perf_counter() - begun))
    figures: dict[str, Any] = {
        "found": len(found),
        "rms_error_zyx_um": np.sqrt((error**2).mean(0)).round(2).tolist(),
        "click_ms_median": round(statistics.median(times), 1),
        "click_ms_longest": round(max(times), 1),
    }
    print(json.dumps(figures))
    viewer.close()
    take_movie(out, microscope)


def take_movie(out: Path, microscope: Microscope) -> None:
    """Show a movie with the traces of four neurons."""
    setup = MovieSetup(lenslets=23, neurons=8, frames=120)
    movie, _, _ = simulate(setup, microscope)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    pixel = float(movie.x[1] - movie.x[0])
    layer = viewer.add_image(movie.values, name="spontaneous activity", scale=(1, pixel, pixel))
    panel = LocalizeWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Localize neurons", area="right")
    panel.session.set_input("lightfield", layer)
    panel.session.set_layout(f"lenslet:{microscope.n_pixels}")
    panel.session.set_microscope(microscope)
    control = panel.controller
    pause(1.0)
    control.detect()
    wait(lambda: control.traces is not None and not control.is_running)
    points = control.points.layer
    if points is not None:
        points.selected_data = set(range(min(4, len(points.data))))
    control.show_selected()
    pause(0.5)
    bar = panel.view.findChildren(QScrollArea)[0].verticalScrollBar()
    bar.setValue(bar.maximum())
    pause(1.0)
    viewer.screenshot(str(out / "localize-movie.png"), canvas_only=False, flash=False)
    viewer.close()


def wait(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Let the window live until a condition holds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        pause(0.02)


def pause(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
