"""The whole way through the window on a real recording: drop, calibrate, run, stop, continue, check, save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.io.read import read_image
from napari_lfm.widgets.light_field import LightFieldWidget
from napari_lfm.widgets.reconstruct import ReconstructWidget

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_from_files_to_a_saved_volume(
    qtbot: Any, make_napari_viewer_proxy: Any, guv: Path, tmp_path: Path
) -> None:
    viewer = make_napari_viewer_proxy()
    light = LightFieldWidget(viewer)
    viewer.window.add_dock_widget(light, name="Light field")
    light.controller.open(sorted(guv.glob("*.tif")))
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=60_000)
    light.controller.choose_microscope("mbl-60x1.2w")
    light.view.calibrate_button.click()
    qtbot.waitUntil(lambda: light.controller.session.lattice is not None, timeout=120_000)
    np.testing.assert_allclose(light.controller.session.lattice.pitch_px, 15.40, atol=0.03)

    light.view.next_button.click()
    rec = next(w for w in viewer.window.dock_widgets.values() if isinstance(w, ReconstructWidget))
    c = rec.controller
    assert c.session is light.controller.session
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    rec.view.form.set_values({"z_min_um": -7.0, "z_max_um": 7.0, "z_step_um": 2.0, "iterations": 500})
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    assert "8 \N{MULTIPLICATION SIGN} 84 \N{MULTIPLICATION SIGN} 84" in rec.view.estimate.text()
    rec.view.run_row.run_button.click()
    qtbot.waitUntil(lambda: len(rec.view.run_row.curve.values) >= 5, timeout=240_000)
    with qtbot.waitSignal(c.runner.finished, timeout=120_000) as caught:
        rec.view.run_row.stop_button.click()
    stopped = caught.args[0]
    assert stopped.status == "stopped"
    name = "volume (Lightfield_GUVExperim1)"
    layer = viewer.layers[name]
    assert layer.data.shape == (8, 84, 84)
    assert [str(u) for u in layer.units] == ["micrometer"] * 3
    # the volume lies on the raw frame: its field is that of the 28 x 28 lenslets
    np.testing.assert_allclose(
        layer.extent.world[:, 1:], viewer.layers["Lightfield_GUVExperim1"].extent.world, atol=2.0
    )
    before = rec.view.run_row.curve.values[-1]
    qtbot.waitUntil(lambda: c.results.result is not None and c.ready, timeout=120_000)
    rec.view.form.set_values({"iterations": 5})
    with qtbot.waitSignal(c.runner.finished, timeout=240_000) as caught:
        rec.view.run_row.continue_button.click()
    assert caught.args[0].status == "finished"
    assert rec.view.run_row.curve.values[-1] < before
    assert sum("volume" in one.name for one in viewer.layers) == 1

    qtbot.waitUntil(lambda: c.results.result is not None, timeout=120_000)
    steps = c.results.result.provenance["parameters"]["iterations"]
    assert steps == stopped.steps + 5
    rec.view.check_button.click()
    qtbot.waitUntil(lambda: "residual (Lightfield_GUVExperim1)" in viewer.layers, timeout=120_000)
    path = tmp_path / "guv.tif"
    c.results.save(path)
    qtbot.waitUntil(lambda: "Saved" in rec.view.save_text.text(), timeout=60_000)
    saved = read_image(path)
    np.testing.assert_allclose(saved.values, layer.data, rtol=1e-6)
    assert saved.attrs["provenance"]["microscope"]["name"] == "mbl-60x1.2w"
