"""The one protocol for everything a user can run, and the registry of methods."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_lfm.core.problems import Estimate, Problem, RequestError, explain_validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import xarray as xr

    from napari_lfm.core.events import Event
    from napari_lfm.lightfield.lattice import Lattice
    from napari_lfm.optics.microscope import Microscope

InputKind = Literal["lightfield", "stack", "image"]


class Parameters(BaseModel):
    """Base of every method's parameters: frozen, no unknown names, docs under fields.

    The panel, the command line, the provenance record and the documentation
    table are all made from it. Every field has a unit in its name, bounds, a
    description, and may carry ``json_schema_extra={"advanced": True}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Request:
    """A frozen, complete wish: everything a run needs, nothing looked up elsewhere.

    Attributes
    ----------
    method : str
        Method id, e.g. ``"deconvolve-lightfield"``.
    inputs : mapping of str to xarray.DataArray
        ``"image"`` always; light fields may add ``"white"`` and ``"dark"``. Raw light fields have
        dims ``y x`` (or ``t y x``) in object-space micrometres; rectified ones ``v u t s``.
    parameters : Parameters
        The method's own parameter model.
    microscope : Microscope or None
        The optics; needed by light-field methods.
    lattice : Lattice or None
        Calibration; None lets a light-field method calibrate by itself (white frame, else blind).
    layout : str
        ``auto``, ``raw``, ``lenslet:N`` or ``vuts``.
    model : str or None
        Id or folder of a trained model.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    memory_gib : float or None
        Memory budget; None for 80 % of what is free.
    region_px : tuple of int or None
        ``(y0, x0, y1, x1)`` in raw pixels: reconstruct only there.
    sources : mapping of str to str
        Where each input came from (a path), for provenance and scripts.
    continue_from : Any
        ``Result.state`` (or a stopped run's last state) to go on from.
    """

    method: str
    inputs: Mapping[str, xr.DataArray]
    parameters: BaseModel
    microscope: Microscope | None = None
    lattice: Lattice | None = None
    layout: str = "auto"
    model: str | None = None
    device: str = "auto"
    memory_gib: float | None = None
    region_px: tuple[int, int, int, int] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    continue_from: Any = None


@runtime_checkable
class Method(Protocol):
    """What every runnable method provides.

    ``check`` does no heavy work. ``run`` is a generator: closing it cancels
    within one step. The last event of a complete run is a `Result`.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    input_kind: ClassVar[InputKind]
    Parameters: ClassVar[type[BaseModel]]

    def check(self, request: Request) -> list[Problem]:
        """Return plain-language problems and how to mend them."""
        ...

    def estimate(self, request: Request) -> Estimate:
        """Return output shape, peak bytes and seconds on the request's device."""
        ...

    def run(self, request: Request) -> Iterator[Event]:
        """Run, yielding events; the last one is a `Result`."""
        ...


def _registry() -> dict[str, str]:
    # id -> "module:class"; imported only when asked for, so that start-up stays light
    return {
        "deconvolve-lightfield": "napari_lfm.methods.deconvolve_lightfield:DeconvolveLightfield",
        "deconvolve-widefield": "napari_lfm.methods.deconvolve_widefield:DeconvolveWidefield",
        "isotropic": "napari_lfm.methods.isotropic.method:Isotropic",
        "lfmnet": "napari_lfm.methods.lfmnet:Lfmnet",
        "localize": "napari_lfm.methods.localize:Localize",
        "refocus": "napari_lfm.methods.refocus.method:Refocus",
        "wfcon": "napari_lfm.methods.wfcon:Wfcon",
    }


def method_ids() -> tuple[str, ...]:
    """Return the ids of all methods that can be run."""
    return tuple(_registry())


def get_method(method_id: str) -> Method:
    """Return the method with this id.

    Raises
    ------
    RequestError
        If there is none; the message suggests the nearest id.
    """
    from importlib import import_module

    table = _registry()
    if method_id not in table:
        near = difflib.get_close_matches(method_id, table, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(table)}."
        raise RequestError(f"There is no method '{method_id}'.", hint)
    module, _, name = table[method_id].partition(":")
    method: Method = getattr(import_module(module), name)()
    return method


def make_parameters(method: Method, values: Mapping[str, Any]) -> BaseModel:
    """Validate parameter values for a method; strings are converted to the field's type.

    Raises
    ------
    RequestError
        One sentence naming each wrong value and its bounds.
    """
    known = method.Parameters.model_fields
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known)}."
            raise RequestError(f"'{method.id}' has no parameter '{name}'.", hint)
    try:
        return method.Parameters.model_validate(dict(values))
    except ValidationError as error:
        sentences = explain_validation(error)
        raise RequestError(f"The parameters of '{method.id}' are not valid.", sentences) from None
