"""Reading dropped files in a worker, into what napari takes as layers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_lfm.core.problems import Problem, RequestError
from napari_lfm.io.layers import layer_data_from
from napari_lfm.io.read import read_lightfield
from napari_lfm.widgets.background import problem_of
from napari_lfm.widgets.roles import guess_role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Opened = tuple[str, Any, dict[str, Any]]


def read_files(paths: Sequence[Path]) -> tuple[list[Opened], list[Problem]]:
    """Read image files; those that cannot be read become problems, the others still open.

    Returns
    -------
    opened : list of (name, data, layer arguments)
    problems : list of Problem
    """
    opened: list[Opened] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            if path.suffix.lower() == ".json":
                raise RequestError(
                    f"{path.name} is no image.",
                    "A saved grid is loaded below, under 'Correct by hand, save, load'."
                    if _is_grid(path)
                    else "Drop TIFF files here.",
                )
            image = read_lightfield(path)
            role = guess_role(path.name, {"role": image.attrs.get("role")})
            data, arguments, _ = layer_data_from(image, name=_short(path), role=role or "image")
            arguments["metadata"]["napari_lfm"].setdefault("source", str(path))
            opened.append((path.name, data, arguments))
        except Exception as error:  # one bad file among several must not hide the good ones
            problems.append(problem_of(error))
    return opened, problems


def _short(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tif", ".ome.tiff", ".ome.zarr", path.suffix):
        if suffix and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _is_grid(path: Path) -> bool:
    try:
        return "column_step_px" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
