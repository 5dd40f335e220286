"""The *Simulate* panel: from a volume layer to a recording with its truth, or a sentence why not."""

from __future__ import annotations

from typing import Any, get_type_hints

import numpy as np
import pytest
from napari.layers import Image
from npe2 import PluginManifest

import napari_lfm.widgets.simulate as module
from napari_lfm.core.problems import RequestError
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.widgets.simulate import SimulateWidget, record_volume, simulate_layer
from napari_lfm.widgets.simulation_input import SimulateSettings, checked, proposal, volume_of

UM = {"scale": (2.0, 1.0, 1.0), "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}

TURN = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]


@pytest.fixture
def tiny() -> Microscope:
    """A coarse light-field microscope whose recordings take a second."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=11),
        wavelength_um=0.55,
    )


def ball() -> np.ndarray:
    z, y, x = np.mgrid[-3:4, -20:21, -18:19]
    return (((2 * z) ** 2 + y**2 + x**2) < 36).astype(np.float32)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(qtbot: Any, viewer: Any, tiny: Microscope) -> Any:
    viewer.add_image(ball(), name="ball", translate=(10, 0, 0), **UM)
    widget = SimulateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Simulate")
    widget.controller.microscope = tiny
    widget.controller.fit()
    return widget


def text_of(label: Any) -> str:
    return str(label.text())


def test_the_whole_volume_is_proposed(widget: Any) -> None:
    values = widget.view.form.values()
    assert values["focus_um"] == 16
    assert (values["z_min_um"], values["z_max_um"], values["z_step_um"]) == (-6, 6, 2)
    # 41 and 37 um in lenslets of 5 um, and one more on each side
    assert (values["lenslet_rows"], values["lenslet_columns"]) == (11, 10)
    assert widget.view.run_button.isEnabled()
    assert widget.view.layer_combo.currentText() == "ball"


def test_a_recording_becomes_three_layers_in_micrometres(qtbot: Any, viewer: Any, widget: Any) -> None:
    widget.view.form.set_values({"z_min_um": -2.0, "z_max_um": 2.0, "lenslet_rows": 7, "lenslet_columns": 7})
    widget.view.run_button.click()
    assert widget.view.stop_button.isEnabled()
    assert not widget.view.run_button.isEnabled()
    qtbot.waitUntil(lambda: len(viewer.layers) == 4, timeout=60_000)
    layers = {layer.name: layer for layer in viewer.layers}
    raw, white, truth = (layers[f"ball {n}"] for n in ("light field", "white frame", "truth"))
    for layer in (raw, white, truth):
        assert {str(u) for u in layer.units} <= {"um", "micrometer"}
    assert raw.scale == pytest.approx((0.55, 0.55))
    assert raw.data.dtype == np.uint16
    assert raw.data.shape == white.data.shape
    assert tuple(truth.axis_labels) == ("z", "y", "x")
    assert truth.scale[0] == 2
    assert truth.translate[0] == -2
    # the ball's middle was put in focus, and into the middle of the frame
    middle = np.array(truth.data.shape) // 2
    assert truth.data[tuple(middle)] == pytest.approx(1, abs=0.05)
    assert raw.metadata["napari_lfm"]["role"] == "lightfield"
    assert raw.metadata["napari_lfm"]["microscope"]["name"] == "tiny"
    assert "Done" in text_of(widget.view.text)
    assert widget.view.form.values()["lenslet_rows"] == 7  # what was typed stays
    assert [layer.name for layer in viewer.layers if layer.visible] == ["ball light field"]
    assert widget.view.run_button.isEnabled()


def test_stop_adds_nothing(qtbot: Any, viewer: Any, widget: Any, monkeypatch: Any) -> None:
    def endless(*_: Any, on_progress: Any, **__: Any) -> None:
        while True:
            on_progress(1, 9, "Simulating the light field")

    monkeypatch.setattr("napari_lfm.simulation.lightfield.simulate_lightfield", endless)
    widget.view.run_button.click()
    qtbot.waitUntil(lambda: widget.view.bar.maximum() == 9, timeout=10_000)
    widget.view.stop_button.click()
    qtbot.waitUntil(lambda: not widget.controller.is_running, timeout=10_000)
    assert len(viewer.layers) == 1
    assert "No layer was added" in text_of(widget.view.text)
    assert widget.view.run_button.isEnabled()


@pytest.mark.parametrize(
    ("data", "arguments", "sentence"),
    [
        (np.ones((5, 6)), {}, "flat image"),
        (np.ones((4, 5, 6)), {}, "no voxel size"),
        (np.ones((2, 4, 5, 6)), {"scale": (1, 2, 1, 1), "units": ("s", "um", "um", "um")}, "has the axes"),
        (np.ones((1, 5, 6)), UM, "single plane"),
        (np.ones((4, 5, 6, 3), np.uint8), {"rgb": True}, "colour picture"),
        (np.ones((4, 5, 6)), {**UM, "rotate": TURN}, "turned in space"),
    ],
    ids=["2-D", "no units", "movie", "one plane", "colour", "turned"],
)
def test_wrong_layers_are_refused(data: np.ndarray, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        volume_of(Image(data, name="wrong", contrast_limits=(0, 1), **arguments))


@pytest.mark.parametrize(
    ("value", "sentence"), [(-1.0, "negative values"), (np.nan, "not numbers"), (0.0, "black")]
)
def test_wrong_values_are_refused(value: float, sentence: str) -> None:
    layer = Image(np.full((4, 5, 6), value, np.float32), contrast_limits=(0, 1), **UM)
    with pytest.raises(RequestError, match=sentence):
        checked(volume_of(layer), 0.0)


def test_what_is_wrong_is_said_in_the_panel(qtbot: Any, viewer: Any, widget: Any) -> None:
    widget.controller.choose_layer(
        viewer.add_image(np.ones((5, 6)), name="flat", scale=(1, 1), units=("um",) * 2)
    )
    assert "is a flat image" in text_of(widget.view.input_text)
    assert not widget.view.run_button.isEnabled()
    viewer.layers["ball"].data = np.full((7, 9, 9), -1.0, np.float32)
    widget.controller.choose_layer(viewer.layers["ball"])
    widget.view.run_button.click()
    qtbot.waitUntil(lambda: not widget.controller.is_running, timeout=20_000)
    assert "negative values" in text_of(widget.view.text)
    assert len(viewer.layers) == 2


def test_the_layer_that_goes_is_forgotten(viewer: Any, widget: Any) -> None:
    viewer.layers.remove("ball")
    assert not widget.view.run_button.isEnabled()
    assert "No volume is chosen" in text_of(widget.view.input_text)


def test_planes_upside_down_are_refused(tiny: Microscope) -> None:
    settings = SimulateSettings(z_min_um=3, z_max_um=1)
    with pytest.raises(RequestError, match="above the highest"):
        record_volume(volume_of(Image(ball(), **UM)), tiny, settings, lambda *_: None)


def test_no_light_field_microscope_no_run(widget: Any) -> None:
    widget.controller.microscope = widget.controller.microscope.model_copy(update={"lenslets": None})
    widget.controller.fit()
    assert "without a lenslet array" in text_of(widget.view.input_text)
    assert not widget.view.run_button.isEnabled()
    widget.controller.choose_microscope("mbl-60x1.2w")
    assert widget.view.run_button.isEnabled()


def test_the_menu_command_takes_the_selected_layer(viewer: Any, widget: Any) -> None:
    viewer.layers.selection.active = viewer.add_image(ball(), name="other", **UM)
    simulate_layer(viewer)
    assert widget.view.layer_combo.currentText() == "other"
    spots = viewer.add_points(np.ones((2, 3)), name="spots", units=("um",) * 3)
    viewer.layers.selection.active = spots
    simulate_layer(viewer)
    assert "spots" in text_of(widget.view.input_text)
    assert "is not an image layer" in text_of(widget.view.input_text)
    assert not widget.view.run_button.isEnabled()


def test_the_command_is_in_the_layers_menu() -> None:
    manifest = PluginManifest.from_distribution("napari-lfm")
    items = (manifest.contributions.menus or {})["napari/layers/transform"]
    assert "napari-lfm.simulate_layer" in [item.command for item in items]
    # napari finds the viewer by the annotation
    assert get_type_hints(module.simulate_layer)["viewer"].__name__ == "Viewer"


def test_the_input_is_not_changed(tiny: Microscope) -> None:
    volume = volume_of(Image(ball(), translate=(10, 0, 0), **UM))
    before = volume.copy(deep=True)
    shifted = checked(volume, 16.0)
    assert volume.identical(before)
    assert float(shifted.z[0]) == -6
    assert proposal(volume, tiny)["z_step_um"] == 2
