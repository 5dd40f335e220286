"""The *Compare stacks* dock widget: its controller, and the widget that napari shows."""

from __future__ import annotations

import html
import threading
from typing import TYPE_CHECKING, Any

from napari.utils import Colormap
from qtpy.QtCore import QTimer

from napari_lfm.core.agreement import FLOOR_SHARE, WINDOW_PX, agreement_words
from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.core.sharpness import PERCENTILES
from napari_lfm.io.layers import layer_data_from
from napari_lfm.widgets.compare_stacks_view import SLOTS, CompareStacksView
from napari_lfm.widgets.panel import Panel
from napari_lfm.widgets.result_layers import in_units
from napari_lfm.widgets.session import bare, layer_info, layer_record
from napari_lfm.widgets.sharpness_plot import COLOURS
from napari_lfm.widgets.side_by_side import SideBySide
from napari_lfm.widgets.stack_comparison import (
    ErrorMap,
    Series,
    error_map,
    one_stack,
    sharpness_series,
    sharpness_words,
)
from napari_lfm.widgets.stack_input import layer_dims, stack_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr
    from napari import Viewer
    from napari.layers import Image

TITLE = "Compare stacks"
MAP_LIMITS = (-1.0, 1.0)
_RESULTS = ("result1", "result2", "result3")
_TICK_MS = 100
_SHORT = 28


def difference_colormap() -> Colormap:
    """Return blue over black to orange: what is black disagrees in nothing, also over another layer."""
    return Colormap([[0.25, 0.65, 1.0], [0.0, 0.0, 0.0], [1.0, 0.55, 0.1]], name="blue-black-orange")


