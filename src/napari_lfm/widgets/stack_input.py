"""Choosing the stack, its voxel size, point spread function and microscope: the controller of the box."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_lfm.core.labelled import SPATIAL, spacing_of
from napari_lfm.core.problems import Problem
from napari_lfm.io.layers import layer_data_from
from napari_lfm.io.read import read_image
from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.drop_zone import FILE_FILTER
from napari_lfm.widgets.microscope_choice import MicroscopeChoice
from napari_lfm.widgets.resolve_stack import size_problems, stack_of, stack_words
from napari_lfm.widgets.session import bare, layer_info, layer_record, update_record
from napari_lfm.widgets.stack_view import AXES, MODEL_PSF, NO_STACK, StackBox, fill
from napari_lfm.widgets.state import ROLES
from napari_lfm.widgets.texts import problems_html

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import xarray as xr
    from napari import Viewer
    from napari.layers import Image

    from napari_lfm.widgets.panel import Panel

_NO_INPUT = {*ROLES, "quicklook", "reprojection", "disagreement"}
_MADE = {"volume", "truth"}
_EVENTS = ("scale", "translate", "units", "axis_labels", "data")


@dataclass(frozen=True)
class StackTaker:
    """What the box of the stack asks of a method, for panels that serve a single one."""

    takes_psf: bool = False
    input_kind: str = "stack"


def takes_psf(method: Any) -> bool:
    """Return whether a method can be given a point spread function: one that has settings for it can."""
    known = getattr(method, "takes_psf", None)
    if known is not None:
        return bool(known)
    return any(name.startswith("psf_") for name in method.Parameters.model_fields)


def stack_layers(images: Sequence[Image]) -> list[Image]:
    """Return the layers that could be stacks, measured ones before results."""
    found = [x for x in images if not x.rgb and layer_record(x).get("role") not in _NO_INPUT]
    return sorted(found, key=lambda x: layer_record(x).get("role") in _MADE)


class StackInput:
    """Knows which layers are the stack and its point spread function.

    Parameters
    ----------
    panel : Panel
    view : StackBox
    changed : callable
        Called when another layer is chosen, or the chosen one is another in size or place.
    """

    def __init__(self, panel: Panel, view: StackBox, changed: Callable[[], None]) -> None:
        self.panel, self.view, self.session = panel, view, panel.session
        self._changed = changed
        self._active = False
        self._psf_wanted = False
        self.layer: Image | None = None
        self.psf: Image | None = None
        self.microscopes = MicroscopeChoice(
            panel, view.microscope, self._list_microscopes, lightfield_only=False
        )
        view.stack_chosen.connect(self.choose)
        view.psf_chosen.connect(self.choose_psf)
        view.psf_file_wanted.connect(self.ask_psf)
        view.voxels_entered.connect(self.set_voxels)
        view.drop_zone.files_chosen.connect(self.open)
        panel.listen(self.session.layers_changed, self.refresh)
        panel.listen(self.session.microscope_changed, self._on_microscope)

    # ------------------------------------------------------------------- which
    def use(self, method: Any) -> None:
        """Show the box for a method that works on stacks, hide it for others."""
        self._active = getattr(method, "input_kind", "") == "stack"
        self.view.setVisible(self._active)
        if not self._active:
            return
        self._psf_wanted = takes_psf(method)
        self.view.psf_row.setVisible(self._psf_wanted)
        self._list_microscopes()
        self.microscopes.choose_default()
        self.refresh()

    @property
    def name(self) -> str:
        """Name of the stack's layer, empty for none."""
        return "" if self.layer is None else self.layer.name

    @property
    def psf_name(self) -> str:
        """Name of the point spread function's layer, empty for a computed one."""
        return "" if self.psf is None or not self._psf_wanted else self.psf.name

    def circumstances(self) -> tuple[Any, ...]:
        """Return all about the chosen layers that a plan depends on, to compare."""
        if not self._active:
            return ()
        return tuple(
            (
                id(x.data),
                tuple(x.scale),
                tuple(x.translate),
                tuple(map(str, x.units)),
                x.axis_labels,
                x.affine.affine_matrix.tobytes(),
            )
            for x in (self.layer, self.psf)
            if x is not None
        )

    def image(self) -> xr.DataArray | Problem | None:
        """Return the chosen stack as it is understood, None without one."""
        return None if self.layer is None else stack_of(layer_info(self.layer))

    def voxel_um(self) -> tuple[float, ...] | None:
        """Return the voxel size (z, y, x) of the stack, (y, x) of a plane; None while not known."""
        image = self.image()
        if image is None or isinstance(image, Problem):
            return None
        known = spacing_of(image)
        sizes = tuple(known.get(d, 0.0) for d in SPATIAL if d in image.dims)
        return sizes if all(sizes) else None

    def world(self) -> dict[str, str]:
        """Return the unit of every axis of the stack's layer, in its order: results lie in the same world."""
        image = self.image()
        if self.layer is None or image is None or isinstance(image, Problem):
            return {}
        units = map(str, self.layer.units)
        return {d: u for d, u in zip(layer_dims(self.layer, image), units, strict=True) if d in image.dims}

    def choose(self, layer: Image | None) -> None:
        """Take a layer as the stack."""
        layer = bare(layer)
        self._follow(self.layer, layer)
        if layer is not self.layer:
            self.view.fold_sizes()
        self.layer = layer
        if layer is not None:
            for role in ROLES:  # a stack is no light field, whatever its name has suggested
                if self.session.input(role) is layer:
                    self.session.set_input(role, None)
            place_as_its_file(layer, self.session.viewer)
            if layer_record(layer).get("role") not in _MADE:
                update_record(layer, role="stack")
            if layer is self.psf:
                self.psf = None
        self._show()
        self._changed()

    def choose_psf(self, layer: Image | None) -> None:
        """Take a layer as the point spread function, None for a computed one."""
        layer = bare(layer)
        self._follow(self.psf, layer)
        self.psf = layer
        if layer is not None:
            place_as_its_file(layer)
            update_record(layer, role="psf")
        self._show()
        self._changed()

    def _follow(self, old: Image | None, new: Image | None) -> None:
        for name in _EVENTS:
            if old is not None:
                getattr(old.events, name).disconnect(self._on_layer)
            if new is not None:
                getattr(new.events, name).connect(self._on_layer)

    def _on_layer(self, event: Any = None) -> None:
        if self._active and not self.panel.crew.closed:
            self._show()
            self._changed()

    def refresh(self) -> None:
        """Forget layers that are gone; take the active one where none is chosen."""
        if not self._active:
            return
        here = [bare(x) for x in self.session.images()]
        if self.psf is not None and self.psf not in here:
            self._follow(self.psf, None)
            self.psf = None
        if self.layer is not None and self.layer not in here:
            self._follow(self.layer, None)
            self.layer = None
        if self.layer is None:
            best = self._best([bare(x) for x in stack_layers(self.session.images())])
            if best is not None:
                self.choose(best)
                return
        self._show()

    def _best(self, layers: Sequence[Image]) -> Image | None:
        """Return the active layer if it may be a stack, else the newest stack."""
        fresh = [
            x
            for x in layers
            if x.ndim >= 3 and layer_record(x).get("role") not in _MADE and x is not self.psf
        ]
        active = bare(self.session.viewer.layers.selection.active)
        return active if active in fresh else fresh[-1] if fresh else None

    # -------------------------------------------------------------------- sizes
    def set_voxels(self, voxels: Mapping[str, float]) -> None:
        """Give the stack's layer its voxel size, once all its axes have one; 0 is not known."""
        layer, image = self.layer, self.image()
        if layer is None or image is None or isinstance(image, Problem):
            return
        wanted = [d for d in SPATIAL if d in image.dims]
        if "affine_um" in image.attrs or not all(voxels.get(d, 0.0) > 0 for d in wanted):
            return
        dims = layer_dims(layer, image)
        scale, units = list(layer.scale), [str(u) for u in layer.units]
        for at, dim in enumerate(dims):
            if dim in wanted:
                scale[at], units[at] = float(voxels[dim]), "um"
        # kept for the record of a run: its script has to say it of the file, too
        read = {**layer_record(layer).get("read", {}), "voxel_um": [float(voxels[d]) for d in wanted]}
        update_record(layer, read=read)
        with layer.events.scale.blocker(self._on_layer), layer.events.units.blocker(self._on_layer):
            layer.units = tuple(units)
            layer.scale = tuple(scale)
        if layer.ndim == image.ndim and all(label.startswith("-") for label in layer.axis_labels):
            layer.axis_labels = dims
        slice_again(self.session.viewer)
        self.session.viewer.reset_view()
        self._on_layer()

    # ------------------------------------------------------------------ opening
    def open(self, paths: Sequence[Path]) -> None:
        """Read files as stacks, and take the first."""
        wanted = [Path(p) for p in paths]
        self._tell([])
        self.panel.background.submit(
            "open stack", lambda: read_stacks(wanted), self._opened, lambda p: self._tell([p])
        )

    def _opened(self, found: tuple[list[xr.DataArray], list[Problem]]) -> None:
        images, problems = found
        self._tell(problems)
        for number, image in enumerate(images):
            layer = self._add(image, "stack")
            if number == 0:
                # its first drawing takes a moment: the choice follows in a turn of its own
                QTimer.singleShot(0, lambda layer=layer: self.choose(layer))

    def ask_psf(self) -> None:
        """Let the user choose the file of a recorded point spread function."""
        name, _ = QFileDialog.getOpenFileName(self.view, "Open a point spread function", "", FILE_FILTER)
        if name:
            self.open_psf(Path(name))

    def open_psf(self, path: Path) -> None:
        """Read a recorded point spread function; it becomes a hidden layer."""
        self.panel.background.submit(
            "open psf", lambda: read_stacks([path]), self._opened_psf, lambda p: self._tell([p])
        )

    def _opened_psf(self, found: tuple[list[xr.DataArray], list[Problem]]) -> None:
        images, problems = found
        self._tell(problems)
        if images:
            self.choose_psf(self._add(images[0], "psf", visible=False))

    def _add(self, image: xr.DataArray, role: str, visible: bool = True) -> Image:
        data, arguments, _ = layer_data_from(image, role=role, visible=visible)
        arguments["metadata"]["napari_lfm"].setdefault("source", image.attrs.get("source", ""))
        return bare(self.session.viewer.add_image(data, **arguments))

    # -------------------------------------------------------------------- show
    def _tell(self, problems: Sequence[Problem]) -> None:
        self.view.words.show_text(problems_html(problems))

    def _list_microscopes(self) -> None:
        if self._active:
            self.microscopes.show()

    def _on_microscope(self) -> None:
        if self._active:
            self.microscopes.show()
            self._show()

    def _show(self) -> None:
        view = self.view
        layers = [bare(x) for x in stack_layers(self.session.images())]
        named = [(x.name, x) for x in layers if layer_record(x).get("role") != "psf" or x is self.layer]
        fill(view.combo, NO_STACK, named, self.layer)
        points = [(x.name, x) for x in layers if x is not self.layer]
        fill(view.psf_combo, MODEL_PSF, points, self.psf)
        image = self.image()
        if image is None or isinstance(image, Problem):
            view.words.show_text("" if image is None else problems_html([image]))
            view.fold_sizes()
            view.psf_words.show_text("")
            return
        view.words.show_text(stack_words(image) + ".")
        known = spacing_of(image)
        guessed = self.session.microscope.object_pixel_um if self.session.microscope is not None else 0.0
        axes = [d for d in AXES if d in image.dims]
        # a camera's pixel is the same in every stack; the distance of planes has to be asked for
        voxels = {d: known.get(d, guessed if d != "z" else 0.0) for d in axes}
        view.show_sizes(voxels, axes, ask=bool(size_problems(image)))
        view.psf_words.show_text(self._psf_words())

    def _psf_words(self) -> str:
        if self.psf is None or not self._psf_wanted:
            return ""
        psf = stack_of(layer_info(self.psf))
        if isinstance(psf, Problem):
            return problems_html([psf])
        return f"PSF: {stack_words(psf)}."


