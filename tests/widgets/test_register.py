"""The *Register pair* panel: two layers in, one moved, and every way back."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.events import Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.training import registration as module
from napari_lfm.training.registration import Estimate, Registration
from napari_lfm.widgets.register import RegisterWidget
from napari_lfm.widgets.register_input import click_callback, table_html
from napari_lfm.widgets.session import layer_record

UM = {"scale": (0.5, 0.2, 0.2), "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
SHIFT = (-1.0, 0.4, -0.2)


def stacks() -> tuple[np.ndarray, np.ndarray]:
    """A blurred stack two planes further along than a sharp one, two rows before and one column after it."""
    rng = np.random.default_rng(3)
    sharp = gaussian_filter(rng.random((16, 48, 48)) ** 8, (0.6, 1, 1)).astype(np.float32)
    blurred = gaussian_filter(np.roll(sharp, (2, -2, 1), (0, 1, 2)), (1, 1, 1))
    return 1000 * blurred, 1000 * sharp


def registration(accepted: bool = True, rotation_deg: float = 0.0) -> Registration:
    voxels = tuple(s / v for s, v in zip(SHIFT, UM["scale"], strict=True))
    z = np.linspace(-2, 2, 9)
    both = tuple(
        Estimate(name, SHIFT, voxels, sure, z, np.exp(-((z + 1) ** 2)))  # type: ignore[arg-type]
        for name, sure in (("psf", 0.9), ("correlation", 0.4))
    )
    return Registration(
        SHIFT, voxels, rotation_deg, 1.0, (4.0, 4.0), both, accepted, accepted,  # type: ignore[arg-type]
        "Both agree." if accepted else "They differ by 3.0 voxels.", ("One note.",),
        labelled(np.ones((3, 3, 3)), "zyx", dict(zip("zyx", UM["scale"], strict=True))),
        np.arange(16.0), np.full(16, 0.1), np.full(16, 0.8),
    )  # fmt: skip


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer()
    for data, name in zip(stacks(), ("tissue wide-field", "tissue confocal"), strict=True):
        viewer.add_image(data, name=name, **UM)
    return viewer


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> RegisterWidget:
    panel = RegisterWidget(viewer)
    viewer.window.add_dock_widget(panel, name="Register pair")
    return panel


def answer(
    monkeypatch: pytest.MonkeyPatch, found: Registration | None, gate: Any = None
) -> list[dict[str, Any]]:
    """Let a search give this, at once or after the gate opens; returns what it was asked with."""
    asked: list[dict[str, Any]] = []

    def register_pair(moving: Any, fixed: Any, **options: Any) -> Any:
        asked.append({"moving": moving.name, "fixed": fixed.name, **options})
        yield Progress(1, 2, "Correlating")
        if gate is not None:
            gate.wait(10)
        yield Progress(2, 2, "Correlating")
        yield found

    monkeypatch.setattr(module, "register_pair", register_pair)
    return asked


def run(panel: RegisterWidget, qtbot: Any) -> None:
    panel.view.run_button.click()
    qtbot.waitUntil(lambda: not panel.controller.is_running, timeout=60_000)


def test_the_real_search_moves_the_layer_and_back(panel: RegisterWidget, viewer: Any, qtbot: Any) -> None:
    view = panel.view
    assert view.moving_combo.currentText() == "tissue wide-field"
    assert view.fixed_combo.currentText() == "tissue confocal"
    run(panel, qtbot)
    np.testing.assert_allclose(view.shift_um(), SHIFT, atol=0.06)
    assert "Accepted" in view.text.text() and "by the PSF" in view.table.text()
    assert len(view.evidence.lines) == 2 and not view.evidence.isHidden()
    layer = viewer.layers["tissue wide-field"]
    assert tuple(layer.translate) == (0, 0, 0)  # nothing moves by itself
    view.apply_button.click()
    np.testing.assert_allclose(layer.translate, view.shift_um())
    assert layer_record(layer)["registration"]["accepted"] is True
    assert [line.name for line in view.profile.lines] == ["confocal", "wide-field before", "wide-field after"]
    sharp, before, after = view.profile.lines
    top = [line.x_um[int(np.nanargmax(line.values))] for line in (sharp, before, after)]
    assert top[0] == pytest.approx(top[2], abs=0.26) and before.dashed and not after.dashed
    view.before_box.setChecked(True)
    assert tuple(layer.translate) == (0, 0, 0)
    view.before_box.setChecked(False)
    view.boxes["x"].setValue(1.0)
    assert layer.translate[2] == pytest.approx(1.0)
    assert layer_record(layer)["registration"]["by"] == "hand"
    view.undo_button.click()
    assert tuple(layer.translate) == (0, 0, 0) and not view.undo_button.isEnabled()
    assert not layer_record(layer)["registration"]


def test_what_is_not_accepted_is_moved_by_hand(
    panel: RegisterWidget, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, registration(accepted=False))
    run(panel, qtbot)
    text = panel.view.text.text()
    assert "Not accepted" in text and "differ by 3.0 voxels" in text and "One note." in text
    assert "by hand" in panel.view.move_text.text()
    assert panel.view.boxes["z"].singleStep() == 0.5  # a plane
    panel.view.boxes["z"].stepUp()
    panel.view.apply_button.click()
    assert viewer.layers["tissue wide-field"].translate[0] == pytest.approx(-0.5)
    assert "+1.95" not in table_html(registration()) and "-2.00" in table_html(registration())


def test_a_turned_stack_becomes_a_new_layer(
    panel: RegisterWidget, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, registration(rotation_deg=10.0))
    panel.view.turn_box.setChecked(True)
    run(panel, qtbot)
    assert asked == [{"moving": "tissue wide-field", "fixed": "tissue confocal", "find_rotation": True}]
    assert "+10.00" in panel.view.table.text()
    panel.view.apply_button.click()
    made = viewer.layers["tissue wide-field registered"]
    assert made.data.shape == (16, 48, 48) and tuple(made.scale) == UM["scale"]
    assert not viewer.layers["tissue wide-field"].visible
    assert layer_record(made)["registration"]["rotation_deg"] == 10.0
    assert panel.view.fixed_combo.findText("tissue wide-field registered") == -1
    panel.view.before_box.setChecked(True)
    assert not made.visible and viewer.layers["tissue wide-field"].visible
    panel.view.undo_button.click()
    assert "tissue wide-field registered" not in viewer.layers
    assert viewer.layers["tissue wide-field"].visible


def test_overlay_and_the_looks_before(panel: RegisterWidget, viewer: Any) -> None:
    wide, sharp = viewer.layers["tissue wide-field"], viewer.layers["tissue confocal"]
    wide.colormap = "viridis"
    panel.view.overlay_box.setChecked(True)
    assert (wide.colormap.name, sharp.colormap.name) == ("magenta", "green")
    assert {str(wide.blending), str(sharp.blending)} == {"additive"}
    panel.view.overlay_box.setChecked(False)
    assert (wide.colormap.name, sharp.colormap.name) == ("viridis", "gray")


def test_stop_and_problems(
    panel: RegisterWidget, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    answer(monkeypatch, registration(), gate)
    panel.view.run_button.click()
    assert panel.view.stop_button.isEnabled() and not panel.view.apply_button.isEnabled()
    panel.view.stop_button.click()
    gate.set()
    qtbot.waitUntil(lambda: not panel.controller.is_running, timeout=10_000)
    assert "Stopped" in panel.view.text.text()
    assert panel.controller.registration is None
    monkeypatch.undo()
    viewer.layers["tissue confocal"].data = np.zeros((16, 48, 48))
    run(panel, qtbot)
    assert "all dark" in panel.view.text.text()
    viewer.layers.remove("tissue confocal")
    assert "Two layers are needed" in panel.view.input_text.text()
    assert not panel.view.run_button.isEnabled() and not panel.view.apply_button.isEnabled()
    panel.controller.choose(panel.controller.moving, panel.controller.moving)
    assert "same layer" in panel.view.input_text.text()
    viewer.add_image(np.zeros((3, 4, 8, 8)), name="movie")
    panel.controller.choose(panel.controller.moving, viewer.layers["movie"])
    assert "not one stack" in panel.view.input_text.text() or "axes" in panel.view.input_text.text()


def test_a_click_chooses_the_profile(panel: RegisterWidget, viewer: Any) -> None:
    assert panel.controller.place_um is not None  # the brightest place at first
    seen: list[tuple[float, float]] = []
    callback = click_callback(lambda: lambda y, x: seen.append((y, x)))
    event = type("Event", (), {"pos": np.array([10, 10]), "type": "mouse_press"})()
    fake = type("Viewer", (), {})()
    fake.cursor = type("Cursor", (), {"position": (0.0, 2.4, 3.2)})()
    fake.dims = type("Dims", (), {"ndisplay": 2})()
    going = callback(fake, event)
    next(going)
    event.type = "mouse_release"
    assert next(going, None) is None and seen == [(2.4, 3.2)]
    going = callback(fake, event)
    next(going)
    event.pos = np.array([60, 10])  # a drag
    assert next(going, None) is None and len(seen) == 1
    panel.controller.choose_place(2.4, 3.2)
    assert "y 2.4, x 3.2" in panel.view.profile_text.text()
    data = viewer.layers["tissue confocal"].data
    np.testing.assert_allclose(
        panel.view.profile.lines[0].values, data[:, 11:14, 15:18].mean((1, 2)), rtol=1e-5
    )
    panel.controller.choose_place(500.0, 3.0)
    assert panel.view.profile.isHidden()
