"""The *Refocus* panel with a tiny network that knows nothing: what is asked, painted, made and told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.methods.refocus.physical import deconvolved
from napari_lfm.methods.refocus.surfaces import through_points
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.weights import save_model
from napari_lfm.widgets import refocus_tune
from napari_lfm.widgets.refocus import RefocusWidget
from napari_lfm.widgets.refocus_layers import MASK, NAMES, SURFACE
from napari_lfm.widgets.session import layer_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXEL_UM, RANGE_UM = 0.325, 4.0
SHAPE = (96, 80)


def tiny_model(folder: Path, name: str = "tiny", pixel_um: float = PIXEL_UM) -> None:
    import torch

    from napari_lfm.methods.refocus.card import RefocusDomain, scalers_of
    from napari_lfm.networks.refocus import RefocusNet
    from napari_lfm.optics.defocus import DefocusOptics

    torch.manual_seed(3)
    network = RefocusNet((4, 6, 8), (6,))
    card = ModelCard(
        id=name, title="", version="1", method="refocus", architecture="refocus",
        network={"widths": [4, 6, 8], "bands": [6]}, microscope=None, n_pixels=None, z_um=[],
        voxels_per_lenslet=None, specimens=[], licence="", data="", training={}, scores=[], hours=0.0,
        scalers=scalers_of(RefocusDomain(DefocusOptics(), pixel_um, RANGE_UM, 0.5)), trained_on="",
        date="2026-01-01", parameters=1, sha256="", versions={}, notes="",
    )  # fmt: skip
    save_model(folder / name, card, network.state_dict())


def picture(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.poisson(20, shape).astype(np.float32)
    image[..., 30:34, 40:44] += 500
    image[..., 70:74, 20:24] += 300
    return image.astype(np.uint16)


@pytest.fixture
def models(lfm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = lfm_home / "models"
    folder.mkdir(parents=True)
    tiny_model(folder)
    monkeypatch.setattr("napari_lfm.networks.catalogue.bundled_model_dir", lambda: lfm_home / "none")
    return folder


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


def open_panel(
    viewer: Any, qtbot: Any, data: np.ndarray | None = None, owned: bool = True, **layer: Any
) -> RefocusWidget:
    """Return the panel, once the image is refocused for the first time."""
    if data is not None:
        ndim = data.ndim
        scale = (1.0,) * (ndim - 2) + (PIXEL_UM, PIXEL_UM)
        units = (*(("s" if "t" in layer.get("axis_labels", ()) else "um",) * (ndim - 2)), "um", "um")
        viewer.add_image(data, **({"name": "cells", "scale": scale, "units": units} | layer))
    panel = RefocusWidget(viewer)
    if owned:
        qtbot.addWidget(panel)
    if data is not None:
        qtbot.waitUntil(lambda: panel.controller.latency_s is not None, timeout=20000)
        settle(panel, qtbot)
    return panel


def settle(panel: RefocusWidget, qtbot: Any) -> None:
    """Wait until nothing is computed and all is painted."""
    control = panel.controller
    qtbot.waitUntil(lambda: control.is_settled, timeout=20000)
    qtbot.wait(20)


def wait(qtbot: Any, done: Callable[[], bool]) -> None:
    qtbot.waitUntil(done, timeout=20000)


def test_an_image_is_refocused_and_follows_the_slider(models: Path, viewer: Any, qtbot: Any) -> None:
    panel = open_panel(viewer, qtbot, picture())
    control, view = panel.controller, panel.view
    words = view.input_text.text()
    assert "tiny" in words and "0.325" in words and "96" in words
    layer = viewer.layers[NAMES["confocal"]]
    assert layer.data.shape == SHAPE
    np.testing.assert_allclose(layer.scale, PIXEL_UM)
    at_zero = layer.data.copy()
    view.slider.setValue(20)
    assert view.z_um == pytest.approx(2.0)
    settle(panel, qtbot)
    opened = control.opened
    assert opened is not None
    np.testing.assert_allclose(layer.data, opened.image.refocuser.plane(2.0).confocal, rtol=1e-4, atol=1e-3)
    assert np.abs(layer.data - at_zero).max() > 1e-3
    assert "+2.00" in view.text.text()
    # the other head is there at once, in a layer of its own
    view.head_combo.setCurrentIndex(1)
    view.head_chosen.emit("widefield")
    wide = viewer.layers[NAMES["widefield"]].data
    np.testing.assert_allclose(wide, opened.image.refocuser.plane(2.0).widefield, rtol=1e-4, atol=1e-3)
    # a deleted layer comes back with the next picture
    viewer.layers.remove(NAMES["widefield"])
    view.set_z(1.0)
    settle(panel, qtbot)
    assert NAMES["widefield"] in viewer.layers

    # beyond the trained range: a mask, a sentence, and both go again
    view.set_z(1.2 * RANGE_UM)
    settle(panel, qtbot)
    assert viewer.layers[MASK].data.all()
    assert "beyond the trained" in view.text.text()
    view.set_z(0.0)
    settle(panel, qtbot)
    assert MASK not in viewer.layers
    assert "beyond" not in view.text.text()

    # beside it, and where to trust it
    control.show.choose_head("confocal")
    viewer.layers.remove(NAMES["widefield"])
    view.set_z(1.5)
    settle(panel, qtbot)
    control.checks.deconvolve()
    wait(qtbot, lambda: not control.checks.is_running)
    name = "Wiener, z = +1.5 \N{GREEK SMALL LETTER MU}m"
    expected = deconvolved(opened.image.refocuser, 1.5, "wiener")
    np.testing.assert_allclose(viewer.layers[name].data, expected, rtol=1e-4, atol=1e-3)
    assert {x.name for x in viewer.layers if x.visible} == {"cells", NAMES["confocal"], name}
    view.beside_box.setChecked(False)
    assert not viewer.layers[name].visible

    control.checks.trust()
    wait(qtbot, lambda: not control.checks.is_running)
    assert control.checks.share is not None
    assert f"{100 * control.checks.share:.0f} %" in view.check_text.text()
    doubt = viewer.layers["doubt"]
    assert doubt.data.min() >= 0
    assert doubt.data.max() <= 1
    assert doubt.data.shape == SHAPE

    control.checks.extend()
    wait(qtbot, lambda: not control.checks.is_running)
    heights = next(x for x in viewer.layers if layer_record(x).get("output") == "height")
    assert np.abs(heights.data).max() <= RANGE_UM + 1e-3
    # and it can be the surface
    control.surface.choose_kind("map")
    assert "No height map" in view.text.text()
    control.surface.choose_map(heights)
    settle(panel, qtbot)
    np.testing.assert_allclose(control.heights, heights.data + 1.5, atol=1e-4)

    # Stop gives the rest up
    control.checks.trust()
    control.checks.stop()
    wait(qtbot, lambda: not control.checks.is_running)
    assert "Stopped" in view.check_text.text()


def test_clicked_points_become_a_surface_in_three_dimensions(models: Path, viewer: Any, qtbot: Any) -> None:
    panel = open_panel(viewer, qtbot, picture(), translate=(5.0, 7.0))
    control, box = panel.controller, panel.view.surface
    control.surface.choose_kind("points")
    assert not box.show_button.isEnabled()
    box.click_button.setChecked(True)
    layer = control.surface.layer
    assert layer is not None
    assert str(layer.mode) == "add"
    for z, y, x in ((-1, 10, 10), (2, 10, 70), (3, 80, 70), (0.5, 80, 10)):
        panel.view.set_z(z)
        layer.add([y, x])
        qtbot.wait(5)
    points = control.surface.points_um()
    np.testing.assert_allclose(points[:, 0], [-1, 2, 3, 0.5])
    np.testing.assert_allclose(points[:, 1:] / PIXEL_UM, [[10, 10], [10, 70], [80, 70], [80, 10]])
    assert box.table.rowCount() == 4
    # while points are looked for, the slider's plane is shown
    settle(panel, qtbot)
    assert control.heights is None
    box.table.item(0, 0).setText("-2.5")
    np.testing.assert_allclose(control.surface.points_um()[0, 0], -2.5)
    box.show_button.setChecked(True)
    settle(panel, qtbot)
    expected = through_points(control.surface.points_um(), SHAPE, PIXEL_UM)
    np.testing.assert_allclose(control.heights, expected, atol=1e-4)
    opened = control.opened
    assert opened is not None
    np.testing.assert_allclose(
        viewer.layers[NAMES["confocal"]].data, opened.image.refocuser.surface(expected).confocal,
        rtol=1e-3, atol=1e-2,
    )  # fmt: skip
    assert "Heights" in box.heights.text()
    # it stands in the world of its image
    box.solid_button.setChecked(True)
    vertices = viewer.layers[SURFACE].data[0]
    assert viewer.dims.ndisplay == 3
    np.testing.assert_allclose(vertices.min(0)[1:], [5.0, 7.0], atol=1e-4)
    np.testing.assert_allclose([vertices[:, 0].min(), vertices[:, 0].max()], [expected.min(), expected.max()])
    assert [x.name for x in viewer.layers if x.visible] == [SURFACE]
    box.solid_button.setChecked(False)
    assert viewer.dims.ndisplay == 2
    assert viewer.layers["cells"].visible
    # as a run: the same surface, in the image's own coordinates
    wish = control.surface.wish()
    np.testing.assert_allclose(np.array(wish.values["points_um"])[:, 1:], points[:, 1:] + [5.0, 7.0])
    box.table.setCurrentCell(0, 0)
    box.delete_button.click()
    box.table.setCurrentCell(0, 0)
    box.delete_button.click()
    qtbot.wait(5)
    assert not box.show_button.isEnabled()
    settle(panel, qtbot)
    assert control.heights is None

    # any other Points layer, in its own coordinates
    view = panel.view
    places = np.array([[1.0, 7.0, 10.0], [2.0, 25.0, 10.0], [1.5, 10.0, 27.0]])
    chosen = viewer.add_points(places, name="mine", scale=(1, 1, 1), units=("um",) * 3)
    control.surface.choose_points(chosen)
    np.testing.assert_allclose(control.surface.points_um(), places - [0, 5, 7], atol=1e-6)
    view.surface.height_typed.emit(1, 3.5)
    np.testing.assert_allclose(chosen.data[1], [3.5, 25.0, 10.0])
    # points on a line are refused in a sentence
    chosen.data = np.array([[1.0, 2.0, 2.0], [2.0, 4.0, 4.0], [1.5, 8.0, 8.0]])
    qtbot.wait(5)
    view.surface.show_button.setChecked(True)
    settle(panel, qtbot)
    assert "on one line" in view.text.text()
    viewer.layers.remove(chosen)
    assert control.surface.layer is None
    control.surface.choose_kind("tilt")
    view.set_z(1.0)
    view.surface.tilt_x_box.setValue(5.0)
    settle(panel, qtbot)
    assert control.heights is not None
    along = np.gradient(control.heights, PIXEL_UM, axis=1)
    np.testing.assert_allclose(along, np.tan(np.deg2rad(5.0)), rtol=1e-3)
    assert control.heights.mean() == pytest.approx(1.0, abs=1e-3)
    view.surface.tilt_x_box.setValue(30.0)
    settle(panel, qtbot)
    beyond = np.abs(control.heights) > RANGE_UM
    np.testing.assert_array_equal(viewer.layers[MASK].data.astype(bool), beyond)
    assert f"{100 * beyond.mean():.0f} % of it is beyond" in view.surface.heights.text()


def test_stack_and_movie_through_the_method(models: Path, viewer: Any, qtbot: Any) -> None:
    movie = np.stack([picture(seed=k) for k in range(3)])
    panel = open_panel(viewer, qtbot, movie, axis_labels=("t", "y", "x"))
    control, view = panel.controller, panel.view
    assert "frame" in view.input_text.text()
    runner = control.runs.runner
    view.from_box.setValue(-1.0)
    view.to_box.setValue(1.0)
    view.step_box.setValue(0.5)
    control.runs.make_stack()
    wait(qtbot, lambda: not runner.is_running)
    stack = next(x for x in viewer.layers if x.data.shape == (5, *SHAPE))
    np.testing.assert_allclose(stack.scale, [0.5, PIXEL_UM, PIXEL_UM])
    assert stack.translate[0] == -1.0
    assert layer_record(stack)["provenance"]["method"] == "refocus"
    viewer.layers.remove(stack)

    view.drift_line.setText("0, 1")
    control.runs.make_movie()
    assert not runner.is_running
    assert "2 drift values for 3 frames" in view.run_text.text()
    view.drift_line.setText("0; 0.5; -1")
    view.set_z(1.0)
    control.runs.make_movie()
    wait(qtbot, lambda: not runner.is_running)
    assert control.runs.outcome is not None
    provenance = control.runs.outcome.result.provenance  # type: ignore[union-attr]
    assert list(provenance["parameters"]["drift_um"]) == [0.0, 0.5, -1.0]
    made = next(x for x in viewer.layers if "confocal-like" in x.name)
    assert made.data.shape == movie.shape
    settle(panel, qtbot)
    # the first frame is what the panel shows of it
    viewer.dims.set_current_step(0, 0)
    settle(panel, qtbot)
    np.testing.assert_allclose(made.data[0], viewer.layers[NAMES["confocal"]].data, rtol=1e-3, atol=1e-2)
    # another frame is looked at: it is that one that is refocused
    viewer.dims.set_current_step(0, 2)
    settle(panel, qtbot)
    assert control.found is not None
    assert control.found.at["t"] == 2

    # a long run stops at once
    view.from_box.setValue(-4.0)
    view.to_box.setValue(4.0)
    view.step_box.setValue(0.01)
    control.runs.make_stack()
    assert view.stop_button.isEnabled()
    qtbot.wait(50)
    control.runs.stop()
    qtbot.waitUntil(lambda: not control.runs.runner.is_running, timeout=5000)
    assert "Stopped" in view.run_text.text()
    # and what cannot be begun says why
    view.from_box.setValue(3.0)
    view.to_box.setValue(-3.0)
    control.runs.make_stack()
    assert "below its start" in view.run_text.text()


def test_the_plane_of_a_stack_and_fine_tuning(
    models: Path, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.stack([picture(seed=k) for k in range(7)])
    panel = open_panel(viewer, qtbot, stack, axis_labels=("z", "y", "x"), scale=(0.5, PIXEL_UM, PIXEL_UM))
    control, view = panel.controller, panel.view
    viewer.dims.set_current_step(0, 4)
    settle(panel, qtbot)
    assert control.found is not None
    assert control.found.z_um == pytest.approx(2.0)
    np.testing.assert_array_equal(control.found.plane(), stack[4])
    view.from_box.setValue(-6.0)
    control.runs.make_stack()  # too far out for this model: said, and nothing begins
    assert "too far" in view.run_text.text()
    view.from_box.setValue(-1.0)
    view.to_box.setValue(1.0)
    view.step_box.setValue(1.0)
    control.runs.make_stack()
    wait(qtbot, lambda: not control.runs.runner.is_running)
    made = next(x for x in viewer.layers if x.data.shape == (3, *SHAPE))
    assert made.translate[0] == pytest.approx(1.0)  # it lies in the stack that its image came from

    assert view.tune_button.isEnabled()
    given: dict[str, Any] = {}
    real = refocus_tune.trainer()

    class Trainer:
        """Trains for no time at all, and leaves a model."""

        TrainedModel, NamedStack, RECORD = real.TrainedModel, real.NamedStack, real.RECORD
        make_refocus_wish = staticmethod(real.make_refocus_wish)
        training_folder = staticmethod(real.training_folder)

        @staticmethod
        def run_refocus_training(wish: Any, layers: Any) -> Any:
            from napari_lfm.core.events import Progress
            from napari_lfm.networks.catalogue import read_model

            given.update(wish=wish, layers=layers)
            yield Progress(1, 10, "Training", values={"loss": 0.5})
            yield Progress(2, 10, "Training", values={"loss": 0.4})
            tiny_model(models, wish.id)
            yield real.TrainedModel(read_model(models / wish.id), None, models)

    monkeypatch.setattr(refocus_tune, "trainer", lambda: Trainer)
    view.minutes_box.setValue(2.0)
    control.tuning.run()
    wait(qtbot, lambda: not control.tuning.runner.is_running)
    assert given["wish"].minutes == 2.0
    assert given["wish"].start_from == "tiny"
    assert given["wish"].step_um == 0.5
    assert given["layers"][0].widefield.sizes["z"] == 7
    assert view.tune_curve.values == (0.5, 0.4)
    assert control.models.key == "refocus-cells"
    settle(panel, qtbot)
    assert "refocus-cells" in view.input_text.text()


def test_bad_input_is_said(models: Path, viewer: Any, qtbot: Any) -> None:
    panel = open_panel(viewer, qtbot)
    control, view = panel.controller, panel.view
    assert "No image is chosen" in view.input_text.text()
    assert not view.slider.isEnabled()
    colour = viewer.add_image(np.zeros((20, 20, 3), np.uint8), rgb=True, name="colour")
    assert control.layer is None
    control.choose(colour)
    assert "colour picture" in view.input_text.text()
    control.choose(viewer.add_image(np.zeros((1, 1)), name="point"))
    assert "1 \N{MULTIPLICATION SIGN} 1 pixels" in view.input_text.text()
    placed = {"scale": (PIXEL_UM,) * 2, "units": ("um",) * 2}
    holes = picture().astype(np.float32)
    holes[3, 3] = np.nan
    control.choose(viewer.add_image(holes, name="holes", **placed))
    qtbot.waitUntil(lambda: "NaN" in view.text.text(), timeout=20000)
    assert "crop" in view.text.text()
    # no size: asked for, and the layer has it then
    bare = viewer.add_image(picture(), name="bare")
    control.choose(bare)
    assert "how large its pixels are" in view.input_text.text()
    assert view.pixel_row.isVisibleTo(view)
    view.pixel_box.setValue(PIXEL_UM)
    np.testing.assert_allclose(bare.scale, PIXEL_UM)
    wait(qtbot, lambda: control.opened is not None)
    # pixels that no resampling bridges
    far = viewer.add_image(picture(), name="far", scale=(9.0, 9.0), units=("um", "um"))
    control.choose(far)
    assert "cannot be used" in view.input_text.text()
    assert control.opened is None
    # pixels that it bridges: said, and the picture lies where the image does
    near = viewer.add_image(picture(), name="near", scale=(0.5, 0.5), units=("um", "um"))
    control.choose(near)
    wait(qtbot, lambda: control.opened is not None)
    settle(panel, qtbot)
    assert "resampled" in view.input_text.text()
    layer = viewer.layers[NAMES["confocal"]]
    np.testing.assert_allclose(layer.scale, PIXEL_UM)
    extent = np.array(layer.data.shape) * PIXEL_UM
    np.testing.assert_allclose(extent, np.array(SHAPE) * 0.5, atol=0.5)
    # the layer is deleted while something runs
    control.checks.trust()
    viewer.layers.remove(near)
    assert control.layer is None
    wait(qtbot, lambda: not control.checks.is_running)
    assert "doubt" not in viewer.layers

    # the nearest model is taken; and without any one is asked for
    tiny_model(models, "finer", 0.1625)
    control.session.models_changed.emit()
    fine = viewer.add_image(picture(), name="fine", scale=(0.16, 0.16), units=("um", "um"))
    control.choose(fine)
    assert control.models.key == "finer"
    control.choose(bare)
    assert control.models.key == "tiny"
    for name in ("tiny", "finer"):
        shutil.rmtree(models / name)
    control.session.models_changed.emit()
    wait(qtbot, lambda: "no model for refocusing" in view.input_text.text())


def test_closing_while_it_computes(models: Path, viewer: Any, qtbot: Any) -> None:
    panel = open_panel(viewer, qtbot, picture(), owned=False)
    control = panel.controller
    control.runs.make_stack()
    control.checks.trust()
    panel.view.set_z(2.0)
    crew, desk = panel.crew, control.desk
    panel.deleteLater()
    qtbot.waitUntil(lambda: crew.closed, timeout=20_000)
    qtbot.wait(50)
    assert not desk.busy
    assert viewer.layers["cells"].visible