def layer_dims(layer: Image, image: xr.DataArray) -> tuple[str, ...]:
    """Return the dims of an image in the order of the axes of its layer."""
    labels = tuple(str(a).lower() for a in layer.axis_labels)
    dims: tuple[str, ...] = tuple(map(str, image.dims))
    if set(dims) <= set(labels):
        return labels
    unnamed = ("",) * (layer.ndim - len(dims))
    return (*unnamed, *dims)


def slice_again(viewer: Viewer) -> None:
    """Show a layer whose units have changed: napari slices it in the old ones until a slider moves."""
    dims = viewer.dims
    for axis in dims.not_displayed:
        here = dims.current_step[axis]
        if dims.nsteps[axis] > 1:
            dims.set_current_step(axis, here - 1 if here else 1)
            dims.set_current_step(axis, here)
            return


def place_as_its_file(layer: Image, viewer: Viewer | None = None) -> None:
    """Give a layer the sizes that its file says, where its reader has left them out (napari's own does)."""
    image = stack_of(layer_info(layer))
    if layer_record(layer) or isinstance(image, Problem) or "affine_um" in image.attrs:
        return
    if image.ndim != layer.ndim or not spacing_of(image) or image.shape != tuple(layer_info(layer).shape):
        return
    if tuple(layer.scale) == (1.0,) * layer.ndim and {str(u) for u in layer.units} == {"pixel"}:
        _, arguments, _ = layer_data_from(image)
        layer.units, layer.axis_labels = arguments["units"], arguments["axis_labels"]
        layer.scale, layer.translate = arguments["scale"], arguments["translate"]
        if viewer is not None:
            slice_again(viewer)


def read_stacks(paths: Sequence[Path]) -> tuple[list[xr.DataArray], list[Problem]]:
    """Read files for display as stacks; those that cannot be read become problems (worker thread)."""
    images: list[xr.DataArray] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            images.append(read_image(path, kind=None))
        except Exception as error:  # one bad file among several must not hide the good ones
            problems.append(problem_of(error))
    return images, problems
