"""The *Refocus* panel: one image onto any plane or surface, while one drags a slider."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import napari  # noqa: TC002  (napari gives a widget its viewer by the annotation)
import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer

from napari_lfm._settings import load_settings
from napari_lfm.core.problems import Problem
from napari_lfm.core.words import duration
from napari_lfm.widgets.fields import MICROMETRES
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.preload import import_torch_gently, leave_a_core
from napari_lfm.widgets.qt import Signal
from napari_lfm.widgets.refocus_check import RefocusChecks
from napari_lfm.widgets.refocus_input import (
    FlatInput,
    beyond_html,
    flat_input,
    heights_html,
    input_html,
    model_html,
    signed,
    visible_region,
)
from napari_lfm.widgets.refocus_layers import RefocusLayers
from napari_lfm.widgets.refocus_live import Failed, LiveDesk, Opened, Painted, Source, Surfaced, Wish
from napari_lfm.widgets.refocus_models import RefocusModels, wide_field
from napari_lfm.widgets.refocus_run import RefocusRuns
from napari_lfm.widgets.refocus_show import RefocusShow
from napari_lfm.widgets.refocus_surface import SurfaceTool
from napari_lfm.widgets.refocus_tune import Tuning
from napari_lfm.widgets.refocus_view import RefocusView
from napari_lfm.widgets.session import bare, layer_info, layer_record
from napari_lfm.widgets.stack_input import place_as_its_file
from napari_lfm.widgets.texts import problems_html

if TYPE_CHECKING:
    from napari.layers import Image

TITLE = "Refocus"
_PAUSE_MS = 60
_LAYER_EVENTS = ("data", "scale", "translate", "units", "axis_labels")


class _Voice(QObject):
    """Carries events from the desk's thread into the GUI thread."""

    said = Signal(object)


def _prepare_thread() -> None:
    import_torch_gently()
    leave_a_core()


