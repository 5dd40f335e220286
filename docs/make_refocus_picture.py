"""Take the pictures of the *Refocus* panel that the documentation shows.

One plane of a simulated worm, which no training saw, is refocused in the panel: a plane beside the image and
its deconvolution, a curved surface through four points, the same in 3-D, and where to trust it. Needs a
screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_refocus_picture.py docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari
import numpy as np
from make_screenshots import pause, wait
from qtpy.QtWidgets import QScrollArea

from napari_lfm.optics.defocus import DefocusOptics
from napari_lfm.simulation.focal_scenes import worm
from napari_lfm.simulation.focal_stacks import FocalSettings, focal_stack
from napari_lfm.widgets.refocus import RefocusWidget

SIZE = (1600, 1240)
SEED = 77
SETTINGS = FocalSettings(shape=(21, 512, 512), step_um=1.0)
PLANE_UM = -2.0
POINTS = ((-1.0, 140, 208), (-2.0, 240, 165), (-2.0, 265, 215), (-2.5, 360, 110), (-2.0, 450, 35))
"""z, and row and column of what is clicked."""
PHOTONS = 600.0


def recorded() -> np.ndarray:
    """Return the middle plane of a stack as a camera records it, 16 bit."""
    planes = focal_stack(SETTINGS, DefocusOptics(), SEED, worm).widefield.numpy()
    light = planes[SETTINGS.shape[0] // 2]
    photons = np.random.default_rng(SEED).poisson(PHOTONS * light / np.percentile(light, 99.9) + 20)
    return np.asarray(100 + photons, np.uint16)


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    pixel = SETTINGS.pixel_um
    viewer.add_image(
        recorded(), name="worm", scale=(pixel, pixel), units=("um", "um"), axis_labels=("y", "x")
    )
    panel = RefocusWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Refocus", area="right")
    control, view = panel.controller, panel.view
    bar = view.findChildren(QScrollArea)[0].verticalScrollBar()

    def settle() -> None:
        wait(lambda: control.latency_s is not None and control.is_settled, 120)
        pause(1.0)

    def take(name: str) -> None:
        pause(1.0)
        viewer.screenshot(str(out / f"{name}.png"), canvas_only=False, flash=False)

    settle()
    view.set_z(PLANE_UM)
    settle()
    take("refocus")
    control.checks.deconvolve()
    wait(lambda: not control.checks.is_running, 120)
    settle()
    take("refocus-beside")
    view.beside_box.setChecked(False)
    control.surface.choose_kind("points")
    view.surface.click_button.setChecked(True)
    assert control.surface.layer is not None
    for z, row, column in POINTS:
        view.set_z(z)
        control.surface.layer.add([row, column])
        pause(0.2)
    view.surface.click_button.setChecked(False)
    view.surface.show_button.setChecked(True)
    wait(lambda: control.heights is not None, 120)
    settle()
    take("refocus-surface")
    view.surface.colour_combo.setCurrentIndex(1)
    view.surface.solid_button.setChecked(True)
    take("refocus-3d")
    view.surface.solid_button.setChecked(False)
    control.surface.choose_kind("plane")
    settle()
    control.checks.trust()
    wait(lambda: not control.checks.is_running, 300)
    if control.surface.layer is not None:
        control.surface.layer.visible = False
    bar.setValue(bar.maximum())
    take("refocus-trust")
    viewer.close()


if __name__ == "__main__":
    main()
