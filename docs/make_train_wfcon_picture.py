"""Take the picture of the *Train* panel with WFCON-Net that the documentation shows, and time the window.

Simulates pairs of stacks of thick tissue, shifted against each other, as a folder; trains on it, with
registration, and takes the picture near the end. Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_train_wfcon_picture.py docs/images
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
from make_screenshots import StallProbe, pause, wait

from napari_lfm.core.events import Progress
from napari_lfm.io.read import read_image
from napari_lfm.simulation.tissue_files import write_tissue
from napari_lfm.training.events import Validated
from napari_lfm.widgets.train import TITLE, TrainWidget

SIZE = (1600, 1240)
SHAPE = (40, 256, 256)
SHIFT_PX = (2, 5, -4)


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--vgg", default="", help="file with weights of VGG16")
    arguments = parser.parse_args()
    # the model is for the picture alone
    home = Path(tempfile.mkdtemp())
    os.environ["NAPARI_LFM_HOME"] = str(home)
    folder = home / "slice 12"
    for _ in write_tissue(folder, arguments.pairs, SHAPE, shift_px=SHIFT_PX):
        pass
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    for side in ("confocal", "widefield"):
        stack = read_image(folder / side / "pair-003.ome.tif")
        scale = [float(stack.coords[d][1] - stack.coords[d][0]) for d in "zyx"]
        low, high = float(stack.quantile(0.01)), float(stack.quantile(0.998))
        viewer.add_image(
            stack.values,
            name=f"pair-003, {side}",
            scale=scale,
            units=("um",) * 3,
            contrast_limits=(low, high),
        )
    viewer.canvas.grid.enabled = True
    viewer.dims.set_current_step(0, 12)
    panel = TrainWidget(viewer)
    viewer.window.add_dock_widget(panel, name=TITLE, area="right")
    panel.choose("wfcon")
    pause(0.5)
    viewer.reset_view()
    control, view = panel.wfcon, panel.wfcon.view
    control.pairs.open([folder])
    if arguments.vgg:
        view.show_vgg(arguments.vgg)
    view.form.set_values({"minutes": arguments.minutes})
    wait(lambda: control.ready)
    scores: list[Validated] = []
    moved: list[str] = []
    done: list[Any] = []

    def note(events: list[Any]) -> None:
        scores.extend(e for e in events if isinstance(e, Validated))
        moved.extend(e.message for e in events if isinstance(e, Progress) and "moved by" in e.message)

    control.runner.progressed.connect(note)
    control.runner.finished.connect(done.append)
    probe = StallProbe()
    control.run()
    probe.start()
    seconds = 60 * arguments.minutes + 900
    course = control.course
    assert course is not None
    wait(lambda: bool(done) or course.elapsed > 0.9 * arguments.minutes, seconds)
    figures: dict[str, Any] = {"longest_stall_ms": round(probe.stop()), "pairs": dict.fromkeys(moved)}
    view.scroll_to_course()
    pause(0.4)
    viewer.screenshot(str(arguments.out / "train-wfcon.png"), canvas_only=False, flash=False)
    wait(lambda: bool(done), seconds)
    figures |= {"steps": course.step, "minutes": round(course.elapsed, 2), "best": dict(course.best_figures)}
    figures["pairs"] = list(figures["pairs"])
    print(json.dumps(figures, indent=2))
    begin = time.monotonic()
    viewer.close()
    print(f"closed in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
