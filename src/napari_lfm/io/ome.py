"""OME-XML: what we write into TIFF files, and the sizes and records that we find in them.

The model is OME 2016-06 (https://www.openmicroscopy.org/Schemas/OME/2016-06). What it cannot say
(rotated lattices, light-field dims, provenance) travels as JSON in one CommentAnnotation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from napari_lfm.io.units import believable, length_in_um, time_in_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMESPACE = "napari-lfm/1"
"""Namespace of our annotation; the number rises when its meaning changes."""

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_TYPES = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "float32": "float",
    "float64": "double",
}
# one Plane element each: beyond this the header outgrows its use, and the annotation has it all
_MAX_PLANES = 5000


def pixel_types() -> tuple[str, ...]:
    """Return the numpy names of the dtypes that OME-TIFF can hold."""
    return tuple(_TYPES)


def make_xml(
    *,
    name: str,
    dtype: str,
    sizes: Mapping[str, int],
    spacing: Mapping[str, float],
    origin: Mapping[str, float],
    channels: Sequence[str],
    record: Mapping[str, Any],
    creator: str,
) -> str:
    """Return the OME-XML of one image, planes in the order t, c, z (x fastest).

    Parameters
    ----------
    name : str
        Image name.
    dtype : str
        numpy dtype name, one of `pixel_types`.
    sizes : mapping
        Size along each of ``t c z y x``.
    spacing, origin : mapping
        Micrometres for z, y, x; seconds for t. Axes left out have no known size.
    channels : sequence of str
        Channel names, may be empty.
    record : mapping
        JSON-ready record to embed as annotation.
    creator : str
        Program and version.

    Returns
    -------
    str
    """
    attributes = [f'SizeT="{sizes["t"]}" SizeC="{sizes["c"]}" SizeZ="{sizes["z"]}"']
    attributes.append(f'SizeY="{sizes["y"]}" SizeX="{sizes["x"]}"')
    for dim in "xyz":
        if dim in spacing:
            # the schema wants a positive size; the sign of a flipped axis stays in the annotation
            size = f"{abs(spacing[dim])!r}"
            attributes.append(f'PhysicalSize{dim.upper()}="{size}" PhysicalSize{dim.upper()}Unit="µm"')
    if "t" in spacing:
        attributes.append(f'TimeIncrement="{spacing["t"]!r}" TimeIncrementUnit="s"')
    named = "".join(
        f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1"'
        + (f" Name={quoteattr(channels[i])}" if i < len(channels) else "")
        + "/>"
        for i in range(sizes["c"])
    )
    n_planes = sizes["t"] * sizes["c"] * sizes["z"]
    text = escape(json.dumps(dict(record), allow_nan=False))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{_SCHEMA}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd" '
        f'UUID="urn:uuid:{uuid4()}" Creator={quoteattr(creator)}>'
        f'<Image ID="Image:0" Name={quoteattr(name)}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{_TYPES[dtype]}" {" ".join(attributes)}>'
        f'{named}<TiffData IFD="0" PlaneCount="{n_planes}"/>'
        f"{_planes(sizes, spacing, origin) if n_planes <= _MAX_PLANES else ''}"
        '</Pixels><AnnotationRef ID="Annotation:0"/></Image>'
        f'<StructuredAnnotations><CommentAnnotation ID="Annotation:0" Namespace="{NAMESPACE}">'
        f"<Value>{text}</Value></CommentAnnotation></StructuredAnnotations></OME>"
    )


def _planes(sizes: Mapping[str, int], spacing: Mapping[str, float], origin: Mapping[str, float]) -> str:
    lateral = "".join(
        f' Position{d.upper()}="{origin[d]!r}" Position{d.upper()}Unit="µm"' for d in "xy" if d in origin
    )
    if not lateral and "z" not in origin:
        return ""
    out = []
    for t, c, z in np.ndindex(sizes["t"], sizes["c"], sizes["z"]):
        position = lateral
        if "z" in origin:
            z_um = float(origin["z"] + z * spacing.get("z", 0.0))
            position += f' PositionZ="{z_um!r}" PositionZUnit="µm"'
        out.append(f'<Plane TheT="{t}" TheC="{c}" TheZ="{z}"{position}/>')
    return "".join(out)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if _local(child.tag) == name]


def _parse(xml: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None


def sizes_from_xml(xml: str, index: int = 0) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return spacing (um and s) and channel names of image `index` in OME-XML.

    A size whose unit is no length (``pixel``, ``reference frame``) is left out.
    """
    root = _parse(xml)
    images = [] if root is None else _children(root, "Image")
    if not images:
        return {}, ()
    pixels = _children(images[min(index, len(images) - 1)], "Pixels")
    if not pixels:
        return {}, ()
    attributes = pixels[0].attrib
    out: dict[str, float] = {}
    for dim in "zyx":
        factor = length_in_um(attributes.get(f"PhysicalSize{dim.upper()}Unit", "µm"))
        size = believable(_number(attributes.get(f"PhysicalSize{dim.upper()}")))
        if size is not None and factor is not None:
            out[dim] = size * factor
    factor = time_in_s(attributes.get("TimeIncrementUnit", "s"))
    step = believable(_number(attributes.get("TimeIncrement")))
    if step is not None and factor is not None:
        out["t"] = step * factor
    names = [channel.attrib.get("Name", "") for channel in _children(pixels[0], "Channel")]
    return out, tuple(names) if all(names) else ()


def record_from_xml(xml: str) -> dict[str, Any]:
    """Return our own annotation in OME-XML, an empty dict when there is none."""
    if NAMESPACE not in xml:
        return {}
    root = _parse(xml)
    for block in [] if root is None else _children(root, "StructuredAnnotations"):
        for annotation in _children(block, "CommentAnnotation"):
            values = _children(annotation, "Value")
            if annotation.attrib.get("Namespace") != NAMESPACE or not values:
                continue
            try:
                record = json.loads(values[0].text or "")
            except json.JSONDecodeError:
                return {}
            return record if isinstance(record, dict) else {}
    return {}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
