"""From words on the command line, or from a saved result, to a request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lfm.cli._console import numbers, say
from napari_lfm.core.problems import RequestError

if TYPE_CHECKING:
    from napari_lfm.core.problems import Problem
    from napari_lfm.methods.base import Request


@dataclass(frozen=True)
class Wish:
    """Arguments of `napari_lfm.api.build_request`, and the provenance they repeat."""

    method: str
    image: Path
    keywords: Mapping[str, Any]
    parameters: Mapping[str, Any]
    repeats: Mapping[str, Any] = field(default_factory=dict)

    def request(self) -> tuple[Request, list[Problem]]:
        """Return the request and what is to say about it."""
        from napari_lfm.api import build_request

        request, problems = build_request(
            self.method, self.image, parameters=self.parameters, **self.keywords
        )
        if self.repeats:
            from napari_lfm.io.provenance import changed_inputs

            problems = [*problems, *changed_inputs(self.repeats, request.inputs), *self._changed_model()]
        return request, problems

    def _changed_model(self) -> list[Problem]:
        """Return what is wrong where the model of the first run is another one now."""
        record = self.repeats.get("model")
        if not record or not self.keywords.get("model"):
            return []
        from napari_lfm.methods.chosen_model import changed_model
        from napari_lfm.networks.registry import find_model

        return changed_model(record, find_model(str(self.keywords["model"])))


def from_options(method: str, image: Path, settings: Sequence[str], given: Mapping[str, Any]) -> Wish:
    """Return the wish that the options describe.

    Raises
    ------
    RequestError
        If an option cannot be read.
    """
    return Wish(method, image, _keywords(given), parse_settings(settings))


def from_result(path: Path, settings: Sequence[str], given: Mapping[str, Any]) -> Wish:
    """Return the wish to repeat what made a result; options that are given count more than its record.

    Raises
    ------
    RequestError
        If the result has no provenance, or its input cannot be found.
    """
    from napari_lfm.io.provenance import read_provenance

    record = read_provenance(path)
    if "simulated" in record:
        raise RequestError(
            f"{path.name} is a simulation, not the result of a method.",
            "Run a method on it, or simulate again with 'napari-lfm simulate'.",
        )
    sources = {
        name: _found(source, path.parent)
        for name, source in record.get("sources", {}).items()
        if name in record.get("inputs", {"image": {}})
    }
    if "image" not in sources:
        raise RequestError(
            f"{path.name} does not say which file it was made from.", "Run the method on the file itself."
        )
    read, read_psf = (record.get("inputs", {}).get(n, {}).get("read", {}) for n in ("image", "psf"))
    kept: dict[str, Any] = {
        "microscope": record.get("microscope"),
        "lattice": record.get("lattice"),
        "white": sources.get("white"),
        "dark": sources.get("dark"),
        "psf": sources.get("psf"),
        "layout": record.get("layout", "auto"),
        "axes": read.get("axes"),
        "voxel_um": tuple(read["voxel_um"]) if "voxel_um" in read else None,
        "psf_voxel_um": tuple(read_psf["voxel_um"]) if "voxel_um" in read_psf else None,
        "model": _model_of(record.get("model") or {}, path.parent),
        "device": _present(str(record.get("device", "auto")).partition(":")[0]),
        "memory_gib": record.get("memory_gib"),
        "region_px": tuple(record["region_px"]) if record.get("region_px") else None,
    }
    if given.get("layout") == "auto":
        given = {**given, "layout": None}
    kept.update({k: v for k, v in _keywords(given).items() if v is not None})
    if given.get("model") is not None:  # then it need not be the one of the first run
        record = {k: v for k, v in record.items() if k != "model"}
    parameters = {**record.get("parameters", {}), **parse_settings(settings)}
    return Wish(str(record["method"]), sources["image"], kept, parameters, record)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return parameters from ``key=value`` texts; the method's own model converts numbers.

    Raises
    ------
    RequestError
        If one of them is not ``key=value``, or a key comes twice.
    """
    out: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise RequestError(
                f"'{text}' is not a setting.", "Write --set key=value, e.g. --set iterations=20."
            )
        if name in out:
            raise RequestError(f"'{name}' is set twice.", "Set it once.")
        value = value.strip()
        # lists, null and booleans only: a number stays text, so that a text parameter may look like one
        structured = value[:1] in "[{" or value in ("null", "true", "false")
        try:
            out[name] = json.loads(value) if value and structured else value
        except ValueError:
            out[name] = value
    return out


def _keywords(given: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(given)
    for name in ("voxel_um", "psf_voxel_um"):
        if isinstance(out.get(name), str):
            out[name] = numbers(out[name], 3, "voxel size", "0.3,0.1,0.1")
    if isinstance(out.get("region_px"), str):
        corners = numbers(out["region_px"], 4, "region", "100,100,300,300")
        out["region_px"] = tuple(round(v) for v in corners)
    if out.get("device") is None and "device" in out and out.get("layout") is not None:
        out["device"] = "auto"
    return out


def _found(source: str, beside: Path) -> Path:
    """Return the file a result was made from: as recorded, or else beside the result."""
    path = Path(source)
    for candidate in (path, beside / path, beside / path.name):
        if candidate.exists():
            return candidate
    raise RequestError(
        f"The file that the result was made from is not there any more: {source}.",
        "Put it back, or beside the result.",
    )


def _model_of(record: Mapping[str, Any], beside: Path) -> str | None:
    """Return the model of the first run: its folder where it has no place among the others, else its id."""
    folder = record.get("folder")
    for candidate in (Path(folder), beside / folder) if folder else ():
        if (candidate / "card.json").exists():
            return str(candidate)
    return record.get("id")


def _present(device: str) -> str:
    """Return the device of the first run where this machine has it."""
    from napari_lfm.core.devices import pick_device

    try:
        pick_device(device)
    except RequestError:
        say(f"Note: This machine has no '{device}' device; using what there is.")
        return "auto"
    return device
