"""The demo's window: napari with the demo's layers, in a process of its own.

A window system that is not really there aborts the whole process, and torch should be
loaded before Qt: both are reasons not to open a window in the process that did the work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from napari_lfm.cli._console import say

PICTURE = "window.png"
_SECONDS = 180


def show_window(folder: Path, stay: bool) -> Path | None:
    """Open the demo's files in napari, take a picture, and stay open where somebody is looking.

    Returns
    -------
    Path or None
        The picture; None where there is no napari, no Qt or no screen.
    """
    reason = why_no_window()
    if reason:
        say(f"No picture of the napari window: {reason}.")
        return None
    stay = stay and somebody_looks()
    picture = folder / PICTURE
    picture.unlink(missing_ok=True)
    if stay:
        say("Opening napari; close its window to end the demo.")
    words = [sys.executable, "-m", "napari_lfm.cli._window", str(folder), "stay" if stay else "leave"]
    try:
        done = subprocess.run(
            words,
            check=False,
            timeout=None if stay else _SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except subprocess.TimeoutExpired:
        say("No picture of the napari window: it took too long to open.")
        return None
    if done.returncode != 0 and not picture.exists():
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it did not open"]
        say(f"No picture of the napari window: {last[0]}")
        return None
    return picture


def why_no_window() -> str:
    """Return why no window can be opened here, empty where one can."""
    if find_spec("napari") is None:
        return "napari is not installed (pip install 'napari-lfm[all]')"
    if not any(find_spec(name) for name in ("PyQt6", "PySide6", "PyQt5", "PySide2")):
        return "napari has no Qt binding"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no screen"
    return ""


def somebody_looks() -> bool:
    """Return whether the screen is a real one; ``NAPARI_LFM_DEMO_BLOCK`` (0 or 1) decides where it is set."""
    wish = os.environ.get("NAPARI_LFM_DEMO_BLOCK")
    if wish is not None:
        return wish.strip().lower() not in ("", "0", "false", "no")
    virtual = "xvfb" in os.environ.get(
        "XAUTHORITY", ""
    )  # xvfb-run keeps its authority in a folder of its name
    return not (virtual or os.environ.get("CI"))


def main(folder: Path, stay: bool) -> None:
    """Open the files of a demo in napari with the plugin's panels, and save a picture of the window."""
    import torch  # noqa: F401  (before Qt: see 'napari-lfm doctor')

    import napari  # isort: skip
    from napari_lfm.io.layers import layer_data_from
    from napari_lfm.io.point_layers import points_layer_data_from
    from napari_lfm.io.points import read_points
    from napari_lfm.io.read import read_image, read_lightfield

    viewer = napari.Viewer(title="napari-lfm demo", show=True)
    measurement = folder / "measurement"
    raw, white, dark = (read_lightfield(measurement / f"{n}.ome.tif") for n in ("raw", "white", "dark"))
    truth = read_image(measurement / "truth.ome.tif", kind=None)
    volume = read_image(folder / "volume.ome.tif", kind=None)
    beads = read_points(folder / "beads.csv")
    for data, arguments, kind in (
        layer_data_from(dark, "dark frame", "dark", visible=False),
        layer_data_from(white, "white frame", "white", visible=False),
        layer_data_from(raw, "light field", "lightfield", visible=False),
        layer_data_from(truth, "truth", "truth", colormap="gray", visible=False),
        layer_data_from(volume, "volume", "volume", colormap="magma"),
        points_layer_data_from(beads, "beads"),
    ):
        getattr(viewer, f"add_{kind}")(data, **arguments)
    viewer.dims.set_point(0, 2.0)
    for name in ("Light field", "Reconstruct"):
        viewer.window.add_plugin_dock_widget("napari-lfm", name, tabify=name != "Light field")
    viewer.window.resize(1500, 950)
    viewer.reset_view()
    for _ in range(20):  # let the canvas draw what was added
        napari.qt.get_qapp().processEvents()
    viewer.screenshot(str(folder / PICTURE), canvas_only=False, flash=False)
    if stay:
        napari.run()
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "stay")
