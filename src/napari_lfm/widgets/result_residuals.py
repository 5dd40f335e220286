"""How well each volume of a light field explains it: one table over all methods."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_lfm.io.layers import image_from_layer_info
from napari_lfm.lightfield.lattice import Lattice
from napari_lfm.methods.base import get_method, make_parameters
from napari_lfm.optics.microscope import Microscope
from napari_lfm.widgets.session import bare, layer_record, update_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import xarray as xr
    from napari import Viewer

    from napari_lfm.methods.base import Request

_KEY = "unexplained"
_NAMES = {"deconvolve-lightfield": "Richardson-Lucy", "lfmnet": "LFMNet"}


@dataclass(frozen=True)
class Judged:
    """A volume layer and what a re-projection found.

    Attributes
    ----------
    layer : Image
    method : str
        In words.
    residual, noise : float or None
        Share of the light that the volume does not explain, and that noise alone would leave; None
        where it was not checked.
    """

    layer: Image
    method: str
    residual: float | None = None
    noise: float | None = None


def light_field_key(provenance: Mapping[str, Any]) -> str:
    """Return what tells the light field of a result from others, empty where the record does not."""
    image = provenance.get("inputs", {}).get("image", {})
    return str(image.get("fingerprint", "")) if isinstance(image, dict) else ""


def judge(layer: Image, residual: float, noise: float) -> None:
    """Keep in a layer how well it explains its light field."""
    update_record(layer, **{_KEY: {"residual": float(residual), "noise": float(noise)}})


def forget(layer: Image) -> None:
    """Drop what was found: the layer's volume is another one now."""
    if _KEY in layer_record(layer):
        update_record(layer, **{_KEY: None})


def judged_layers(viewer: Viewer, key: str) -> list[Judged]:
    """Return the volume layers of a light field, the best explanation first, unchecked ones last."""
    found = []
    for layer in map(bare, viewer.layers):
        record = layer_record(layer)
        if not isinstance(layer, Image) or record.get("output", "volume") != "volume":
            continue
        provenance = record.get("provenance")
        if not key or not isinstance(provenance, dict) or light_field_key(provenance) != key:
            continue
        known = record.get(_KEY) or {}
        found.append(Judged(layer, method_words(provenance), known.get("residual"), known.get("noise")))
    return sorted(found, key=lambda j: (j.residual is None, j.residual or 0.0))


def method_words(provenance: Mapping[str, Any]) -> str:
    """Return how a volume was made, in a few words."""
    method = str(provenance.get("method", ""))
    parameters = provenance.get("parameters") or {}
    words = _NAMES.get(method, method)
    iterations = parameters.get("iterations")
    if iterations:
        words += f", {iterations} iterations"
    refined = parameters.get("refine_iterations")
    if refined:
        words += f" + {refined} iterations of Richardson-Lucy"
    return words


def volume_of(layer: Image) -> xr.DataArray:
    """Return a volume layer as a labelled image."""
    return image_from_layer_info(
        layer.data,
        scale=layer.scale,
        translate=layer.translate,
        affine=layer.affine,
        units=layer.units,
        axis_labels=layer.axis_labels,
        metadata=layer.metadata,
        name=layer.name,
        rotate=layer.rotate,
        shear=layer.shear,
        kind="stack",
    )


def request_of(layer: Image, like: Request) -> Request:
    """Return the request that a volume layer was made with, on the light field of another request.

    Raises
    ------
    RequestError
        If its record is of another version and cannot be used.
    """
    record = layer_record(layer)["provenance"]
    method = str(record.get("method", like.method))
    region = record.get("region_px")
    microscope, lattice = record.get("microscope"), record.get("lattice")
    return replace(
        like,
        method=method,
        parameters=make_parameters(get_method(method), record.get("parameters", {})),
        microscope=Microscope.model_validate(microscope) if microscope else like.microscope,
        lattice=Lattice.from_json(lattice) if lattice else like.lattice,
        region_px=tuple(region) if region else None,
        layout=str(record.get("layout", like.layout)),
        continue_from=None,
    )


def residuals_html(rows: Iterable[Judged], current: Image | None = None) -> str:
    """Return the table, best first; empty while nothing was checked."""
    rows = list(rows)
    checked = [r for r in rows if r.residual is not None]
    if not checked:
        return ""
    pad = "style='padding-right:10px'"
    lines = []
    for number, one in enumerate(rows):
        share = "not\N{NO-BREAK SPACE}checked" if one.residual is None else f"{100 * one.residual:.1f} %"
        name, words = html.escape(one.layer.name), html.escape(one.method)
        text = f"{words}<br><span style='font-size:small'>{name}</span>"
        if number == 0 and len(checked) > 1:
            share = f"<b>{share}</b>"
        if one.layer is current:
            text = f"<b>{words}</b><br><span style='font-size:small'>{name}</span>"
        lines.append(f"<tr><td {pad}>{text}</td><td>{share}</td></tr>")
    head = f"<tr><th align='left' {pad}>Volume</th><th align='left'>Not&nbsp;explained</th></tr>"
    noise = next((r.noise for r in checked if r.noise is not None), None)
    note = "" if noise is None else f"Noise alone would leave about {100 * noise:.1f} %. "
    return (
        f"<table>{head}{''.join(lines)}</table>{note}Every volume is projected by itself and in the same "
        "way, so that all are judged alike."
    )
