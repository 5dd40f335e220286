"""The isotropic page of the *Train* panel, with real trainings of a few steps on a tiny stack."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

from napari_lfm.core.problems import RequestError
from napari_lfm.networks import catalogue
from napari_lfm.networks.catalogue import list_models
from napari_lfm.networks.isotropic_paper import CareNet
from napari_lfm.widgets.isotropic_input import IsotropicChoice
from napari_lfm.widgets.model_import import bring
from napari_lfm.widgets.state import LayerInfo
from napari_lfm.widgets.train import TrainWidget
from napari_lfm.widgets.train_isotropic_input import plan_isotropic_training
from napari_lfm.widgets.train_plans import NOTHING

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, VOXEL = (9, 40, 48), (0.9, 0.3, 0.3)


def stack(seed: int = 0) -> np.ndarray:
    spots = np.zeros(SHAPE)
    spots[:, ::9, ::7] = 400.0
    return np.asarray(spots + np.random.default_rng(seed).poisson(50, SHAPE), np.uint16)


@pytest.fixture(autouse=True)
def bundled(tmp_path: Path, monkeypatch: Any) -> None:
    """No models come with the package here."""
    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: tmp_path / "bundled")


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


def told(label: Any) -> str:
    return html.unescape(label.text())


def test_a_layer_becomes_a_model_and_goes_on(qtbot: Any, viewer: Any) -> None:
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train a network")
    widget.choose("isotropic")
    control, view = widget.isotropic, widget.isotropic.view
    assert widget.pages.currentWidget() is view
    qtbot.waitUntil(lambda: "No stack is chosen" in told(view.problems), timeout=20_000)
    viewer.add_image(stack(), name="worm", scale=VOXEL, units=("um",) * 3, axis_labels=("z", "y", "x"))
    view.form.set_values({"steps": 2, "patch_px": 32})
    view.blur.choose("hand")
    view.blur.sigma_box.setValue(0.5)
    qtbot.waitUntil(lambda: control.ready, timeout=60_000)
    words = told(view.estimate)
    assert "z is 3 times coarser than x and y: 9 planes become 25" in words
    assert "isotropic-worm" in words
    assert "random weights" in words
    with qtbot.waitSignal(control.runner.finished, timeout=120_000) as caught:
        view.run_row.run_button.click()
    assert caught.args[0].status == "finished"
    [entry] = [e for e in list_models("isotropic") if e.source == "user"]
    assert entry.card.id == "isotropic-worm"
    assert "worm" in entry.card.data
    # the slice along z is shown, before and after
    assert view.slices.labels == ["XZ as recorded, interpolated", "XZ restored"]
    assert view.score.reference is not None
    assert view.score.reference[0] == "coarse slice"
    assert "isotropic-worm" in [view.start_combo.itemData(i) for i in range(view.start_combo.count())]
    # two steps more, of the same training
    qtbot.waitUntil(lambda: control.ready, timeout=60_000)
    with qtbot.waitSignal(control.runner.finished, timeout=120_000) as caught:
        view.run_row.continue_button.click()
    assert caught.args[0].status == "finished"
    assert control.course is not None
    assert control.course.step == 4


# ----------------------------------------------------------------------------- pure functions
def info(voxel: tuple[float, ...] = VOXEL) -> LayerInfo:
    return LayerInfo("worm", stack(), ("z", "y", "x"), placement={"scale": voxel, "units": ("um",) * 3})


def test_what_keeps_a_training_from_starting() -> None:
    plan = plan_isotropic_training(IsotropicChoice({"minutes": -1.0}))
    assert plan.wish is None
    assert "minutes" in plan.problems[0].remedy
    plan = plan_isotropic_training(IsotropicChoice())
    assert "No stack" in plan.problems[0].message
    plan = plan_isotropic_training(IsotropicChoice(stack=info((0.1, 0.3, 0.3))))
    assert "finer" in plan.problems[0].message
    assert plan.wish is None


def test_settings_reach_the_training() -> None:
    values = {"minutes": 3.0, "probabilistic": True, "name": "My worm", "patch_px": 64, "seed": 5}
    choice = IsotropicChoice(values, stack=info(), blur="hand", blur_um=0.6)
    plan = plan_isotropic_training(choice, NOTHING)
    wish = plan.wish
    assert wish is not None
    assert (wish.id, wish.title, wish.minutes, wish.seed) == ("My-worm", "My worm", 3.0, 5)
    assert wish.probabilistic
    assert (wish.blur_um, wish.tuning.patch_px, wish.start_from) == (0.6, 64, "none")
    assert plan.layers[0].name == "worm"
    again = plan_isotropic_training(choice, NOTHING)
    assert again.wish is not None
    assert again.earlier is None


# ----------------------------------------------------------------------------- import
def test_a_csbdeep_folder_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "retina"
    folder.mkdir()
    config = {"n_dim": 2, "n_channel_in": 1, "n_channel_out": 1, "unet_n_depth": 2, "unet_n_first": 4}
    (folder / "config.json").write_text(json.dumps({**config, "unet_kern_size": 3}))
    with pytest.raises(RequestError, match=r"weights_best\.h5"):
        bring(folder)
    torch.manual_seed(0)
    with h5py.File(folder / "weights_best.h5", "w") as file:
        for name, layer in CareNet(1, base=4, kernel=3).named_children():
            group = file.create_group(f"{name}/{name}")
            group["kernel:0"] = layer.weight.detach().permute(2, 3, 1, 0).numpy()
            group["bias:0"] = layer.bias.detach().numpy()
    entry: Any = bring(folder)
    assert (entry.card.id, entry.card.architecture) == ("isotropic-retina", "isotropic-csbdeep")
    taken: Any = bring(folder)
    assert taken.id == "isotropic-retina"
    entry = bring(folder / "weights_best.h5", id="retina-2")
    assert entry.card.id == "retina-2"
