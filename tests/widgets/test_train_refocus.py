"""The refocusing page of the *Train* panel, with real trainings of a few steps on tiny stacks."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.io.write import write_image
from napari_lfm.methods.train_refocus_make import OBJECTIVES, make_refocus_wish
from napari_lfm.methods.train_refocus_plan import spread_of
from napari_lfm.methods.train_wish import load_recipe
from napari_lfm.networks import catalogue, refocus_published
from napari_lfm.networks.catalogue import list_models
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.model_import import bring
from napari_lfm.widgets.train import TrainWidget
from napari_lfm.widgets.train_refocus_input import RefocusChoice, plan_refocus

TUNING = {"widths": (4, 6), "bands": (6,), "sweep": True, "planes": 2, "patch_px": 32}


def planes(seed: int = 0, shape: tuple[int, int, int] = (7, 32, 96)) -> np.ndarray:
    spots = 1e4 * (np.random.default_rng(seed).random(shape[1:]) > 0.98)
    middle = (shape[0] - 1) / 2
    return np.stack([gaussian_filter(spots, 1 + abs(k - middle)) + 50 for k in range(shape[0])]).astype(
        np.uint16
    )


@pytest.fixture(autouse=True)
def bundled(tmp_path: Path, monkeypatch: Any) -> Path:
    """Where models that come with the package would be: none do."""
    folder = tmp_path / "bundled"
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: folder)
    return folder


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(viewer: Any) -> Any:
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train a network")
    widget.choose("refocus")
    widget.refocus.tuning = TUNING
    widget.refocus.view.form.set_values({"steps": 3, "range_um": 4.0})
    return widget


def ready(qtbot: Any, widget: Any) -> None:
    qtbot.waitUntil(lambda: widget.refocus.ready, timeout=60_000)


def says(qtbot: Any, widget: Any, words: str) -> None:
    qtbot.waitUntil(lambda: words in html.unescape(widget.refocus.view.problems.text()), timeout=20_000)


def end(qtbot: Any, widget: Any, act: Any) -> Any:
    with qtbot.waitSignal(widget.refocus.runner.finished, timeout=60_000) as caught:
        act()
    return caught.args[0]


def test_a_layer_becomes_a_model_and_goes_on(qtbot: Any, viewer: Any, widget: Any) -> None:
    control, view = widget.refocus, widget.refocus.view
    ready(qtbot, widget)
    assert "Simulated specimens" in view.estimate.text()
    control.choose_source("layer")
    says(qtbot, widget, "No stack is chosen")
    viewer.add_image(planes(1), name="worm confocal", scale=(2.0, 0.65, 0.65), units="um")
    viewer.add_image(planes(), name="worm", scale=(2.0, 0.65, 0.65), units="um")
    view.optics_combo.setCurrentIndex(view.optics_combo.findData("wf-20x0.8"))
    ready(qtbot, widget)
    assert view.stacks.layer_combo.currentText() == "worm"  # not the one that is named confocal
    told = view.estimate.text()
    assert f"7 planes of 32 \N{MULTIPLICATION SIGN} 96 pixels, 2 {MICROMETRES} apart" in told
    assert "random weights" in told
    assert "without a confocal stack" in told
    view.stacks.confocal_combo.setCurrentIndex(view.stacks.confocal_combo.findData("worm confocal"))
    ready(qtbot, widget)
    assert "with registered confocal stacks" in view.estimate.text()
    assert end(qtbot, widget, view.run_row.run_button.click).status == "finished"
    [entry] = [e for e in list_models("refocus") if e.source == "user"]
    assert entry.card.id == "refocus-worm"
    assert "1 focal stack of the user (worm)" in entry.card.data
    # the curve shows the refocused planes' PSNR, beside the image's own, not the training's score
    course = control.course
    assert course.best[1] == pytest.approx(entry.card.scores[0]["psnr_db"])
    assert view.score.reference == ("image", pytest.approx(entry.card.scores[0]["input_db"]))
    assert f"{course.figures['confocal_db']:.1f}" in view.figures.text()
    assert f"{course.figures['input_db']:.1f}" in view.figures.text()
    assert view.slices.labels == ["image", "refocused", "in truth"]
    assert "the image as it is" in html.unescape(view.run_row.text.text()).lower()
    ready(qtbot, widget)
    assert view.form.editor("name").placeholderText() == "refocus-worm-2"
    assert view.start_combo.findData("refocus-worm") >= 0
    view.form.set_values({"steps": 2})
    assert end(qtbot, widget, view.run_row.continue_button.click).status == "finished"
    assert control.course.step == 5


def test_files_and_missing_sizes(qtbot: Any, widget: Any, tmp_path: Path) -> None:
    control, view = widget.refocus, widget.refocus.view
    write_image(tmp_path / "bare.tif", labelled(planes(), "zyx", {}))
    control.choose_source("files")
    says(qtbot, widget, "No stack is chosen")
    control.open([tmp_path / "bare.tif"])
    says(qtbot, widget, "does not say how large its voxels are")
    assert view.stacks.sizes.isVisibleTo(view)
    assert view.minimumSizeHint().width() <= 340
    view.stacks.size_boxes["step_um"].setValue(2.0)
    view.stacks.size_boxes["pixel_um"].setValue(0.65)
    ready(qtbot, widget)
    assert "bare.tif" in view.stacks.files_label.text()
    view.form.set_values({"range_um": 30.0})
    says(qtbot, widget, "covers 12")
    view.form.set_values({"range_um": 3.0})
    says(qtbot, widget, "two steps must fit into it")
    assert not control.ready


def test_objectives_are_those_of_the_recipes() -> None:
    for key, name in (("20x/0.8 air", "refocus-20x0.8"), ("40x/1.3 oil", "refocus-40x1.3")):
        plan = plan_refocus(RefocusChoice({}, optics=key))
        assert plan.wish is not None
        recipe = load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")
        recipe.pop("start_from", None)
        wanted = make_refocus_wish(recipe)
        assert plan.wish.optics == wanted.optics
        assert spread_of(plan.wish) == spread_of(wanted)
        assert (plan.wish.range_um, plan.wish.step_um, plan.wish.pixel_um) == (
            wanted.range_um,
            wanted.step_um,
            wanted.pixel_um,
        )
    assert set(OBJECTIVES) == {"20x/0.8 air", "40x/1.3 oil"}


def test_the_models_panel_brings_published_folders(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    seen: list[Any] = []
    monkeypatch.setattr(refocus_published, "import_published", lambda *a: seen.append(a) or "made")
    assert bring(folder, id="mine") == "made"
    assert seen == [(folder, "mine")]


def test_continue_keeps_the_layer_that_was_trained_on(qtbot: Any, viewer: Any, widget: Any) -> None:
    control, view = widget.refocus, widget.refocus.view
    viewer.add_image(planes(), name="worm", scale=(2.0, 0.65, 0.65), units="um")
    view.optics_combo.setCurrentIndex(view.optics_combo.findData("wf-20x0.8"))
    control.choose_source("layer")
    ready(qtbot, widget)
    assert end(qtbot, widget, control.run).status == "finished"
    viewer.add_image(planes(1), name="other", scale=(2.0, 0.65, 0.65), units="um")
    view.stacks.layer_combo.setCurrentIndex(view.stacks.layer_combo.findData("other"))
    ready(qtbot, widget)
    assert view.form.editor("name").placeholderText() == "refocus-other"
    assert end(qtbot, widget, control.go_on).status == "finished"
    assert (control.model_id, control.course.step) == ("refocus-worm", 6)