class RefocusController:
    """Connects the view with a layer, the models and the desk."""

    def __init__(self, panel: RefocusWidget, view: RefocusView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.layer: Image | None = None
        self.found: FlatInput | None = None
        self.opened: Opened | None = None
        self.heights: np.ndarray | None = None
        self.latency_s: float | None = None
        self._changes, self._opened_at, self._is_new = 0, 0.0, True
        self._network: tuple[Any, Any] | None = None
        self._source: Source | None = None
        self._asked_key: Any = None
        self.layers = RefocusLayers(self.session.viewer)
        self._voice = _Voice()
        self._voice.said.connect(self._on_event, Qt.ConnectionType.QueuedConnection)
        self.desk = LiveDesk(panel.crew, self._voice.said.emit, _prepare_thread)
        self._pause = QTimer(panel)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(self._look)
        panel.crew.at_close(self._pause.stop)
        self.models = RefocusModels(panel, view.models, self._soon, self._voxel_um)
        self.surface = SurfaceTool(
            self.session, view.surface, self.ask, lambda: self.layer, lambda: self.found, lambda: view.z_um
        )  # fmt: skip
        self.runs = RefocusRuns(self)
        self.checks = RefocusChecks(self)
        self.show = RefocusShow(self)
        self.tuning = Tuning(self)
        view.layer_chosen.connect(self.choose)
        view.pixel_entered.connect(lambda _: self._pixel_entered())
        view.z_moved.connect(lambda _: self._moved())
        panel.listen(self.session.layers_changed, self._follow_layers)
        panel.listen(self.session.microscope_changed, self._soon)
        dims = self.session.viewer.dims.events
        dims.current_step.connect(self._soon)
        panel.crew.at_close(lambda: dims.current_step.disconnect(self._soon))
        self.models.begin()
        self._guess()

    @property
    def is_settled(self) -> bool:
        """Whether all that was asked for is computed."""
        return not self._pause.isActive() and not self.desk.busy

    # --------------------------------------------------------------------- input
    def choose(self, layer: Any) -> None:
        """Take a layer; None for none."""
        layer = bare(layer)
        if layer is not self.layer:
            self._leave()
            self.layer = layer
            self.view.pixel_box.blockSignals(True)
            self.view.pixel_box.setValue(0.0)
            self.view.pixel_box.blockSignals(False)
            if layer is not None:
                place_as_its_file(layer, self.session.viewer)
                for name in _LAYER_EVENTS:
                    getattr(layer.events, name).connect(self._changed_layer)
        self._look()

    def _leave(self) -> None:
        layer = self.layer
        self.show.leave()
        if layer is not None:
            for name in _LAYER_EVENTS:
                getattr(layer.events, name).disconnect(self._changed_layer)

    def _changed_layer(self, event: Any = None) -> None:
        self._changes += 1
        self._soon()

    def _candidates(self) -> list[Image]:
        mine = {"volume", "truth", "quicklook", "reprojection", "disagreement"}
        return [
            bare(x)
            for x in self.session.images()
            if layer_record(x).get("role") not in mine or x is self.layer
        ]

    def _guess(self) -> None:
        """Take the topmost image that could be one."""
        layers = self._candidates()
        active = bare(self.session.viewer.layers.selection.active)
        best = [x for x in layers if x is active] or [x for x in reversed(layers) if x.visible and not x.rgb]
        self.choose(best[0] if best else None)

    def _follow_layers(self) -> None:
        here = [bare(x) for x in self.session.viewer.layers]
        self.surface.refresh()
        if self.layer is None:
            self._guess()
        elif not any(x is self.layer for x in here):
            self.choose(None)
        else:
            self.view.show_layers([(x.name, x) for x in self._candidates()], self.layer)

    @property
    def path(self) -> str:
        """File that the layer came from, empty where nobody knows."""
        return "" if self.layer is None else layer_info(self.layer).path

    def world(self) -> dict[str, str]:
        """Return the units of the layer's world, so that results lie in the same one."""
        if self.layer is None or self.found is None:
            return {}
        unit = str(self.layer.units[-1])
        return {"t": "s", "z": unit, "y": str(self.layer.units[-2]), "x": unit}

    def _voxel_um(self) -> tuple[float, ...] | None:
        pixel = self._pixel_um()
        return (pixel, pixel) if pixel else None

    def _pixel_um(self) -> float:
        known = 0.0 if self.found is None else self.found.pixel_um
        return known or float(self.view.pixel_box.value())

    def _pixel_entered(self) -> None:
        """Give the layer the size that was typed, in its own record: everything else lies beside it then."""
        layer, pixel = self.layer, float(self.view.pixel_box.value())
        if layer is None or not pixel:
            return
        layer.units = (*map(str, layer.units[:-2]), "um", "um")
        layer.scale = (*layer.scale[:-2], pixel, pixel)
        self.session.viewer.reset_view()
        self._look()

    def _soon(self, event: Any = None) -> None:
        if not self.panel.crew.closed:
            self._pause.start()

    def _look(self) -> None:
        """Read the layer and the model anew, and ask for what is to be seen."""
        self._pause.stop()
        if self.panel.crew.closed:
            return
        view = self.view
        view.show_layers([(x.name, x) for x in self._candidates()], self.layer)
        problems = self._read()
        if self.found is not None:
            view.show_pixel(not self.found.pixel_um)
            view.show_movie(self.found.frames)
        else:
            view.show_pixel(False)
            view.show_movie(1)
        self._tell_input(problems)
        self.show_state()
        if problems:
            self._source = self.opened = None
            self.desk.forget()
            return
        self._make_source()
        self.ask()

    def _read(self) -> list[Problem]:
        """Find out what is looked at; returns what is wrong with it."""
        self.found = None
        if self.layer is None:
            return [
                Problem("No image is chosen.", "Open one in napari, and choose it above.", severity="info")
            ]
        info = layer_info(self.layer)
        point = np.asarray(self.session.viewer.dims.point[-self.layer.ndim :], float)
        if len(point) < self.layer.ndim:
            point = np.zeros(self.layer.ndim)
        at = [int(v) for v in np.rint(np.asarray(self.layer.world_to_data(point), float))]
        found = flat_input(info, at)
        if isinstance(found, Problem):
            return [found]
        self.found = found
        if not found.pixel_um:
            return [Problem(f"'{found.name}' does not say how large its pixels are.", "Enter it above.")]
        before = self.models.chosen
        self.models.refresh()
        offer = self.models.chosen or before
        if offer is None:
            return [
                Problem(
                    "There is no model for refocusing on this machine.",
                    "Import one below, or train one with 'napari-lfm train refocus'.",
                )
            ]
        if offer.verdict in ("refused", "broken", "remote"):
            return [Problem(f"The model '{offer.card.id}' cannot be used: {' '.join(offer.reasons)}")]
        return []

    def _tell_input(self, problems: list[Problem]) -> None:
        lines = [] if self.found is None else [input_html(self.found)]
        offer = self.models.chosen
        if self.found is not None and offer is not None and not problems:
            s = offer.card.scalers
            notes = [] if self.opened is None else list(self.opened.image.notes)
            lines.append(model_html(offer.card.id, s.get("range_um", 0.0), s.get("pixel_um", 0.0), notes))
            self.view.show_range(s.get("range_um", 10.0))
            self.view.show_heads(s.get("confocal", 1.0) > 0)
        lines += [problems_html(problems)] if problems else []
        self.view.input_text.show_text("<br>".join(lines))

    def _make_source(self) -> None:
        found, offer = self.found, self.models.chosen
        assert found is not None
        assert offer is not None
        settings, entry = load_settings(), offer.entry
        microscope = wide_field(self.session.microscope)
        optics = "" if microscope is None else microscope.model_dump_json()
        stamp = (str(entry.folder), entry.card.sha256, settings.device)
        key = (id(self.layer), self._changes, tuple(found.at.items()), found.pixel_um, stamp, optics)
        if self._source is not None and self._source.key == key:
            return

        def open_it() -> Any:
            from napari_lfm.core.devices import pick_device
            from napari_lfm.methods.refocus.opening import open_refocuser
            from napari_lfm.networks.registry import open_network

            if self._network is None or self._network[0] != stamp:
                self._network = stamp, open_network(entry, pick_device(settings.device))
            return open_refocuser(
                found.plane(), found.pixel_um, entry, microscope, settings.device, network=self._network[1]
            )

        self._source = Source(key, open_it)

    # ---------------------------------------------------------------------- live
    def _moved(self) -> None:
        self.surface.slider_moved()
        self.ask()

    def ask(self) -> None:
        """Ask for what is to be seen now; what was asked for before is dropped."""
        source, layer = self._source, self.layer
        if source is None or layer is None or self.found is None or self.panel.crew.closed:
            return
        surface = self.surface.surface()
        if isinstance(surface, Problem):
            self.view.show_problem(surface)
            return
        corners = np.asarray(layer.corner_pixels)[:, -2:]
        region = visible_region(
            corners if layer.visible or self.opened else np.zeros((2, 2)), self.found.shape
        )
        make, key = surface if surface is not None else (None, None)
        self._asked_key = key
        if surface is None:
            self.heights = None
            self.view.surface.heights.show_text("")
        if self.opened is None:
            self.view.text.show_text("Opening the image and the model...")
        self.desk.ask(Wish(source, self.view.z_um, make, key, region))

    def _on_event(self, event: Any) -> None:
        if self.panel.crew.closed or self.layer is None or self._source is None:
            return
        wish_source = event.source if isinstance(event, Opened) else event.wish.source
        if wish_source.key != self._source.key:
            return  # of an image that is not looked at any more
        if isinstance(event, Opened):
            self._on_opened(event)
        elif isinstance(event, Surfaced):
            if event.wish.surface_key != self._asked_key:
                return  # another surface is wanted by now
            self.heights = event.heights
            domain = self.opened.image.refocuser.domain if self.opened is not None else None
            if domain is not None:
                self.view.surface.heights.show_text(heights_html(event.heights, domain.range_um))
        elif isinstance(event, Painted):
            self._on_painted(event)
        elif isinstance(event, Failed):
            self.view.show_problem(event.problem)

    def _on_opened(self, event: Opened) -> None:
        assert self.layer is not None
        self.opened, self._opened_at, self._is_new = event, time.perf_counter(), True
        image = event.image
        self.layers.begin(self.layer, image.factor, image.refocuser.shape)
        self.view.show_range(image.refocuser.domain.range_um, image.refocuser.limit_um)
        self._tell_input([])
        self.show_state()

    def _on_painted(self, event: Painted) -> None:
        self.layers.paint(event.part, event.picture, event.last)
        if event.first:
            self.show.follow_beside()
        if event.last:
            self.show.follow_solid()
        if not event.first:
            return
        # what opening it took is no matter of the slider
        self.latency_s = time.perf_counter() - max(event.wish.asked, self._opened_at)
        wish = event.wish
        assert self.opened is not None
        domain = self.opened.image.refocuser.domain
        took = ""
        if not self._is_new:  # the first picture of an image prepares what the others need
            took = (
                f" in {duration(self.latency_s) if self.latency_s >= 1 else f'{1e3 * self.latency_s:.0f} ms'}"
            )
        self._is_new = False
        if wish.surface is None:
            text = f"<b>z = {signed(wish.z_um, 2)} {MICROMETRES}</b>{took}."
            warning = beyond_html(wish.z_um, domain.range_um)
            self.view.text.show_text(f"{text}<br>{warning}" if warning else text)
        else:
            self.view.text.show_text(f"<b>On the surface</b>{took}.")

    def show_state(self) -> None:
        """Enable what can be done now."""
        view = self.view
        ready = self._source is not None and self.found is not None
        view.show_ready(self.opened is not None and self.found is not None)
        movie = self.found is not None and self.found.frames > 1
        view.show_running(self.runs.runner.is_running, ready, movie, surface=ready)
        view.show_checking(self.checks.is_running, self.opened is not None)
        view.surface.show_busy(self.checks.is_running)
        self.tuning.show(self.found)


class RefocusWidget(Panel):
    """Refocus one image onto any plane or surface."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = RefocusView()
        self.fill(self.view)
        self.controller = RefocusController(self, self.view)
