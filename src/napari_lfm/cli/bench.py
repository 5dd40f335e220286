"""``napari-lfm bench``: timings and scores of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lfm.cli._console import Answer, Json, ProgressLine, command


def benchmarks() -> dict[str, str]:
    """Return the benchmarks there are: name -> module; a benchmark is a module with a function ``run``."""
    import napari_lfm.bench as room

    # the text is looked at, the module not loaded: a list of names must not cost an import of torch
    folders = [Path(folder) for folder in room.__path__]
    found = [p for folder in folders for p in sorted(folder.glob("[a-z]*.py")) if _defines_run(p)]
    return {p.stem.replace("_", "-"): f"{room.__name__}.{p.stem}" for p in found}


def _defines_run(path: Path) -> bool:
    import ast

    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in body)


@command
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Benchmarks; none: all of them.")
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Run benchmarks and say what machine they ran on."""
    import difflib
    from importlib import import_module

    from napari_lfm.cli._machine import machine
    from napari_lfm.core.problems import RequestError

    known = benchmarks()
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"There is: {', '.join(known) or 'none yet'}."
            raise RequestError(f"There is no benchmark '{name}'.", hint)
    results: dict[str, dict[str, Any]] = {}
    line = ProgressLine()
    for name in names or known:
        try:
            results[name] = import_module(known[name]).run(lambda message: line.show(0, 0, str(message)))
        finally:
            line.end()
    lines = []
    for name, figures in results.items():
        lines.append(name)
        lines += [f"  {key}: {_figure(value)}" for key, value in figures.items()]
    here = machine()
    lines.append(f"on {here['cpu']}, {here['cores']} cores, torch {here['torch']}")
    if names is not None and len(names) == 1:
        return Answer({"machine": here, **results[names[0]]}, "\n".join(lines))
    return Answer({"machine": here, "benchmarks": results}, "\n".join(lines))


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
