"""Take the pictures of WFCON-Net in *Reconstruct* and *Compare stacks* that the documentation shows.

A simulated stack of tissue that no training saw is deconvolved and run through the network in the panel, and
both are held against the confocal stack. Needs a screen, or a virtual one::

    xvfb-run -s "-screen 0 1700x1300x24" python docs/make_wfcon_picture.py docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import napari
from make_widefield_picture import SIZE, inner, pause, wait
from qtpy.QtWidgets import QScrollArea

from napari_lfm.bench._tissue_scenes import make_stacks
from napari_lfm.optics.presets import load_microscope
from napari_lfm.widgets.compare_stacks import CompareStacksWidget
from napari_lfm.widgets.reconstruct import ReconstructWidget

PLANE = 44


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    stack = make_stacks("phantoms", "middle", 1)[0]
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    placed: dict[str, Any] = {
        "scale": (0.5, 0.1083, 0.1083), "units": ("um",) * 3, "axis_labels": ("z", "y", "x"),
    }  # fmt: skip
    viewer.add_image(
        stack.confocal, name="confocal", visible=False, metadata={"napari_lfm": {"role": "truth"}}, **placed
    )
    viewer.add_image(stack.widefield.values, name="tissue", **placed)
    panel = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Reconstruct", area="right")
    control = panel.controller
    wait(lambda: bool(control.methods))
    panel.session.set_microscope(load_microscope("wf-60x1.4o"))
    titles = [(m.title, name) for name, m in control.methods.items()]
    for method, wishes in (("deconvolve-widefield", {"iterations": 12, "accelerate": True}), ("wfcon", {})):
        panel.view.show_methods(titles, method)
        panel.view.method_chosen.emit(method)
        control.stack.choose(viewer.layers["tissue"])
        assert panel.view.form is not None
        panel.view.form.set_values(wishes)
        wait(lambda: control.ready)
        viewer.dims.set_current_step(0, PLANE)
        before = len(viewer.layers)
        control.run()
        wait(lambda n=before: not control.runner.is_running and len(viewer.layers) > n)  # type: ignore[misc]
        pause(1.0)
    viewer.dims.set_current_step(0, PLANE)
    panel.view.contrast_button.click()
    panel.view.findChildren(QScrollArea)[0].verticalScrollBar().setValue(0)
    pause(1.0)
    viewer.screenshot(str(out / "reconstruct-wfcon.png"), canvas_only=False, flash=False)
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
    viewer.dims.set_current_step(0, PLANE)
    pause(1.5)
    viewer.reset_view()
    compare.view.findChildren(QScrollArea)[0].verticalScrollBar().setValue(0)
    pause(1.0)
    viewer.screenshot(str(out / "compare-wfcon.png"), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
