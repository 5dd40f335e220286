"""Take the picture of the *Evaluate* panel: nuclei blurred along z against themselves, and side by side.

Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_evaluate_picture.py STACK docs/images

STACK is any volume with voxel sizes (``--voxel-um Z,Y,X`` where the file has none).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari
import numpy as np
from make_screenshots import pause, wait
from qtpy.QtWidgets import QScrollArea
from scipy.ndimage import gaussian_filter, shift

from napari_lfm.io.layers import layer_data_from
from napari_lfm.io.read import read_image
from napari_lfm.widgets.evaluate import EvaluateWidget

SIZE = (1600, 1240)
BLUR_UM = 0.8
SHIFT_VOXELS = (0.4, 1.7, -2.3)


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--voxel-um", help="Z,Y,X where the file does not say it")
    given = parser.parse_args()
    sizes = [float(v) for v in given.voxel_um.split(",")] if given.voxel_um else None
    truth = read_image(given.stack, kind="stack", axes="ZYX" if sizes else None, voxel_um=sizes)
    values = np.asarray(truth.values, np.float32)
    step = float(truth.z[1] - truth.z[0])
    blurred = shift(gaussian_filter(values, (BLUR_UM / step, 0, 0)), SHIFT_VOXELS, order=3, mode="nearest")
    blurred += np.random.default_rng(0).normal(0, 0.01 * np.ptp(values), values.shape)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    for image, name in ((truth, "nuclei"), (truth.copy(data=blurred), "blurred along z")):
        data, arguments, _ = layer_data_from(image, name)
        viewer.add_image(data, **arguments)
    panel = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Evaluate", area="right")
    c = panel.controller
    c.choose(viewer.layers["blurred along z"], viewer.layers["nuclei"])
    panel.view.align_box.setChecked(True)
    viewer.dims.order = (1, 0, 2)  # the section along z shows what the figures say
    pause(1.0)
    c.measure()
    wait(lambda: not c.busy, 300)
    c.draw_line()
    c.line.add_lines([[3, 127, 199], [56, 127, 199]])
    c.line.mode = "pan_zoom"
    viewer.reset_view()
    c.measure_line()
    wait(lambda: not c.busy, 300)
    pause(1.0)
    viewer.screenshot(str(given.out / "evaluate.png"), canvas_only=False, flash=False)
    viewer.dims.order = (0, 1, 2)
    viewer.dims.set_current_step(0, values.shape[0] // 2)
    panel.view.difference_box.setChecked(True)
    c.beside.show_beside()
    wait(lambda: not c.busy, 300)
    pause(0.5)
    pause(0.5)  # the panel has grown
    panel.findChild(QScrollArea).ensureWidgetVisible(panel.view.side_text)
    pause(1.0)
    viewer.screenshot(str(given.out / "evaluate-side-by-side.png"), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
