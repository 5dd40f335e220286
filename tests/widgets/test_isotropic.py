"""The *Restore isotropic* panel: what it understands, trains, restores, stops and keeps."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lfm.core.events import Preview, Progress, Result
from napari_lfm.core.labelled import labelled
from napari_lfm.core.problems import Estimate, Problem, RequestError
from napari_lfm.io.provenance import make_provenance
from napari_lfm.methods.isotropic.blur import ChosenBlur
from napari_lfm.methods.isotropic.plan import factor_problem, understood
from napari_lfm.training.events import Validated
from napari_lfm.widgets import isotropic_input, isotropic_run
from napari_lfm.widgets.evaluate import EvaluateWidget
from napari_lfm.widgets.isotropic import IsotropicWidget
from napari_lfm.widgets.isotropic_input import IsotropicChoice, resolve_isotropic
from napari_lfm.widgets.isotropic_layers import fullest_row
from napari_lfm.widgets.isotropic_texts import (
    axial_pictures,
    blur_html,
    busiest,
    end_html,
    resolution_html,
    share_html,
)
from napari_lfm.widgets.session import bare, layer_record
from napari_lfm.widgets.state import LayerInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_lfm.methods.base import Request

SHAPE, VOXEL = (8, 40, 48), (1.2, 0.3, 0.3)
FINE = 29


def stack(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    rng = np.random.default_rng(4)
    spots = np.zeros(shape)
    spots[..., ::9, ::7] = 400.0
    return np.asarray(spots + rng.poisson(50, shape), np.uint16)


class Engine:
    """Trains by counting and restores by repeating planes; `gate` makes each step wait for the test."""

    def __init__(self, home: Path) -> None:
        self.gate: threading.Semaphore | None = None
        self.requests: list[Request] = []
        self.closed = threading.Event()
        self.home, self.fail = home, False

    # the method, as far as the panel asks it
    def check(self, request: Request) -> list[Problem]:
        parameters: Any = request.parameters
        if not parameters.trains and request.model == "none":
            return [Problem("There is no model.", "Train one: set train_minutes.", field="model")]
        hardly = factor_problem(understood(request.inputs["image"], parameters))
        return [] if hardly is None else [hardly]

    def estimate(self, request: Request) -> Estimate:
        parameters: Any = request.parameters
        found = understood(request.inputs["image"], parameters)
        return Estimate(found.fine_shape, ("z", "y", "x"), 200_000_000, 3.0)

    # the job
    def run(self, request: Request) -> Iterator[Any]:
        self.requests.append(request)
        parameters: Any = request.parameters
        image = request.inputs["image"]
        try:
            yield Progress(0, 1, "Reading the stack")
            if self.fail:
                raise RequestError("The stack is empty.", "Choose another one.")
            if parameters.trains:
                for k in range(4):
                    self._wait()
                    if k == 0:
                        self.install(self.home / "models", "isotropic-cells", 4.0)
                    yield self._validated(k, parameters.train_minutes)
                    yield Progress(k, 0, "Training", 9.0, {"loss": 1 / (k + 1), "share": (k + 1) / 4})
            for k in range(3):
                self._wait()
                done = Progress(k + 1, 3, "Restoring slices", 1.0)
                yield Preview("isotropic", self._fine(image, (k + 1) / 3), done)
            yield Result(self._outputs(image), "isotropic", self._record(request))
        finally:
            self.closed.set()

    def _wait(self) -> None:
        if self.gate is not None:
            self.gate.acquire(timeout=20)

    def _validated(self, k: int, minutes: float) -> Validated:
        values = {"psnr_db": 20.0 + k, "input_psnr_db": 18.0}
        images = {"xz_before": np.eye(29, 48, dtype=np.float32), "xz_after": np.eye(29, 48) * (1 + k)}
        step = Progress(k, 0, "Validated", None, {"share": k / 4})
        return Validated(k, 20.0 + k, 20.0 + k, k, values, images, step)

    def install(self, folder: Path, name: str, factor: float) -> None:
        """Write a tiny model that knows nothing."""
        import torch

        from napari_lfm.networks.card import ModelCard
        from napari_lfm.networks.isotropic import make_network
        from napari_lfm.networks.weights import save_model

        torch.manual_seed(0)
        network = make_network("isotropic", {"widths": [8, 8]})
        card = ModelCard(
            id=name, title="", version="1", method="isotropic", architecture="isotropic",
            network={"widths": [8, 8]}, microscope=None, n_pixels=None, z_um=[],
            voxels_per_lenslet=None, specimens=[], licence="", data="", training={}, scores=[], hours=0.0,
            scalers={"factor": factor}, trained_on="", date="2026-01-01", parameters=1, sha256="",
            versions={}, notes="",
        )  # fmt: skip
        if not (folder / name).exists():
            save_model(folder / name, card, network.state_dict())

    @staticmethod
    def _fine(image: Any, gain: float) -> Any:
        values = np.repeat(np.asarray(image.transpose(..., "z", "y", "x").values, np.float32), 4, -3)
        values = gain * values[..., :FINE, :, :]
        step = {"z": 0.3, "y": 0.3, "x": 0.3}
        dims = [d for d in "tc" if d in image.dims] + ["z", "y", "x"]
        return labelled(values, dims, step, {"z": float(image.coords["z"][0])}, name="isotropic")

    def _outputs(self, image: Any) -> dict[str, Any]:
        fine = self._fine(image, 1.0)
        residual = image.astype(np.float32) - float(image.mean())
        return {"isotropic": fine, "disagreement": fine / 10, "residual": residual.rename("residual")}

    @staticmethod
    def _record(request: Request) -> dict[str, Any]:
        record = make_provenance(
            method="isotropic", parameters=request.parameters, inputs=request.inputs, input_kind="stack"
        )
        return {**record, "figures": {"consistency_share": [[0.042]]}}


@pytest.fixture
def engine(lfm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine(lfm_home)
    monkeypatch.setattr(isotropic_input, "method", lambda: engine)
    monkeypatch.setattr(isotropic_run, "service", lambda: engine.run)
    monkeypatch.setattr("napari_lfm.networks.catalogue.bundled_model_dir", lambda: lfm_home / "none")
    return engine


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


def placed(viewer: Any, data: np.ndarray | None = None, **extra: Any) -> Any:
    data = stack() if data is None else data
    lead = data.ndim - 3
    arguments = {
        "name": "cells",
        "scale": (*(1.0,) * lead, *VOXEL),
        "units": (*("pixel",) * lead, "um", "um", "um"),
        "axis_labels": (*("t", "c")[2 - lead :], "z", "y", "x") if lead else ("z", "y", "x"),
    }
    return viewer.add_image(data, **(arguments | extra))


@pytest.fixture
def panel(viewer: Any, engine: Engine) -> Any:
    widget = IsotropicWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Restore isotropic")
    return widget


def planned(qtbot: Any, panel: Any) -> None:
    qtbot.waitUntil(lambda: panel.controller.plan is not None, timeout=30_000)


def text(label: Any) -> str:
    return html.unescape(label.text())


def says(qtbot: Any, label: Any, words: str) -> None:
    qtbot.waitUntil(lambda: words in text(label), timeout=30_000)


def end(qtbot: Any, panel: Any, act: Any) -> Any:
    with qtbot.waitSignal(panel.controller.runs.runner.finished, timeout=30_000) as caught:
        act()
    return caught.args[0]


# ----------------------------------------------------------------------------- what it understands
def test_a_stack_is_understood_and_its_blur_estimated(qtbot: Any, viewer: Any, panel: Any) -> None:
    view = panel.view
    says(qtbot, view.problems, "No stack is chosen")
    assert not view.run_row.run_button.isEnabled()
    placed(viewer)
    planned(qtbot, panel)
    assert "z is 4 times coarser than x and y: 8 planes become 29" in text(view.understood)
    assert f"29 {chr(215)} 40 {chr(215)} 48 voxels" in text(view.estimate)
    assert "5 min of training" in text(view.estimate)
    assert view.agree_box.isHidden()
    assert view.run_row.run_button.isEnabled()
    # without a model it trains from nothing, and cannot restore
    assert "begins from nothing" in text(view.model_text)
    assert not view.run_row.restore_button.isEnabled()
    says(qtbot, view.blur.text, "beyond the blur along x and y")
    assert panel.controller.blur is not None


def test_a_missing_z_size_is_asked_for(qtbot: Any, viewer: Any, panel: Any) -> None:
    layer = viewer.add_image(stack(), name="bare")
    view = panel.view
    says(qtbot, view.problems, "does not say how large its voxels are")
    assert not view.stack.sizes.isHidden()
    for axis, value in zip("zyx", (0.9, 0.3, 0.3), strict=True):
        view.stack.size_boxes[axis].setValue(value)
    planned(qtbot, panel)
    assert "3 times coarser" in text(view.understood)
    np.testing.assert_allclose(layer.scale, (0.9, 0.3, 0.3))
    # napari slices a layer in its old units until a slider moves, and shows nothing
    assert layer.get_value((viewer.dims.point[0], 3.0, 3.0), world=True) > 0


def test_a_stack_with_little_to_gain_needs_a_tick(qtbot: Any, viewer: Any, panel: Any) -> None:
    placed(viewer, scale=(0.33, 0.3, 0.3))
    planned(qtbot, panel)
    view = panel.view
    assert not view.agree_box.isHidden()
    assert "little to gain" in text(view.problems)
    assert not view.run_row.run_button.isEnabled()
    panel.controller.start(trained=True)
    assert not panel.controller.runs.runner.is_running
    view.agree_box.setChecked(True)
    qtbot.waitUntil(view.run_row.run_button.isEnabled, timeout=10_000)
    # another stack is asked for anew
    other = placed(viewer, name="other")
    panel.controller.stack.choose(bare(other))
    qtbot.waitUntil(lambda: "4 times" in text(view.understood), timeout=30_000)
    assert view.agree_box.isHidden()
    assert not view.agree_box.isChecked()


def test_what_is_no_such_stack_is_said(qtbot: Any, viewer: Any, panel: Any) -> None:
    for data, scale, words in (
        (stack((40, 48)), (0.3, 0.3), "no z axis"),
        (stack((2, 40, 48)), VOXEL, "too small"),
        (stack(), (1.2, 0.3, 0.2), "no squares"),
        (stack(), (0.1, 0.3, 0.3), "finer"),
    ):
        labels, units = ("z", "y", "x")[-data.ndim :], ("um",) * data.ndim
        layer = viewer.add_image(data, name="it", scale=scale, units=units, axis_labels=labels)
        panel.controller.stack.choose(bare(layer))
        says(qtbot, panel.view.problems, words)
        assert not panel.view.run_row.run_button.isEnabled()


def test_sources_of_the_blur(qtbot: Any, viewer: Any, panel: Any) -> None:
    placed(viewer)
    planned(qtbot, panel)
    view, control = panel.view, panel.controller

    def source(key: str) -> None:
        view.blur.choose(key)

    source("hand")
    assert not view.blur.hand_row.isHidden()
    says(qtbot, view.problems, "is not entered")
    view.blur.sigma_box.setValue(0.55)
    says(qtbot, view.blur.text, "0.55")
    request = resolve_isotropic(control.choice())
    assert not isinstance(request, list)
    assert request.parameters.blur_um == pytest.approx(0.55)  # type: ignore[attr-defined]
    source("microscope")
    assert view.blur.hand_row.isHidden()
    assert not view.stack.microscope.isHidden()
    says(qtbot, view.problems, "No microscope is chosen")
    source("measured")
    assert not view.stack.psf.isHidden()
    says(qtbot, view.problems, "No point spread function")
    bead = np.zeros((9, 11, 11), np.float32)
    bead[2:7, 5, 5] = 1.0
    bead[4, 4:7, 5] = bead[4, 5, 4:7] = 1.5
    layer = viewer.add_image(bead, name="bead", scale=(0.3, 0.3, 0.3), units=("um",) * 3)
    control.stack.choose_psf(bare(layer))
    says(qtbot, view.blur.text, "beyond")
    request = resolve_isotropic(control.choice())
    assert not isinstance(request, list)
    assert set(request.inputs) == {"image", "psf"}
    assert request.parameters.blur == "measured"  # type: ignore[attr-defined]


def test_the_bundled_model_is_usual_and_others_are_chosen(
    qtbot: Any, viewer: Any, panel: Any, engine: Engine, lfm_home: Path
) -> None:
    engine.install(lfm_home / "none", "isotropic-starter", 0.0)
    engine.install(lfm_home / "models", "isotropic-of-another-stack", 9.0)
    panel.controller.session.models_changed.emit()
    placed(viewer)
    planned(qtbot, panel)
    models, view = panel.controller.models, panel.view
    # a model of the user's is for another stack
    assert models.key == "isotropic-starter"
    assert "came with napari-lfm" in text(view.model_text)
    assert "It fits your stack" in text(models.view.fit_text)
    assert view.run_row.restore_button.isEnabled()
    models.choose("isotropic-of-another-stack")
    assert "9 pixels apart, and these are 4 apart" in text(view.model_text)
    models.choose("none")
    assert models.key == "none"
    assert "begins from nothing" in text(view.model_text)
    qtbot.waitUntil(view.run_row.run_button.isEnabled, timeout=20_000)
    assert not view.run_row.restore_button.isEnabled()
    assert models.view.combo.currentText() == "(none: train from nothing)"


# ----------------------------------------------------------------------------- runs
def test_train_and_restore(qtbot: Any, viewer: Any, panel: Any, engine: Engine) -> None:
    source = placed(viewer, colormap="green")
    planned(qtbot, panel)
    view, control = panel.view, panel.controller
    view.run_row.minutes_box.setValue(2.0)
    qtbot.waitUntil(lambda: "2 min of training" in text(view.estimate), timeout=20_000)
    outcome = end(qtbot, panel, view.run_row.run_button.click)
    assert outcome.status == "finished"
    assert engine.requests[0].parameters.train_minutes == 2.0  # type: ignore[attr-defined]
    # the training was seen
    assert not view.course_box.isHidden()
    assert view.slices.labels == ["XZ as recorded, interpolated", "XZ restored"]
    assert [p[1] for p in view.score.points] == [20.0, 21.0, 22.0, 23.0]
    assert view.score.reference == ("coarse slice", 18.0)
    assert len(view.loss.points) == 4
    # what it made
    fine = viewer.layers["isotropic (cells)"]
    assert fine.data.shape == (FINE, 40, 48)
    np.testing.assert_allclose(fine.scale, 0.3)
    assert {str(u) for u in fine.units} <= {"um", "micrometer"}
    disagreement, residual = viewer.layers["disagreement (cells)"], viewer.layers["not explained (cells)"]
    assert not disagreement.visible and not residual.visible
    low, high = residual.contrast_limits
    assert low == -high
    assert layer_record(residual)["role"] == "disagreement"
    np.testing.assert_array_equal(source.data, stack())
    says(qtbot, view.share_text, "4.2 % of the stack is not explained")
    assert "isotropic-cells" in text(view.run_row.text)
    # the network that it trained is the chosen one, and Restore uses it
    assert control.models.key == "isotropic-cells"
    qtbot.waitUntil(view.run_row.restore_button.isEnabled, timeout=20_000)
    outcome = end(qtbot, panel, view.run_row.restore_button.click)
    again = engine.requests[-1]
    assert again.model == "isotropic-cells"
    assert not again.parameters.trains  # type: ignore[attr-defined]
    assert view.course_box.isHidden()


def test_stop_keeps_the_best_network_and_restores_with_it(
    qtbot: Any, viewer: Any, panel: Any, engine: Engine
) -> None:
    engine.gate = threading.Semaphore(2)
    placed(viewer)
    planned(qtbot, panel)
    view = panel.view
    view.run_row.run_button.click()
    qtbot.waitUntil(lambda: len(view.score.points) == 2, timeout=20_000)
    assert view.run_row.restore_button.text() == "Enough: restore now"
    view.run_row.stop_button.click()
    assert "keeping the best network so far" in text(view.run_row.text)
    outcome = end(qtbot, panel, lambda: engine.gate.release(5) if engine.gate else None)
    assert outcome.status == "stopped"
    assert engine.closed.is_set()
    assert "isotropic-cells" in text(view.run_row.text)
    assert "Restore" in text(view.run_row.text)
    assert panel.controller.models.key == "isotropic-cells"
    assert [x.name for x in viewer.layers] == ["cells"]
    qtbot.waitUntil(view.run_row.restore_button.isEnabled, timeout=20_000)
    assert view.run_row.restore_button.text() == "Restore"


def test_enough_ends_the_training_and_restores(qtbot: Any, viewer: Any, panel: Any, engine: Engine) -> None:
    engine.gate = threading.Semaphore(2)
    placed(viewer)
    planned(qtbot, panel)
    view = panel.view
    view.run_row.run_button.click()
    qtbot.waitUntil(view.run_row.restore_button.isEnabled, timeout=20_000)
    view.run_row.restore_button.click()
    engine.gate.release(20)
    qtbot.waitUntil(lambda: len(engine.requests) == 2, timeout=20_000)
    qtbot.waitUntil(lambda: not panel.controller.runs.runner.is_running, timeout=20_000)
    assert engine.requests[1].model == "isotropic-cells"
    assert not engine.requests[1].parameters.trains  # type: ignore[attr-defined]
    assert "isotropic (cells)" in viewer.layers


def test_stop_while_restoring_and_a_failure_lose_nothing(
    qtbot: Any, viewer: Any, panel: Any, engine: Engine
) -> None:
    placed(viewer)
    planned(qtbot, panel)
    view = panel.view
    engine.gate = threading.Semaphore(5)
    view.run_row.run_button.click()
    qtbot.waitUntil(lambda: "isotropic (cells)" in viewer.layers, timeout=20_000)
    view.run_row.stop_button.click()
    outcome = end(qtbot, panel, lambda: engine.gate.release(5) if engine.gate else None)
    assert outcome.status == "stopped"
    assert "What was restored so far is kept" in text(view.run_row.text)
    assert viewer.layers["isotropic (cells)"].data.max() > 0
    count, engine.gate, engine.fail = len(viewer.layers), None, True
    qtbot.waitUntil(view.run_row.run_button.isEnabled, timeout=20_000)
    outcome = end(qtbot, panel, view.run_row.run_button.click)
    assert outcome.status == "failed"
    assert "The stack is empty. Choose another one." in text(view.run_row.text).replace("</b>", "")
    assert len(viewer.layers) == count


def test_channels_and_frames_keep_their_axes(qtbot: Any, viewer: Any, panel: Any) -> None:
    placed(viewer, stack((2, 3, *SHAPE)))
    planned(qtbot, panel)
    assert "in each of 2 frames and 3 channels" in text(panel.view.understood)
    assert "the training sees the middle frame" in text(panel.view.estimate)
    end(qtbot, panel, panel.view.run_row.run_button.click)
    fine = viewer.layers["isotropic (cells)"]
    assert fine.data.shape == (2, 3, FINE, 40, 48)
    assert tuple(fine.axis_labels) == ("t", "c", "z", "y", "x")
    panel.view.beside_button.setChecked(True)
    assert tuple(viewer.dims.order) == (0, 1, 3, 2, 4)


# ----------------------------------------------------------------------------- looking at it
def test_what_can_be_done_with_a_result(qtbot: Any, viewer: Any, panel: Any, tmp_path: Path) -> None:
    source = placed(viewer, colormap="green")
    planned(qtbot, panel)
    view, export = panel.view, panel.controller.export
    assert not view.beside_button.isEnabled()
    end(qtbot, panel, view.run_row.run_button.click)
    fine = viewer.layers["isotropic (cells)"]
    # beside each other, from the side: slices along z are wide
    view.beside_button.setChecked(True)
    assert viewer.canvas.grid.enabled
    assert tuple(viewer.canvas.grid.shape) == (2, 1)
    assert tuple(viewer.dims.order) == (1, 0, 2)
    assert tuple(source.contrast_limits) == tuple(fine.contrast_limits)
    view.beside_combo.setCurrentIndex(1)
    view.beside_combo.activated.emit(1)
    assert tuple(viewer.dims.order) == (0, 1, 2)
    assert viewer.canvas.grid.enabled
    view.beside_button.setChecked(False)
    assert not viewer.canvas.grid.enabled
    assert tuple(viewer.dims.order) == (0, 1, 2)
    assert source.colormap.name == "green"
    # measured
    view.resolution_button.click()
    says(qtbot, view.resolution_text, "Resolution (")
    assert "it cannot tell detail from invention" in text(view.resolution_text)
    # saved and repeated
    qtbot.waitUntil(lambda: export.result is not None, timeout=20_000)
    export.save(tmp_path / "fine.tif")
    says(qtbot, view.save_text, "fine.tif")
    assert (tmp_path / "fine.tif").exists()
    view.command_button.click()
    assert "clipboard" in text(view.save_text)
    # handed on
    view.evaluate_button.click()
    docks = [bare(w) for w in bare(viewer).window.dock_widgets.values()]
    found = next(w for w in docks if isinstance(w, EvaluateWidget))
    assert found.controller.image.name == "isotropic (cells)"
    # the stack is taken away: nothing is left to compare with
    viewer.layers.remove("cells")
    assert not view.evaluate_button.isEnabled()


# ----------------------------------------------------------------------------- pure functions
def info(data: np.ndarray, name: str = "cells") -> LayerInfo:
    units = ("um",) * data.ndim
    return LayerInfo(name, data, ("z", "y", "x"), placement={"scale": VOXEL, "units": units})


def test_resolving_needs_what_the_source_of_the_blur_needs() -> None:
    found = resolve_isotropic(IsotropicChoice())
    assert isinstance(found, list)
    assert found[0].severity == "info"
    found = resolve_isotropic(IsotropicChoice(stack=info(stack()), blur="hand"))
    assert isinstance(found, list)
    assert "blur along z is not entered" in found[0].message
    wrong = IsotropicChoice(stack=info(stack()), values={"mean": "none"})
    found = resolve_isotropic(wrong)
    assert isinstance(found, list)
    assert "mean" in found[0].remedy
    request = resolve_isotropic(IsotropicChoice(stack=info(stack()), psf=info(stack(), "bead"), minutes=3.0))
    assert not isinstance(request, list)
    assert "psf" not in request.inputs  # another source leaves it out
    assert request.parameters.train_minutes == 3.0  # type: ignore[attr-defined]


def test_words_of_the_blur() -> None:
    kernel = np.ones((1, 1), np.float32)
    told = html.unescape(blur_html(ChosenBlur(kernel, 0.52, 0.04, "estimate", "Take care."), 0.26))
    assert "0.52 \N{PLUS-MINUS SIGN} 0.04" in told
    assert "2.0 pixels" in told
    assert "Take care." in told
    assert "\N{PLUS-MINUS SIGN}" not in blur_html(ChosenBlur(kernel, 0.5, None, "given"), 0.25)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([[0.03]], "3.0 % of the stack is not explained"),
        ([[0.03, 0.31]], "31.0 % of the stack is not explained</b> in the worst of 2 stacks, 17.0 %"),
        ([[0.0002]], "All of the stack is explained"),
        ([], ""),
        (None, ""),
        ([float("nan")], ""),
    ],
)
def test_words_of_the_share(shares: Any, words: str) -> None:
    told = share_html({"consistency_share": shares})
    assert words in told
    assert bool(told) == bool(words)


def test_words_of_the_end() -> None:
    assert "nothing to keep" in end_html("stopped", 3.0, "", "training")
    assert "best network so far is kept" in end_html("stopped", 3.0, "isotropic-a", "training")
    assert "trained network is kept" in end_html("stopped", 3.0, "isotropic-a", "restoring")
    assert "What was restored" in end_html("stopped", 3.0, "", "restoring", kept=True)
    assert "isotropic-a" in end_html("finished", 3.0, "isotropic-a", "restoring")
    told = resolution_html({"z": 2.0, "x": 0.5}, {"z": 0.8, "x": None})
    assert "2.5 times finer" in told
    assert told.count("<tr>") == 3


def test_slices_share_one_contrast_that_stays() -> None:
    before = np.tile(np.linspace(0, 1, 900, dtype=np.float32), (50, 1))
    early, late = before * 0.5, before * 1.1
    first = axial_pictures({"xz_before": before, "xz_after": early})
    then = axial_pictures({"xz_before": before, "xz_after": late})
    np.testing.assert_array_equal(first[0][1], then[0][1])
    assert first[0][1].shape == (50, 360)
    assert then[1][1].mean() > then[0][1].mean() > first[1][1].mean()
    assert axial_pictures({"network": before}) == []


def test_the_busiest_part_is_where_something_is() -> None:
    image = np.zeros((300, 700))
    image[250:260, 600:620] = 1
    rows, columns = busiest(image, (100, 200))
    assert rows.start <= 250 and rows.stop >= 260
    assert columns.start <= 600 and columns.stop >= 620


def test_the_fullest_row_is_looked_at_first() -> None:
    data = np.zeros((2, 5, 30, 20))
    data[1, 2, 17, 4:9] = 3.0
    data[0, 2, 3, 4:9] = 3.0
    assert fullest_row(data, ("c", "z", "y", "x"), {"c": 1}) == 17
    assert fullest_row(data, ("c", "z", "y", "x"), {"c": 0}) == 3
