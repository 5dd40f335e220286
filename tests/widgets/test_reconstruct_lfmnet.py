"""A trained network in the *Reconstruct* panel: choosing, asking, running, comparing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.events import Preview, Progress
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Problem
from napari_lfm.io.provenance import make_provenance
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.methods.base import Request, get_method
from napari_lfm.networks.card import ModelCard
from napari_lfm.networks.catalogue import list_models
from napari_lfm.widgets import reconstruct
from napari_lfm.widgets.light_field import LightFieldWidget
from napari_lfm.widgets.reconstruct import ReconstructWidget
from napari_lfm.widgets.reconstruct_trained import guess_microscope
from napari_lfm.widgets.result_layers import ResultLayers
from napari_lfm.widgets.result_residuals import (
    judge,
    judged_layers,
    light_field_key,
    request_of,
    residuals_html,
    volume_of,
)
from napari_lfm.widgets.runner import make_ready
from napari_lfm.widgets.session import update_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lfm.optics.microscope import Microscope

    Put = Callable[..., ModelCard]

LATTICE = Lattice(
    origin_px=(7, 7),
    row_step_px=(15, 0),
    column_step_px=(0, 15),
    rows=6,
    columns=7,
    image_shape=(90, 105),
    source="white",
)


@pytest.fixture
def put(tmp_path: Path, microscope: Microscope, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Write a tiny network with random weights into the user's folder of models."""
    import torch

    from napari_lfm.networks.lenslet_net import LensletNet
    from napari_lfm.networks.weights import save_model

    monkeypatch.setenv("NAPARI_LFM_MODELS", str(tmp_path / "models"))

    def make(id: str = "net", n: int = 15, of: Any = microscope, depths: int = 3) -> ModelCard:
        arguments: dict[str, Any] = {
            "n_pixels": n,
            "depths": depths,
            "voxels_per_lenslet": 5,
            "slopes": [-0.1, 0.1],
            "width": 4,
            "lenslet_width": 6,
            "blocks": 0,
            "angular": 1,
        }
        torch.manual_seed(0)
        net = LensletNet(**arguments)
        torch.nn.init.normal_(net.leave.weight, std=0.3)
        card = ModelCard(
            id=id,
            title="A test",
            version="1",
            method="lfmnet",
            architecture="lfmnet-modern",
            network=arguments,
            microscope=of.model_dump(mode="json"),
            n_pixels=n,
            z_um=[-3.0, 0.0, 3.0] if depths == 3 else [float(k - depths // 2) for k in range(depths)],
            voxels_per_lenslet=5,
            scalers={"input_percentile": 99.9, "output_scale": 2.0},
            specimens=["beads"],
            licence="MIT",
            data="nothing",
            training={},
            scores=[],
            hours=0.0,
            trained_on="nothing",
            date="2026-01-01",
            parameters=sum(p.numel() for p in net.parameters()),
            sha256="",
            versions={},
            notes="",
        )
        return save_model(tmp_path / "models" / id, card, net.state_dict(), half=False)

    return make


@pytest.fixture
def only_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model but those of the test, whatever comes with the package."""
    from napari_lfm.networks import catalogue

    monkeypatch.setattr(catalogue, "bundled_model_dir", lambda: catalogue.Path("nowhere"))
    monkeypatch.setattr(catalogue, "remote_cards", list)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def make_panel(
    qtbot: Any, viewer: Any, microscope: Microscope, only_own: None, monkeypatch: Any
) -> Callable[..., Any]:
    """The panel with a light field whose lenslets are known, and LFMNet as the only method."""
    monkeypatch.setattr(reconstruct, "load_methods", lambda: {"lfmnet": get_method("lfmnet")})

    def make() -> Any:
        raw = np.random.default_rng(0).poisson(100, (90, 105)).astype(np.uint16)
        viewer.add_image(raw, name="raw")
        widget = ReconstructWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Reconstruct")
        c = widget.controller
        c.session.set_input("lightfield", viewer.layers["raw"])
        c.session.set_microscope(microscope)
        c.session.set_lattice(LATTICE)
        qtbot.waitUntil(lambda: c.method is not None, timeout=120_000)
        return widget

    return make


def text_of(widget: Any) -> str:
    return str(widget.view.problems.text())


def test_best_model_fills_the_form_and_runs(qtbot: Any, make_panel: Any, put: Put, viewer: Any) -> None:
    put("good")
    put("other", n=13)
    widget = make_panel()
    c, view = widget.controller, widget.view
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    assert [view.models.combo.itemText(i) for i in range(2)] == ["good (fits)", "other (needs resampling)"]
    values = view.form.values()
    assert (values["z_min_um"], values["z_max_um"]) == (-3.0, 3.0)
    assert (values["z_step_um"], values["voxels_per_lenslet"]) == (3.0, 5)
    assert view.models.confirm_box.isHidden()
    assert not view.models.summary.isHidden()
    view.form.set_values({"confidence": "flips"})
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    with qtbot.waitSignal(c.runner.finished, timeout=60_000) as caught:
        view.run_row.run_button.click()
    assert caught.args[0].status == "finished"
    layer = viewer.layers["LFMNet volume (raw)"]
    assert layer.data.shape == (3, 30, 35)
    assert layer.metadata["napari_lfm"]["provenance"]["model"]["id"] == "good"
    # limits of the first preview would say nothing of the mean of eight
    assert layer.contrast_limits[1] == pytest.approx(np.percentile(layer.data, 99.9), rel=1e-3)
    sure = viewer.layers["LFMNet confidence (raw)"]
    assert not sure.visible
    assert tuple(sure.contrast_limits) == (0.0, 1.0)
    assert not view.run_row.continue_button.isEnabled()  # there is nothing to go on from
    assert "iterations" not in view.run_row.text.text()


def test_resampling_waits_for_the_users_word(qtbot: Any, make_panel: Any, put: Put) -> None:
    put("other", n=13)
    widget = make_panel()
    c, box = widget.controller, widget.view.models
    qtbot.waitUntil(lambda: "Tick the box" in text_of(widget), timeout=120_000)
    assert not widget.view.run_row.run_button.isEnabled()
    assert box.confirm_box.text() == "Resample to the model's N = 13"
    assert "13 pixels per lenslet" in box.fit_text.text()
    c.run()  # the shortcut asks as the button does
    assert not c.runner.is_running
    box.confirm_box.setChecked(True)
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    assert widget.view.run_row.run_button.isEnabled()
    # another model is another question
    put("third", n=11)
    c.session.models_changed.emit()
    c.models.choose("third")
    assert not box.confirm_box.isChecked()


def test_model_for_other_optics_is_refused_in_words(
    qtbot: Any, make_panel: Any, put: Put, microscope: Microscope
) -> None:
    record = microscope.model_dump()
    record["objective"]["na"] = 0.6
    put("other", of=type(microscope).model_validate(record))
    widget = make_panel()
    qtbot.waitUntil(lambda: "trained for NA 0.6" in text_of(widget), timeout=120_000)
    assert not widget.view.run_row.run_button.isEnabled()
    assert "Does not fit" in widget.view.models.fit_text.text()
    # a newly trained model is in the list at once, and taken
    put("fresh")
    widget.session.models_changed.emit()
    assert widget.view.models.combo.currentText() == "fresh (fits)"
    qtbot.waitUntil(lambda: widget.controller.ready, timeout=120_000)


def test_what_the_user_set_stays_until_another_model_is_chosen(
    qtbot: Any, make_panel: Any, put: Put, microscope: Microscope
) -> None:
    put("small")
    put("tall", depths=5)
    widget = make_panel()
    c, form = widget.controller, widget.view.form
    c.models.choose("small")
    form.set_values({"z_min_um": -1.0})
    c.session.set_microscope(microscope.model_copy(update={"wavelength_um": 0.6}))
    c.session.models_changed.emit()
    assert form.values()["z_min_um"] == -1.0
    c.models.choose("tall")
    assert (form.values()["z_min_um"], form.values()["z_step_um"]) == (-2.0, 1.0)
    form.set_values({"z_min_um": 0.0})
    widget.view.reset_button.click()
    assert form.values()["z_min_um"] == -2.0


def test_import_and_delete(qtbot: Any, make_panel: Any, put: Put, tmp_path: Path) -> None:
    put("mine")
    handed = tmp_path / "handed"
    (tmp_path / "models" / "mine").rename(handed)
    widget = make_panel()
    c, box = widget.controller, widget.view.models
    assert "no trained model" in box.fit_text.text()
    assert not box.delete_button.isEnabled()
    qtbot.waitUntil(lambda: "no lfmnet model" in text_of(widget), timeout=120_000)
    c.models.import_from(tmp_path / "nothing")
    qtbot.waitUntil(lambda: "There is no model" in box.text.text(), timeout=120_000)
    assert box.import_button.isEnabled()
    c.models.import_from(handed)
    qtbot.waitUntil(lambda: box.combo.currentText() == "mine (fits)", timeout=120_000)
    assert "Imported mine." in box.text.text()
    assert box.delete_button.isEnabled()
    # asked first: nothing happens before the answer
    box.delete_button.click()
    assert [e.card.id for e in list_models("lfmnet")] == ["mine"]
    c.models.dialog.button(c.models.dialog.StandardButton.Yes).click()
    qtbot.waitUntil(lambda: box.combo.count() == 0, timeout=120_000)
    assert "Deleted mine." in box.text.text()
    assert list_models("lfmnet") == []


# ----------------------------------------------------------------- without a viewer
def guessing(microscope: Microscope) -> Any:
    def complete(request: Request) -> tuple[Request, list[Problem]]:
        return replace(request, microscope=microscope), [Problem("Taken.", severity="info")]

    return SimpleNamespace(complete=complete)


def request(**changes: Any) -> Request:
    image = labelled(np.zeros((90, 105)), ("y", "x"), {})
    return Request("lfmnet", {"image": image}, get_method("lfmnet").Parameters(), **changes)


def test_microscope_is_guessed_only_where_the_lenslets_agree(microscope: Microscope) -> None:
    found, notes = guess_microscope(guessing(microscope), request(lattice=LATTICE))
    assert found.microscope == microscope
    assert notes[0].message == "Taken."
    wide = LATTICE.model_copy(update={"row_step_px": (19.0, 0.0), "column_step_px": (0.0, 19.0)})
    found, notes = guess_microscope(guessing(microscope), request(lattice=wide))
    assert found.microscope is None
    assert notes == []
    assert guess_microscope(SimpleNamespace(), request())[0].microscope is None


# ------------------------------------------------------------------- residuals, movies
def test_movie_grows_in_one_layer(viewer: Any) -> None:
    layers = ResultLayers(viewer)
    layers.begin("raw", False, maker="LFMNet")
    for frames in (1, 2, 3):
        values = np.full((frames, 2, 4, 4), float(frames), np.float32)
        image = labelled(values, ("t", "z", "y", "x"), dict.fromkeys("tzyx", 1.0), name="volume")
        layers.show_preview(make_ready(Preview("volume", image, Progress(frames, 3, "Frame")), (0.0, 1.0)))
    (layer,) = viewer.layers
    assert layer.name == "LFMNet volume (raw)"
    assert layer.data.shape[0] == 3
    assert viewer.dims.current_step[0] == 2  # the newest one is seen
    viewer.dims.set_current_step(0, 0)
    values = np.full((4, 2, 4, 4), 4.0, np.float32)
    image = labelled(values, ("t", "z", "y", "x"), dict.fromkeys("tzyx", 1.0), name="volume")
    layers.show_preview(make_ready(Preview("volume", image, Progress(4, 4, "Frame")), (0.0, 1.0)))
    assert viewer.dims.current_step[0] == 0  # unless the user looks at another


def test_volumes_of_a_light_field_are_held_side_by_side(viewer: Any, microscope: Microscope) -> None:
    raw = labelled(np.ones((90, 105)), ("y", "x"), {}, name="raw")

    def made(method: str, name: str, image: Any, **parameters: Any) -> Any:
        record = make_provenance(
            method=method,
            parameters=parameters,
            inputs={"image": image},
            microscope=microscope,
            lattice=LATTICE.to_json(),
            region_px=(0, 0, 30, 45),
        )
        layer = viewer.add_image(np.ones((3, 4, 5)), name=name, scale=(3.0, 1.0, 1.0), units=("um",) * 3)
        update_record(layer, role="volume", provenance=record, output="volume")
        return layer, record

    first, record = made("deconvolve-lightfield", "rl", raw, iterations=15)
    second, _ = made("lfmnet", "net", raw, refine_iterations=5)
    made("lfmnet", "elsewhere", raw + 1)
    key = light_field_key(record)
    rows = judged_layers(viewer, key)
    assert {r.layer.name for r in rows} == {"rl", "net"}
    assert residuals_html(rows) == ""
    judge(second, 0.2, 0.04)
    assert "not\N{NO-BREAK SPACE}checked" in residuals_html(judged_layers(viewer, key))
    judge(first, 0.3, 0.04)
    rows = judged_layers(viewer, key)
    assert [(r.layer.name, r.residual) for r in rows] == [("net", 0.2), ("rl", 0.3)]
    table = residuals_html(rows)
    for words in (
        "<b>20.0 %</b>",
        "30.0 %",
        "about 4.0 %",
        "Richardson-Lucy, 15 iterations",
        "LFMNet + 5 iterations",
    ):
        assert words in table
    # each is projected as it was made
    asked = request_of(rows[1].layer, request())
    assert asked.method == "deconvolve-lightfield"
    assert asked.region_px == (0, 0, 30, 45)
    assert asked.lattice is not None
    assert asked.lattice.rows == LATTICE.rows
    volume = volume_of(rows[0].layer)
    assert volume.dims == ("z", "y", "x")
    assert float(volume.coords["z"][1]) == 3.0


@pytest.mark.slow
def test_from_files_to_a_network_volume_with_default_choices(
    qtbot: Any, make_napari_viewer_proxy: Any, guv: Path, put: Put, only_own: None
) -> None:
    """Drop files, choose LFMNet, run: nobody names a microscope."""
    from napari_lfm.optics.presets import load_microscope

    put("lfmnet-test", of=load_microscope("mbl-60x1.2w"))
    put("lfmnet-far", n=33, of=load_microscope("bern-40x0.9"))
    viewer = make_napari_viewer_proxy()
    light = LightFieldWidget(viewer)
    light.controller.open(sorted(guv.glob("*.tif")))
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=60_000)
    rec = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(rec, name="Reconstruct")
    c, view = rec.controller, rec.view
    qtbot.waitUntil(lambda: "lfmnet" in c.methods, timeout=120_000)
    view.method_chosen.emit("lfmnet")
    qtbot.waitUntil(lambda: c.ready, timeout=120_000)
    assert c.session.microscope.name == "mbl-60x1.2w"
    assert "microscope is taken to be" in view.problems.text()
    with qtbot.waitSignal(c.runner.finished, timeout=240_000) as caught:
        view.run_row.run_button.click()
    assert caught.args[0].status == "finished"
    layer = viewer.layers["LFMNet volume (Lightfield_GUVExperim1)"]
    assert layer.data.shape == (3, 140, 140)
    raw = viewer.layers["Lightfield_GUVExperim1"]
    np.testing.assert_allclose(layer.extent.world[:, 1:], raw.extent.world, atol=2.0)
    qtbot.waitUntil(lambda: c.results.result is not None, timeout=60_000)
    view.check_button.click()
    qtbot.waitUntil(lambda: "LFMNet" in view.residuals_text.text(), timeout=240_000)
