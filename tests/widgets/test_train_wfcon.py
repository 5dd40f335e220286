"""The WFCON-Net page of the *Train* panel, with real trainings of a few steps on tiny pairs."""

from __future__ import annotations

import html
import json
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image
from scipy.ndimage import gaussian_filter

from napari_lfm.core.labelled import labelled
from napari_lfm.io.read import read_image
from napari_lfm.io.write import write_image
from napari_lfm.methods import wfcon_gather
from napari_lfm.methods.train_jobs import training_folder
from napari_lfm.methods.train_wfcon import run_wfcon_training
from napari_lfm.methods.wfcon_pairs import read_pair
from napari_lfm.networks import catalogue
from napari_lfm.networks.catalogue import list_models
from napari_lfm.training.wfcon import WfconTask
from napari_lfm.widgets.session import layer_info
from napari_lfm.widgets.train import TrainWidget
from napari_lfm.widgets.train_plans import FITTING, NOTHING
from napari_lfm.widgets.train_wfcon_input import (
    Forgotten,
    PairsInput,
    WfconChoice,
    WfconTrainPlan,
    named_pairs,
    pairs_root,
    plan_wfcon,
)
from napari_lfm.widgets.train_wfcon_texts import registered_html, wfcon_html

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (12, 48, 48)
VOXEL = {"z": 0.5, "y": 0.108, "x": 0.108}


