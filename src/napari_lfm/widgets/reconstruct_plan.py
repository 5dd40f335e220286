"""What the *Reconstruct* panel finds out off the GUI thread: which methods there are, what a run would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lfm.methods.base import Method, Request, get_method, method_ids
from napari_lfm.widgets.preload import import_torch_gently
from napari_lfm.widgets.reconstruct_trained import guess_microscope

if TYPE_CHECKING:
    from napari_lfm.core.problems import Estimate, Problem
    from napari_lfm.optics.microscope import Microscope


def load_methods() -> dict[str, Method]:
    """Import every method (worker thread: they bring torch with them)."""
    import_torch_gently()
    every = {name: get_method(name) for name in method_ids()}
    return {name: method for name, method in every.items() if getattr(method, "makes", "volume") == "volume"}


@dataclass(frozen=True)
class Planned:
    """What was found out about a request before it runs; no estimate where it cannot."""

    problems: list[Problem]
    estimate: Estimate | None
    device: str
    microscope: Microscope | None = None


def plan(method: Method, request: Request) -> Planned:
    """Return problems, estimate and device of a request, and the microscope it means (worker thread)."""
    from napari_lfm.core.devices import pick_device

    device = str(pick_device(request.device))
    if request.microscope is None and method.input_kind == "lightfield":
        request, notes = guess_microscope(method, request)
        if request.microscope is not None:
            return Planned(notes, None, device, request.microscope)
    problems = method.check(request)
    if any(p.severity == "error" for p in problems):
        return Planned(problems, None, device)
    return Planned(problems, method.estimate(request), device)
