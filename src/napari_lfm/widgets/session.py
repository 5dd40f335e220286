"""What both panels of one viewer share: input layers, microscope, lattice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from napari.layers import Image, Layer
from psygnal import Signal

from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.optics.microscope import Microscope
from napari_lfm.widgets.roles import guess_role
from napari_lfm.widgets.state import METADATA_KEY, ROLES, LayerInfo, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari import Viewer


def bare(thing: Any) -> Any:
    """Return the object behind napari's read-guard proxies, so that identity can be compared."""
    return getattr(thing, "__wrapped__", thing)


def layer_record(layer: Layer) -> dict[str, Any]:
    """Return this plugin's record in a layer's metadata, empty for other layers."""
    record = layer.metadata.get(METADATA_KEY, {})
    return dict(record) if isinstance(record, dict) else {}


def update_record(layer: Layer, **values: Any) -> None:
    """Set entries of this plugin's record in a layer's metadata."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**layer_record(layer), **values}}


def layer_info(layer: Image) -> LayerInfo:
    """Return the plain parts of an image layer."""
    # of a multiscale layer the finest level is the measurement
    data = layer.data[0] if layer.multiscale else layer.data
    return LayerInfo(
        name=layer.name,
        data=data,
        axis_labels=tuple(layer.axis_labels),
        rgb=bool(layer.rgb),
        path=str(layer_record(layer).get("source") or layer.source.path or ""),
        metadata=layer_record(layer),
        placement={
            "scale": tuple(layer.scale),
            "translate": tuple(layer.translate),
            "affine": layer.affine.affine_matrix,
            "rotate": layer.rotate,
            "shear": layer.shear,
            "units": tuple(map(str, layer.units)),
        },
    )


class Session:
    """State shared by the panels of one viewer.

    It lives as long as one of the panels does; what must outlast them (microscope, lattice,
    role) is also written to the layers' metadata, and found there again.
    """

    inputs_changed = Signal()
    microscope_changed = Signal()
    lattice_changed = Signal()
    layers_changed = Signal()
    models_changed = Signal()
    """A trained model was added to this machine, or taken away."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer: Viewer = bare(viewer)
        self._inputs: dict[Role, Image] = {}
        self.microscope: Microscope | None = None
        self.lattice: Lattice | None = None
        self.frame: int | None = 0
        self.layout = "auto"
        events = self.viewer.layers.events
        events.inserted.connect(self._on_inserted)
        events.removed.connect(self._on_removed)
        events.renamed.connect(self._on_layers)
        self._adopt()

    # ------------------------------------------------------------------ layers
    def images(self) -> list[Image]:
        """Return the viewer's image layers that could be inputs."""
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def candidates(self) -> list[Image]:
        """Return image layers that are not this plugin's own results."""
        made = {"volume", "quicklook", "reprojection", "truth"}
        return [layer for layer in self.images() if layer_record(layer).get("role") not in made]

    def input(self, role: Role) -> Image | None:
        """Return the layer that plays a role."""
        return self._inputs.get(role)

    def input_name(self, role: Role) -> str:
        """Return the name of the layer that plays a role, empty for none."""
        layer = self._inputs.get(role)
        return "" if layer is None else layer.name

    def infos(self) -> dict[str, LayerInfo]:
        """Return plain data of all image layers by name."""
        return {layer.name: layer_info(layer) for layer in self.images()}

    def set_input(self, role: Role, layer: Image | None) -> None:
        """Let a layer play a role, or no layer."""
        layer = bare(layer)
        if self._inputs.get(role) is layer:
            return
        if layer is None:
            self._inputs.pop(role, None)
        else:
            for other in ROLES:  # one layer plays one role
                if other != role and self._inputs.get(other) is layer:
                    del self._inputs[other]
            self._inputs[role] = layer
            update_record(layer, role=role)
            self._place(layer)
            if role == "lightfield":
                self._recall(layer)
        self.inputs_changed.emit()

    def set_frame(self, frame: int | None) -> None:
        """Choose a frame of a movie, None for all."""
        if frame != self.frame:
            self.frame = frame
            self.inputs_changed.emit()

    def set_layout(self, layout: str) -> None:
        """Choose how the light field's pixels are arranged."""
        if layout != self.layout:
            self.layout = layout
            self.inputs_changed.emit()

    def set_microscope(self, microscope: Microscope | None) -> None:
        """Choose the optics; raw layers get their true size in the sample."""
        if microscope == self.microscope:
            return
        self.microscope = microscope
        for layer in self._inputs.values():
            self._place(layer)
        if self._inputs:
            self.viewer.reset_view()  # the images have changed their size in the world
        self.microscope_changed.emit()

    def set_lattice(self, lattice: Lattice | None) -> None:
        """Set the calibrated lattice; it is also kept in the light field's layer."""
        if lattice == self.lattice:
            return
        self.lattice = lattice
        layer = self._inputs.get("lightfield")
        if layer is not None:
            update_record(layer, lattice=None if lattice is None else lattice.to_json())
        self.lattice_changed.emit()

    # ----------------------------------------------------------------- private
    def _adopt(self) -> None:
        """Give free roles to layers that have them in their record, or tell them by their name.

        So layers count that another reader, the sample menu or a closed panel has left.
        """
        for layer in self.candidates():
            if "z" in layer.axis_labels:  # a stack, whatever it is called
                continue
            known = layer_record(layer).get("role")
            role = known if known in ROLES else guess_role(layer.name) if known in (None, "image") else None
            if role is not None and role not in self._inputs and layer not in self._inputs.values():
                self.set_input(role, layer)

    def _recall(self, layer: Image) -> None:
        record = layer_record(layer)
        if self.microscope is None and record.get("microscope"):
            with contextlib.suppress(ValueError):  # a record of another version is worth nothing
                self.set_microscope(Microscope.model_validate(record["microscope"]))
        stored = record.get("lattice")
        shape = tuple(layer.data.shape[-2:]) if not layer.multiscale else ()
        if stored:
            with contextlib.suppress(ValueError):
                lattice = Lattice.from_json(stored)
                if tuple(lattice.image_shape) == shape:
                    self.lattice = lattice
                    self.lattice_changed.emit()
                    return
        if self.lattice is not None and tuple(self.lattice.image_shape) != shape:
            self.lattice = None
            self.lattice_changed.emit()

    def _place(self, layer: Image) -> None:
        """Give a raw layer its size in the sample: one world for everything, in micrometres."""
        if self.microscope is None or layer.ndim < 2:
            return
        pixel = self.microscope.object_pixel_um
        lead = layer.ndim - 2
        layer.scale = (*layer.scale[:lead], pixel, pixel)
        layer.translate = (*layer.translate[:lead], 0.0, 0.0)
        layer.units = (*layer.units[:lead], "um", "um")
        if all(label.startswith("-") for label in layer.axis_labels):
            layer.axis_labels = (*_lead_labels(lead), "y", "x")
        update_record(layer, microscope=self.microscope.model_dump(mode="json"))

    def _on_inserted(self, event: object = None) -> None:
        self._adopt()
        self.layers_changed.emit()

    def _on_layers(self, event: object = None) -> None:
        self.layers_changed.emit()

    def _on_removed(self, event: Any = None) -> None:
        present = {id(bare(layer)) for layer in self.viewer.layers}
        gone = [role for role, layer in self._inputs.items() if id(layer) not in present]
        for role in gone:
            del self._inputs[role]
        self.layers_changed.emit()
        if gone:
            self.inputs_changed.emit()


def _lead_labels(count: int) -> Iterable[str]:
    return ("c", "t")[2 - count :] if count <= 2 else tuple(f"a{i}" for i in range(count))


_SESSIONS: WeakValueDictionary[int, Session] = WeakValueDictionary()


def session_of(viewer: Viewer) -> Session:
    """Return the one session of a viewer; the panels keep it alive."""
    key = id(bare(viewer))
    session = _SESSIONS.get(key)
    if session is None:
        session = Session(viewer)
        _SESSIONS[key] = session
    return session
