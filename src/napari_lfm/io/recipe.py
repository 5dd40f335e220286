"""From provenance back to something that runs: a shell command, or a Python script."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_lfm.io.record import jsonable

if TYPE_CHECKING:
    from collections.abc import Collection

_LENSLET_DIMS = ["v", "u", "t", "s"]


def as_command(
    provenance: Mapping[str, Any],
    *,
    output: str = "result.tif",
    defaults: Mapping[str, Any] | None = None,
    presets: Collection[str] | Mapping[str, Any] = (),
) -> str:
    """Return the shell command that repeats a run.

    A microscope that is no preset, and the lenslet grid, are written to JSON files by lines before
    the command, so that the text is complete in itself (for a POSIX shell).

    Parameters
    ----------
    provenance : mapping
        From `make_provenance` or `read_provenance`.
    output : str
        Where the result is to go.
    defaults : mapping, optional
        Default values of the method's parameters: those are left out. Without it all are written.
    presets : collection of str, or mapping, optional
        Names of the microscopes that the program knows; with their contents as values, a microscope
        that was changed under an old name is told apart.

    Returns
    -------
    str
        One command line, preceded by ``cat > ... <<'JSON'`` lines where files are needed.
    """
    sources, files = provenance.get("sources", {}), {}
    words = ["napari-lfm", "run", str(provenance["method"]), sources.get("image", "INPUT.tif"), "-o", output]
    model = provenance.get("model")
    if model:
        words += ["--model", str(model.get("folder") or model["id"])]
    microscope = provenance.get("microscope")
    if provenance.get("microscope_source"):
        words += ["--microscope", str(provenance["microscope_source"])]
    elif microscope and _is_preset(microscope, presets):
        words += ["--microscope", microscope["name"]]
    elif microscope:
        files["microscope.json"] = microscope
        words += ["--microscope", "microscope.json"]
    if provenance.get("lattice"):
        files["grid.json"] = provenance["lattice"]
        words += ["--grid", "grid.json"]
    for name in ("white", "dark"):
        if name in provenance.get("inputs", {}):
            words += [f"--{name}", sources.get(name, f"{name.upper()}.tif")]
    if "psf" in provenance.get("inputs", {}):
        words += ["--psf", sources.get("psf", "PSF.tif")]
        said = provenance["inputs"]["psf"].get("read", {})
        if "voxel_um" in said:
            words += ["--psf-voxel-um", ",".join(repr(v) for v in said["voxel_um"])]
    if provenance.get("layout", "auto") != "auto":
        words += ["--layout", provenance["layout"]]
    read = provenance.get("inputs", {}).get("image", {}).get("read", {})
    if "axes" in read:
        words += ["--axes", read["axes"]]
    if "voxel_um" in read:
        words += ["--voxel-um", ",".join(repr(v) for v in read["voxel_um"])]
    if provenance.get("region_px"):
        words += ["--region-px", ",".join(map(str, provenance["region_px"]))]
    for name, value in provenance.get("parameters", {}).items():
        # None is every optional parameter's "not set", which needs no word
        if value is not None and not (defaults is not None and name in defaults and defaults[name] == value):
            words += ["--set", f"{name}={_shell_value(value)}"]
    if provenance.get("device", "auto") != "auto":
        words += ["--device", _device_kind(provenance["device"])]
    if provenance.get("memory_gib"):
        words += ["--memory-gib", f"{provenance['memory_gib']:g}"]
    lines = [f"cat > {name} <<'JSON'\n{json.dumps(content)}\nJSON\n" for name, content in files.items()]
    return "".join(lines) + shlex.join(map(str, words))


def _is_preset(microscope: Mapping[str, Any], presets: Collection[str] | Mapping[str, Any]) -> bool:
    name = str(microscope.get("name"))
    if isinstance(presets, Mapping):
        return name in presets and jsonable(presets[name]) == microscope
    return name in presets


def _shell_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _device_kind(device: str) -> str:
    return device.partition(":")[0]  # cuda:0 was that machine's; the command takes the kind


def as_python(provenance: Mapping[str, Any], *, output: str = "result.tif") -> str:
    """Return a Python script that repeats a run and saves its result.

    It uses the public API only; optics and lattice are written out in it.

    Parameters
    ----------
    provenance : mapping
        From `make_provenance` or `read_provenance`.
    output : str
        Where the result is to go.

    Returns
    -------
    str
    """
    inputs = provenance.get("inputs", {})
    light_field = _is_light_field(provenance)
    reader = "read_lightfield" if light_field else "read_image"
    imports = {
        "from napari_lfm.api import run",
        f"from napari_lfm.io.read import {reader}",
        "from napari_lfm.io.write import write_result",
    }
    body: list[str] = []
    arguments = [repr(str(provenance["method"])), "image"]
    keywords: list[str] = []
    if provenance.get("microscope"):
        imports.add("from napari_lfm.optics.microscope import Microscope")
        body.append(f"microscope = Microscope.model_validate(\n{_literal(provenance['microscope'])}\n)")
        keywords.append("microscope=microscope")
    if provenance.get("lattice"):
        imports.add("from napari_lfm.lightfield.lattice import Lattice")
        body.append(f"lattice = Lattice.from_json(\n{_literal(provenance['lattice'])}\n)")
        keywords.append("lattice=lattice")
    for name in ("image", "white", "dark", "psf"):
        if name not in inputs and name != "image":
            continue
        body.append(f"{name} = {_reading(name, provenance, light_field)}")
        if name != "image":
            keywords.append(f"{name}={name}")
    if provenance.get("model"):
        model = provenance["model"]
        keywords.append(f"model={(model.get('folder') or model['id'])!r}")
    for name, default in (("layout", "auto"), ("device", "auto"), ("memory_gib", None), ("region_px", None)):
        value = provenance.get(name, default)
        if value != default:
            if name == "device":
                value = _device_kind(value)
            keywords.append(f"{name}={tuple(value) if name == 'region_px' else value!r}")
    keywords += [f"{name}={value!r}" for name, value in provenance.get("parameters", {}).items()]
    arguments += keywords
    call = "result = run(\n" + "".join(f"    {a},\n" for a in arguments) + ")"
    version = provenance.get("versions", {}).get("napari-lfm", "")
    return (
        f'"""Repeat a run of napari-lfm {version} of {provenance.get("created", "an unknown date")}."""\n\n'
        + "\n".join(sorted(imports))
        + "\n\n"
        + "\n".join(body)
        + f"\n\n{call}\nfor path in write_result({output!r}, result):\n    print(path)\n"
    )


def _reading(name: str, provenance: Mapping[str, Any], light_field: bool) -> str:
    path = repr(str(provenance.get("sources", {}).get(name, f"{name.upper()}.tif")))
    entry = provenance.get("inputs", {}).get(name, {})
    read = entry.get("read", {})
    words = [path]
    if light_field:
        if provenance.get("microscope"):
            words.append("microscope")
        layout = provenance.get("layout", "auto")
        if name == "image" and layout != "auto":
            words.append(f"layout={layout!r}")
        if "axes" in read:
            words.append(f"axes={read['axes']!r}")
        return f"read_lightfield({', '.join(words)})"
    if name != "psf":
        words.append(f"kind={'stack' if 'z' in entry.get('dims', ()) else 'image'!r}")
    else:
        words.append("kind=None")
    words += [f"{key}={read[key]!r}" for key in ("axes", "voxel_um") if key in read]
    return f"read_image({', '.join(words)})"


def _is_light_field(provenance: Mapping[str, Any]) -> bool:
    if provenance.get("input_kind"):
        return bool(provenance["input_kind"] == "lightfield")
    dims = provenance.get("inputs", {}).get("image", {}).get("dims", [])
    lenslets = (provenance.get("microscope") or {}).get("lenslets")
    return dims == _LENSLET_DIMS or bool(provenance.get("lattice")) or ("z" not in dims and bool(lenslets))


def _literal(value: Any) -> str:
    text = pprint.pformat(value, width=100, sort_dicts=False)
    return "\n".join(f"    {line}" for line in text.splitlines())
