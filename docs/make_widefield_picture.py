"""Take the pictures of stacks in the *Reconstruct* and *Compare stacks* panels that the documentation shows.

Blurs a stack of real nuclei (``cells3d/nuclei.tif``, in the folder that is given) as a 60x/1.4 oil objective
would, with haze from above and below and noise; deconvolves it in the panel, and holds it against the truth.
Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_widefield_picture.py DATA docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import napari
import numpy as np
import torch
from make_screenshots import pause, wait
from qtpy.QtWidgets import QScrollArea

from napari_lfm.io.read import read_image
from napari_lfm.optics.presets import load_microscope
from napari_lfm.optics.stack_blur import StackBlur
from napari_lfm.optics.widefield_psf import WidefieldOptics, widefield_psf
from napari_lfm.widgets.compare_stacks import CompareStacksWidget
from napari_lfm.widgets.reconstruct import ReconstructWidget

SIZE = (1600, 1240)
VOXEL_UM = (0.29, 0.26, 0.26)
PHOTONS = 400.0
"""Brightest voxel of the blurred stack."""


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out: Path = arguments.out
    truth = read_image(arguments.data / "cells3d" / "nuclei.tif", axes="ZYX", voxel_um=VOXEL_UM)
    microscope = load_microscope("wf-20x0.8")
    volume = np.asarray(truth.values[10:50, 64:192, 64:192], np.float32)
    recorded = photograph(volume, WidefieldOptics.of(microscope))
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    placed: dict[str, Any] = {"scale": VOXEL_UM, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    hidden = {"napari_lfm": {"role": "truth"}}
    viewer.add_image(volume, name="truth", visible=False, metadata=hidden, **placed)
    viewer.add_image(recorded, name="nuclei, wide field", **placed)
    panel = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Reconstruct", area="right")
    control = panel.controller
    wait(lambda: bool(control.methods))
    panel.session.set_microscope(microscope)
    panel.view.show_methods([(m.title, name) for name, m in control.methods.items()], "deconvolve-widefield")
    panel.view.method_chosen.emit("deconvolve-widefield")
    control.stack.choose(viewer.layers["nuclei, wide field"])
    assert panel.view.form is not None
    panel.view.form.set_values({"iterations": 20})
    wait(lambda: control.ready)
    viewer.dims.set_current_step(0, 22)
    control.run()
    wait(lambda: not control.runner.is_running and control.results.result is not None, 300)
    panel.view.contrast_button.click()
    pause(1.0)
    panel.view.findChildren(QScrollArea)[0].verticalScrollBar().setValue(0)
    pause(0.5)
    viewer.screenshot(str(out / "reconstruct-stack.png"), canvas_only=False, flash=False)
    panel.view.compare_stacks_button.click()
    pause(0.5)
    compare = next(
        w for w in map(inner, viewer.window.dock_widgets.values()) if isinstance(w, CompareStacksWidget)
    )
    tools = compare.controller
    tools.measure()
    wait(lambda: bool(compare.view.plot.series) and not tools.busy)
    tools.make_map()
    wait(lambda: tools.map_layer is not None and not tools.busy)
    tools.show_beside()
    viewer.dims.set_current_step(0, 30)
    pause(1.5)
    viewer.reset_view()
    bar = compare.view.findChildren(QScrollArea)[0].verticalScrollBar()
    bar.setValue(0)
    pause(1.0)
    viewer.screenshot(str(out / "compare-stacks.png"), canvas_only=False, flash=False)
    viewer.close()


def photograph(volume: np.ndarray, optics: WidefieldOptics) -> np.ndarray:
    """Return what a camera records of a volume that glows: blurred through all planes, noisy, 16 bit."""
    psf = widefield_psf(optics, (39, 81, 81), VOXEL_UM)
    blur = StackBlur(psf, volume.shape, margin=(0, 0, 0))
    light = blur.forward(torch.from_numpy(volume)).numpy().clip(0)
    photons = np.random.default_rng(1).poisson(PHOTONS * light / light.max() + 2.0)
    return np.asarray(100 + 2 * photons, np.uint16)


def inner(widget: Any) -> Any:
    """Return the widget behind napari's read guard."""
    return getattr(widget, "__wrapped__", widget)


if __name__ == "__main__":
    main()
