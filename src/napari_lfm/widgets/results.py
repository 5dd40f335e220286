"""What can be done with a result: save, re-project, copy as script, look at in 3-D."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from napari_lfm.core.events import Result
from napari_lfm.core.problems import LfmError
from napari_lfm.io.provenance import make_provenance
from napari_lfm.methods.base import get_method
from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.compare import Compare
from napari_lfm.widgets.panel import show_panel
from napari_lfm.widgets.result_export import ResultExport
from napari_lfm.widgets.result_residuals import (
    forget,
    judge,
    judged_layers,
    light_field_key,
    request_of,
    residuals_html,
    volume_of,
)
from napari_lfm.widgets.session import bare, update_record
from napari_lfm.widgets.texts import residual_words, shape_text

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image

    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Request
    from napari_lfm.widgets.panel import Panel
    from napari_lfm.widgets.reconstruct_view import ReconstructView
    from napari_lfm.widgets.result_layers import ResultLayers
    from napari_lfm.widgets.runner import Outcome


def input_name(request: Request) -> str:
    """Return the name of the image of a request, empty where it has none."""
    name = request.inputs["image"].name
    return "" if name is None else str(name)


def works_on_stack(request: Request) -> bool:
    """Return whether a request is for a method that takes stacks: no light field to compare with."""
    try:
        return get_method(request.method).input_kind == "stack"
    except LfmError:  # a method of somebody else's
        return "z" in request.inputs["image"].dims


def result_of(outcome: Outcome) -> Result:
    """Return the result of a run, also of one that was stopped or failed on the way.

    A stopped run is recorded with the iterations that it did, so that its script gives the same volume.
    """
    if outcome.result is not None:
        return outcome.result
    assert outcome.preview is not None
    preview, request = outcome.preview.preview, outcome.request
    parameters = request.parameters
    if outcome.steps and "iterations" in type(parameters).model_fields:
        parameters = parameters.model_copy(update={"iterations": outcome.steps})
    known = preview.image.attrs.get("provenance")
    provenance = (
        dict(known)
        if known
        else make_provenance(
            method=request.method,
            parameters=parameters,
            inputs=request.inputs,
            sources=request.sources,
            microscope=request.microscope,
            lattice=request.lattice,
            device=request.device,
            memory_gib=request.memory_gib,
            region_px=request.region_px,
            layout=request.layout,
            model=preview.provenance.get("model"),
            input_kind="stack" if works_on_stack(request) else "lightfield",
            stopped=True,
        )
    )
    return Result({preview.name: preview.image}, preview.name, provenance, outcome.state)


class ResultActions:
    """The buttons of the *Result* box."""

    def __init__(self, panel: Panel, view: ReconstructView, layers: ResultLayers) -> None:
        self.panel, self.view, self.layers = panel, view, layers
        self.background = panel.background
        self.viewer = panel.session.viewer
        self.outcome: Outcome | None = None
        self.result: Result | None = None
        self.export = ResultExport(
            panel, view.save_button, view.python_button, view.command_button, view.save_text
        )
        self.compare = Compare(self.viewer)
        self._hidden: list[Any] = []
        self._layer: Image | None = None
        self._to_judge: list[Image] = []
        view.check_button.clicked.connect(self.check)
        view.compare_stacks_button.clicked.connect(self.compare_stacks)
        view.contrast_button.clicked.connect(layers.fit_contrast)
        view.comparison_chosen.connect(self._compare)
        view.volume_button.clicked.connect(self.turn)
        view.judge_button.clicked.connect(self.judge_others)
        panel.listen(panel.session.layers_changed, self.show_residuals)

    def take(self, outcome: Outcome) -> None:
        """Offer what a run has left."""
        self.outcome, self.result, self._to_judge = outcome, None, []
        self.export.result, self.export.name = None, input_name(outcome.request)
        self.view.check_text.show_text("")
        self.view.compare_combo.setVisible(False)
        self.view.judge_text.show_text("")
        self.view.save_text.show_text("")
        # fingerprints of the inputs take a moment: off the GUI thread
        self.background.submit("result", lambda: result_of(outcome), self._have, self.export.tell)

    def _have(self, result: Result) -> None:
        self.result = self.export.result = result
        image = result.outputs[result.primary]
        text = shape_text(image) if isinstance(image, xr.DataArray) else f"{len(image)} points"
        self.view.show_result(f"<b>{result.primary}:</b> {text}")
        on_stack = self.outcome is not None and works_on_stack(self.outcome.request)
        self.view.show_check(possible=not on_stack)
        self._layer = layer = self.layers.layer(result.primary)
        if layer is not None:
            forget(layer)
            if self.outcome is not None and self.outcome.result is None:
                update_record(layer, provenance=result.provenance)
            figures = result.provenance.get("figures") or {}
            if not on_stack and "relative_residual" in figures and "expected_noise" in figures:
                judge(layer, figures["relative_residual"], figures["expected_noise"])
                self.view.check_text.show_text(f"<b>{figures.get('message', '')}</b>")
        self.show_residuals()
        if self.outcome is not None and self.outcome.status == "finished":
            self.export.save_by_itself()

    def save(self, path: Path) -> None:
        """Write the result in a worker; a failure is told, and nothing is lost."""
        self.export.save(path)

    def compare_stacks(self) -> None:
        """Open the panel that holds stacks against each other, with the last input and result in it."""
        from napari_lfm.widgets.compare_stacks import TITLE, CompareStacksWidget

        panel = show_panel(self.viewer, TITLE, CompareStacksWidget)
        assert isinstance(panel, CompareStacksWidget)
        if self.outcome is not None and self._layer is not None:
            panel.controller.propose(input_name(self.outcome.request), self._layer)

    # -------------------------------------------------------------------- check
    def check(self) -> None:
        """Re-project the volume to the camera, and compare with what was measured."""
        result, outcome = self.result, self.outcome
        if result is None or outcome is None:
            return
        volume = result.outputs[result.primary]
        if not isinstance(volume, xr.DataArray):
            return
        # with its state a deconvolution also knows the light that comes from outside the volume
        request = replace(outcome.request, continue_from=outcome.state)
        self.view.check_text.show_text("Computing the light field of this volume...")
        self.view.check_button.setEnabled(False)

        def work() -> Any:
            from napari_lfm.methods.reproject import reproject

            return reproject(volume, request)

        self.background.submit("check", work, self._checked, self._not_checked)

    def _checked(self, found: Any) -> None:
        self.view.check_button.setEnabled(True)
        words = found.message or residual_words(found.relative_residual)
        self.view.check_text.show_text(f"<b>{words}</b>")
        self.compare.show(found, "" if self.outcome is None else input_name(self.outcome.request))
        self.view.compare_combo.setCurrentIndex(0)
        self.view.compare_combo.setVisible(True)
        layer = self._layer
        if layer is None or self.outcome is None:
            return
        if self.outcome.state is None:
            judge(layer, found.relative_residual, found.expected_noise)
            self.show_residuals()
        else:  # what a deconvolution knows of the light around its volume does not count in the comparison
            self._judge([layer])

    def _not_checked(self, problem: Problem) -> None:
        self.view.check_button.setEnabled(True)
        self.view.check_text.show_problems([problem])

    # ---------------------------------------------------------- which explains more
    def show_residuals(self) -> None:
        """Show what is known of every volume of this light field."""
        rows = []
        if self.result is not None:
            rows = judged_layers(self.viewer, light_field_key(self.result.provenance))
        more = any(r.residual is None for r in rows) and not self._to_judge
        self.view.show_residuals(residuals_html(rows, self._layer), more)

    @property
    def is_judging(self) -> bool:
        """Whether volumes are still being re-projected by themselves."""
        return bool(self._to_judge)

    def judge_others(self) -> None:
        """Re-project every volume of this light field that was not checked yet."""
        if self.result is not None:
            rows = judged_layers(self.viewer, light_field_key(self.result.provenance))
            self._judge([r.layer for r in rows if r.residual is None])

    def _judge(self, layers: list[Image]) -> None:
        """Find the residuals of volumes one after the other, each by itself (worker)."""
        outcome = self.outcome
        self._to_judge = layers
        self.show_residuals()
        if outcome is None or not layers:
            return
        layer = layers[0]
        try:
            volume, request = volume_of(layer), request_of(layer, outcome.request)
        except (LfmError, ValueError) as error:
            self._not_judged(problem_of(error))
            return

        def work() -> Any:
            from napari_lfm.methods.reproject import reproject

            return reproject(volume, request)

        self.view.judge_text.show_text(f"Re-projecting '{html.escape(layer.name)}' by itself...")
        self.background.submit("judge", work, self._judged, self._not_judged)

    def _judged(self, found: Any) -> None:
        if not self._to_judge:  # a new run has begun meanwhile
            return
        layer, rest = self._to_judge[0], self._to_judge[1:]
        judge(layer, found.relative_residual, found.expected_noise)
        self.view.judge_text.show_text("")
        self._judge(rest)

    def _not_judged(self, problem: Problem) -> None:
        self._to_judge = []
        self.view.judge_text.show_problems([problem])

    # --------------------------------------------------------------------- look
    def _compare(self, mode: str) -> None:
        self.compare.choose(mode)
        if mode == "volume":
            self.viewer.reset_view()

    def turn(self) -> None:
        """Switch the viewer between one plane and the whole volume, alone."""
        dims = self.viewer.dims
        if dims.ndisplay == 3:
            dims.ndisplay = 2
            for layer in self._hidden:
                layer.visible = True
            self._hidden = []
        else:
            self.compare.choose("volume")
            # raw frames and marks are flat: in 3-D they only cut through the volume
            self._hidden = [x for x in map(bare, self.viewer.layers) if x.visible and x.ndim < 3]
            for layer in self._hidden:
                layer.visible = False
            dims.ndisplay = 3
            self.viewer.scene.camera.angles = (10.0, 30.0, 50.0)
            self.viewer.reset_view(reset_camera_angle=False)
        self.view.volume_button.setText("Show one plane" if dims.ndisplay == 3 else "Show in 3-D")
