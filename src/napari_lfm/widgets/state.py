"""What the user chose, as plain frozen data: no Qt, no napari, no arrays beyond those of the layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

Role = Literal["lightfield", "white", "dark"]
ROLES: tuple[Role, ...] = ("lightfield", "white", "dark")
ROLE_TITLES: Mapping[Role, str] = {
    "lightfield": "Light field",
    "white": "White frame",
    "dark": "Dark frame",
}

METADATA_KEY = "napari_lfm"


@dataclass(frozen=True)
class LayerInfo:
    """The parts of an image layer that matter to a request.

    Attributes
    ----------
    name : str
        Layer name.
    data : array
        The layer's array as it is (numpy or dask), never copied here.
    axis_labels : tuple of str
        Labels of its axes, as far as they mean something (``t``, ``y``, ``x``, ``v`` ...).
    rgb : bool
        A colour picture.
    path : str
        File that it came from, empty when unknown.
    metadata : mapping
        ``layer.metadata["napari_lfm"]``, empty for layers of other readers.
    placement : mapping
        Where the layer lies: ``scale``, ``translate``, ``affine``, ``rotate``, ``shear`` and ``units``, as
        layers have them; empty means index space.
    """

    name: str
    data: Any
    axis_labels: tuple[str, ...] = ()
    rgb: bool = False
    path: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(int(n) for n in self.data.shape)


@dataclass(frozen=True)
class ReconstructState:
    """Everything that the two panels together know about the run to come.

    Attributes
    ----------
    method : str
        Method id, empty when none is chosen.
    lightfield, white, dark : str
        Names of the input layers; empty for none.
    stack, psf : str
        Likewise, for methods that work on stacks.
    microscope : Microscope or None
    lattice : Lattice or None
        None lets the method find the lenslets by itself.
    parameters : mapping
        Values of the form, unvalidated.
    layout : str
        ``auto``, ``raw``, ``lenslet:N`` or ``vuts``.
    frame : int or None
        Which frame of a movie; None for all of them.
    region_um : tuple of float or None
        ``(y0, x0, y1, x1)`` in world micrometres; None for the whole field.
    device : str
    memory_gib : float or None
    model : str or None
    """

    method: str = ""
    lightfield: str = ""
    white: str = ""
    dark: str = ""
    stack: str = ""
    psf: str = ""
    microscope: Microscope | None = None
    lattice: Lattice | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "auto"
    frame: int | None = 0
    region_um: tuple[float, float, float, float] | None = None
    device: str = "auto"
    memory_gib: float | None = None
    model: str | None = None
