"""Take the pictures of the *Restore isotropic* panel that the documentation shows.

A recorded stack of nuclear envelopes (NEUBIAS training resources, CC BY 4.0), whose file does not say how far
its planes are apart, is opened, trained on and restored in the panel. Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_isotropic_picture.py STACK.tif docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari
from make_screenshots import pause, wait

from napari_lfm.widgets.isotropic import IsotropicWidget

SIZE = (1600, 1240)
STEP_UM = 1.0
"""Distance of the planes, which stands in the record of the file's first form."""


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    panel = IsotropicWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Restore isotropic", area="right")
    control, view = panel.controller, panel.view
    runs, row = control.runs, view.run_row

    def take(name: str) -> None:
        pause(1.0)
        viewer.screenshot(str(out / f"{name}.png"), canvas_only=False, flash=False)

    control.stack.open([arguments.stack])
    wait(lambda: "how large its voxels" in view.problems.text(), 60)
    take("isotropic-asks")
    view.stack.size_boxes["z"].setValue(STEP_UM)
    row.minutes_box.setValue(arguments.minutes)
    wait(lambda: control.plan is not None and control.blur is not None, 120)
    wait(row.run_button.isEnabled, 60)
    row.run_button.click()
    most = 60 * arguments.minutes
    wait(lambda: runs.course is not None and runs.course.elapsed > 0.6 * arguments.minutes, 3 * most)
    take("isotropic-train")
    wait(lambda: runs.result is not None, 3 * most + 600)
    view.resolution_button.click()
    wait(lambda: "<table>" in view.resolution_text.text(), 300)
    view.beside_button.setChecked(True)
    pause(0.5)
    view.scroll_to(view.result_box)
    take("isotropic-beside")
    viewer.close()


if __name__ == "__main__":
    main()