class CompareStacksController:
    """Connects the view with the viewer's stacks."""

    def __init__(self, panel: CompareStacksWidget, view: CompareStacksView) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self.viewer = self.session.viewer
        self.chosen: dict[str, Image | None] = dict.fromkeys(SLOTS)
        self.side = SideBySide(self.viewer)
        self.map_layer: Image | None = None
        self._stop = threading.Event()
        self._share = 0.0
        self.busy = False
        self._timer = QTimer(panel)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        # a worker in the middle of a big stack ends with the panel
        panel.crew.at_close(self._stop.set)
        view.slot_chosen.connect(self.choose)
        view.sharpness_button.clicked.connect(self.measure)
        view.error_button.clicked.connect(self.make_map)
        view.side_button.clicked.connect(self.show_beside)
        view.back_button.clicked.connect(self.lay_over)
        view.stop_button.clicked.connect(self._stop.set)
        panel.listen(self.session.layers_changed, self.refresh)
        self._guess()
        self._show()

    # ------------------------------------------------------------------- which
    def choose(self, slot: str, layer: Image | None) -> None:
        """Put a layer into a slot; it leaves any other one."""
        layer = bare(layer)
        for other in SLOTS:
            if layer is not None and self.chosen[other] is layer:
                self.chosen[other] = None
        self.chosen[slot] = layer
        self._show()

    def propose(self, input_name: str, result: Image) -> None:
        """Take an input and its newest result in, beside what is chosen already."""
        here = {x.name: bare(x) for x in self.viewer.layers}
        source = here.get(input_name)
        if source is not None and source is not self.chosen["input"]:
            self.choose("input", source)
        result = bare(result)
        if result not in self.chosen.values():
            free = [s for s in _RESULTS if self.chosen[s] is None]
            self.choose(free[0] if free else _RESULTS[-1], result)

    def refresh(self) -> None:
        """Forget layers that are gone."""
        here = [bare(x) for x in self.viewer.layers]
        for slot, layer in self.chosen.items():
            if layer is not None and layer not in here:
                self.chosen[slot] = None
        if self.map_layer not in here:
            self.map_layer = None
        if not any(self.chosen.values()):
            self._guess()
        self._show()

    def _guess(self) -> None:
        """Fill the slots from what the layers say they are."""
        layers = [bare(x) for x in stack_layers(self.session.images()) if x.ndim >= 3]
        roles = [(layer_record(x).get("role"), x) for x in layers]
        results = [x for role, x in roles if role == "volume"]
        measured = [x for role, x in roles if role not in ("volume", "truth", "psf")]
        truths = [x for role, x in roles if role == "truth"]
        self.chosen["input"] = measured[0] if measured else None
        for slot, layer in zip(_RESULTS, results[-len(_RESULTS) :], strict=False):
            self.chosen[slot] = layer
        self.chosen["truth"] = truths[0] if truths else None

    def stacks(self) -> list[tuple[str, Image]]:
        """Return slots and layers that are chosen, from input to truth."""
        return [(slot, layer) for slot, layer in self.chosen.items() if layer is not None]

    def _labelled(self, layer: Image) -> xr.DataArray:
        """Return a layer as one stack: of movies and channels what the sliders show."""
        info = layer_info(layer)
        dims = self.viewer.dims
        image_dims = [str(a).lower() for a in layer.axis_labels]
        if not {"y", "x"} <= set(image_dims):
            image_dims = ["t", "c", "z", "y", "x"][-layer.ndim :] if layer.ndim < 4 else ["t", "z", "y", "x"]
        at = {
            d: int(dims.current_step[dims.ndim - layer.ndim + i])
            for i, d in enumerate(image_dims)
            if d in ("t", "c")
        }
        return one_stack(info, at)

    # -------------------------------------------------------------------- work
    def measure(self) -> None:
        """Compute sharpness against depth of every chosen stack."""
        try:
            stacks = [(layer.name, self._labelled(layer)) for _, layer in self.stacks()]
        except RequestError as error:
            self.view.sharpness_text.show_problems([error.problem()])
            return
        slots = [slot for slot, _ in self.stacks()]
        self.view.sharpness_text.show_text("")

        def done(found: list[Series]) -> None:
            self._measured(slots, found)

        self._work("sharpness", lambda: sharpness_series(stacks, self._stop, self._tell), done)

    def _measured(self, slots: Sequence[str], found: list[Series]) -> None:
        self._idle()
        order = list(SLOTS)
        self.view.plot.show_series(
            [(one, COLOURS[order.index(slot)]) for slot, one in zip(slots, found, strict=True)]
        )
        low, high = PERCENTILES
        self.view.sharpness_text.show_text(
            f"{html.escape(sharpness_words(found))} Full lines: the sharpest 32 \N{MULTIPLICATION SIGN} 32 "
            "pixels of every plane (signal); dotted: the flattest (background). Noise is sharp, too: signal "
            "is what stands above the dotted line. Every stack's grey values are scaled so that its "
            f"{low:g} and {high:g} percentiles are 0 and 1."
        )

    def make_map(self) -> None:
        """Compute where two of the chosen stacks disagree, and add it as a layer."""
        first, second = (bare(c.currentData()) for c in (self.view.first_combo, self.view.second_combo))
        if first is None or second is None or first is second:
            problem = Problem("The same stack is chosen twice.", "Choose two different ones.")
            self.view.error_text.show_problems([problem])
            return
        try:
            pair = [(layer.name, self._labelled(layer)) for layer in (first, second)]
        except RequestError as error:
            self.view.error_text.show_problems([error.problem()])
            return
        units = dict(zip(layer_dims(second, pair[1][1]), map(str, second.units), strict=True))
        self.view.error_text.show_text("")
        self._work(
            "error",
            lambda: error_map(pair[0], pair[1], self._stop, self._tell),
            lambda found: self._mapped(found, units),
        )

    def _mapped(self, found: ErrorMap, units: dict[str, str]) -> None:
        self._idle()
        if self.map_layer is not None and self.map_layer in [bare(x) for x in self.viewer.layers]:
            self.viewer.layers.remove(self.map_layer)
        data, arguments, _ = layer_data_from(
            found.image,
            name=f"error map: {_short(found.first)} - {_short(found.second)}",
            role="disagreement",
            contrast_limits=MAP_LIMITS,
        )
        arguments = in_units(arguments, units)
        self.map_layer = bare(
            self.viewer.add_image(data, **arguments, colormap=difference_colormap(), blending="additive")
        )
        self.map_layer.contrast_limits_range = (-2.0, 2.0)
        first, second = html.escape(found.first), html.escape(found.second)
        words = html.escape(agreement_words(found.agreement, found.first, found.second))
        self.view.error_text.show_text(
            f"<b>{words}</b><br>Orange: more light in {first}; blue: more in {second}; black: they agree. "
            f"Both were averaged over {WINDOW_PX} \N{MULTIPLICATION SIGN} {WINDOW_PX} pixels and brought to "
            "one scale; the map is their difference divided by their mean, 1 is full colour. Signal is what "
            f"reaches {100 * FLOOR_SHARE:.0f} % of the brightest in either."
        )
        self._show()

    def _work(self, key: str, function: Callable[[], Any], done: Callable[[Any], None]) -> None:
        if self.busy:
            return
        self._stop.clear()
        self.busy, self._share = True, 0.0
        self._timer.start()
        self._tick()
        self._show_buttons()
        text = self.view.sharpness_text if key == "sharpness" else self.view.error_text

        def failed(problem: Problem) -> None:
            self._idle()
            stopped = self._stop.is_set()
            text.show_text("Stopped.") if stopped else text.show_problems([problem])

        self.panel.background.submit(key, function, done, failed)

    def _tell(self, share: float) -> None:
        self._share = share  # a float: written by the worker, read by the timer

    def _tick(self) -> None:
        self.view.progress.setValue(round(100 * self._share))

    def _idle(self) -> None:
        self.busy = False
        self._timer.stop()
        self._show_buttons()

    # -------------------------------------------------------------- side by side
    def show_beside(self) -> None:
        """Show the chosen stacks in a row."""
        layers = [layer for _, layer in self.stacks()]
        limits: list[tuple[float, float] | None] = [None] * len(layers)
        names = [SLOTS[slot][0].lower() for slot, _ in self.stacks()]
        if self.map_layer is not None and self.view.map_box.isChecked():
            layers.append(self.map_layer)
            limits.append(MAP_LIMITS)
            names.append("error map")
        self.side.show(layers, limits)
        self.view.side_text.show_text(
            f"In reading order: {' | '.join(names)}. Each is as bright as its own values ask for; "
            "camera and sliders move all."
        )
        self._show_buttons()

    def lay_over(self) -> None:
        """Lay the layers over each other again."""
        self.side.restore()
        self.view.side_text.show_text("")
        self._show_buttons()

    # -------------------------------------------------------------------- show
    def _show(self) -> None:
        layers = [(x.name, bare(x)) for x in stack_layers(self.session.images()) if x.ndim >= 3]
        self.view.show_slots(layers, self.chosen)
        stacks = self.stacks()
        self.view.stacks_text.show_text(
            "" if len(stacks) > 1 else "Choose at least two stacks of one sample, such as input and result."
        )
        pairs = [(layer.name, layer) for _, layer in stacks]
        # a network against a deconvolution; else the result against the truth, or against the input
        results = [layer for slot, layer in stacks if slot in _RESULTS]
        others = [layer for slot, layer in stacks if slot in ("truth", "input")][::-1]
        ranked = [*results[::-1][:2], *others] if len(results) > 1 else [*results, *others]
        first, second = [*ranked, None, None][:2]
        kept = [bare(c.currentData()) for c in (self.view.first_combo, self.view.second_combo)]
        here = [layer for _, layer in stacks]
        if (
            all(x in here for x in kept)
            and kept[0] is not kept[1]
            and len(here) == self.view.first_combo.count()
        ):
            first, second = kept
        self.view.show_pairs(pairs, first, second)
        self._show_buttons()

    def _show_buttons(self) -> None:
        self.view.show_buttons(len(self.stacks()), self.busy, self.side.active)


def _short(name: str) -> str:
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}\N{HORIZONTAL ELLIPSIS}"


class CompareStacksWidget(Panel):
    """Hold stacks of one sample against each other: sharpness, error map, side by side."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.view = CompareStacksView()
        self.fill(self.view)
        self.controller = CompareStacksController(self, self.view)
