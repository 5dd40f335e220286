"""``methods``, ``microscopes``: what there is. Models have their own module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, command, prepare_output, say

if TYPE_CHECKING:
    from napari_lfm.methods.base import Method
    from napari_lfm.optics.microscope import Microscope


@command
def methods(as_json: Json = False) -> Answer:
    """List what can be run, with parameters."""
    from napari_lfm.methods.base import get_method, method_ids

    found = [describe_method(get_method(name)) for name in method_ids()]
    lines: list[str] = []
    for entry in found:
        lines += [f"{entry['id']}  ({entry['input']})", f"  {entry['summary']}"]
        width = max((len(p["name"]) for p in entry["parameters"]), default=0)
        for p in entry["parameters"]:
            default = "" if p["default"] is None else f" [{p['default']}]"
            lines.append(f"  {p['name']:<{width}}  {p['description']}{default}")
        lines.append("")
    return Answer({"methods": found}, "\n".join(lines).rstrip())


def describe_method(method: Method) -> dict[str, Any]:
    """Return a method and its parameters, JSON-ready, from its parameter model."""
    schema = method.Parameters.model_json_schema()
    required = schema.get("required", [])
    return {
        "id": method.id,
        "title": method.title,
        "summary": method.summary,
        "input": method.input_kind,
        "parameters": [
            {"name": name, "required": name in required, **_parameter(entry, schema.get("$defs", {}))}
            for name, entry in schema.get("properties", {}).items()
        ],
    }


def _parameter(entry: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    # an optional field is "this or null", a literal type may be a reference: look at the one that matters
    options = [o for o in entry.get("anyOf", [entry]) if o.get("type") != "null"]
    core = dict(options[0]) if options else {}
    if "$ref" in core:
        core = definitions.get(core["$ref"].rpartition("/")[2], {})
    bounds = {
        name: core[key]
        for name, key in (
            ("minimum", "minimum"),
            ("above", "exclusiveMinimum"),
            ("maximum", "maximum"),
            ("below", "exclusiveMaximum"),
            ("choices", "enum"),
        )
        if key in core
    }
    return {
        "type": core.get("type", "string"),
        "default": entry.get("default"),
        **bounds,
        "description": " ".join(str(entry.get("description", "")).split()),
        "advanced": bool(entry.get("advanced", False)),
    }


@command
def microscopes(
    new: Annotated[
        Path | None, typer.Option("--new", help="Ask for your microscope's figures and save them here.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """List the microscopes: your own and the presets; or make one of your own."""
    from napari_lfm.core.problems import LfmError
    from napari_lfm.optics.presets import load_microscope, preset_names, user_microscope_names

    if new is not None:
        return _new_microscope(new)
    entries: list[dict[str, Any]] = []
    for source, names in (("own", user_microscope_names()), ("preset", preset_names())):
        for name in names:
            try:
                entries.append({**describe_microscope(load_microscope(name)), "source": source})
            except LfmError as error:
                say(f"Note: {error}")
    width = max((len(e["name"]) for e in entries), default=0)
    lines = []
    for e in entries:
        objective = f"{e['magnification']:g}x/{e['na']:g}"
        array = (
            f"lenslets {e['lenslet_pitch_um']:g} um, {e['nominal_pitch_px']:.2f} px"
            if e["lenslet_pitch_um"]
            else "wide field"
        )
        own = "  (yours)" if e["source"] == "own" else ""
        lines.append(f"{e['name']:<{width}}  {objective:<11} {array}{own}")
    return Answer({"microscopes": entries}, "\n".join(lines))


def describe_microscope(microscope: Microscope) -> dict[str, Any]:
    """Return a microscope and the figures that follow from it, JSON-ready."""
    array = microscope.lenslets
    return {
        "name": microscope.name,
        "magnification": microscope.objective.magnification,
        "na": microscope.objective.na,
        "lenslet_pitch_um": None if array is None else array.pitch_um,
        "lattice": None if array is None else array.lattice,
        "nominal_pitch_px": microscope.nominal_pitch_px,
        "pixels_per_lenslet": microscope.n_pixels,
        "object_pixel_um": microscope.object_pixel_um,
        "lateral_resolution_um": microscope.lateral_resolution_um,
        "depth_of_field_um": microscope.depth_of_field_um,
        "wavelength_um": microscope.wavelength_um,
        "notes": microscope.notes,
        "microscope": microscope.model_dump(mode="json"),
    }


def _new_microscope(path: Path) -> Answer:
    """Ask for what is printed on the objective and in the array's data sheet."""
    from napari_lfm.optics.presets import save_microscope
    from napari_lfm.optics.wizard import microscope_from_data_sheet

    prepare_output(path)

    def ask(text: str, kind: type, default: Any = None) -> Any:
        return typer.prompt(text, type=kind, default=default, err=True)

    say("What is printed on the objective, on the camera and in the lenslet array's data sheet:")
    microscope, problems = microscope_from_data_sheet(
        name=ask("Name of the microscope", str, path.stem),
        objective=ask("Objective, as engraved (e.g. 60x/1.20 W)", str),
        pitch_um=ask("Lenslet pitch, um", float),
        focal_length_um=ask("Lenslet focal length, um", float),
        pixel_um=ask("Camera pixel, um", float),
        wavelength_nm=ask("Emission wavelength, nm", float, 520.0),
    )
    for problem in problems:
        say(f"{problem.severity.capitalize()}: {problem}")
    save_microscope(microscope, path)
    return Answer({**describe_microscope(microscope), "file": str(path)}, f"Saved {path}")