def stacks(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a wide-field and a confocal stack of the same spots."""
    spots = np.random.default_rng(seed).random(shape) > 0.995
    confocal = gaussian_filter(1e4 * spots, 1)
    return (gaussian_filter(confocal, 2) + 50).astype(np.uint16), confocal.astype(np.uint16)


def save(folder: Path, name: str, wide: Any, confocal: Any, voxel: dict[str, float] | None = None) -> None:
    sizes = VOXEL if voxel is None else voxel
    for side, stack in (("widefield", wide), ("confocal", confocal)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        write_image(folder / side / f"{name}.tif", labelled(stack, "zyx", sizes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "tissue pairs"
    for k in range(3):
        save(out, f"place{k}", *stacks(k))
    return out


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
    widget.choose("wfcon")
    view = widget.wfcon.view
    view.form.set_values({"steps": 3, "patch_px": 32, "patch_planes": 8})
    view.pairs.register_box.setChecked(False)
    return widget


def ready(qtbot: Any, widget: Any) -> None:
    qtbot.waitUntil(lambda: widget.wfcon.ready, timeout=60_000)


def says(qtbot: Any, widget: Any, words: str) -> None:
    qtbot.waitUntil(lambda: words in problems(widget), timeout=20_000)


def problems(widget: Any) -> str:
    return html.unescape(widget.wfcon.view.problems.text())


def end(qtbot: Any, widget: Any, act: Any) -> Any:
    with qtbot.waitSignal(widget.wfcon.runner.finished, timeout=60_000) as caught:
        act()
    return caught.args[0]


def row_text(widget: Any) -> str:
    return str(widget.wfcon.view.run_row.text.text())


def test_a_folder_is_understood_in_words(qtbot: Any, widget: Any, folder: Path) -> None:
    view = widget.wfcon.view
    says(qtbot, widget, "No folder of pairs is chosen")
    widget.wfcon.pairs.open([folder / "confocal"])  # one of the two was dropped
    ready(qtbot, widget)
    told = view.estimate.text()
    times = "\N{MULTIPLICATION SIGN}"
    assert f"3 pairs, 12 planes of 48 {times} 48 pixels, voxels of 0.5 {times} 0.108 {times} 0.108" in told
    assert "2 are trained on, 1 validated on" in told
    assert "taken as they lie" in told
    assert "wfcon-tissue-pairs" in told
    assert "random weights" in told
    assert "About 3 steps" in told
    view.pairs.register_box.setChecked(True)
    ready(qtbot, widget)
    assert "registered first" in view.estimate.text()
    # switching to the other network, and back, keeps what was typed
    view.form.set_values({"minutes": 7.0, "name": "mine", "adversarial": False})
    assert not view.vgg_line.isEnabled()
    widget.choose("lfmnet")
    assert widget.pages.currentWidget() is widget.view
    widget.view.form.set_values({"minutes": 5.0, "specimen": "nuclei"})
    widget.choose("wfcon")
    assert widget.pages.currentWidget() is view
    assert (view.form.values()["minutes"], view.form.values()["name"]) == (7.0, "mine")
    widget.wfcon.pairs.choose_source("tissue")
    widget.wfcon.pairs.choose_source("folder")
    assert widget.wfcon.choice().pairs.folder == str(folder)
    widget.choose("lfmnet")
    lfmnet = widget.view.form.values()
    assert (lfmnet["minutes"], lfmnet["specimen"]) == (5.0, "nuclei")


def test_missing_voxel_sizes_are_asked_for(qtbot: Any, widget: Any, tmp_path: Path) -> None:
    view = widget.wfcon.view
    for k in range(2):
        save(tmp_path / "bare", f"p{k}", *stacks(k), voxel={})
    widget.wfcon.pairs.open([tmp_path / "bare"])
    says(qtbot, widget, "does not say how large its voxels are")
    assert view.pairs.sizes.isVisibleTo(view)
    assert view.pairs.minimumSizeHint().width() < 320  # the panel stays as narrow as it is
    assert not widget.wfcon.ready
    for box, value in zip(view.pairs.size_boxes, (0.5, 0.1, 0.1), strict=True):
        box.setValue(value)
    ready(qtbot, widget)
    assert "0.5 \N{MULTIPLICATION SIGN} 0.1" in view.estimate.text()
    assert view.pairs.sizes.isVisibleTo(view)  # what was entered stays in sight
    assert end(qtbot, widget, widget.wfcon.run).status == "finished"
    card = list_models("wfcon")[0].card
    assert card.scalers["voxel_z_um"] == 0.5


def test_a_training_to_its_end_and_on(qtbot: Any, widget: Any, folder: Path) -> None:
    control, view = widget.wfcon, widget.wfcon.view
    emitted: list[int] = []
    widget.session.models_changed.connect(lambda: emitted.append(1))
    control.pairs.open([folder])
    ready(qtbot, widget)
    assert end(qtbot, widget, view.run_row.run_button.click).status == "finished"
    assert widget.choice.isEnabled()
    [entry] = [e for e in list_models("wfcon") if e.source == "user"]
    assert entry.card.id == "wfcon-tissue-pairs"
    assert emitted
    assert "Done after" in row_text(widget)
    assert "wfcon-tissue-pairs" in row_text(widget)
    assert "wide-field stack itself" in row_text(widget)  # better, as good, or still worse
    assert view.slices.labels == ["wide field", "network", "confocal"]
    assert view.score.reference is not None
    assert view.score.reference[0] == "wide field"
    figures = view.figures.text()
    for key in ("rmse", "ssim", "psnr_db"):
        digits = 1 if key == "psnr_db" else 4
        for name in (key, f"input_{key}"):
            assert f"{control.course.figures[name]:.{digits}f}" in figures
    assert len(view.loss.points) == 3
    # the name is taken now, the model can be begun with, and the training goes on where it was
    ready(qtbot, widget)
    assert view.form.editor("name").placeholderText() == "wfcon-tissue-pairs-2"
    index = view.start_combo.findData("wfcon-tissue-pairs")
    view.start_combo.setCurrentIndex(index)
    ready(qtbot, widget)
    assert "the weights of <i>wfcon-tissue-pairs</i>" in view.estimate.text()
    view.form.set_values({"steps": 2})
    assert end(qtbot, widget, view.run_row.continue_button.click).status == "finished"
    assert control.course.step == 5
    assert [e.card.training["steps_in_all"] for e in list_models("wfcon") if e.source == "user"] == [5]


def test_dark_pairs_and_no_numbers_are_left_out(qtbot: Any, widget: Any, folder: Path) -> None:
    wide, confocal = stacks(5)
    save(folder, "dark", wide, confocal * 0)
    bad = wide.astype(np.float32)
    bad[3, 4, 5] = np.nan
    save(folder, "nan", bad, confocal)
    widget.wfcon.pairs.open([folder])
    ready(qtbot, widget)
    assert end(qtbot, widget, widget.wfcon.run).status == "finished"
    told = widget.wfcon.view.notes.text()
    assert "2 pairs are left out" in told
    assert "<b>dark</b>: A stack of" in told
    assert "<b>nan</b>" in told
    assert "no numbers" in told
    assert "2 left out" in list_models("wfcon")[0].card.data
    # where none is left the training says so, and leaves nothing behind
    for k in range(3):
        for side in ("widefield", "confocal"):
            (folder / side / f"place{k}.tif").unlink()
    widget.wfcon.view.form.set_values({"name": "other"})
    ready(qtbot, widget)
    assert end(qtbot, widget, widget.wfcon.run).status == "failed"
    assert "None of the 2 pairs can be used" in row_text(widget)
    assert not training_folder("other").exists()


def test_pairs_of_layers(qtbot: Any, viewer: Any, widget: Any) -> None:
    control, view = widget.wfcon, widget.wfcon.view
    control.pairs.choose_source("layers")
    says(qtbot, widget, "No pair is chosen")
    assert not view.pairs.add_button.isEnabled()
    scale = (0.5, 0.108, 0.108)
    for k, dtype in enumerate((np.uint16, np.float32)):
        wide, confocal = stacks(k)
        viewer.add_image(wide, name=f"s{k} wide", scale=scale, units="um")
        part = confocal[:, : 48 - 8 * k].astype(dtype)
        viewer.add_image(part, name=f"s{k} confocal", scale=scale, units="um")
        chosen = view.pairs.wide_combo.currentText(), view.pairs.confocal_combo.currentText()
        assert chosen == (f"s{k} wide", f"s{k} confocal")  # told by their names
        view.pairs.add_button.click()
    assert view.pairs.pair_list.count() == 2
    ready(qtbot, widget)
    assert "Bit depths differ" in view.estimate.text()
    assert "other shapes" in view.estimate.text()
    view.pairs.pair_list.setCurrentRow(1)
    view.pairs.remove_button.click()
    ready(qtbot, widget)
    assert "There is one pair only" in problems(widget)
    assert end(qtbot, widget, control.run).status == "finished"
    assert "layers in napari" in list_models("wfcon")[0].card.data
    viewer.layers.remove("s0 confocal")
    says(qtbot, widget, "No pair is chosen")
    assert view.pairs.pair_list.count() == 0
    # the layers are needed again by a training on them
    view.form.set_values({"name": "wfcon-layers"})
    viewer.add_image(stacks(0)[1], name="s1b confocal", scale=scale, units="um")
    view.pairs.wide_combo.setCurrentText("s1 wide")
    view.pairs.confocal_combo.setCurrentText("s1 confocal")
    view.pairs.add_button.click()
    says(qtbot, widget, "'s0 wide' missing here")


def test_stop_keeps_the_network_and_continue_goes_on(qtbot: Any, widget: Any, folder: Path) -> None:
    control, view = widget.wfcon, widget.wfcon.view
    view.form.set_values({"steps": 100_000})
    control.pairs.open([folder])
    ready(qtbot, widget)

    def act() -> None:
        view.run_row.run_button.click()
        assert not widget.choice.isEnabled()
        qtbot.waitUntil(lambda: control.course.step >= 2, timeout=60_000)
        view.run_row.stop_button.click()

    assert end(qtbot, widget, act).status == "stopped"
    assert "Stopped after" in row_text(widget)
    assert "wfcon-tissue-pairs" in row_text(widget)
    assert [e.problem for e in list_models("wfcon") if e.source == "user"] == [""]
    done = control.course.step
    view.form.set_values({"steps": 2})
    assert end(qtbot, widget, view.run_row.continue_button.click).status == "finished"
    assert control.course.step == done + 2


def test_stop_while_pairs_are_read_leaves_nothing(
    qtbot: Any, widget: Any, folder: Path, monkeypatch: Any
) -> None:
    gate, real = threading.Event(), read_pair

    def slow(*args: Any) -> Any:
        gate.wait(30)
        return real(*args)

    monkeypatch.setattr(wfcon_gather, "read_pair", slow)
    widget.wfcon.pairs.open([folder])
    ready(qtbot, widget)

    def act() -> None:
        widget.wfcon.run()
        qtbot.waitUntil(lambda: "Reading place0" in row_text(widget), timeout=60_000)
        widget.wfcon.stop()
        gate.set()

    assert end(qtbot, widget, act).status == "stopped"
    assert "Stopped in the preparation" in row_text(widget)
    assert not training_folder("wfcon-tissue-pairs").exists()


def test_a_collapse_is_told(qtbot: Any, widget: Any, folder: Path, monkeypatch: Any) -> None:
    def watch(self: Any, db: float, spread: float) -> None:
        self.collapsed = "The training has collapsed"

    monkeypatch.setattr(WfconTask, "_watch", watch)
    # minutes that make the validations come at once
    monkeypatch.setattr("napari_lfm.training.loop._Run._validation_due", lambda run: run.step == 2)
    widget.wfcon.pairs.open([folder])
    ready(qtbot, widget)
    end(qtbot, widget, widget.wfcon.run)
    assert "the adversarial training has collapsed" in row_text(widget)
    assert "train without the discriminator" in row_text(widget)
    assert "Kept the network of" in row_text(widget)


def test_closing_in_the_middle_ends_the_training(qtbot: Any, viewer: Any, widget: Any, folder: Path) -> None:
    widget.wfcon.view.form.set_values({"steps": 100_000})
    widget.wfcon.pairs.open([folder])
    ready(qtbot, widget)
    widget.wfcon.run()
    qtbot.waitUntil(lambda: widget.wfcon.course.step > 0, timeout=60_000)
    crew = widget.crew
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: crew.closed, timeout=60_000)
    assert [e.card.id for e in list_models("wfcon") if e.source == "user"] == ["wfcon-tissue-pairs"]


def test_simulated_tissue_needs_no_pairs() -> None:
    plan = plan_wfcon(WfconChoice({"minutes": 30.0}, PairsInput("tissue"), microscope="wf-20x0.8"))
    assert plan.wish is not None
    assert plan.wish.is_simulated
    assert plan.model_id == "wfcon-tissue"
    assert plan.estimate is not None
    assert "Simulated thick tissue: 36 specimens" in plan.estimate.sentences[0]
    assert plan.wish.microscope is not None


def test_what_was_dropped_leads_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "widefield").mkdir()
    file = tmp_path / "widefield" / "a.tif"
    file.touch()
    assert {pairs_root(p) for p in (tmp_path, tmp_path / "widefield", file)} == {tmp_path}


def test_wrong_figures_are_a_sentence() -> None:
    plan = plan_wfcon(WfconChoice({"minutes": -3.0}, start=FITTING))
    assert "minutes" in str(plan.problems[0])


def plan_of(folder: Path | str, **choice: Any) -> WfconTrainPlan:
    values = {"steps": 3, "patch_px": 32, "patch_planes": 8, **choice.pop("values", {})}
    return plan_wfcon(WfconChoice(values, PairsInput(folder=str(folder), register=False), **choice))


def words(plan: WfconTrainPlan) -> str:
    return " ".join(map(str, plan.problems))


def test_pairs_that_cannot_be_used_are_named(folder: Path) -> None:
    wide, confocal = stacks(9)
    save(folder, "far", wide, confocal[:, :20, :22])
    write_image(folder / "widefield" / "lonely.tif", labelled(wide, "zyx", VOXEL))
    (folder / "widefield" / "broken.tif").write_bytes(b"II*\x00 no image")
    (folder / "confocal" / "broken.tif").write_bytes(b"II*\x00 no image")
    colours = labelled(np.stack([wide, wide]), "czyx", VOXEL)
    for side in ("widefield", "confocal"):
        write_image(folder / side / "colours.tif", colours)
    plan = plan_of(folder)
    assert plan.wish is not None  # the other three can
    assert "'far' cannot be used: its stacks have only 19 % in common" in words(plan)
    assert "1 file without a partner: 'lonely'" in words(plan)
    assert "'broken' cannot be used" in words(plan)
    assert "'colours' cannot be used: a stack has 2 channels" in words(plan)


def test_folders_without_pairs_are_refused(tmp_path: Path) -> None:
    assert "holds no pairs: there are no TIFFs" in words(plan_of(tmp_path))
    assert "There is no folder" in words(plan_of(tmp_path / "nowhere"))
    assert plan_of(tmp_path).wish is None


def test_a_look_at_pairs_that_nobody_waits_for_ends(folder: Path) -> None:
    with pytest.raises(Forgotten):
        plan_wfcon(WfconChoice({}, PairsInput(folder=str(folder))), lambda: True)


def test_layers_without_sizes_take_those_that_were_entered() -> None:
    wide, confocal = (layer_info(Image(stack, name="s")) for stack in stacks(1))
    pairs = PairsInput("layers", layers=((wide, confocal), (wide, confocal)))
    plan = plan_wfcon(WfconChoice({}, pairs))
    assert plan.wish is None
    assert "does not say how large its voxels are" in words(plan)
    plan = plan_wfcon(WfconChoice({}, replace(pairs, voxel_um=(0.5, 0.2, 0.2))))
    assert plan.wish is not None
    assert plan.wish.layers == ("s", "s (2)")
    assert plan.survey is not None
    assert plan.survey.heads[0][0].voxel_um == (0.5, 0.2, 0.2)


def test_names_that_are_taken_by_another_network(folder: Path) -> None:
    other = training_folder("light")
    other.mkdir(parents=True)
    record = {"wish": {"microscope": {}, "specimen": "beads"}, "model_folder": "x", "plan": {}}
    (other / "training.json").write_text(json.dumps(record))
    plan = plan_of(folder, values={"name": "light"})
    assert "of another network or not readable" in words(plan)
    assert plan.wish is None


def test_vgg_weights_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "vgg.npz", nothing=np.zeros(3))
    assert "does not hold VGG16" in words(plan_of(folder, vgg_file=str(tmp_path / "vgg.npz")))
    assert "There is no file" in words(plan_of(folder, vgg_file=str(tmp_path / "nowhere.npz")))
    plan = plan_of(folder, vgg_file=str(tmp_path / "vgg.npz"), values={"adversarial": False})
    assert plan.wish is not None  # then it is not needed
    assert "discriminator" not in wfcon_html(plan)
    assert "VGG" not in wfcon_html(plan)


def test_the_bundled_model_that_fits_is_begun_with(folder: Path, bundled: Path) -> None:
    plan = plan_of(folder, values={"name": "first", "steps": 1})
    assert plan.wish is not None
    assert plan.wish.start_from == ""
    for _ in run_wfcon_training(plan.wish):
        pass
    shutil.move(catalogue.user_model_dir() / "first", bundled / "first")
    plan = plan_of(folder)
    assert plan.wish is not None
    assert plan.wish.start_from == "first"
    assert "the weights of <i>first</i>" in wfcon_html(plan)
    plan = plan_of(folder, start=NOTHING)
    assert plan.wish is not None
    assert plan.wish.start_from == ""
    other = PairsInput(folder=str(folder), register=False)
    for side in ("widefield", "confocal"):  # other voxels: it is no start for these
        for path in (folder / side).glob("*.tif"):
            image = read_image(path)
            write_image(path, labelled(image.values, "zyx", {"z": 2.0, "y": 0.3, "x": 0.3}))
    plan = plan_wfcon(WfconChoice({}, other))
    assert plan.wish is not None
    assert plan.wish.start_from == ""


def test_what_registration_did_is_told() -> None:
    assert registered_html({}) == ""
    one = registered_html({"a<b": (1.0, -0.5, 0.25)})
    assert "a&lt;b" in one
    assert "1.00 \N{MULTIPLICATION SIGN} 0.50 \N{MULTIPLICATION SIGN} 0.25" in one
    several = registered_html({"near": (0.1, 0.0, 0.0), "far": (0.0, 2.0, 0.0)})
    assert "2 pairs were registered" in several
    assert "<b>far</b>" in several


def test_pairs_that_were_placed_by_hand_are_not_registered() -> None:
    wide, confocal = (layer_info(Image(s, name="s", scale=(0.5, 0.1, 0.1), units="um")) for s in stacks(1))
    moved = replace(wide, metadata={"registration": {"shift_um": [0, 0.1, 0], "by": "hand"}})
    assert [p.placed for p in named_pairs(((wide, confocal), (moved, confocal)))] == [False, True]
