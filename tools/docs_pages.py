"""mkdocs hook: reference pages made from the code itself, and pictures that appear once they exist."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mkdocs.config.defaults import MkDocsConfig
    from pydantic import BaseModel

log = logging.getLogger("mkdocs.hooks.pages")

PACKAGE = Path(__file__).parents[1] / "src" / "napari_lfm"
ROOMS = ("core", "io", "optics", "lightfield", "networks", "simulation", "training", "methods")
_PICTURE = re.compile(
    r"^!\[[^\]]*\]\((images/[^)\s]+|\.\./images/[^)\s]+)\)(?:\{[^}]*\})?[ \t]*\n", re.MULTILINE
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"parameters": parameters_page(), "microscopes": microscopes_page()}
    pages |= {room: room_page(room) for room in ROOMS}
    pages["api"] = "# napari_lfm.api\n\n::: napari_lfm.api\n"
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave out a picture that has not been taken yet: a line of its own, below images/."""
    if page.file.abs_src_path is None:
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def keep(match: re.Match[str]) -> str:
        if (folder / match.group(1)).is_file():
            return match.group(0)
        log.info("%s: the picture %s is not there yet", page.file.src_uri, match.group(1))
        return ""

    return _PICTURE.sub(keep, markdown)


def parameters_page() -> str:
    """Return tables of every method's parameters, and of the data sheet's questions."""
    from napari_lfm.methods.base import get_method, method_ids
    from napari_lfm.optics.wizard import DataSheet

    parts = [
        "# Parameters",
        "Made from the models that the panel, the command line (`--set name=value`) and the record in every "
        "result share. Units are in the names.",
    ]
    for method_id in method_ids():
        method = get_method(method_id)
        parts += [f"## {method.title} (`{method.id}`)", method.summary, table(method.Parameters)]
    parts += [
        "## The microscope wizard",
        "Questions of *From data sheet...* and of "
        "[`microscope_from_data_sheet`][napari_lfm.optics.wizard.microscope_from_data_sheet].",
        table(DataSheet),
    ]
    return "\n\n".join(parts) + "\n"


def microscopes_page() -> str:
    """Return the presets as tables, and the fields of a microscope file."""
    from napari_lfm.optics.microscope import Camera, LensletArray, Microscope, Objective
    from napari_lfm.optics.presets import load_microscope, preset_names

    head = ("name", "objective", "array", "pixels", "emission", "depth of field", "depth range")
    rows = [_row(head), _row(["---"] * len(head))]
    notes = []
    for name in preset_names():
        m = load_microscope(name)
        array = m.lenslets
        cells = [
            f"`{name}`",
            f"{m.objective.magnification:g}x/{m.objective.na:g}",
            f"{array.pitch_um:g} µm, f/{array.f_number:.3g}" if array else "none",
            f"{m.nominal_pitch_px:.2f}, N = {m.n_pixels}" if array else f"{m.object_pixel_um:.3g} µm",
            f"{m.wavelength_um * 1000:.0f} nm",
            f"{m.depth_of_field_um:.1f} µm",
            f"±{m.depth_range_um:.1f} µm",
        ]
        rows.append(_row(cells))
        notes.append(f"`{name}`\n:   {m.notes}")
    parts = ["# Microscopes", "## Presets", "\n".join(rows), *notes, "## Fields of a microscope file"]
    for title, model in {
        "The microscope": Microscope,
        "`objective`": Objective,
        "`lenslets`": LensletArray,
        "`camera`": Camera,
    }.items():
        parts += [f"### {title}", table(model)]
    return "\n\n".join(parts) + "\n"


def room_page(room: str) -> str:
    """Return a page with every public module of a room and of the packages in it."""
    doc = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))) or ""
    found = [p.relative_to(PACKAGE / room).with_suffix("") for p in (PACKAGE / room).rglob("*.py")]
    modules = sorted(".".join(p.parts) for p in found if not any(part.startswith("_") for part in p.parts))
    blocks = [f"::: napari_lfm.{room}.{name}" for name in modules]
    return "\n\n".join([f"# napari_lfm.{room}", doc, *blocks]) + "\n"


def table(model: type[BaseModel]) -> str:
    """Return a Markdown table of a pydantic model's fields, from its JSON schema."""
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    rows = [_row(["name", "value", "default", "meaning"]), _row(["---"] * 4)]
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field.get("default"))
        text = " ".join(str(field.get("description", "")).split()).replace("|", r"\|")
        rows.append(_row([f"`{name}`", _values(field, schema), default, text]))
    return "\n".join(rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _default(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        return f"a `{field['$ref'].rpartition('/')[2]}`"
    if "anyOf" in field:
        parts = [_values(option, schema) for option in field["anyOf"]]
        return " or ".join(p for p in parts if p != "empty") + (", or empty" if "empty" in parts else "")
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    kind = {
        "number": "number",
        "integer": "whole number",
        "string": "text",
        "boolean": "yes or no",
        "null": "empty",
        "array": "list",
        "object": "mapping",
    }.get(field.get("type", ""), "anything")
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in field
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()
