"""Take the picture of the *Register pair* panel: a simulated pair in haze, registered and overlaid.

Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_register_picture.py docs/images

With two stacks after the folder (wide-field, confocal) these are shown instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari
from make_screenshots import pause, wait

from napari_lfm.bench._registration_pairs import CASES, HAZY, PairMaker
from napari_lfm.io.layers import layer_data_from
from napari_lfm.io.read import read_image
from napari_lfm.widgets.register import RegisterWidget

SIZE = (1600, 1240)


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("stacks", type=Path, nargs="*")
    parser.add_argument("--turn", action="store_true", help="look for a rotation too")
    given = parser.parse_args()
    if given.stacks:
        pair = [read_image(path, kind="stack") for path in given.stacks]
    else:
        pair = list(PairMaker().pair(CASES[1], HAZY))
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    for image in pair:
        data, arguments, _ = layer_data_from(image, str(image.name))
        viewer.add_image(data, **arguments)
    panel = RegisterWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Register pair", area="right")
    panel.view.turn_box.setChecked(given.turn)
    panel.view.overlay_box.setChecked(True)
    pause(1.0)
    panel.controller.run()
    wait(lambda: not panel.controller.is_running, 300)
    pause(0.5)
    panel.controller.apply()
    pause(1.0)
    viewer.screenshot(str(given.out / "register.png"), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
