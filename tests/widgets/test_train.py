"""The *Train* panel with a stand-in for the training: plan, run, watch, stop, continue, errors, the end."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_lfm.core.events import Progress
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.train_wish import TrainWish
from napari_lfm.training.events import TrainResult, Validated
from napari_lfm.widgets import train_input, train_job
from napari_lfm.widgets.train import TrainWidget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lfm.optics.microscope import Microscope


@dataclass(frozen=True)
class TrainedModel:
    entry: Any
    result: TrainResult | None = None


class StandIn:
    """Ten steps, a validation after every second one; scores rise up to the best step and fall after it."""

    TrainWish = TrainWish
    TrainedModel = TrainedModel
    RECORD = "training.json"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.gate: threading.Semaphore | None = None
        self.slow: threading.Event | None = None
        self.wishes: list[tuple[TrainWish, bool]] = []
        self.closed = threading.Event()
        self.fail_at = 0
        self.fail_to_save = False
        self.best_step = 6
        self.reason: Any = "minutes"
        self.done = 0
        self.steps = 10
        self.wait_s = 60.0

    def training_folder(self, name: str) -> Path:
        return self.home / "trainings" / name

    def check_training(self, wish: TrainWish) -> list[Problem]:
        if wish.depths_um()[-1] > 50:
            return [Problem("That is too deep.", "Give a smaller range.")]
        return []

    def estimate_training(self, wish: TrainWish) -> Any:
        return SimpleNamespace(sentences=(f"{wish.minutes:g} minutes & 10 steps.",))

    def run_training(self, wish: TrainWish, resume: bool = False) -> Iterator[Any]:
        self.wishes.append((wish, resume))
        folder = self.training_folder(wish.id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.RECORD).write_text(json.dumps({"wish": wish.model_dump(mode="json")}))
        try:
            yield from self._events(wish, resume)
        finally:
            self.closed.set()
            if self.fail_to_save:
                raise RequestError("The disk is full.", "Make room.")

    def _events(self, wish: TrainWish, resume: bool) -> Iterator[Any]:
        assert wish.minutes is not None
        yield Progress(3, 8, "Computing the optics", 60.0)
        if self.slow is not None:
            self.slow.wait(20)
            yield Progress(4, 8, "Computing the optics", 50.0)
        steps = self.steps + 10 if resume else self.steps
        for step in range(self.done + 1 if resume else 1, steps + 1):
            if self.gate is not None:
                self.gate.acquire(timeout=self.wait_s)
            if step == self.fail_at:
                raise RequestError(f"Memory ran out (step {step}).", "Take a smaller network.")
            (self.training_folder(wish.id) / "last").touch()
            self.done = step
            values = {"share": step / steps, "steps_per_s": 2.0, "loss": 1 / step}
            progress = Progress(step, 0, "Training", 60 * wish.minutes * (1 - step / steps), values)
            yield progress
            if step % 2 == 0:
                yield self._validated(step, progress)
        yield TrainedModel(SimpleNamespace(card=SimpleNamespace(id=wish.id)), self._result())

    def _score(self, step: int) -> float:
        return 25.0 - 0.5 * abs(step - self.best_step)

    def _validated(self, step: int, progress: Progress) -> Validated:
        truth = np.zeros((8, 8))
        truth[3:5, 3:5] = 4.0
        images = {"truth": truth, "network": truth / 2, "richardson-lucy": truth * 10}
        best = min(step, self.best_step)
        values = {"psnr_db": self._score(step), "baseline_psnr_db": 23.0}
        return Validated(step, self._score(step), self._score(best), best, values, images, progress)

    def _result(self) -> TrainResult:
        sentence = "Stopped at step 10: the loss was not finite 10 times in a row."
        best, last = Path("best.safetensors"), Path("last.safetensors")
        return TrainResult(self.reason, sentence, 10, 1200.0, 25.0, 6, best, last)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: Any) -> StandIn:
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path))
    stand_in = StandIn(tmp_path)
    monkeypatch.setattr(train_input, "service", lambda: stand_in)
    monkeypatch.setattr(train_job, "is_installed", lambda _: stand_in.done > 0)
    return stand_in


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(qtbot: Any, viewer: Any, trainer: StandIn, microscope: Microscope) -> Any:
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train a network")
    widget.session.set_microscope(microscope)
    ready(qtbot, widget)
    return widget


def ready(qtbot: Any, widget: Any) -> None:
    qtbot.waitUntil(lambda: widget.controller.ready, timeout=60_000)


def end(qtbot: Any, widget: Any, act: Any) -> Any:
    with qtbot.waitSignal(widget.controller.runner.finished, timeout=60_000) as caught:
        act()
    return caught.args[0]


def row_text(widget: Any) -> str:
    return str(widget.view.run_row.text.text())


def reach(qtbot: Any, widget: Any, trainer: StandIn, step: int) -> None:
    """Let a gated training do this many more steps, and wait until the panel has shown the last."""
    assert trainer.gate is not None
    goal = trainer.done + step
    for _ in range(step):
        trainer.gate.release()
    qtbot.waitUntil(lambda: widget.controller.course.step == goal, timeout=60_000)


def begin(qtbot: Any, widget: Any, trainer: StandIn, steps: int) -> None:
    trainer.gate = threading.Semaphore(0)
    widget.view.run_row.run_button.click()
    reach(qtbot, widget, trainer, steps)
    if steps % 2 == 0:  # the validation comes with the step
        qtbot.waitUntil(lambda: widget.controller.course.validations == steps // 2, timeout=60_000)


def test_the_plan_is_told_before_the_start(widget: Any) -> None:
    view = widget.view
    told = view.estimate.text()
    assert "lfmnet-test-60x" in told
    assert "21 planes from -10 to 10" in told
    assert "3 \N{MULTIPLICATION SIGN} 3 voxels per lenslet, 0.56" in told
    assert "20 minutes &amp; 10 steps." in told
    assert view.form.editor("name").placeholderText() == "lfmnet-test-60x"
    assert view.run_row.run_button.isEnabled()
    assert not view.run_row.stop_button.isEnabled()
    assert not view.run_row.continue_button.isEnabled()
    assert not view.course_box.isVisibleTo(view)


def test_the_estimate_follows_what_is_typed(qtbot: Any, widget: Any) -> None:
    widget.view.form.set_values({"minutes": 3.0, "specimen": "nuclei", "name": "My nuclei!", "z_max_um": 3.0})
    assert not widget.view.run_row.run_button.isEnabled()  # until the new plan is there
    ready(qtbot, widget)
    told = widget.view.estimate.text()
    assert "3 minutes" in told
    assert "nuclei" in told
    assert "<i>My-nuclei</i>" in told
    assert "14 planes from -10 to 3" in told


def test_what_is_wrong_is_said(qtbot: Any, widget: Any) -> None:
    widget.view.form.set_values({"z_min_um": 20.0})
    qtbot.waitUntil(lambda: "is empty" in widget.view.problems.text(), timeout=60_000)
    assert not widget.view.run_row.run_button.isEnabled()
    widget.view.form.set_values({"z_max_um": 60.0})
    qtbot.waitUntil(lambda: "too deep" in widget.view.problems.text(), timeout=60_000)
    widget.view.form.set_values({"z_min_um": -5.0, "z_max_um": 5.0})
    ready(qtbot, widget)
    assert widget.view.problems.text() == ""
    widget.controller.choose_microscope("")
    qtbot.waitUntil(lambda: "No microscope is chosen" in widget.view.problems.text(), timeout=60_000)
    assert not widget.view.run_row.run_button.isEnabled()


def test_the_microscope_is_that_of_the_session(qtbot: Any, widget: Any) -> None:
    widget.controller.choose_microscope("mbl-60x1.2w")
    assert widget.session.microscope.name == "mbl-60x1.2w"
    assert widget.view.microscope.combo.currentText() == "mbl-60x1.2w"
    widget.view.form.set_values({"z_min_um": -4.0})
    widget.controller.choose_microscope("bern-40x0.9")
    assert widget.view.form.values()["z_min_um"] == -4.0  # what was typed stays


def test_a_training_to_its_end(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    emitted: list[int] = []
    widget.session.models_changed.connect(lambda: emitted.append(1))
    outcome = end(qtbot, widget, widget.view.run_row.run_button.click)
    assert outcome.status == "finished"
    wish, resumed = trainer.wishes[0]
    assert (wish.id, wish.size, wish.minutes, resumed) == ("lfmnet-test-60x", "small", 20.0, False)
    assert wish.microscope.name == "test-60x"
    view = widget.view
    assert "Done after 20 min of training" in row_text(widget)
    assert "minute 12.0, 25.0 dB" in row_text(widget)
    assert "2.0 dB better than Richardson-Lucy" in row_text(widget)
    assert [round(y, 3) for _, y in view.loss.points[:3]] == [1, 0.5, 0.333]
    assert [x for x, _ in view.score.points] == pytest.approx([4, 8, 12, 16, 20])
    assert [y for _, y in view.score.points] == [23, 24, 25, 24, 23]
    assert view.score.reference == ("Richardson-Lucy", 23.0)
    assert view.slices.labels == ["truth", "network", "Richardson-Lucy"]
    assert "minute 20.0" in view.slices_text.text()
    assert len(emitted) >= 2  # while it ran, and at the end
    assert view.run_row.continue_button.isEnabled()
    # the name is taken now: another training gets another one
    qtbot.waitUntil(lambda: view.form.editor("name").placeholderText() == "lfmnet-test-60x-2", timeout=60_000)


def test_stop_keeps_the_best_and_continue_goes_on(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    begin(qtbot, widget, trainer, 8)
    row = widget.view.run_row
    assert row.bar.format() == "16.0 of 20 min"
    assert "Best so far: minute 12.0, 25.0 dB" in row_text(widget)

    def act() -> None:
        row.stop_button.click()
        assert "Stopping" in row_text(widget)
        assert not row.stop_button.isEnabled()
        trainer.gate.release()  # type: ignore[union-attr]

    assert end(qtbot, widget, act).status == "stopped"
    assert trainer.closed.is_set()
    assert "Kept the network of minute 12.0, 25.0 dB" in row_text(widget)
    assert row.continue_button.isEnabled()
    trainer.gate = None
    minutes = widget.controller.course.elapsed
    widget.view.form.set_values({"minutes": 10.0, "size": "large"})
    assert end(qtbot, widget, row.continue_button.click).status == "finished"
    wish, resumed = trainer.wishes[-1]
    assert resumed
    assert wish.minutes == pytest.approx(minutes + 10)
    assert wish.size == "small"  # everything else as it was
    assert widget.controller.course.step == 20
    xs = [x for x, _ in widget.view.score.points]
    assert xs == sorted(xs)
    assert xs[-1] == pytest.approx(minutes + 10)


def test_stop_in_the_preparation_leaves_nothing(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    trainer.slow = threading.Event()
    widget.view.run_row.run_button.click()
    qtbot.waitUntil(lambda: "Computing the optics" in row_text(widget), timeout=60_000)
    assert widget.view.run_row.bar.format() == "3 of 8"
    folder = trainer.training_folder("lfmnet-test-60x")
    assert folder.exists()

    def act() -> None:
        widget.controller.stop()
        trainer.slow.set()  # type: ignore[union-attr]

    assert end(qtbot, widget, act).status == "stopped"
    assert "Stopped in the preparation" in row_text(widget)
    assert "No network was kept" in row_text(widget)
    assert not folder.exists()  # the name is free again
    assert not widget.view.run_row.continue_button.isEnabled()


def test_errors_are_a_sentence_in_the_panel(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    trainer.fail_at = 5
    assert end(qtbot, widget, widget.controller.run).status == "failed"
    assert "Memory ran out (step 5)." in row_text(widget)
    assert "Take a smaller network." in row_text(widget)
    assert "Kept the network of minute 8.0, 24.0 dB" in row_text(widget)
    assert widget.view.run_row.continue_button.isEnabled()


def test_a_disk_that_is_full_at_stop_is_told(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    begin(qtbot, widget, trainer, 3)
    trainer.fail_to_save = True

    def act() -> None:
        widget.controller.stop()
        trainer.gate.release()  # type: ignore[union-attr]

    end(qtbot, widget, act)
    assert "The disk is full." in row_text(widget)


def test_a_training_that_blew_up_says_so(qtbot: Any, widget: Any, trainer: StandIn) -> None:
    trainer.reason = "unstable"
    end(qtbot, widget, widget.controller.run)
    assert "not finite" in row_text(widget)
    assert "Kept the network of minute 12.0" in row_text(widget)


def test_an_earlier_training_goes_on(
    qtbot: Any, widget: Any, trainer: StandIn, microscope: Microscope
) -> None:
    wish = TrainWish(microscope=microscope, id="mine", minutes=7, specimen="vessels")
    folder = trainer.training_folder("mine")
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"wish": wish.model_dump(mode="json")}))
    widget.view.form.set_values({"name": "mine"})
    qtbot.waitUntil(lambda: "already" in widget.view.problems.text(), timeout=60_000)
    row = widget.view.run_row
    assert not row.run_button.isEnabled()
    assert row.continue_button.isEnabled()
    end(qtbot, widget, row.continue_button.click)
    assert trainer.wishes == [(wish.model_copy(update={"minutes": 20.0}), True)]
    (folder / "training.json").write_text("{}")
    widget.view.form.set_values({"name": "mine "})
    qtbot.waitUntil(lambda: "cannot be read" in widget.view.problems.text(), timeout=60_000)


def test_closing_in_the_middle_ends_the_training(qtbot: Any, viewer: Any, widget: Any, trainer: Any) -> None:
    trainer.steps, trainer.wait_s, trainer.gate = 10**9, 0.01, threading.Semaphore(0)
    widget.view.run_row.run_button.click()
    qtbot.waitUntil(lambda: widget.controller.course.step > 0, timeout=60_000)
    crew, course = widget.crew, widget.controller.course
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: crew.closed, timeout=60_000)
    assert trainer.closed.is_set()  # closing has waited for it
    assert course.step < trainer.steps


def test_the_white_frame_is_offered_where_there_is_one(
    qtbot: Any, viewer: Any, widget: Any, monkeypatch: Any
) -> None:
    view = widget.view
    assert not view.white_box.isVisibleTo(view)
    viewer.add_image(np.ones((60, 60), np.uint16), name="raw")
    viewer.add_image(np.ones((60, 60), np.uint16), name="white")
    widget.session.set_input("lightfield", viewer.layers["raw"])
    assert view.white_box.isVisibleTo(view)
    # an even white frame shows no lenslets: a sentence, no training
    view.white_box.setChecked(True)
    qtbot.waitUntil(lambda: "Or train without the white frame" in view.problems.text(), timeout=60_000)
    assert not view.run_row.run_button.isEnabled()
    viewer.layers.remove("white")
    ready(qtbot, widget)
    assert not view.white_box.isChecked()


def test_the_panel_is_in_the_menu() -> None:
    widgets = PluginManifest.from_distribution("napari-lfm").contributions.widgets or []
    assert "Train a network" in [w.display_name for w in widgets]
