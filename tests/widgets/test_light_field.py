from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.optics.presets import user_microscope_names
from napari_lfm.widgets.lattice_controller import fitting_presets
from napari_lfm.widgets.light_field import LightFieldWidget
from napari_lfm.widgets.microscope_dialog import editor_dialog, wizard_dialog
from napari_lfm.widgets.opening import read_files
from napari_lfm.widgets.session import session_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope

PITCH = 15.4


def discs(shape: tuple[int, int] = (170, 200), origin: tuple[float, float] = (9.3, 8.7)) -> np.ndarray:
    """A white frame: a disc behind every lenslet of a square lattice."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    dy = (y - origin[0] + PITCH / 2) % PITCH - PITCH / 2
    dx = (x - origin[1] + PITCH / 2) % PITCH - PITCH / 2
    light = np.exp(-((np.hypot(dy, dx) / 6.0) ** 2))
    rng = np.random.default_rng(1)
    return rng.poisson(200 + 20_000 * light).astype(np.uint16)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    white = discs()
    frames = {"Lightfield_x": rng.poisson(white / 20), "Radiometry_x": white, "Dark_x": 0 * white + 100}
    out = []
    for name, frame in frames.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, frame.astype(np.uint16))
        out.append(path)
    return out


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(qtbot: Any, viewer: Any) -> Any:
    widget = LightFieldWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Light field")
    return widget


@pytest.fixture
def ready(qtbot: Any, widget: Any, viewer: Any, files: list[Path], microscope: Microscope) -> Any:
    """The panel with three files open, the microscope chosen, and the lattice found."""
    c = widget.controller
    c.open(files)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=20_000)
    c.session.set_microscope(microscope)
    widget.view.calibrate_button.click()
    qtbot.waitUntil(lambda: c.quick_look.prepared is not None, timeout=60_000)
    return widget


def test_dropped_files_open_in_their_roles(qtbot: Any, widget: Any, viewer: Any, files: list[Path]) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in files])
    drop = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    widget.view.drop_zone.dropEvent(drop)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=20_000)
    session = widget.controller.session
    assert session.input_name("lightfield") == "Lightfield_x"
    assert session.input_name("white") == "Radiometry_x"
    assert session.input_name("dark") == "Dark_x"
    assert widget.view.combos["white"].currentText() == "Radiometry_x"
    # the light field lies on top, and only it is seen
    assert [layer.name for layer in viewer.layers if layer.visible] == ["Lightfield_x"]
    assert viewer.layers[-1].name == "Lightfield_x"
    assert session.infos()["Lightfield_x"].path == str(files[0])


def test_open_button_takes_several_files(
    qtbot: Any, widget: Any, viewer: Any, files: list[Path], monkeypatch: Any
) -> None:
    chosen = SimpleNamespace(getOpenFileNames=lambda *a: ([str(p) for p in files[:2]], ""))
    monkeypatch.setattr("napari_lfm.widgets.drop_zone.QFileDialog", chosen)
    widget.view.drop_zone.open_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=20_000)


def test_bad_files_are_sentences_and_good_ones_open(tmp_path: Path, files: list[Path]) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("no image")
    missing = tmp_path / "missing.tif"
    opened, problems = read_files([text, files[0], missing])
    assert [name for name, _, _ in opened] == ["Lightfield_x.tif"]
    assert len(problems) == 2
    assert all(p.message.endswith(".") and "Traceback" not in str(p) for p in problems)


def test_microscope_gives_layers_their_size(
    qtbot: Any, widget: Any, viewer: Any, files: list[Path], microscope: Microscope
) -> None:
    c = widget.controller
    c.open(files)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=20_000)
    c.session.set_microscope(microscope)
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.scale, 6.5 / 60)
        assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
        assert tuple(layer.axis_labels) == ("y", "x")
    assert "15.38 pixels per lenslet" in widget.view.microscope.text.text()


def test_calibration_is_told_and_drawn(ready: Any, viewer: Any) -> None:
    c = ready.controller
    lattice = c.session.lattice
    np.testing.assert_allclose(lattice.pitch_px, PITCH, atol=0.02)
    text = ready.view.lattice_text.text()
    assert f"{lattice.rows} \N{MULTIPLICATION SIGN} {lattice.columns} lenslets" in text
    assert "residual" in text
    overlay = viewer.layers["lenslet centres"]
    np.testing.assert_allclose(overlay.data, lattice.centres_px().reshape(-1, 2))
    np.testing.assert_allclose(overlay.scale, 6.5 / 60)
    assert list(overlay.features["residual_px"]) == pytest.approx(
        np.nan_to_num(np.linalg.norm(c.lattice.residual.reshape(-1, 2), axis=1))
    )
    record = viewer.layers["Lightfield_x"].metadata["napari_lfm"]
    assert Lattice.from_json(record["lattice"]) == lattice
    ready.view.overlay_box.setChecked(False)
    assert not overlay.visible


def test_nothing_to_find_is_a_sentence(qtbot: Any, widget: Any, viewer: Any) -> None:
    viewer.add_image(np.random.default_rng(0).random((200, 200)), name="lightfield noise")
    c = widget.controller
    assert c.session.input_name("lightfield") == "lightfield noise"  # told by its name
    c.lattice.calibrate()
    qtbot.waitUntil(lambda: "No lenslet lattice was found" in widget.view.lattice_text.text(), timeout=20_000)
    assert c.session.lattice is None


def test_wrong_microscope_says_what_was_seen_and_what_fits(ready: Any, microscope: Microscope) -> None:
    wrong = microscope.model_copy(update={"camera": microscope.camera.model_copy(update={"pixel_um": 4.0})})
    ready.controller.session.set_microscope(wrong)
    text = ready.view.lattice_text.text()
    assert "15.4" in text
    assert "25.00 px" in text
    assert "mbl-60x1.2w" in text
    assert "mbl-60x1.2w" in fitting_presets(ready.controller.session.lattice)


def test_nudge_turn_and_drag(qtbot: Any, ready: Any, viewer: Any) -> None:
    c = ready.controller
    before = c.session.lattice
    ready.view.nudge_buttons[0.0, 1.0].click()
    moved = c.session.lattice.centres_px()[0, 0] - before.centres_px()[0, 0]
    np.testing.assert_allclose(moved, (0.0, 0.1), atol=1e-6)
    c.lattice.turn(0.05)
    assert c.session.lattice.rotation_deg - before.rotation_deg == pytest.approx(0.05, abs=1e-6)
    # dragging one mark: the whole lattice follows
    before = c.session.lattice
    ready.view.drag_button.setChecked(True)
    overlay = viewer.layers["lenslet centres"]
    assert str(overlay.mode) == "select"
    index = 3 * before.columns + 4
    data = np.array(overlay.data)
    data[index] += (0.7, -0.4)
    overlay.data = data
    qtbot.waitUntil(lambda: c.session.lattice != before, timeout=20_000)
    after = c.session.lattice
    np.testing.assert_allclose(after.centres_px()[3, 4], before.centres_px()[3, 4] + (0.7, -0.4), atol=1e-6)
    np.testing.assert_allclose(overlay.data, after.centres_px().reshape(-1, 2))
    assert after.source == "manual"
    ready.view.drag_button.setChecked(False)
    assert str(overlay.mode) == "pan_zoom"


def test_grid_file_round_trip(ready: Any, tmp_path: Path) -> None:
    c = ready.controller
    lattice, path = c.session.lattice, tmp_path / "grid.json"
    c.lattice.save_grid(path)
    c.lattice.nudge(1.0, 0.0)
    assert c.session.lattice != lattice
    c.lattice.load_grid(path)
    assert c.session.lattice == lattice
    path.write_text("{}")
    c.lattice.load_grid(path)
    assert "not a lenslet grid" in ready.view.lattice_text.text()
    assert c.session.lattice == lattice


def test_quick_look_follows_the_sliders(ready: Any, viewer: Any) -> None:
    ready.view.depth_slider.setValue(20)
    layer = viewer.layers["quick look"]
    assert "+2.0" in ready.view.depth_label.text()
    prepared = ready.controller.quick_look.prepared
    np.testing.assert_allclose(layer.data, prepared.focused(2.0))
    kept = layer.data
    ready.view.u_slider.setValue(2)
    np.testing.assert_allclose(layer.data, prepared.seen_from(0, 2))
    assert layer.data.shape == kept.shape
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    # the layer lies on the raw frame: same extent within a lenslet
    raw = viewer.layers["Lightfield_x"].extent.world
    np.testing.assert_allclose(layer.extent.world, raw, atol=2 * PITCH * 6.5 / 60)
    # deleting it in between is no error
    viewer.layers.remove("quick look")
    ready.view.depth_slider.setValue(-10)
    assert "quick look" in viewer.layers


def test_input_removed_empties_its_role(ready: Any, viewer: Any) -> None:
    viewer.layers.remove("Radiometry_x")
    assert ready.controller.session.input("white") is None
    assert ready.view.combos["white"].currentText() == "(none)"
    viewer.layers.remove("Lightfield_x")
    assert not ready.view.calibrate_button.isEnabled()


def test_session_is_shared_and_found_again_in_the_layers(qtbot: Any, ready: Any, viewer: Any) -> None:
    assert session_of(viewer) is ready.controller.session
    lattice = ready.controller.session.lattice
    # a second panel after the first was closed: roles, optics and lattice come back from the layers
    from napari_lfm.widgets.session import Session

    again = Session(viewer)
    assert again.input_name("lightfield") == "Lightfield_x"
    assert again.input_name("dark") == "Dark_x"
    assert again.lattice == lattice
    assert again.microscope == ready.controller.session.microscope


def test_editor_shows_what_follows_and_saves(qtbot: Any, microscope: Microscope) -> None:
    dialog = editor_dialog(microscope)
    qtbot.addWidget(dialog)
    assert "15.38" in dialog.derived.text()
    values = microscope.model_dump()
    values["objective"]["na"] = 1.4  # beyond the immersion's index
    dialog.form.set_values(values)
    dialog.refresh()
    assert "immersion" in dialog.problems.text()
    assert not dialog.use_button.isEnabled()
    dialog.form.set_values({**microscope.model_dump(), "name": "mine"})
    dialog.refresh()
    with qtbot.waitSignal(dialog.accepted_microscope) as caught:
        dialog.save_button.click()
    assert caught.args[0].name == "mine"
    assert "mine" in user_microscope_names()


def test_wizard_makes_a_microscope_from_the_engraving(qtbot: Any) -> None:
    dialog = wizard_dialog(measured_pitch_px=15.4)
    qtbot.addWidget(dialog)
    assert not dialog.use_button.isEnabled()
    dialog.form.set_values(
        {
            "objective": "Plan Apo 60x/1.20 W",
            "pixel_um": 6.5,
            "pitch_um": 100.0,
            "focal_length_um": 2500.0,
            "wavelength_nm": 593.0,
        }
    )
    dialog.refresh()
    assert dialog.microscope is not None
    assert dialog.microscope.objective.na == 1.2
    assert "Camera pixels per lenslet" in dialog.derived.text()
