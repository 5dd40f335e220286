"""Stack, movie and surface of the *Refocus* panel: runs of the method `refocus`, with record and Stop."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from qtpy.QtWidgets import QFileDialog

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import LfmError, Problem, RequestError
from napari_lfm.core.words import duration
from napari_lfm.io.layers import layer_data_from
from napari_lfm.methods.base import Request, get_method, make_parameters
from napari_lfm.widgets.refocus_input import drift_values
from napari_lfm.widgets.refocus_layers import MASK
from napari_lfm.widgets.refocus_models import METHOD, wide_field
from napari_lfm.widgets.refocus_surface import SurfaceWish
from napari_lfm.widgets.result_layers import ResultLayers, in_units
from napari_lfm.widgets.runner import Outcome, Runner
from napari_lfm.widgets.texts import coloured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from napari_lfm.core.events import Progress, Result
    from napari_lfm.widgets.refocus import RefocusController
    from napari_lfm.widgets.refocus_input import FlatInput
    from napari_lfm.widgets.runner import ReadyPreview

_OUTPUT = {"confocal": "confocal-like", "widefield": "refocused"}
_BEYOND = "beyond"


def stack_values(low: float, high: float, step: float) -> dict[str, Any]:
    """Return the parameters of a stack.

    Raises
    ------
    RequestError
        If the range is reversed or holds one plane only.
    """
    if high <= low:
        raise RequestError(f"The stack ends at {high:g} um, below its start at {low:g} um.", "Swap them.")
    if step > high - low:
        raise RequestError(
            f"A step of {step:g} um is longer than the range.", "Give a smaller step, or a longer range."
        )
    return {"surface": "stack", "z_min_um": low, "z_max_um": high, "z_step_um": step}


class RefocusRuns:
    """The buttons of the box *Stack and movie*."""

    def __init__(self, control: RefocusController) -> None:
        self.control, self.view, self.session = control, control.view, control.session
        self.runner = Runner(control.panel.crew, control.panel)
        self.layers = ResultLayers(self.session.viewer)
        self.outcome: Outcome | None = None
        self._plane_um, self._name = 0.0, ""
        view = self.view
        view.stack_button.clicked.connect(lambda: self.make_stack())
        view.surface_button.clicked.connect(lambda: self.make_surface())
        view.movie_button.clicked.connect(lambda: self.make_movie())
        view.stop_button.clicked.connect(lambda: self.stop())
        view.csv_button.clicked.connect(lambda: self.ask_drift())
        self.runner.progressed.connect(self._progressed)
        self.runner.previewed.connect(self._previewed)
        self.runner.finished.connect(self._finished)

    # ---------------------------------------------------------------------- start
    def make_stack(self) -> None:
        """Refocus onto many planes."""
        view = self.view
        self._try(
            lambda found: self._request(
                found,
                SurfaceWish(stack_values(view.from_box.value(), view.to_box.value(), view.step_box.value())),
                found.image.isel(dict(found.at), drop=True),
            )
        )

    def make_surface(self) -> None:
        """Refocus onto what is shown, into a layer of its own."""
        self._try(
            lambda found: self._request(
                found, self.control.surface.wish(), found.image.isel(dict(found.at), drop=True)
            )
        )

    def make_movie(self) -> None:
        """Refocus every frame onto the surface, moved by the drift."""

        def request(found: FlatInput) -> Request:
            if found.frames < 2:
                raise RequestError(
                    f"'{found.name}' is no movie.", "Choose a layer with a time axis (t, y, x)."
                )
            wish = self.control.surface.wish()
            drift = drift_values(self.view.drift_line.text(), found.frames)
            return self._request(
                found, SurfaceWish({**wish.values, "drift_um": drift}, wish.inputs), found.chosen()
            )

        self._try(request)

    def _request(self, found: FlatInput, wish: SurfaceWish, image: xr.DataArray) -> Request:
        method = get_method(METHOD)
        settings, offer = load_settings(), self.control.models.chosen
        assert offer is not None
        values = {**wish.values, "output": self.control.layers.head}
        return Request(
            method=METHOD,
            inputs={"image": image, **wish.inputs},
            parameters=make_parameters(method, values),
            microscope=wide_field(self.session.microscope),
            model=offer.key,
            device=settings.device,
            memory_gib=settings.memory_gib or None,
            sources={"image": self.control.path} if self.control.path else {},
        )

    def _try(self, make: Callable[[FlatInput], Request]) -> None:
        found = self.control.found
        if self.runner.is_running or found is None:
            return
        try:
            request = make(found)
            method = get_method(METHOD)
            wrong = [p for p in method.check(request) if p.severity == "error"]
        except LfmError as error:
            self._tell(error.problem())
            return
        if wrong:
            self._tell(*wrong)
            return
        self._plane_um, self._name = found.z_um, found.name
        self.layers.begin(found.name, go_on=False, world=self.control.world())
        self.view.show_progress(0, 0, "Preparing")
        self.runner.start(method, request)
        self.control.show_state()

    def stop(self) -> None:
        """End after the present plane."""
        if self.runner.is_running:
            self.runner.stop()
            self.view.run_text.show_text("Stopping after this plane...")

    # ---------------------------------------------------------------------- drift
    def ask_drift(self) -> None:
        """Let the user choose a file with one value per frame."""
        name, _ = QFileDialog.getOpenFileName(
            self.view, "Drift, one value per frame", "", "Text (*.csv *.txt);;All files (*)"
        )
        if name:
            self.read_drift(Path(name))

    def read_drift(self, path: Path) -> None:
        """Read the drift from a file."""
        from napari_lfm.methods.refocus.wish import read_drift

        try:
            values = read_drift(path)
        except LfmError as error:
            self._tell(error.problem())
            return
        self.view.drift_line.setText(", ".join(f"{v:g}" for v in values))
        self._tell()

    # ------------------------------------------------------------------------ end
    def _progressed(self, events: Sequence[Progress]) -> None:
        last = events[-1]
        left = f", {duration(last.seconds_left)} left" if last.seconds_left is not None else ""
        if not self.runner.is_stopping:
            self.view.show_progress(last.step, last.total, html.escape(last.message) + left)

    def _previewed(self, ready: ReadyPreview) -> None:
        if not self.control.layers.is_solid:
            self.layers.show_preview(ready)

    def _finished(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.layers.end()
        if outcome.status == "failed" and outcome.problem is not None:
            self._tell(outcome.problem)
        elif outcome.result is not None:
            self._show(outcome.result)
            self.view.run_text.show_text(
                coloured(f"Done in {duration(outcome.seconds)}.", "good")
                + " The layer carries the record of how it was made; File > Save Selected Layers keeps it."
            )
        else:
            kept = ""
            if outcome.preview is not None:
                self.layers.keep(outcome.preview, outcome.preview.preview.provenance)
                kept = " What was finished is kept."
            self.view.run_text.show_text(
                coloured(f"Stopped after {duration(outcome.seconds)}.", "warning") + kept
            )
        self.control.show_state()

    def _show(self, result: Result) -> None:
        """Add the layers of a result; planes of a stack lie where they lie in the stack of their image."""
        shift = self._plane_um
        outputs = {name: lifted(image, shift) for name, image in result.outputs.items() if name != _BEYOND}
        self.layers.show_result(replace(result, outputs=outputs), None)
        for head, name in _OUTPUT.items():
            layer, limits = self.layers.layer(name), self.control.layers.limits_of_head(head)
            if layer is not None and limits is not None:
                layer.contrast_limits_range = (min(limits[0], 0.0), 4 * limits[1])
                layer.contrast_limits = limits
                layer.visible = True
        if _BEYOND in result.outputs:
            self._show_beyond(lifted(result.outputs[_BEYOND], shift))

    def _show_beyond(self, image: xr.DataArray) -> None:
        """Mark where the result is beyond the trained range."""
        data, arguments, _ = layer_data_from(image, name=f"{MASK} ({self._name})", contrast_limits=(0, 1))
        arguments = in_units(arguments, self.control.world())
        wanted = ("scale", "translate", "units", "axis_labels", "name")
        self.control.layers.add_mask(data, **{k: arguments[k] for k in wanted if k in arguments})

    def _tell(self, *problems: Problem) -> None:
        self.view.run_text.show_problems(problems)


def lifted(image: xr.DataArray | pd.DataFrame, z_um: float) -> Any:
    """Return an image whose planes lie further up; one without planes as it is."""
    if not z_um or "z" not in getattr(image, "dims", ()):
        return image
    assert not isinstance(image, pd.DataFrame)
    z = image.coords["z"]
    return image.assign_coords(z=("z", z.values + z_um, z.attrs))
