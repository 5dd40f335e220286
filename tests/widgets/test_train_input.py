"""From the *Train* form to a wish: bounds, names, the white frame; and one tiny training for real."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.methods.train_wish import TrainWish
from napari_lfm.networks.registry import find_model
from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
from napari_lfm.training.lfmnet_plan import SIZES, SPECIMENS
from napari_lfm.widgets import train_white
from napari_lfm.widgets.fields import specs_of
from napari_lfm.widgets.state import LayerInfo, ReconstructState
from napari_lfm.widgets.train import TrainWidget
from napari_lfm.widgets.train_input import (
    SIZE_TEXTS,
    SPECIMEN_TEXTS,
    TrainSettings,
    earlier_training,
    free_name,
    plan_training,
    settings_of,
)
from napari_lfm.widgets.train_plans import slug
from napari_lfm.widgets.train_white import WhiteFit, WhiteFits, WhiteSource, fit_white


@pytest.fixture
def tiny() -> Microscope:
    """A coarse light-field microscope: five pixels per lenslet."""
    return Microscope(
        name="tiny",
        objective=Objective(magnification=20, na=0.45),
        lenslets=LensletArray(pitch_um=100, focal_length_um=2200),
        camera=Camera(pixel_um=20),
        wavelength_um=0.55,
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("NAPARI_LFM_HOME", str(tmp_path))
    monkeypatch.delenv("NAPARI_LFM_MODELS", raising=False)


def test_the_choices_are_those_of_the_training() -> None:
    fields = TrainSettings.model_fields
    assert set(get_args(fields["specimen"].annotation)) == set(SPECIMENS) == set(SPECIMEN_TEXTS)
    assert set(get_args(fields["size"].annotation)) == set(SIZES) == set(SIZE_TEXTS)


def test_the_form_allows_no_more_than_the_training() -> None:
    allowed = {s.name: s for s in specs_of(TrainWish)}
    for spec in specs_of(TrainSettings):
        if spec.name in allowed and spec.kind in ("int", "float"):
            other = allowed[spec.name]
            assert (spec.low, spec.high) == pytest.approx((other.low, other.high), abs=1), spec.name


def test_values_are_checked_in_words() -> None:
    wrong = settings_of({"minutes": -1.0})
    assert isinstance(wrong, Problem)
    assert "minutes" in str(wrong)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My cells, 20x/0.5", "My-cells-20x-0.5"), ("--..", ""), ("a" * 200, "a" * 79), ("Öl 2.", "l-2")],
)
def test_names_become_ids(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_name_is_found_that_is_free(tiny: Microscope, tmp_path: Any) -> None:
    assert free_name(tiny) == "lfmnet-tiny"
    (tmp_path / "trainings" / "lfmnet-tiny").mkdir(parents=True)
    (tmp_path / "models" / "lfmnet-tiny-2").mkdir(parents=True)
    assert free_name(tiny) == "lfmnet-tiny-3"
    assert earlier_training("lfmnet-tiny") is None


def test_without_a_light_field_microscope_there_is_no_plan(tiny: Microscope) -> None:
    assert "No microscope" in str(plan_training(TrainSettings(), None).problems[0])
    flat = tiny.model_copy(update={"lenslets": None})
    assert "without a lenslet array" in str(plan_training(TrainSettings(), flat).problems[0])


def test_a_plan_has_its_estimate(tiny: Microscope) -> None:
    plan = plan_training(TrainSettings(z_min_um=-8, z_max_um=8, z_step_um=4, minutes=60), tiny)
    assert plan.problems == ()
    assert plan.wish is not None
    assert plan.wish.id == "lfmnet-tiny"
    assert plan.wish.pupil == ()
    assert plan.estimate is not None
    assert plan.estimate.parameters > 1000
    empty = plan_training(TrainSettings(z_min_um=3, z_max_um=-3), tiny)
    assert empty.wish is None
    assert "empty" in str(empty.problems[0])


def white_source(microscope: Microscope, white: np.ndarray) -> WhiteSource:
    layers = {name: LayerInfo(name, data) for name, data in (("raw", white.copy()), ("white", white))}
    state = ReconstructState(
        method=train_white.METHOD, lightfield="raw", white="white", microscope=microscope
    )
    return WhiteSource(state, layers)


def test_the_pupil_comes_from_the_white_frame(microscope: Microscope) -> None:
    # a lenslet image that falls off towards its corners
    n, cells = 15, 9
    axis = (np.arange(n) - n // 2) / (n / 2)
    cell = np.clip(1.2 - np.hypot(axis[:, None], axis[None]), 0, None)
    white = np.tile(1000 * cell + 20, (cells, cells)).astype(np.uint16)
    source = white_source(microscope.model_copy(update={"pixels_per_lenslet": n}), white)
    state = replace(source.state, layout=f"lenslet:{n}")
    fit = fit_white(replace(source, state=state))
    assert fit.n_pixels == n
    assert max(fit.pupil) == 1
    assert fit.pupil[0] > fit.pupil[-1]
    assert fit.misfit < 0.3


def test_a_frame_without_lenslets_is_refused(microscope: Microscope) -> None:
    source = white_source(microscope, np.full((150, 150), 100, np.uint16))
    with pytest.raises(RequestError):
        fit_white(source)
    plan = plan_training(TrainSettings(), microscope, source)
    assert plan.wish is None
    assert "Or train without the white frame." in str(plan.problems[0])


def test_a_fit_is_remembered_until_something_changes(microscope: Microscope, monkeypatch: Any) -> None:
    made: list[int] = []

    def fit(_: WhiteSource) -> WhiteFit:
        made.append(1)
        return WhiteFit((1.0, 0.5), 0.1, 15)

    monkeypatch.setattr(train_white, "fit_white", fit)
    white = np.ones((30, 30))
    fits, source = WhiteFits(), white_source(microscope, white)
    fits.of(source)
    fits.of(WhiteSource(source.state, dict(source.layers)))
    assert len(made) == 1
    fits.of(white_source(microscope, white))  # another light field
    assert len(made) == 2
    fits.of(replace(source, state=replace(source.state, layout="raw")))
    assert len(made) == 3


def test_a_tiny_network_is_trained_in_the_panel(
    qtbot: Any, make_napari_viewer_proxy: Any, tiny: Microscope, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        "napari_lfm.widgets.train_input.TrainSettings.model_dump", tiny_dump(TrainSettings.model_dump)
    )
    viewer = make_napari_viewer_proxy()
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train a network")
    widget.session.set_microscope(tiny)
    widget.view.form.set_values(
        {"z_min_um": -6.0, "z_max_um": 6.0, "z_step_um": 6.0, "voxels_per_lenslet": 1, "specimen": "beads"}
    )
    widget.view.form.set_values({"name": "Tiny one", "minutes": 600.0, "steps": 6})
    c = widget.controller
    qtbot.waitUntil(lambda: c.ready, timeout=30_000)
    with qtbot.waitSignal(c.runner.finished, timeout=120_000) as caught:
        widget.view.run_row.run_button.click()
    assert caught.args[0].problem is None
    assert caught.args[0].status == "finished"
    text = widget.view.run_row.text.text()
    assert "<i>Tiny-one</i> in the list of models" in text
    assert c.course.step == 6
    assert len(c.course.loss.points) == 6
    assert c.course.baseline is not None
    assert widget.view.slices.labels == ["truth", "network", "Richardson-Lucy"]
    entry = find_model("Tiny-one")
    assert (entry.problem, entry.card.title) == ("", "Tiny one")
    assert entry.card.z_um == [-6, 0, 6]
    # it goes on where it was, also from another panel
    earlier = earlier_training("Tiny-one")
    assert earlier is not None
    assert earlier.result is not None
    assert earlier.result.step == 6
    with qtbot.waitSignal(c.runner.finished, timeout=120_000) as caught:
        widget.view.run_row.continue_button.click()
    assert caught.args[0].problem is None
    assert c.course.step == 12


def tiny_dump(original: Any) -> Any:
    """Return a `model_dump` that adds settings for a training of seconds."""

    def dump(self: TrainSettings, **arguments: Any) -> dict[str, Any]:
        tuning = {"cells": 5, "pool": 2, "z_substeps": 1, "optics": 1, "batch_size": 1}
        return {**original(self, **arguments), "tuning": tuning | {"validate_every_steps": 3}}

    return dump
